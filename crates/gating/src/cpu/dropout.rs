//! A step that Gating Dropout dropped (Liu et al., ICML 2022): what runs instead of the gate's own
//! decision.

use std::ops::Range;

use tollgate_core::DropMode;
use tollgate_core::math::vectorized;
use tollgate_core::options::{GatingDropout, LocalChoice, LocalWeight, Scores};

use super::blocks::{BLOCK_ROWS, Team, fit};
use super::forward::biased;
use super::plan::Plan;
use super::softmax::{exponentials, row_max, sum};
use super::weights::share;
use crate::{GateState, dropout};

/// Replaces `selection` and fills `weight_source`. Scores and choices of the state are the gate's.
pub(super) fn run(
    team: Team,
    plan: &Plan<'_>,
    options: &GatingDropout,
    local: &Range<usize>,
    state: &mut GateState,
) {
    let (tokens, experts) = (plan.z.rows(), plan.experts);
    let table = &mut state.selection;
    if options.mode == DropMode::GateExpert {
        table.reset(experts);
        return fit(&mut table.token_offsets, tokens + 1);
    }
    fit(&mut table.expert_indices, tokens);
    fit(&mut table.routing_weights, tokens);
    for (t, offset) in table.token_offsets.iter_mut().enumerate() {
        *offset = t as i32;
    }
    let indices = table.expert_indices.chunks_mut(BLOCK_ROWS);
    let blocks = indices.zip(table.routing_weights.chunks_mut(BLOCK_ROWS));
    let blocks: Vec<_> = blocks.enumerate().collect();
    let (scores, first_choice, lse) = (&state.scores, &state.first_choice, &state.lse);
    team.run(blocks, Vec::new, |scratch, (b, (indices, weights))| {
        for (r, (index, weight)) in indices.iter_mut().zip(weights).enumerate() {
            let t = b * BLOCK_ROWS + r;
            let (z, p) = (plan.z.row(t), &scores[t * experts..(t + 1) * experts]);
            let first = first_choice[t] as usize;
            let faulty = lse[t].is_nan();
            let e = match options.local_choice {
                _ if faulty => local.start,
                LocalChoice::RestrictedArgmax => best_local(plan, z, p, local, scratch),
                LocalChoice::Modulo => dropout::modulo(first, local),
                LocalChoice::Uniform => dropout::uniform(&plan.ctx, t, local),
            };
            let w = match options.local_weight {
                _ if faulty => f32::NAN,
                LocalWeight::GateProb => p[e],
                LocalWeight::Original => p[first],
                LocalWeight::RestrictedSoftmax => {
                    local_shares(plan.scores, z, p, local, scratch);
                    scratch[e - local.start]
                }
                LocalWeight::One => 1.0,
            };
            *index = e as i32;
            *weight = w * plan.weight_scale;
        }
    });
    if options.local_weight == LocalWeight::Original {
        state.weight_source.extend_from_slice(&state.first_choice);
    }
    table.finish();
}

/// The best local expert by rank; the first where all are masked.
fn best_local(
    plan: &Plan<'_>,
    z: &[f32],
    p: &[f32],
    local: &Range<usize>,
    rank: &mut Vec<f32>,
) -> usize {
    fit(rank, local.len());
    let bias = plan.bias.map(|bias| &bias[local.clone()]);
    biased(&z[local.clone()], &p[local.clone()], bias, rank);
    let mut best = 0;
    for (i, &value) in rank.iter().enumerate() {
        best = if value > rank[best] { i } else { best };
    }
    local.start + best
}

/// Weight option `restricted_softmax` of a row that is not faulty: the shares of the local experts,
/// all 0 where all are masked.
pub(super) fn local_shares(
    scores: Scores,
    z: &[f32],
    p: &[f32],
    local: &Range<usize>,
    shares: &mut Vec<f32>,
) {
    fit(shares, local.len());
    let (z, p) = (&z[local.clone()], &p[local.clone()]);
    vectorized(
        #[inline(always)]
        || {
            let total = match scores {
                Scores::Softmax => exponentials(z, row_max(z), shares),
                Scores::Sigmoid => {
                    shares.copy_from_slice(p);
                    sum(p)
                }
            };
            let unmasked = total > 0.0;
            for value in shares.iter_mut() {
                *value = if unmasked { share(*value, total) } else { 0.0 };
            }
        },
    );
}
