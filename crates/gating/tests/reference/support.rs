//! What the tests of the reference share.

use tollgate_core::options::GateOptions;
use tollgate_core::{Router, RowView, StepContext};
use tollgate_gating::{GateInputs, GateState, reference};

/// One spelling of every router, and of every branch inside one.
pub const ROUTERS: [&str; 22] = [
    "top1",
    "top2",
    "topk:3",
    "sigmoid:1",
    "sigmoid:3",
    "grouped:2:3:2",
    "grouped:3:2:1:softmax",
    "adaptive:0.3",
    "forced:0.5",
    "second:all",
    "second:none",
    "second:threshold:0.3",
    "second:random:0.4",
    "noisy:1",
    "noisy:2",
    "expert-choice:2",
    // More than the tokens of most cases: all of them.
    "expert-choice:40",
    "expert-choice:1.5x",
    "hash",
    "thor",
    "thor:token",
    "ensemble",
];

/// Options of a router by its spelling.
pub fn options(router: &str) -> GateOptions {
    GateOptions::new(router.parse::<Router>().unwrap())
}

/// Runs the reference on `[T, E]` logits.
pub fn gate(
    logits: &[f64],
    num_experts: usize,
    options: &GateOptions,
    ctx: &StepContext,
) -> GateState<f64> {
    let view = RowView::new(logits, logits.len() / num_experts, num_experts).unwrap();
    reference::gate(&GateInputs::new(view), options, ctx).unwrap()
}

/// Runs the reference's backward pass on `[T, E]` logits.
pub fn gate_backward(
    logits: &[f64],
    num_experts: usize,
    options: &GateOptions,
    state: &GateState<f64>,
    dweights: &[f64],
) -> Vec<f64> {
    let view = RowView::new(logits, logits.len() / num_experts, num_experts).unwrap();
    let inputs = GateInputs::new(view);
    let ctx = StepContext::default();
    reference::gate_backward(&inputs, options, &ctx, state, dweights)
        .unwrap()
        .0
}

/// Logarithms: logits whose softmax is in the ratio of `odds`, 0 being masked.
pub fn logs<const N: usize>(odds: [f64; N]) -> [f64; N] {
    odds.map(f64::ln)
}

/// Panics unless both are equal but for a few roundings of f64.
#[track_caller]
pub fn close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{actual:?} and {expected:?}");
    for (a, e) in actual.iter().zip(expected) {
        let same = a == e || (a.is_nan() && e.is_nan());
        assert!(
            same || (a - e).abs() <= 1e-14,
            "{actual:?} should be {expected:?}"
        );
    }
}
