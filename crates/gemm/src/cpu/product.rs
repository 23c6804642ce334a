//! Rows of each group times the group's matrix, tile by tile: m-grouped forward and dgrad.
//!
//! A unit holds an f32 tile `[rows, cols]` and walks the sum in blocks: it packs the block's panels
//! of the matrix once, then multiplies them with its rows, [`ROWS`] at a time. After the last block
//! each strip of rows goes to the epilogue while it is still in the cache.
#![allow(unsafe_code)]

use std::ops::Range;

use tollgate_core::{Cpu, Element, RowView};

use super::epilogue::{Epilogue, Strip};
use super::kernel::{MIN_DEPTH, Panel, ROWS, Rows, multiply};
use super::pack::{
    Buffer, Scratch, Source, depth_blocks, padded_cols, padded_depth, panels, with_scratch,
};
use super::schedule::{MAX_COLS, Partition, Unit, for_each};

/// How the matrices lie in memory, seen from the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[cols, depth]`: the terms of one sum are adjacent (forward).
    DepthAdjacent,
    /// `[depth, cols]`: the columns of the result are adjacent (dgrad).
    ColsAdjacent,
}

/// `D[m, :] = A[m, :] · op(B[e])` for the rows m of each group e.
pub(super) struct Product<'a, A, B> {
    /// `[M, depth]`.
    pub a: RowView<'a, A>,
    /// The stacked matrices, one after the other.
    pub b: &'a [B],
    pub layout: Layout,
    /// Columns of one part of the result.
    pub cols: usize,
    /// 1, or 2 where the columns come in two halves (gate and up) that one tile must hold both of.
    pub parts: usize,
    /// `[E+1]`.
    pub offsets: &'a [i32],
}

impl<A: Element, B: Element> Product<'_, A, B> {
    /// Computes every tile and hands it to `epilogue`.
    pub fn run(&self, cpu: &Cpu, epilogue: &impl Epilogue) {
        let max_cols = MAX_COLS / self.parts;
        let partition = Partition::new(self.offsets, self.cols, max_cols, cpu.threads());
        let sums = self.a.rows().saturating_mul(self.cols * self.parts);
        let operations = sums.saturating_mul(self.a.cols().max(1));
        for_each(cpu, partition.units(), operations, |i| {
            with_scratch(|scratch| self.unit(&partition.unit(i), scratch, epilogue));
        });
    }

    fn unit(&self, unit: &Unit, scratch: &mut Scratch, epilogue: &impl Epilogue) {
        let depth = self.a.cols();
        let part_stride = padded_cols(unit.cols.len());
        let stride = part_stride * self.parts;
        // One row more: the kernel computes a single row twice.
        let tile = scratch.tile.take((unit.rows.len() + 1) * stride);
        if depth == 0 {
            tile.fill(0.0);
        }
        for block in depth_blocks(depth) {
            let part_elems = padded_depth(block.len()) * part_stride;
            let packed = scratch.panels.take(part_elems * self.parts);
            for (part, to) in packed.chunks_exact_mut(part_elems).enumerate() {
                self.pack(unit, part, &block, to);
            }
            for from in strips(&unit.rows) {
                let strip = from..(from + ROWS).min(unit.rows.end);
                let rows = self.rows(&strip, &block, &mut scratch.rows);
                let at = (from - unit.rows.start) * stride;
                for (part, panels) in packed.chunks_exact(part_elems).enumerate() {
                    let c = &mut tile[at + part * part_stride..];
                    multiply_panels(rows, panels, part_stride, c, stride, block.start > 0);
                }
                if block.end == depth {
                    self.finish(unit, strip, &mut tile[at..], part_stride, epilogue);
                }
            }
        }
        if depth == 0 {
            for from in strips(&unit.rows) {
                let strip = from..(from + ROWS).min(unit.rows.end);
                let at = (from - unit.rows.start) * stride;
                self.finish(unit, strip, &mut tile[at..], part_stride, epilogue);
            }
        }
    }

    /// Packs the block's panels of one part.
    fn pack(&self, unit: &Unit, part: usize, block: &Range<usize>, to: &mut [f32]) {
        let (depth, all_cols) = (self.a.cols(), self.cols * self.parts);
        let matrix = &self.b[unit.expert * depth * all_cols..(unit.expert + 1) * depth * all_cols];
        let first = part * self.cols;
        let cols = first + unit.cols.start..first + unit.cols.end;
        match self.layout {
            Layout::DepthAdjacent => {
                let source = Source {
                    data: matrix,
                    stride: depth,
                };
                source.pack_transposed(cols, block.clone(), to);
            }
            Layout::ColsAdjacent => {
                let source = Source {
                    data: matrix,
                    stride: all_cols,
                };
                source.pack(block.clone(), cols, to);
            }
        }
    }

    /// The block of a strip of A: in place where it is f32, else widened.
    fn rows<'s>(
        &'s self,
        strip: &Range<usize>,
        block: &Range<usize>,
        scratch: &'s mut Buffer,
    ) -> Rows<'s> {
        let (raw, stride) = (self.a.raw(), self.a.stride());
        match A::as_f32(raw) {
            Some(data) if block.len() >= MIN_DEPTH => Rows {
                data: &data[strip.start * stride + block.start..],
                rows: strip.len(),
                row_stride: stride,
                k_stride: 1,
            },
            _ => {
                let padded = padded_depth(block.len());
                let to = scratch.take(strip.len() * padded);
                let source = Source { data: raw, stride };
                source.widen(strip.clone(), block.clone(), to, padded);
                Rows {
                    data: to,
                    rows: strip.len(),
                    row_stride: padded,
                    k_stride: 1,
                }
            }
        }
    }

    fn finish(
        &self,
        unit: &Unit,
        rows: Range<usize>,
        values: &mut [f32],
        part_stride: usize,
        epilogue: &impl Epilogue,
    ) {
        let strip = Strip {
            expert: unit.expert,
            rows,
            cols: unit.cols.clone(),
            values,
            stride: part_stride * self.parts,
            part_stride,
        };
        // SAFETY: the units of a partition do not overlap, each runs once, and a unit finishes each
        // of its rows once.
        unsafe { epilogue.store(strip) };
    }
}

/// The first rows of the strips of `rows`.
fn strips(rows: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
    rows.clone().step_by(ROWS)
}

/// `C (+)= rows · panels`: `width` adjacent columns of C, whose rows are `stride` apart, from all
/// the panels that were packed for them.
pub(super) fn multiply_panels(
    rows: Rows<'_>,
    packed: &[f32],
    width: usize,
    c: &mut [f32],
    stride: usize,
    accumulate: bool,
) {
    let depth = packed.len() / width;
    for (first, width) in panels(width) {
        let data = &packed[first * depth..(first + width) * depth];
        let panel = Panel { data, depth, width };
        multiply(rows, panel, &mut c[first..], stride, accumulate);
    }
}
