//! Launches of the row-wise softmax and its backward pass.

use tollgate_core::Result;
use tollgate_device::{DeviceRows, DeviceRowsMut, DeviceSliceMut, Gpu, Kernel, Stream};
use tollgate_kernels::abi::gating::{SoftmaxBackwardParams, SoftmaxParams};
use tollgate_kernels::registry::gating::{
    SOFTMAX_BACKWARD_BLOCK, SOFTMAX_BACKWARD_WARP, SOFTMAX_BLOCK, SOFTMAX_WARP,
};

use crate::check;

/// The longest row of a warp.
const MOST_COLUMNS: usize = 1024;

/// A kernel and its blocks: a warp a row, or a block for long rows.
fn launch_of(
    warp: &'static Kernel,
    block: &'static Kernel,
    rows: usize,
    columns: usize,
) -> (&'static Kernel, [u32; 3]) {
    if columns <= MOST_COLUMNS {
        let rows_per_block = warp.threads as usize / 32;
        (warp, [rows.div_ceil(rows_per_block) as u32, 1, 1])
    } else {
        (block, [rows as u32, 1, 1])
    }
}

/// See [`crate::Gating::softmax`]. Asynchronous and capturable.
///
/// # Errors
/// Shapes that differ; more than 2^31 − 1 rows or columns; what the driver says.
pub fn softmax(
    gpu: &Gpu,
    stream: &Stream,
    logits: &DeviceRows<'_, f32>,
    probs: &mut DeviceRowsMut<'_, f32>,
    lse: &mut DeviceSliceMut<'_, f32>,
) -> Result<()> {
    let (rows, columns) = (logits.num_rows(), logits.num_cols());
    let of_probs = (probs.num_rows(), probs.num_cols());
    check::softmax((rows, columns), of_probs, lse.len())?;
    check::rows("columns of logits (E)", columns)?;
    let vector = super::check::vector_rows(logits) & super::check::vector_rows_mut(probs);
    let params = SoftmaxParams {
        logits: logits.ptr(),
        logits_stride: logits.stride() as u64,
        probs: probs.ptr(),
        probs_stride: probs.stride() as u64,
        lse: lse.ptr(),
        num_tokens: rows as u32,
        num_experts: columns as u32,
        vector_rows: vector,
        reserved: 0,
    };
    let (kernel, grid) = launch_of(&SOFTMAX_WARP, &SOFTMAX_BLOCK, rows, columns);
    // SAFETY: the views hold the shapes that the parameters say.
    unsafe { Ok(gpu.launch(stream, kernel, grid, 0, &params)?) }
}

/// See [`crate::Gating::softmax_backward`]. Asynchronous and capturable.
///
/// # Errors
/// Shapes that differ; more than 2^31 − 1 rows or columns; what the driver says.
pub fn softmax_backward(
    gpu: &Gpu,
    stream: &Stream,
    probs: &DeviceRows<'_, f32>,
    dprobs: &DeviceRows<'_, f32>,
    dlogits: &mut DeviceRowsMut<'_, f32>,
) -> Result<()> {
    let (rows, columns) = (probs.num_rows(), probs.num_cols());
    let of_dprobs = (dprobs.num_rows(), dprobs.num_cols());
    let of_dlogits = (dlogits.num_rows(), dlogits.num_cols());
    check::softmax_backward((rows, columns), of_dprobs, of_dlogits)?;
    check::rows("columns of probs (E)", columns)?;
    let vector = super::check::vector_rows(probs)
        & super::check::vector_rows(dprobs)
        & super::check::vector_rows_mut(dlogits);
    let params = SoftmaxBackwardParams {
        probs: probs.ptr(),
        probs_stride: probs.stride() as u64,
        dprobs: dprobs.ptr(),
        dprobs_stride: dprobs.stride() as u64,
        dlogits: dlogits.ptr(),
        dlogits_stride: dlogits.stride() as u64,
        num_tokens: rows as u32,
        num_experts: columns as u32,
        vector_rows: vector,
        reserved: 0,
    };
    let (warp, block) = (&SOFTMAX_BACKWARD_WARP, &SOFTMAX_BACKWARD_BLOCK);
    let (kernel, grid) = launch_of(warp, block, rows, columns);
    // SAFETY: as above.
    unsafe { Ok(gpu.launch(stream, kernel, grid, 0, &params)?) }
}
