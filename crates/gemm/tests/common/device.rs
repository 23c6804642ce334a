//! One type for all devices that the tests run on.

use tollgate_core::{Cpu, Element, Result, RowView, RowViewMut};
use tollgate_device::Gpu;
use tollgate_gemm::{ExpertGrads, ExpertShape, ExpertWeights, Experts, GroupedGemm, Stacked};

/// An implementation of the operations.
pub enum Device {
    Cpu(Cpu),
    Gpu(Gpu),
}

impl Device {
    pub fn cpu(threads: usize) -> Self {
        Self::Cpu(Cpu::new(threads).unwrap())
    }

    /// Whether it is the CPU. A GPU may be simulated, thousands of times slower: the largest cases
    /// are smaller there.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu(_))
    }
}

/// Calls the operation of whichever device it is.
macro_rules! delegate {
    ($self:ident, $device:ident => $call:expr) => {
        match $self {
            Device::Cpu($device) => $call,
            Device::Gpu($device) => $call,
        }
    };
}

impl GroupedGemm for Device {
    fn m_grouped<A: Element, B: Element, D: Element>(
        &self,
        a: RowView<'_, A>,
        b: Stacked<'_, B>,
        bias: Option<&[B]>,
        offsets: &[i32],
        d: RowViewMut<'_, D>,
    ) -> Result<()> {
        delegate!(self, device => device.m_grouped(a, b, bias, offsets, d))
    }

    fn m_grouped_transposed<A: Element, B: Element, D: Element>(
        &self,
        a: RowView<'_, A>,
        b: Stacked<'_, B>,
        offsets: &[i32],
        d: RowViewMut<'_, D>,
    ) -> Result<()> {
        delegate!(self, device => device.m_grouped_transposed(a, b, offsets, d))
    }

    fn k_grouped<A: Element, X: Element>(
        &self,
        a: RowView<'_, A>,
        x: RowView<'_, X>,
        offsets: &[i32],
        accumulate: bool,
        w: &mut [f32],
    ) -> Result<()> {
        delegate!(self, device => device.k_grouped(a, x, offsets, accumulate, w))
    }
}

impl Experts for Device {
    fn up<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        x: RowView<'_, T>,
        offsets: &[i32],
        pre: RowViewMut<'_, T>,
        act: RowViewMut<'_, T>,
    ) -> Result<()> {
        delegate!(self, device => device.up(shape, weights, x, offsets, pre, act))
    }

    fn down<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        act: RowView<'_, T>,
        offsets: &[i32],
        y: RowViewMut<'_, T>,
    ) -> Result<()> {
        delegate!(self, device => device.down(shape, weights, act, offsets, y))
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
        delegate!(self, device =>
            device.down_backward(shape, weights, pre, act, dy, offsets, dpre, grads))
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
        delegate!(self, device =>
            device.up_backward(shape, weights, x, dpre, offsets, dx, grads))
    }
}
