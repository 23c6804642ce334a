//! How far each token is from a decision that rounding could turn.

use tollgate_core::options::{DropOrder, Gap, GateOptions, LocalChoice, LocalWeight, SecondPolicy};
use tollgate_core::{DropMode, Result, Router, RoutingTable, StepContext};

use super::capacity::claims;
use super::gate::rows;
use super::select;
use super::select::{Row, descending, group_values, places, ranked_column, second_share};
use super::softmax::is_masked;
use crate::capacity::rows_per_expert;
use crate::{GateInputs, GateState, check, stochastic};

/// A margin above which f32 arithmetic takes the decisions of the reference.
///
/// A score in f32 errs relatively by the rounding of `z − max`, at most 88 · 2^-24 where the result
/// is no underflow (5.3e-6), plus once each the exponential (1.6e-7), the sum of positive terms and
/// the division: below 6e-6. A decision compares two such numbers or their sums: 1.2e-5. The bound
/// leaves a factor of 1.25.
pub const DECISION_BOUND: f64 = 1.0 / (1u64 << 16) as f64;

/// The size that smaller numbers are compared with: 2^-126 over [`DECISION_BOUND`]. What is no
/// normal number in f32 has an error of at most 2^-126, even where it is flushed to 0.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64 / DECISION_BOUND;

/// For every token the distance of the nearest decision about it, relative to the numbers that are
/// compared; ∞ where decisions compare logits or integers only, which no rounding turns.
///
/// `state` is what [`super::gate_with`] returned for the same arguments. Its noisy logits count as
/// exact: give those of the implementation ([`super::NoisyLogits::Given`]). A capacity makes
/// tokens depend on each other; every token then has the smallest margin of all.
///
/// # Errors
/// As [`super::gate`](fn@super::gate); a state that does not fit the inputs.
pub fn decision_margins(
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    ctx: &StepContext,
    state: &GateState<f64>,
) -> Result<Vec<f64>> {
    let zeros = vec![0.0; state.table.num_assignments()];
    check::backward_state(inputs, options, ctx, state, &zeros)?;
    let mut margins = vec![f64::INFINITY; inputs.num_tokens];
    let logits: Vec<f64> = match &inputs.logits {
        Some(_) if check::uses_noise(options, ctx) => state.noisy_logits.clone(),
        Some(logits) if options.router.has_gate() => logits.iter().flatten().copied().collect(),
        _ => Vec::new(),
    };
    let rows = rows(&state.scores, &state.lse, &logits, inputs);
    for row in rows.iter().flatten() {
        let local = local_margin(row, inputs, options, state);
        margins[row.token] = by_token(row, options, ctx).min(local);
    }
    if let Some(capacity) = options
        .router
        .expert_choice_tokens(inputs.num_tokens, inputs.num_experts)
    {
        for e in 0..inputs.num_experts {
            column_margins(&rows, e, capacity, &mut margins);
        }
    }
    if let Some(capacity) = &options.capacity {
        let constant = !options.router.has_gate()
            || state.dropped.is_some()
                && options
                    .gating_dropout
                    .is_some_and(|d| d.local_weight == LocalWeight::One);
        if capacity.order == DropOrder::Probability && !constant {
            let limit = rows_per_expert(
                capacity,
                &options.router,
                inputs.num_tokens,
                inputs.num_experts,
            );
            for e in 0..inputs.num_experts {
                place_margins(
                    &state.selection,
                    &rows,
                    e,
                    limit,
                    options.weight_scale,
                    &mut margins,
                );
            }
        }
        let smallest = margins.iter().copied().fold(f64::INFINITY, f64::min);
        margins.fill(smallest);
    }
    Ok(margins)
}

/// `|a − b|` relative to `size`.
fn relative(a: f64, b: f64, size: f64) -> f64 {
    (a - b).abs() / size.max(SMALLEST)
}

/// Of the decision that one row takes by itself.
fn by_token(row: &Row<'_>, options: &GateOptions, ctx: &StepContext) -> f64 {
    let order = row.ranked(0..row.z.len());
    let first = order[0];
    let second = order.get(1).copied().filter(|&j| !is_masked(row.z[j]));
    match options.router {
        Router::TopK { k, .. } => ranking_margin(row, &order, k),
        Router::Grouped {
            k,
            groups,
            top_groups,
            ..
        } => {
            let size = row.z.len() / groups;
            let experts = |g: usize| g * size..(g + 1) * size;
            let (kept, margin) = groups_margin(row, k, groups, top_groups);
            let order = row.ranked(kept.into_iter().flat_map(experts));
            margin.min(ranking_margin(row, &order, k))
        }
        Router::Adaptive { tau } => second.map_or(f64::INFINITY, |second| {
            let tau = f64::from(tau);
            let (zi, zj) = (row.z[first], row.z[second]);
            let (pi, pj) = (row.p[first], row.p[second]);
            match options.gap {
                // Equal logits have equal scores: the gap is exactly 0.
                _ if zi == zj => f64::INFINITY,
                Gap::Softmax => relative(pi - pj, tau, pi.max(tau)),
                Gap::Top2 if tau == 1.0 => f64::INFINITY,
                Gap::Top2 => {
                    let limit = select::top2_limit(tau);
                    relative(zi - zj, limit, limit.max(zi - zj))
                }
            }
        }),
        Router::Second { policy } => second.map_or(f64::INFINITY, |second| {
            let share = second_share(row.z[first], row.z[second]);
            match policy {
                // Underflow is exact.
                _ if share == 0.0 => f64::INFINITY,
                SecondPolicy::Threshold(tau) => {
                    let tau = f64::from(tau);
                    relative(share, tau, share.max(tau))
                }
                SecondPolicy::Random(tau) if tau > 0.0 => {
                    let word = stochastic::second_word(ctx, row.token);
                    let drawn = f64::from(word) / 4_294_967_296.0;
                    let chance = share / f64::from(tau);
                    relative(chance, drawn, chance.max(drawn))
                }
                SecondPolicy::All | SecondPolicy::None | SecondPolicy::Random(_) => f64::INFINITY,
            }
        }),
        _ => f64::INFINITY,
    }
}

/// Of the order of the best `k` in `order` and of the place behind them. Logits compare exactly.
fn ranking_margin(row: &Row<'_>, order: &[usize], k: usize) -> f64 {
    let Some(bias) = row.bias else {
        return f64::INFINITY;
    };
    let size = |e: usize| row.p[e] + bias[e].abs();
    let pair = |pair: &[usize]| {
        let (a, b) = (pair[0], pair[1]);
        let same = row.z[a] == row.z[b] && bias[a] == bias[b];
        // Scores that underflowed leave the biases, which compare exactly.
        let only_bias = row.p[a] == 0.0 && row.p[b] == 0.0;
        if same || only_bias || is_masked(row.z[b]) {
            return f64::INFINITY;
        }
        relative(row.rank(a), row.rank(b), size(a).max(size(b)))
    };
    order[..order.len().min(k + 1)]
        .windows(2)
        .map(pair)
        .fold(f64::INFINITY, f64::min)
}

/// The groups that may be chosen from, ascending, and how far the last is from the next one.
fn groups_margin(row: &Row<'_>, k: usize, groups: usize, top_groups: usize) -> (Vec<usize>, f64) {
    let size = row.z.len() / groups;
    let values: Vec<Vec<f64>> = (0..groups)
        .map(|g| group_values(row, g, size, places(k, top_groups)))
        .collect();
    let merit = |g: usize| values[g].iter().sum::<f64>();
    let mut order: Vec<usize> = (0..groups).collect();
    order.sort_by(|&a, &b| descending(merit(a), merit(b)));
    let margin = match order.get(top_groups) {
        None => f64::INFINITY,
        Some(&next) => {
            let last = order[top_groups - 1];
            let bias = row
                .bias
                .map_or(0.0, |bias| bias.iter().fold(0.0, |m, b| b.abs().max(m)));
            let terms = values[last].len() as f64;
            if values[last] == values[next] || is_masked(merit(next)) {
                f64::INFINITY
            } else {
                let size = merit(last).abs().max(merit(next).abs()) + 2.0 * terms * bias;
                relative(merit(last), merit(next), size)
            }
        }
    };
    order.truncate(top_groups);
    order.sort_unstable();
    (order, margin)
}

/// Of the best local expert on a Gate-Drop step.
fn local_margin(
    row: &Row<'_>,
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    state: &GateState<f64>,
) -> f64 {
    let ranked = state.dropped == Some(DropMode::Gate)
        && options
            .gating_dropout
            .is_some_and(|d| d.local_choice == LocalChoice::RestrictedArgmax);
    if ranked {
        ranking_margin(row, &row.ranked(inputs.local_experts.clone()), 1)
    } else {
        f64::INFINITY
    }
}

/// Of one expert's choice of tokens.
fn column_margins(rows: &[Option<Row<'_>>], expert: usize, capacity: usize, margins: &mut [f64]) {
    let order: Vec<usize> = ranked_column(rows, expert)
        .into_iter()
        .filter(|&t| rows[t].is_some())
        .collect();
    let faulty = if expert == 0 {
        rows.iter().filter(|r| r.is_none()).count()
    } else {
        0
    };
    let taken = capacity.saturating_sub(faulty).min(order.len());
    let candidate = |t: usize| {
        match rows[t].as_ref() {
            // Scores of exactly 0 tie whatever the logits were.
            Some(row) if row.p[expert] != 0.0 => (row.p[expert], row.z),
            _ => (0.0, &[][..]),
        }
    };
    let unmasked = |t: usize| {
        rows[t]
            .as_ref()
            .is_some_and(|row| !is_masked(row.z[expert]))
    };
    boundary(&order, taken, candidate, unmasked, margins);
}

/// Of one expert's places under a capacity by probability.
fn place_margins(
    selection: &RoutingTable<f64>,
    rows: &[Option<Row<'_>>],
    expert: usize,
    limit: usize,
    scale: f32,
    margins: &mut [f64],
) {
    let claims = claims(selection, expert, DropOrder::Probability);
    let order: Vec<usize> = claims.iter().map(|c| c.token).collect();
    let weight_of = |t: usize| {
        claims
            .iter()
            .find(|c| c.token == t)
            .map_or(0.0, |c| c.weight)
    };
    let candidate = |t: usize| {
        let weight = weight_of(t);
        // A share of everything is exactly 1 and one of nothing 0, whatever the logits were.
        let exact = weight == f64::from(scale) || weight == 0.0;
        let row = rows[t].as_ref().filter(|_| !exact);
        (weight, row.map_or(&[][..], |row| row.z))
    };
    boundary(
        &order,
        limit.min(order.len()),
        candidate,
        |t| !weight_of(t).is_nan(),
        margins,
    );
}

/// Lowers the margins of the tokens in `order` (best first), of which the first `taken` are taken,
/// to their distance from the other side. Tokens with equal values and equal logits tie exactly.
fn boundary<'a>(
    order: &[usize],
    taken: usize,
    candidate: impl Fn(usize) -> (f64, &'a [f64]),
    comparable: impl Fn(usize) -> bool,
    margins: &mut [f64],
) {
    let (inside, outside) = order.split_at(taken);
    let twins = |(a, za): (f64, &[f64]), (b, zb): (f64, &[f64])| a == b && za == zb;
    let mut lower = |token: usize, nearest_first: &[usize]| {
        let nearest = nearest_first.iter().find(|&&other| {
            comparable(token) && comparable(other) && !twins(candidate(token), candidate(other))
        });
        if let Some(&other) = nearest {
            let (a, b) = (candidate(token).0, candidate(other).0);
            margins[token] = margins[token].min(relative(a, b, a.abs().max(b.abs())));
        }
    };
    for &token in inside {
        lower(token, outside);
    }
    let inside_worst_first: Vec<usize> = inside.iter().rev().copied().collect();
    for &token in outside {
        lower(token, &inside_worst_first);
    }
}
