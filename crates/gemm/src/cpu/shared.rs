//! A matrix that several threads write at once, each its own rectangles.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use tollgate_core::RowViewMut;

/// The memory of a [`RowViewMut`] for the length of a parallel region.
pub(super) struct SharedMatrix<'a, T> {
    start: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    view: PhantomData<&'a mut [T]>,
}

// SAFETY: the matrix is an exclusive borrow of `T`s that may be sent between threads; the only
// access is `segment`, whose callers promise that segments in use at the same time do not overlap.
unsafe impl<T: Send> Sync for SharedMatrix<'_, T> {}

impl<'a, T> SharedMatrix<'a, T> {
    pub fn new(mut view: RowViewMut<'a, T>) -> Self {
        let (rows, cols, stride) = (view.rows(), view.cols(), view.stride());
        Self {
            start: view.raw_mut().as_mut_ptr(),
            rows,
            cols,
            stride,
            view: PhantomData,
        }
    }

    /// Columns `cols` of row `row`. Panics outside the matrix.
    ///
    /// # Safety
    /// While the segment lives, no other segment with one of its elements may.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "exclusive by the contract above")]
    pub unsafe fn segment(&self, row: usize, cols: Range<usize>) -> &mut [T] {
        assert!(row < self.rows && cols.start <= cols.end && cols.end <= self.cols);
        // SAFETY: row < rows and cols within 0..cols lie inside the slice that the view was made
        // from (RowViewMut guarantees (rows−1)·stride + cols elements); it is borrowed mutably for
        // 'a, and the caller guarantees that no other reference overlaps this one.
        unsafe {
            let first = self.start.add(row * self.stride + cols.start);
            std::slice::from_raw_parts_mut(first, cols.end - cols.start)
        }
    }
}
