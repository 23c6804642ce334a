//! Noisy logits (Shazeer et al., 2017): `h = z + n · softplus(z_noise)`, and the way back.

use tollgate_device::{
    DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Error, Gpu, Result, StepBlock, Stream,
};
use tollgate_kernels::abi::selection::{NoiseBackwardParams, NoiseParams};
use tollgate_kernels::registry::selection::{ADD_NOISE, NOISE_BACKWARD};

use super::table::quad_blocks;

/// What noise is made of, and where it goes. All of it is in device memory.
#[derive(Debug)]
pub struct Noise<'a> {
    /// Where training stands: what the draws are made from.
    pub step: DeviceSlice<'a, StepBlock>,
    /// z `[T, E]`.
    pub logits: DeviceRows<'a, f32>,
    /// z_noise `[T, E]`.
    pub noise_logits: DeviceRows<'a, f32>,
    /// `[T, E]` the draws n, rounded to f32.
    pub noise: DeviceSliceMut<'a, f32>,
    /// `[T, E]` h; −∞ where z is.
    pub noisy_logits: DeviceSliceMut<'a, f32>,
    /// `[T]` 1 where a row of z_noise holds a NaN or +∞, else 0. Faults of z are seen in h.
    pub row_faults: DeviceSliceMut<'a, u32>,
}

/// Fills draws and noisy logits. The arithmetic is f64 and rounded once; draws have the CPU's bits
/// but where the last bit of a logarithm or cosine in f64 decides a rounding to f32: never in a
/// million.
///
/// # Errors
/// Shapes that differ, arrays that are too small.
pub fn add(gpu: &Gpu, stream: &Stream, noise: Noise<'_>) -> Result<()> {
    let (tokens, experts) = (noise.logits.num_rows(), noise.logits.num_cols());
    Error::check_shape(
        "rows of noise_logits (T)",
        noise.noise_logits.num_rows(),
        tokens,
    )?;
    Error::check_shape(
        "columns of noise_logits (E)",
        noise.noise_logits.num_cols(),
        experts,
    )?;
    Error::check_len("noise, in elements,", noise.noise.len(), tokens * experts)?;
    Error::check_len(
        "noisy_logits, in elements,",
        noise.noisy_logits.len(),
        tokens * experts,
    )?;
    Error::check_len("row_faults, in elements,", noise.row_faults.len(), tokens)?;
    Error::check_len("the step block", noise.step.len(), 1)?;
    let blocks = quad_blocks(tokens, experts, ADD_NOISE.threads)?;
    let aligned = noise.logits.row_alignment() == 16
        && noise.noise_logits.row_alignment() == 16
        && (noise.noise.ptr().0 | noise.noisy_logits.ptr().0).is_multiple_of(16);
    let params = NoiseParams {
        step: noise.step.ptr(),
        logits: noise.logits.ptr(),
        noise_logits: noise.noise_logits.ptr(),
        noise: noise.noise.ptr(),
        noisy_logits: noise.noisy_logits.ptr(),
        row_faults: noise.row_faults.ptr(),
        logits_stride: noise.logits.stride() as u64,
        noise_logits_stride: noise.noise_logits.stride() as u64,
        num_tokens: tokens as u32,
        num_experts: experts as u32,
        wide: u32::from(aligned && experts.is_multiple_of(4)),
        reserved: 0,
    };
    stream.fill(noise.row_faults, 0)?;
    // SAFETY: all shapes were checked.
    unsafe { gpu.launch(stream, &ADD_NOISE, [blocks, 1, 1], 0, &params) }
}

/// `dz_noise = dh · n · σ(z_noise)`; `noise` are the draws `[T, E]` of the forward pass.
///
/// # Errors
/// Shapes that differ, arrays that are too small.
pub fn backward(
    gpu: &Gpu,
    stream: &Stream,
    dnoisy_logits: DeviceRows<'_, f32>,
    noise: DeviceSlice<'_, f32>,
    noise_logits: DeviceRows<'_, f32>,
    dnoise_logits: DeviceRowsMut<'_, f32>,
) -> Result<()> {
    let (tokens, experts) = (dnoisy_logits.num_rows(), dnoisy_logits.num_cols());
    Error::check_shape("rows of noise_logits (T)", noise_logits.num_rows(), tokens)?;
    Error::check_shape(
        "columns of noise_logits (E)",
        noise_logits.num_cols(),
        experts,
    )?;
    Error::check_shape(
        "rows of dnoise_logits (T)",
        dnoise_logits.num_rows(),
        tokens,
    )?;
    Error::check_shape(
        "columns of dnoise_logits (E)",
        dnoise_logits.num_cols(),
        experts,
    )?;
    Error::check_len("noise, in elements,", noise.len(), tokens * experts)?;
    let blocks = quad_blocks(tokens, experts, NOISE_BACKWARD.threads)?;
    let aligned = dnoisy_logits.row_alignment() == 16
        && noise_logits.row_alignment() == 16
        && dnoise_logits.row_alignment() == 16
        && noise.ptr().0.is_multiple_of(16);
    let params = NoiseBackwardParams {
        dnoisy_logits: dnoisy_logits.ptr(),
        noise: noise.ptr(),
        noise_logits: noise_logits.ptr(),
        dnoise_logits: dnoise_logits.ptr(),
        dnoisy_logits_stride: dnoisy_logits.stride() as u64,
        noise_logits_stride: noise_logits.stride() as u64,
        dnoise_logits_stride: dnoise_logits.stride() as u64,
        num_tokens: tokens as u32,
        num_experts: experts as u32,
        wide: u32::from(aligned && experts.is_multiple_of(4)),
        reserved: 0,
    };
    // SAFETY: all shapes were checked.
    unsafe { gpu.launch(stream, &NOISE_BACKWARD, [blocks, 1, 1], 0, &params) }
}
