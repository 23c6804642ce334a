//! Jitter of the router's input, and its way back.

use tollgate_core::{Cpu, Element, Error, Result, RowView, RowViewMut, StepContext};

use super::blocks::Team;
use crate::jitter::{check, factors};

/// Rows of one unit of work.
const BLOCK_ROWS: usize = 16;

/// See [`crate::Gating::jitter`].
pub(super) fn apply<T: Element>(
    cpu: &Cpu,
    x: RowView<'_, T>,
    amount: f32,
    ctx: &StepContext,
    out: RowViewMut<'_, f32>,
) -> Result<()> {
    check(x.rows(), x.cols(), amount, ctx)?;
    Error::check_shape("rows of out (T)", out.rows(), x.rows())?;
    Error::check_shape("columns of out (H)", out.cols(), x.cols())?;
    for_rows(cpu, out, |token, row| {
        T::widen(x.row(token), row);
        scale_row(ctx, token, amount, row);
    });
    Ok(())
}

/// See [`crate::Gating::jitter_backward`].
pub(super) fn backward(
    cpu: &Cpu,
    amount: f32,
    ctx: &StepContext,
    dx: RowViewMut<'_, f32>,
) -> Result<()> {
    check(dx.rows(), dx.cols(), amount, ctx)?;
    for_rows(cpu, dx, |token, row| scale_row(ctx, token, amount, row));
    Ok(())
}

fn scale_row(ctx: &StepContext, token: usize, amount: f32, row: &mut [f32]) {
    for (block, four) in row.chunks_mut(4).enumerate() {
        for (v, f) in four.iter_mut().zip(factors(ctx, token, block, amount)) {
            *v *= f;
        }
    }
}

fn for_rows(cpu: &Cpu, rows: RowViewMut<'_, f32>, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let elems = rows.rows() * rows.cols();
    let blocks: Vec<_> = rows.chunks(BLOCK_ROWS).into_iter().enumerate().collect();
    Team::enter(cpu, elems, |team| {
        team.run(
            blocks,
            || (),
            |(), (b, mut rows)| {
                for r in 0..rows.rows() {
                    work(b * BLOCK_ROWS + r, rows.row_mut(r));
                }
            },
        );
    });
}
