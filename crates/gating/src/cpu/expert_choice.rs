//! Expert choice (Zhou et al., 2022): every expert takes its best tokens.

use tollgate_core::options::Weights;

use super::blocks::{Team, fit};
use super::plan::Plan;
use super::softmax::sum;
use super::weights::share;
use crate::GateState;

/// The key of a token in an expert's column; a larger key is served first. `None`: the token is not
/// in the column.
///
/// In front are faulty rows (in column 0 only), then larger scores, then masked ones; ties go to
/// the lower token.
fn key(expert: usize, token: usize, score: f32, masked: bool, faulty: bool) -> Option<u64> {
    let merit = match (faulty, masked) {
        (true, _) if expert > 0 => return None,
        (true, _) => u32::MAX,
        (false, true) => 0,
        // Scores are not negative: the order of their bits is theirs.
        (false, false) => score.to_bits() + 1,
    };
    Some(u64::from(merit) << 32 | u64::from(!(token as u32)))
}

/// Fills `selection` from the scores: every expert takes `capacity` tokens.
pub(super) fn run(team: Team, plan: &Plan<'_>, capacity: usize, state: &mut GateState) {
    let (tokens, experts) = (plan.z.rows(), plan.experts);
    let faulty = |token: usize| state.lse[token].is_nan();
    let mut chosen: Vec<Vec<u32>> = vec![Vec::new(); experts];
    let columns: Vec<_> = chosen.iter_mut().enumerate().collect();
    team.run(columns, Vec::new, |keys, (e, chosen)| {
        keys.clear();
        keys.extend((0..tokens).filter_map(|t| {
            let masked = plan.z.row(t)[e] == f32::NEG_INFINITY;
            key(e, t, state.scores[t * experts + e], masked, faulty(t))
        }));
        if capacity < keys.len() {
            keys.select_nth_unstable_by(capacity, |a, b| b.cmp(a));
            keys.truncate(capacity);
        }
        chosen.extend(keys.iter().map(|&key| !(key as u32)));
    });

    // Count, then fill by ascending expert: within a token experts ascend.
    let table = &mut state.selection;
    let offsets = &mut table.token_offsets;
    fit(offsets, tokens + 1);
    offsets.fill(0);
    chosen
        .iter()
        .flatten()
        .for_each(|&t| offsets[t as usize + 1] += 1);
    for t in 0..tokens {
        offsets[t + 1] += offsets[t];
    }
    let total = offsets[tokens] as usize;
    fit(&mut table.expert_indices, total);
    fit(&mut table.routing_weights, total);
    let mut next: Vec<i32> = offsets[..tokens].to_vec();
    for (e, chosen) in chosen.iter().enumerate() {
        for &t in chosen {
            let at = &mut next[t as usize];
            table.expert_indices[*at as usize] = e as i32;
            *at += 1;
        }
    }
    table.expert_offsets.resize(experts + 1, 0);
    table.finish();

    for t in 0..tokens {
        let assignments = table.assignments_of(t);
        let p = &state.scores[t * experts..(t + 1) * experts];
        let chosen = &table.expert_indices[assignments.clone()];
        let weights = &mut table.routing_weights[assignments];
        for (weight, &e) in weights.iter_mut().zip(chosen) {
            *weight = p[e as usize];
        }
        let of = match plan.weights {
            Weights::Prob => 1.0,
            Weights::Selected | Weights::Top2 => sum(weights),
        };
        weights
            .iter_mut()
            .for_each(|w| *w = share(*w, of) * plan.weight_scale);
    }
}
