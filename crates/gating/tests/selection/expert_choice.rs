//! Expert choice: bit by bit what the CPU chooses from the same scores.

use tollgate_core::options::{BalanceOver, GateOptions, Weights};
use tollgate_core::{Cpu, RoutingTable, RowView};
use tollgate_device::testing::devices;
use tollgate_device::{Gpu, WorkspaceLayout};
use tollgate_gating::gpu::expert_choice::{Choice, ChoicePlan, LocalChoice, run};
use tollgate_gating::gpu::losses::{LossPart, LossPlan};
use tollgate_gating::gpu::table::{FinishPlan, TableMut};
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::{Data, assert_same, gate_cases};

use crate::support::{Fenced, seeded, some_context, step_block, workspace, workspace_memory};

/// Scores as the CPU made them, and what it chose.
struct Problem {
    tokens: usize,
    experts: usize,
    logits: Vec<f32>,
    options: GateOptions,
    expected: GateState,
    tokens_per_block: usize,
    /// Experts and weights of a dropped step.
    local: Option<(Vec<i32>, Vec<f32>)>,
    dropped: bool,
}

impl Problem {
    fn new(tokens: usize, experts: usize, logits: Vec<f32>, options: GateOptions) -> Self {
        let inputs = GateInputs::new(RowView::new(&logits, tokens, experts).unwrap());
        let mut expected = GateState::default();
        let cpu = Cpu::new(1).unwrap();
        cpu.gate(&inputs, &options, &some_context(), &mut expected)
            .unwrap();
        Self {
            tokens,
            experts,
            logits,
            options,
            expected,
            tokens_per_block: 16,
            local: None,
            dropped: false,
        }
    }
}

struct Outcome {
    table: RoutingTable,
    load: Vec<f64>,
    balance: f64,
}

fn on_device(gpu: &Gpu, p: &Problem, misalign: usize) -> Outcome {
    let (stream, (t, e)) = (gpu.default_stream(), (p.tokens, p.experts));
    let capacity = p.options.router.expert_choice_tokens(t, e).unwrap();
    let mut layout = WorkspaceLayout::new();
    let plan = ChoicePlan::new(&mut layout, t, e, capacity).unwrap();
    let finish = FinishPlan::new(&mut layout, t, e, e, p.tokens_per_block, true).unwrap();
    let loss_plan = LossPlan::new(&mut layout, &finish, &p.options, false).unwrap();
    let mut memory = workspace_memory(gpu, &layout);
    let workspace = workspace(&mut memory, &layout);
    let shares: Vec<f32> = p
        .expected
        .scores
        .chunks(e * p.tokens_per_block)
        .flat_map(|block| {
            let column = move |c: usize| block.iter().skip(c).step_by(e).copied();
            (0..e).map(move |c| column(c).map(f64::from).sum::<f64>() as f32)
        })
        .collect();
    stream
        .write(workspace.array(loss_plan.block_shares).unwrap(), &shares)
        .unwrap();

    // Rows of logits with a gap.
    let stride = e + misalign;
    let mut spread = vec![f32::NAN; t * stride];
    for r in 0..t {
        spread[r * stride..r * stride + e].copy_from_slice(&p.logits[r * e..(r + 1) * e]);
    }
    let logits = Fenced::from_slice(gpu, &spread, misalign);
    let scores = Fenced::from_slice(gpu, &p.expected.scores, misalign);
    let dropped = gpu.upload(stream, &[u32::from(p.dropped)]).unwrap();
    let local = p.local.as_ref().map(|(experts, weights)| {
        let experts = Fenced::from_slice(gpu, experts, misalign);
        (experts, Fenced::from_slice(gpu, weights, misalign))
    });
    let step = gpu.upload(stream, &[step_block(&some_context())]).unwrap();
    let mut token_offsets = Fenced::<i32>::new(gpu, t + 1, misalign);
    let mut indices = Fenced::<i32>::new(gpu, t * e, misalign);
    let mut weights = Fenced::<f32>::new(gpu, t * e, misalign);
    let mut expert_offsets = Fenced::<i32>::new(gpu, e + 1, misalign);
    let mut load = Fenced::<f64>::new(gpu, e, 0);
    let mut losses = Fenced::<f64>::new(gpu, 2, 0);
    let choice = Choice {
        options: &p.options,
        logits: logits.get().rows("logits", t, e, stride).unwrap(),
        scores: scores.get(),
        local: local.as_ref().map(|(experts, weights)| LocalChoice {
            dropped: dropped.slice(),
            experts: experts.get(),
            weights: weights.get(),
        }),
    };
    let part = LossPart {
        plan: loss_plan,
        options: &p.options,
        training: true,
        step: step.slice(),
        load: load.get_mut(),
        losses: losses.get_mut(),
    };
    let mut table = TableMut {
        token_offsets: token_offsets.get_mut(),
        expert_indices: indices.get_mut(),
        routing_weights: weights.get_mut(),
        expert_offsets: expert_offsets.get_mut(),
    };
    // Captured, and done twice: nothing is left over that the second run would trip on.
    stream.synchronize().unwrap();
    let capturing = gpu.stream().unwrap();
    let graph = capturing
        .capture(|stream| {
            let (losses, table) = (Some(&part), &mut table);
            run(
                gpu, stream, &plan, &finish, &choice, &workspace, losses, table,
            )
        })
        .unwrap();
    graph.launch(stream).unwrap();
    graph.launch(stream).unwrap();
    let mut table = RoutingTable {
        token_offsets: token_offsets.read(stream),
        expert_indices: indices.read(stream),
        routing_weights: weights.read(stream),
        expert_offsets: expert_offsets.read(stream),
    };
    let used = table.token_offsets[t] as usize;
    table.expert_indices.truncate(used);
    table.routing_weights.truncate(used);
    Outcome {
        table,
        load: load.read(stream),
        balance: losses.read(stream)[0],
    }
}

/// Equal bits, but for NaN, whose payload is the machine's.
#[track_caller]
fn check_table(what: &str, a: &RoutingTable, e: &RoutingTable) {
    assert_same(what, &a.token_offsets, &e.token_offsets);
    assert_same(what, &a.expert_indices, &e.expert_indices);
    assert_same(what, &a.expert_offsets, &e.expert_offsets);
    assert_eq!(a.routing_weights.len(), e.routing_weights.len(), "{what}");
    for (i, (a, e)) in a.routing_weights.iter().zip(&e.routing_weights).enumerate() {
        let same = a.to_bits() == e.to_bits() || (a.is_nan() && e.is_nan());
        assert!(same, "{what}: weight {i}: {a} and {e}");
    }
}

#[track_caller]
fn check_loss(what: &str, actual: &Outcome, expected: &GateState) {
    assert_same(what, &actual.load, &expected.load);
    let (a, e) = (actual.balance, expected.losses.balance);
    // Shares of blocks are rounded to f32.
    let close = (a - e).abs() <= 1e-6 * e.abs() || (a.is_nan() && e.is_nan());
    assert!(close, "{what}: {a} and {e}");
}

fn options(router: &str, weights: Weights, over: BalanceOver) -> GateOptions {
    let mut options = GateOptions::new(router.parse().unwrap());
    options.weights = Some(weights);
    options.balance_over = Some(over);
    options.z_coefficient = 0.0;
    options.weight_scale = 1.5;
    options
}

#[test]
fn choices_are_those_of_the_cpu() {
    for (name, gpu) in devices() {
        for case in gate_cases() {
            let (t, e) = (case.tokens, case.experts);
            for (router, weights, over) in [
                ("expert-choice:0", Weights::Prob, BalanceOver::All),
                ("expert-choice:1", Weights::Prob, BalanceOver::Top1Only),
                ("expert-choice:1x", Weights::Selected, BalanceOver::Top1Only),
                ("expert-choice:1.5x", Weights::Prob, BalanceOver::All),
                ("expert-choice:1000", Weights::Selected, BalanceOver::All),
            ] {
                let options = options(router, weights, over);
                if options.validate(t, e).is_err() {
                    continue;
                }
                let slow = t * e > 20_000 && router != "expert-choice:1x";
                if slow {
                    continue;
                }
                let mut problem = Problem::new(t, e, case.router_logits(), options);
                if t * e > 20_000 {
                    problem.tokens_per_block = 256;
                }
                let what = format!("{name}: {}, {router}", case.name);
                let actual = on_device(gpu, &problem, t % 3);
                check_table(&what, &actual.table, &problem.expected.selection);
                check_loss(&what, &actual, &problem.expected);
            }
        }
    }
}

#[test]
fn ties_over_many_blocks_go_to_the_earlier_token() {
    for (name, gpu) in devices() {
        // Three values of a logit: the quota ends among hundreds of equal scores.
        let (t, e) = (700, 40);
        let mut logits: Vec<f32> = Data::new(3).integers(t * e, 1);
        logits.chunks_mut(e).for_each(|row| row[1..].fill(0.0));
        let options = options("expert-choice:250", Weights::Selected, BalanceOver::All);
        let mut problem = Problem::new(t, e, logits, options);
        for tokens_per_block in [4, 64, 1024] {
            problem.tokens_per_block = tokens_per_block;
            let actual = on_device(gpu, &problem, 0);
            let what = format!("{name}: {tokens_per_block} a block");
            check_table(&what, &actual.table, &problem.expected.selection);
            check_loss(&what, &actual, &problem.expected);
        }
    }
}

#[test]
fn a_dropped_step_runs_the_local_experts() {
    for (name, gpu) in devices() {
        for over in [BalanceOver::All, BalanceOver::Top1Only] {
            let (t, e) = (90, 7);
            let logits = Data::new(6).normals(t * e, 1.0);
            let options = options("expert-choice:1x", Weights::Prob, over);
            let mut problem = Problem::new(t, e, logits, options);
            let mut data = Data::new(7);
            let weights: Vec<f32> = (0..t).map(|_| data.uniform() as f32).collect();
            for nothing in [false, true] {
                let experts: Vec<i32> = (0..t)
                    .map(|_| if nothing { -1 } else { data.below(e) as i32 })
                    .collect();
                problem.local = Some((experts.clone(), weights.clone()));
                // As long as the step is not dropped none of it is looked at.
                problem.dropped = false;
                let actual = on_device(gpu, &problem, 0);
                check_table(name, &actual.table, &problem.expected.selection);
                problem.dropped = true;
                let actual = on_device(gpu, &problem, 0);
                let rows: Vec<Vec<(i32, f32)>> = experts
                    .iter()
                    .zip(&weights)
                    .map(|(&e, &w)| if nothing { vec![] } else { vec![(e, w)] })
                    .collect();
                let expected = RoutingTable::from_rows(e, &rows).unwrap();
                check_table(name, &actual.table, &expected);
                // The load is that of the gate's own decision.
                check_loss(name, &actual, &problem.expected);
            }
        }
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    let logits: Vec<f32> = Data::new(9).integers(40 * 5, 1);
    let options = options("expert-choice:11", Weights::Selected, BalanceOver::Top1Only);
    let problem = Problem::new(40, 5, logits, options);
    for seed in 0..50 {
        let actual = on_device(&seeded(seed), &problem, 0);
        check_table("seeds", &actual.table, &problem.expected.selection);
        assert_same("seeds", &actual.load, &problem.expected.load);
    }
}
