//! Parameter structs of the kernels around the gate: tables, capacity, draws, losses.

use super::{Abi, DevicePtr, Struct, abi_struct};

/// All of them, in the order of the header.
pub const STRUCTS: &[Struct] = &[
    FinishParams::STRUCT,
    DrawParams::STRUCT,
    UngatedParams::STRUCT,
    CountParams::STRUCT,
    NoiseParams::STRUCT,
    NoiseBackwardParams::STRUCT,
    JitterParams::STRUCT,
    ConsistencyParams::STRUCT,
    QuotaParams::STRUCT,
    CapacityParams::STRUCT,
    ChoiceParams::STRUCT,
];

abi_struct! {
    /// Parameters of `tg_finish_reduce` and `tg_finish`: from what blocks of tokens left behind to
    /// the routing table and the losses.
    pub struct FinishParams {
        /// `[T·k_max]` experts, −1 where a slot is empty; null: they stand in `expert_indices`.
        pub slot_experts: DevicePtr = "const int32_t*",
        /// `[T·k_max]`.
        pub slot_weights: DevicePtr = "const float*",
        /// `[B+1]` assignments of every block of tokens; with `reduced` their prefix sums.
        pub block_counts: DevicePtr = "int32_t*",
        /// `[B, E]` assignments of every block and expert.
        pub block_histogram: DevicePtr = "const int32_t*",
        /// `[B, E]` what the balance loss counts; null without one.
        pub load_histogram: DevicePtr = "const int32_t*",
        /// `[B, E]` sums of the scores' shares; null without a balance loss.
        pub block_shares: DevicePtr = "const float*",
        /// `[B]` sums of lse²; null without a z-loss.
        pub block_squares: DevicePtr = "const double*",
        /// `[E]` sums of `block_histogram`, with `reduced`.
        pub expert_counts: DevicePtr = "int32_t*",
        /// `[E]` sums of `load_histogram`, with `reduced`.
        pub load_counts: DevicePtr = "int32_t*",
        /// `[E]` sums of `block_shares`, with `reduced`.
        pub shares: DevicePtr = "double*",
        /// `[T+1]`.
        pub token_offsets: DevicePtr = "int32_t*",
        /// `[T·k_max]`.
        pub expert_indices: DevicePtr = "int32_t*",
        /// `[T·k_max]`.
        pub routing_weights: DevicePtr = "float*",
        /// `[E+1]`.
        pub expert_offsets: DevicePtr = "int32_t*",
        /// `[E]` f_e; null without a balance loss.
        pub load: DevicePtr = "double*",
        /// `[2]` balance loss and z-loss; null where no losses are asked for.
        pub losses: DevicePtr = "double*",
        /// Where training stands; null where no step is silent.
        pub step: DevicePtr = "const StepBlock*",
        /// α E / T.
        pub balance_factor: f64 = "double",
        /// c / T.
        pub z_factor: f64 = "double",
        /// The coin's threshold below which a step has no losses; 0: never.
        pub silent_below: u64 = "uint64_t",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// Slots of a token.
        pub k_max: u32 = "uint32_t",
        /// Tokens of a block of whoever filled the slots; divides 1024.
        pub tokens_per_block: u32 = "uint32_t",
        /// B.
        pub num_blocks: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// 1 when `tg_finish_reduce` ran before.
        pub reduced: u32 = "uint32_t",
        /// 1 when the coin is tossed once a step for all layers.
        pub coin_per_step: u32 = "uint32_t",
        /// 1 when whoever selected has put the assignments in place and written `token_offsets`.
        pub in_place: u32 = "uint32_t",
    }
}

abi_struct! {
    /// Parameters of `tg_draw_experts` (`draw.ptx`, which names these offsets): an expert drawn for
    /// every token.
    pub struct DrawParams {
        /// Where training stands.
        pub step: DevicePtr = "const StepBlock*",
        /// `[T]` what is drawn for; null: the tokens' global indices.
        pub token_ids: DevicePtr = "const int32_t*",
        /// `[T]`.
        pub expert_indices: DevicePtr = "int32_t*",
        /// `[T]`.
        pub routing_weights: DevicePtr = "float*",
        /// Negative ids are reported here.
        pub status: DevicePtr = "StatusBlock*",
        /// Of every token; NaN where the id is negative.
        pub weight: f32 = "float",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// Number of the stream of random numbers.
        pub stream: u32 = "uint32_t",
    }

    /// Parameters of `tg_hash_lookup`, `tg_draw_sentences`, `tg_draw_batch` and `tg_ensemble`.
    pub struct UngatedParams {
        /// Where training stands.
        pub step: DevicePtr = "const StepBlock*",
        /// `[T]`.
        pub token_ids: DevicePtr = "const int32_t*",
        /// `[V]`.
        pub hash_table: DevicePtr = "const int32_t*",
        /// `[S+1]`.
        pub sequence_offsets: DevicePtr = "const int32_t*",
        /// `[T+1]`.
        pub token_offsets: DevicePtr = "int32_t*",
        /// `[T·k]`.
        pub expert_indices: DevicePtr = "int32_t*",
        /// `[T·k]`.
        pub routing_weights: DevicePtr = "float*",
        /// `[E+1]`.
        pub expert_offsets: DevicePtr = "int32_t*",
        /// Bad indices are reported here.
        pub status: DevicePtr = "StatusBlock*",
        /// Of every assignment; NaN where an index is bad.
        pub weight: f32 = "float",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// V.
        pub vocabulary: u32 = "uint32_t",
        /// S.
        pub num_sequences: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }

    /// Parameters of `tg_count_experts`: counts and histograms of blocks of 1024 tokens with one
    /// expert each.
    pub struct CountParams {
        /// `[T]`.
        pub expert_indices: DevicePtr = "const int32_t*",
        /// `[B+1]`, B written.
        pub block_counts: DevicePtr = "int32_t*",
        /// `[B, E]`.
        pub block_histogram: DevicePtr = "int32_t*",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
    }
}

abi_struct! {
    /// Parameters of `tg_add_noise`: h = z + n · softplus(z_noise).
    pub struct NoiseParams {
        /// Where training stands.
        pub step: DevicePtr = "const StepBlock*",
        /// z `[T, E]`.
        pub logits: DevicePtr = "const float*",
        /// z_noise `[T, E]`.
        pub noise_logits: DevicePtr = "const float*",
        /// n `[T, E]`, rows side by side.
        pub noise: DevicePtr = "float*",
        /// h `[T, E]`, rows side by side.
        pub noisy_logits: DevicePtr = "float*",
        /// `[T]`, 0 before: becomes 1 where the row of z_noise holds a NaN or +∞.
        pub row_faults: DevicePtr = "uint32_t*",
        /// Elements from row to row.
        pub logits_stride: u64 = "uint64_t",
        /// Elements from row to row.
        pub noise_logits_stride: u64 = "uint64_t",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// 1 when all rows are aligned to 16 bytes and E is a multiple of 4.
        pub wide: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }

    /// Parameters of `tg_noise_backward`: dz_noise = dh · n · σ(z_noise).
    pub struct NoiseBackwardParams {
        /// dh `[T, E]`.
        pub dnoisy_logits: DevicePtr = "const float*",
        /// n `[T, E]`, rows side by side.
        pub noise: DevicePtr = "const float*",
        /// z_noise `[T, E]`.
        pub noise_logits: DevicePtr = "const float*",
        /// dz_noise `[T, E]`.
        pub dnoise_logits: DevicePtr = "float*",
        /// Elements from row to row.
        pub dnoisy_logits_stride: u64 = "uint64_t",
        /// Elements from row to row.
        pub noise_logits_stride: u64 = "uint64_t",
        /// Elements from row to row.
        pub dnoise_logits_stride: u64 = "uint64_t",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// 1 when all rows are aligned to 16 bytes and E is a multiple of 4.
        pub wide: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }

    /// Parameters of `tg_jitter_f32`, `tg_jitter_f16` and `tg_jitter_bf16`: rows times U(1 ±
    /// amount).
    pub struct JitterParams {
        /// Where training stands.
        pub step: DevicePtr = "const StepBlock*",
        /// `[T, H]`; for f32 it may be `out`.
        pub x: DevicePtr = "const void*",
        /// `[T, H]`.
        pub out: DevicePtr = "float*",
        /// Elements from row to row.
        pub x_stride: u64 = "uint64_t",
        /// Elements from row to row.
        pub out_stride: u64 = "uint64_t",
        /// At most 1.
        pub amount: f64 = "double",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// H.
        pub hidden: u32 = "uint32_t",
        /// 1 when four elements of every row are aligned to their size, and H is a multiple of 4.
        pub wide: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }
}

abi_struct! {
    /// Parameters of `tg_consistency_warp`, `tg_consistency_block` and `tg_consistency_sum`.
    pub struct ConsistencyParams {
        /// `[N, V]`.
        pub a: DevicePtr = "const float*",
        /// `[N, V]`.
        pub b: DevicePtr = "const float*",
        /// `[N]`, not 0 where a row counts for nothing; null: all rows count.
        pub padding: DevicePtr = "const uint8_t*",
        /// `[N, V]`.
        pub da: DevicePtr = "float*",
        /// `[N, V]`.
        pub db: DevicePtr = "float*",
        /// `[N]`.
        pub row_losses: DevicePtr = "double*",
        /// `[1]`.
        pub loss: DevicePtr = "double*",
        /// Elements from row to row.
        pub a_stride: u64 = "uint64_t",
        /// Elements from row to row.
        pub b_stride: u64 = "uint64_t",
        /// Elements from row to row.
        pub da_stride: u64 = "uint64_t",
        /// Elements from row to row.
        pub db_stride: u64 = "uint64_t",
        /// α.
        pub alpha: f64 = "double",
        /// N.
        pub rows: u32 = "uint32_t",
        /// V.
        pub columns: u32 = "uint32_t",
        /// 1 when all rows are aligned to 16 bytes and V is a multiple of 4.
        pub wide: u32 = "uint32_t",
        /// 1 when rows wait in dynamic shared memory.
        pub waits: u32 = "uint32_t",
    }
}

abi_struct! {
    /// Parameters of `tg_quota_resolve` and `tg_quota_scan`: where the experts' quotas end.
    pub struct QuotaParams {
        /// `[256, E]` claims by the value of a digit of their merit; cleared.
        pub histogram: DevicePtr = "uint32_t*",
        /// `[E]` the digits of the threshold so far.
        pub threshold: DevicePtr = "uint32_t*",
        /// `[E]` claims with that threshold that are served; all ones: all of them.
        pub remaining: DevicePtr = "uint32_t*",
        /// `[chunks, E]`.
        pub tie_counts: DevicePtr = "uint32_t*",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// Chunks.
        pub num_chunks: u32 = "uint32_t",
        /// Claims of an expert that are served.
        pub quota: u32 = "uint32_t",
        /// 1 at the first digit.
        pub first: u32 = "uint32_t",
        /// Digits below this one.
        pub digits_left: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }

    /// Parameters of the kernels of `capacity.cu`: from a selection to the table that experts have
    /// room for.
    pub struct CapacityParams {
        /// `[T+1]` of the selection.
        pub token_offsets: DevicePtr = "const int32_t*",
        /// `[A]` of the selection.
        pub expert_indices: DevicePtr = "const int32_t*",
        /// `[A]` of the selection.
        pub routing_weights: DevicePtr = "const float*",
        /// `[E+1]` of the selection.
        pub expert_offsets: DevicePtr = "const int32_t*",
        /// `[T+1]` of the table.
        pub table_token_offsets: DevicePtr = "int32_t*",
        /// `[A]` of the table.
        pub table_expert_indices: DevicePtr = "int32_t*",
        /// `[A]` of the table.
        pub table_routing_weights: DevicePtr = "float*",
        /// `[E+1]` of the table.
        pub table_expert_offsets: DevicePtr = "int32_t*",
        /// `[A]` position in the selection of every assignment of the table.
        pub kept: DevicePtr = "int32_t*",
        /// Bad indices are reported here.
        pub status: DevicePtr = "StatusBlock*",
        /// `[A]`.
        pub merits: DevicePtr = "uint32_t*",
        /// `[256, E]`.
        pub histogram: DevicePtr = "uint32_t*",
        /// `[E]`.
        pub threshold: DevicePtr = "uint32_t*",
        /// `[E]`.
        pub remaining: DevicePtr = "uint32_t*",
        /// `[chunks, E]`.
        pub tie_counts: DevicePtr = "uint32_t*",
        /// `[A/32]` a bit an assignment.
        pub stays: DevicePtr = "uint32_t*",
        /// `[A/32]` those who stay of the chunk before the word.
        pub words_before: DevicePtr = "uint32_t*",
        /// `[chunks+1]` those who stay of every chunk, then their prefix sums.
        pub chunk_kept: DevicePtr = "uint32_t*",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// The bound of A.
        pub max_assignments: u32 = "uint32_t",
        /// Rows that an expert may have.
        pub rows_per_expert: u32 = "uint32_t",
        /// Assignments of a chunk, a multiple of 32.
        pub chunk: u32 = "uint32_t",
        /// Chunks.
        pub num_chunks: u32 = "uint32_t",
        /// The merit of a first choice.
        pub largest_merit: u32 = "uint32_t",
        /// Bits below the digit that is counted.
        pub shift: u32 = "uint32_t",
        /// 1 at the first digit.
        pub first: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }
}

abi_struct! {
    /// Parameters of the kernels of `expert_choice.cu`: every expert takes the best of its column.
    pub struct ChoiceParams {
        /// `[T, E]`, rows side by side; NaN in faulty rows.
        pub scores: DevicePtr = "const float*",
        /// `[T, E]` that the scores were made from.
        pub logits: DevicePtr = "const float*",
        /// Elements from row to row.
        pub logits_stride: u64 = "uint64_t",
        /// `[1]` not 0 on a dropped step; null where none can be.
        pub dropped: DevicePtr = "const uint32_t*",
        /// `[T]` the expert that runs on a dropped step; −1 for none.
        pub local_experts: DevicePtr = "const int32_t*",
        /// `[T]` its weight.
        pub local_weights: DevicePtr = "const float*",
        /// `[256, E]`.
        pub histogram: DevicePtr = "uint32_t*",
        /// `[E]`.
        pub threshold: DevicePtr = "const uint32_t*",
        /// `[E]`.
        pub remaining: DevicePtr = "const uint32_t*",
        /// `[B, E]`.
        pub tie_counts: DevicePtr = "uint32_t*",
        /// `[T, W]` a bit for every expert that takes the token.
        pub masks: DevicePtr = "uint32_t*",
        /// `[B+1]` assignments of every block of tokens; prefix sums with `reduced`.
        pub block_counts: DevicePtr = "int32_t*",
        /// `[B, E]`; may be `tie_counts`.
        pub block_histogram: DevicePtr = "int32_t*",
        /// `[B, E]` the load; null where it is counted elsewhere.
        pub load_histogram: DevicePtr = "int32_t*",
        /// `[T+1]`, T written.
        pub token_offsets: DevicePtr = "int32_t*",
        /// `[A]`.
        pub expert_indices: DevicePtr = "int32_t*",
        /// `[A]`.
        pub routing_weights: DevicePtr = "float*",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// Tokens of a block, at most 1024.
        pub tokens_per_block: u32 = "uint32_t",
        /// W.
        pub words: u32 = "uint32_t",
        /// Bits below the digit that is counted.
        pub shift: u32 = "uint32_t",
        /// 1 at the first digit.
        pub first: u32 = "uint32_t",
        /// 1 when `block_counts` are prefix sums.
        pub reduced: u32 = "uint32_t",
        /// 1 when the load is the tokens that one expert took alone, else all assignments.
        pub load_singles: u32 = "uint32_t",
        /// 1 when weights are renormalised over a token's experts.
        pub selected: u32 = "uint32_t",
        /// On every weight.
        pub weight_scale: f32 = "float",
    }
}
