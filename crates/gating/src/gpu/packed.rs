//! Host matrices as they go to a device and come back: rows side by side.

use bytemuck::Pod;
use tollgate_core::{RowView, RowViewMut, StepContext};
use tollgate_device::StepBlock;

/// The rows, side by side.
pub(super) fn pack<T: Copy>(rows: RowView<'_, T>) -> Vec<T> {
    let mut packed = Vec::with_capacity(rows.rows() * rows.cols());
    rows.iter().for_each(|row| packed.extend_from_slice(row));
    packed
}

/// Copies packed rows to where they belong.
pub(super) fn unpack<T: Pod>(packed: &[T], mut rows: RowViewMut<'_, T>) {
    let cols = rows.cols();
    if cols == 0 {
        return;
    }
    for (r, row) in packed.chunks_exact(cols).enumerate() {
        rows.row_mut(r).copy_from_slice(row);
    }
}

/// A context as kernels read it.
pub(super) fn step_block(ctx: &StepContext) -> StepBlock {
    StepBlock {
        seed: ctx.seed,
        layer: ctx.layer,
        step: ctx.step,
        pass: ctx.pass,
        first_token: ctx.first_token,
    }
}
