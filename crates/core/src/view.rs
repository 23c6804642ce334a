//! Borrowed matrices: rows of equal length at a fixed stride.

use std::ops::Range;

use crate::{Error, Result};

/// The most rows of a matrix without columns. No buffer bounds them, yet whatever keeps something
/// per row or per block of rows must be able to; tokens and assignments are numbered in i32.
const MAX_EMPTY_ROWS: usize = i32::MAX as usize;

/// Elements that `rows` rows of `cols` at `stride` span, or an error.
fn span(rows: usize, cols: usize, stride: usize) -> Result<usize> {
    if cols == 0 {
        Error::check_range("rows of a matrix without columns", rows, 0, MAX_EMPTY_ROWS)?;
    }
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
    /// [`Error::OutOfRange`] for more than `i32::MAX` rows without columns,
    /// [`Error::BufferTooSmall`], [`Error::Overflow`].
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows lie `stride` elements apart.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for `stride < cols` or for more than `i32::MAX` rows without columns,
    /// [`Error::BufferTooSmall`], [`Error::Overflow`].
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
    /// [`Error::OutOfRange`] for more than `i32::MAX` rows without columns,
    /// [`Error::BufferTooSmall`], [`Error::Overflow`].
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self> {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows lie `stride` elements apart. Elements between rows are never written.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for `stride < cols` or for more than `i32::MAX` rows without columns,
    /// [`Error::BufferTooSmall`], [`Error::Overflow`].
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

    /// Cuts the matrix into consecutive blocks of `rows_per_chunk` rows (the last may be shorter; 0
    /// counts as 1), so that each can be written by its own thread.
    ///
    /// The list takes 40 bytes a block. Where there are columns, the matrix itself outweighs it; a
    /// matrix without columns has at most `i32::MAX` rows, and nothing to write.
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
    /// `offsets[i]..offsets[i+1]`.
    ///
    /// # Panics
    /// Unless `offsets` ascends from 0 to the number of rows;
    /// [`Error::check_offsets`] says so beforehand.
    pub fn split_at_offsets(self, offsets: &[i32]) -> Vec<RowViewMut<'a, T>> {
        if let Err(error) = Error::check_offsets("offsets", offsets, self.rows) {
            panic!("{error}");
        }
        let mut rest = self;
        let mut blocks = Vec::with_capacity(offsets.len() - 1);
        for pair in offsets.windows(2) {
            let (head, tail) = rest.split_at_row((pair[1] - pair[0]) as usize);
            blocks.push(head);
            rest = tail;
        }
        blocks
    }
}

impl<T: Copy> RowViewMut<'_, T> {
    /// Sets every element of every row; elements between rows are left alone.
    pub fn fill(&mut self, value: T) {
        if self.cols == 0 {
            return;
        }
        for r in 0..self.rows {
            self.row_mut(r).fill(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        // Without rows nothing is stored, however long a row would be.
        assert_eq!(RowView::new(&data, 0, 4).unwrap().raw(), &[0f32; 0]);
        let e = RowView::new(&data, 0, usize::MAX).unwrap_err();
        assert!(
            e.to_string()
                .starts_with("row stride is 18446744073709551615, must be in"),
            "{e}"
        );
    }

    #[test]
    fn rows_without_columns_are_bounded() {
        let limit = i32::MAX as usize;
        for stride in [0, 1] {
            let e = RowView::<u8>::strided(&[], limit + 1, 0, stride).unwrap_err();
            assert_eq!(
                e.to_string(),
                "rows of a matrix without columns is 2147483648, must be in 0..=2147483647"
            );
        }
        assert!(RowViewMut::<u8>::new(&mut [], usize::MAX, 0).is_err());

        let mut view = RowViewMut::<u8>::new(&mut [], limit, 0).unwrap();
        view.fill(1);
        assert_eq!(view.as_view().iter().len(), limit);
        assert!(view.row_mut(limit - 1).is_empty());
        let blocks = view.reborrow().split_at_offsets(&[0, 7, i32::MAX]);
        assert_eq!(blocks[1].rows(), limit - 7);
        let rows: Vec<_> = view.chunks(1 << 30).iter().map(|c| c.rows()).collect();
        assert_eq!(rows, [1 << 30, (1 << 30) - 1]);
    }

    #[test]
    fn offsets_split_with_empty_blocks() {
        let mut data = vec![0u8; 10];
        let view = RowViewMut::new(&mut data, 5, 2).unwrap();
        let blocks = view.split_at_offsets(&[0, 0, 2, 2, 5]);
        let rows: Vec<_> = blocks.iter().map(|b| b.rows()).collect();
        assert_eq!(rows, [0, 2, 0, 3]);
    }

    #[test]
    fn split_at_offsets_takes_nothing_but_prefix_sums_of_the_rows() {
        let extremes: [&[i32]; 9] = [
            &[],
            &[1],
            &[1, 3],
            &[0, 1],
            &[0, 3],
            &[0, 2, 1, 2],
            &[0, -1, 2],
            &[i32::MIN, 2],
            &[0, i32::MAX, i32::MIN, 2],
        ];
        for offsets in extremes {
            let split = std::panic::catch_unwind(|| {
                let mut data = [0u8; 4];
                let view = RowViewMut::new(&mut data, 2, 2).unwrap();
                view.split_at_offsets(offsets).len()
            });
            assert!(split.is_err(), "{offsets:?}");
        }
        let mut none = [0u8; 0];
        let view = RowViewMut::new(&mut none, 0, 2).unwrap();
        assert!(view.split_at_offsets(&[0]).is_empty());
    }

    /// Small sizes, and those where arithmetic gives way.
    fn size() -> impl Strategy<Value = usize> {
        let limits = [i32::MAX as usize, isize::MAX as usize, usize::MAX];
        let near = (prop::sample::select(limits.to_vec()), 1..4usize, -2..3isize)
            .prop_map(|(limit, part, by)| (limit / part).wrapping_add_signed(by));
        prop_oneof![6 => 0..6usize, 1 => near, 1 => any::<usize>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Any shape on any buffer: an error, or a view whose every method stays inside it.
        #[test]
        fn views_of_any_shape_never_panic(
            rows in size(), cols in size(), stride in size(), len in 0..40usize,
            at in any::<usize>(), contiguous in any::<bool>(),
        ) {
            let stride = if contiguous { cols } else { stride };
            let mut data = vec![1u8; len];
            let fits = RowView::strided(&data, rows, cols, stride).map(|v| v.raw().len());
            // In 128 bits nothing overflows.
            let needed = (rows as u128).saturating_sub(1) * stride as u128
                + if rows == 0 { 0 } else { cols as u128 };
            prop_assert!(!matches!(fits, Ok(n) if n as u128 != needed || n > len));
            prop_assert!(rows > 6 || cols > 6 || stride < cols || stride > 6
                || fits.is_ok() == (needed <= len as u128));

            let view = RowViewMut::strided(&mut data, rows, cols, stride);
            prop_assert_eq!(view.as_ref().err(), fits.as_ref().err());
            if contiguous {
                let again = RowView::new(&[1u8; 40][..len], rows, cols).map(|v| v.raw().len());
                prop_assert_eq!(&again, &fits);
            }
            let Ok(mut view) = view else { return Ok(()) };
            view.fill(2);
            let at = at % (rows + 1);
            if at < rows {
                prop_assert!(view.row_mut(at).iter().all(|&v| v == 2));
                prop_assert_eq!(view.as_view().row(at).len(), cols);
            }
            prop_assert_eq!(view.as_view().sub_rows(at..rows).rows(), rows - at);
            prop_assert!(view.as_view().iter().take(50).all(|r| r.len() == cols));
            let contiguous = view.as_view().as_contiguous().map(<[u8]>::len);
            prop_assert!(contiguous.is_none_or(|n| n as u128 == needed));
            let blocks = view.reborrow().chunks(rows.div_ceil(3));
            prop_assert!(blocks.len() <= 3);
            prop_assert_eq!(blocks.iter().map(|b| b.rows()).sum::<usize>(), rows);
            let (head, tail) = view.split_at_row(at);
            prop_assert_eq!((head.rows(), tail.rows()), (at, rows - at));
        }
    }
}
