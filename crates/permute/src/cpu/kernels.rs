//! The three inner loops, written to be compiled inside `vectorized`.
//!
//! Each output element depends on its own column only, except in [`dot`], whose order of summation
//! is spelled out: the bits are the same at every vector width.

use tollgate_core::Element;

/// Columns that a sum over many experts carries at a time: 2 KiB of f32, well inside L1.
pub(super) const PANEL: usize = 512;

/// Partial sums of a dot product.
pub(super) const LANES: usize = 32;

/// `sum[j] = fma(w_n, source_n[j], …)` for n = 0, 1, … in this order, starting from `sum[j]`.
/// Every source has at least `sum.len()` elements.
#[inline(always)]
pub(super) fn accumulate<T: Element, const N: usize>(
    sum: &mut [f32],
    mut sources: [&[T]; N],
    weights: [f32; N],
) {
    let n = sum.len();
    for i in 0..N {
        sources[i] = &sources[i][..n];
    }
    for j in 0..n {
        let mut s = sum[j];
        for i in 0..N {
            s = weights[i].mul_add(sources[i][j].to_f32(), s);
        }
        sum[j] = s;
    }
}

/// As [`accumulate`] from 0, rounded into `out`: nothing is carried through memory.
#[inline(always)]
pub(super) fn weighted_sum<T: Element, const N: usize>(
    out: &mut [T],
    mut sources: [&[T]; N],
    weights: [f32; N],
) {
    let n = out.len();
    for i in 0..N {
        sources[i] = &sources[i][..n];
    }
    for j in 0..n {
        let mut s = 0f32;
        for i in 0..N {
            s = weights[i].mul_add(sources[i][j].to_f32(), s);
        }
        out[j] = T::from_f32(s);
    }
}

/// `out[j] = round(sum[j])`.
#[inline(always)]
pub(super) fn store<T: Element>(out: &mut [T], sum: &[f32]) {
    for (o, &s) in out.iter_mut().zip(sum) {
        *o = T::from_f32(s);
    }
}

/// `scaled[j] = round(weight · dy[j])`, and the dot product of `dy` and `row`.
///
/// Lane l sums the columns j ≡ l (mod 32) in ascending order by fused multiply–adds from 0; then
/// the upper half of the lanes is added to the lower, 16, 8, 4, 2, 1 at a time. The three slices
/// have one length.
#[inline(always)]
pub(super) fn scale_and_dot<T: Element>(scaled: &mut [T], dy: &[T], row: &[T], weight: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (scaled_blocks, scaled_rest) = scaled.as_chunks_mut::<LANES>();
    let (dy_blocks, dy_rest) = dy.as_chunks::<LANES>();
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    for ((s, d), r) in scaled_blocks.iter_mut().zip(dy_blocks).zip(row_blocks) {
        // All loads before the stores: the compiler need not prove that they do not overlap.
        let mut gradient = [0f32; LANES];
        let mut value = [0f32; LANES];
        for l in 0..LANES {
            gradient[l] = d[l].to_f32();
        }
        for l in 0..LANES {
            value[l] = r[l].to_f32();
        }
        for l in 0..LANES {
            lanes[l] = gradient[l].mul_add(value[l], lanes[l]);
        }
        for l in 0..LANES {
            s[l] = T::from_f32(weight * gradient[l]);
        }
    }
    for (l, ((s, d), r)) in scaled_rest
        .iter_mut()
        .zip(dy_rest)
        .zip(row_rest)
        .enumerate()
    {
        let gradient = d.to_f32();
        lanes[l] = gradient.mul_add(r.to_f32(), lanes[l]);
        *s = T::from_f32(weight * gradient);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}
