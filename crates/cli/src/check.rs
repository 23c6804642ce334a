//! How far a step is from the f64 reference.

use tollgate::reference::{self, Batch, Parameters};
use tollgate::{Element, StepContext};

use crate::engine::Seen;
use crate::error::Result;
use crate::step::{Outputs, Problem};

/// What the comparison found.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Tokens whose experts are not those of the reference; rows of such tokens are left out of the
    /// errors.
    pub routing_differs: usize,
    /// Tensor and max |actual − reference| / max |reference|; NaN where only one side is NaN.
    pub errors: Vec<(&'static str, f64)>,
}

impl Agreement {
    /// The largest error; NaN if one is NaN.
    pub fn largest(&self) -> f64 {
        let worst = |m: f64, e: f64| if e > m || e.is_nan() { e } else { m };
        self.errors
            .iter()
            .fold(0.0, |m, &(_, e)| if m.is_nan() { m } else { worst(m, e) })
    }
}

/// Compares the step of `ctx` that `seen` and `outputs` hold with the reference.
///
/// # Errors
/// What the reference refuses.
pub fn check<T: Element>(
    problem: &Problem<'_, T>,
    ctx: &StepContext,
    seen: Seen<'_>,
    outputs: &Outputs<T>,
) -> Result<Agreement> {
    let (inputs, weights) = (problem.inputs()?, problem.weights());
    let (parameters, batch) = (Parameters::widen(&weights), Batch::widen(&inputs));
    let layer = &problem.layer;
    let cpu = layer.device();
    let exact = cpu.install(|| reference::forward(layer, &parameters, &batch, ctx))?;
    let (table, expected) = (&seen.gate.table, &exact.gate.table);
    let agrees: Vec<bool> = (0..batch.tokens)
        .map(|t| table.experts_of(t) == expected.experts_of(t))
        .collect();
    let agreeing = |width: usize| rows(&agrees, width);
    let (e, h) = (problem.model.experts, problem.model.hidden);

    let mut errors = Vec::new();
    if problem.options().router.has_gate() {
        let logits = seen.router_logits;
        errors.push(("router_logits", error(logits, &exact.logits, agreeing(e))));
        errors.push((
            "router_probs",
            error(&seen.gate.scores, &exact.gate.scores, agreeing(e)),
        ));
    }
    // The same experts of the same tokens: pairs of positions in both tables.
    let pairs = (0..batch.tokens).filter(|&t| agrees[t]);
    let (mut actual, mut reference) = (Vec::new(), Vec::new());
    for t in pairs {
        actual.extend_from_slice(table.weights_of(t));
        reference.extend_from_slice(expected.weights_of(t));
    }
    errors.push((
        "routing_weights",
        error(&actual, &reference, 0..actual.len()),
    ));
    errors.push(("y", error(&outputs.y, &exact.y, agreeing(h))));

    if let Some(b) = &outputs.backward {
        let dy: Vec<f64> = b.dy.iter().map(|d| d.to_f64()).collect();
        let exact =
            cpu.install(|| reference::backward(layer, &parameters, &batch, ctx, &exact, &dy))?;
        errors.push(("grad.x", error(&b.x, &exact.x, agreeing(h))));
        let mut whole = |name, actual: &[f32], reference: &[f64]| {
            if !reference.is_empty() {
                errors.push((name, error(actual, reference, 0..reference.len())));
            }
        };
        let dlogits = seen.router_logit_gradient;
        whole("grad.router_logits", dlogits, &exact.logits);
        whole("grad.router_weight", &b.router, &exact.router);
        whole("grad.router_noise", &b.router_noise, &exact.router_noise);
        whole("grad.up", &b.up, &exact.up);
        if let Some(bias) = &b.up_bias {
            whole("grad.up_bias", bias, &exact.up_bias);
        }
        whole("grad.down", &b.down, &exact.down);
        if let Some(bias) = &b.down_bias {
            whole("grad.down_bias", bias, &exact.down_bias);
        }
    }
    Ok(Agreement {
        routing_differs: agrees.iter().filter(|&&a| !a).count(),
        errors,
    })
}

/// The positions of the rows of agreeing tokens.
fn rows(agrees: &[bool], width: usize) -> impl Iterator<Item = usize> + '_ {
    let tokens = agrees.iter().enumerate().filter(|&(_, &a)| a);
    tokens.flat_map(move |(t, _)| t * width..(t + 1) * width)
}

/// max |actual − reference| / max |reference| over some positions.
fn error<T: Element>(
    actual: &[T],
    reference: &[f64],
    positions: impl Iterator<Item = usize>,
) -> f64 {
    let (mut worst, mut scale) = (0f64, 0f64);
    for i in positions {
        let (a, r) = (actual[i].to_f64(), reference[i]);
        if a == r || (a.is_nan() && r.is_nan()) {
            scale = scale.max(r.abs());
            continue;
        }
        let difference = (a - r).abs();
        if difference.is_nan() {
            return f64::NAN;
        }
        worst = worst.max(difference);
        scale = scale.max(r.abs());
    }
    if worst == 0.0 { 0.0 } else { worst / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_largest_and_a_nan_is_seen() {
        let all = |n| 0..n;
        assert_eq!(error(&[1.0f32, 2.5], &[1.0, 2.0], all(2)), 0.25);
        assert_eq!(error(&[1.0f32, 2.5], &[1.0, 2.0], all(1)), 0.0);
        assert_eq!(error::<f32>(&[], &[], all(0)), 0.0);
        assert_eq!(error(&[f32::NAN, 1.0], &[f64::NAN, 1.0], all(2)), 0.0);
        assert!(error(&[f32::NAN, 1.0], &[1.0, 1.0], all(2)).is_nan());
        assert!(error(&[1.0f32, 1.0], &[f64::NAN, 1.0], all(2)).is_nan());
        assert_eq!(error(&[1.0f32], &[0.0], all(1)), f64::INFINITY);
        let mut agreement = Agreement {
            routing_differs: 0,
            errors: vec![("a", 0.1), ("b", 0.3), ("c", 0.2)],
        };
        assert_eq!(agreement.largest(), 0.3);
        agreement.errors[1].1 = f64::NAN;
        assert!(agreement.largest().is_nan());
    }

    #[test]
    fn rows_skip_tokens_that_differ() {
        let positions: Vec<usize> = rows(&[true, false, true], 2).collect();
        assert_eq!(positions, [0, 1, 4, 5]);
    }
}
