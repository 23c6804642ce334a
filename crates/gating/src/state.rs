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
        Self {
            logits: Some(logits),
            ..Self::without_logits(num_tokens, num_experts)
        }
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
    /// Rows whose logits, noise logits (where noise is added) or noisy logits hold a NaN or +∞.
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
    /// `[T, E]` softmax probabilities or sigmoid scores (of the noisy logits, if noisy), without
    /// the selection bias; NaN in a faulty row, exactly 0 where they underflow. Empty for routers without a gate.
    pub scores: Vec<F>,
    /// `[T]` log-sum-exp of the logits the scores were made from; empty without a gate.
    pub lse: Vec<F>,
    /// `[T, E]` logits with noise added, `h = z + n · softplus(z_noise)` rounded to f32; −∞ where z
    /// is. Empty unless the router is noisy and training.
    pub noisy_logits: Vec<F>,
    /// `[T, E]` the standard normal draws n, rounded to f32; empty as `noisy_logits`.
    pub noise: Vec<F>,
    /// `[T]` best expert by rank (lower index on ties, 0 in a faulty row): by logit, or by score
    /// plus bias; for the grouped router among the groups that may be chosen from, so that it is
    /// an expert that the gate took. The gate's own choice also on a dropped step. Empty without a
    /// gate.
    pub first_choice: Vec<i32>,
    /// `[T]` second best, or −1 where there is none (one expert, a masked second, a faulty row);
    /// filled when the weights in force ([`GateOptions::weights`]) are `top2`, else empty.
    ///
    /// [`GateOptions::weights`]: tollgate_core::options::GateOptions::weights
    pub runner_up: Vec<i32>,
    /// `[T]` the expert whose score is the weight, where that is not the expert that runs: equal
    /// to `first_choice` on a Gate-Drop step with `local_weight = original`; else empty.
    pub weight_source: Vec<i32>,
    /// What the layer was to run, before capacity: the gate's decision, or on a Gate-Drop step the
    /// local expert of every token, or on a Gate-Expert-Drop step no assignment at all.
    pub selection: RoutingTable<F>,
    /// What the experts run: `selection` after capacity.
    pub table: RoutingTable<F>,
    /// `[A]` position in `selection` of each assignment of `table`, ascending; empty when nothing
    /// was dropped (then both tables are equal) and when everything was (then `table` is empty).
    pub kept: Vec<i32>,
    /// `[E]` f_e of the balance loss, from the gate's own decision before capacity (also on a
    /// dropped step, whatever `aux_loss` says); empty without a gate or with α = 0.
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
