//! The routing table in device memory.

use crate::DeviceSlice;

/// A routing table whose sizes only the device knows: the number of assignments A is
/// `token_offsets[T]`, at most `max_assignments`. Entries behind A mean nothing.
#[derive(Debug, Clone, Copy)]
pub struct DeviceRoutingTable<'a> {
    /// T.
    pub num_tokens: usize,
    /// E.
    pub num_experts: usize,
    /// The bound of A: T times the most experts a token can get.
    pub max_assignments: usize,
    /// `[T+1]` exclusive prefix sums of the experts per token.
    pub token_offsets: DeviceSlice<'a, i32>,
    /// `[max_assignments]`, A used.
    pub expert_indices: DeviceSlice<'a, i32>,
    /// `[max_assignments]`, A used.
    pub routing_weights: DeviceSlice<'a, f32>,
    /// `[E+1]` exclusive prefix sums of the assignments per expert.
    pub expert_offsets: DeviceSlice<'a, i32>,
}
