//! What happens to a finished f32 strip while it is in the cache: bias, activation, rounding,
//! stores.
#![allow(unsafe_code)]

use std::ops::Range;

use tollgate_core::options::Activation;
use tollgate_core::{Element, RowView};

use super::schedule::MAX_COLS;
use super::shared::SharedMatrix;
use crate::activation;

/// Finished rows of a tile.
pub(super) struct Strip<'a> {
    pub expert: usize,
    /// Rows of the whole matrix.
    pub rows: Range<usize>,
    /// Columns, counted from the start of each part.
    pub cols: Range<usize>,
    /// The values from the first row on.
    pub values: &'a mut [f32],
    /// From one row to the next.
    pub stride: usize,
    /// From a row's first part to its second.
    pub part_stride: usize,
}

impl Strip<'_> {
    /// Row `i` of the strip, both parts; the second is empty where there is only one.
    fn row(&mut self, i: usize) -> (&mut [f32], &mut [f32]) {
        let used = self.cols.len();
        let line = &mut self.values[i * self.stride..(i + 1) * self.stride];
        let (first, second) = line.split_at_mut(self.part_stride);
        let second_used = used.min(second.len());
        (&mut first[..used], &mut second[..second_used])
    }
}

/// Writes strips to the outputs.
pub(super) trait Epilogue: Sync {
    /// Finishes and writes one strip; its values may be used as scratch.
    ///
    /// # Safety
    /// No row and column may be in two strips that are being stored at the same time.
    unsafe fn store(&self, strip: Strip<'_>);
}

/// Adds the bias of `cols` of expert `e`, one widened row for the whole strip.
fn add_bias<B: Element>(bias: &[B], per_expert: usize, first: usize, strip: &mut Strip<'_>) {
    let mut wide = [0f32; MAX_COLS];
    let used = strip.cols.len();
    for part in 0..strip.stride / strip.part_stride {
        let start = strip.expert * per_expert + part * first + strip.cols.start;
        B::widen(&bias[start..start + used], &mut wide[..used]);
        for i in 0..strip.rows.len() {
            let (one, two) = strip.row(i);
            let values = if part == 0 { one } else { two };
            for (value, b) in values.iter_mut().zip(&wide) {
                *value += b;
            }
        }
    }
}

/// `D = round(values + bias)`.
pub(super) struct Store<'a, B, D> {
    /// `[E, N]`.
    pub bias: Option<&'a [B]>,
    /// N.
    pub cols: usize,
    pub d: SharedMatrix<'a, D>,
}

impl<B: Element, D: Element> Epilogue for Store<'_, B, D> {
    // The caller vouches for what `Epilogue::store` asks under `# Safety`.
    unsafe fn store(&self, mut strip: Strip<'_>) {
        if let Some(bias) = self.bias {
            add_bias(bias, self.cols, 0, &mut strip);
        }
        for (i, r) in strip.rows.clone().enumerate() {
            // SAFETY: the strip's rows and columns are this call's alone.
            let to = unsafe { self.d.segment(r, strip.cols.clone()) };
            D::narrow(strip.row(i).0, to);
        }
    }
}

/// `pre = round(values + bias)` and `act` of the stored `pre`.
pub(super) struct Activate<'a, T> {
    pub activation: Activation,
    /// I: columns of a part.
    pub intermediate: usize,
    /// `[E, N1]`.
    pub bias: Option<&'a [T]>,
    pub pre: SharedMatrix<'a, T>,
    pub act: SharedMatrix<'a, T>,
}

impl<T: Element> Epilogue for Activate<'_, T> {
    // The caller vouches for what `Epilogue::store` asks under `# Safety`.
    unsafe fn store(&self, mut strip: Strip<'_>) {
        let (cols, width) = (strip.cols.clone(), self.intermediate);
        if let Some(bias) = self.bias {
            let parts = strip.stride / strip.part_stride;
            add_bias(bias, width * parts, width, &mut strip);
        }
        for (i, r) in strip.rows.clone().enumerate() {
            let (first, second) = strip.row(i);
            // SAFETY: the strip's rows and columns are this call's alone, in either half of `pre`;
            // the halves do not overlap, and the first segment is dropped before the second.
            let to = unsafe { self.pre.segment(r, cols.clone()) };
            T::narrow(first, to);
            T::widen(to, first);
            if second.is_empty() {
                activation::apply(self.activation, first);
            } else {
                // SAFETY: as above.
                let to = unsafe { self.pre.segment(r, width + cols.start..width + cols.end) };
                T::narrow(second, to);
                T::widen(to, second);
                activation::apply_gated(self.activation, first, second);
            }
            // SAFETY: the strip's rows and columns are this call's alone.
            T::narrow(first, unsafe { self.act.segment(r, cols.clone()) });
        }
    }
}

/// `dpre = round(values · act'(pre))`, where the values are `dact`; both halves in the gated form.
pub(super) struct ActivateBackward<'a, T> {
    pub activation: Activation,
    /// I.
    pub intermediate: usize,
    pub gated: bool,
    /// `[A, N1]`.
    pub pre: RowView<'a, T>,
    pub dpre: SharedMatrix<'a, T>,
}

impl<T: Element> Epilogue for ActivateBackward<'_, T> {
    // The caller vouches for what `Epilogue::store` asks under `# Safety`.
    unsafe fn store(&self, mut strip: Strip<'_>) {
        let cols = strip.cols.clone();
        let second = self.intermediate + cols.start..self.intermediate + cols.end;
        let (mut first_wide, mut second_wide) = ([0f32; MAX_COLS], [0f32; MAX_COLS]);
        let gate = &mut first_wide[..cols.len()];
        let up = &mut second_wide[..cols.len()];
        for (i, r) in strip.rows.clone().enumerate() {
            let pre = self.pre.row(r);
            let (dact, _) = strip.row(i);
            T::widen(&pre[cols.clone()], gate);
            if self.gated {
                T::widen(&pre[second.clone()], up);
                activation::backward_gated(self.activation, gate, up, dact);
                // SAFETY: the strip's rows and columns are this call's alone, in either half.
                T::narrow(up, unsafe { self.dpre.segment(r, second.clone()) });
            } else {
                activation::backward(self.activation, gate, dact);
            }
            // SAFETY: the strip's rows and columns are this call's alone.
            T::narrow(gate, unsafe { self.dpre.segment(r, cols.clone()) });
        }
    }
}
