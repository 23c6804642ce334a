//! Scores of a row of logits: softmax or sigmoid, and log-sum-exp.

use tollgate_core::options::Scores;
use tollgate_core::{Result, RowView};

use crate::check;

/// Whether a row holds a NaN or +∞.
pub(super) fn is_faulty(row: &[f64]) -> bool {
    row.iter().any(|&z| z.is_nan() || z == f64::INFINITY)
}

/// Whether a logit is masked: −∞.
pub(super) fn is_masked(z: f64) -> bool {
    z == f64::NEG_INFINITY
}

/// log(1 + e^x), without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Below this e^x is no normal number of f32: such exponentials and sigmoids are exactly 0, here as
/// in every implementation, so that all agree on which scores there are to share.
const UNDERFLOW: f32 = -87.3;

/// Whether e^x counts as 0. Compared in f32, where implementations have the difference x of two
/// logits.
fn underflows(x: f64) -> bool {
    (x as f32) < UNDERFLOW
}

/// e^x of an x that is not positive.
pub(super) fn exponential(x: f64) -> f64 {
    if underflows(x) { 0.0 } else { x.exp() }
}

/// 1 / (1 + e^−x).
pub(super) fn sigmoid(x: f64) -> f64 {
    if underflows(x) {
        0.0
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

/// Softmax of one row and its log-sum-exp.
///
/// `p_e = exp(z_e − max) / Σ_j exp(z_j − max)`; a fully masked row has p = 0 and lse = −∞, a faulty one NaN.
pub(super) fn softmax_row(z: &[f64]) -> (Vec<f64>, f64) {
    if is_faulty(z) {
        return (vec![f64::NAN; z.len()], f64::NAN);
    }
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if is_masked(max) {
        return (vec![0.0; z.len()], f64::NEG_INFINITY);
    }
    let exponentials: Vec<f64> = z.iter().map(|&z| exponential(z - max)).collect();
    let sum: f64 = exponentials.iter().sum();
    (
        exponentials.iter().map(|e| e / sum).collect(),
        max + sum.ln(),
    )
}

/// Scores of one row by either map, and the row's log-sum-exp.
pub(super) fn scores_row(z: &[f64], scores: Scores) -> (Vec<f64>, f64) {
    let (probs, lse) = softmax_row(z);
    match scores {
        Scores::Softmax => (probs, lse),
        Scores::Sigmoid if is_faulty(z) => (vec![f64::NAN; z.len()], f64::NAN),
        Scores::Sigmoid => (z.iter().map(|&z| sigmoid(z)).collect(), lse),
    }
}

/// Row-wise softmax of `[T, E]` logits: probabilities `[T, E]` row-major, and log-sum-exp `[T]`.
/// See [`crate::Gating::softmax`]. Both are empty where E = 0: such rows take no memory, so that
/// any number of them may be claimed.
pub fn softmax(logits: RowView<'_, f64>) -> (Vec<f64>, Vec<f64>) {
    let (mut probs, mut lse) = (Vec::new(), Vec::new());
    if logits.cols() == 0 {
        return (probs, lse);
    }
    for z in logits.iter() {
        let (p, l) = softmax_row(z);
        probs.extend(p);
        lse.push(l);
    }
    (probs, lse)
}

/// `dlogits[t,j] = p_j (dprobs_j − Σ_e p_e dprobs_e)`, `[T, E]` row-major.
///
/// # Errors
/// Shapes that differ; more than 2^31 − 1 rows.
pub fn softmax_backward(probs: RowView<'_, f64>, dprobs: RowView<'_, f64>) -> Result<Vec<f64>> {
    let shape = (probs.rows(), probs.cols());
    check::softmax_backward(shape, (dprobs.rows(), dprobs.cols()), shape)?;
    let mut dlogits = Vec::new();
    if shape.1 == 0 {
        return Ok(dlogits);
    }
    for (p, dp) in probs.iter().zip(dprobs.iter()) {
        let mean: f64 = p.iter().zip(dp).map(|(p, dp)| p * dp).sum();
        dlogits.extend(p.iter().zip(dp).map(|(p, dp)| p * (dp - mean)));
    }
    Ok(dlogits)
}
