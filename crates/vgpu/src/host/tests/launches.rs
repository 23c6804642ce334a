//! Launches: what they do, what is counted, and what is refused.

use super::*;

#[test]
fn a_launch_is_recorded() {
    let (machine, module) = machine();
    let out = machine.alloc(0, 4 * 3 * 64).unwrap();
    let store = module.function("store").unwrap();
    let stream = machine.default_stream(0).unwrap();
    let config = LaunchConfig::new([3, 1, 1], [64, 1, 1]);
    machine
        .launch(stream, &store, &config, &params(&store, [out, 7]))
        .unwrap();
    assert_eq!(read_words(&machine, out, 192), [7; 192]);
    let launches = machine.take_launches();
    assert_eq!(launches.len(), 1);
    let launch = &launches[0];
    assert_eq!(
        (&*launch.kernel, launch.grid, launch.block),
        ("store", [3, 1, 1], [64, 1, 1])
    );
    assert_eq!(launch.counters.blocks, 3);
    assert_eq!(launch.counters.global_write.requested_bytes, 768);
    assert_eq!(launch.counters.global_write.sectors, 24);
    assert_eq!(launch.occupancy.blocks_per_sm, 32);
    assert_eq!(launch.occupancy.limited_by, Limit::Threads);
    assert!(launch.complete && launch.cycles > 0);
    assert!(
        serde_json::to_string(launch)
            .unwrap()
            .contains("\"limited_by\":\"threads\"")
    );
    assert!(machine.take_reports().is_empty() && machine.take_launches().is_empty());
}

#[test]
fn illegal_launches_name_value_and_bound() {
    let (machine, module) = machine();
    let stream = machine.default_stream(0).unwrap();
    let plain = LaunchConfig::new([1; 3], [32, 1, 1]);
    let grid = |grid| LaunchConfig { grid, ..plain };
    let block = |block| LaunchConfig { block, ..plain };
    let cluster = |x, grid| LaunchConfig {
        cluster: Some([x, 1, 1]),
        grid: [grid, 1, 1],
        ..plain
    };
    let cases: &[(&str, LaunchConfig, &str)] = &[
        (
            "nothing",
            grid([0, 1, 1]),
            "the grid has 0 blocks along x; 1 to 2147483647 are possible",
        ),
        (
            "nothing",
            grid([1, 65_536, 1]),
            "65536 blocks along y; 1 to 65535",
        ),
        ("nothing", block([1, 1, 65]), "65 threads along z; 1 to 64"),
        (
            "nothing",
            block([1024, 2, 1]),
            "the block has 2048 threads; 1024 at most",
        ),
        (
            "small",
            block([65, 1, 1]),
            "the block has 65 threads; small allows 64 (.maxntid)",
        ),
        (
            "exact",
            block([32, 1, 1]),
            "a block of 32x1x1 threads; exact requires 64x1x1 (.reqntid)",
        ),
        (
            "heavy",
            block([512, 1, 1]),
            "512 threads of 255 registers do not fit",
        ),
        (
            "nothing",
            LaunchConfig {
                dynamic_shared: 49_153,
                ..plain
            },
            "49153 bytes of dynamic shared memory; the function allows 49152",
        ),
        (
            "nothing",
            cluster(9, 9),
            "a cluster of 9 blocks; 1 to 8 are possible",
        ),
        (
            "nothing",
            cluster(4, 6),
            "a grid of 6 blocks along x is not divided by clusters of 4",
        ),
        (
            "nothing",
            LaunchConfig {
                cooperative: true,
                ..grid([132 * 32 + 1, 1, 1])
            },
            "a cooperative grid of 4225 blocks; the device holds 4224 at once (32 on each of 132 SMs",
        ),
    ];
    for (name, config, says) in cases {
        let function = module.function(name).unwrap();
        let error = machine.launch(stream, &function, config, &[]).unwrap_err();
        assert!(matches!(error, Error::InvalidLaunch(_)), "{error:?}");
        assert!(error.to_string().contains(says), "{name}: {error}");
        let reports = machine.take_reports();
        assert_eq!(kinds(&reports), [Kind::Launch]);
        assert!(reports[0].message.contains(says) && reports[0].kernel == *name);
    }
    let store = module.function("store").unwrap();
    let error = machine.launch(stream, &store, &plain, &[0; 8]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("8 bytes of parameters; store takes 12"),
        "{error}"
    );
    // None of them ran, and the device is well.
    machine.synchronize_device(0).unwrap();
    assert!(machine.take_launches().is_empty());
}

#[test]
fn what_was_opted_in_is_legal() {
    let (machine, module) = machine();
    let stream = machine.default_stream(0).unwrap();
    let function = module.function("nothing").unwrap();
    let plain = LaunchConfig::new([16, 1, 1], [32, 1, 1]);
    function.set_max_dynamic_shared(200_000).unwrap();
    let large = LaunchConfig {
        dynamic_shared: 200_000,
        ..plain
    };
    machine.launch(stream, &function, &large, &[]).unwrap();
    function.allow_non_portable_cluster(true).unwrap();
    let wide = LaunchConfig {
        cluster: Some([16, 1, 1]),
        ..plain
    };
    machine.launch(stream, &function, &wide, &[]).unwrap();
    assert_eq!(machine.max_cluster_size(&function, &plain).unwrap(), 16);
    assert_eq!(machine.max_active_clusters(&function, &wide).unwrap(), 264);
    function.set_cluster_dims([2, 1, 1]).unwrap();
    machine.launch(stream, &function, &plain, &[]).unwrap();
    machine.synchronize(stream).unwrap();
    let clusters: Vec<u32> = machine
        .take_launches()
        .iter()
        .map(|l| l.cluster[0])
        .collect();
    assert_eq!(clusters, [1, 16, 2]);
    let old = machine_of(Config {
        arch: Arch::SM_80,
        ..config()
    });
    let module = old.load(0, KERNELS).unwrap();
    let function = module.function("nothing").unwrap();
    let error = old.launch(stream, &function, &wide, &[]).unwrap_err();
    assert!(
        error.to_string().contains("sm_80 has no clusters"),
        "{error}"
    );
}

#[test]
fn occupancy_is_asked_for() {
    let (machine, module) = machine();
    let nothing = module.function("nothing").unwrap();
    assert_eq!(machine.max_active_blocks(&nothing, 1024, 0).unwrap(), 2);
    assert_eq!(machine.max_active_blocks(&nothing, 32, 40_000).unwrap(), 5);
    assert_eq!(machine.max_active_blocks(&nothing, 32, 60_000).unwrap(), 0);
    assert!(machine.max_active_blocks(&nothing, 1025, 0).is_err());
    assert_eq!(
        machine
            .max_potential_block_size(&nothing, |_| 0, 0)
            .unwrap(),
        (264, 1024)
    );
    assert_eq!(
        machine
            .max_potential_block_size(&nothing, |_| 0, 256)
            .unwrap(),
        (1056, 256)
    );
    let small = module.function("small").unwrap();
    assert_eq!(
        machine.max_potential_block_size(&small, |_| 0, 0).unwrap(),
        (32 * 132, 64)
    );
}

#[test]
fn a_trace_keeps_the_first_instructions() {
    let machine = machine_of(Config {
        trace: Some(3),
        ..config()
    });
    let module = machine.load(0, KERNELS).unwrap();
    let out = machine.alloc(0, 128).unwrap();
    module.go(
        &machine,
        machine.default_stream(0).unwrap(),
        "store",
        [out, 7],
    );
    machine.synchronize_device(0).unwrap();
    let traces = machine.take_trace();
    assert_eq!(traces.len(), 1);
    let pcs: Vec<u32> = traces[0].1.iter().map(|line| line.pc).collect();
    assert_eq!((traces[0].0, pcs), (0, vec![0, 1, 2]));
}

#[test]
fn threads_do_not_change_what_happens() {
    let run = |threads| {
        let machine = machine_of(Config {
            threads,
            checks: Checks::NONE,
            ..config()
        });
        let module = machine.load(0, KERNELS).unwrap();
        let out = machine.alloc(0, 4 * 5000 * 32).unwrap();
        let store = module.function("store").unwrap();
        let stream = machine.default_stream(0).unwrap();
        let config = LaunchConfig::new([5000, 1, 1], [32, 1, 1]);
        machine
            .launch(stream, &store, &config, &params(&store, [out, 3]))
            .unwrap();
        let words = read_words(&machine, out, 5000 * 32);
        assert!(words.iter().all(|&word| word == 3));
        machine.take_launches()
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn a_grid_that_is_too_large_for_its_budget_ends() {
    let machine = machine_of(Config {
        checks: Checks::NONE,
        budget: 20_000,
        ..config()
    });
    let module = machine.load(0, KERNELS).unwrap();
    let nothing = module.function("nothing").unwrap();
    let stream = machine.default_stream(0).unwrap();
    let config = LaunchConfig::new([i32::MAX as u32, 65_535, 65_535], [32, 1, 1]);
    machine.launch(stream, &nothing, &config, &[]).unwrap();
    let Err(Error::Faulted(report)) = machine.synchronize(stream) else {
        panic!("it must end");
    };
    assert_eq!(report.kind, Kind::Livelock);
}
