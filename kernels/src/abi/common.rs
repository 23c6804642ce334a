//! What every family of kernels shares.

use super::abi_struct;

/// An address in device memory; 0 where an optional tensor is absent.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// No tensor.
    pub const NULL: Self = Self(0);
}

abi_struct! {
    /// Where in training a step stands, in device memory: what every random draw is made from. A
    /// captured graph reads it anew at every replay.
    pub struct StepBlock {
        /// Key of the generator.
        pub seed: u64 = "uint64_t",
        /// Index of the MoE layer in the model.
        pub layer: u32 = "uint32_t",
        /// Training step.
        pub step: u32 = "uint32_t",
        /// Which of several passes over the batch, 0 to 15.
        pub pass: u32 = "uint32_t",
        /// Global index of the first token.
        pub first_token: u32 = "uint32_t",
    }

    /// Bad data that kernels met. Kernels change it by integer atomics whose order does not matter;
    /// the host writes [`StatusBlock::CLEAR`] before and reads it when it likes.
    pub struct StatusBlock {
        /// [`Faults`], or-ed together.
        pub faults: u32 = "uint32_t",
        /// Rows of logits with a NaN or +∞.
        pub faulty_rows: u32 = "uint32_t",
        /// The lowest of them; `u32::MAX` without one.
        pub first_faulty_row: u32 = "uint32_t",
        /// The lowest position of an index that was out of range; `u32::MAX` without one.
        pub first_bad_index: u32 = "uint32_t",
    }
}

impl StatusBlock {
    /// Nothing was met.
    pub const CLEAR: Self = Self {
        faults: 0,
        faulty_rows: 0,
        first_faulty_row: u32::MAX,
        first_bad_index: u32::MAX,
    };
}

/// Bits of [`StatusBlock::faults`]; `tollgate/status.cuh` has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults;

impl Faults {
    /// A row of logits holds a NaN or +∞.
    pub const FAULTY_ROW: u32 = 1;
    /// An expert index is outside `0..E`.
    pub const EXPERT_INDEX: u32 = 1 << 1;
    /// Token offsets that are no prefix sums, or end beyond the buffers.
    pub const TOKEN_OFFSETS: u32 = 1 << 2;
    /// A map entry is outside what it indexes.
    pub const MAP_INDEX: u32 = 1 << 3;
    /// Expert offsets that are no prefix sums, or end beyond the buffers.
    pub const EXPERT_OFFSETS: u32 = 1 << 4;
    /// A token id is outside the hash table, or negative.
    pub const TOKEN_ID: u32 = 1 << 5;
}
