//! The CPU's layer against the f64 reference: every router, every dtype, every named case.

mod common;

use common::{Problem, Step, routers, sized, wide};
use tollgate::options::{Activation, Capacity, DropOrder, GateOptions, GatingDropout, Weights};
use tollgate::reference::{Forward, Gradients};
use tollgate::{DType, DropMode, Element, Router};
use tollgate_testkit::{Case, LogitKind, Tolerance, assert_same, compare, edge_cases, run_all};

/// How far a tensor may lie from the reference, as a share of its largest magnitude.
///
/// The longest chain is that of dx: three products with up to n = max(H, N1, I, rows) terms, each
/// off by at most (n + 2) · 2^-24 of its sum of magnitudes, which for random data is about √n times
/// the result; the largest element of a tensor is about 3 of its deviations, so √n / 3 stays below
/// 12 for n ≤ 1200. Each of the four tensors in between (x rows, pre, act, y rows) is rounded to T
/// once more, each rounding carried on by maps of norm about 2.
fn tolerance<T: Element>(n: usize) -> Tolerance {
    let n = n as f64;
    let sums = 3.0 * (n + 2.0) * DType::F32.unit_roundoff() * (n.sqrt() / 3.0).max(1.0);
    // exp and erf are off by at most 2^-22.5, that is three units of f32 more in each of two stages.
    let functions = 6.0 * DType::F32.unit_roundoff() * n.sqrt().max(4.0);
    Tolerance {
        relative: sums + functions + 8.0 * T::DTYPE.unit_roundoff(),
        absolute: 1e-6 * T::DTYPE.unit_roundoff(),
    }
}

/// Compares with the tensor's largest magnitude as the scale.
fn close<T: Element>(what: &str, actual: &[T], expected: &[f64], tolerance: Tolerance) {
    close_at(what, actual, expected, 0.0, tolerance);
}

fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// The same with a scale that is at least `floor`.
fn close_at<T: Element>(
    what: &str,
    actual: &[T],
    expected: &[f64],
    floor: f64,
    tolerance: Tolerance,
) {
    let scale = largest(expected.iter().copied()).max(floor);
    let scale = vec![scale; expected.len()];
    if let Err(mismatch) = compare(wide(actual), expected, &scale, tolerance) {
        panic!("{what}: {mismatch}");
    }
}

fn check<T: Element>(problem: &Problem<T>, step: &Step<T>, reference: &(Forward, Gradients)) {
    let (forward, grads) = reference;
    let (table, exact) = (&step.state.gate().table, &forward.gate.table);
    table.validate().unwrap();
    assert_eq!(table.token_offsets, exact.token_offsets, "token offsets");
    assert_eq!(table.expert_indices, exact.expert_indices, "expert indices");
    assert_eq!(step.state.gate().dropped, forward.gate.dropped);
    let shape = problem.layer.shape();
    let n = shape
        .hidden
        .max(shape.up_rows())
        .max(problem.tokens)
        .max(shape.experts);
    let t = tolerance::<T>(n);
    let f32s = tolerance::<f32>(n);
    close(
        "weights",
        &table.routing_weights,
        &exact.routing_weights,
        f32s,
    );
    close("logits", step.state.router_logits(), &forward.logits, f32s);
    close("y", &step.y, &forward.y, t);
    // dz = p (g − Σ p g) cancels where one expert has all the probability: what rounding errors
    // scale with is p·|g| ≤ Σ |dy·y|, and for the router's gradient that times x.
    let h = shape.hidden;
    let product = |t: usize| -> f64 {
        let dy = wide(&problem.dy[t * h..(t + 1) * h]);
        dy.zip(&forward.y[t * h..])
            .map(|(d, y)| (d * y).abs())
            .sum()
    };
    let of_logits = largest((0..problem.tokens).map(product));
    let of_router = of_logits * largest(wide(&problem.x));
    let dlogits = step.state.router_logit_gradient();
    close_at("dlogits", dlogits, &grads.logits, of_logits, t);
    close("dx", &step.dx, &grads.x, t);
    close_at("router gradient", &step.router, &grads.router, of_router, t);
    close_at(
        "router noise gradient",
        &step.router_noise,
        &grads.router_noise,
        of_router,
        t,
    );
    close("up gradient", &step.up, &grads.up, t);
    close("down gradient", &step.down, &grads.down, t);
    close("up bias gradient", &step.up_bias, &grads.up_bias, t);
    close("down bias gradient", &step.down_bias, &grads.down_bias, t);
    for (what, ours, exact) in [
        (
            "balance",
            step.state.gate().losses.balance,
            forward.gate.losses.balance,
        ),
        ("z", step.state.gate().losses.z, forward.gate.losses.z),
    ] {
        let error = (ours - exact).abs();
        assert!(
            error <= f32s.relative * exact.abs() + 1e-9,
            "{what}: {ours} {exact}"
        );
    }
    for e in (0..shape.experts).filter(|&e| table.count_of(e) == 0) {
        let len = shape.up_rows() * shape.hidden;
        let part = &step.up[e * len..(e + 1) * len];
        assert!(
            part.iter().all(|&g| g == 0.0),
            "empty expert {e} has a gradient"
        );
    }
}

fn agree<T: Element>(case: &Case, options: GateOptions, activation: Activation, gated: bool) {
    let name = format!("{} {} {activation} gated {gated}", T::DTYPE, options.router);
    let problem = Problem::<T>::new(case, options, activation, gated);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        check(&problem, &problem.run(), &problem.reference());
    }));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        panic!("{name}: {}", text.unwrap_or_default());
    }
}

#[test]
fn every_router_on_every_case() {
    run_all("layer", &edge_cases(), &[("cpu", ())], |case, ()| {
        for router in routers(case.experts) {
            // Expert choice ranks by probability, and f32 cannot tell apart those that are nearly 1:
            // tokens then come in order, where the reference still sees differences.
            let saturated = matches!(case.logits, LogitKind::OneHot | LogitKind::Huge);
            if saturated && matches!(router, Router::ExpertChoice { .. }) {
                continue;
            }
            agree::<f32>(case, GateOptions::new(router), Activation::Gelu, false);
        }
    });
}

#[test]
fn every_dtype_activation_and_form() {
    let case = sized(60, 8, 40, 24);
    for activation in Activation::ALL {
        for gated in [false, true] {
            for router in ["adaptive:0.2", "topk:3", "thor", "expert-choice:8"] {
                let options = GateOptions::new(router.parse().unwrap());
                agree::<f32>(&case, options.clone(), *activation, gated);
                agree::<half::f16>(&case, options.clone(), *activation, gated);
                agree::<half::bf16>(&case, options, *activation, gated);
            }
        }
    }
}

#[test]
fn every_weight_capacity_dropout_and_jitter() {
    let case = sized(64, 8, 24, 16);
    for weights in Weights::ALL {
        let mut options = GateOptions::new(Router::Adaptive { tau: 0.3 });
        options.weights = Some(*weights);
        options.weight_scale = 2.5;
        agree::<f32>(&case, options.clone(), Activation::Relu, false);
        options.jitter = 0.1;
        agree::<f32>(&case, options.clone(), Activation::Silu, true);
        for order in DropOrder::ALL {
            options.capacity = Some(Capacity {
                factor: 0.6,
                order: *order,
            });
            agree::<f32>(&case, options.clone(), Activation::Gelu, false);
        }
        for mode in DropMode::ALL {
            options.gating_dropout = Some(GatingDropout::new(1.0, *mode));
            agree::<f32>(&case, options.clone(), Activation::Gelu, false);
        }
    }
}

/// One value of token 7 is replaced.
fn spoilt<T: Element>(value: f32, router: &str) {
    let case = sized(20, 4, 16, 16);
    let problem = || {
        let options = GateOptions::new(router.parse().unwrap());
        Problem::<T>::new(&case, options, Activation::Gelu, false)
    };
    let (clean, mut dirty) = (problem(), problem());
    dirty.x[7 * 16 + 3] = T::from_f32(value);
    let (clean, dirty) = (clean.run(), dirty.run());
    let what = format!("{} {router} {value}", T::DTYPE);
    let status = dirty.state.trace.status;
    if clean.state.router_logits().is_empty() {
        assert_eq!(status.faulty_rows, 0, "{what}");
    } else {
        let found = (status.faulty_rows, status.first_faulty_row);
        assert_eq!(found, (1, Some(7)), "{what}");
    }
    for t in 0..20 {
        let row = t * 16..(t + 1) * 16;
        if t == 7 {
            assert!(wide(&dirty.y[row]).all(f64::is_nan), "{what}: y of token 7");
        } else {
            assert_same(&what, &dirty.y[row.clone()], &clean.y[row.clone()]);
            // The load of the balance loss counts token 7 elsewhere, so that dx may move a little.
            assert!(
                wide(&dirty.dx[row]).all(f64::is_finite),
                "{what}: dx of {t}"
            );
        }
    }
}

#[test]
fn a_faulty_token_is_named_and_spoils_only_itself() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for router in ["adaptive:0.3", "topk:3", "second:random:0.5"] {
            spoilt::<f32>(value, router);
            spoilt::<half::f16>(value, router);
            spoilt::<half::bf16>(value, router);
        }
    }
    spoilt::<f32>(f32::NAN, "thor:token");
}
