//! Sums over a token's rows: `unpermute` and the backward of `permute`.

use tollgate_core::math::vectorized;
use tollgate_core::{Cpu, Element, RoutingTable, RowView, RowViewMut};

use super::kernels::{PANEL, accumulate, store, weighted_sum};
use super::{bytes_of, for_blocks};
use crate::PermuteMaps;

/// What the rows are multiplied with. A fused multiply–add with 1 rounds exactly as an addition,
/// so one loop serves both.
#[derive(Clone, Copy)]
pub(super) enum Weights {
    Routing,
    One,
}

/// A token's sum, with everything that is looked up.
#[derive(Clone, Copy)]
struct Sums<'a, T> {
    rows: RowView<'a, T>,
    table: &'a RoutingTable,
    row_of_assignment: &'a [i32],
    weights: Weights,
    start: Option<RowView<'a, f32>>,
}

/// `y[t] = round(start[t] + Σ_a w_a · rows[row_of_assignment[a]])`. Arguments are checked.
pub(super) fn combine<T: Element>(
    cpu: &Cpu,
    rows: RowView<'_, T>,
    table: &RoutingTable,
    maps: &PermuteMaps,
    weights: Weights,
    start: Option<RowView<'_, f32>>,
    y: RowViewMut<'_, T>,
) {
    let row_of_assignment = &maps.row_of_assignment;
    let sums = Sums {
        rows,
        table,
        row_of_assignment,
        weights,
        start,
    };
    let bytes = bytes_of::<T>(rows.rows() + y.rows(), y.cols());
    for_blocks(cpu, y, bytes, |first_token, block| {
        vectorized(
            #[inline(always)]
            || sums.block(first_token, block),
        )
    });
}

impl<'a, T: Element> Sums<'a, T> {
    /// The tokens from `first_token` on, one a row of `y`.
    #[inline(always)]
    fn block(self, first_token: usize, mut y: RowViewMut<'_, T>) {
        for i in 0..y.rows() {
            let token = first_token + i;
            let assignments = self.table.assignments_of(token);
            let out = y.row_mut(i);
            let a = assignments.start;
            match (self.start, assignments.len()) {
                (None, 0) => out.fill(T::default()),
                (None, 1) => weighted_sum::<T, 1>(out, self.sources(a), self.weights(a)),
                (None, 2) => weighted_sum::<T, 2>(out, self.sources(a), self.weights(a)),
                (None, 3) => weighted_sum::<T, 3>(out, self.sources(a), self.weights(a)),
                (None, 4) => weighted_sum::<T, 4>(out, self.sources(a), self.weights(a)),
                (start, count) => {
                    let start = start.map(
                        #[inline(always)]
                        |s| s.row(token),
                    );
                    self.by_panels(start, a, count, out);
                }
            }
        }
    }

    /// Any number of rows: a panel of columns at a time, four rows at a time.
    #[inline(always)]
    fn by_panels(self, start: Option<&[f32]>, first: usize, count: usize, out: &mut [T]) {
        let mut panel = [0f32; PANEL];
        let mut column = 0;
        for out in out.chunks_mut(PANEL) {
            let sum = &mut panel[..out.len()];
            match start {
                Some(start) => sum.copy_from_slice(&start[column..column + out.len()]),
                None => sum.fill(0.0),
            }
            let mut a = first;
            let end = first + count;
            while a < end {
                match end - a {
                    1 => accumulate::<T, 1>(sum, self.columns(a, column), self.weights(a)),
                    2 => accumulate::<T, 2>(sum, self.columns(a, column), self.weights(a)),
                    3 => accumulate::<T, 3>(sum, self.columns(a, column), self.weights(a)),
                    _ => accumulate::<T, 4>(sum, self.columns(a, column), self.weights(a)),
                }
                a += 4;
            }
            store(out, sum);
            column += out.len();
        }
    }

    /// The rows of N consecutive assignments.
    #[inline(always)]
    fn sources<const N: usize>(self, first: usize) -> [&'a [T]; N] {
        self.columns(first, 0)
    }

    /// The same from a column on.
    #[inline(always)]
    fn columns<const N: usize>(self, first: usize, column: usize) -> [&'a [T]; N] {
        std::array::from_fn(
            #[inline(always)]
            |i| &self.rows.row(self.row_of_assignment[first + i] as usize)[column..],
        )
    }

    #[inline(always)]
    fn weights<const N: usize>(self, first: usize) -> [f32; N] {
        std::array::from_fn(
            #[inline(always)]
            |i| match self.weights {
                Weights::Routing => self.table.routing_weights[first + i],
                Weights::One => 1.0,
            },
        )
    }
}
