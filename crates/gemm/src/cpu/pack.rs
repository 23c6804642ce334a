//! Operands in the order in which the kernel reads them, widened to f32, in scratch that each
//! thread keeps.

use std::cell::RefCell;
use std::ops::Range;

use tollgate_core::Element;

use super::kernel::{LANES, MIN_DEPTH, PANEL};
use super::transpose::Transpose;

/// Deepest block of a sum. Sums of more terms are cut into equal blocks by [`depth_blocks`].
pub(super) const DEPTH: usize = 384;

/// Cuts `0..depth` into the fewest blocks of at most [`DEPTH`], of equal size but for the last: a
/// function of the depth alone, so that the order of a sum is.
pub(super) fn depth_blocks(depth: usize) -> impl Iterator<Item = Range<usize>> {
    let size = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1);
    (0..depth)
        .step_by(size)
        .map(move |from| from..(from + size).min(depth))
}

/// A buffer that grows to the largest size asked for and is never shrunk; aligned to cache lines.
#[derive(Default)]
pub(super) struct Buffer {
    memory: Vec<f32>,
}

impl Buffer {
    /// The first `len` elements, holding anything.
    pub fn take(&mut self, len: usize) -> &mut [f32] {
        const LINE: usize = 64;
        if self.memory.len() < len + LINE / 4 {
            self.memory.resize(len + LINE / 4, 0.0);
        }
        let skip = self.memory.as_ptr().align_offset(LINE).min(LINE / 4);
        &mut self.memory[skip..skip + len]
    }
}

/// What a thread keeps between units; little more than a megabyte, whatever the problem.
#[derive(Default)]
pub(super) struct Scratch {
    /// The f32 tile of the result.
    pub tile: Buffer,
    /// Packed panels.
    pub panels: Buffer,
    /// Widened rows of the other operand.
    pub rows: Buffer,
}

/// Runs `work` with this thread's scratch. Units do not nest, so it is never borrowed twice.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(work)
}

/// Columns that `cols` take in a tile: whole vectors.
pub(super) fn padded_cols(cols: usize) -> usize {
    cols.next_multiple_of(LANES)
}

/// Rows that `depth` takes in a panel.
pub(super) fn padded_depth(depth: usize) -> usize {
    depth.max(MIN_DEPTH)
}

/// The panels of `cols` columns: `(first column, width)`; all but the last are [`PANEL`] wide.
pub(super) fn panels(cols: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..cols)
        .step_by(PANEL)
        .map(move |first| (first, padded_cols((cols - first).min(PANEL))))
}

/// A matrix with rows `stride` apart, any element type.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, T> {
    pub data: &'a [T],
    pub stride: usize,
}

impl<'a, T: Element> Source<'a, T> {
    fn piece(&self, row: usize, cols: Range<usize>) -> &'a [T] {
        &self.data[row * self.stride + cols.start..row * self.stride + cols.end]
    }

    /// Packs `[depth rows, cols]` into panels: the columns of the source are those of the panels.
    /// Padding is zero.
    pub fn pack(&self, depth: Range<usize>, cols: Range<usize>, to: &mut [f32]) {
        let padded = padded_depth(depth.len());
        let (mut at, count) = (0, cols.len());
        for (first, width) in panels(count) {
            let used = (count - first).min(width);
            let panel = &mut to[at..at + padded * width];
            at += padded * width;
            for (row, line) in panel.chunks_exact_mut(width).enumerate() {
                if row < depth.len() {
                    let from = cols.start + first;
                    let source = self.piece(depth.start + row, from..from + used);
                    T::widen(source, &mut line[..used]);
                    line[used..].fill(0.0);
                } else {
                    line.fill(0.0);
                }
            }
        }
    }

    /// Packs `[cols rows, depth]` into panels: the rows of the source become their columns. Padding
    /// is zero.
    pub fn pack_transposed(&self, cols: Range<usize>, depth: Range<usize>, to: &mut [f32]) {
        let transpose = Transpose::new();
        let padded = padded_depth(depth.len());
        let (mut at, count) = (0, cols.len());
        for (first, width) in panels(count) {
            let panel = &mut to[at..at + padded * width];
            at += padded * width;
            for lane in (0..width).step_by(LANES) {
                let from = cols.start + first + lane;
                let rows = from..(from + LANES).min(cols.end);
                self.transpose_lanes(transpose, rows, &depth, &mut panel[lane..], width);
            }
            panel[depth.len() * width..].fill(0.0);
        }
    }

    /// Up to [`LANES`] rows of the source into as many columns of a panel; missing rows are zero.
    fn transpose_lanes(
        &self,
        transpose: Transpose,
        rows: Range<usize>,
        depth: &Range<usize>,
        panel: &mut [f32],
        width: usize,
    ) {
        /// Columns of the source taken at a time: widened, they stay in the first-level cache.
        const BLOCK: usize = 64;
        let mut wide = [[0f32; BLOCK]; LANES];
        for from in depth.clone().step_by(BLOCK) {
            let cols = from..(from + BLOCK).min(depth.end);
            let len = cols.len();
            let start = (from - depth.start) * width;
            let end = (start + len * width).min(panel.len());
            let mut lines = [&[0f32; BLOCK][..len]; LANES];
            for ((line, wide), row) in lines.iter_mut().zip(&mut wide).zip(rows.clone()) {
                let piece = self.piece(row, cols.clone());
                *line = T::as_f32(piece).unwrap_or_else(|| {
                    T::widen(piece, &mut wide[..len]);
                    &wide[..len]
                });
            }
            transpose.run(lines, &mut panel[start..end], width);
        }
    }

    /// Widens `[rows, cols]` to rows `stride` apart; columns up to the stride become zero.
    pub fn widen(&self, rows: Range<usize>, cols: Range<usize>, to: &mut [f32], stride: usize) {
        for (line, row) in to.chunks_exact_mut(stride).zip(rows) {
            let (used, padding) = line.split_at_mut(cols.len());
            T::widen(self.piece(row, cols.clone()), used);
            padding.fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_blocks_are_even_and_cover_the_depth() {
        for depth in [0, 1, 2, 383, 384, 385, 768, 769, 3072, 153_601] {
            let blocks: Vec<_> = depth_blocks(depth).collect();
            assert_eq!(blocks.len(), depth.div_ceil(DEPTH));
            let mut next = 0;
            for block in &blocks {
                assert_eq!(block.start, next);
                assert!(!block.is_empty() && block.len() <= DEPTH);
                next = block.end;
            }
            assert_eq!(next, depth);
        }
    }

    #[test]
    fn both_packings_agree_and_pad_with_zeros() {
        let (rows, cols) = (70, 133);
        let value = |r: usize, c: usize| (r * 1000 + c) as f32;
        let stride = cols + 5;
        let mut data = vec![f32::NAN; rows * stride];
        let mut flipped = vec![f32::NAN; cols * (rows + 3)];
        for r in 0..rows {
            for c in 0..cols {
                data[r * stride + c] = value(r, c);
                flipped[c * (rows + 3) + r] = value(r, c);
            }
        }
        let straight = Source {
            data: &data,
            stride,
        };
        let transposed = Source {
            data: &flipped,
            stride: rows + 3,
        };
        for (depth, columns) in [
            (0..70, 0..133),
            (3..4, 5..22),
            (1..68, 64..128),
            (2..2, 0..16),
        ] {
            let padded = padded_depth(depth.len());
            let len = padded * padded_cols(columns.len());
            let (mut a, mut b) = (vec![f32::NAN; len], vec![f32::NAN; len]);
            straight.pack(depth.clone(), columns.clone(), &mut a);
            transposed.pack_transposed(columns.clone(), depth.clone(), &mut b);
            assert_eq!(a, b);
            let mut at = 0;
            for (first, width) in panels(columns.len()) {
                for k in 0..padded {
                    for j in 0..width {
                        let inside = k < depth.len() && first + j < columns.len();
                        let (r, c) = (depth.start + k, columns.start + first + j);
                        let want = if inside { value(r, c) } else { 0.0 };
                        assert_eq!(a[at], want, "panel {first} ({k}, {j})");
                        at += 1;
                    }
                }
            }
            assert_eq!(at, len);
        }
    }

    #[test]
    fn buffers_are_aligned() {
        let mut buffer = Buffer::default();
        for len in [0, 1, 100, 7, 5000] {
            let taken = buffer.take(len);
            assert_eq!(taken.len(), len);
            assert_eq!(taken.as_ptr().align_offset(64), 0);
        }
    }
}
