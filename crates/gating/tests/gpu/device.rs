//! Values from device memory: alignment, strides, schedules, faults.

use tollgate_core::options::{Capacity, DropOrder, GateOptions, GatingDropout};
use tollgate_core::{DropMode, StepContext};
use tollgate_device::testing::devices;
use tollgate_device::{Faults, Gpu};
use tollgate_gating::GateState;
use tollgate_testkit::assert_same;

use crate::memory::{seeded, some_context};
use crate::problem::{Logits, Problem};

fn options(router: &str) -> GateOptions {
    GateOptions::new(router.parse().unwrap())
}

/// One of every kind of kernel: the fast gate, the general one, noise, columns, Gating Dropout,
/// capacity.
fn kinds() -> Vec<GateOptions> {
    let mut kinds: Vec<GateOptions> = [
        "top1",
        "topk:4",
        "adaptive:0.3",
        "sigmoid:3",
        "grouped:4:4:2",
        "second:random:0.4",
        "noisy:2",
        "expert-choice:3",
    ]
    .map(options)
    .into();
    let mut dropped = options("top2");
    dropped.gating_dropout = Some(GatingDropout::new(1.0, DropMode::Gate));
    let mut limited = options("top2");
    limited.capacity = Some(Capacity {
        factor: 0.8,
        order: DropOrder::Probability,
    });
    kinds.extend([dropped, limited]);
    kinds
}

fn run(
    gpu: &Gpu,
    options: &GateOptions,
    logits: &Logits,
    ctx: &StepContext,
) -> (GateState, Vec<Vec<f32>>) {
    let stream = gpu.default_stream();
    let mut problem = Problem::new(gpu, options, logits, ctx);
    problem.both(gpu, stream).unwrap();
    (problem.state(stream), problem.gradients(stream))
}

/// Bit by bit, NaNs included.
#[track_caller]
fn assert_same_bits(
    what: &str,
    (a, a_gradients): &(GateState, Vec<Vec<f32>>),
    (b, b_gradients): &(GateState, Vec<Vec<f32>>),
) {
    assert_eq!(a.table.token_offsets, b.table.token_offsets, "{what}");
    assert_eq!(a.table.expert_indices, b.table.expert_indices, "{what}");
    assert_eq!(a.table.expert_offsets, b.table.expert_offsets, "{what}");
    assert_eq!(a.kept, b.kept, "{what}");
    assert_eq!(a.first_choice, b.first_choice, "{what}");
    assert_eq!(a.runner_up, b.runner_up, "{what}");
    let (of_a, of_b) = (&a.table.routing_weights, &b.table.routing_weights);
    assert_same(&format!("{what}: weights"), of_a, of_b);
    assert_same(&format!("{what}: lse"), &a.lse, &b.lse);
    assert_same(&format!("{what}: load"), &a.load, &b.load);
    let losses = |s: &GateState| [s.losses.balance.to_bits(), s.losses.z.to_bits()];
    assert_eq!(losses(a), losses(b), "{what}: losses");
    assert_eq!((a.dropped, a.status), (b.dropped, b.status), "{what}");
    for (a, b) in a_gradients.iter().zip(b_gradients) {
        assert_same(&format!("{what}: gradients"), a, b);
    }
}

#[test]
fn strides_and_alignment_do_not_matter() {
    for (name, gpu) in devices() {
        for (tokens, experts) in [(37, 8), (37, 64), (19, 100), (19, 256), (9, 300)] {
            let packed = Logits::random(tokens, experts, 3);
            for o in kinds() {
                let expected = run(gpu, &o, &packed, &some_context());
                for (gap, misalign) in [(0, 1), (4, 0), (4, 4), (3, 2)] {
                    let logits = Logits {
                        gap,
                        misalign,
                        ..packed.clone()
                    };
                    let what = format!(
                        "{name}: {} of {experts}, gap {gap}, misaligned by {misalign}",
                        o.router
                    );
                    assert_same_bits(&what, &expected, &run(gpu, &o, &logits, &some_context()));
                }
            }
        }
    }
}

#[test]
fn fifty_schedules_give_the_same_bits() {
    let mut logits = Logits::random(70, 40, 9);
    logits.values[3 * 40 + 5] = f32::NAN;
    let run_all = |gpu: &Gpu| -> Vec<_> {
        let kinds = kinds().into_iter();
        kinds
            .map(|o| run(gpu, &o, &logits, &some_context()))
            .collect()
    };
    let expected = run_all(&seeded(0));
    for seed in 1..50 {
        for ((a, b), o) in expected.iter().zip(&run_all(&seeded(seed))).zip(kinds()) {
            assert_same_bits(&format!("{} with seed {seed}", o.router), a, b);
        }
    }
}

/// Only integers are atomic, so that what a token gets does not depend on those beside it, and
/// which kernel runs does not depend on their number.
#[test]
fn a_token_does_not_see_the_batch_around_it() {
    let all = Logits::random(300, 48, 4);
    for (name, gpu) in devices() {
        for o in kinds() {
            if o.capacity.is_some() || o.router.to_string().starts_with("expert-choice") {
                continue;
            }
            let mut o = o;
            // The losses are means over the batch.
            (o.balance_alpha, o.z_coefficient) = (0.0, 0.0);
            let ctx = some_context();
            let (whole, _) = run(gpu, &o, &all, &ctx);
            for (start, end) in [(0, 1), (17, 50), (299, 300)] {
                let mut part = all.clone();
                part.tokens = end - start;
                part.values = all.values[start * 48..end * 48].to_vec();
                let ctx = StepContext {
                    first_token: ctx.first_token + start as u32,
                    ..ctx
                };
                // Its noise logits would be others.
                if o.router.is_noisy() {
                    continue;
                }
                let (alone, _) = run(gpu, &o, &part, &ctx);
                let what = format!("{name}: {}, tokens {start}..{end}", o.router);
                assert_same(&what, &whole.lse[start..end], &alone.lse);
                for t in start..end {
                    let (a, b) = (&whole.table, &alone.table);
                    assert_eq!(a.experts_of(t), b.experts_of(t - start), "{what}");
                    assert_same(&what, a.weights_of(t), b.weights_of(t - start));
                }
            }
        }
    }
}

#[test]
fn faulty_rows_raise_the_status_of_their_step_only() {
    let mut bad = Logits::random(40, 20, 2);
    bad.values[7 * 20 + 19] = f32::INFINITY;
    bad.values[31 * 20] = f32::NAN;
    for (name, gpu) in devices() {
        let stream = gpu.default_stream();
        for o in kinds() {
            let mut problem = Problem::new(gpu, &o, &bad, &some_context());
            for _ in 0..2 {
                // Twice over the same state: the second call starts anew.
                problem.forward(gpu, stream).unwrap();
                let status = problem.status(stream);
                let what = format!("{name}: {}", o.router);
                assert_eq!(status.faults, Faults::FAULTY_ROW, "{what}");
                assert_eq!(status.faulty_rows, 2, "{what}");
                assert_eq!(status.first_faulty_row, 7, "{what}");
            }
        }
    }
}
