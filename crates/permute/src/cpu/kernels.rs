//! The three inner loops, written to be compiled inside `vectorized`.
//!
//! Each output element depends on its own column only, except in [`scale_and_dot`], whose order of summation
//! is spelled out: the bits are the same at every vector width.

use tollgate_core::Element;

/// Columns that a sum over many experts carries at a time: 2 KiB of f32, well inside L1.
pub(super) const PANEL: usize = 512;

/// Columns that a dot product takes at a time.
const LANES: usize = 32;

/// Lines of so many partial sums at most.
const MAX_LINES: usize = 8;

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
/// With c = 16 / size_of::<T>() there are 32·c partial sums: column j goes to sum j mod 32·c, in
/// ascending order by fused multiply–adds from 0; then the upper half of the sums is added to the
/// lower until one is left. The three slices have one length.
#[inline(always)]
pub(super) fn scale_and_dot<T: Element>(scaled: &mut [T], dy: &[T], row: &[T], weight: f32) -> f32 {
    let lines = const { 16 / size_of::<T>() };
    // The sums, LANES of them a line; f32 uses half of the lines.
    let mut sums = [[0f32; LANES]; MAX_LINES];
    let mut line = 0;
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
        let sums = &mut sums[line];
        for l in 0..LANES {
            sums[l] = gradient[l].mul_add(value[l], sums[l]);
        }
        for l in 0..LANES {
            s[l] = T::from_f32(weight * gradient[l]);
        }
        line = (line + 1) % lines;
    }
    let rest = scaled_rest.iter_mut().zip(dy_rest).zip(row_rest);
    for (l, ((s, d), r)) in rest.enumerate() {
        let gradient = d.to_f32();
        sums[line][l] = gradient.mul_add(r.to_f32(), sums[line][l]);
        *s = T::from_f32(weight * gradient);
    }
    let sums = sums.as_flattened_mut();
    let mut half = lines * LANES / 2;
    while half > 0 {
        for l in 0..half {
            sums[l] += sums[l + half];
        }
        half /= 2;
    }
    sums[0]
}
