//! Comparisons that run before anything is timed.
//!
//! Operations are tested in their own crates, on every edge case and element by element. Here a
//! sample of the very result that is about to be timed is compared with the f64 reference, so that
//! no figure belongs to a kernel that computes something else.

mod layer;

pub use layer::{Gradients, LayerCase, check_backward, check_forward};

use tollgate::DType;

/// `count` of `0..n`, spread evenly, the first and the last among them; all if there are fewer.
pub fn sample(n: usize, count: usize) -> Vec<usize> {
    if n <= count {
        return (0..n).collect();
    }
    let last = count.max(2) - 1;
    (0..=last).map(|i| i * (n - 1) / last).collect()
}

/// How far, relative to the norm of the result, sums of `terms` products of random numbers of mean
/// zero may be off after `roundings` roundings to `dtype` on the way.
///
/// Roundings of such data are independent of each other. In a chain of n additions the i-th errs
/// by u = 2⁻²⁴ of a partial sum that has grown as √i, so the error has the norm u·√(n/2) of the
/// result's; a rounding to a type of unit roundoff u at most u. Their squares add up; here the
/// errors themselves are added, twice over.
pub fn norm_tolerance(dtype: DType, roundings: usize, terms: usize) -> f64 {
    let stores = roundings as f64 * dtype.unit_roundoff();
    let sums = (terms as f64 / 2.0).sqrt() * DType::F32.unit_roundoff();
    2.0 * (stores + sums)
}

/// Panics with `what` unless `‖actual − expected‖ ≤ relative · ‖expected‖`; a NaN fails.
#[track_caller]
pub fn assert_norm(
    what: &str,
    actual: impl IntoIterator<Item = f64>,
    expected: &[f64],
    relative: f64,
) {
    let actual: Vec<f64> = actual.into_iter().collect();
    assert_eq!(actual.len(), expected.len(), "{what}: lengths differ");
    let (mut error, mut norm) = (0.0, 0.0);
    for (a, e) in actual.iter().zip(expected) {
        error += (a - e) * (a - e);
        norm += e * e;
    }
    let (error, norm) = (f64::sqrt(error), f64::sqrt(norm));
    assert!(
        error <= relative * norm,
        "{what}: off by {:e} of the norm, allowed {relative:e} ({} elements)",
        error / norm,
        expected.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_reach_both_ends() {
        assert_eq!(sample(3, 4), [0, 1, 2]);
        assert_eq!(sample(101, 3), [0, 50, 100]);
        assert!(sample(0, 3).is_empty());
        assert_eq!(sample(10, 2), [0, 9]);
    }

    #[test]
    fn a_wrong_element_or_a_nan_is_found() {
        let expected = [1.0, 2.0, -2.0];
        assert_norm("same", expected, &expected, 0.0);
        for wrong in [[1.0, 2.0, -2.1], [f64::NAN, 2.0, -2.0]] {
            let caught = std::panic::catch_unwind(|| {
                assert_norm("wrong", wrong, &expected, 1e-2);
            });
            assert!(caught.is_err(), "{wrong:?}");
        }
    }
}
