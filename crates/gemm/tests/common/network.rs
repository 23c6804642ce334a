//! A whole forward and backward of the experts: on the CPU, and in device memory.

use tollgate_core::{Cpu, Element, RowView, RowViewMut};
use tollgate_device::{Buffer, Gpu, StatusBlock, Stream};
use tollgate_gemm::gpu::{DeviceExpertGrads, DeviceExpertWeights, Launcher};
use tollgate_gemm::{ExpertGrads, ExpertShape, Experts};
use tollgate_testkit::{Data, assert_same};

use super::Weights;
use super::memory::{Input, Output, Place, Skewed, clear_status};

/// Everything that a forward and a backward of the experts write.
#[derive(Debug, PartialEq)]
pub struct Everything<T> {
    tensors: [Vec<T>; 5],
    gradients: [Vec<f32>; 4],
}

impl<T: Element> Everything<T> {
    #[track_caller]
    pub fn assert_same(&self, what: &str, other: &Self) {
        for (i, (a, b)) in self.tensors.iter().zip(&other.tensors).enumerate() {
            assert_same(&format!("{what}, tensor {i}"), a, b);
        }
        for (i, (a, b)) in self.gradients.iter().zip(&other.gradients).enumerate() {
            assert_same(&format!("{what}, gradient {i}"), a, b);
        }
    }
}

/// The experts' inputs: as many rows as the bound, of which the offsets use some.
pub struct Problem<T> {
    shape: ExpertShape,
    weights: Weights<T>,
    bound: usize,
    /// `[bound, H]`
    x: Vec<T>,
    /// `[bound, H]`
    dy: Vec<T>,
}

impl<T: Element> Problem<T> {
    pub fn new(shape: ExpertShape, bound: usize) -> Self {
        let mut data = Data::new(31);
        Self {
            shape,
            weights: Weights::random(&shape, true, &mut data),
            bound,
            x: data.normals(bound * shape.hidden, 1.0),
            dy: data.normals(bound * shape.hidden, 1.0),
        }
    }

    /// Sizes of the gradients: up, up_bias, down, down_bias.
    fn gradient_lens(&self) -> [usize; 4] {
        let (e, h, i) = (
            self.shape.experts,
            self.shape.hidden,
            self.shape.intermediate,
        );
        let n1 = self.shape.up_rows();
        [e * n1 * h, e * n1, e * h * i, e * h]
    }

    /// Columns of pre, act, y, dpre, dx.
    fn cols(&self) -> [usize; 5] {
        let (h, i, n1) = (
            self.shape.hidden,
            self.shape.intermediate,
            self.shape.up_rows(),
        );
        [n1, i, h, n1, h]
    }

    /// What the CPU computes of the rows that are used.
    pub fn on_cpu(&self, offsets: &[i32]) -> Everything<T> {
        let cpu = Cpu::new(1).unwrap();
        let (shape, weights) = (&self.shape, self.weights.borrow());
        let rows = offsets[shape.experts] as usize;
        let h = shape.hidden;
        let input = |values| RowView::new(values, rows, h).unwrap();
        let [mut pre, mut act, mut y, mut dpre, mut dx] =
            self.cols().map(|cols| vec![T::NAN; rows * cols]);
        let [mut up, mut up_bias, mut down, mut down_bias] =
            self.gradient_lens().map(|len| vec![f32::NAN; len]);
        let mut grads = ExpertGrads {
            up: &mut up,
            up_bias: Some(&mut up_bias),
            down: &mut down,
            down_bias: Some(&mut down_bias),
            accumulate: false,
        };
        macro_rules! read {
            ($values:ident, $i:expr) => {
                RowView::new(&$values, rows, self.cols()[$i]).unwrap()
            };
        }
        macro_rules! write {
            ($values:ident, $i:expr) => {
                RowViewMut::new(&mut $values, rows, self.cols()[$i]).unwrap()
            };
        }
        let (x, dy) = (input(&self.x), input(&self.dy));
        cpu.up(shape, &weights, x, offsets, write!(pre, 0), write!(act, 1))
            .unwrap();
        cpu.down(shape, &weights, read!(act, 1), offsets, write!(y, 2))
            .unwrap();
        cpu.down_backward(
            shape,
            &weights,
            read!(pre, 0),
            read!(act, 1),
            dy,
            offsets,
            write!(dpre, 3),
            &mut grads,
        )
        .unwrap();
        let dpre_in = RowView::new(&dpre, rows, self.cols()[3]).unwrap();
        cpu.up_backward(
            shape,
            &weights,
            x,
            dpre_in,
            offsets,
            write!(dx, 4),
            &mut grads,
        )
        .unwrap();
        Everything {
            tensors: [pre, act, y, dpre, dx],
            gradients: [up, up_bias, down, down_bias],
        }
    }
}

/// A [`Problem`] in device memory.
pub struct OnGpu<'a, T> {
    problem: &'a Problem<T>,
    gpu: &'a Gpu,
    pub stream: Stream,
    x: Input<T>,
    dy: Input<T>,
    weights: [Skewed<T>; 4],
    pub offsets: Skewed<i32>,
    pub tensors: [Output<T>; 5],
    pub gradients: [Output<f32>; 4],
    status: Buffer<StatusBlock>,
}

impl<'a, T: Element> OnGpu<'a, T> {
    pub fn new(problem: &'a Problem<T>, gpu: &'a Gpu, offsets: &[i32], place: Place) -> Self {
        let stream = gpu.stream().unwrap();
        let h = problem.shape.hidden;
        let w = &problem.weights;
        let bias = |b: &Option<Vec<T>>| b.clone().expect("the weights have biases");
        let weights = [
            w.up.clone(),
            bias(&w.up_bias),
            w.down.clone(),
            bias(&w.down_bias),
        ];
        let bound = problem.bound;
        Self {
            problem,
            gpu,
            x: Input::new(gpu, &stream, &problem.x, bound, h, place),
            dy: Input::new(gpu, &stream, &problem.dy, bound, h, place),
            weights: weights.map(|w| Skewed::new(gpu, &stream, &w, place.start)),
            offsets: Skewed::new(gpu, &stream, offsets, 1),
            tensors: problem
                .cols()
                .map(|cols| Output::new(gpu, &stream, bound, cols, place)),
            gradients: problem
                .gradient_lens()
                .map(|len| Output::new(gpu, &stream, 1, len, place)),
            status: clear_status(gpu, &stream),
            stream,
        }
    }

    /// Forward and backward; nothing waits.
    pub fn launch(&mut self, accumulate: bool) -> tollgate_core::Result<()> {
        let [up, up_bias, down, down_bias] = &self.weights;
        let weights = DeviceExpertWeights {
            up: up.slice(),
            up_bias: Some(up_bias.slice()),
            down: down.slice(),
            down_bias: Some(down_bias.slice()),
        };
        let (shape, offsets) = (&self.problem.shape, self.offsets.slice());
        let [pre, act, y, dpre, dx] = &mut self.tensors;
        let [up, up_bias, down, down_bias] = &mut self.gradients;
        let mut grads = DeviceExpertGrads {
            up: up.slice_mut(),
            up_bias: Some(up_bias.slice_mut()),
            down: down.slice_mut(),
            down_bias: Some(down_bias.slice_mut()),
            accumulate,
        };
        let mut to = Launcher::new(self.gpu, &self.stream, self.status.slice_mut())?;
        let (x, dy) = (self.x.view(), self.dy.view());
        to.up(shape, &weights, x, offsets, pre.view_mut(), act.view_mut())?;
        to.down(shape, &weights, act.view(), offsets, y.view_mut())?;
        let (pre, act) = (pre.view(), act.view());
        to.down_backward(
            shape,
            &weights,
            pre,
            act,
            dy,
            offsets,
            dpre.view_mut(),
            &mut grads,
        )?;
        to.up_backward(
            shape,
            &weights,
            x,
            dpre.view(),
            offsets,
            dx.view_mut(),
            &mut grads,
        )
    }

    /// What was written, of `rows` rows.
    pub fn results(&self, rows: usize) -> Everything<T> {
        let [pre, act, y, dpre, dx] = &self.tensors;
        let [up, up_bias, down, down_bias] = &self.gradients;
        Everything {
            tensors: [pre, act, y, dpre, dx].map(|t| t.values(&self.stream, "a tensor", rows)),
            gradients: [up, up_bias, down, down_bias]
                .map(|g| g.values(&self.stream, "a gradient", 1)),
        }
    }

    pub fn faults(&self) -> u32 {
        self.status.read(&self.stream).unwrap()[0].faults
    }
}
