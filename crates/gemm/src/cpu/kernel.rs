//! The innermost product: one packed panel times a few rows. The only place that calls the `gemm`
//! crate, and so the one to replace with kernels of our own.
//!
//! Order of arithmetic (what makes a row's bits independent of the rows around it): every element
//! is one chain of fused multiply–adds over ascending k that starts at 0; with `accumulate` the
//! finished chain is then added to what the tile held. The crate keeps to that order only on its
//! packed path, so calls are shaped to never leave it:
//! - at least [`MIN_DEPTH`] deep (below, it takes an unfused outer-product path) and at most
//!   [`MAX_DEPTH`] (above, it would cut the chain by a rule of its own that looks at m and n);
//! - at least two rows (a single one would take a matrix–vector path with another order); a
//!   single row is computed twice, by a stride of 0;
//! - panels of a multiple of 16 columns whose columns are adjacent, so that neither its horizontal
//!   kernels nor partial vectors are involved.
//!
//! Without FMA instructions the crate multiplies and adds unfused; the order is the same.
#![allow(unsafe_code)]

/// The shallowest product: callers pad k with zeros up to it.
pub(super) const MIN_DEPTH: usize = 3;
/// The deepest product of one call.
pub(super) const MAX_DEPTH: usize = 512;
/// Columns of a panel, at most.
pub(super) const PANEL: usize = 64;
/// The width of a panel is a multiple of this.
pub(super) const LANES: usize = 16;
/// Rows of one call: as many as the crate takes without copying the panel once more.
pub(super) const ROWS: usize = 48;

/// `[depth, width]` packed columns: element (k, j) is `data[k·width + j]`.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub data: &'a [f32],
    pub depth: usize,
    pub width: usize,
}

/// `[rows, depth]`: element (r, k) is `data[r·row_stride + k·k_stride]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub row_stride: usize,
    pub k_stride: usize,
}

/// `C[r, j] (+)= Σ_k rows[r, k] · panel[k, j]`; C `[rows, panel.width]` with row stride
/// `c_stride ≥ width`. Where there is a single row, the one below it in `c` is overwritten too.
///
/// Panics if an operand is shorter than its shape, or the shape is outside the limits above.
pub(super) fn multiply(
    rows: Rows<'_>,
    panel: Panel<'_>,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    let (depth, width) = (panel.depth, panel.width);
    assert!((MIN_DEPTH..=MAX_DEPTH).contains(&depth) && (1..=ROWS).contains(&rows.rows));
    assert!(width % LANES == 0 && (LANES..=PANEL).contains(&width) && c_stride >= width);
    // A single row is computed twice: see above.
    let (n, row_stride) = if rows.rows == 1 {
        (2, 0)
    } else {
        (rows.rows, rows.row_stride)
    };
    assert!(panel.data.len() >= depth * width);
    let last_row = (n - 1).saturating_mul(row_stride);
    let last_k = (depth - 1).saturating_mul(rows.k_stride);
    assert!(rows.data.len() > last_row.saturating_add(last_k));
    assert!(c.len() >= (n - 1).saturating_mul(c_stride).saturating_add(width));
    // SAFETY: the assertions above keep every element that the strides reach inside its slice:
    // panel (k, j) < depth·width, rows (n−1)·row_stride + (depth−1)·k_stride, c (n−1)·c_stride +
    // width − 1. `c` is borrowed mutably, so it overlaps neither operand, and its elements are
    // distinct because c_stride ≥ width. No stride exceeds isize::MAX, as slices do not.
    unsafe {
        gemm::gemm::<f32>(
            width,
            n,
            depth,
            c.as_mut_ptr(),
            c_stride as isize,
            1,
            accumulate,
            panel.data.as_ptr(),
            width as isize,
            1,
            rows.data.as_ptr(),
            row_stride as isize,
            rows.k_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_testkit::Data;

    /// The documented order, element by element.
    fn chain(rows: Rows<'_>, panel: Panel<'_>, r: usize, j: usize, before: Option<f32>) -> f32 {
        let mut sum = 0f32;
        for k in 0..panel.depth {
            let a = rows.data[r * rows.row_stride + k * rows.k_stride];
            sum = a.mul_add(panel.data[k * panel.width + j], sum);
        }
        before.map_or(sum, |c| c + sum)
    }

    #[test]
    fn every_shape_keeps_to_the_documented_order() {
        // On a machine without FMA the crate's products are rounded before they are added.
        if !cfg!(target_arch = "aarch64") && !has_fma() {
            return;
        }
        let mut data = Data::new(5);
        for depth in [MIN_DEPTH, 4, 7, 64, 191, MAX_DEPTH] {
            for width in [16, 32, 48, 64] {
                for n in [1, 2, 3, 5, 6, 7, 12, 47, ROWS] {
                    for (row_stride, k_stride) in [(depth + 3, 1), (1, ROWS + 1)] {
                        let len = (n - 1) * row_stride + (depth - 1) * k_stride + 1;
                        let a: Vec<f32> = data.normals(len, 1.0);
                        let p: Vec<f32> = data.normals(depth * width, 1.0);
                        let rows = Rows {
                            data: &a,
                            rows: n,
                            row_stride,
                            k_stride,
                        };
                        let panel = Panel {
                            data: &p,
                            depth,
                            width,
                        };
                        let c_stride = width + 16;
                        let before: Vec<f32> = data.normals(n.max(2) * c_stride, 1.0);
                        for accumulate in [false, true] {
                            let mut c = before.clone();
                            multiply(rows, panel, &mut c, c_stride, accumulate);
                            for r in 0..n {
                                for j in 0..c_stride {
                                    let at = r * c_stride + j;
                                    let old = before[at];
                                    let want = if j < width {
                                        chain(rows, panel, r, j, accumulate.then_some(old))
                                    } else {
                                        old
                                    };
                                    assert_eq!(
                                        c[at].to_bits(),
                                        want.to_bits(),
                                        "depth {depth} width {width} rows {n} at ({r}, {j})"
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn has_fma() -> bool {
        #[cfg(target_arch = "x86_64")]
        return std::arch::is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}
