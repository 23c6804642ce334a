//! The gate, forward: scores, decisions, weights, Gating Dropout, capacity, losses.

use tollgate_core::options::{AuxLoss, GateOptions, LocalChoice, LocalWeight, Scores, Weights};
use tollgate_core::{DropMode, Error, Result, RoutingTable, StepContext};

use super::select::{self, Decision, Row};
use super::softmax::{is_faulty, is_masked, scores_row, softplus};
use super::weights::Weighed;
use super::{capacity, losses};
use crate::capacity::rows_per_expert;
use crate::{GateInputs, GateState, check, dropout, stochastic};

/// Where the noisy router's logits h come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NoisyLogits<'a> {
    /// The definition: `z + n · softplus(z_noise)` rounded to f32, as implementations do, so that
    /// experts that are tied in f32 are tied here.
    Rounded,
    /// The same without the rounding: a differentiable function, for finite differences.
    Exact,
    /// `[T, E]` given: those of an implementation, whose softplus may err in the last place, so
    /// that everything after them can be compared exactly.
    Given(&'a [f64]),
}

/// The whole gate, see [`crate::Gating::gate`]; the noisy router's logits are rounded to f32.
///
/// # Errors
/// Options out of range, shapes that differ, inputs that the router needs and were not given.
pub fn gate(
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    ctx: &StepContext,
) -> Result<GateState<f64>> {
    gate_with(inputs, options, ctx, NoisyLogits::Rounded)
}

/// [`gate`] with a choice of how the noisy router's logits are made; without noise they do not
/// matter.
///
/// # Errors
/// As [`gate`]; given logits of another length than T·E.
pub fn gate_with(
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    ctx: &StepContext,
    noisy: NoisyLogits<'_>,
) -> Result<GateState<f64>> {
    check::gate(inputs, options, ctx)?;
    let mut state = GateState::default();
    let scored = options.router.scores().zip(inputs.logits.as_ref());
    let Some((scores, _)) = scored else {
        let experts = select::without_gate(inputs, &options.router, ctx);
        let share = |row: &Vec<usize>| f64::from(options.weight_scale) / row.len() as f64;
        let rows: Vec<_> = experts
            .iter()
            .map(|row| (row.clone(), vec![share(row); row.len()]))
            .collect();
        fill(&mut state.selection, inputs.num_experts, &rows);
        limit(&mut state, inputs, options);
        return Ok(state);
    };

    let experts = inputs.num_experts;
    let logits = score(inputs, options, ctx, noisy, scores, &mut state)?;
    let rows = rows(&state.scores, &state.lse, &logits, inputs);
    let decisions = decide(&rows, inputs, options, ctx);
    state.first_choice = decisions.iter().map(|d| d.first as i32).collect();
    if options.weights() == Weights::Top2 {
        state.runner_up = decisions
            .iter()
            .map(|d| d.second.map_or(-1, |j| j as i32))
            .collect();
    }

    let dropout = options.gating_dropout.filter(|d| dropout::dropped(d, ctx));
    state.dropped = dropout.map(|d| d.mode);
    let weigh = |row: &Row<'_>, d: &Decision| {
        let weighed = Weighed {
            z: row.z,
            p: row.p,
            scores,
            first: d.first,
            second: d.second,
        };
        match dropout {
            None => (
                d.experts.clone(),
                weighed.weights(options.weights(), &d.experts),
            ),
            Some(dropout) => {
                let local = &inputs.local_experts;
                let e = local_expert(dropout.local_choice, row, d.first, local, ctx);
                (
                    vec![e],
                    vec![weighed.local_weight(dropout.local_weight, e, local)],
                )
            }
        }
    };
    let chosen: Vec<(Vec<usize>, Vec<f64>)> = rows
        .iter()
        .zip(&decisions)
        .map(|(row, d)| match (state.dropped, row) {
            (Some(DropMode::GateExpert), _) => (vec![], vec![]),
            (_, Some(row)) => weigh(row, d),
            // Faulty: the fault is to be seen downstream.
            (None, None) => (d.experts.clone(), vec![f64::NAN; d.experts.len()]),
            (Some(DropMode::Gate), None) => (vec![inputs.local_experts.start], vec![f64::NAN]),
        })
        .map(|(e, w)| {
            (
                e,
                w.iter()
                    .map(|w| w * f64::from(options.weight_scale))
                    .collect(),
            )
        })
        .collect();
    if let Some(dropout) = dropout
        && dropout.mode == DropMode::Gate
        && dropout.local_weight == LocalWeight::Original
    {
        state.weight_source = state.first_choice.clone();
    }

    let (alpha, c) = (
        f64::from(options.balance_alpha),
        f64::from(options.z_coefficient),
    );
    if alpha > 0.0 {
        state.load = losses::load(options.balance_over(), &decisions, experts);
    }
    let silent = dropout.is_some_and(|d| d.aux_loss == AuxLoss::Zero);
    if alpha > 0.0 && !silent {
        state.losses.balance = losses::balance(alpha, &state.load, &state.scores, scores);
    }
    if c > 0.0 && !silent {
        state.losses.z = losses::z(c, &state.lse);
    }
    fill(&mut state.selection, experts, &chosen);
    limit(&mut state, inputs, options);
    Ok(state)
}

/// Fills `scores`, `lse`, `noise`, `noisy_logits` and `status`, and returns the logits `[T, E]`
/// that the scores were made from.
fn score(
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    ctx: &StepContext,
    noisy: NoisyLogits<'_>,
    scores: Scores,
    state: &mut GateState<f64>,
) -> Result<Vec<f64>> {
    let experts = inputs.num_experts;
    let noise_logits = inputs
        .noise_logits
        .filter(|_| check::uses_noise(options, ctx));
    if let (NoisyLogits::Given(given), Some(_)) = (noisy, noise_logits) {
        let needed = inputs.num_tokens * experts;
        Error::check_shape("noisy logits (T·E)", given.len(), needed)?;
    }
    let mut all = Vec::new();
    for (t, z) in inputs
        .logits
        .iter()
        .flat_map(|logits| logits.iter())
        .enumerate()
    {
        let mut h = z.to_vec();
        let mut faulty = is_faulty(z);
        if let Some(noise_logits) = &noise_logits {
            let z_noise = noise_logits.row(t);
            faulty |= is_faulty(z_noise);
            for e in 0..experts {
                let n = f64::from(stochastic::router_noise(ctx, t, e));
                let exact = z[e] + n * softplus(z_noise[e]);
                h[e] = match noisy {
                    NoisyLogits::Given(given) => given[t * experts + e],
                    _ if is_masked(z[e]) => z[e],
                    NoisyLogits::Rounded => f64::from(exact as f32),
                    NoisyLogits::Exact => exact,
                };
                state.noise.push(n);
            }
            faulty |= is_faulty(&h);
            state.noisy_logits.extend_from_slice(&h);
        }
        let (p, lse) = match faulty {
            true => (vec![f64::NAN; experts], f64::NAN),
            false => scores_row(&h, scores),
        };
        if faulty {
            state.status.faulty_rows += 1;
            state.status.first_faulty_row.get_or_insert(t);
        }
        state.scores.extend(p);
        state.lse.push(lse);
        all.extend(h);
    }
    Ok(all)
}

/// The rows that scores were made of; `None` for a faulty one.
pub(super) fn rows<'a>(
    scores: &'a [f64],
    lse: &'a [f64],
    logits: &'a [f64],
    inputs: &'a GateInputs<'_, f64>,
) -> Vec<Option<Row<'a>>> {
    let experts = inputs.num_experts;
    let rows = logits
        .chunks_exact(experts)
        .zip(scores.chunks_exact(experts));
    rows.zip(lse)
        .enumerate()
        .map(|(token, ((z, p), lse))| {
            (!lse.is_nan()).then_some(Row {
                token,
                z,
                p,
                bias: inputs.selection_bias,
            })
        })
        .collect()
}

/// The gate's own decisions, before Gating Dropout and capacity.
fn decide(
    rows: &[Option<Row<'_>>],
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    ctx: &StepContext,
) -> Vec<Decision> {
    let decide = |row: &Option<Row<'_>>| match row {
        Some(row) => select::by_token(row, options, ctx),
        None => select::faulty(),
    };
    let mut decisions: Vec<Decision> = rows.iter().map(decide).collect();
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    if let Some(capacity) = options.router.expert_choice_tokens(tokens, experts) {
        let taken = select::by_expert(rows, experts, capacity);
        for (decision, experts) in decisions.iter_mut().zip(taken) {
            decision.experts = experts;
        }
    }
    decisions
}

/// The local expert of a token on a Gate-Drop step (Liu et al., ICML 2022).
fn local_expert(
    choice: LocalChoice,
    row: &Row<'_>,
    first_choice: usize,
    local: &std::ops::Range<usize>,
    ctx: &StepContext,
) -> usize {
    match choice {
        LocalChoice::RestrictedArgmax => row.ranked(local.clone())[0],
        LocalChoice::Modulo => dropout::modulo(first_choice, local),
        LocalChoice::Uniform => dropout::uniform(ctx, row.token, local),
    }
}

/// Writes per-token experts and weights as a table.
fn fill(table: &mut RoutingTable<f64>, experts: usize, rows: &[(Vec<usize>, Vec<f64>)]) {
    table.reset(experts);
    for (experts, weights) in rows {
        table
            .expert_indices
            .extend(experts.iter().map(|&e| e as i32));
        table.routing_weights.extend_from_slice(weights);
        table.end_token();
    }
    table.finish();
}

/// Applies the capacity, if there is one.
fn limit(state: &mut GateState<f64>, inputs: &GateInputs<'_, f64>, options: &GateOptions) {
    (state.table, state.kept) = match &options.capacity {
        None => (state.selection.clone(), Vec::new()),
        Some(c) => {
            let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
            let rows = rows_per_expert(c, &options.router, tokens, experts);
            capacity::limit(&state.selection, rows, c.order)
        }
    };
}
