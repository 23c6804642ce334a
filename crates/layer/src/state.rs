//! What a forward pass leaves for its backward pass, and scratch that both reuse.

use tollgate_core::{Element, StepContext};
use tollgate_gating::GateState;
use tollgate_permute::PermuteMaps;

use crate::Trace;

/// Saved activations, decisions and scratch of one layer. Reuse it from step to step: buffers grow
/// when they must and are never given back or cleared, so that a steady state allocates nothing.
///
/// `T` is the element type of the activations; the row tensors are expert-major.
#[derive(Debug, Clone)]
pub struct LayerState<T> {
    /// What the gate decided: the routing table, scores, losses.
    pub gate: GateState,
    /// The maps between assignments and expert-major rows.
    pub maps: PermuteMaps,
    /// Time and counts of the latest passes.
    pub trace: Trace,
    /// `Some` after a forward pass: its context and its number of tokens.
    pub(crate) forward: Option<(StepContext, usize)>,
    /// Whether rows are the tokens themselves (one expert, weight 1): nothing is permuted.
    pub(crate) dense: bool,
    /// `[T, E]`.
    pub(crate) logits: Vec<f32>,
    /// `[T, E]`, noisy router in training.
    pub(crate) noise_logits: Vec<f32>,
    /// `[T, H]` x with jitter, where there is jitter.
    pub(crate) router_input: Vec<f32>,
    /// `[A, H]`.
    pub(crate) x_rows: Vec<T>,
    /// `[A, N1]`.
    pub(crate) pre: Vec<T>,
    /// `[A, I]`.
    pub(crate) act: Vec<T>,
    /// `[A, H]`.
    pub(crate) y_rows: Vec<T>,
    /// Scratch of the backward pass.
    pub(crate) scratch: Scratch<T>,
}

/// Buffers that live within one backward pass.
#[derive(Debug, Clone)]
pub(crate) struct Scratch<T> {
    /// `[A, H]` gradient of the experts' outputs, then of their inputs.
    pub(crate) dy_rows: Vec<T>,
    /// `[A, H]`.
    pub(crate) dx_rows: Vec<T>,
    /// `[A, N1]`.
    pub(crate) dpre: Vec<T>,
    /// `[A]`.
    pub(crate) dweights: Vec<f32>,
    /// `[T, E]`.
    pub(crate) dlogits: Vec<f32>,
    /// `[T, E]`.
    pub(crate) dnoise: Vec<f32>,
    /// `[T, H]` the router's share of dx.
    pub(crate) dx_router: Vec<f32>,
    /// `[T, H]` the noise map's share of it.
    pub(crate) dx_noise: Vec<f32>,
}

impl<T> Default for LayerState<T> {
    fn default() -> Self {
        Self {
            gate: GateState::default(),
            maps: PermuteMaps::default(),
            trace: Trace::default(),
            forward: None,
            dense: false,
            logits: Vec::new(),
            noise_logits: Vec::new(),
            router_input: Vec::new(),
            x_rows: Vec::new(),
            pre: Vec::new(),
            act: Vec::new(),
            y_rows: Vec::new(),
            scratch: Scratch {
                dy_rows: Vec::new(),
                dx_rows: Vec::new(),
                dpre: Vec::new(),
                dweights: Vec::new(),
                dlogits: Vec::new(),
                dnoise: Vec::new(),
                dx_router: Vec::new(),
                dx_noise: Vec::new(),
            },
        }
    }
}

impl<T> LayerState<T> {
    /// `[T, E]` router logits of the latest forward pass; empty for routers without a gate.
    pub fn router_logits(&self) -> &[f32] {
        let tokens = self.forward.map_or(0, |(_, tokens)| tokens);
        let elems = tokens * self.gate.table.num_experts();
        self.logits.get(..elems).unwrap_or(&[])
    }

    /// `[T, E]` gradient of the router logits after a backward pass; empty before one and for
    /// routers without a gate.
    pub fn router_logit_gradient(&self) -> &[f32] {
        let tokens = self.forward.map_or(0, |(_, tokens)| tokens);
        let elems = tokens * self.gate.table.num_experts();
        self.scratch.dlogits.get(..elems).unwrap_or(&[])
    }
}

/// The first `elems` of a buffer that only ever grows. What they hold is left over from before.
pub(crate) fn sized<T: Element>(buffer: &mut Vec<T>, elems: usize) -> &mut [T] {
    if buffer.len() < elems {
        buffer.resize(elems, T::default());
    }
    &mut buffer[..elems]
}
