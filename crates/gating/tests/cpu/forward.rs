//! The forward pass against the reference: integers exactly, numbers within derived bounds.

use tollgate_core::options::{
    Capacity, DropOrder, GateOptions, GatingDropout, LocalWeight, Scores,
};
use tollgate_core::{DropMode, ExpertChoiceCapacity, Router, RowView, StepContext};
use tollgate_gating::reference::{self, DECISION_BOUND, NoisyLogits, Widened, decision_margins};
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::{Case, gate_cases, run_all};

use crate::bounds::{self, FLOOR, U};
use crate::support::{
    Implementation, Tensors, combinations, ctx, dropouts, gate, implementations, routers,
};

/// Tokens compared, and tokens too near to a decision to be.
#[derive(Default)]
pub struct Tally {
    pub compared: usize,
    pub near: usize,
}

/// |a − b| ≤ bound, or the same infinity, or both NaN.
#[track_caller]
fn close(what: &str, actual: f32, expected: f64, bound: f64) {
    let actual = f64::from(actual);
    let same = actual == expected || (actual.is_nan() && expected.is_nan());
    let error = (actual - expected).abs();
    assert!(
        same || error <= bound,
        "{what}: {actual} for {expected}, {error:e} > {bound:e}"
    );
}

/// Runs both gates and compares everything.
pub fn compare(
    gating: &dyn Gating,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    ctx: &StepContext,
    tally: &mut Tally,
) {
    let state = gate(gating, inputs, options, ctx);
    state.selection.validate().unwrap();
    state.table.validate().unwrap();
    let widened = Widened::new(inputs);
    let wide = widened.inputs();
    let noisy: Vec<f64> = state.noisy_logits.iter().map(|&h| f64::from(h)).collect();
    let given = NoisyLogits::Given(&noisy);
    let expected = reference::gate_with(&wide, options, ctx, given).unwrap();
    if !noisy.is_empty() {
        noise_is_that_of_the_definition(&wide, options, ctx, &state);
    }

    assert_eq!(state.dropped, expected.dropped);
    assert_eq!(state.status, expected.status);
    assert_eq!(state.scores.len(), expected.scores.len());
    let margins = decision_margins(&wide, options, ctx, &expected).unwrap();
    let clear = |t: usize| margins[t] > DECISION_BOUND;
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    for t in 0..tokens {
        if state.lse.is_empty() {
            assert_eq!(
                state.selection.experts_of(t),
                expected.selection.experts_of(t)
            );
        } else {
            row_scores(t, inputs, options, &state, &expected);
        }
        if !clear(t) {
            tally.near += 1;
            continue;
        }
        tally.compared += 1;
        row_decision(t, inputs, options, &state, &expected);
    }
    if (0..tokens).all(clear) {
        assert_eq!(state.first_choice, expected.first_choice);
        assert_eq!(state.weight_source, expected.weight_source);
        assert_eq!(state.kept, expected.kept);
        assert_eq!(state.load, expected.load);
        for (a, b) in [
            (&state.table, &expected.table),
            (&state.selection, &expected.selection),
        ] {
            assert_eq!(a.token_offsets, b.token_offsets);
            assert_eq!(a.expert_offsets, b.expert_offsets);
        }
        losses(options, experts, &state, &expected);
    }
}

fn noise_is_that_of_the_definition(
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    ctx: &StepContext,
    state: &GateState,
) {
    let defined = reference::gate(inputs, options, ctx).unwrap();
    assert_eq!(state.noisy_logits.len(), defined.noisy_logits.len());
    for (i, (&h, &exact)) in state
        .noisy_logits
        .iter()
        .zip(&defined.noisy_logits)
        .enumerate()
    {
        // f64 arithmetic, one rounding: at most the neighbouring f32.
        close(&format!("noisy logit {i}"), h, exact, 2.0 * U * exact.abs());
        assert_eq!(f64::from(state.noise[i]), defined.noise[i]);
    }
}

/// The logits that the scores of row `t` were made from.
fn logits_of(t: usize, inputs: &GateInputs<'_>, state: &GateState) -> Vec<f64> {
    let experts = inputs.num_experts;
    let z = match state.noisy_logits.is_empty() {
        true => inputs.logits.unwrap().row(t),
        false => &state.noisy_logits[t * experts..(t + 1) * experts],
    };
    z.iter().map(|&z| f64::from(z)).collect()
}

fn row_scores(
    t: usize,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    state: &GateState,
    expected: &GateState<f64>,
) {
    let experts = inputs.num_experts;
    let z = logits_of(t, inputs, state);
    let row = t * experts..(t + 1) * experts;
    let p = &expected.scores[row.clone()];
    let sigmoid = options.router.scores() == Some(Scores::Sigmoid);
    let bound = bounds::of_scores(&z, p, sigmoid);
    for (e, &actual) in state.scores[row].iter().enumerate() {
        close(
            &format!("score of token {t}, expert {e}"),
            actual,
            p[e],
            bound[e],
        );
        if z[e] == f64::NEG_INFINITY && !expected.lse[t].is_nan() {
            assert_eq!(actual, 0.0, "a masked expert's score is exactly 0");
        }
    }
    let lse = expected.lse[t];
    close(
        &format!("lse of token {t}"),
        state.lse[t],
        lse,
        bounds::of_lse(experts, lse),
    );
}

fn row_decision(
    t: usize,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    state: &GateState,
    expected: &GateState<f64>,
) {
    let what = format!("token {t}");
    if !state.first_choice.is_empty() {
        assert_eq!(state.first_choice[t], expected.first_choice[t], "{what}");
    }
    assert_eq!(state.runner_up.get(t), expected.runner_up.get(t), "{what}");
    assert_eq!(
        state.selection.experts_of(t),
        expected.selection.experts_of(t),
        "{what}"
    );
    assert_eq!(
        state.table.experts_of(t),
        expected.table.experts_of(t),
        "{what}"
    );

    // The deepest score that takes part in a weight: that of a chosen or local expert.
    let experts = inputs.num_experts;
    let depth = match state.lse.is_empty() {
        true => 0.0,
        false => {
            let z = logits_of(t, inputs, state);
            let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let depth = |z: f64| {
                if z == f64::NEG_INFINITY {
                    0.0
                } else {
                    bounds::depth(max, z)
                }
            };
            z.iter().map(|&z| depth(z)).fold(0.0, f64::max)
        }
    };
    let relative = bounds::of_weight(experts, depth, experts) * U;
    let scale = f64::from(options.weight_scale).abs();
    for (actual, expected) in [
        (
            state.selection.weights_of(t),
            expected.selection.weights_of(t),
        ),
        (state.table.weights_of(t), expected.table.weights_of(t)),
    ] {
        for (&a, &e) in actual.iter().zip(expected) {
            close(
                &format!("weight of {what}"),
                a,
                e,
                relative * e.abs() + scale * FLOOR,
            );
        }
    }
}

fn losses(options: &GateOptions, experts: usize, state: &GateState, expected: &GateState<f64>) {
    let close = |what: &str, actual: f64, expected: f64, bound: f64| {
        let same = actual == expected || (actual.is_nan() && expected.is_nan());
        let error = (actual - expected).abs();
        assert!(
            same || error <= bound,
            "{what}: {actual} for {expected}, {error:e} > {bound:e}"
        );
    };
    let balance = expected.losses.balance;
    close(
        "balance",
        state.losses.balance,
        balance,
        bounds::of_balance(experts) * U * balance,
    );
    // lse² moves by 2 |lse| δ + δ².
    let squares: f64 = expected
        .lse
        .iter()
        .filter(|l| l.is_finite())
        .map(|&lse| {
            let delta = bounds::of_lse(experts, lse);
            2.0 * lse.abs() * delta + delta * delta
        })
        .sum();
    let c = f64::from(options.z_coefficient) / expected.lse.len().max(1) as f64;
    // The sum itself is in f64.
    let bound = c * squares + expected.losses.z * 1e-12;
    close("z", state.losses.z, expected.losses.z, bound);
}

/// Runs `check` on every case and demands that all but one token in fifty were compared.
fn on_every_case(what: &str, check: impl Fn(&Implementation, &Case, &Tensors, &mut Tally)) {
    let mut tally = Tally::default();
    run_all(what, &gate_cases(), &implementations(), |case, i| {
        check(i, case, &Tensors::new(case), &mut tally);
    });
    assert!(
        tally.compared > 10_000 && tally.near * 50 <= tally.compared,
        "{what}: {} compared, {} \
        near a decision",
        tally.compared,
        tally.near
    );
}

#[test]
fn every_router_and_option_agrees_with_the_reference() {
    on_every_case("gate", |implementation, case, tensors, tally| {
        for (i, o) in combinations(case.tokens, case.experts).iter().enumerate() {
            if !implementation.keeps_options(case, i, o) {
                continue;
            }
            for training in [true, false] {
                // Large cases at inference only where that differs.
                if !training && case.tokens > 300 && !matches!(o.router, Router::Noisy { .. }) {
                    continue;
                }
                let ctx = StepContext { training, ..ctx() };
                let inputs = tensors.inputs(&o.router, false);
                compare(implementation.gating, &inputs, o, &ctx, tally);
            }
        }
    });
}

#[test]
fn a_selection_bias_and_a_hash_table_agree_with_the_reference() {
    on_every_case("gate with bias", |implementation, case, tensors, tally| {
        for (i, o) in combinations(case.tokens, case.experts).iter().enumerate() {
            let takes = matches!(o.router, Router::Hash | Router::Grouped { .. })
                || o.router.scores() == Some(Scores::Sigmoid);
            if takes && implementation.keeps_options(case, i, o) {
                let inputs = tensors.inputs(&o.router, true);
                compare(implementation.gating, &inputs, o, &ctx(), tally);
            }
        }
    });
}

/// Rows that are a block's on a GPU, and more slots than a warp's: beyond the sizes of the other cases.
#[test]
fn long_rows_and_many_slots_agree_with_the_reference() {
    let mut tally = Tally::default();
    let shapes = [
        (5, 64, "topk:32"),
        (5, 64, "topk:33"),
        (3, 100, "topk:100"),
        (3, 1024, "topk:8"),
        (3, 1024, "topk:32"),
        (3, 1025, "top1"),
        (3, 1025, "adaptive:0.5"),
        (3, 1025, "noisy:3"),
        (3, 2048, "sigmoid:8"),
        (3, 2048, "grouped:8:32:4"),
        (2, 1024, "grouped:4:512:4"),
        (2, 4099, "topk:8"),
        (2, 4099, "second:random:0.5"),
        (2, 4099, "expert-choice:1"),
    ];
    for (name, implementation) in implementations() {
        for (tokens, experts, router) in shapes {
            let case = Case {
                name: "long rows",
                tokens,
                experts,
                ..gate_cases()[1].clone()
            };
            let tensors = Tensors::new(&case);
            let router: Router = router.parse().unwrap();
            let o = GateOptions::new(router);
            let inputs = tensors.inputs(&o.router, false);
            let gating = implementation.gating;
            println!("{name}: {router} of {experts}");
            compare(gating, &inputs, &o, &ctx(), &mut tally);
            crate::backward::compare(gating, &case, &inputs, &o, &ctx());
            let dropped = GateOptions {
                gating_dropout: Some(GatingDropout::new(1.0, DropMode::Gate)),
                ..o
            };
            compare(gating, &inputs, &dropped, &ctx(), &mut tally);
            crate::backward::compare(gating, &case, &inputs, &dropped, &ctx());
        }
    }
    assert!(tally.compared > 20 * tally.near);
}

#[test]
fn capacity_agrees_with_the_reference() {
    let mut tally = Tally::default();
    let cases: Vec<Case> = gate_cases()
        .into_iter()
        .filter(|c| c.tokens <= 300)
        .collect();
    run_all(
        "capacity",
        &cases,
        &implementations(),
        |case, implementation| {
            let tensors = Tensors::new(case);
            let mut combination = 0;
            for router in routers(case.tokens, case.experts) {
                for &order in DropOrder::ALL {
                    for factor in [0.0, 0.4, 1.0, 1.25, 100.0] {
                        combination += 1;
                        if !implementation.keeps(case, combination, 37) {
                            continue;
                        }
                        let options = GateOptions {
                            capacity: Some(Capacity { factor, order }),
                            ..GateOptions::new(router)
                        };
                        let inputs = tensors.inputs(&router, false);
                        compare(implementation.gating, &inputs, &options, &ctx(), &mut tally);
                    }
                }
            }
        },
    );
    // One token near a decision takes its whole batch out of the comparison.
    assert!(
        tally.compared > 4 * tally.near,
        "{} and {}",
        tally.compared,
        tally.near
    );
}

#[test]
fn gating_dropout_agrees_with_the_reference() {
    let mut tally = Tally::default();
    let cases: Vec<Case> = gate_cases()
        .into_iter()
        .filter(|c| c.tokens <= 129)
        .collect();
    run_all(
        "gating dropout",
        &cases,
        &implementations(),
        |case, implementation| {
            let tensors = Tensors::new(case);
            let mut combination = 0;
            for router in routers(case.tokens, case.experts)
                .into_iter()
                .filter(Router::has_gate)
            {
                for dropout in dropouts() {
                    let half = Capacity {
                        factor: 0.5,
                        order: DropOrder::Position,
                    };
                    // A capacity sees the table only, however its weights came about.
                    let limited = dropout.local_weight == LocalWeight::GateProb;
                    for capacity in [None, Some(half)]
                        .into_iter()
                        .take(1 + usize::from(limited))
                    {
                        combination += 1;
                        if !implementation.keeps(case, combination, 71) {
                            continue;
                        }
                        let options = GateOptions {
                            gating_dropout: Some(dropout),
                            weight_scale: 1.5,
                            capacity,
                            ..GateOptions::new(router)
                        };
                        let inputs = tensors.inputs(&router, true);
                        compare(implementation.gating, &inputs, &options, &ctx(), &mut tally);
                    }
                }
            }
        },
    );
    assert!(
        tally.compared > 10 * tally.near,
        "{} and {}",
        tally.compared,
        tally.near
    );
}

/// A masked expert's column: faulty rows (in column 0) before all, a score of 0 before a mask.
#[test]
fn expert_choice_takes_underflown_scores_before_masked_ones() {
    let (mask, nan) = (f32::NEG_INFINITY, f32::NAN);
    let logits = [
        [0.0, mask],
        [0.0, mask],
        // p = e^-200 is 0 in f32.
        [0.0, -200.0],
        [nan, 1.0],
    ];
    let view = RowView::new(logits.as_flattened(), 4, 2).unwrap();
    for (name, implementation) in implementations() {
        let tokens_of = |c: usize, expert: i32| -> Vec<usize> {
            let capacity = ExpertChoiceCapacity::Tokens(c);
            let options = GateOptions::new(Router::ExpertChoice { capacity });
            let inputs = GateInputs::new(view);
            let table = gate(implementation.gating, &inputs, &options, &ctx()).table;
            let takes = |&t: &usize| table.experts_of(t).contains(&expert);
            (0..4).filter(takes).collect()
        };
        let both = |c: usize| [tokens_of(c, 0), tokens_of(c, 1)];
        assert_eq!(both(1), [vec![3], vec![2]], "{name}");
        assert_eq!(both(2), [vec![0, 3], vec![0, 2]], "{name}");
        assert_eq!(both(4), [vec![0, 1, 2, 3], vec![0, 1, 2]], "{name}");
    }
}
