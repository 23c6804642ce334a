//! Strided matrices in guarded memory: what lies around and between the rows must stay as it is.

use tollgate_core::{Element, RowView, RowViewMut};

use crate::{Guarded, assert_same};

/// A strided matrix between canaries, at an odd start, with poison (NaN) between its rows.
#[derive(Debug, Clone)]
pub struct GuardedMatrix<T> {
    memory: Guarded<T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<T: Element> GuardedMatrix<T> {
    /// All poison: an output. `pad` elements lie between two rows.
    pub fn poisoned(rows: usize, cols: usize, pad: usize) -> Self {
        let stride = cols + pad;
        let elems = match rows {
            0 => 0,
            _ => (rows - 1) * stride + cols,
        };
        Self {
            memory: Guarded::new(elems, 1 + stride % 7),
            rows,
            cols,
            stride,
        }
    }

    /// A copy of contiguous values: an input.
    pub fn of(values: &[T], rows: usize, cols: usize, pad: usize) -> Self {
        assert_eq!(values.len(), rows * cols);
        let mut matrix = Self::poisoned(rows, cols, pad);
        let mut view = matrix.view_mut();
        for r in 0..rows {
            view.row_mut(r)
                .copy_from_slice(&values[r * cols..(r + 1) * cols]);
        }
        matrix
    }

    /// The matrix.
    pub fn view(&self) -> RowView<'_, T> {
        RowView::strided(self.memory.as_slice(), self.rows, self.cols, self.stride).unwrap()
    }

    /// The matrix, to be written.
    pub fn view_mut(&mut self) -> RowViewMut<'_, T> {
        let (rows, cols, stride) = (self.rows, self.cols, self.stride);
        RowViewMut::strided(self.memory.as_mut_slice(), rows, cols, stride).unwrap()
    }

    /// The values, contiguous. Panics, naming `what`, if anything was written around the matrix or
    /// between its rows.
    #[track_caller]
    pub fn values(&self, what: &str) -> Vec<T> {
        self.memory.assert_canaries(what);
        for (r, row) in self
            .memory
            .as_slice()
            .chunks(self.stride.max(1))
            .enumerate()
        {
            let gap = &row[self.cols.min(row.len())..];
            let poison = vec![T::NAN; gap.len()];
            assert_same(&format!("{what}: gap after row {r}"), gap, &poison);
        }
        self.view().iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_between_rows_is_found() {
        let mut matrix = GuardedMatrix::of(&[1.0f32, 2.0, 3.0, 4.0], 2, 2, 3);
        assert_eq!(matrix.values("untouched"), [1.0, 2.0, 3.0, 4.0]);
        matrix.memory.as_mut_slice()[3] = 0.0;
        let caught = std::panic::catch_unwind(|| matrix.values("spoilt"));
        assert!(caught.is_err());
    }
}
