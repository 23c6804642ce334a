//! The best so many of every expert: what expert choice and capacity share.
//!
//! Claims have merits, numbers of one to four digits of 8 bits. For every digit, from the top, the
//! caller counts the claims whose digits above are the threshold's into a histogram, and
//! [`resolve`] finds the value at which each expert's quota ends. Ties are counted in chunks of
//! claims, and [`scan`] turns the counts into ranks.

use tollgate_device::{DevicePtr, Gpu, Region, Result, Stream, Workspace, WorkspaceLayout};
use tollgate_kernels::abi::selection::QuotaParams;
use tollgate_kernels::registry::selection::{QUOTA_RESOLVE, QUOTA_SCAN};

use super::table::product;

/// Values of a digit.
const DIGITS: usize = 256;

/// The arrays of a selection by quota.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuotaPlan {
    num_experts: usize,
    /// Claims that every expert serves.
    quota: u32,
    /// Digits of a merit.
    pub digits: u32,
    histogram: Region<u32>,
    threshold: Region<u32>,
    remaining: Region<u32>,
}

/// Their addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuotaMemory {
    pub histogram: DevicePtr,
    pub threshold: DevicePtr,
    pub remaining: DevicePtr,
}

impl QuotaPlan {
    /// Adds the arrays to a layout.
    ///
    /// # Errors
    /// [`tollgate_device::Error::Overflow`].
    pub(super) fn new(
        layout: &mut WorkspaceLayout,
        num_experts: usize,
        quota: usize,
        digits: u32,
    ) -> Result<Self> {
        // Kernels count the places of the histogram in u32.
        let what = "places of a histogram (256 · E)";
        let places = product(what, DIGITS, num_experts, i32::MAX as usize)?;
        Ok(Self {
            num_experts,
            quota: quota.min(i32::MAX as usize) as u32,
            digits,
            histogram: layout.array("histogram of digits", places)?,
            threshold: layout.array("thresholds", num_experts)?,
            remaining: layout.array("remaining ties", num_experts)?,
        })
    }

    /// Claims that every expert serves.
    pub(super) fn quota(&self) -> u32 {
        self.quota
    }

    /// The addresses; clears the histogram.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn start(&self, stream: &Stream, workspace: &Workspace<'_>) -> Result<QuotaMemory> {
        let histogram = workspace.array(self.histogram)?;
        let memory = QuotaMemory {
            histogram: histogram.ptr(),
            threshold: workspace.array(self.threshold)?.ptr(),
            remaining: workspace.array(self.remaining)?.ptr(),
        };
        stream.fill(histogram, 0)?;
        Ok(memory)
    }

    /// Takes the counts of a digit, `digits_left` above the last, and clears them.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn resolve(
        &self,
        gpu: &Gpu,
        stream: &Stream,
        memory: &QuotaMemory,
        digits_left: u32,
    ) -> Result<()> {
        let params = QuotaParams {
            first: u32::from(digits_left + 1 == self.digits),
            digits_left,
            ..self.params(memory)
        };
        let tiles = self.num_experts.div_ceil(32) as u32;
        // SAFETY: the layout made the arrays for this many experts.
        unsafe { gpu.launch(stream, &QUOTA_RESOLVE, [tiles, 1, 1], 0, &params) }
    }

    /// Turns the counts of ties `[chunks, E]` into those before every chunk.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn scan(
        &self,
        gpu: &Gpu,
        stream: &Stream,
        memory: &QuotaMemory,
        tie_counts: DevicePtr,
        chunks: usize,
    ) -> Result<()> {
        let params = QuotaParams {
            tie_counts,
            num_chunks: chunks as u32,
            ..self.params(memory)
        };
        let tiles = self.num_experts.div_ceil(32) as u32;
        // SAFETY: as above; the caller's counts are `[chunks, E]`.
        unsafe { gpu.launch(stream, &QUOTA_SCAN, [tiles, 1, 1], 0, &params) }
    }

    fn params(&self, memory: &QuotaMemory) -> QuotaParams {
        QuotaParams {
            histogram: memory.histogram,
            threshold: memory.threshold,
            remaining: memory.remaining,
            tie_counts: DevicePtr::NULL,
            num_experts: self.num_experts as u32,
            num_chunks: 0,
            quota: self.quota,
            first: 0,
            digits_left: 0,
            reserved: 0,
        }
    }
}
