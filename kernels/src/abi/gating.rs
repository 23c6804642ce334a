//! Parameter structs of the gate and its softmax.
//!
//! Every choice of the options is a number that the kernels name in `tollgate/gating/options.cuh`;
//! the constants here are the same.

use super::{Abi, DevicePtr, Struct, abi_struct};

/// All of them, in the order of the header.
pub const STRUCTS: &[Struct] = &[
    GateParams::STRUCT,
    GateBackwardParams::STRUCT,
    GatePositionsParams::STRUCT,
    SoftmaxParams::STRUCT,
    SoftmaxBackwardParams::STRUCT,
];

abi_struct! {
    /// Parameters of the `tg_gate_*` kernels: from logits to slots, block by block of tokens.
    pub struct GateParams {
        /// `[T, E]`, rows `logits_stride` elements apart: logits, with noise where there is noise.
        pub logits: DevicePtr = "const float*",
        /// Elements from row to row.
        pub logits_stride: u64 = "uint64_t",
        /// `[T]`, not 0 where a row is faulty whatever its logits; null: no row is.
        pub row_faults: DevicePtr = "const uint32_t*",
        /// `[E]` selection bias; null without one.
        pub bias: DevicePtr = "const float*",
        /// Where training stands; read for draws.
        pub step: DevicePtr = "const StepBlock*",
        /// `[T, E]` scores; null: not kept.
        pub scores: DevicePtr = "float*",
        /// `[T]`.
        pub lse: DevicePtr = "float*",
        /// `[T]`.
        pub first_choice: DevicePtr = "int32_t*",
        /// `[T]`; null: not kept.
        pub runner_up: DevicePtr = "int32_t*",
        /// `[T, slots]` experts, −1 in unused slots; null where the columns choose.
        pub slot_experts: DevicePtr = "int32_t*",
        /// `[T, slots]`.
        pub slot_weights: DevicePtr = "float*",
        /// `[T]` local experts of a dropped step, where the columns choose; null elsewhere.
        pub local_experts: DevicePtr = "int32_t*",
        /// `[T]` their weights.
        pub local_weights: DevicePtr = "float*",
        /// `[B]` used slots of every block; null where the columns choose.
        pub block_counts: DevicePtr = "int32_t*",
        /// `[B, E]` used slots of every block and expert; null where the columns choose.
        pub block_histogram: DevicePtr = "int32_t*",
        /// `[B, E]` what counts as load; null: nothing does, or what `block_histogram` counts.
        pub load_histogram: DevicePtr = "int32_t*",
        /// `[B, E]` sums of the scores' shares; null without a balance loss.
        pub block_shares: DevicePtr = "float*",
        /// `[B]` sums of lse²; null without a z-loss.
        pub block_squares: DevicePtr = "double*",
        /// `[1]` what the coin of Gating Dropout decided; null where no step is dropped.
        pub dropped: DevicePtr = "uint32_t*",
        /// Bad data.
        pub status: DevicePtr = "StatusBlock*",
        /// The coin's threshold; 0: no step is dropped.
        pub drop_below: u64 = "uint64_t",
        /// The threshold of the draw of the rule `forced`.
        pub forced_below: u64 = "uint64_t",
        /// The number that the rule compares with.
        pub rule_limit: f64 = "double",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// Tokens of a block, a power of two.
        pub tokens_per_block: u32 = "uint32_t",
        /// Experts that are ranked for a token.
        pub k: u32 = "uint32_t",
        /// Slots of a token.
        pub slots: u32 = "uint32_t",
        /// [`GateRule`].
        pub rule: u32 = "uint32_t",
        /// Whether scores are sigmoids.
        pub sigmoid: u32 = "uint32_t",
        /// [`GateWeights`].
        pub weights: u32 = "uint32_t",
        /// [`GateLoad`].
        pub load: u32 = "uint32_t",
        /// Groups of experts; 0: experts are not grouped.
        pub groups: u32 = "uint32_t",
        /// Groups that may be chosen from.
        pub top_groups: u32 = "uint32_t",
        /// Scores that a group's merit adds up.
        pub group_places: u32 = "uint32_t",
        /// Whether the coin is tossed once a step for all layers.
        pub coin_per_step: u32 = "uint32_t",
        /// Whether a dropped step skips the experts.
        pub drop_experts: u32 = "uint32_t",
        /// [`GateLocalChoice`].
        pub local_choice: u32 = "uint32_t",
        /// [`GateLocalWeight`].
        pub local_weight: u32 = "uint32_t",
        /// The first local expert.
        pub local_start: u32 = "uint32_t",
        /// Local experts.
        pub local_count: u32 = "uint32_t",
        /// Factor on every weight.
        pub weight_scale: f32 = "float",
        /// Whether rows of logits may be read 16 bytes at a time.
        pub vector_rows: u32 = "uint32_t",
    }

    /// Parameters of the `tg_gate_backward_*` kernels.
    pub struct GateBackwardParams {
        /// `[T, E]` the logits of the forward pass, with noise where there was noise.
        pub logits: DevicePtr = "const float*",
        /// Elements from row to row.
        pub logits_stride: u64 = "uint64_t",
        /// `[T, E]`, all of it written.
        pub dlogits: DevicePtr = "float*",
        /// Elements from row to row.
        pub dlogits_stride: u64 = "uint64_t",
        /// `[T]` log-sum-exp of the forward pass.
        pub lse: DevicePtr = "const float*",
        /// `[T]`.
        pub first_choice: DevicePtr = "const int32_t*",
        /// `[T]`; null where the weights are not `top2`.
        pub runner_up: DevicePtr = "const int32_t*",
        /// `[T+1]` of `selection`.
        pub token_offsets: DevicePtr = "const int32_t*",
        /// `[A]` of `selection`.
        pub expert_indices: DevicePtr = "const int32_t*",
        /// `[A]` position of each assignment of `selection` in `dweights`, −1 where it was dropped;
        /// null: nothing was dropped.
        pub positions: DevicePtr = "const int32_t*",
        /// `[A]` of the table that ran.
        pub dweights: DevicePtr = "const float*",
        /// `[E]` f_e; null without a balance loss.
        pub load: DevicePtr = "const double*",
        /// `[1]`; null where no step is dropped.
        pub dropped: DevicePtr = "const uint32_t*",
        /// α E / T.
        pub balance_factor: f64 = "double",
        /// 2c / T.
        pub z_factor: f32 = "float",
        /// Factor on every weight.
        pub weight_scale: f32 = "float",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// The bound of A.
        pub max_assignments: u32 = "uint32_t",
        /// Whether scores are sigmoids.
        pub sigmoid: u32 = "uint32_t",
        /// [`GateWeights`].
        pub weights: u32 = "uint32_t",
        /// Whether a dropped step skips the experts.
        pub drop_experts: u32 = "uint32_t",
        /// Whether a dropped step has no auxiliary losses.
        pub drop_losses: u32 = "uint32_t",
        /// [`GateLocalWeight`].
        pub local_weight: u32 = "uint32_t",
        /// The first local expert.
        pub local_start: u32 = "uint32_t",
        /// Local experts.
        pub local_count: u32 = "uint32_t",
        /// Whether rows of logits may be read 16 bytes at a time.
        pub vector_logits: u32 = "uint32_t",
        /// Whether rows of their gradient may be written so.
        pub vector_dlogits: u32 = "uint32_t",
    }

    /// Parameters of `tg_gate_positions`: where each assignment of the selection stands in the
    /// table.
    pub struct GatePositionsParams {
        /// `[T+1]` of the table.
        pub token_offsets: DevicePtr = "const int32_t*",
        /// `[A]` positions in the selection.
        pub kept: DevicePtr = "const int32_t*",
        /// `[max_assignments]`, −1 before.
        pub positions: DevicePtr = "int32_t*",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// The bound of A.
        pub max_assignments: u32 = "uint32_t",
    }

    /// Parameters of `tg_softmax_*`.
    pub struct SoftmaxParams {
        /// `[T, E]`.
        pub logits: DevicePtr = "const float*",
        /// Elements from row to row.
        pub logits_stride: u64 = "uint64_t",
        /// `[T, E]`.
        pub probs: DevicePtr = "float*",
        /// Elements from row to row.
        pub probs_stride: u64 = "uint64_t",
        /// `[T]`.
        pub lse: DevicePtr = "float*",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// Whether all rows may be read and written 16 bytes at a time.
        pub vector_rows: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }

    /// Parameters of `tg_softmax_backward_*`.
    pub struct SoftmaxBackwardParams {
        /// `[T, E]`.
        pub probs: DevicePtr = "const float*",
        /// Elements from row to row.
        pub probs_stride: u64 = "uint64_t",
        /// `[T, E]`.
        pub dprobs: DevicePtr = "const float*",
        /// Elements from row to row.
        pub dprobs_stride: u64 = "uint64_t",
        /// `[T, E]`.
        pub dlogits: DevicePtr = "float*",
        /// Elements from row to row.
        pub dlogits_stride: u64 = "uint64_t",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// Whether all rows may be read and written 16 bytes at a time.
        pub vector_rows: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }
}

/// How many of the ranked experts a token takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum GateRule {
    /// All `slots`.
    Fixed = 0,
    /// None: the columns choose.
    Columns = 1,
    /// The second, unless masked.
    Second = 2,
    /// The second if `p_i − p_j ≤ limit`.
    GapSoftmax = 3,
    /// The second if `z_i − z_j ≤ limit`.
    GapLogits = 4,
    /// The second unless the token's draw happens.
    Forced = 5,
    /// The second if its share of both is above the limit.
    Threshold = 6,
    /// The second with probability share / limit.
    Random = 7,
}

/// The combine weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum GateWeights {
    /// The score.
    Prob = 0,
    /// Its share of the chosen.
    Selected = 1,
    /// Its share of the best two.
    Top2 = 2,
}

/// What counts as load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum GateLoad {
    /// Tokens that took one expert.
    Single = 0,
    /// First choices.
    First = 1,
    /// All assignments.
    All = 2,
}

/// The local expert of a dropped step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum GateLocalChoice {
    /// The best local one.
    Best = 0,
    /// By the gate's choice modulo the local experts.
    Modulo = 1,
    /// By a draw.
    Uniform = 2,
}

/// Its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum GateLocalWeight {
    /// Its score.
    Score = 0,
    /// The score of the gate's choice.
    Original = 1,
    /// Its share of the local experts.
    Share = 2,
    /// 1.
    One = 3,
}
