//! From blocks of tokens to routing table and losses.

use tollgate_core::options::{AuxLoss, GateOptions, GatingDropout};
use tollgate_core::{DropMode, Router, RoutingTable, StepContext};
use tollgate_device::testing::devices;
use tollgate_device::{Gpu, Stream, WorkspaceLayout};
use tollgate_gating::gpu::losses::{LossPart, LossPlan};
use tollgate_gating::gpu::table::{FinishPlan, TableMut, finish};
use tollgate_testkit::{Data, assert_same};

use crate::support::{Fenced, seeded, some_context, step_block, workspace, workspace_memory};

/// A problem: every token's experts, and how they are given to the device.
struct Problem {
    rows: Vec<Vec<(i32, f32)>>,
    experts: usize,
    k_max: usize,
    tokens_per_block: usize,
    direct: bool,
    options: Option<GateOptions>,
    ctx: StepContext,
}

#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    table: RoutingTable,
    load: Vec<f64>,
    losses: Vec<f64>,
}

/// Tokens with `count(token)` distinct experts.
fn rows(
    tokens: usize,
    experts: usize,
    count: impl Fn(usize, &mut Data) -> usize,
) -> Vec<Vec<(i32, f32)>> {
    let mut data = Data::new(tokens as u64 * 31 + experts as u64);
    (0..tokens)
        .map(|t| {
            let k = count(t, &mut data);
            let first = data.below(experts);
            (0..k)
                .map(|c| (((first + c) % experts) as i32, data.uniform() as f32))
                .collect()
        })
        .collect()
}

/// The sums that a gate would leave, and what is made of them in one go.
struct Sums {
    counts: Vec<i32>,
    histogram: Vec<i32>,
    load: Vec<i32>,
    shares: Vec<f32>,
    squares: Vec<f64>,
}

impl Sums {
    fn of(problem: &Problem) -> Self {
        let e = problem.experts;
        let blocks = problem.rows.len().div_ceil(problem.tokens_per_block);
        let mut data = Data::new(99);
        let mut sums = Self {
            counts: vec![0; blocks],
            histogram: vec![0; blocks * e],
            load: vec![0; blocks * e],
            shares: (0..blocks * e)
                .map(|_| data.uniform().abs() as f32)
                .collect(),
            squares: (0..blocks).map(|_| data.uniform().abs()).collect(),
        };
        for (t, row) in problem.rows.iter().enumerate() {
            let b = t / problem.tokens_per_block;
            sums.counts[b] += row.len() as i32;
            for &(expert, _) in row {
                sums.histogram[b * e + expert as usize] += 1;
            }
            if let [(only, _)] = row[..] {
                sums.load[b * e + only as usize] += 1;
            }
        }
        sums
    }
}

fn expected(problem: &Problem, sums: &Sums) -> Outcome {
    let table = RoutingTable::from_rows(problem.experts, &problem.rows).unwrap();
    let (mut load, mut losses) = (Vec::new(), vec![0.0; 2]);
    if let Some(options) = &problem.options {
        let e = problem.experts;
        let tokens = problem.rows.len().max(1) as f64;
        load = vec![0.0; e];
        let mut shares = vec![0.0; e];
        for (i, (&count, share)) in sums.load.iter().zip(&sums.shares).enumerate() {
            load[i % e] += f64::from(count);
            shares[i % e] += f64::from(*share) / tokens;
        }
        let total = load.iter().sum::<f64>().max(1.0);
        load.iter_mut().for_each(|f| *f /= total);
        let dot: f64 = load.iter().zip(&shares).map(|(f, p)| f * p).sum();
        losses[0] = f64::from(options.balance_alpha) * e as f64 * dot;
        losses[1] = f64::from(options.z_coefficient) * sums.squares.iter().sum::<f64>() / tokens;
    }
    Outcome {
        table,
        load,
        losses,
    }
}

/// Lets a device finish the problem, with outputs on a misaligned address.
fn run(gpu: &Gpu, problem: &Problem, sums: &Sums, misalign: usize) -> Outcome {
    let stream = gpu.default_stream();
    let (tokens, e, k) = (problem.rows.len(), problem.experts, problem.k_max);
    let mut layout = WorkspaceLayout::new();
    let per_block = problem.tokens_per_block;
    let plan = FinishPlan::new(&mut layout, tokens, e, k, per_block, problem.direct).unwrap();
    let losses_of = problem.options.as_ref();
    let loss_plan =
        losses_of.map(|options| LossPlan::new(&mut layout, &plan, options, false).unwrap());
    let mut memory = workspace_memory(gpu, &layout);
    let workspace = workspace(&mut memory, &layout);

    let mut slots = vec![-1; tokens * k];
    let mut weights = vec![f32::NAN; tokens * k];
    for (t, row) in problem.rows.iter().enumerate() {
        for (c, &(expert, weight)) in row.iter().enumerate() {
            slots[t * k + c] = expert;
            weights[t * k + c] = weight;
        }
    }
    stream
        .write(workspace.array(plan.block_counts).unwrap(), &sums.counts)
        .unwrap();
    stream
        .write(
            workspace.array(plan.block_histogram).unwrap(),
            &sums.histogram,
        )
        .unwrap();
    let mut indices = Fenced::new(gpu, tokens * k, misalign);
    let mut routing_weights = Fenced::new(gpu, tokens * k, misalign);
    if problem.direct {
        stream.write(indices.get_mut(), &slots).unwrap();
        stream.write(routing_weights.get_mut(), &weights).unwrap();
    } else {
        stream
            .write(workspace.array(plan.slot_experts).unwrap(), &slots)
            .unwrap();
        stream
            .write(workspace.array(plan.slot_weights).unwrap(), &weights)
            .unwrap();
    }
    if let Some(plan) = &loss_plan {
        stream
            .write(workspace.array(plan.block_shares).unwrap(), &sums.shares)
            .unwrap();
        stream
            .write(workspace.array(plan.block_squares).unwrap(), &sums.squares)
            .unwrap();
        stream
            .write(workspace.array(plan.load_histogram).unwrap(), &sums.load)
            .unwrap();
    }
    let mut token_offsets = Fenced::<i32>::new(gpu, tokens + 1, misalign);
    let mut expert_offsets = Fenced::<i32>::new(gpu, e + 1, misalign);
    let mut load = Fenced::<f64>::new(gpu, if losses_of.is_some() { e } else { 0 }, 0);
    let mut losses = Fenced::<f64>::new(gpu, 2, 0);
    let step = gpu.upload(stream, &[step_block(&problem.ctx)]).unwrap();
    let part = losses_of.zip(loss_plan).map(|(options, plan)| LossPart {
        plan,
        options,
        training: problem.ctx.training,
        step: step.slice(),
        load: load.get_mut(),
        losses: losses.get_mut(),
    });
    let mut table = TableMut {
        token_offsets: token_offsets.get_mut(),
        expert_indices: indices.get_mut(),
        routing_weights: routing_weights.get_mut(),
        expert_offsets: expert_offsets.get_mut(),
    };
    finish(gpu, stream, &plan, &workspace, part.as_ref(), &mut table).unwrap();
    stream.synchronize().unwrap();

    let token_offsets = token_offsets.read(stream);
    let used = token_offsets[tokens] as usize;
    let mut table = RoutingTable {
        token_offsets,
        expert_indices: indices.read(stream),
        routing_weights: routing_weights.read(stream),
        expert_offsets: expert_offsets.read(stream),
    };
    table.expert_indices.truncate(used);
    table.routing_weights.truncate(used);
    Outcome {
        table,
        load: load.read(stream),
        losses: match losses_of {
            Some(_) => losses.read(stream),
            None => vec![0.0; 2],
        },
    }
}

#[track_caller]
fn check(what: &str, actual: &Outcome, expected: &Outcome) {
    let (a, e) = (&actual.table, &expected.table);
    assert_same(what, &a.token_offsets, &e.token_offsets);
    assert_same(what, &a.expert_offsets, &e.expert_offsets);
    assert_same(what, &a.expert_indices, &e.expert_indices);
    assert_same(what, &a.routing_weights, &e.routing_weights);
    // The counts are exact and divided once.
    assert_same(what, &actual.load, &expected.load);
    for (a, e) in actual.losses.iter().zip(&expected.losses) {
        // A few thousand additions in f64.
        assert!((a - e).abs() <= 1e-12 * e.abs(), "{what}: {a} and {e}");
    }
}

fn problem(tokens: usize, experts: usize, k_max: usize, direct: bool) -> Problem {
    let count = move |t: usize, data: &mut Data| match direct {
        true if t % 7 == 3 => 1,
        true => k_max,
        false => data.below(k_max + 1),
    };
    Problem {
        rows: rows(tokens, experts, count),
        experts,
        k_max,
        tokens_per_block: 64,
        direct,
        options: None,
        ctx: some_context(),
    }
}

#[test]
fn tables_are_those_of_the_rows() {
    for (name, gpu) in devices() {
        for (tokens, experts, k) in [
            (0, 4, 2),
            (1, 1, 1),
            (1, 7, 2),
            (63, 8, 2),
            (300, 40, 3),
            (1024, 16, 2),
            (1025, 16, 1),
            (2500, 1030, 8),
        ] {
            for direct in [false, true] {
                let mut problem = problem(tokens, experts, k, direct);
                let sums = Sums::of(&problem);
                let what = format!("{name}: {tokens} tokens, {experts} experts, {k}, {direct}");
                check(
                    &what,
                    &run(gpu, &problem, &sums, tokens % 4),
                    &expected(&problem, &sums),
                );
                // All slots used, and none.
                for all in [k, 0] {
                    problem.rows = rows(tokens, experts, |_, _| all);
                    let sums = Sums::of(&problem);
                    check(
                        &what,
                        &run(gpu, &problem, &sums, 0),
                        &expected(&problem, &sums),
                    );
                }
            }
        }
    }
}

#[test]
fn many_blocks_are_summed_before() {
    for (name, gpu) in devices() {
        for direct in [false, true] {
            let mut problem = problem(2100, 33, 2, direct);
            // 2100 blocks of one token each, and 263 of 8 with more histogram entries than one
            // block adds.
            for (per_block, experts) in [(1, 33), (8, 300)] {
                problem.tokens_per_block = per_block;
                problem.experts = experts;
                problem.options = Some(GateOptions::new(Router::Adaptive { tau: 0.1 }));
                let sums = Sums::of(&problem);
                let what = format!("{name}: {per_block} a block, direct {direct}");
                check(
                    &what,
                    &run(gpu, &problem, &sums, 0),
                    &expected(&problem, &sums),
                );
            }
        }
    }
}

#[test]
fn losses_are_those_of_the_sums() {
    for (name, gpu) in devices() {
        for (tokens, experts) in [(0, 3), (1, 1), (700, 5), (1500, 70), (300, 1100)] {
            let mut problem = problem(tokens, experts, 2.min(experts), false);
            problem.options = Some(GateOptions::new(Router::Adaptive { tau: 0.1 }));
            let mut sums = Sums::of(&problem);
            let what = format!("{name}: {tokens} tokens, {experts} experts");
            check(
                &what,
                &run(gpu, &problem, &sums, 0),
                &expected(&problem, &sums),
            );
            if tokens > 0 {
                // A faulty row.
                sums.shares[0] = f32::NAN;
                sums.squares[0] = f64::NAN;
                let outcome = run(gpu, &problem, &sums, 0);
                assert!(outcome.losses.iter().all(|l| l.is_nan()), "{what}");
                // A coefficient of 0 hides it.
                let options = problem.options.as_mut().unwrap();
                options.balance_alpha = 0.0;
                options.z_coefficient = 0.0;
                assert_eq!(run_without(gpu, &problem), [0.0; 2], "{what}");
            }
        }
    }
}

/// The losses with coefficients of 0: no sums are there to be read.
fn run_without(gpu: &Gpu, problem: &Problem) -> [f64; 2] {
    let sums = Sums {
        load: Vec::new(),
        shares: Vec::new(),
        squares: Vec::new(),
        ..Sums::of(problem)
    };
    let outcome = run(gpu, problem, &sums, 0);
    [outcome.losses[0], outcome.losses[1]]
}

#[test]
fn a_dropped_step_is_silent_where_that_is_asked_for() {
    for (name, gpu) in devices() {
        let mut problem = problem(50, 4, 2, false);
        let mut options = GateOptions::new(Router::Adaptive { tau: 0.1 });
        let mut dropout = GatingDropout::new(0.5, DropMode::Gate);
        dropout.aux_loss = AuxLoss::Zero;
        options.gating_dropout = Some(dropout);
        problem.options = Some(options);
        let sums = Sums::of(&problem);
        let mut seen = [false; 2];
        for step in 0..8 {
            problem.ctx.step = step;
            let dropped = tollgate_gating::dropout::dropped(&dropout, &problem.ctx);
            seen[usize::from(dropped)] = true;
            let mut expected = expected(&problem, &sums);
            if dropped {
                expected.losses.fill(0.0);
            }
            check(name, &run(gpu, &problem, &sums, 0), &expected);
            problem.ctx.training = false;
            let outcome = run(gpu, &problem, &sums, 0);
            assert!(outcome.losses[0] > 0.0);
            problem.ctx.training = true;
        }
        assert_eq!(seen, [true; 2]);
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    let mut slots = problem(130, 6, 2, false);
    slots.options = Some(GateOptions::new(Router::Adaptive { tau: 0.1 }));
    let direct = problem(130, 6, 2, true);
    for problem in [slots, direct] {
        let sums = Sums::of(&problem);
        let mut first: Option<Outcome> = None;
        for seed in 0..50 {
            let outcome = run(&seeded(seed), &problem, &sums, 0);
            let losses = |o: &Outcome| o.losses.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
            let first = first.get_or_insert_with(|| outcome.clone());
            check("seeds", &outcome, first);
            assert_eq!(losses(&outcome), losses(first));
        }
    }
}

#[test]
fn a_captured_launch_can_be_replayed() {
    for (_, gpu) in devices() {
        let stream: &Stream = &gpu.stream().unwrap();
        let mut layout = WorkspaceLayout::new();
        let plan = FinishPlan::new(&mut layout, 3, 4, 2, 64, false).unwrap();
        let mut memory = workspace_memory(gpu, &layout);
        let workspace = workspace(&mut memory, &layout);
        let mut offsets = Fenced::<i32>::new(gpu, 4, 0);
        let mut indices = Fenced::<i32>::new(gpu, 6, 0);
        let mut weights = Fenced::<f32>::new(gpu, 6, 0);
        let mut expert_offsets = Fenced::<i32>::new(gpu, 5, 0);
        gpu.default_stream().synchronize().unwrap();
        let mut table = TableMut {
            token_offsets: offsets.get_mut(),
            expert_indices: indices.get_mut(),
            routing_weights: weights.get_mut(),
            expert_offsets: expert_offsets.get_mut(),
        };
        let graph = stream
            .capture(|stream| finish(gpu, stream, &plan, &workspace, None, &mut table))
            .unwrap();
        for slots in [[2, -1, 0, 3, 1, 2], [-1, -1, 3, -1, -1, -1]] {
            let mut histogram = [0; 4];
            slots
                .iter()
                .filter(|&&e| e >= 0)
                .for_each(|&e| histogram[e as usize] += 1);
            let used: Vec<i32> = slots.iter().copied().filter(|&e| e >= 0).collect();
            stream
                .write(
                    workspace.array(plan.block_counts).unwrap(),
                    &[used.len() as i32],
                )
                .unwrap();
            stream
                .write(workspace.array(plan.block_histogram).unwrap(), &histogram)
                .unwrap();
            stream
                .write(workspace.array(plan.slot_experts).unwrap(), &slots)
                .unwrap();
            stream
                .write(workspace.array(plan.slot_weights).unwrap(), &[1f32; 6])
                .unwrap();
            graph.launch(stream).unwrap();
            stream.synchronize().unwrap();
            assert_eq!(indices.read(stream)[..used.len()], used[..]);
        }
    }
}
