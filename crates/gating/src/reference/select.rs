//! Which experts a token takes.

use tollgate_core::options::{Gap, GateOptions, SecondPolicy, StochasticPer};
use tollgate_core::{Philox, Router, StepContext};

use super::softmax::{exponential, is_masked};
use crate::{GateInputs, stochastic};

/// One token as the selection sees it: a row that is not faulty.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// Index within the batch.
    pub token: usize,
    /// `[E]` logits that the scores were made from (noisy ones, if noise was added).
    pub z: &'a [f64],
    /// `[E]` scores.
    pub p: &'a [f64],
    /// `[E]` selection bias.
    pub bias: Option<&'a [f64]>,
}

impl Row<'_> {
    /// Score plus bias; −∞ for a masked expert. What groups add up.
    pub fn biased(&self, expert: usize) -> f64 {
        if is_masked(self.z[expert]) {
            f64::NEG_INFINITY
        } else {
            self.p[expert] + self.bias.map_or(0.0, |b| b[expert])
        }
    }

    /// What experts are compared by: the logit, or with a selection bias score plus bias.
    pub fn rank(&self, expert: usize) -> f64 {
        if self.bias.is_some() {
            self.biased(expert)
        } else {
            self.z[expert]
        }
    }

    /// `experts` (ascending), best first; ties by the lower index, since the sort is stable.
    pub fn ranked(&self, experts: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut order: Vec<usize> = experts.collect();
        order.sort_by(|&a, &b| descending(self.rank(a), self.rank(b)));
        order
    }
}

/// A total order, larger first; 0 and −0 are equal. NaNs are equal to each other and come before
/// all numbers.
pub(super) fn descending(a: f64, b: f64) -> std::cmp::Ordering {
    b.partial_cmp(&a)
        .unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// What the gate decided for one token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    /// The experts taken, best first.
    pub experts: Vec<usize>,
    /// The best.
    pub first: usize,
    /// The second best, unless there is none or it is masked.
    pub second: Option<usize>,
}

/// The decision about a faulty row: exactly expert 0.
pub(super) fn faulty() -> Decision {
    Decision {
        experts: vec![0],
        first: 0,
        second: None,
    }
}

/// The decision of every router whose tokens choose.
pub(super) fn by_token(row: &Row<'_>, options: &GateOptions, ctx: &StepContext) -> Decision {
    let candidates = match options.router {
        Router::Grouped {
            k,
            groups,
            top_groups,
            ..
        } => {
            let mut kept = best_groups(row, k, groups, top_groups);
            kept.sort_unstable();
            let size = row.z.len() / groups;
            row.ranked(kept.into_iter().flat_map(|g| g * size..(g + 1) * size))
        }
        _ => row.ranked(0..row.z.len()),
    };
    let first = candidates[0];
    let second = candidates.get(1).copied().filter(|&j| !is_masked(row.z[j]));
    let one_or_two = |two: bool| {
        let second = second.filter(|_| two);
        std::iter::once(first).chain(second).collect()
    };
    let experts = match options.router {
        Router::TopK { k, .. } | Router::Grouped { k, .. } | Router::Noisy { k } => {
            candidates[..k].to_vec()
        }
        Router::Adaptive { tau } => one_or_two(second.is_some_and(|second| {
            let tau = f64::from(tau);
            match options.gap {
                Gap::Softmax => row.p[first] - row.p[second] <= tau,
                Gap::Top2 => tau == 1.0 || row.z[first] - row.z[second] <= top2_limit(tau),
            }
        })),
        Router::Forced { one_expert_share } => {
            one_or_two(!stochastic::forced_one(ctx, row.token, one_expert_share))
        }
        Router::Second { policy } => one_or_two(second.is_some_and(|second| {
            let share = second_share(row.z[first], row.z[second]);
            match policy {
                SecondPolicy::All => true,
                SecondPolicy::None => false,
                SecondPolicy::Threshold(tau) => share > f64::from(tau),
                SecondPolicy::Random(0.0) => true,
                SecondPolicy::Random(tau) => {
                    let word = stochastic::second_word(ctx, row.token);
                    Philox::happens(word, (share / f64::from(tau)).min(1.0))
                }
            }
        })),
        // Its columns choose, see `by_expert`; the gateless routers do not come here.
        Router::ExpertChoice { .. }
        | Router::Hash
        | Router::Stochastic { .. }
        | Router::Ensemble => Vec::new(),
    };
    Decision {
        experts,
        first,
        second,
    }
}

/// The gap in logits up to which `tanh((z_i − z_j)/2) ≤ τ`.
pub(super) fn top2_limit(tau: f64) -> f64 {
    ((1.0 + tau) / (1.0 - tau)).ln()
}

/// g2, the second expert's share of the best two: `p_j / (p_i + p_j)`, with `z_first` the larger.
pub(super) fn second_share(z_first: f64, z_second: f64) -> f64 {
    let ratio = exponential(z_second - z_first);
    ratio / (1.0 + ratio)
}

/// Scores that a group's merit adds up.
pub(super) fn places(k: usize, top_groups: usize) -> usize {
    k.div_ceil(top_groups)
}

/// A group's best scores (plus bias), best first: as many as its merit adds up.
pub(super) fn group_values(row: &Row<'_>, group: usize, size: usize, places: usize) -> Vec<f64> {
    let mut values: Vec<f64> = (group * size..(group + 1) * size)
        .map(|e| row.biased(e))
        .collect();
    values.sort_by(|&a, &b| descending(a, b));
    values.truncate(places);
    values
}

/// The groups that may be chosen from, best first.
fn best_groups(row: &Row<'_>, k: usize, groups: usize, top_groups: usize) -> Vec<usize> {
    let size = row.z.len() / groups;
    let merit = |g| {
        group_values(row, g, size, places(k, top_groups))
            .iter()
            .sum::<f64>()
    };
    let merits: Vec<f64> = (0..groups).map(merit).collect();
    let mut order: Vec<usize> = (0..groups).collect();
    order.sort_by(|&a, &b| descending(merits[a], merits[b]));
    order.truncate(top_groups);
    order
}

/// Expert choice (Zhou et al., 2022): every expert takes the `capacity` best tokens of its column.
/// `rows[t]` is `None` for a faulty row. Returns the experts of every token, ascending.
pub(super) fn by_expert(
    rows: &[Option<Row<'_>>],
    num_experts: usize,
    capacity: usize,
) -> Vec<Vec<usize>> {
    let mut experts = vec![Vec::new(); rows.len()];
    for e in 0..num_experts {
        for token in ranked_column(rows, e).into_iter().take(capacity) {
            experts[token].push(e);
        }
    }
    experts
}

/// The tokens of an expert's column, best first: faulty rows (in column 0 only), then larger p,
/// masked ones last, ties by the lower token.
pub(super) fn ranked_column(rows: &[Option<Row<'_>>], expert: usize) -> Vec<usize> {
    let merit = |t: usize| match &rows[t] {
        None => f64::INFINITY,
        Some(row) if is_masked(row.z[expert]) => -1.0,
        Some(row) => row.p[expert],
    };
    let mut tokens: Vec<usize> = (0..rows.len())
        .filter(|&t| expert == 0 || rows[t].is_some())
        .collect();
    tokens.sort_by(|&a, &b| descending(merit(a), merit(b)));
    tokens
}

/// The experts of every token under a router without a gate. All have the same weight.
pub(super) fn without_gate(
    inputs: &GateInputs<'_, f64>,
    router: &Router,
    ctx: &StepContext,
) -> Vec<Vec<usize>> {
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    match router {
        Router::Hash => {
            let expert = |&id: &i32| match inputs.hash_table {
                Some(table) => table[id as usize] as usize,
                None => stochastic::hash_expert(ctx, id, experts),
            };
            inputs
                .token_ids
                .unwrap_or(&[])
                .iter()
                .map(|id| vec![expert(id)])
                .collect()
        }
        Router::Stochastic { per } => {
            let token = |t| match per {
                StochasticPer::Batch => stochastic::batch_expert(ctx, experts),
                StochasticPer::Token => stochastic::token_expert(ctx, t, experts),
                StochasticPer::Sentence => {
                    // The last offset that is not above t begins its sequence.
                    let offsets = inputs.sequence_offsets.unwrap_or(&[0]);
                    let starts = offsets.iter().map(|&o| o as usize);
                    let start = starts.filter(|&o| o <= t).max().unwrap_or(0);
                    stochastic::sentence_expert(ctx, start, experts)
                }
            };
            (0..tokens).map(|t| vec![token(t)]).collect()
        }
        _ => (0..tokens).map(|_| (0..experts).collect()).collect(),
    }
}
