//! The kernels around the gate: tables, capacity, draws, losses.

use super::{Kernel, Module};

/// All modules of the family.
pub const MODULES: &[&Module] = &[
    &TABLE,
    &DRAW,
    &UNGATED,
    &NOISE,
    &JITTER,
    &CONSISTENCY,
    &QUOTA,
    &CAPACITY,
    &EXPERT_CHOICE,
];

/// Declares a module of this family, by the name of its source, and its kernels: entry, threads of
/// a block, bytes of dynamic shared memory.
macro_rules! module {
    ($(#[$outer:meta])* $module:ident = $name:literal {
        $(
            $(#[$inner:meta])*
            $kernel:ident = $entry:literal, $threads:literal $(, $shared:literal)?;
        )+
    }) => {
        $(#[$outer])*
        pub static $module: Module = Module {
            name: concat!("gating/", $name),
            sm_80: include_str!(concat!("../../prebuilt/gating/", $name, ".sm_80.ptx")),
            sm_90a: None,
        };
        $(
            $(#[$inner])*
            pub static $kernel: Kernel = Kernel {
                module: &$module,
                entry: $entry,
                threads: $threads,
                max_dynamic_shared: 0 $( + $shared )?,
            };
        )+
    };
}

module! {
    /// Routing table and losses.
    TABLE = "table" {
        /// Sums over the blocks of tokens, where there are many.
        FINISH_REDUCE = "tg_finish_reduce", 1024;
        /// The routing table and the losses.
        FINISH = "tg_finish", 1024;
    }
}

module! {
    /// Draws of single tokens, written in PTX.
    DRAW = "draw" {
        /// An expert drawn for every token; four tokens a thread.
        DRAW_EXPERTS = "tg_draw_experts", 256;
    }
}

module! {
    /// Routers without a gate.
    UNGATED = "ungated" {
        /// The expert of a token id by a table.
        HASH_LOOKUP = "tg_hash_lookup", 256;
        /// An expert drawn for every sequence.
        DRAW_SENTENCES = "tg_draw_sentences", 256;
        /// One expert drawn for the batch: the whole routing table.
        DRAW_BATCH = "tg_draw_batch", 256;
        /// Every expert for every token: the whole routing table.
        ENSEMBLE = "tg_ensemble", 256;
        /// Counts and histograms of blocks of 1024 tokens.
        COUNT_EXPERTS = "tg_count_experts", 256;
    }
}

module! {
    /// Noisy logits and the way back.
    NOISE = "noise" {
        /// Logits with noise; four experts a thread.
        ADD_NOISE = "tg_add_noise", 256;
        /// The gradient of the noise logits; four experts a thread.
        NOISE_BACKWARD = "tg_noise_backward", 256;
    }
}

module! {
    /// Jitter of the router's input; four columns a thread.
    JITTER = "jitter" {
        /// Of f32.
        JITTER_F32 = "tg_jitter_f32", 256;
        /// Of f16.
        JITTER_F16 = "tg_jitter_f16", 256;
        /// Of bf16.
        JITTER_BF16 = "tg_jitter_bf16", 256;
    }
}

module! {
    /// The consistency loss of stochastic experts.
    CONSISTENCY = "consistency" {
        /// Loss and gradients; a warp a row.
        CONSISTENCY_WARP = "tg_consistency_warp", 256, 49_152;
        /// Loss and gradients; a block a row.
        CONSISTENCY_BLOCK = "tg_consistency_block", 256, 48_128;
        /// The sum over the rows.
        CONSISTENCY_SUM = "tg_consistency_sum", 256;
    }
}

module! {
    /// Steps that expert choice and capacity share.
    QUOTA = "quota" {
        /// The value of a digit at which every expert's quota ends.
        QUOTA_RESOLVE = "tg_quota_resolve", 256;
        /// Counts of ties to ranks.
        QUOTA_SCAN = "tg_quota_scan", 1024;
    }
}

module! {
    /// The limit on rows per expert.
    CAPACITY = "capacity" {
        /// Merits of a selection, by position.
        CAPACITY_BY_POSITION = "tg_capacity_by_position", 256;
        /// Merits of a selection, by routing weight.
        CAPACITY_BY_PROBABILITY = "tg_capacity_by_probability", 256;
        /// A histogram of a digit.
        CAPACITY_COUNT = "tg_capacity_count", 256;
        /// Ties of every chunk.
        CAPACITY_TIES = "tg_capacity_ties", 256;
        /// Who stays.
        CAPACITY_KEEP = "tg_capacity_keep", 256;
        /// Prefix sums of chunks and experts.
        CAPACITY_SCAN = "tg_capacity_scan", 1024;
        /// The table.
        CAPACITY_WRITE = "tg_capacity_write", 256;
    }
}

module! {
    /// Every expert takes its best tokens.
    EXPERT_CHOICE = "expert_choice" {
        /// A histogram of a digit; 32 experts and 1024 tokens a block.
        CHOICE_COUNT = "tg_choice_count", 256;
        /// Ties of every block of tokens.
        CHOICE_TIES = "tg_choice_ties", 256;
        /// Who is taken.
        CHOICE_SELECT = "tg_choice_select", 256;
        /// Counts of every block of tokens.
        CHOICE_ROWS = "tg_choice_rows", 256;
        /// The assignments.
        CHOICE_WRITE = "tg_choice_write", 256;
    }
}
