//! The auxiliary losses and their gradients.

use tollgate_core::options::{BalanceOver, Scores};
use tollgate_core::{Result, RowView};

use super::select::Decision;
use super::softmax::{is_faulty, is_masked, softmax_row};
use crate::losses::check_consistency;

/// f_e of the balance loss, `[E]`: each expert's share of the load, from the gate's own decisions.
pub(super) fn load(over: BalanceOver, decisions: &[Decision], num_experts: usize) -> Vec<f64> {
    let mut counts = vec![0u64; num_experts];
    for decision in decisions {
        match over {
            BalanceOver::Top1Only => {
                if let [only] = decision.experts[..] {
                    counts[only] += 1;
                }
            }
            BalanceOver::FirstChoice => counts[decision.first] += 1,
            BalanceOver::All => decision.experts.iter().for_each(|&e| counts[e] += 1),
        }
    }
    let total: u64 = counts.iter().sum();
    counts
        .iter()
        .map(|&c| c as f64 / total.max(1) as f64)
        .collect()
}

/// What the balance loss averages: probabilities, or sigmoids as shares of their sum.
fn shares(p: &[f64], scores: Scores) -> Vec<f64> {
    match scores {
        Scores::Softmax => p.to_vec(),
        Scores::Sigmoid => {
            let sum: f64 = p.iter().sum();
            p.iter()
                .map(|p| if sum == 0.0 { 0.0 } else { p / sum })
                .collect()
        }
    }
}

/// `α E Σ_e f_e P_e` (Li et al., EMNLP 2023; Fedus et al., 2021); `p` is `[T, E]`.
pub(super) fn balance(alpha: f64, f: &[f64], p: &[f64], scores: Scores) -> f64 {
    let num_experts = f.len();
    let tokens = p.len() / num_experts;
    if tokens == 0 {
        return 0.0;
    }
    let mut mean = vec![0.0; num_experts];
    for row in p.chunks_exact(num_experts) {
        for (mean, share) in mean.iter_mut().zip(shares(row, scores)) {
            *mean += share / tokens as f64;
        }
    }
    let dot: f64 = f.iter().zip(&mean).map(|(f, p)| f * p).sum();
    alpha * num_experts as f64 * dot
}

/// Adds one row's gradient of [`balance`] over `tokens` rows, f held constant.
pub(super) fn balance_backward(
    alpha: f64,
    tokens: usize,
    f: &[f64],
    p: &[f64],
    scores: Scores,
    dz: &mut [f64],
) {
    let q = shares(p, scores);
    let factor = alpha * f.len() as f64 / tokens as f64;
    let mean: f64 = f.iter().zip(&q).map(|(f, q)| f * q).sum();
    for j in 0..f.len() {
        let slope = match scores {
            Scores::Softmax => 1.0,
            Scores::Sigmoid => 1.0 - p[j],
        };
        dz[j] += factor * q[j] * (f[j] - mean) * slope;
    }
}

/// `c · mean(lse²)`; fully masked rows (lse = −∞) contribute 0.
pub(super) fn z(c: f64, lse: &[f64]) -> f64 {
    let square = |&l: &f64| if is_masked(l) { 0.0 } else { l * l };
    let sum: f64 = lse.iter().map(square).sum();
    if lse.is_empty() {
        0.0
    } else {
        c * sum / lse.len() as f64
    }
}

/// Adds one row's gradient of [`z`](fn@z) over `tokens` rows.
pub(super) fn z_backward(c: f64, tokens: usize, logits: &[f64], dz: &mut [f64]) {
    let (p, lse) = softmax_row(logits);
    if !is_masked(lse) {
        for (dz, p) in dz.iter_mut().zip(p) {
            *dz += 2.0 * c / tokens as f64 * lse * p;
        }
    }
}

/// The consistency loss and its gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct Consistency {
    /// `α · ½ · Σ (p − q)(log p − log q)`.
    pub loss: f64,
    /// `[N, V]` row-major, gradient with respect to a.
    pub da: Vec<f64>,
    /// `[N, V]` row-major, gradient with respect to b.
    pub db: Vec<f64>,
}

/// The consistency loss of stochastic experts (Zuo et al., ICLR 2022) between the logits `a` and
/// `b` `[N, V]` of two passes; see [`crate::losses::consistency`].
///
/// # Errors
/// Shapes that differ, more than 2^31 − 1 rows; an α that is negative or not finite.
pub fn consistency(
    a: RowView<'_, f64>,
    b: RowView<'_, f64>,
    padding: Option<&[bool]>,
    alpha: f64,
) -> Result<Consistency> {
    check_consistency((a.rows(), a.cols()), (b.rows(), b.cols()), padding, alpha)?;
    let mut result = Consistency {
        loss: 0.0,
        da: Vec::new(),
        db: Vec::new(),
    };
    if alpha == 0.0 || a.cols() == 0 {
        // Turned off, whatever the rows hold; or they hold nothing.
        result.da = vec![0.0; a.rows() * a.cols()];
        result.db = result.da.clone();
        return Ok(result);
    }
    for (n, (a, b)) in a.iter().zip(b.iter()).enumerate() {
        if padding.is_some_and(|padding| padding[n]) {
            result.da.extend(a.iter().map(|_| 0.0));
            result.db.extend(b.iter().map(|_| 0.0));
            continue;
        }
        let one_sided = a.iter().zip(b).any(|(&a, &b)| is_masked(a) != is_masked(b));
        if is_faulty(a) || is_faulty(b) || one_sided {
            let faulty = is_faulty(a) || is_faulty(b);
            result.loss += alpha * if faulty { f64::NAN } else { f64::INFINITY };
            result.da.extend(a.iter().map(|_| f64::NAN));
            result.db.extend(b.iter().map(|_| f64::NAN));
            continue;
        }
        let ((p, lse_a), (q, lse_b)) = (softmax_row(a), softmax_row(b));
        // log p − log q by log-softmax: the logarithm of an underflown p would be −∞.
        let log_ratio = |i: usize| {
            if is_masked(a[i]) {
                0.0
            } else {
                (a[i] - lse_a) - (b[i] - lse_b)
            }
        };
        let kl_pq: f64 = (0..p.len()).map(|i| p[i] * log_ratio(i)).sum();
        let kl_qp: f64 = (0..p.len()).map(|i| -q[i] * log_ratio(i)).sum();
        let half = 0.5 * alpha;
        for i in 0..p.len() {
            result.loss += half * (p[i] - q[i]) * log_ratio(i);
            result
                .da
                .push(half * (p[i] * (log_ratio(i) - kl_pq) + (p[i] - q[i])));
            result
                .db
                .push(half * (q[i] * (-log_ratio(i) - kl_qp) + (q[i] - p[i])));
        }
    }
    Ok(result)
}
