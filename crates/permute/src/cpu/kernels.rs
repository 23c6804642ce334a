//! The three inner loops, written to be compiled inside `vectorized`.
//!
//! Each output element depends on its own column only, except in [`scale_and_dot`], whose order of
//! summation is spelled out: the bits are the same at every vector width.

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
    // LANES sums a line; f32 uses half of the lines.
    let mut sums = [[0f32; LANES]; MAX_LINES];
    let (scaled_lines, scaled_rest) = scaled.as_chunks_mut::<LANES>();
    let (dy_lines, dy_rest) = dy.as_chunks::<LANES>();
    let (row_lines, row_rest) = row.as_chunks::<LANES>();
    let mut done = 0;
    if lines == 4 {
        // Four lines fit into registers, as variables of their own; an array goes through memory.
        // (With eight that is no gain: widening 16-bit numbers takes the time.)
        let [mut a, mut b, mut c, mut d, ..] = sums;
        let (scaled, _) = scaled_lines.as_chunks_mut::<4>();
        let ((dy, _), (row, _)) = (dy_lines.as_chunks::<4>(), row_lines.as_chunks::<4>());
        for ((s, g), r) in scaled.iter_mut().zip(dy).zip(row) {
            scale_and_add(&mut s[0], &g[0], &r[0], weight, &mut a);
            scale_and_add(&mut s[1], &g[1], &r[1], weight, &mut b);
            scale_and_add(&mut s[2], &g[2], &r[2], weight, &mut c);
            scale_and_add(&mut s[3], &g[3], &r[3], weight, &mut d);
        }
        done = 4 * dy.len();
        [sums[0], sums[1], sums[2], sums[3]] = [a, b, c, d];
    }
    let rest = scaled_lines[done..].iter_mut();
    let rest = rest.zip(&dy_lines[done..]).zip(&row_lines[done..]);
    let mut line = 0;
    for ((s, g), r) in rest {
        scale_and_add(s, g, r, weight, &mut sums[line]);
        line = (line + 1) % lines;
    }
    let rest = scaled_rest.iter_mut().zip(dy_rest).zip(row_rest);
    for (sum, ((s, g), r)) in sums[line].iter_mut().zip(rest) {
        let gradient = g.to_f32();
        *sum = gradient.mul_add(r.to_f32(), *sum);
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

/// A line of columns.
#[inline(always)]
fn scale_and_add<T: Element>(
    scaled: &mut [T; LANES],
    dy: &[T; LANES],
    row: &[T; LANES],
    weight: f32,
    sums: &mut [f32; LANES],
) {
    // All loads before the stores: the compiler need not prove that they do not overlap.
    let mut gradient = [0f32; LANES];
    let mut value = [0f32; LANES];
    for l in 0..LANES {
        gradient[l] = dy[l].to_f32();
    }
    for l in 0..LANES {
        value[l] = row[l].to_f32();
    }
    for l in 0..LANES {
        sums[l] = gradient[l].mul_add(value[l], sums[l]);
    }
    for l in 0..LANES {
        scaled[l] = T::from_f32(weight * gradient[l]);
    }
}
