//! A step of an implementation against the f64 reference.

use tollgate::reference::{Forward, Gradients};
use tollgate::{DType, Element};
use tollgate_testkit::{Tolerance, compare};

use super::{Problem, Step, wide};

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

/// Compares a step with the reference, tensor by tensor.
pub fn check<T: Element>(problem: &Problem<T>, step: &Step<T>, reference: &(Forward, Gradients)) {
    let (forward, grads) = reference;
    let (table, exact) = (&step.gate.table, &forward.gate.table);
    table.validate().unwrap();
    assert_eq!(table.token_offsets, exact.token_offsets, "token offsets");
    assert_eq!(table.expert_indices, exact.expert_indices, "expert indices");
    assert_eq!(step.gate.dropped, forward.gate.dropped);
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
    close("logits", &step.router_logits, &forward.logits, f32s);
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
    let dlogits = &step.dlogits;
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
            step.gate.losses.balance,
            forward.gate.losses.balance,
        ),
        ("z", step.gate.losses.z, forward.gate.losses.z),
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
