//! Multiplicative jitter of the router's input on a GPU.

use tollgate_core::{DType, Element, Error, RowView, RowViewMut, StepContext};
use tollgate_device::{
    DeviceRows, DeviceRowsMut, DeviceSlice, Error as DeviceError, Gpu, Result, StepBlock, Stream,
};
use tollgate_kernels::abi::selection::JitterParams;
use tollgate_kernels::registry::selection::{JITTER_BF16, JITTER_F16, JITTER_F32};

use super::packed::{pack, step_block, unpack};
use super::table::quad_blocks;

/// `out = x · U(1 ± amount)`, `[T, H]`, with the bits of the CPU: see [`crate::Gating::jitter`].
/// Capturable: a replay draws anew from the step block.
///
/// # Errors
/// Shapes that differ, arrays that are too small.
pub fn apply<T: Element>(
    gpu: &Gpu,
    stream: &Stream,
    amount: f32,
    step: DeviceSlice<'_, StepBlock>,
    x: DeviceRows<'_, T>,
    out: DeviceRowsMut<'_, f32>,
) -> Result<()> {
    DeviceError::check_shape("rows of out (T)", out.num_rows(), x.num_rows())?;
    DeviceError::check_shape("columns of out (H)", out.num_cols(), x.num_cols())?;
    let wide = x.row_alignment() >= 4 * size_of::<T>() as u64 && out.row_alignment() == 16;
    let params = JitterParams {
        step: step.ptr(),
        x: x.ptr(),
        out: out.ptr(),
        x_stride: x.stride() as u64,
        out_stride: out.stride() as u64,
        amount: amount.into(),
        num_tokens: x.num_rows() as u32,
        hidden: x.num_cols() as u32,
        wide: u32::from(wide && x.num_cols().is_multiple_of(4)),
        reserved: 0,
    };
    launch(gpu, stream, T::DTYPE, step, params)
}

/// [`apply`] of f32 in place: the backward pass of the jitter.
///
/// # Errors
/// As [`apply`].
pub fn scale(
    gpu: &Gpu,
    stream: &Stream,
    amount: f32,
    step: DeviceSlice<'_, StepBlock>,
    values: DeviceRowsMut<'_, f32>,
) -> Result<()> {
    let params = JitterParams {
        step: step.ptr(),
        x: values.ptr(),
        out: values.ptr(),
        x_stride: values.stride() as u64,
        out_stride: values.stride() as u64,
        amount: amount.into(),
        num_tokens: values.num_rows() as u32,
        hidden: values.num_cols() as u32,
        wide: u32::from(values.row_alignment() == 16 && values.num_cols().is_multiple_of(4)),
        reserved: 0,
    };
    launch(gpu, stream, DType::F32, step, params)
}

fn launch(
    gpu: &Gpu,
    stream: &Stream,
    dtype: DType,
    step: DeviceSlice<'_, StepBlock>,
    params: JitterParams,
) -> Result<()> {
    DeviceError::check_len("the step block", step.len(), 1)?;
    let kernel = match dtype {
        DType::F32 => &JITTER_F32,
        DType::F16 => &JITTER_F16,
        DType::Bf16 => &JITTER_BF16,
    };
    let (rows, columns) = (params.num_tokens as usize, params.hidden as usize);
    let blocks = quad_blocks(rows, columns, kernel.threads)?;
    // SAFETY: both matrices have these rows and columns.
    unsafe { gpu.launch(stream, kernel, [blocks, 1, 1], 0, &params) }
}

/// [`crate::Gating::jitter`] over host memory.
pub(super) fn host_apply<T: Element>(
    gpu: &Gpu,
    x: RowView<'_, T>,
    amount: f32,
    ctx: &StepContext,
    out: RowViewMut<'_, f32>,
) -> tollgate_core::Result<()> {
    crate::jitter::check(x.rows(), x.cols(), amount, ctx)?;
    Error::check_shape("rows of out (T)", out.rows(), x.rows())?;
    Error::check_shape("columns of out (H)", out.cols(), x.cols())?;
    let (stream, (t, h)) = (gpu.default_stream(), (x.rows(), x.cols()));
    let step = gpu.upload(stream, &[step_block(ctx)])?;
    let of_x = gpu.upload(stream, &pack(x))?;
    let mut of_out = gpu.alloc::<f32>(t * h)?;
    let from = of_x.slice().rows("x", t, h, h)?;
    let to = of_out.slice_mut().rows("out", t, h, h)?;
    apply(gpu, stream, amount, step.slice(), from, to)?;
    unpack(&of_out.read(stream)?, out);
    Ok(())
}

/// [`crate::Gating::jitter_backward`] over host memory.
pub(super) fn host_backward(
    gpu: &Gpu,
    amount: f32,
    ctx: &StepContext,
    dx: RowViewMut<'_, f32>,
) -> tollgate_core::Result<()> {
    crate::jitter::check(dx.rows(), dx.cols(), amount, ctx)?;
    let (stream, (t, h)) = (gpu.default_stream(), (dx.rows(), dx.cols()));
    let step = gpu.upload(stream, &[step_block(ctx)])?;
    let mut of_dx = gpu.upload(stream, &pack(dx.as_view()))?;
    let values = of_dx.slice_mut().rows("dx", t, h, h)?;
    scale(gpu, stream, amount, step.slice(), values)?;
    unpack(&of_dx.read(stream)?, dx);
    Ok(())
}
