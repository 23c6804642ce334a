//! The backward pass against the reference, on the state that the CPU's forward pass left.

use tollgate_core::options::{Capacity, DropOrder, GateOptions, LocalWeight, Scores, Weights};
use tollgate_core::{DropMode, Router, RowViewMut, StepContext};
use tollgate_gating::reference::{self, Widened};
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::{Case, gate_cases, run_all};

use crate::bounds::{self, U};
use crate::support::{
    Tensors, combinations, ctx, dropouts, gate, implementations, routers, widen_state,
};

/// What the terms of each logit's gradient add up to in magnitude, `[T, E]`.
///
/// With m_j the largest factor that any term has on expert j (its score, its softmax, its weight):
/// the task's part is at most 2 m_j Γ for Γ the largest |g| · scale, since Σ w |g| ≤ Γ for weights
/// that sum to 1 or less; sigmoid scores may sum to E, but no term adds more than its own.
/// Balance is at most β m_j (f_j + max f), z is m_j · 2c/T |lse|.
fn magnitudes(
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    state: &GateState<f64>,
    g: &[f64],
) -> Vec<f64> {
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    let logits: Vec<f64> = match state.noisy_logits.is_empty() {
        true => inputs
            .logits
            .as_ref()
            .unwrap()
            .iter()
            .flatten()
            .copied()
            .collect(),
        false => state.noisy_logits.clone(),
    };
    let largest = |v: &[f64]| v.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let gamma = largest(g) * f64::from(options.weight_scale).abs();
    let per_token = 1.0 / tokens.max(1) as f64;
    let beta = f64::from(options.balance_alpha) * experts as f64 * per_token;
    let zeta = 2.0 * f64::from(options.z_coefficient) * per_token;
    let mut magnitudes = Vec::new();
    for t in 0..tokens {
        let row = t * experts..(t + 1) * experts;
        let lse = if state.lse[t].is_finite() {
            state.lse[t]
        } else {
            0.0
        };
        let p = &state.scores[row.clone()];
        let total: f64 = p.iter().sum();
        let relative = |z: f64, max: f64| (z - max).exp();
        let local = inputs.local_experts.clone();
        let z = &logits[row];
        let best_local = z[local.clone()]
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let chosen: f64 = state
            .selection
            .experts_of(t)
            .iter()
            .map(|&e| p[e as usize])
            .sum();
        for j in 0..experts {
            let mut m = p[j].max(relative(z[j], state.lse[t]));
            m = m.max(if total > 0.0 { p[j] / total } else { 0.0 });
            if chosen > 0.0 && state.selection.experts_of(t).contains(&(j as i32)) {
                m = m.max(p[j] / chosen);
            }
            if state.dropped.is_some() && local.contains(&j) {
                m = m.max(relative(z[j], best_local));
            }
            let of_top2 = options.weights() == Weights::Top2
                && state.runner_up[t] >= 0
                && [state.first_choice[t], state.runner_up[t]].contains(&(j as i32));
            if of_top2 {
                // Both move by w1 w2 (g1 − g2).
                let (i, j) = (state.first_choice[t] as usize, state.runner_up[t] as usize);
                m = m.max(p[i] * p[j] / (p[i] + p[j]).powi(2));
            }
            let f = state.load.get(j).copied().unwrap_or(0.0);
            let task = 2.0 * gamma;
            let m = if m.is_nan() { 0.0 } else { m };
            magnitudes.push(m * (task + beta * (f + largest(&state.load)) + zeta * lse.abs()));
        }
    }
    magnitudes
}

/// Relative error in u of a term: sums over the experts, and a dozen roundings (β f, z factor,
/// scale, product with g, differences, the slope's factors, the additions into dz); where
/// exponentials are made anew (z-loss of sigmoids, restricted softmax, and the reference's `top2`,
/// which comes from the logits) those of weights.
fn relative(options: &GateOptions, experts: usize, state: &GateState) -> f64 {
    let sums = 2.0 * bounds::of_sum(experts) + bounds::of_sum(16 * experts) + 16.0;
    let dropout = options
        .gating_dropout
        .filter(|_| state.dropped == Some(DropMode::Gate));
    let anew = options.router.scores() == Some(Scores::Sigmoid)
        || options.weights() == Weights::Top2
        || dropout.is_some_and(|d| d.local_weight == LocalWeight::RestrictedSoftmax);
    sums + if anew {
        bounds::of_weight(experts, 88.0, experts)
    } else {
        0.0
    }
}

fn run(
    gating: &dyn Gating,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    ctx: &StepContext,
    state: &GateState,
    dweights: &[f32],
) -> (Vec<f32>, Option<Vec<f32>>) {
    let (t, e) = (inputs.num_tokens, inputs.num_experts);
    let mut dz = vec![f32::NAN; t * e];
    let noisy = ctx.training && matches!(options.router, Router::Noisy { .. });
    let mut dn = noisy.then(|| vec![f32::NAN; t * e]);
    let out = RowViewMut::new(&mut dz, t, e).unwrap();
    let noise = dn.as_mut().map(|dn| RowViewMut::new(dn, t, e).unwrap());
    gating
        .gate_backward(inputs, options, ctx, state, dweights, out, noise)
        .unwrap();
    (dz, dn)
}

/// Runs both backward passes on the state that the implementation left, and compares them.
pub fn compare(
    gating: &dyn Gating,
    case: &Case,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    ctx: &StepContext,
) {
    let state = gate(gating, inputs, options, ctx);
    let dw: Vec<f32> = case.data(6).normals(state.table.num_assignments(), 1.0);
    let (dz, dn) = run(gating, inputs, options, ctx, &state, &dw);

    let widened = Widened::new(inputs);
    let wide = widened.inputs();
    let wide_state = widen_state(&state);
    let g: Vec<f64> = dw.iter().map(|&g| f64::from(g)).collect();
    let (expected, expected_noise) =
        reference::gate_backward(&wide, options, ctx, &wide_state, &g).unwrap();
    if !options.router.has_gate() {
        assert!(dz.iter().all(|&d| d == 0.0));
        return;
    }
    let magnitudes = magnitudes(&wide, options, &wide_state, &g);
    let relative = relative(options, inputs.num_experts, &state) * U;
    let check = |what: &str, i: usize, actual: f32, expected: f64, magnitude: f64| {
        let actual = f64::from(actual);
        let same = actual == expected || (actual.is_nan() && expected.is_nan());
        let (error, bound) = (
            (actual - expected).abs(),
            relative * magnitude + bounds::FLOOR,
        );
        assert!(
            same || error <= bound,
            "{} {what} of token {}, expert {}: {actual} for {expected}, {error:e} > {bound:e}",
            options.router,
            i / inputs.num_experts,
            i % inputs.num_experts
        );
    };
    for (i, &actual) in dz.iter().enumerate() {
        check("dlogits", i, actual, expected[i], magnitudes[i]);
    }
    assert_eq!(dn.is_some(), expected_noise.is_some());
    for (i, (&actual, &expected)) in dn
        .iter()
        .flatten()
        .zip(expected_noise.iter().flatten())
        .enumerate()
    {
        // n · σ is at most |n|, and adds a sigmoid's error and two roundings.
        let n = f64::from(state.noise[i]).abs();
        check("dnoise", i, actual, expected, magnitudes[i] * n * 1.5);
    }
}

#[test]
fn every_router_and_option_agrees_with_the_reference() {
    run_all(
        "gate backward",
        &gate_cases(),
        &implementations(),
        |case, implementation| {
            let tensors = Tensors::new(case);
            for (i, o) in combinations(case.tokens, case.experts).iter().enumerate() {
                for training in [true, false] {
                    if !implementation.keeps(case, 2 * i + usize::from(training), 17) {
                        continue;
                    }
                    let ctx = StepContext { training, ..ctx() };
                    let inputs = tensors.inputs(&o.router, true);
                    compare(implementation.gating, case, &inputs, o, &ctx);
                }
            }
        },
    );
}

#[test]
fn each_loss_alone_and_none_agree_with_the_reference() {
    let cases: Vec<Case> = gate_cases()
        .into_iter()
        .filter(|c| c.tokens <= 300)
        .collect();
    run_all(
        "loss gradients",
        &cases,
        &implementations(),
        |case, implementation| {
            let tensors = Tensors::new(case);
            let mut combination = 0;
            for router in routers(case.tokens, case.experts) {
                for (alpha, c) in [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25)] {
                    combination += 1;
                    if !implementation.keeps(case, combination, 17) {
                        continue;
                    }
                    let mut o = GateOptions::new(router);
                    (o.balance_alpha, o.z_coefficient) = (alpha, c);
                    let inputs = tensors.inputs(&router, false);
                    compare(implementation.gating, case, &inputs, &o, &ctx());
                }
            }
        },
    );
}

#[test]
fn capacity_and_gating_dropout_agree_with_the_reference() {
    let cases: Vec<Case> = gate_cases()
        .into_iter()
        .filter(|c| c.tokens <= 129)
        .collect();
    run_all(
        "dropped gradients",
        &cases,
        &implementations(),
        |case, implementation| {
            let tensors = Tensors::new(case);
            let mut combination = 0;
            for router in routers(case.tokens, case.experts) {
                for factor in [0.0, 0.5, 1.0] {
                    combination += 1;
                    if !implementation.keeps(case, combination, 71) {
                        continue;
                    }
                    let mut o = GateOptions::new(router);
                    o.capacity = Some(Capacity {
                        factor,
                        order: DropOrder::Probability,
                    });
                    o.weight_scale = -1.5;
                    let inputs = tensors.inputs(&router, false);
                    compare(implementation.gating, case, &inputs, &o, &ctx());
                }
                for dropout in dropouts().into_iter().filter(|_| router.has_gate()) {
                    combination += 1;
                    if !implementation.keeps(case, combination, 71) {
                        continue;
                    }
                    let mut o = GateOptions::new(router);
                    o.gating_dropout = Some(dropout);
                    let inputs = tensors.inputs(&router, true);
                    compare(implementation.gating, case, &inputs, &o, &ctx());
                }
            }
        },
    );
}

#[test]
fn a_missing_output_is_refused_before_anything_is_written() {
    let case = &gate_cases()[6];
    let tensors = Tensors::new(case);
    let o = GateOptions::new(Router::Noisy { k: 2 });
    let inputs = tensors.inputs(&o.router, false);
    for (_, implementation) in implementations() {
        let gating = implementation.gating;
        let state = gate(gating, &inputs, &o, &ctx());
        let dw = vec![1.0; state.table.num_assignments()];
        let mut dz = vec![7f32; case.tokens * case.experts];
        let mut refused = |dw: &[f32], rows: usize| {
            let out = RowViewMut::new(&mut dz, rows, case.experts).unwrap();
            gating
                .gate_backward(&inputs, &o, &ctx(), &state, dw, out, None)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&dw, case.tokens).starts_with("dnoise_logits is required"));
        assert!(refused(&dw[1..], case.tokens).starts_with("dweights (A) is"));
        assert!(refused(&dw, case.tokens - 1).starts_with("rows of dlogits (T) is"));
        assert!(dz.iter().all(|&d| d == 7.0));
    }
}
