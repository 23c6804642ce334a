//! The CPU implementation: rows move as wide copies, sums run a token at a time in f32, and all
//! work is split by position, so that the bits do not depend on the number of threads.

mod combine;
mod gradients;
mod kernels;
mod scratch;
mod sort;
mod spread;
mod tiles;

use rayon::prelude::*;
use tollgate_core::{Cpu, Element, Result, RoutingTable, RowView, RowViewMut};

use crate::{Permute, PermuteMaps, check};

impl Permute for Cpu {
    fn sort(&self, table: &RoutingTable, maps: &mut PermuteMaps) -> Result<()> {
        sort::sort(self, table, maps)
    }

    fn permute<T: Element>(
        &self,
        x: RowView<'_, T>,
        maps: &PermuteMaps,
        rows: RowViewMut<'_, T>,
    ) -> Result<()> {
        check::permute((x.rows(), x.cols()), maps, (rows.rows(), rows.cols()))?;
        spread::permute(self, x, maps, rows);
        Ok(())
    }

    fn unpermute<T: Element>(
        &self,
        rows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        y: RowViewMut<'_, T>,
    ) -> Result<()> {
        check::unpermute(
            (rows.rows(), rows.cols()),
            table,
            maps,
            (y.rows(), y.cols()),
        )?;
        combine::combine(self, rows, table, maps, combine::Weights::Routing, None, y);
        Ok(())
    }

    fn permute_backward<T: Element>(
        &self,
        drows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        addend: Option<RowView<'_, f32>>,
        dx: RowViewMut<'_, T>,
    ) -> Result<()> {
        let shape = (dx.rows(), dx.cols());
        check::unpermute((drows.rows(), drows.cols()), table, maps, shape)?;
        if let Some(addend) = addend {
            check::addend((addend.rows(), addend.cols()), shape)?;
        }
        combine::combine(self, drows, table, maps, combine::Weights::One, addend, dx);
        Ok(())
    }

    fn unpermute_backward<T: Element>(
        &self,
        dy: RowView<'_, T>,
        rows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        drows: RowViewMut<'_, T>,
        dweights: &mut [f32],
    ) -> Result<()> {
        check::unpermute_backward(
            (dy.rows(), dy.cols()),
            (rows.rows(), rows.cols()),
            table,
            maps,
            (drows.rows(), drows.cols()),
            dweights.len(),
        )?;
        gradients::unpermute_backward(self, dy, rows, table, maps, drows, dweights);
        Ok(())
    }
}

/// Work on fewer bytes than this runs on the calling thread: waking others costs more.
const INLINE_BYTES: usize = 256 << 10;

/// Bytes that one unit of parallel work should touch at least.
const UNIT_BYTES: usize = 64 << 10;

/// Units a thread, so that an uneven split evens out.
const UNITS_PER_THREAD: usize = 16;

/// Into how many units work on `bytes` is cut; 1 means: on the calling thread.
fn units(cpu: &Cpu, bytes: usize) -> usize {
    if cpu.threads() == 1 || bytes < INLINE_BYTES {
        1
    } else {
        (bytes / UNIT_BYTES).clamp(1, cpu.threads() * UNITS_PER_THREAD)
    }
}

/// Calls `work(first row, block)` for consecutive blocks of `out`, in parallel if the whole touches
/// enough `bytes`. `work` must give the same rows however they are cut.
fn for_blocks<T: Element>(
    cpu: &Cpu,
    out: RowViewMut<'_, T>,
    bytes: usize,
    work: impl Fn(usize, RowViewMut<'_, T>) + Sync,
) {
    let units = units(cpu, bytes);
    if units == 1 {
        return work(0, out);
    }
    let rows_per_unit = out.rows().div_ceil(units).max(1);
    let blocks = out.chunks(rows_per_unit);
    cpu.install(|| {
        let numbered = blocks.into_par_iter().enumerate();
        numbered.for_each(|(i, block)| work(i * rows_per_unit, block));
    });
}

/// Calls `work` for every part, in parallel if together they touch enough `bytes`.
fn for_each<P: Send>(cpu: &Cpu, parts: Vec<P>, bytes: usize, work: impl Fn(P) + Send + Sync) {
    if parts.len() <= 1 || units(cpu, bytes) == 1 {
        parts.into_iter().for_each(work);
    } else {
        cpu.install(|| parts.into_par_iter().for_each(work));
    }
}

/// Bytes of a matrix, for deciding on threads only.
fn bytes_of<T>(rows: usize, cols: usize) -> usize {
    rows.saturating_mul(cols).saturating_mul(size_of::<T>())
}
