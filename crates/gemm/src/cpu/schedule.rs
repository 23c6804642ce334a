//! Who computes what: groups of rows and ranges of columns cut into units of similar cost.
//!
//! No result depends on how the work is cut, so the cut may follow the number of threads.

use std::ops::Range;

use rayon::prelude::*;
use tollgate_core::Cpu;

use super::kernel::{PANEL, ROWS};

/// Columns of a unit, at most: with [`MAX_ROWS`] rows of them the f32 tile and the packed panels
/// share the second-level cache.
pub(super) const MAX_COLS: usize = 256;
/// Rows of a unit, at most: each packed panel is used for so many rows.
pub(super) const MAX_ROWS: usize = 8 * ROWS;
/// Work below this many multiply–adds (about 20 µs of one core) is not worth waking threads for.
pub(super) const INLINE_OPERATIONS: usize = 1 << 20;
/// Units per thread that leave room to balance.
pub(super) const UNITS_PER_THREAD: usize = 4;

/// One unit of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub expert: usize,
    /// Rows, counted from the start of the matrix.
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

/// A partition of `[rows of every group] × [0, cols)`.
#[derive(Debug)]
pub(super) struct Partition<'a> {
    offsets: &'a [i32],
    cols: usize,
    rows_per_unit: usize,
    cols_per_unit: usize,
    /// `[E+1]` exclusive prefix sums of the row chunks of each expert.
    chunks: Vec<usize>,
}

impl<'a> Partition<'a> {
    /// Cuts the groups of `offsets` and `cols` columns. Columns are halved before rows: a panel is
    /// then packed once all the same, whereas every chunk of rows packs it again.
    pub fn new(offsets: &'a [i32], cols: usize, max_cols: usize, threads: usize) -> Self {
        let mut partition = Self {
            offsets,
            cols,
            rows_per_unit: MAX_ROWS,
            cols_per_unit: max_cols,
            chunks: Vec::with_capacity(offsets.len()),
        };
        partition.count_chunks();
        let wanted = if threads > 1 {
            threads * UNITS_PER_THREAD
        } else {
            1
        };
        while partition.units() < wanted {
            if partition.cols_per_unit > PANEL && cols > PANEL {
                partition.cols_per_unit /= 2;
            } else if partition.rows_per_unit > ROWS {
                partition.rows_per_unit /= 2;
                partition.count_chunks();
            } else {
                break;
            }
        }
        partition
    }

    fn count_chunks(&mut self) {
        self.chunks.clear();
        self.chunks.push(0);
        let mut sum = 0;
        for pair in self.offsets.windows(2) {
            sum += ((pair[1] - pair[0]) as usize).div_ceil(self.rows_per_unit);
            self.chunks.push(sum);
        }
    }

    fn column_ranges(&self) -> usize {
        self.cols.div_ceil(self.cols_per_unit)
    }

    pub fn units(&self) -> usize {
        self.chunks[self.chunks.len() - 1] * self.column_ranges()
    }

    /// Unit `i` of [`Partition::units`]: neighbours share their rows.
    pub fn unit(&self, i: usize) -> Unit {
        let (chunk, range) = (i / self.column_ranges(), i % self.column_ranges());
        let expert = self.chunks.partition_point(|&before| before <= chunk) - 1;
        let group = self.offsets[expert] as usize..self.offsets[expert + 1] as usize;
        let rows = even_part(
            group.end - group.start,
            self.chunks[expert + 1] - self.chunks[expert],
            chunk - self.chunks[expert],
        );
        let first = range * self.cols_per_unit;
        Unit {
            expert,
            rows: group.start + rows.start..group.start + rows.end,
            cols: first..(first + self.cols_per_unit).min(self.cols),
        }
    }
}

/// Part `i` when `rows` are dealt to `parts` as evenly as whole kernel tiles allow.
fn even_part(rows: usize, parts: usize, i: usize) -> Range<usize> {
    let size = rows.div_ceil(parts).next_multiple_of(ROWS);
    (i * size).min(rows)..((i + 1) * size).min(rows)
}

/// Runs `work` for every index below `units`, on the threads of `cpu` unless the whole is small.
pub(super) fn for_each(
    cpu: &Cpu,
    units: usize,
    operations: usize,
    work: impl Fn(usize) + Send + Sync,
) {
    if units <= 1 || cpu.threads() == 1 || operations < INLINE_OPERATIONS {
        (0..units).for_each(work);
    } else {
        cpu.install(|| (0..units).into_par_iter().with_max_len(1).for_each(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_cover_every_element_once_however_it_is_cut() {
        let shapes: [&[i32]; 4] = [&[0, 0, 1, 1, 50, 900], &[0, 2000], &[0], &[0, 0]];
        for offsets in shapes {
            for cols in [0, 1, 63, 64, 65, 1000] {
                for threads in [1, 2, 3, 64] {
                    let partition = Partition::new(offsets, cols, MAX_COLS, threads);
                    let rows = offsets[offsets.len() - 1] as usize;
                    let mut seen = vec![0u8; rows * cols];
                    for i in 0..partition.units() {
                        let unit = partition.unit(i);
                        let group = offsets[unit.expert]..offsets[unit.expert + 1];
                        assert!(unit.rows.len() <= MAX_ROWS && unit.cols.len() <= MAX_COLS);
                        for r in unit.rows {
                            assert!(group.contains(&(r as i32)));
                            for c in unit.cols.clone() {
                                seen[r * cols + c] += 1;
                            }
                        }
                    }
                    assert!(seen.iter().all(|&n| n == 1), "{offsets:?} {cols} {threads}");
                }
            }
        }
    }
}
