//! The operations on a GPU, over device memory.
//!
//! A [`Launcher`] puts kernels into a stream and returns: it allocates nothing, waits for nothing,
//! and may be captured into a graph. The group offsets stay on the device: the number of rows M is
//! `offsets[E]`, of which the host knows the bound `a.num_rows()` only. Rows at or behind
//! `offsets[E]` are neither read nor written.
//!
//! - Offsets that are no prefix sums, or end beyond the bound, raise [`Faults::EXPERT_OFFSETS`] in
//!   the status block, and the kernel writes nothing else.
//! - Sums have the order of the CPU's (blocks of at most 384 terms, each one chain of fused
//!   multiply–adds), so that results have the CPU's bits.
//! - Sizes are at most `i32::MAX`.
//!
//! [`Gpu`] itself implements [`GroupedGemm`](crate::GroupedGemm) and [`Experts`](crate::Experts)
//! over host memory, which is convenient and slow: everything goes over and comes back.
//!
//! [`Faults::EXPERT_OFFSETS`]: tollgate_device::Faults::EXPERT_OFFSETS

#![expect(unsafe_code, reason = "a launch hands addresses to the device")]

mod experts;
mod host;
mod product;

use tollgate_core::options::Activation;
use tollgate_core::{DType, Element, Error, Result};
use tollgate_device::{
    Abi, DevicePtr, DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Gpu, Kernel,
    StatusBlock, Stream,
};
use tollgate_kernels::abi::gemm::{ActivationCode, ElementCode, GemmTile};

use crate::check::StackedShape;

/// Bytes that a kernel loads or stores at once where alignment permits.
const VECTOR: u64 = 16;
/// The largest size: offsets and thus rows are i32.
const LIMIT: usize = i32::MAX as usize;

/// Stacked matrices `[E, N, K]` in device memory, contiguous, row-major.
#[derive(Debug, Clone, Copy)]
pub struct DeviceStacked<'a, T> {
    /// `E·N·K` elements.
    pub data: DeviceSlice<'a, T>,
    /// E.
    pub experts: usize,
    /// N, rows of each matrix.
    pub n: usize,
    /// K, columns of each matrix.
    pub k: usize,
}

impl<T: Element> DeviceStacked<'_, T> {
    fn shape(&self) -> StackedShape {
        StackedShape {
            len: self.data.len(),
            experts: self.experts,
            n: self.n,
            k: self.k,
        }
    }

    /// Whether every row of every matrix starts at a multiple of 16 bytes.
    fn vector(&self) -> u32 {
        u32::from(aligned::<T>(self.data.ptr(), self.k))
    }
}

/// [`crate::ExpertWeights`] in device memory.
#[derive(Debug, Clone, Copy)]
pub struct DeviceExpertWeights<'a, T> {
    /// `[E, N1, H]`.
    pub up: DeviceSlice<'a, T>,
    /// `[E, N1]`.
    pub up_bias: Option<DeviceSlice<'a, T>>,
    /// `[E, H, I]`.
    pub down: DeviceSlice<'a, T>,
    /// `[E, H]`.
    pub down_bias: Option<DeviceSlice<'a, T>>,
}

impl<'a, T: Element> DeviceExpertWeights<'a, T> {
    /// Experts without biases.
    pub fn new(up: DeviceSlice<'a, T>, down: DeviceSlice<'a, T>) -> Self {
        Self {
            up,
            up_bias: None,
            down,
            down_bias: None,
        }
    }
}

/// [`crate::ExpertGrads`] in device memory: f32, laid out as the weights; a bias gradient exactly
/// when there is a bias.
#[derive(Debug)]
pub struct DeviceExpertGrads<'a> {
    /// `[E, N1, H]`.
    pub up: DeviceSliceMut<'a, f32>,
    /// `[E, N1]`.
    pub up_bias: Option<DeviceSliceMut<'a, f32>>,
    /// `[E, H, I]`.
    pub down: DeviceSliceMut<'a, f32>,
    /// `[E, H]`.
    pub down_bias: Option<DeviceSliceMut<'a, f32>>,
    /// Add to what is there instead of overwriting it. An empty expert's gradient is written as
    /// zero when overwriting.
    pub accumulate: bool,
}

/// Where the operations put their kernels, and where those report bad offsets.
#[derive(Debug)]
pub struct Launcher<'a> {
    gpu: &'a Gpu,
    stream: &'a Stream,
    status: DeviceSliceMut<'a, StatusBlock>,
}

impl<'a> Launcher<'a> {
    /// Launches into `stream` of `gpu`; faults are or-ed into `status`, one block, which the caller
    /// clears and reads when it likes.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] for a status without a block.
    pub fn new(
        gpu: &'a Gpu,
        stream: &'a Stream,
        status: DeviceSliceMut<'a, StatusBlock>,
    ) -> Result<Self> {
        let status = status.part("the status, in blocks,", 0, 1)?;
        Ok(Self {
            gpu,
            stream,
            status,
        })
    }

    fn status(&self) -> DevicePtr {
        self.status.ptr()
    }

    /// Launches `blocks` blocks along x.
    ///
    /// # Safety
    /// As [`Gpu::launch`].
    unsafe fn launch<P: Abi>(
        &self,
        kernel: &'static Kernel,
        blocks: u64,
        params: &P,
    ) -> Result<()> {
        let blocks = u32::try_from(blocks).map_err(|_| Error::Overflow {
            what: "blocks of a grouped product",
            detail: format!("{} with {blocks} blocks", kernel.entry),
            limit: u64::from(u32::MAX),
        })?;
        // SAFETY: the caller's promise.
        unsafe {
            self.gpu
                .launch(self.stream, kernel, [blocks, 1, 1], 0, params)?
        };
        Ok(())
    }
}

/// `offsets` must have E+1 entries; what they hold is checked by the kernels.
fn check_offsets(offsets: DeviceSlice<'_, i32>, experts: usize) -> Result<()> {
    Error::check_shape("entries of offsets (E+1)", offsets.len(), experts + 1)
}

/// A size as kernels take it.
fn size(what: &'static str, value: usize) -> Result<u32> {
    Error::check_range(what, value, 0, LIMIT)?;
    Ok(value as u32)
}

/// Tiles of rows that groups of `rows` rows in all can need: every group may end within a tile. At
/// least one, whose block looks at the offsets.
fn row_tiles(rows: u32, experts: u32) -> u32 {
    let (rows, experts, tile) = (
        u64::from(rows),
        u64::from(experts),
        u64::from(GemmTile::ROWS),
    );
    let most = (rows + (tile - 1) * experts) / tile;
    // No tile is empty: at most `rows`, which is a u32.
    most.min(rows).max(1) as u32
}

/// Whether rows of `pitch` elements from an address all start at a multiple of 16 bytes.
fn aligned<T>(start: DevicePtr, pitch: usize) -> bool {
    let pitch_bytes = (pitch as u64).wrapping_mul(size_of::<T>() as u64);
    (start.0 | pitch_bytes).is_multiple_of(VECTOR)
}

/// [`aligned`] of a view's rows.
fn vector<T: Element>(rows: &DeviceRows<'_, T>) -> u32 {
    u32::from(rows.row_alignment() >= VECTOR)
}

fn vector_mut<T: Element>(rows: &DeviceRowsMut<'_, T>) -> u32 {
    u32::from(rows.row_alignment() >= VECTOR)
}

fn dims<T: Element>(rows: &DeviceRows<'_, T>) -> (usize, usize) {
    (rows.num_rows(), rows.num_cols())
}

fn dims_mut<T: Element>(rows: &DeviceRowsMut<'_, T>) -> (usize, usize) {
    (rows.num_rows(), rows.num_cols())
}

/// The address of an optional tensor.
fn optional<T: Element>(slice: Option<DeviceSlice<'_, T>>) -> DevicePtr {
    slice.map_or(DevicePtr::NULL, |slice| slice.ptr())
}

fn element_code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => ElementCode::F32,
        DType::F16 => ElementCode::F16,
        DType::Bf16 => ElementCode::BF16,
    }
}

fn activation_code(activation: Activation) -> u32 {
    match activation {
        Activation::Relu => ActivationCode::RELU,
        Activation::Gelu => ActivationCode::GELU,
        Activation::GeluTanh => ActivationCode::GELU_TANH,
        Activation::Silu => ActivationCode::SILU,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_has_its_tiles() {
        let tile = GemmTile::ROWS as usize;
        for rows in [0usize, 1, 2, 127, 128, 129, 500] {
            for experts in 1..5u32 {
                // One row in every group but the last: the most groups that end within a tile.
                let single = (experts as usize - 1).min(rows);
                let needed = single + (rows - single).div_ceil(tile);
                let tiles = row_tiles(rows as u32, experts) as usize;
                assert!(
                    tiles >= needed.max(1),
                    "{rows} rows, {experts} experts: {tiles}"
                );
                assert!(
                    tiles <= rows.max(1),
                    "{rows} rows, {experts} experts: {tiles}"
                );
            }
        }
        assert_eq!(row_tiles(LIMIT as u32, 0), (LIMIT / tile) as u32);
    }
}
