//! Routers without a gate: hash, stochastic experts, ensemble.

use tollgate_core::options::{GateOptions, StochasticPer};
use tollgate_core::{Router, StepContext};

use super::blocks::fit;
use crate::{GateInputs, GateState, stochastic};

/// Fills `selection` and empties what only a gate fills.
pub(super) fn run(
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    ctx: &StepContext,
    state: &mut GateState,
) {
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    state.scores.clear();
    state.lse.clear();
    state.noise.clear();
    state.noisy_logits.clear();
    state.first_choice.clear();
    state.runner_up.clear();

    let per_token = options.router.max_experts_per_token(experts);
    let table = &mut state.selection;
    fit(&mut table.token_offsets, tokens + 1);
    for (t, offset) in table.token_offsets.iter_mut().enumerate() {
        *offset = (t * per_token) as i32;
    }
    fit(&mut table.expert_indices, tokens * per_token);
    fit(&mut table.routing_weights, tokens * per_token);
    table
        .routing_weights
        .fill(options.weight_scale / per_token as f32);

    let indices = &mut table.expert_indices;
    match options.router {
        Router::Hash => {
            let ids = inputs.token_ids.unwrap_or(&[]);
            for (index, &id) in indices.iter_mut().zip(ids) {
                *index = match inputs.hash_table {
                    Some(table) => table[id as usize],
                    None => stochastic::hash_expert(ctx, id, experts) as i32,
                };
            }
        }
        Router::Stochastic {
            per: StochasticPer::Batch,
        } => {
            indices.fill(stochastic::batch_expert(ctx, experts) as i32);
        }
        Router::Stochastic {
            per: StochasticPer::Sentence,
        } => {
            for pair in inputs.sequence_offsets.unwrap_or(&[]).windows(2) {
                let (start, end) = (pair[0] as usize, pair[1] as usize);
                if start < end {
                    let expert = stochastic::sentence_expert(ctx, start, experts);
                    indices[start..end].fill(expert as i32);
                }
            }
        }
        Router::Stochastic {
            per: StochasticPer::Token,
        } => {
            for (t, index) in indices.iter_mut().enumerate() {
                *index = stochastic::token_expert(ctx, t, experts) as i32;
            }
        }
        _ => {
            for (a, index) in indices.iter_mut().enumerate() {
                *index = (a % experts) as i32;
            }
        }
    }
    table.expert_offsets.resize(experts + 1, 0);
    table.finish();
}
