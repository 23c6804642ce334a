//! Matrices in device memory at an odd place: what lies around and between their rows must stay.

use bytemuck::Pod;
use tollgate::Element;
use tollgate::device::{Buffer, DeviceRows, DeviceRowsMut, DeviceSliceMut, Gpu, Stream};

use super::PAD;

/// Elements before and behind the matrix. Odd, so that no row is aligned to more than an element.
const FENCE: usize = 7;

/// `[rows, cols]` with [`PAD`] elements between rows, fenced.
pub struct Fenced<T> {
    buffer: Buffer<T>,
    image: Vec<T>,
    rows: usize,
    cols: usize,
}

impl<T: Element + Pod> Fenced<T> {
    /// A copy of contiguous values: an input.
    pub fn of(gpu: &Gpu, stream: &Stream, values: &[T], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), rows * cols);
        let stride = cols + PAD;
        let len = 2 * FENCE + rows * stride;
        let mut image: Vec<T> = (0..len).map(|i| T::from_f32((i % 97) as f32)).collect();
        for (r, row) in values.chunks(cols.max(1)).enumerate() {
            let start = FENCE + r * stride;
            image[start..start + cols].copy_from_slice(row);
        }
        let buffer = gpu.upload(stream, &image).unwrap();
        Self {
            buffer,
            image,
            rows,
            cols,
        }
    }

    /// All poison: an output.
    pub fn poisoned(gpu: &Gpu, stream: &Stream, rows: usize, cols: usize) -> Self {
        Self::of(gpu, stream, &vec![T::NAN; rows * cols], rows, cols)
    }

    pub fn view(&self) -> DeviceRows<'_, T> {
        let len = self.buffer.len() - 2 * FENCE;
        let inner = self.buffer.slice().part("fenced", FENCE, len).unwrap();
        inner
            .rows("fenced", self.rows, self.cols, self.cols + PAD)
            .unwrap()
    }

    pub fn view_mut(&mut self) -> DeviceRowsMut<'_, T> {
        let len = self.buffer.len() - 2 * FENCE;
        let inner = self.buffer.slice_mut().part("fenced", FENCE, len).unwrap();
        inner
            .rows("fenced", self.rows, self.cols, self.cols + PAD)
            .unwrap()
    }

    /// Of a matrix of one row, the row.
    pub fn flat_mut(&mut self) -> DeviceSliceMut<'_, T> {
        assert_eq!(self.rows, 1);
        self.buffer
            .slice_mut()
            .part("fenced", FENCE, self.cols)
            .unwrap()
    }

    /// The values, contiguous. Panics, naming `what`, if anything was written beside the rows.
    #[track_caller]
    pub fn values(&self, stream: &Stream, what: &str) -> Vec<T> {
        let now = self.buffer.read(stream).unwrap();
        let stride = self.cols + PAD;
        let mut values = Vec::with_capacity(self.rows * self.cols);
        for (i, (&now, &before)) in now.iter().zip(&self.image).enumerate() {
            let inside = i
                .checked_sub(FENCE)
                .is_some_and(|i| i / stride < self.rows && i % stride < self.cols);
            if inside {
                values.push(now);
            } else {
                let (now, before) = (now.to_f64(), before.to_f64());
                assert_eq!(now, before, "{what}: element {i} lies beside the rows");
            }
        }
        values
    }
}
