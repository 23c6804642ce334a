//! Every kernel of `kernels/` on the virtual GPU: right results, silence under every check, the same
//! bits for any number of threads, and the counters that a reader of the source expects.

mod common;

use std::collections::BTreeSet;
use std::time::Instant;

use common::references::NONE;
use common::{Case, Failure, Params, Rig, Run, case, cases, launch, spread};
use tollgate_vgpu::counters::{Counters, Traffic};
use tollgate_vgpu::host::{Config, Error, LaunchConfig};
use tollgate_vgpu::machine::Checks;
use tollgate_vgpu::report::Kind;

/// Schedules and data of size 0 of each case.
const SEEDS: u64 = 100;
/// Seeds of the other sizes: even and odd, which decides how products are compared.
const SEEDS_OF_EDGES: u64 = 4;

/// Runs a size of a case for seeds one after the other on one machine; the first thing that is wrong.
fn run_seeds(case: &Case, size: usize, seeds: std::ops::Range<u64>) -> Result<(), String> {
    // The machine's own seed decides how launches of several streams take turns.
    let config = Config {
        seed: seeds.start,
        ..case.config()
    };
    let rig = Rig::new(case.ptx, config).map_err(|e| format!("{}: {e}", case.name))?;
    for seed in seeds {
        let outcome = rig.run(case, size, seed);
        outcome
            .clean()
            .map_err(|e| format!("{}, size {size}, seed {seed}: {e}", case.name))?;
    }
    Ok(())
}

/// Fails with all that is wrong.
fn all_clean(results: Vec<Result<(), String>>) {
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(
        wrong.is_empty(),
        "{} failed:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

#[test]
fn kernels_match_their_references_and_are_silent_for_a_hundred_seeds() {
    let start = Instant::now();
    let cases = cases();
    // In parts, so that the longest case does not run alone at the end.
    let parts: Vec<(&Case, u64)> = (0..SEEDS)
        .step_by(25)
        .flat_map(|first| cases.iter().map(move |case| (case, first)))
        .collect();
    all_clean(spread(&parts, |&(case, first)| {
        run_seeds(case, 0, first..first + 25)
    }));
    println!(
        "{} cases silent and right for {SEEDS} seeds in {:.1} s",
        cases.len(),
        start.elapsed().as_secs_f64()
    );
}

#[test]
fn kernels_match_their_references_at_the_edges_and_at_larger_sizes() {
    let cases = cases();
    let sizes: Vec<(&Case, usize)> = cases
        .iter()
        .flat_map(|case| (1..case.sizes).map(move |size| (case, size)))
        .collect();
    all_clean(spread(&sizes, |&(case, size)| {
        run_seeds(case, size, 0..SEEDS_OF_EDGES)
    }));
    println!("{} cases at {} more sizes", cases.len(), sizes.len());
}

#[test]
fn every_entry_has_a_case_and_every_case_an_entry() {
    let mut entries = BTreeSet::new();
    let mut launched = BTreeSet::new();
    for case in cases() {
        let rig = Rig::of(&case);
        entries.extend(rig.module().functions().iter().map(|f| f.name().to_owned()));
        let outcome = rig.run(&case, 0, 0);
        launched.extend(
            outcome
                .launches
                .iter()
                .map(|launch| launch.kernel.to_string()),
        );
        assert!(launched.contains(case.entry()), "{}", case.name);
    }
    assert_eq!(entries, launched);
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels");
    let in_directory: BTreeSet<String> = std::fs::read_dir(directory)
        .expect("the kernels' directory")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".ptx")?.to_owned()))
        .collect();
    let in_cases: BTreeSet<String> = cases().iter().map(|case| case.file.to_owned()).collect();
    assert_eq!(in_directory, in_cases);
}

#[test]
fn results_and_counters_do_not_depend_on_the_number_of_threads() {
    let cases = cases();
    let largest: Vec<(&Case, usize)> = cases.iter().map(|case| (case, case.sizes - 1)).collect();
    all_clean(spread(&largest, |&(case, size)| {
        let run = |threads, checks| -> Result<_, String> {
            let config = Config {
                threads,
                checks,
                ..case.config()
            };
            let rig = Rig::new(case.ptx, config).map_err(|e| e.to_string())?;
            let outcome = rig.run(case, size, 1);
            outcome.clean()?;
            let launches = outcome.launches.into_iter();
            let counters: Vec<Counters> = launches.map(|launch| launch.counters).collect();
            Ok((outcome.digest, counters))
        };
        let one = run(1, Checks::NONE)?;
        for threads in [2, 3] {
            if run(threads, Checks::NONE)? != one {
                return Err(format!(
                    "{}: {threads} threads give other results",
                    case.name
                ));
            }
        }
        // Checks look on and change nothing.
        match run(2, Checks::ALL)?.0 == one.0 {
            true => Ok(()),
            false => Err(format!("{}: checks change the results", case.name)),
        }
    }));
}

#[test]
fn a_seed_can_be_seen_again() {
    for name in [
        "all_to_all:four devices",
        "gemm_nt_cluster2_sm90a",
        "grid_barrier_stencil",
    ] {
        let case = case(name);
        let run = |seed| {
            let outcome = Rig::of(&case).run(&case, 0, seed);
            outcome.clean().unwrap_or_else(|e| panic!("{name}: {e}"));
            let waits = |c: &Counters| (c.barrier_waits, c.total_instructions());
            let launches = outcome.launches.iter();
            let waits: Vec<_> = launches.map(|launch| waits(&launch.counters)).collect();
            (outcome.digest, waits)
        };
        assert_eq!(run(7), run(7), "{name}");
        assert_ne!(
            run(7).1,
            run(8).1,
            "{name}: another seed is another schedule"
        );
    }
}

#[test]
fn wrong_kernels_are_noticed() {
    let outcome = |name: &str, right: &str, wrong: &str| {
        let case = case(name);
        assert!(case.ptx.contains(right), "{name}");
        let rig = Rig::new(&case.ptx.replace(right, wrong), case.config());
        rig.expect("it loads").run(&case, 0, 0)
    };
    // A value.
    let found = outcome("jump_table", "add.u32 %v, %v, 1;", "add.u32 %v, %v, 2;");
    assert!(matches!(&found.result, Err(Failure::Wrong(text)) if text.starts_with("out[")));
    assert!(found.reports.is_empty());
    // An order.
    let found = outcome("transpose_f32", "bar.sync \t0;", "");
    assert_eq!(found.reports[0].kind, Kind::Race);
    // An address; the launch faults.
    let found = outcome("wide_add", "[%at + 8], %x2;", "[%at + 800], %x2;");
    assert!(matches!(
        &found.result,
        Err(Failure::Machine(Error::Faulted(_)))
    ));
    assert_eq!(found.reports[0].kind, Kind::OutOfBounds);
    assert!(found.clean().is_err());
}

#[test]
fn a_trap_ends_the_launch_and_names_its_place() {
    let case = case("trap_unless_below");
    let rig = Rig::of(&case);
    let run = rig.start(0);
    let x: Vec<u32> = (0..100).collect();
    let out = run.alloc::<u32>(100).expect("memory");
    let params = Params::new()
        .u64(run.upload(&x).expect("memory"))
        .u64(out)
        .u32(100)
        .u32(70);
    run.launch("trap_unless_below", &launch(4, 32, 0), &params)
        .expect("a launch");
    let error = rig.machine().synchronize_device(0).expect_err("it traps");
    let Error::Faulted(report) = error else {
        panic!("{error}");
    };
    assert_eq!(report.kind, Kind::Trap);
    assert_eq!(report.kernel, "trap_unless_below");
    assert_eq!(report.site.block.map(|b| b[0] >= 2), Some(true), "{report}");
    let source = report.site.source.as_ref().expect("a line of the source");
    let text = include_str!("kernels/language.cu");
    let line = text.lines().nth(source.line as usize - 1);
    assert_eq!(line.map(str::trim), Some("__trap();"), "{report}");
    // The error stays until the device is reset.
    assert!(matches!(rig.machine().alloc(0, 16), Err(Error::Faulted(_))));
}

#[test]
fn module_variables_start_with_their_values_and_keep_what_kernels_write() {
    let case = case("constants");
    let rig = Rig::of(&case);
    let (calls, bytes) = rig.module().global("GLOBAL_CALLS").expect("it exists");
    assert_eq!(bytes, 4);
    for seed in 0..3 {
        rig.run(&case, 0, seed).clean().expect("right results");
    }
    let mut count = [0; 4];
    rig.machine().read(calls, &mut count).expect("memory");
    assert_eq!(u32::from_le_bytes(count), 3 * 75);
}

#[test]
fn a_cooperative_grid_that_does_not_fit_is_refused() {
    let case = case("grid_barrier_stencil");
    let rig = Rig::of(&case);
    let run = rig.start(0);
    let data = run.upload(&[1u32; 64]).expect("memory");
    let params = Params::new().u64(data).u64(data).u32(64).u32(0).u64(data);
    let config = |grid| LaunchConfig {
        cooperative: true,
        ..launch(grid, 1024, 0)
    };
    let entry = "grid_barrier_stencil";
    let function = rig.module().function(entry).expect("it exists");
    let machine = rig.machine();
    let per_sm = machine
        .max_active_blocks(&function, 1024, 0)
        .expect("it fits");
    assert!(per_sm == 1 || per_sm == 2, "{per_sm} of 1024 threads");
    let most = (per_sm * machine.arch().multiprocessors) as usize;
    run.launch(entry, &config(most), &params).expect("it fits");
    let error = run.launch(entry, &config(most + 1), &params);
    let refused = matches!(error, Err(Failure::Machine(Error::InvalidLaunch(_))));
    assert!(refused, "{error:?}");
}

/// Counters of a launch by hand on the machine of a case.
fn counters_of(name: &str, work: impl Fn(&Run<'_>)) -> Counters {
    let rig = Rig::of(&case(name));
    let run = rig.start(0);
    work(&run);
    rig.machine().synchronize_device(0).expect("it runs");
    let mut launches = rig.machine().take_launches();
    assert_eq!(launches.len(), 1);
    launches.remove(0).counters
}

fn moved_bytes(counters: &Counters) -> u64 {
    counters.global_read.moved_bytes() + counters.global_write.moved_bytes()
}

#[test]
fn gather_moves_little_more_than_the_rows() {
    const ROWS: usize = 32;
    const HIDDEN: usize = 4096;
    let counters = counters_of("gather_rows_16b", |run| {
        let src = run.upload(&vec![1u16; ROWS * HIDDEN]).expect("memory");
        let dst = run.alloc::<u16>(ROWS * HIDDEN).expect("memory");
        let mut row_of: Vec<u32> = (0..ROWS as u32).rev().collect();
        row_of[3] = NONE;
        let params = Params::new()
            .u64(src)
            .u64(dst)
            .u64(run.upload(&row_of).expect("memory"))
            .len(ROWS)
            .len(HIDDEN / 8)
            .u64(HIDDEN as u64 / 8)
            .u64(HIDDEN as u64 / 8);
        run.launch("gather_rows_16b", &launch(8, 256, 0), &params)
            .expect("a launch");
    });
    let rows = 2 * HIDDEN as u64;
    let must = (2 * ROWS as u64 - 1) * rows + 4 * ROWS as u64;
    let share = moved_bytes(&counters) as f64 / must as f64;
    assert!((1.0..=1.03).contains(&share), "{share}");
    assert_eq!(counters.global_write.moved_bytes(), ROWS as u64 * rows);
}

#[test]
fn softmax_moves_little_more_than_logits_and_probabilities() {
    const TOKENS: usize = 16;
    const EXPERTS: usize = 1024;
    const K: usize = 4;
    let counters = counters_of("softmax_topk_e1024", |run| {
        let logits = run.random().units(TOKENS * EXPERTS);
        let params = Params::new()
            .u64(run.upload(&logits).expect("memory"))
            .u64(run.alloc::<f32>(TOKENS * EXPERTS).expect("memory"))
            .u64(run.alloc::<f32>(TOKENS * K).expect("memory"))
            .u64(run.alloc::<u32>(TOKENS * K).expect("memory"))
            .len(TOKENS)
            .len(EXPERTS)
            .len(K);
        run.launch("softmax_topk_e1024", &launch(4, 128, 0), &params)
            .expect("a launch");
    });
    let must = (TOKENS * (2 * 4 * EXPERTS + 8 * K)) as f64;
    let share = moved_bytes(&counters) as f64 / must;
    assert!((1.0..=1.05).contains(&share), "{share}");
}

#[test]
fn padding_frees_the_transpose_of_conflicts() {
    const SIDE: usize = 64;
    let shared = |entry: &str| -> [Traffic; 2] {
        let counters = counters_of("transpose_f32", |run| {
            let params = Params::new()
                .u64(run.upload(&vec![1f32; SIDE * SIDE]).expect("memory"))
                .u64(run.alloc::<f32>(SIDE * SIDE).expect("memory"))
                .len(SIDE)
                .len(SIDE);
            let config = LaunchConfig::new([2, 2, 1], [32, 8, 1]);
            run.launch(entry, &config, &params).expect("a launch");
        });
        [counters.shared_read, counters.shared_write]
    };
    let rows = (SIDE * SIDE / 32) as u64;
    let [read, write] = shared("transpose_f32");
    assert_eq!([read.instructions, write.instructions], [rows, rows]);
    assert_eq!([read.wavefronts, write.wavefronts], [rows, rows]);
    assert_eq!([read.conflicts, write.conflicts], [0, 0]);

    let [read, write] = shared("transpose_conflicts_f32");
    assert_eq!([write.wavefronts, write.conflicts], [rows, 0]);
    // All lanes of a load meet one bank: 32 passes for the work of one.
    assert_eq!([read.wavefronts, read.conflicts], [32 * rows, 31 * rows]);
}

/// Counters of the launch of a case.
fn counters_of_case(name: &str, size: usize) -> Counters {
    let case = case(name);
    let outcome = Rig::of(&case).run(&case, size, 0);
    outcome.clean().unwrap_or_else(|e| panic!("{name}: {e}"));
    outcome.launches[0].counters.clone()
}

#[test]
fn products_are_free_of_conflicts_and_their_flops_are_exact() {
    // Size 0: 5 and 66 rows by 72 columns are (1 + 2) x 2 tiles of 64 x 64; K = 136 is 5 steps of 32.
    for name in ["gemm_grouped_nt_sm80", "gemm_grouped_nn_sm80"] {
        let counters = counters_of_case(name, 0);
        assert_eq!(counters.tensor_flops, 6 * 5 * 2 * 64 * 64 * 32, "{name}");
        assert_eq!(counters.shared_read.conflicts, 0, "{name}");
        // `ldmatrix` alone: 4 warps, 2 halves of K, 2 of A and 2 of B.
        assert_eq!(
            counters.shared_read.instructions,
            6 * 5 * 4 * 2 * 4,
            "{name}"
        );
    }

    // Size 0: 2 tiles of 128 x 128; K = 136 is 3 steps of 64.
    let step = 2 * 128 * 128 * 64;
    let counters = counters_of_case("gemm_nt_sm90a", 0);
    assert_eq!(counters.tensor_flops, 2 * 3 * step);
    assert_eq!(counters.shared_write.conflicts, 0, "stmatrix");
    // Two of these above each other, and as many beside.
    let counters = counters_of_case("gemm_nt_cluster2_sm90a", 0);
    assert_eq!(counters.tensor_flops, 4 * 3 * step);

    // K = 136 of 64 x 128.
    let counters = counters_of_case("wgmma_relu_registers_sm90a", 0);
    assert_eq!(counters.tensor_flops, 3 * 2 * 64 * 128 * 64);
    assert_eq!(counters.shared_read.conflicts, 0, "ldmatrix");
}

#[test]
fn launches_are_recorded_for_each_device() {
    let case = case("grid_barrier_stencil:two devices");
    let outcome = Rig::of(&case).run(&case, 0, 3);
    outcome.clean().expect("right results");
    let launches = outcome.launches.iter();
    let devices: BTreeSet<u32> = launches.map(|launch| launch.device).collect();
    assert_eq!(devices, BTreeSet::from([0, 1]));
}
