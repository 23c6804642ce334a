//! Softmax of rows, its backward pass, and the row sums that both and the gate are made of.
//!
//! Sums have [`LANES`] partial sums that are added as a tree, so their bits do not depend on the
//! width of the vectors.

use tollgate_core::math::{self, exp_of_nonpositive, vectorized};
use tollgate_core::{Cpu, Result, RowView, RowViewMut};

use super::blocks::{BLOCK_ROWS, Parts, Team};
use super::search::LANES;
use crate::check;

/// The sum of the partial sums, as a tree.
#[inline(always)]
fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ of a row of any length.
#[inline(always)]
pub(super) fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for values in whole {
        for i in 0..LANES {
            lanes[i] += values[i];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += value;
    }
    tree(lanes)
}

/// Σ a·b of two rows of the same length.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in whole_a.iter().zip(whole_b) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *lane = a.mul_add(b, *lane);
    }
    tree(lanes)
}

/// Writes `exp(z − max)` and returns the sum; it is at least 1 exactly where the row is neither
/// faulty nor fully masked, else NaN.
#[inline(always)]
pub(super) fn exponentials(z: &[f32], max: f32, out: &mut [f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole_z, rest_z) = z.as_chunks::<LANES>();
    let (whole_out, rest_out) = out.as_chunks_mut::<LANES>();
    for (z, out) in whole_z.iter().zip(whole_out) {
        let mut values = [0f32; LANES];
        for i in 0..LANES {
            values[i] = exp_of_nonpositive(z[i] - max);
        }
        for i in 0..LANES {
            lanes[i] += values[i];
        }
        *out = values;
    }
    if !rest_z.is_empty() {
        // Padding is masked: it adds 0. Whole vectors are faster than single elements.
        let mut values = [f32::NEG_INFINITY; LANES];
        values[..rest_z.len()].copy_from_slice(rest_z);
        for i in 0..LANES {
            values[i] = exp_of_nonpositive(values[i] - max);
        }
        for i in 0..rest_z.len() {
            lanes[i] += values[i];
        }
        rest_out.copy_from_slice(&values[..rest_z.len()]);
    }
    tree(lanes)
}

/// Σ a·(b·factor): where products of a and b alone would be no normal numbers.
#[inline(always)]
pub(super) fn dot_scaled(a: &[f32], b: &[f32], factor: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in whole_a.iter().zip(whole_b) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i] * factor, lanes[i]);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *lane = a.mul_add(b * factor, *lane);
    }
    tree(lanes)
}

/// Multiplies a row.
#[inline(always)]
pub(super) fn scale(row: &mut [f32], factor: f32) {
    for value in row {
        *value *= factor;
    }
}

/// Below this e^x is no normal number: exponentials and sigmoids are exactly 0. The exponentials of
/// [`tollgate_core::math`] see to it themselves.
pub(super) const UNDERFLOW: f32 = -87.3;

/// Sigmoid of a logit, never a subnormal number.
#[inline(always)]
pub(super) fn sigmoid(z: f32) -> f32 {
    let value = math::sigmoid(z);
    if z < UNDERFLOW { 0.0 } else { value }
}

/// Sigmoid of every logit.
#[inline(always)]
pub(super) fn sigmoids(z: &[f32], out: &mut [f32]) {
    for (out, &z) in out.iter_mut().zip(z) {
        *out = sigmoid(z);
    }
}

/// The largest value; unspecified if there is a NaN.
#[inline(always)]
pub(super) fn row_max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for values in whole {
        for i in 0..LANES {
            lanes[i] = if values[i] > lanes[i] {
                values[i]
            } else {
                lanes[i]
            };
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = if value > *lane { value } else { *lane };
    }
    lanes
        .iter()
        .fold(f32::NEG_INFINITY, |max, &v| if v > max { v } else { max })
}

/// Whether a row holds a NaN or +∞.
pub(super) fn is_faulty(row: &[f32]) -> bool {
    row.iter().any(|&z| z.is_nan() || z == f32::INFINITY)
}

/// What is wrong with a row whose [`exponentials`] do not add up: its scores and log-sum-exp.
pub(super) fn degenerate(z: &[f32]) -> f32 {
    if is_faulty(z) {
        f32::NAN
    } else {
        f32::NEG_INFINITY
    }
}

/// ln of a sum of exponentials, which is at least 1: `ln x = k ln 2 + 2 artanh((m−1)/(m+1))` with
/// `x = m 2^k`, m between √½ and √2. In f64 with an error below 2^-36; without branches.
#[inline(always)]
fn ln(x: f32) -> f64 {
    const SQRT_HALF_BITS: i32 = 0x3f35_04f3;
    let bits = x.to_bits() as i32;
    let k = (bits - SQRT_HALF_BITS) >> 23;
    let m = f64::from(f32::from_bits((bits - (k << 23)) as u32));
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    // Σ s^2i / (2i+1); s² ≤ 0.0295, the first term left out is below 2^-36.
    let mut p = 1.0 / 13.0;
    for denominator in [11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        p = s2.mul_add(p, 1.0 / denominator);
    }
    f64::from(k).mul_add(std::f64::consts::LN_2, 2.0 * s * p)
}

/// `lse = max + ln(sum)` for rows of one block; `max` waits in `lse`. Where a sum is no sum (see
/// [`exponentials`]) `lse` is left alone.
#[inline(always)]
pub(super) fn log_sums(sums: &[f32], lse: &mut [f32]) {
    for (lse, &sum) in lse.iter_mut().zip(sums) {
        let regular = (f64::from(*lse) + ln(sum)) as f32;
        *lse = if sum >= 1.0 { regular } else { *lse };
    }
}

/// See [`crate::Gating::softmax`].
pub(super) fn forward(
    cpu: &Cpu,
    logits: RowView<'_, f32>,
    probs: RowViewMut<'_, f32>,
    lse: &mut [f32],
) -> Result<()> {
    let shape = (logits.rows(), logits.cols());
    check::softmax(shape, (probs.rows(), probs.cols()), lse.len())?;
    let mut lse = Parts::new(lse, 1);
    let blocks = probs.chunks(BLOCK_ROWS).into_iter().enumerate();
    let blocks: Vec<_> = blocks
        .map(|(b, probs)| {
            let lse = lse.take(probs.rows());
            (b * BLOCK_ROWS, probs, lse)
        })
        .collect();
    Team::enter(cpu, shape.0 * shape.1, |team| {
        team.run(
            blocks,
            || [0f32; BLOCK_ROWS],
            |sums, (start, mut probs, lse)| {
                vectorized(
                    #[inline(always)]
                    || {
                        for r in 0..lse.len() {
                            let z = logits.row(start + r);
                            let p = probs.row_mut(r);
                            lse[r] = row_max(z);
                            sums[r] = exponentials(z, lse[r], p);
                            if sums[r] >= 1.0 {
                                scale(p, 1.0 / sums[r]);
                            } else {
                                lse[r] = degenerate(z);
                                p.fill(if lse[r].is_nan() { f32::NAN } else { 0.0 });
                            }
                        }
                        log_sums(sums, lse);
                    },
                );
            },
        );
    });
    Ok(())
}

/// See [`crate::Gating::softmax_backward`].
pub(super) fn backward(
    cpu: &Cpu,
    probs: RowView<'_, f32>,
    dprobs: RowView<'_, f32>,
    dlogits: RowViewMut<'_, f32>,
) -> Result<()> {
    let shape = (probs.rows(), probs.cols());
    let of_dprobs = (dprobs.rows(), dprobs.cols());
    check::softmax_backward(shape, of_dprobs, (dlogits.rows(), dlogits.cols()))?;
    if shape.1 == 0 {
        return Ok(());
    }
    let blocks: Vec<_> = dlogits.chunks(BLOCK_ROWS).into_iter().enumerate().collect();
    Team::enter(cpu, shape.0 * shape.1, |team| {
        team.run(
            blocks,
            || (),
            |(), (b, mut dlogits)| {
                vectorized(
                    #[inline(always)]
                    || {
                        for r in 0..dlogits.rows() {
                            let (p, dp) = (
                                probs.row(b * BLOCK_ROWS + r),
                                dprobs.row(b * BLOCK_ROWS + r),
                            );
                            let mean = dot(p, dp);
                            for ((dz, &p), &dp) in dlogits.row_mut(r).iter_mut().zip(p).zip(dp) {
                                *dz = p * (dp - mean);
                            }
                        }
                    },
                );
            },
        );
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_is_within_its_bound() {
        let mut x = 1.0f32;
        while x < 1e9 {
            let error = (ln(x) - f64::from(x).ln()).abs();
            assert!(error < 2f64.powi(-36), "{x}: {error}");
            x *= 1.000_37;
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn sums_take_every_element_once() {
        for n in 0..70 {
            let row: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let expected = (n * (n + 1) / 2) as f32;
            assert_eq!(sum(&row), expected);
            assert_eq!(dot(&row, &vec![2.0; n]), 2.0 * expected);
            assert_eq!(dot_scaled(&row, &vec![4.0; n], 0.5), 2.0 * expected);
            assert_eq!(
                row_max(&row),
                if n == 0 { f32::NEG_INFINITY } else { n as f32 }
            );
        }
    }

    /// What a row goes through.
    #[inline(always)]
    fn all_of(z: &[f32], g: &[f32]) -> Vec<f32> {
        let mut p = vec![0f32; z.len()];
        let total = exponentials(z, row_max(z), &mut p);
        let mut lse = [row_max(z)];
        log_sums(&[total], &mut lse);
        scale(&mut p, 1.0 / total);
        p.extend([total, lse[0], sum(&p), dot(&p, g)]);
        p
    }

    /// Sums have their order, so that the width of the machine's vectors does not show.
    #[test]
    fn vector_and_scalar_code_have_the_same_bits() {
        let mut data = tollgate_testkit::Data::new(3);
        for n in [1, 7, 16, 64, 100, 257] {
            let (z, g): (Vec<f32>, Vec<f32>) = (data.normals(n, 8.0), data.normals(n, 1.0));
            let wide = vectorized(
                #[inline(always)]
                || all_of(&z, &g),
            );
            tollgate_testkit::assert_same("row", &all_of(&z, &g), &wide);
        }
    }
}
