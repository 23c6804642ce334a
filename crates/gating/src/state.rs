//! What goes into the gate and what comes out; `F` is f32, and f64 in the reference.

use std::ops::Range;

use tollgate_core::{DropMode, RoutingTable, RowView};

/// Inputs of one gate call. All memory is borrowed.
#[derive(Debug, Clone)]
pub struct GateInputs<'a, F = f32> {
    /// T.
    pub num_tokens: usize,
    /// E.
    pub num_experts: usize,
    /// `[T, E]`; required by every router with a gate.
    pub logits: Option<RowView<'a, F>>,
    /// `[T, E]`: x · W_noiseᵀ; required by the noisy router in training.
    pub noise_logits: Option<RowView<'a, F>>,
    /// `[E]`, added to the scores for the selection only (sigmoid and grouped routers).
    pub selection_bias: Option<&'a [F]>,
    /// `[T]`; required by the hash router.
    pub token_ids: Option<&'a [i32]>,
    /// `[V]`, expert of each token id; without it the hash router draws the table from the seed.
    pub hash_table: Option<&'a [i32]>,
    /// `[S+1]`, exclusive prefix sums of the sequence lengths; required by `thor:sentence`.
    pub sequence_offsets: Option<&'a [i32]>,
    /// The experts that this rank holds: where Gating Dropout keeps its tokens. Usually `0..E` on
    /// one rank.
    pub local_experts: Range<usize>,
}

impl<'a, F> GateInputs<'a, F> {
    /// Inputs with logits only, all experts local.
    pub fn new(logits: RowView<'a, F>) -> Self {
        let (num_tokens, num_experts) = (logits.rows(), logits.cols());
        Self { logits: Some(logits), ..Self::without_logits(num_tokens, num_experts) }
    }

    /// Inputs for routers without a gate.
    pub fn without_logits(num_tokens: usize, num_experts: usize) -> Self {
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
        }
    }
}

/// Bad data that the gate met. It never stops the step: the row's weight is NaN, so that the fault
/// is seen downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateStatus {
    /// Rows of logits that hold a NaN or +∞.
    pub faulty_rows: usize,
    /// The first of them.
    pub first_faulty_row: Option<usize>,
}

/// The auxiliary losses of one gate call, coefficients included.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Losses {
    /// α E Σ f_e P_e; 0 for routers without a gate.
    pub balance: f64,
    /// c · mean(lse²).
    pub z: f64,
}

/// Everything the gate decided, and what its backward pass needs. Buffers are reused.
#[derive(Debug, Clone, PartialEq)]
pub struct GateState<F = f32> {
    /// `[T, E]` softmax probabilities or sigmoid scores (of the noisy logits, if noisy); empty for
    /// routers without a gate.
    pub scores: Vec<F>,
    /// `[T]` log-sum-exp of the logits the scores were made from; empty without a gate.
    pub lse: Vec<F>,
    /// `[T, E]` logits with noise added, rounded to f32, and the standard normal draws; both empty
    /// unless the router is noisy and training.
    pub noisy_logits: Vec<F>,
    /// See `noisy_logits`.
    pub noise: Vec<F>,
    /// `[T]` best expert by score (lower index on ties, 0 in a faulty row); empty without a gate.
    pub first_choice: Vec<i32>,
    /// `[T]` second best, or −1 where there is none; filled when the weights are `top2`.
    pub runner_up: Vec<i32>,
    /// `[T]` the expert whose score is the weight, where that is not the expert that runs (dropped
    /// step with `local_weight = original`); else empty.
    pub weight_source: Vec<i32>,
    /// What was chosen, before capacity.
    pub selection: RoutingTable<F>,
    /// What the experts run: `selection` after capacity.
    pub table: RoutingTable<F>,
    /// `[A]` position in `selection` of each assignment of `table`; empty when nothing was dropped
    /// (then both tables are equal).
    pub kept: Vec<i32>,
    /// `[E]` f_e of the balance loss; empty when there is no balance loss.
    pub load: Vec<f64>,
    /// `Some` when Gating Dropout dropped this step.
    pub dropped: Option<DropMode>,
    /// The auxiliary losses (0 on a dropped step with `aux_loss = zero`).
    pub losses: Losses,
    /// Bad data.
    pub status: GateStatus,
}

impl<F> Default for GateState<F> {
    fn default() -> Self {
        Self {
            scores: Vec::new(),
            lse: Vec::new(),
            noisy_logits: Vec::new(),
            noise: Vec::new(),
            first_choice: Vec::new(),
            runner_up: Vec::new(),
            weight_source: Vec::new(),
            selection: RoutingTable::default(),
            table: RoutingTable::default(),
            kept: Vec::new(),
            load: Vec::new(),
            dropped: None,
            losses: Losses::default(),
            status: GateStatus::default(),
        }
    }
}
