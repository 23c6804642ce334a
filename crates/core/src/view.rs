//! Borrowed matrices: rows of equal length at a fixed stride.

use std::ops::Range;

use crate::{Error, Result};

/// Elements that `rows` rows of `cols` at `stride` span, or an overflow error.
fn span(rows: usize, cols: usize, stride: usize) -> Result<usize> {
    if cols > 1 || rows > 1 {
        Error::check_range("row stride", stride, cols, isize::MAX as usize)?;
    }
    if rows == 0 {
        return Ok(0);
    }
    let before_last = Error::checked_product(
        "elements of a matrix (rows × stride)",
        rows - 1,
        stride,
        isize::MAX as usize,
    )?;
    before_last
        .checked_add(cols)
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| Error::Overflow {
            what: "elements of a matrix",
            detail: format!("{before_last} + {cols}"),
            limit: isize::MAX as u64,
        })
}

/// A read-only matrix `[rows, cols]`: row `r` is `data[r·stride .. r·stride + cols]`.
///
/// The memory belongs to the caller. Strides are in elements. A view may start anywhere: nothing
/// assumes alignment beyond that of the element.
#[derive(Debug, Clone, Copy)]
pub struct RowView<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T> RowView<'a, T> {
    /// A contiguous matrix (`stride = cols`).
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], [`Error::Overflow`].
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows lie `stride` elements apart.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for `stride < cols`, [`Error::BufferTooSmall`], [`Error::Overflow`].
    pub fn strided(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Result<Self> {
        let needed = span(rows, cols, stride)?;
        if data.len() < needed {
            return Err(Error::BufferTooSmall {
                what: "matrix",
                actual: data.len(),
                needed,
            });
        }
        Ok(Self {
            data: &data[..needed],
            rows,
            cols,
            stride,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from one row's start to the next one's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `r`. Panics if `r >= rows`, as slice indexing does.
    #[inline]
    pub fn row(&self, r: usize) -> &'a [T] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        &self.data[r * self.stride..r * self.stride + self.cols]
    }

    /// All rows as one slice, if no gap lies between them.
    pub fn as_contiguous(&self) -> Option<&'a [T]> {
        (self.stride == self.cols || self.rows <= 1).then_some(self.data)
    }

    /// The rows of a range. Panics if the range leaves the matrix, as slice indexing does.
    pub fn sub_rows(&self, range: Range<usize>) -> RowView<'a, T> {
        assert!(
            range.start <= range.end && range.end <= self.rows,
            "{range:?} of {}",
            self.rows
        );
        let rows = range.end - range.start;
        let data = if rows == 0 {
            &[][..]
        } else {
            let start = range.start * self.stride;
            &self.data[start..start + (rows - 1) * self.stride + self.cols]
        };
        RowView {
            data,
            rows,
            cols: self.cols,
            stride: self.stride,
        }
    }

    /// The memory from the first element of the first row to the last of the last, gaps included.
    pub fn raw(&self) -> &'a [T] {
        self.data
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [T]> + use<'a, T> {
        let view = RowView {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        };
        (0..self.rows).map(move |r| view.row(r))
    }
}

/// A writable matrix `[rows, cols]`, laid out as [`RowView`].
#[derive(Debug)]
pub struct RowViewMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, T> RowViewMut<'a, T> {
    /// A contiguous matrix (`stride = cols`).
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], [`Error::Overflow`].
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self> {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows lie `stride` elements apart. Elements between rows are never written.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for `stride < cols`, [`Error::BufferTooSmall`], [`Error::Overflow`].
    pub fn strided(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> Result<Self> {
        let needed = span(rows, cols, stride)?;
        if data.len() < needed {
            return Err(Error::BufferTooSmall {
                what: "matrix",
                actual: data.len(),
                needed,
            });
        }
        Ok(Self {
            data: &mut data[..needed],
            rows,
            cols,
            stride,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from one row's start to the next one's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `r`. Panics if `r >= rows`, as slice indexing does.
    #[inline]
    pub fn row_mut(&mut self, r: usize) -> &mut [T] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        &mut self.data[r * self.stride..r * self.stride + self.cols]
    }

    /// The memory from the first element of the first row to the last of the last, gaps included.
    pub fn raw_mut(&mut self) -> &mut [T] {
        self.data
    }

    /// A read-only view of the same rows.
    pub fn as_view(&self) -> RowView<'_, T> {
        RowView {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        }
    }

    /// A shorter borrow of the same rows, to pass on while keeping this one.
    pub fn reborrow(&mut self) -> RowViewMut<'_, T> {
        RowViewMut {
            data: self.data,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        }
    }

    /// Splits into the first `rows` rows and the rest. Panics if `rows` exceeds the rows.
    pub fn split_at_row(self, rows: usize) -> (RowViewMut<'a, T>, RowViewMut<'a, T>) {
        assert!(rows <= self.rows, "split at row {rows} of {}", self.rows);
        let at = (rows * self.stride).min(self.data.len());
        let (head, tail) = self.data.split_at_mut(at);
        (
            RowViewMut {
                data: head,
                rows,
                cols: self.cols,
                stride: self.stride,
            },
            RowViewMut {
                data: tail,
                rows: self.rows - rows,
                cols: self.cols,
                stride: self.stride,
            },
        )
    }

    /// Cuts the matrix into consecutive blocks of `rows_per_chunk` rows (the last may be shorter),
    /// so that each can be written by its own thread.
    pub fn chunks(self, rows_per_chunk: usize) -> Vec<RowViewMut<'a, T>> {
        let mut rest = self;
        let mut chunks = Vec::with_capacity(rest.rows.div_ceil(rows_per_chunk.max(1)));
        while rest.rows > 0 {
            let (head, tail) = {
                let take = rows_per_chunk.max(1).min(rest.rows);
                rest.split_at_row(take)
            };
            chunks.push(head);
            rest = tail;
        }
        chunks
    }

    /// Cuts the matrix at the given exclusive prefix sums: block `i` is rows
    /// `offsets[i]..offsets[i+1]`. Panics unless `offsets` ascends from 0 to the number of rows.
    pub fn split_at_offsets(self, offsets: &[i32]) -> Vec<RowViewMut<'a, T>> {
        let rows = self.rows;
        let mut rest = self;
        let mut blocks = Vec::with_capacity(offsets.len().saturating_sub(1));
        for pair in offsets.windows(2) {
            let (head, tail) = rest.split_at_row((pair[1] - pair[0]) as usize);
            blocks.push(head);
            rest = tail;
        }
        assert_eq!(rest.rows, 0, "offsets end before row {rows}");
        blocks
    }
}

impl<T: Copy> RowViewMut<'_, T> {
    /// Sets every element of every row; elements between rows are left alone.
    pub fn fill(&mut self, value: T) {
        for r in 0..self.rows {
            self.row_mut(r).fill(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_rows_skip_the_gap() {
        let data: Vec<i32> = (0..11).collect();
        let view = RowView::strided(&data, 3, 3, 4).unwrap();
        assert_eq!(view.row(2), &[8, 9, 10]);
        assert!(view.as_contiguous().is_none());
        assert_eq!(view.sub_rows(1..3).row(0), &[4, 5, 6]);
        assert_eq!(view.sub_rows(3..3).rows(), 0);
        assert_eq!(view.iter().map(|r| r[0]).collect::<Vec<_>>(), [0, 4, 8]);
    }

    #[test]
    fn fill_leaves_gaps_and_chunks_cover_every_row_once() {
        let mut data = vec![0; 4 * 6];
        let mut view = RowViewMut::strided(&mut data, 6, 3, 4).unwrap();
        view.fill(7);
        for (i, mut chunk) in view.chunks(4).into_iter().enumerate() {
            for r in 0..chunk.rows() {
                chunk.row_mut(r)[0] = i as i32;
            }
        }
        assert_eq!(&data[..8], &[0, 7, 7, 0, 0, 7, 7, 0]);
        assert_eq!(&data[16..], &[1, 7, 7, 0, 1, 7, 7, 0]);
    }

    #[test]
    fn bad_shapes_name_the_numbers() {
        let data = [0f32; 10];
        let e = RowView::new(&data, 3, 4).unwrap_err();
        assert_eq!(
            e.to_string(),
            "matrix holds 10 elements, but its shape needs 12"
        );
        let e = RowView::strided(&data, 2, 4, 3).unwrap_err();
        assert!(
            e.to_string()
                .starts_with("row stride is 3, must be in 4..=")
        );
        let e = RowView::new(&data, usize::MAX / 2, 4).unwrap_err();
        assert!(matches!(e, Error::Overflow { .. }), "{e}");
        assert!(RowView::new(&data, 0, usize::MAX).is_ok() || RowView::new(&data, 0, 4).is_ok());
    }

    #[test]
    fn offsets_split_with_empty_blocks() {
        let mut data = vec![0u8; 10];
        let view = RowViewMut::new(&mut data, 5, 2).unwrap();
        let blocks = view.split_at_offsets(&[0, 0, 2, 2, 5]);
        let rows: Vec<_> = blocks.iter().map(|b| b.rows()).collect();
        assert_eq!(rows, [0, 2, 0, 3]);
    }
}
