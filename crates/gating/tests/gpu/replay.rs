//! A captured gate: a replay draws what the step block says by then.

use tollgate_core::options::{GateOptions, GatingDropout, Granularity};
use tollgate_core::{Cpu, DropMode, RowView, StepContext};
use tollgate_device::testing::devices;
use tollgate_gating::{GateInputs, GateState, Gating, dropout};
use tollgate_testkit::assert_same;

use crate::memory::{some_context, step_block};
use crate::problem::{Logits, Problem};

/// Steps of the first kind of dropout, and of each other.
const STEPS: [u32; 2] = [200, 40];

/// The state that the CPU has for a step.
fn on_cpu(cpu: &Cpu, options: &GateOptions, logits: &Logits, ctx: &StepContext) -> GateState {
    let (t, e) = (logits.tokens, logits.experts);
    let mut inputs = GateInputs::new(RowView::new(&logits.values, t, e).unwrap());
    inputs.local_experts = e / 3..e / 3 + e.div_ceil(2);
    let mut state = GateState::default();
    cpu.gate(&inputs, options, ctx, &mut state).unwrap();
    state
}

#[test]
fn replays_of_one_graph_follow_the_step_block() {
    let cpu = Cpu::new(1).unwrap();
    let logits = Logits::random(9, 6, 12);
    for (name, gpu) in devices() {
        for granularity in Granularity::ALL {
            for mode in DropMode::ALL {
                let mut o = GateOptions::new("second:random:0.4".parse().unwrap());
                o.gating_dropout = Some(GatingDropout {
                    granularity: *granularity,
                    ..GatingDropout::new(0.3, *mode)
                });
                let stream = gpu.stream().unwrap();
                let mut problem = Problem::new(gpu, &o, &logits, &some_context());
                // Buffers were filled on the default stream, for which this one does not wait.
                gpu.default_stream().synchronize().unwrap();
                let graph = stream.capture(|stream| problem.both(gpu, stream)).unwrap();
                let (mut dropped, mut undropped) = (0, 0);
                let first = (granularity, mode) == (&Granularity::Layer, &DropMode::Gate);
                for step in 0..STEPS[usize::from(!first)] {
                    let ctx = StepContext {
                        step,
                        ..some_context()
                    };
                    let block = step_block(&ctx);
                    stream.write(problem.step.get_mut(), &[block]).unwrap();
                    graph.launch(&stream).unwrap();
                    let state = problem.state(&stream);
                    let expected = on_cpu(&cpu, &o, &logits, &ctx);
                    let what = format!("{name}: {mode} by {granularity}, step {step}");
                    let falls = dropout::dropped(o.gating_dropout.as_ref().unwrap(), &ctx);
                    assert_eq!(state.dropped.is_some(), falls, "{what}");
                    assert_eq!(state.dropped, expected.dropped, "{what}");
                    let (a, b) = (&state.table, &expected.table);
                    assert_eq!(a.expert_indices, b.expert_indices, "{what}");
                    assert_eq!(a.token_offsets, b.token_offsets, "{what}");
                    assert_same(&what, &state.load, &expected.load);
                    *(if falls { &mut dropped } else { &mut undropped }) += 1;
                }
                problem.gradients(&stream);
                assert!(dropped > 0 && undropped > 0);
            }
        }
    }
}
