//! Matrices in device memory, at any start and stride, between canaries.

use std::fmt::Debug;

use bytemuck::Pod;
use tollgate_core::Element;
use tollgate_device::{
    Buffer, DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Gpu, StatusBlock, Stream,
};
use tollgate_testkit::assert_same;

/// Where a matrix lies: elements before it, and between its rows.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub start: usize,
    pub gap: usize,
}

impl Place {
    /// Contiguous, at the start of an allocation.
    pub const TIGHT: Self = Self { start: 0, gap: 0 };
}

/// What lies around outputs.
const CANARY: f32 = -77.0;

/// An input. Only its rows are ever written: whoever reads around them reads memory that holds
/// nothing, which the virtual GPU reports.
pub struct Input<T> {
    buffer: Buffer<T>,
    place: Place,
    rows: usize,
    cols: usize,
}

impl<T: Element> Input<T> {
    /// `values` are the first rows of `rows`; the others stay unwritten.
    pub fn new(
        gpu: &Gpu,
        stream: &Stream,
        values: &[T],
        rows: usize,
        cols: usize,
        place: Place,
    ) -> Self {
        let stride = cols + place.gap;
        let mut buffer = gpu.alloc::<T>(place.start + rows * stride + 1).unwrap();
        for (r, row) in values.chunks_exact(cols.max(1)).enumerate() {
            let to = buffer.slice_mut();
            let to = to.part("a row", place.start + r * stride, cols).unwrap();
            stream.write(to, row).unwrap();
        }
        Self {
            buffer,
            place,
            rows,
            cols,
        }
    }

    pub fn view(&self) -> DeviceRows<'_, T> {
        let stride = self.cols + self.place.gap;
        let (slice, len) = (self.buffer.slice(), self.rows * stride);
        let slice = slice.part("a matrix", self.place.start, len).unwrap();
        slice
            .rows("a matrix", self.rows, self.cols, stride)
            .unwrap()
    }
}

/// An output, all canaries.
pub struct Output<T> {
    buffer: Buffer<T>,
    place: Place,
    rows: usize,
    cols: usize,
}

impl<T: Element> Output<T> {
    pub fn new(gpu: &Gpu, stream: &Stream, rows: usize, cols: usize, place: Place) -> Self {
        let len = place.start + rows * (cols + place.gap) + 16;
        let image = vec![T::from_f32(CANARY); len];
        Self {
            buffer: gpu.upload(stream, &image).unwrap(),
            place,
            rows,
            cols,
        }
    }

    pub fn view_mut(&mut self) -> DeviceRowsMut<'_, T> {
        let (rows, cols, stride) = (self.rows, self.cols, self.cols + self.place.gap);
        let (start, len) = (self.place.start, self.rows * stride);
        let slice = self.buffer.slice_mut().part("a matrix", start, len);
        slice.unwrap().rows("a matrix", rows, cols, stride).unwrap()
    }

    pub fn view(&self) -> DeviceRows<'_, T> {
        let stride = self.cols + self.place.gap;
        let (slice, len) = (self.buffer.slice(), self.rows * stride);
        let slice = slice.part("a matrix", self.place.start, len).unwrap();
        slice
            .rows("a matrix", self.rows, self.cols, stride)
            .unwrap()
    }

    /// All of a matrix of one row.
    pub fn slice_mut(&mut self) -> DeviceSliceMut<'_, T> {
        let (start, len) = (self.place.start, self.cols);
        assert_eq!(self.rows, 1, "contiguous");
        self.buffer
            .slice_mut()
            .part("a buffer", start, len)
            .unwrap()
    }

    /// Canaries again, at the same address.
    pub fn clear(&mut self, stream: &Stream) {
        let image = vec![T::from_f32(CANARY); self.buffer.len()];
        self.buffer.write(stream, &image).unwrap();
    }

    /// The first `written` rows; panics unless all around them is as it was.
    #[track_caller]
    pub fn values(&self, stream: &Stream, what: &str, written: usize) -> Vec<T> {
        let mut image = self.buffer.read(stream).unwrap();
        let stride = self.cols + self.place.gap;
        let mut values = Vec::new();
        for r in 0..written {
            let start = self.place.start + r * stride;
            let row = &mut image[start..start + self.cols];
            values.extend_from_slice(row);
            row.fill(T::from_f32(CANARY));
        }
        let untouched = vec![T::from_f32(CANARY); image.len()];
        assert_same(&format!("{what}: what lies around it"), &image, &untouched);
        values
    }
}

/// A buffer of its own with the start of an allocation `skew` elements before it.
pub struct Skewed<T> {
    buffer: Buffer<T>,
    skew: usize,
    len: usize,
}

impl<T: Pod + Debug> Skewed<T> {
    pub fn new(gpu: &Gpu, stream: &Stream, values: &[T], skew: usize) -> Self {
        let mut buffer = gpu.alloc::<T>(values.len() + skew + 1).unwrap();
        let to = buffer.slice_mut().part("values", skew, values.len());
        stream.write(to.unwrap(), values).unwrap();
        Self {
            buffer,
            skew,
            len: values.len(),
        }
    }

    pub fn slice(&self) -> DeviceSlice<'_, T> {
        let slice = self.buffer.slice();
        slice.part("values", self.skew, self.len).unwrap()
    }

    pub fn slice_mut(&mut self) -> DeviceSliceMut<'_, T> {
        let (skew, len) = (self.skew, self.len);
        self.buffer.slice_mut().part("values", skew, len).unwrap()
    }

    pub fn read(&self, stream: &Stream) -> Vec<T> {
        stream.read(self.slice()).unwrap()
    }
}

/// A cleared status block.
pub fn clear_status(gpu: &Gpu, stream: &Stream) -> Buffer<StatusBlock> {
    gpu.upload(stream, &[StatusBlock::CLEAR]).unwrap()
}
