//! How far f32 results may lie from the reference, derived from the arithmetic.
//!
//! Unit: u = 2^-24, the error of one rounding. An exponential errs by 2.7 u (2^-22.6), a sigmoid by
//! 5.7 u (2^-21.5). `d = max − z` is rounded once, which moves exp(−d) by d·u relatively. From
//! d = 87.3 on exponentials are 0: an absolute error of 1.2e-38.

pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// Exponentials below this are 0 in f32; a few of its kind may add up.
pub const FLOOR: f64 = 2e-37;

/// From here on d no longer matters: the exponential is below [`FLOOR`].
const DEEPEST: f64 = 88.0;

/// A sum of n positive numbers in 16 lanes: n/16 additions in a lane and 4 across.
pub fn of_sum(n: usize) -> f64 {
    n as f64 / 16.0 + 5.0
}

/// d of a logit, at most [`DEEPEST`].
pub fn depth(max: f64, z: f64) -> f64 {
    (max - z).min(DEEPEST)
}

/// Relative error of a softmax's normaliser, in u: the exponentials', the sum's, and Σ p d from the
/// rounding of d. That last is at most ln E: Σ p d = max − lse + entropy, and max ≤ lse.
pub fn of_normalizer(experts: usize) -> f64 {
    2.7 + of_sum(experts) + (experts as f64).ln()
}

/// Relative error of one probability at a depth, in u: its exponential, its d, the normaliser, the
/// reciprocal and the product.
pub fn of_probability(experts: usize, depth: f64) -> f64 {
    2.7 + depth + of_normalizer(experts) + 2.0
}

/// Bounds of all scores of a row that is neither faulty nor fully masked.
pub fn of_scores(z: &[f64], p: &[f64], sigmoid: bool) -> Vec<f64> {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let relative = |&z: &f64| {
        if sigmoid {
            5.7
        } else {
            of_probability(p.len(), depth(max, z))
        }
    };
    z.iter()
        .zip(p)
        .map(|(z, p)| relative(z) * U * p + FLOOR)
        .collect()
}

/// Relative error, in u, of a weight that is made of scores of the given depth or less: twice a
/// score's (numerator and denominator), the sum of at most `terms`, a quotient and the scale.
pub fn of_weight(experts: usize, depth: f64, terms: usize) -> f64 {
    2.0 * of_probability(experts, depth).max(5.7) + of_sum(16 * terms) + 2.0
}

/// Bound of a log-sum-exp: the normaliser's relative error is the logarithm's absolute one; then
/// one rounding of the result.
pub fn of_lse(experts: usize, lse: f64) -> f64 {
    (of_normalizer(experts) + lse.abs()) * U * 1.01
}

/// Relative error, in u, of the balance loss: a sum of positive products of shares.
pub fn of_balance(experts: usize) -> f64 {
    of_probability(experts, DEEPEST).max(2.0 * 5.7 + of_sum(experts)) + 2.0
}
