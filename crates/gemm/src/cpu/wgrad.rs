//! Sums over the rows of each group: weight gradients (k-grouped) and bias gradients.
//!
//! A unit owns a tile `[n, k]` of one expert's matrix and walks the group's rows in blocks, in
//! order; a thread never waits for another, and no sum depends on how the work is cut.
#![allow(unsafe_code)]

use std::ops::Range;

use rayon::prelude::*;
use tollgate_core::{Cpu, Element, Result, RowView, RowViewMut};

use super::kernel::{PANEL, ROWS, Rows};
use super::pack::{Scratch, Source, depth_blocks, padded_cols, padded_depth, with_scratch};
use super::product::multiply_panels;
use super::schedule::{INLINE_OPERATIONS, MAX_COLS, UNITS_PER_THREAD, for_each};
use super::shared::SharedMatrix;

/// Rows of a unit's tile, at most: each packed panel of X is used for so many.
const MAX_N: usize = 4 * ROWS;

/// `W[e] (+)= Σ_{m in group e} A[m, :]ᵀ · X[m, :]`.
pub(super) struct Wgrad<'a, A, X> {
    /// `[M, N]`.
    pub a: RowView<'a, A>,
    /// `[M, K]`.
    pub x: RowView<'a, X>,
    /// `[E+1]`.
    pub offsets: &'a [i32],
    pub accumulate: bool,
}

/// The tiles of all experts' matrices.
struct Grid {
    n: usize,
    k: usize,
    n_per_unit: usize,
    k_per_unit: usize,
}

impl Grid {
    fn new(experts: usize, n: usize, k: usize, threads: usize) -> Self {
        let mut grid = Self {
            n,
            k,
            n_per_unit: MAX_N,
            k_per_unit: MAX_COLS,
        };
        let wanted = if threads > 1 {
            threads * UNITS_PER_THREAD
        } else {
            1
        };
        while experts * grid.per_expert() < wanted {
            if grid.k_per_unit > PANEL && k > PANEL {
                grid.k_per_unit /= 2;
            } else if grid.n_per_unit > ROWS {
                grid.n_per_unit /= 2;
            } else {
                break;
            }
        }
        grid
    }

    fn per_expert(&self) -> usize {
        self.n.div_ceil(self.n_per_unit) * self.k.div_ceil(self.k_per_unit)
    }

    /// Expert, rows n and columns k of unit `i`.
    fn unit(&self, i: usize) -> (usize, Range<usize>, Range<usize>) {
        let (expert, tile) = (i / self.per_expert(), i % self.per_expert());
        let across = self.k.div_ceil(self.k_per_unit);
        let (n, k) = (
            tile / across * self.n_per_unit,
            tile % across * self.k_per_unit,
        );
        let n_end = (n + self.n_per_unit).min(self.n);
        let k_end = (k + self.k_per_unit).min(self.k);
        (expert, n..n_end, k..k_end)
    }
}

impl<A: Element, X: Element> Wgrad<'_, A, X> {
    /// Writes `w` `[E, N, K]`, whose length the caller has checked.
    pub fn run(&self, cpu: &Cpu, w: &mut [f32]) -> Result<()> {
        let (n, k) = (self.a.cols(), self.x.cols());
        let experts = self.offsets.len() - 1;
        // Without elements nothing bounds n and k, and there is nothing to do.
        if w.is_empty() {
            return Ok(());
        }
        let grid = Grid::new(experts, n, k, cpu.threads());
        // `w` is a slice of E·N·K elements: the products below cannot overflow.
        let w = SharedMatrix::new(RowViewMut::new(w, experts * n, k)?);
        let operations = (n * k).saturating_mul(self.a.rows() + experts);
        for_each(cpu, experts * grid.per_expert(), operations, |i| {
            with_scratch(|scratch| self.unit(grid.unit(i), scratch, &w));
        });
        Ok(())
    }

    fn unit(
        &self,
        (expert, n, k): (usize, Range<usize>, Range<usize>),
        scratch: &mut Scratch,
        w: &SharedMatrix<'_, f32>,
    ) {
        let group = self.offsets[expert] as usize..self.offsets[expert + 1] as usize;
        let stride = padded_cols(k.len());
        let tile = scratch.tile.take((n.len() + 1) * stride);
        if group.is_empty() {
            tile.fill(0.0);
        }
        let (a, x) = (source(&self.a), source(&self.x));
        for block in depth_blocks(group.len()) {
            let rows = group.start + block.start..group.start + block.end;
            let depth = padded_depth(rows.len());
            let panels = scratch.panels.take(depth * stride);
            x.pack(rows.clone(), k.clone(), panels);
            let columns = scratch.rows.take(depth * n.len());
            a.widen(rows.clone(), n.clone(), columns, n.len());
            columns[rows.len() * n.len()..].fill(0.0);
            for first in (0..n.len()).step_by(ROWS) {
                let strip = Rows {
                    data: &columns[first..],
                    rows: ROWS.min(n.len() - first),
                    row_stride: 1,
                    k_stride: n.len(),
                };
                let c = &mut tile[first * stride..];
                multiply_panels(strip, panels, stride, c, stride, block.start > 0);
            }
        }
        for (line, row) in tile.chunks_exact(stride).zip(n) {
            // SAFETY: tiles of the grid do not overlap, and each is computed by one call.
            let to = unsafe { w.segment(expert * self.a.cols() + row, k.clone()) };
            write(to, &line[..k.len()], self.accumulate);
        }
    }
}

fn source<'a, T: Element>(view: &RowView<'a, T>) -> Source<'a, T> {
    Source {
        data: view.raw(),
        stride: view.stride(),
    }
}

/// `to (+)= values`.
fn write(to: &mut [f32], values: &[f32], accumulate: bool) {
    if accumulate {
        for (t, v) in to.iter_mut().zip(values) {
            *t += v;
        }
    } else {
        to.copy_from_slice(values);
    }
}

/// `sums[e] (+)= Σ_{m in group e} A[m, :]` in f32, in row order; A `[M, N]`, sums `[E, N]`, whose
/// length the caller has checked.
pub(super) fn column_sums<A: Element>(
    cpu: &Cpu,
    a: RowView<'_, A>,
    offsets: &[i32],
    accumulate: bool,
    sums: &mut [f32],
) {
    let n = a.cols();
    if n == 0 {
        return;
    }
    let column_range = |e: usize, range: usize, to: &mut [f32]| {
        let group = a.sub_rows(offsets[e] as usize..offsets[e + 1] as usize);
        let cols = range * MAX_COLS..range * MAX_COLS + to.len();
        let (mut sum, mut wide) = ([0f32; MAX_COLS], [0f32; MAX_COLS]);
        let (sum, wide) = (&mut sum[..to.len()], &mut wide[..to.len()]);
        for row in group.iter() {
            A::widen(&row[cols.clone()], wide);
            for (s, w) in sum.iter_mut().zip(wide.iter()) {
                *s += w;
            }
        }
        write(to, sum, accumulate);
    };
    // Outside `install` no parallel iterator may run: it would start rayon's global pool.
    if cpu.threads() == 1 || a.rows().saturating_mul(n) < INLINE_OPERATIONS / 8 {
        for (e, sums) in sums.chunks_mut(n).enumerate() {
            for (range, to) in sums.chunks_mut(MAX_COLS).enumerate() {
                column_range(e, range, to);
            }
        }
    } else {
        cpu.install(|| {
            sums.par_chunks_mut(n).enumerate().for_each(|(e, sums)| {
                let ranges = sums.par_chunks_mut(MAX_COLS).enumerate();
                ranges.for_each(|(range, to)| column_range(e, range, to));
            });
        });
    }
}
