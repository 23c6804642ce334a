//! Routing table to expert-major rows, and the weighted way back; forward and backward.

#![forbid(unsafe_code)]

mod cpu;
pub mod reference;

use tollgate_core::{Element, Result, RoutingTable, RowView, RowViewMut};

/// The stable maps between assignments (token-major, as in the routing table) and rows
/// (expert-major, stable by token inside an expert). Buffers are reused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PermuteMaps {
    /// `[A]` row of each assignment.
    pub row_of_assignment: Vec<i32>,
    /// `[A]` assignment of each row: the inverse.
    pub assignment_of_row: Vec<i32>,
    /// `[A]` token of each row.
    pub token_of_row: Vec<i32>,
    /// `[E+1]` exclusive prefix sums of the rows per expert, counted from the indices.
    pub expert_offsets: Vec<i32>,
}

/// Permutation as an operation, implemented by each device. All memory belongs to the caller.
pub trait Permute {
    /// Counts, offsets and stable maps of a table.
    ///
    /// # Errors
    /// A broken invariant of the table, before anything is written.
    fn sort(&self, table: &RoutingTable, maps: &mut PermuteMaps) -> Result<()>;

    /// `rows[r] = x[token_of_row[r]]`; x `[T, H]`, rows `[A, H]`.
    ///
    /// # Errors
    /// Shapes that differ, a map entry out of range; nothing is written then.
    fn permute<T: Element>(
        &self,
        x: RowView<'_, T>,
        maps: &PermuteMaps,
        rows: RowViewMut<'_, T>,
    ) -> Result<()>;

    /// `y[t] = round(Σ_a w_a · rows[row_of_assignment[a]])` over the token's assignments in table
    /// order, accumulated in f32 by fused multiply-adds from 0; a token without experts gets 0.
    ///
    /// # Errors
    /// As [`Permute::permute`].
    fn unpermute<T: Element>(
        &self,
        rows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        y: RowViewMut<'_, T>,
    ) -> Result<()>;

    /// Backward of `permute`: `dx[t] = round(addend[t] + Σ_a drows[row_of_assignment[a]])`, the sum
    /// in table order in f32, starting from the addend (`[T, H]`, 0 if absent).
    ///
    /// # Errors
    /// As [`Permute::permute`].
    fn permute_backward<T: Element>(
        &self,
        drows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        addend: Option<RowView<'_, f32>>,
        dx: RowViewMut<'_, T>,
    ) -> Result<()>;

    /// Backward of `unpermute`: `drows[r] = round(w_a · dy[t])` and `dweights[a] = <dy[t], rows[r]>`
    /// in f32 (`[A]`, table order), where r = row_of_assignment[a].
    ///
    /// # Errors
    /// As [`Permute::permute`].
    fn unpermute_backward<T: Element>(
        &self,
        dy: RowView<'_, T>,
        rows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        drows: RowViewMut<'_, T>,
        dweights: &mut [f32],
    ) -> Result<()>;
}
