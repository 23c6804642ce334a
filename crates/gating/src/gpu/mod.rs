//! The gate on a GPU: launches of the kernels, over buffers in device memory.
//!
//! Functions that take device views put their work into a stream and return: they allocate nothing,
//! wait for nothing, and may be captured into a graph.
//!
//! - `plan`, `state`: which kernels run, and how state and workspace are laid out.
//! - `forward`, `backward`, `softmax`: the launches.
//! - `table`, `losses`: from blocks of tokens to the routing table and the losses.
//! - `noise`, `expert_choice`, `ungated`: the routers that need more, or less.
//! - `host`: [`crate::Gating`] over host memory, for convenience.

#![expect(unsafe_code, reason = "a launch hands addresses to the device")]

use std::ops::Range;

use tollgate_device::{DeviceRows, DeviceSlice, StepBlock};

mod backward;
pub mod capacity;
mod check;
pub mod consistency;
pub mod expert_choice;
mod forward;
mod host;
pub mod jitter;
pub mod losses;
pub mod noise;
mod packed;
mod plan;
mod quota;
mod softmax;
mod state;
pub mod table;
pub mod ungated;

pub use backward::gate_backward;
pub use forward::gate;
pub use plan::GatePlan;
pub use softmax::{softmax, softmax_backward};
pub use state::DeviceGateState;

/// Inputs of one gate call in device memory; see [`crate::GateInputs`].
#[derive(Debug, Clone)]
pub struct DeviceGateInputs<'a> {
    /// T.
    pub num_tokens: usize,
    /// E.
    pub num_experts: usize,
    /// `[T, E]`; required by every router with a gate.
    pub logits: Option<DeviceRows<'a, f32>>,
    /// `[T, E]`; required by the noisy router in training.
    pub noise_logits: Option<DeviceRows<'a, f32>>,
    /// `[E]`, finite, added to the scores for the selection only (sigmoid and grouped routers).
    pub selection_bias: Option<DeviceSlice<'a, f32>>,
    /// `[T]`; required by the hash router.
    pub token_ids: Option<DeviceSlice<'a, i32>>,
    /// `[V]`, expert of each token id; without it the hash router draws.
    pub hash_table: Option<DeviceSlice<'a, i32>>,
    /// `[S+1]`; required by `thor:sentence`.
    pub sequence_offsets: Option<DeviceSlice<'a, i32>>,
    /// The experts that this rank holds.
    pub local_experts: Range<usize>,
    /// `[1]` where in training the step stands; its `pass` is at most 15.
    pub step: DeviceSlice<'a, StepBlock>,
}

impl<'a> DeviceGateInputs<'a> {
    /// Inputs with logits only, all experts local.
    pub fn new(logits: DeviceRows<'a, f32>, step: DeviceSlice<'a, StepBlock>) -> Self {
        let (num_tokens, num_experts) = (logits.num_rows(), logits.num_cols());
        Self {
            logits: Some(logits),
            ..Self::without_logits(num_tokens, num_experts, step)
        }
    }

    /// Inputs for routers without a gate.
    pub fn without_logits(
        num_tokens: usize,
        num_experts: usize,
        step: DeviceSlice<'a, StepBlock>,
    ) -> Self {
        Self {
            num_tokens,
            num_experts,
            logits: None,
            noise_logits: None,
            selection_bias: None,
            token_ids: None,
            hash_table: None,
            sequence_offsets: None,
            local_experts: 0..num_experts,
            step,
        }
    }
}
