//! Routing table to expert-major rows, and the weighted way back; forward and backward.
//!
//! [`Permute::sort`] numbers the rows of a [`RoutingTable`], [`Permute::permute`] gathers the
//! tokens into them and [`Permute::unpermute`] sums a token's rows with its routing weights; the
//! two backward operations are their transposes. [`mod@reference`] says the same in f64, and
//! [`gpu`] does it in device memory, without the host knowing a size.
//!
//! Arithmetic is plain IEEE 754 throughout: a NaN or infinite weight reaches the outputs of its
//! token (0 · ∞ is NaN), a sum of zeros from +0 is +0, products keep their sign of zero.
//! Which NaN an operation on a NaN gives is the device's choice; all else has the same bits
//! everywhere. Assignments, tokens and rows are numbered in i32; more are refused with
//! [`Error::Overflow`](tollgate_core::Error::Overflow). Offsets into matrices are usize.

#![deny(unsafe_code)]

mod check;
mod cpu;
pub mod gpu;
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

/// Permutation as an operation, implemented by each device. All memory belongs to the caller; the
/// maps grow, to the largest table seen. On the CPU a thread keeps what it sorts and sums in beside
/// them: at most 12 bytes an assignment of the largest table, and its counts. A
/// [`Gpu`](tollgate_device::Gpu) takes these host slices through buffers of its own, call by call:
/// for data that is in device memory there are the functions of [`gpu`].
///
/// Operations check whatever they index with before they write: lengths and shapes, every index
/// that is followed, and that the maps count the same rows for every expert as the table does.
/// Expert indices are looked at by [`Permute::sort`] only. Maps need not come from `sort`: rows may
/// be numbered in any order inside an expert.
pub trait Permute {
    /// Counts, offsets and stable maps of a table, in O(A + T + E).
    ///
    /// # Errors
    /// The broken invariant that [`RoutingTable::validate`] names, before anything is written.
    fn sort(&self, table: &RoutingTable, maps: &mut PermuteMaps) -> Result<()>;

    /// `rows[r] = x[token_of_row[r]]`, bit by bit; x `[T, H]`, rows `[A, H]`.
    ///
    /// # Errors
    /// Shapes that differ, a map entry out of range, maps that belong to another table; nothing is
    /// written then.
    fn permute<T: Element>(
        &self,
        x: RowView<'_, T>,
        maps: &PermuteMaps,
        rows: RowViewMut<'_, T>,
    ) -> Result<()>;

    /// `y[t] = round(Σ_a w_a · rows[row_of_assignment[a]])` over the token's assignments in table
    /// order, accumulated in f32 by fused multiply-adds from 0; a token without experts gets 0.
    /// rows `[A, H]`, y `[T, H]`.
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
    /// in table order in f32, starting from the addend (`[T, H]`, 0 if absent). drows `[A, H]`, dx
    /// `[T, H]`.
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

    /// Backward of `unpermute`: `drows[r] = round(w_a · dy[t])` and
    /// `dweights[a] = <dy[t], rows[r]>` in f32 (`[A]`, table order), where r is the row of
    /// assignment a. dy `[T, H]`, rows and drows `[A, H]`.
    ///
    /// The dot product has a fixed order. With c columns in 16 bytes there are 32·c partial sums
    /// from 0: column j goes to sum j mod 32·c, in ascending order by fused multiply-adds. Then the
    /// upper half of the sums is added to the lower, 16·c, 8·c, …, 1 at a time. It is the order of
    /// 32 lanes that load 16 bytes each, and of vectors of any width.
    ///
    /// # Errors
    /// As [`Permute::permute`]; maps that are not inverses of each other or disagree with the table
    /// on a row's token.
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
