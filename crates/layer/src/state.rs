//! What a forward pass leaves for its backward pass, and scratch that both reuse.

use std::ops::Range;

use tollgate_core::options::GateOptions;
use tollgate_core::{Element, StepContext};
use tollgate_gating::GateState;
use tollgate_gemm::ExpertShape;
use tollgate_permute::PermuteMaps;

use crate::Trace;

/// Saved activations, decisions and scratch of one layer. Reuse it from step to step: its buffers,
/// which are all that grow with T·H, grow when they must and are never given back or cleared.
///
/// `T` is the element type of the activations; the row tensors are expert-major.
#[derive(Debug, Clone)]
pub struct LayerState<T> {
    pub(crate) gate: GateState,
    pub(crate) maps: PermuteMaps,
    /// Time and counts of the latest passes.
    pub trace: Trace,
    /// `Some` after a forward pass.
    pub(crate) pass: Option<Pass>,
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

/// The forward pass that a state holds: a backward pass must be of the same layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pass {
    pub(crate) ctx: StepContext,
    pub(crate) tokens: usize,
    pub(crate) shape: ExpertShape,
    pub(crate) options: GateOptions,
    pub(crate) local_experts: Range<usize>,
    /// Whether rows are the tokens themselves (one expert, weight 1): nothing is permuted.
    pub(crate) dense: bool,
    /// Whether a backward pass has written the gradient of the logits.
    pub(crate) has_logit_gradient: bool,
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
            pass: None,
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
    /// What the gate of the latest forward pass decided: routing table, scores, losses.
    pub fn gate(&self) -> &GateState {
        &self.gate
    }

    /// The same, taken out of the state; the rest is dropped.
    pub fn into_gate(self) -> GateState {
        self.gate
    }

    /// The maps between the assignments of the latest routing table and expert-major rows; those of
    /// an earlier pass where the latest one permuted nothing (one expert, weight 1).
    pub fn maps(&self) -> &PermuteMaps {
        &self.maps
    }

    /// `[T, E]` router logits of the latest forward pass; empty before one and for routers without
    /// a gate.
    pub fn router_logits(&self) -> &[f32] {
        match &self.pass {
            Some(pass) if pass.options.router.has_gate() => &self.logits[..pass.logit_elems()],
            _ => &[],
        }
    }

    /// `[T, E]` gradient of the router logits after a backward pass; empty before one and for
    /// routers without a gate.
    pub fn router_logit_gradient(&self) -> &[f32] {
        match &self.pass {
            Some(pass) if pass.has_logit_gradient => &self.scratch.dlogits[..pass.logit_elems()],
            _ => &[],
        }
    }
}

impl Pass {
    /// T·E.
    fn logit_elems(&self) -> usize {
        self.tokens * self.shape.experts
    }
}

/// The first `elems` of a buffer that only ever grows. What they hold is left over from before.
pub(crate) fn sized<T: Element>(buffer: &mut Vec<T>, elems: usize) -> &mut [T] {
    if buffer.len() < elems {
        buffer.resize(elems, T::default());
    }
    &mut buffer[..elems]
}
