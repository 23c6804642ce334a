//! What both implementations refuse, before anything is written.
//!
//! Faulty *values* in the logits (NaN, +∞) are no error: they are data, and the gate reports them
//! in [`crate::GateStatus`].

use std::ops::Range;

use tollgate_core::options::{GateOptions, LocalWeight, Scores, StochasticPer, Weights};
use tollgate_core::{BrokenInvariant, DropMode, Error, Result, Router, RoutingTable, StepContext};

use crate::{GateInputs, GateState};

/// Passes that the generator's counter can tell apart: 4 bits.
const MAX_PASS: usize = 15;
/// Blocks that the generator's counter can tell apart: 24 bits. The noisy router uses one per
/// expert.
const MAX_NOISY_EXPERTS: usize = 1 << 24;
/// Assignments are counted and indexed in i32.
const MAX_INDEX: usize = i32::MAX as usize;

/// What concerns the options and the sizes alone.
pub(crate) fn sizes(options: &GateOptions, tokens: usize, experts: usize) -> Result<()> {
    options.validate(tokens, experts)?;
    let k_max = options.router.max_experts_per_token(experts);
    Error::checked_product("assignments (T·k)", tokens, k_max, MAX_INDEX)?;
    if options.router.is_noisy() {
        let what = "experts (E) of a noisy router";
        Error::check_range(what, experts, 1, MAX_NOISY_EXPERTS)?;
    }
    Ok(())
}

/// The experts that Gating Dropout may stay with.
pub(crate) fn local_experts(
    local: &Range<usize>,
    options: &GateOptions,
    experts: usize,
) -> Result<()> {
    Error::check_range("end of local_experts", local.end, 0, experts)?;
    Error::check_range("start of local_experts", local.start, 0, local.end)?;
    if options.gating_dropout.is_some() {
        Error::check_range("number of local_experts", local.len(), 1, experts)?;
    }
    Ok(())
}

/// Whether a router selects by score plus bias, so that a selection bias makes sense.
pub(crate) fn takes_bias(router: &Router) -> Result<()> {
    match router {
        Router::TopK {
            scores: Scores::Sigmoid,
            ..
        }
        | Router::Grouped { .. } => Ok(()),
        _ => Err(Error::Incompatible {
            what: "selection_bias".into(),
            with: format!("router {router}"),
            reason: "only sigmoid and grouped routers select by score plus bias",
        }),
    }
}

/// Everything that a forward gate call needs to be legal.
pub(crate) fn gate<F: Copy + Into<f64>>(
    inputs: &GateInputs<'_, F>,
    options: &GateOptions,
    ctx: &StepContext,
) -> Result<()> {
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    let router = &options.router;
    let required_by = || format!("router {router}");
    Error::check_range("pass", ctx.pass as usize, 0, MAX_PASS)?;
    sizes(options, tokens, experts)?;

    match &inputs.logits {
        Some(logits) => {
            Error::check_shape("rows of logits (T)", logits.rows(), tokens)?;
            Error::check_shape("columns of logits (E)", logits.cols(), experts)?;
        }
        None if router.has_gate() => {
            return Err(Error::Missing {
                what: "logits",
                because: required_by(),
            });
        }
        None => {}
    }
    if uses_noise(options, ctx) {
        let noise = inputs.noise_logits.as_ref().ok_or_else(|| Error::Missing {
            what: "noise_logits",
            because: format!("router {router} in training"),
        })?;
        Error::check_shape("rows of noise_logits (T)", noise.rows(), tokens)?;
        Error::check_shape("columns of noise_logits (E)", noise.cols(), experts)?;
    }
    if let Some(bias) = inputs.selection_bias {
        selection_bias(bias, router, experts)?;
    }
    if let Router::Hash = router {
        let ids = inputs.token_ids.ok_or_else(|| Error::Missing {
            what: "token_ids",
            because: required_by(),
        })?;
        Error::check_shape("token_ids (T)", ids.len(), tokens)?;
        let vocabulary = inputs.hash_table.map_or(MAX_INDEX + 1, <[i32]>::len);
        Error::check_indices("token_ids", ids, 0, vocabulary)?;
        Error::check_indices("hash_table", inputs.hash_table.unwrap_or(&[]), 0, experts)?;
    }
    if let Router::Stochastic {
        per: StochasticPer::Sentence,
    } = router
    {
        let offsets = inputs.sequence_offsets.ok_or_else(|| Error::Missing {
            what: "sequence_offsets",
            because: required_by(),
        })?;
        sequence_offsets(offsets, tokens)?;
    }
    local_experts(&inputs.local_experts, options, experts)
}

/// A selection bias `[E]` must be finite, and belongs to routers that rank by score plus bias.
fn selection_bias<F: Copy + Into<f64>>(bias: &[F], router: &Router, experts: usize) -> Result<()> {
    takes_bias(router)?;
    Error::check_shape("selection_bias (E)", bias.len(), experts)?;
    let finite = |&value: &F| value.into().abs() <= f64::from(f32::MAX);
    match bias.iter().position(|value| !finite(value)) {
        None => Ok(()),
        Some(position) => Err(Error::Incompatible {
            what: format!("selection_bias[{position}] = {}", bias[position].into()),
            with: format!("router {router}"),
            reason: "what scores are compared with must be finite in f32",
        }),
    }
}

/// Every runner-up must be an expert, or −1.
fn runners_up(values: &[i32], experts: usize) -> Result<()> {
    match Error::check_indices("runner_up", values, -1, experts) {
        Err(Error::Index {
            position, value, ..
        }) => Err(Error::Incompatible {
            what: format!("runner_up[{position}] = {value}"),
            with: format!("{experts} experts"),
            reason: "it must be an expert, or -1 where there is none",
        }),
        other => other,
    }
}

/// Exclusive prefix sums of sequence lengths: from 0, never descending, to T.
pub(crate) fn sequence_offsets(offsets: &[i32], tokens: usize) -> Result<()> {
    let Some(end) = offsets.len().checked_sub(1) else {
        return Err(Error::BufferTooSmall {
            what: "sequence_offsets",
            actual: 0,
            needed: 1,
        });
    };
    let at = |position: usize| format!("sequence_offsets[{position}] = {}", offsets[position]);
    Error::check_indices("sequence_offsets", &offsets[..1], 0, 1)?;
    Error::check_indices("sequence_offsets", offsets, 0, tokens.saturating_add(1))?;
    if let Some(before) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(Error::Incompatible {
            what: at(before + 1),
            with: at(before),
            reason: "sequences follow each other: offsets must not descend",
        });
    }
    if offsets[end] as usize != tokens {
        return Err(Error::Incompatible {
            what: at(end),
            with: format!("{tokens} tokens"),
            reason: "the last sequence must end with the last token",
        });
    }
    Ok(())
}

/// Everything that a backward gate call needs to be legal: the inputs once more, a state that fits
/// them, one gradient a weight, and outputs of shape `(rows, columns)`.
pub(crate) fn gate_backward<F: Copy + Into<f64>>(
    inputs: &GateInputs<'_, F>,
    options: &GateOptions,
    ctx: &StepContext,
    state: &GateState<F>,
    dweights: &[F],
    dlogits: (usize, usize),
    dnoise_logits: Option<(usize, usize)>,
) -> Result<()> {
    backward_state(inputs, options, ctx, state, dweights)?;
    Error::check_shape("rows of dlogits (T)", dlogits.0, inputs.num_tokens)?;
    Error::check_shape("columns of dlogits (E)", dlogits.1, inputs.num_experts)?;
    match dnoise_logits {
        Some((rows, cols)) => {
            Error::check_shape("rows of dnoise_logits (T)", rows, inputs.num_tokens)?;
            Error::check_shape("columns of dnoise_logits (E)", cols, inputs.num_experts)
        }
        None if uses_noise(options, ctx) => Err(Error::Missing {
            what: "dnoise_logits",
            because: format!("router {} in training", options.router),
        }),
        None => Ok(()),
    }
}

/// Whether this call adds noise to its logits.
pub(crate) fn uses_noise(options: &GateOptions, ctx: &StepContext) -> bool {
    ctx.training && matches!(options.router, Router::Noisy { .. })
}

/// The part of [`gate_backward`] that does not concern outputs. The state's fields are public:
/// whatever the backward pass indexes with is checked, in O(T + A).
pub(crate) fn backward_state<F: Copy + Into<f64>>(
    inputs: &GateInputs<'_, F>,
    options: &GateOptions,
    ctx: &StepContext,
    state: &GateState<F>,
    dweights: &[F],
) -> Result<()> {
    gate(inputs, options, ctx)?;
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    let gated = if options.router.has_gate() { tokens } else { 0 };
    Error::check_shape(
        "scores of the state (T·E)",
        state.scores.len(),
        gated * experts,
    )?;
    Error::check_shape("lse of the state (T)", state.lse.len(), gated)?;
    Error::check_shape(
        "first_choice of the state (T)",
        state.first_choice.len(),
        gated,
    )?;
    Error::check_indices("first_choice", &state.first_choice, 0, experts)?;

    let of_top2 = if options.weights() == Weights::Top2 {
        gated
    } else {
        0
    };
    Error::check_shape("runner_up of the state (T)", state.runner_up.len(), of_top2)?;
    runners_up(&state.runner_up, experts)?;

    let noisy = if uses_noise(options, ctx) {
        tokens * experts
    } else {
        0
    };
    Error::check_shape(
        "noisy_logits of the state (T·E)",
        state.noisy_logits.len(),
        noisy,
    )?;
    Error::check_shape("noise of the state (T·E)", state.noise.len(), noisy)?;

    if state.dropped.is_some() && options.gating_dropout.is_none() {
        return Err(Error::Missing {
            what: "gating_dropout of the options",
            because: "a state whose step was dropped".into(),
        });
    }
    let original = options
        .gating_dropout
        .is_some_and(|d| d.local_weight == LocalWeight::Original);
    let sources = if original && state.dropped == Some(DropMode::Gate) {
        tokens
    } else {
        0
    };
    Error::check_shape(
        "weight_source of the state (T)",
        state.weight_source.len(),
        sources,
    )?;
    Error::check_indices("weight_source", &state.weight_source, 0, experts)?;

    let loaded = if options.router.has_gate() && options.balance_alpha > 0.0 {
        experts
    } else {
        0
    };
    Error::check_shape("load of the state (E)", state.load.len(), loaded)?;

    let names = ["selection.expert_indices", "selection.token_offsets"];
    table(names, &state.selection, tokens, experts)?;
    let names = ["table.expert_indices", "table.token_offsets"];
    table(names, &state.table, tokens, experts)?;
    let (kept, selected) = (
        state.table.num_assignments(),
        state.selection.num_assignments(),
    );
    if state.kept.is_empty() && kept > 0 {
        Error::check_shape("assignments of the table (A)", kept, selected)?;
    } else {
        Error::check_shape("kept of the state (A)", state.kept.len(), kept)?;
        Error::check_indices("kept", &state.kept, 0, selected)?;
    }
    Error::check_shape("dweights (A)", dweights.len(), kept)
}

/// That a token's assignments lie inside the table and its experts inside `0..E`.
fn table<W>(
    [of_indices, of_offsets]: [&'static str; 2],
    table: &RoutingTable<W>,
    tokens: usize,
    experts: usize,
) -> Result<()> {
    let assignments = table.num_assignments();
    Error::check_shape(
        "tokens of the state's tables (T)",
        table.num_tokens(),
        tokens,
    )?;
    Error::check_shape(
        "experts of the state's tables (E)",
        table.num_experts(),
        experts,
    )?;
    let weights = table.routing_weights.len();
    Error::check_shape("weights of the state's tables (A)", weights, assignments)?;
    let offsets = &table.token_offsets;
    Error::check_indices(of_offsets, offsets, 0, assignments.saturating_add(1))?;
    if let Some(before) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(Error::Routing(BrokenInvariant::Descending {
            array: of_offsets,
            position: before + 1,
            value: offsets[before + 1],
            previous: offsets[before],
        }));
    }
    Error::check_indices(of_indices, &table.expert_indices, 0, experts)
}

/// That rows can be counted, as everywhere, in i32. Rows without columns take no memory: their
/// number alone would otherwise decide how long an operation works and what it allocates.
pub(crate) fn rows(what: &'static str, rows: usize) -> Result<()> {
    Error::check_range(what, rows, 0, MAX_INDEX)
}

/// Shapes of the softmax: `[T, E]` in and out, `[T]` for the log-sum-exp.
pub(crate) fn softmax(logits: (usize, usize), probs: (usize, usize), lse: usize) -> Result<()> {
    rows("rows of logits (T)", logits.0)?;
    Error::check_shape("rows of probs (T)", probs.0, logits.0)?;
    Error::check_shape("columns of probs (E)", probs.1, logits.1)?;
    Error::check_shape("lse (T)", lse, logits.0)
}

/// Shapes of the softmax's backward pass: three times `[T, E]`.
pub(crate) fn softmax_backward(
    probs: (usize, usize),
    dprobs: (usize, usize),
    dlogits: (usize, usize),
) -> Result<()> {
    rows("rows of probs (T)", probs.0)?;
    Error::check_shape("rows of dprobs (T)", dprobs.0, probs.0)?;
    Error::check_shape("columns of dprobs (E)", dprobs.1, probs.1)?;
    Error::check_shape("rows of dlogits (T)", dlogits.0, probs.0)?;
    Error::check_shape("columns of dlogits (E)", dlogits.1, probs.1)
}
