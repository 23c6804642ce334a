//! What the tests of this package share.
#![allow(dead_code, reason = "each test file uses its part")]

use tollgate_core::options::Activation;
use tollgate_core::{Cpu, DType, Element, RowView, RowViewMut};
use tollgate_gemm::{ExpertShape, ExpertWeights};
use tollgate_testkit::{Case, Data, Guarded, Tolerance, compare};

/// The CPU with one, two and three threads; the names go into failure messages.
pub fn implementations() -> Vec<(&'static str, Cpu)> {
    vec![
        ("cpu, 1 thread", Cpu::new(1).unwrap()),
        ("cpu, 3 threads", Cpu::new(3).unwrap()),
    ]
}

/// A strided matrix between canaries, at an odd start, with poison (NaN) between its rows.
#[derive(Clone)]
pub struct Matrix<T> {
    memory: Guarded<T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<T: Element> Matrix<T> {
    /// All poison: an output.
    pub fn poisoned(rows: usize, cols: usize) -> Self {
        let stride = cols + 3;
        let elems = if rows == 0 {
            0
        } else {
            (rows - 1) * stride + cols
        };
        Self {
            memory: Guarded::new(elems, 1 + cols % 7),
            rows,
            cols,
            stride,
        }
    }

    /// A copy of contiguous values: an input.
    pub fn of(values: &[T], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), rows * cols);
        let mut matrix = Self::poisoned(rows, cols);
        let mut view = matrix.view_mut();
        for r in 0..rows {
            view.row_mut(r)
                .copy_from_slice(&values[r * cols..(r + 1) * cols]);
        }
        matrix
    }

    pub fn view(&self) -> RowView<'_, T> {
        RowView::strided(self.memory.as_slice(), self.rows, self.cols, self.stride).unwrap()
    }

    pub fn view_mut(&mut self) -> RowViewMut<'_, T> {
        let (rows, cols, stride) = (self.rows, self.cols, self.stride);
        RowViewMut::strided(self.memory.as_mut_slice(), rows, cols, stride).unwrap()
    }

    /// The values, contiguous, after checking that nothing was written around or between the rows.
    #[track_caller]
    pub fn values(&self, what: &str) -> Vec<T> {
        self.memory.assert_canaries(what);
        for (i, v) in self.memory.as_slice().iter().enumerate() {
            let gap = i % self.stride >= self.cols;
            assert!(
                !gap || v.to_f32().is_nan(),
                "{what}: the gap at {i} was written"
            );
        }
        self.view().iter().flatten().copied().collect()
    }
}

pub fn f64s<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

pub fn abs(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

/// Panics unless every element is within the tolerance of its magnitude.
#[track_caller]
pub fn check<T: Element>(
    what: &str,
    actual: &[T],
    expected: &[f64],
    magnitude: &[f64],
    tolerance: Tolerance,
) {
    if let Err(mismatch) = compare(f64s(actual), expected, magnitude, tolerance) {
        panic!("{what}: {mismatch}");
    }
}

/// The groups of a case: the expert offsets of a table with at most two experts a token.
pub fn groups(case: &Case) -> (Vec<i32>, usize) {
    let offsets = case.routing_table(2).expert_offsets;
    let rows = offsets[offsets.len() - 1] as usize;
    (offsets, rows)
}

/// The experts of a case.
pub fn expert_shape(case: &Case, activation: Activation, gated: bool) -> ExpertShape {
    ExpertShape {
        experts: case.experts,
        hidden: case.hidden,
        intermediate: case.intermediate,
        activation,
        gated,
    }
}

/// Random weights of a shape, about of unit gain, with or without biases.
#[derive(Clone)]
pub struct Weights<T> {
    pub up: Vec<T>,
    pub up_bias: Option<Vec<T>>,
    pub down: Vec<T>,
    pub down_bias: Option<Vec<T>>,
}

impl<T: Element> Weights<T> {
    pub fn random(shape: &ExpertShape, bias: bool, data: &mut Data) -> Self {
        let (e, h, i) = (shape.experts, shape.hidden, shape.intermediate);
        let (h_gain, i_gain) = (1.0 / (h as f64).sqrt(), 1.0 / (i as f64).sqrt());
        let n1 = shape.up_rows();
        Self {
            up: data.normals(e * n1 * h, h_gain),
            up_bias: bias.then(|| data.normals(e * n1, 0.5)),
            down: data.normals(e * h * i, i_gain),
            down_bias: bias.then(|| data.normals(e * h, 0.5)),
        }
    }

    pub fn borrow(&self) -> ExpertWeights<'_, T> {
        ExpertWeights {
            up: &self.up,
            up_bias: self.up_bias.as_deref(),
            down: &self.down,
            down_bias: self.down_bias.as_deref(),
        }
    }

    pub fn to_f64(&self) -> Weights<f64> {
        Weights {
            up: f64s(&self.up),
            up_bias: self.up_bias.as_deref().map(f64s),
            down: f64s(&self.down),
            down_bias: self.down_bias.as_deref().map(f64s),
        }
    }
}

impl Weights<f64> {
    pub fn borrow64(&self) -> ExpertWeights<'_, f64> {
        ExpertWeights {
            up: &self.up,
            up_bias: self.up_bias.as_deref(),
            down: &self.down,
            down_bias: self.down_bias.as_deref(),
        }
    }

    /// The magnitudes, for error bounds.
    pub fn abs(&self) -> Self {
        Self {
            up: abs(&self.up),
            up_bias: self.up_bias.as_deref().map(abs),
            down: abs(&self.down),
            down_bias: self.down_bias.as_deref().map(abs),
        }
    }
}

/// The unit roundoff of f32, 2^-24.
pub fn u32_roundoff() -> f64 {
    DType::F32.unit_roundoff()
}
