//! The operations over host memory: operands go to the device, results come back. For tests and for
//! whoever wants one answer; nothing here is fast.

use tollgate_core::{Element, Error, Result, RowView, RowViewMut};
use tollgate_device::{
    Buffer, DeviceRows, DeviceRowsMut, DeviceSliceMut, Gpu, StatusBlock, Stream,
};

use super::{DeviceExpertGrads, DeviceExpertWeights, DeviceStacked, Launcher};
use crate::{ExpertGrads, ExpertShape, ExpertWeights, Experts, GroupedGemm, Stacked, check};

/// The device with its default stream, and buffers on it.
struct Staging<'a> {
    gpu: &'a Gpu,
    stream: &'a Stream,
    status: Buffer<StatusBlock>,
}

/// A matrix on the device.
struct Matrix<T> {
    buffer: Buffer<T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<T: Element> Matrix<T> {
    fn view(&self) -> Result<DeviceRows<'_, T>> {
        let slice = self.buffer.slice();
        Ok(slice.rows("a matrix", self.rows, self.cols, self.stride)?)
    }

    fn view_mut(&mut self) -> Result<DeviceRowsMut<'_, T>> {
        let (rows, cols, stride) = (self.rows, self.cols, self.stride);
        let slice = self.buffer.slice_mut();
        Ok(slice.rows("a matrix", rows, cols, stride)?)
    }
}

impl<'a> Staging<'a> {
    fn new(gpu: &'a Gpu) -> Result<Self> {
        let stream = gpu.default_stream();
        let status = gpu.upload(stream, &[StatusBlock::CLEAR])?;
        Ok(Self {
            gpu,
            stream,
            status,
        })
    }

    fn launcher(&mut self) -> Result<Launcher<'_>> {
        Launcher::new(self.gpu, self.stream, self.status.slice_mut())
    }

    fn slice<T: Element>(&self, values: &[T]) -> Result<Buffer<T>> {
        Ok(self.gpu.upload(self.stream, values)?)
    }

    fn offsets(&self, offsets: &[i32]) -> Result<Buffer<i32>> {
        Ok(self.gpu.upload(self.stream, offsets)?)
    }

    fn input<T: Element>(&self, view: &RowView<'_, T>) -> Result<Matrix<T>> {
        Ok(Matrix {
            buffer: self.slice(view.raw())?,
            rows: view.rows(),
            cols: view.cols(),
            stride: view.stride(),
        })
    }

    fn output<T: Element>(&self, view: &RowViewMut<'_, T>) -> Result<Matrix<T>> {
        let (rows, cols) = (view.rows(), view.cols());
        let elems = Error::checked_product("elements of a result", rows, cols, usize::MAX)?;
        Ok(Matrix {
            buffer: self.gpu.alloc(elems)?,
            rows,
            cols,
            stride: cols,
        })
    }

    /// Brings a result back.
    fn fetch<T: Element>(&self, from: &Matrix<T>, mut to: RowViewMut<'_, T>) -> Result<()> {
        let values = from.buffer.read(self.stream)?;
        if from.cols > 0 {
            for (r, row) in values.chunks_exact(from.cols).enumerate() {
                to.row_mut(r).copy_from_slice(row);
            }
        }
        Ok(())
    }

    /// A gradient to be written, or with what is there to be added to.
    fn gradient(&self, values: &[f32], accumulate: bool) -> Result<Buffer<f32>> {
        match accumulate {
            true => self.slice(values),
            false => Ok(self.gpu.alloc(values.len())?),
        }
    }

    fn fetch_gradient(&self, from: &Buffer<f32>, to: &mut [f32]) -> Result<()> {
        Ok(self.stream.read_into(from.slice(), to)?)
    }

    /// What kernels reported. Offsets were checked before: a fault here is the device's.
    fn check_status(&self) -> Result<()> {
        match self.status.read(self.stream)?.first().map(|s| s.faults) {
            Some(0) => Ok(()),
            faults => Err(Error::Device {
                reason: format!("kernels reported faults {faults:?} in checked arguments"),
            }),
        }
    }
}

/// The weights of one call; those of a map that the call does not use stay on the host.
struct StagedWeights<T> {
    up: Buffer<T>,
    up_bias: Option<Buffer<T>>,
    down: Buffer<T>,
    down_bias: Option<Buffer<T>>,
}

impl<T: Element> StagedWeights<T> {
    fn up(staging: &Staging<'_>, weights: &ExpertWeights<'_, T>) -> Result<Self> {
        Ok(Self {
            up: staging.slice(weights.up)?,
            up_bias: weights.up_bias.map(|b| staging.slice(b)).transpose()?,
            down: staging.slice(&[])?,
            down_bias: None,
        })
    }

    fn down(staging: &Staging<'_>, weights: &ExpertWeights<'_, T>) -> Result<Self> {
        Ok(Self {
            up: staging.slice(&[])?,
            up_bias: None,
            down: staging.slice(weights.down)?,
            down_bias: weights.down_bias.map(|b| staging.slice(b)).transpose()?,
        })
    }

    fn view(&self) -> DeviceExpertWeights<'_, T> {
        DeviceExpertWeights {
            up: self.up.slice(),
            up_bias: self.up_bias.as_ref().map(Buffer::slice),
            down: self.down.slice(),
            down_bias: self.down_bias.as_ref().map(Buffer::slice),
        }
    }
}

/// The gradients of one map.
struct StagedGradient {
    weights: Buffer<f32>,
    bias: Option<Buffer<f32>>,
}

impl StagedGradient {
    fn new(
        staging: &Staging<'_>,
        weights: &[f32],
        bias: Option<&[f32]>,
        accumulate: bool,
    ) -> Result<Self> {
        let bias = bias.map(|b| staging.gradient(b, accumulate)).transpose()?;
        Ok(Self {
            weights: staging.gradient(weights, accumulate)?,
            bias,
        })
    }

    fn parts(&mut self) -> (DeviceSliceMut<'_, f32>, Option<DeviceSliceMut<'_, f32>>) {
        let bias = self.bias.as_mut().map(Buffer::slice_mut);
        (self.weights.slice_mut(), bias)
    }

    fn fetch(
        &self,
        staging: &Staging<'_>,
        weights: &mut [f32],
        bias: Option<&mut [f32]>,
    ) -> Result<()> {
        staging.fetch_gradient(&self.weights, weights)?;
        match (&self.bias, bias) {
            (Some(from), Some(to)) => staging.fetch_gradient(from, to),
            _ => Ok(()),
        }
    }
}

impl GroupedGemm for Gpu {
    fn m_grouped<A: Element, B: Element, D: Element>(
        &self,
        a: RowView<'_, A>,
        b: Stacked<'_, B>,
        bias: Option<&[B]>,
        offsets: &[i32],
        d: RowViewMut<'_, D>,
    ) -> Result<()> {
        check::m_grouped(&a, &b, bias, offsets, &d)?;
        if d.rows() == 0 || d.cols() == 0 {
            return Ok(());
        }
        let mut staging = Staging::new(self)?;
        let (input, matrices) = (staging.input(&a)?, staging.slice(b.data)?);
        let bias = bias.map(|bias| staging.slice(bias)).transpose()?;
        let offsets = staging.offsets(offsets)?;
        let mut output = staging.output(&d)?;
        staging.launcher()?.m_grouped(
            input.view()?,
            stacked(&matrices, &b),
            bias.as_ref().map(Buffer::slice),
            offsets.slice(),
            output.view_mut()?,
        )?;
        staging.fetch(&output, d)?;
        staging.check_status()
    }

    fn m_grouped_transposed<A: Element, B: Element, D: Element>(
        &self,
        a: RowView<'_, A>,
        b: Stacked<'_, B>,
        offsets: &[i32],
        d: RowViewMut<'_, D>,
    ) -> Result<()> {
        check::m_grouped_transposed(&a, &b, offsets, &d)?;
        if d.rows() == 0 || d.cols() == 0 {
            return Ok(());
        }
        let mut staging = Staging::new(self)?;
        let (input, matrices) = (staging.input(&a)?, staging.slice(b.data)?);
        let offsets = staging.offsets(offsets)?;
        let mut output = staging.output(&d)?;
        staging.launcher()?.m_grouped_transposed(
            input.view()?,
            stacked(&matrices, &b),
            offsets.slice(),
            output.view_mut()?,
        )?;
        staging.fetch(&output, d)?;
        staging.check_status()
    }

    fn k_grouped<A: Element, X: Element>(
        &self,
        a: RowView<'_, A>,
        x: RowView<'_, X>,
        offsets: &[i32],
        accumulate: bool,
        w: &mut [f32],
    ) -> Result<()> {
        check::k_grouped(&a, &x, offsets, w)?;
        if w.is_empty() {
            return Ok(());
        }
        let mut staging = Staging::new(self)?;
        let (a, x) = (staging.input(&a)?, staging.input(&x)?);
        let offsets = staging.offsets(offsets)?;
        let mut sums = staging.gradient(w, accumulate)?;
        staging.launcher()?.k_grouped(
            a.view()?,
            x.view()?,
            offsets.slice(),
            accumulate,
            sums.slice_mut(),
        )?;
        staging.fetch_gradient(&sums, w)?;
        staging.check_status()
    }
}

fn stacked<'a, T: Element>(matrices: &'a Buffer<T>, of: &Stacked<'_, T>) -> DeviceStacked<'a, T> {
    DeviceStacked {
        data: matrices.slice(),
        experts: of.experts,
        n: of.n,
        k: of.k,
    }
}

impl Experts for Gpu {
    fn up<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        x: RowView<'_, T>,
        offsets: &[i32],
        pre: RowViewMut<'_, T>,
        act: RowViewMut<'_, T>,
    ) -> Result<()> {
        check::up(shape, weights, &x, offsets, &pre, &act)?;
        let mut staging = Staging::new(self)?;
        let weights = StagedWeights::up(&staging, weights)?;
        let (x, offsets) = (staging.input(&x)?, staging.offsets(offsets)?);
        let (mut pre_out, mut act_out) = (staging.output(&pre)?, staging.output(&act)?);
        staging.launcher()?.up(
            shape,
            &weights.view(),
            x.view()?,
            offsets.slice(),
            pre_out.view_mut()?,
            act_out.view_mut()?,
        )?;
        staging.fetch(&pre_out, pre)?;
        staging.fetch(&act_out, act)?;
        staging.check_status()
    }

    fn down<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        act: RowView<'_, T>,
        offsets: &[i32],
        y: RowViewMut<'_, T>,
    ) -> Result<()> {
        check::down(shape, weights, &act, offsets, &y)?;
        let mut staging = Staging::new(self)?;
        let weights = StagedWeights::down(&staging, weights)?;
        let (act, offsets) = (staging.input(&act)?, staging.offsets(offsets)?);
        let mut y_out = staging.output(&y)?;
        staging.launcher()?.down(
            shape,
            &weights.view(),
            act.view()?,
            offsets.slice(),
            y_out.view_mut()?,
        )?;
        staging.fetch(&y_out, y)?;
        staging.check_status()
    }

    fn down_backward<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        pre: RowView<'_, T>,
        act: RowView<'_, T>,
        dy: RowView<'_, T>,
        offsets: &[i32],
        dpre: RowViewMut<'_, T>,
        grads: &mut ExpertGrads<'_>,
    ) -> Result<()> {
        check::down_backward(shape, weights, &pre, &act, &dy, offsets, &dpre, grads)?;
        let mut staging = Staging::new(self)?;
        let weights = StagedWeights::down(&staging, weights)?;
        let (pre, act, dy) = (
            staging.input(&pre)?,
            staging.input(&act)?,
            staging.input(&dy)?,
        );
        let offsets = staging.offsets(offsets)?;
        let mut dpre_out = staging.output(&dpre)?;
        let accumulate = grads.accumulate;
        let bias = grads.down_bias.as_deref();
        let mut gradient = StagedGradient::new(&staging, grads.down, bias, accumulate)?;
        let mut unused = staging.gradient(&[], false)?;
        let (down, down_bias) = gradient.parts();
        let mut device_grads = DeviceExpertGrads {
            up: unused.slice_mut(),
            up_bias: None,
            down,
            down_bias,
            accumulate,
        };
        staging.launcher()?.down_backward(
            shape,
            &weights.view(),
            pre.view()?,
            act.view()?,
            dy.view()?,
            offsets.slice(),
            dpre_out.view_mut()?,
            &mut device_grads,
        )?;
        staging.fetch(&dpre_out, dpre)?;
        gradient.fetch(&staging, grads.down, grads.down_bias.as_deref_mut())?;
        staging.check_status()
    }

    fn up_backward<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        x: RowView<'_, T>,
        dpre: RowView<'_, T>,
        offsets: &[i32],
        dx: RowViewMut<'_, T>,
        grads: &mut ExpertGrads<'_>,
    ) -> Result<()> {
        check::up_backward(shape, weights, &x, &dpre, offsets, &dx, grads)?;
        let mut staging = Staging::new(self)?;
        let weights = StagedWeights::up(&staging, weights)?;
        let (x, dpre) = (staging.input(&x)?, staging.input(&dpre)?);
        let offsets = staging.offsets(offsets)?;
        let mut dx_out = staging.output(&dx)?;
        let accumulate = grads.accumulate;
        let bias = grads.up_bias.as_deref();
        let mut gradient = StagedGradient::new(&staging, grads.up, bias, accumulate)?;
        let mut unused = staging.gradient(&[], false)?;
        let (up, up_bias) = gradient.parts();
        let mut device_grads = DeviceExpertGrads {
            up,
            up_bias,
            down: unused.slice_mut(),
            down_bias: None,
            accumulate,
        };
        staging.launcher()?.up_backward(
            shape,
            &weights.view(),
            x.view()?,
            dpre.view()?,
            offsets.slice(),
            dx_out.view_mut()?,
            &mut device_grads,
        )?;
        staging.fetch(&dx_out, dx)?;
        gradient.fetch(&staging, grads.up, grads.up_bias.as_deref_mut())?;
        staging.check_status()
    }
}
