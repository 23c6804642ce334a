//! The pass over the rows: scores, log-sum-exp, choice and weights of a token in one go, while its
//! logits are in the cache.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use tollgate_core::options::{Scores, Weights};

use super::blocks::{BLOCK_ROWS, Parts, Team, fit};
use super::plan::{Choice, Plan};
use super::search::{Best, LANES, TopK, best_two, max};
use super::softmax::{degenerate, exponentials, is_faulty, log_sums, scale, sigmoids, sum};
use super::weights::{share, write_all};
use super::{grouped, table};
use crate::GateState;

/// What the blocks of rows add up.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// `[E]` Σ_t of the scores' shares; empty if not asked for.
    pub shares: Vec<f64>,
    /// Σ_t lse², without faulty and fully masked rows.
    pub squares: f64,
}

/// The rows of one unit of work, and where their results go.
struct Block<'a> {
    first_row: usize,
    /// `[rows, E]`.
    scores: &'a mut [f32],
    lse: &'a mut [f32],
    first_choice: &'a mut [i32],
    /// Empty unless asked for.
    runner_up: &'a mut [i32],
    assignments: Assignments<'a>,
    /// `[E]`, or empty.
    shares: &'a mut [f64],
    summary: &'a mut Summary,
}

/// The assignments of a block, packed from the start of its part of the table.
pub(super) struct Assignments<'a> {
    experts: &'a mut [i32],
    weights: &'a mut [f32],
    /// `[rows]` the number of assignments up to and with each row.
    ends: &'a mut [i32],
    /// `[E]`.
    counts: &'a mut [i32],
    len: usize,
}

impl Assignments<'_> {
    #[inline(always)]
    pub(super) fn push(&mut self, expert: usize, weight: f32) {
        self.experts[self.len] = expert as i32;
        self.weights[self.len] = weight;
        self.counts[expert] += 1;
        self.len += 1;
    }
}

/// The numbers that a block adds to those of the batch.
#[derive(Debug, Clone, Copy, Default)]
struct Summary {
    assignments: usize,
    faulty_rows: usize,
    first_faulty_row: Option<usize>,
    squares: f64,
}

/// Rows that go through each phase together: the phases of one row wait for each other, those of
/// several rows overlap.
const BATCH: usize = 4;

/// Memory that the rows of a thread share.
struct Scratch {
    /// E rounded up to [`LANES`].
    width: usize,
    /// `[BATCH, width]` copies of logits and scores where E is not `width`; padding is −∞.
    z: Vec<f32>,
    p: Vec<f32>,
    /// `[width]` what experts are ranked by, where that is not the logit.
    rank: Vec<f32>,
    best: [Best; BATCH],
    /// `[BATCH, k]` the best k by logit, best first.
    order: Vec<u32>,
    /// Sums of exponentials.
    sums: [f32; BLOCK_ROWS],
    /// By what the scores of a row become shares that add up to 1.
    factors: [f32; BATCH],
    top: TopK,
    groups: grouped::Scratch,
}

impl Scratch {
    fn new(plan: &Plan<'_>) -> Self {
        let width = plan.experts.next_multiple_of(LANES);
        let padded = |rows: usize| vec![f32::NEG_INFINITY; rows * width];
        let copies = if width == plan.experts { 0 } else { BATCH };
        let ordered = if let Choice::Many { k } = plan.choice {
            k
        } else {
            0
        };
        Self {
            width,
            z: padded(copies),
            p: padded(copies),
            rank: padded(1),
            best: [Best::default(); BATCH],
            order: vec![0; BATCH * ordered],
            sums: [0.0; BLOCK_ROWS],
            factors: [0.0; BATCH],
            top: TopK::default(),
            groups: grouped::Scratch::default(),
        }
    }
}

/// Fills scores, log-sum-exp, choices, status and `selection` of the state (the last stays empty
/// for expert choice) and returns the sums that the losses are made of.
pub(super) fn run(team: Team, plan: &Plan<'_>, state: &mut GateState) -> Sums {
    let (tokens, experts) = (plan.z.rows(), plan.experts);
    let most = plan.most_of_a_row();
    let blocks = tokens.div_ceil(BLOCK_ROWS);
    fit(&mut state.scores, tokens * experts);
    fit(&mut state.lse, tokens);
    fit(&mut state.first_choice, tokens);
    let keeps_second = plan.weights == Weights::Top2;
    fit(&mut state.runner_up, if keeps_second { tokens } else { 0 });
    let selection = &mut state.selection;
    fit(&mut selection.expert_indices, tokens * most);
    fit(&mut selection.routing_weights, tokens * most);
    fit(&mut selection.token_offsets, tokens + 1);
    selection.token_offsets[0] = 0;

    let summed = if plan.sums_shares { experts } else { 0 };
    let mut counts = vec![0i32; blocks * experts];
    let mut shares = vec![0f64; blocks * summed];
    let mut summaries = vec![Summary::default(); blocks];
    let mut scores = Parts::new(&mut state.scores, experts);
    let mut lse = Parts::new(&mut state.lse, 1);
    let mut first_choice = Parts::new(&mut state.first_choice, 1);
    let mut runner_up = Parts::new(&mut state.runner_up, usize::from(keeps_second));
    let mut indices = Parts::new(&mut selection.expert_indices, most);
    let mut weights = Parts::new(&mut selection.routing_weights, most);
    let mut ends = Parts::new(&mut selection.token_offsets[1..], 1);
    let mut of_counts = Parts::new(&mut counts, experts);
    let mut of_shares = Parts::new(&mut shares, summed);
    let tasks: Vec<Block<'_>> = summaries
        .iter_mut()
        .enumerate()
        .map(|(b, summary)| {
            let first_row = b * BLOCK_ROWS;
            let rows = BLOCK_ROWS.min(tokens - first_row);
            Block {
                first_row,
                scores: scores.take(rows),
                lse: lse.take(rows),
                first_choice: first_choice.take(rows),
                runner_up: runner_up.take(rows),
                assignments: Assignments {
                    experts: indices.take(rows),
                    weights: weights.take(rows),
                    ends: ends.take(rows),
                    counts: of_counts.take(1),
                    len: 0,
                },
                shares: of_shares.take(1),
                summary,
            }
        })
        .collect();
    team.run(
        tasks,
        || Scratch::new(plan),
        |scratch, block| {
            Arch::new().dispatch(Pass {
                plan,
                block,
                scratch,
            })
        },
    );

    let used: Vec<usize> = summaries.iter().map(|s| s.assignments).collect();
    table::close_gaps(&mut state.selection, &used, most * BLOCK_ROWS);
    table::offsets_from_counts(&mut state.selection, experts, &counts);
    state.status.faulty_rows = summaries.iter().map(|s| s.faulty_rows).sum();
    state.status.first_faulty_row = summaries.iter().find_map(|s| s.first_faulty_row);
    let mut sums = Sums {
        shares: vec![0.0; summed],
        squares: summaries.iter().map(|s| s.squares).sum(),
    };
    for block in shares.chunks_exact(experts) {
        for (total, share) in sums.shares.iter_mut().zip(block) {
            *total += share;
        }
    }
    sums
}

/// The rows of a block, compiled for each instruction set.
struct Pass<'a, 'b> {
    plan: &'a Plan<'a>,
    block: Block<'b>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Pass<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            plan,
            mut block,
            scratch,
        } = self;
        let rows = block.lse.len();
        for start in (0..rows).step_by(BATCH) {
            let batch = start..rows.min(start + BATCH);
            for (i, r) in batch.clone().enumerate() {
                order_by_logit(simd, plan, &block, scratch, i, r);
            }
            for (i, r) in batch.clone().enumerate() {
                score(plan, &mut block, scratch, i, r);
            }
            if plan.sums_shares {
                add_shares(&mut block, &scratch.factors, batch.clone());
            }
            for (i, r) in batch.enumerate() {
                decide(simd, plan, &mut block, scratch, i, r);
                block.assignments.ends[r] = block.assignments.len as i32;
            }
        }
        log_sums(&scratch.sums, block.lse);
        block.summary.assignments = block.assignments.len;
        block.summary.squares = squares(block.lse);
    }
}

/// Σ lse² without the rows that are faulty or fully masked, in 8 partial sums.
#[inline(always)]
fn squares(lse: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let (whole, rest) = lse.as_chunks::<8>();
    let square = |lse: f32| {
        let lse = f64::from(if lse.is_finite() { lse } else { 0.0 });
        lse * lse
    };
    for values in whole {
        for i in 0..8 {
            lanes[i] += square(values[i]);
        }
    }
    rest.iter()
        .zip(&mut lanes)
        .for_each(|(&lse, lane)| *lane += square(lse));
    lanes.iter().sum()
}

/// The padded logits of a row, the i-th of its batch.
#[inline(always)]
fn logits<'a>(
    plan: &Plan<'a>,
    copies: &'a [f32],
    width: usize,
    token: usize,
    i: usize,
) -> &'a [f32] {
    if width == plan.experts {
        plan.z.row(token)
    } else {
        &copies[i * width..(i + 1) * width]
    }
}

/// Phase 1: the best by logit, which are known before the scores; and the largest logit with them.
#[inline(always)]
fn order_by_logit<S: Simd>(
    simd: S,
    plan: &Plan<'_>,
    block: &Block<'_>,
    scratch: &mut Scratch,
    i: usize,
    r: usize,
) {
    let token = block.first_row + r;
    let width = scratch.width;
    if width != plan.experts {
        let copy = &mut scratch.z[i * width..][..plan.experts];
        copy.copy_from_slice(plan.z.row(token));
    }
    let z = logits(plan, &scratch.z, width, token, i);
    scratch.best[i] = match plan.choice {
        Choice::Many { k } => {
            let found = scratch.top.find(simd, z, plan.experts, k);
            let order = &mut scratch.order[i * k..(i + 1) * k];
            // Fewer are found only where a NaN hides some.
            order.iter_mut().zip(found).for_each(|(o, &e)| *o = e);
            let first = order[0] as usize;
            Best {
                first,
                first_value: z[first],
                ..Best::default()
            }
        }
        Choice::Biased { .. } | Choice::Grouped { .. } => Best {
            first_value: max(simd, z),
            ..Best::default()
        },
        _ => best_two(simd, z),
    };
}

/// Phase 2: scores and their sum over the batch; for the log-sum-exp the largest logit is left in
/// `lse`.
#[inline(always)]
fn score(plan: &Plan<'_>, block: &mut Block<'_>, scratch: &mut Scratch, i: usize, r: usize) {
    let (experts, width) = (plan.experts, scratch.width);
    let token = block.first_row + r;
    let z = logits(plan, &scratch.z, width, token, i);
    let scores = &mut block.scores[r * experts..(r + 1) * experts];
    let p: &mut [f32] = if width == experts {
        &mut *scores
    } else {
        &mut scratch.p[i * width..(i + 1) * width]
    };
    let largest = scratch.best[i].first_value;
    let total = exponentials(z, largest, p);
    let noise = plan.noise_logits.as_ref();
    let faulty = noise.is_some_and(|noise| is_faulty(noise.row(token)));
    let regular = total >= 1.0;
    if faulty || !regular {
        let lse = if faulty { f32::NAN } else { degenerate(z) };
        scratch.sums[r] = f32::NAN;
        block.lse[r] = lse;
        p.fill(if lse.is_nan() { f32::NAN } else { 0.0 });
    } else {
        scratch.sums[r] = total;
        block.lse[r] = largest;
        scratch.factors[i] = match plan.scores {
            Scores::Softmax => {
                scale(p, 1.0 / total);
                1.0
            }
            Scores::Sigmoid => {
                sigmoids(z, p);
                // Padding is a masked expert: its sigmoid is 0.
                let sum = sum(p);
                if sum > 0.0 { 1.0 / sum } else { 0.0 }
            }
        };
    }
    if width != experts {
        scores.copy_from_slice(&scratch.p[i * width..][..experts]);
    }
}

/// Adds the shares of a batch to those of its block: its rows in f32, all else in f64. A faulty row
/// makes them NaN, as it makes the loss.
#[inline(always)]
fn add_shares(block: &mut Block<'_>, factors: &[f32; BATCH], batch: Range<usize>) {
    let experts = block.shares.len();
    let rows = &block.scores[batch.start * experts..batch.end * experts];
    let (whole, rest) = block.shares.as_chunks_mut::<LANES>();
    for (c, sums) in whole.iter_mut().enumerate() {
        let mut lanes = [0f32; LANES];
        for (row, &factor) in rows.chunks_exact(experts).zip(factors) {
            let p = &row[c * LANES..(c + 1) * LANES];
            for i in 0..LANES {
                lanes[i] = p[i].mul_add(factor, lanes[i]);
            }
        }
        for i in 0..LANES {
            sums[i] += f64::from(lanes[i]);
        }
    }
    for (sum, e) in rest.iter_mut().zip(experts - experts % LANES..) {
        let column = rows.iter().skip(e).step_by(experts);
        let share = column
            .zip(factors)
            .fold(0f32, |share, (&p, &factor)| p.mul_add(factor, share));
        *sum += f64::from(share);
    }
}

/// Phase 3: which experts the token takes, and their weights.
#[inline(always)]
fn decide<S: Simd>(
    simd: S,
    plan: &Plan<'_>,
    block: &mut Block<'_>,
    scratch: &mut Scratch,
    i: usize,
    r: usize,
) {
    if block.lse[r].is_nan() {
        return faulty_row(plan, block, r);
    }
    let (experts, width) = (plan.experts, scratch.width);
    let token = block.first_row + r;
    let z = logits(plan, &scratch.z, width, token, i);
    let p = &block.scores[r * experts..(r + 1) * experts];
    let best = &mut scratch.best[i];
    let found: &[u32] = match plan.choice {
        Choice::Many { k } => &scratch.order[i * k..(i + 1) * k],
        Choice::Biased { k } => {
            biased(z, p, plan.bias, &mut scratch.rank[..experts]);
            scratch.top.find(simd, &scratch.rank, experts, k)
        }
        Choice::Grouped {
            k,
            groups,
            top_groups,
        } => {
            let shape = grouped::Shape {
                k,
                groups,
                top_groups,
                experts,
            };
            grouped::find(simd, shape, z, p, plan.bias, &mut scratch.groups)
        }
        _ => &[],
    };
    if let Some(&first) = found.first() {
        best.first = first as usize;
        write_all(plan, found, p, &mut block.assignments);
    } else {
        write_best(plan, best, p, token, &mut block.assignments);
    }
    block.first_choice[r] = best.first as i32;
    if let Some(runner_up) = block.runner_up.get_mut(r) {
        let masked = best.second_value == f32::NEG_INFINITY;
        *runner_up = if masked { -1 } else { best.second as i32 };
    }
}

/// The decision about a faulty row: exactly expert 0, with a weight that shows the fault.
#[cold]
fn faulty_row(plan: &Plan<'_>, block: &mut Block<'_>, r: usize) {
    if !matches!(plan.choice, Choice::Nothing) {
        block.assignments.push(0, f32::NAN);
    }
    block.first_choice[r] = 0;
    if let Some(runner_up) = block.runner_up.get_mut(r) {
        *runner_up = -1;
    }
    block.summary.faulty_rows += 1;
    block
        .summary
        .first_faulty_row
        .get_or_insert(block.first_row + r);
}

/// `rank = p + bias`, −∞ where the logit is.
#[inline(always)]
pub(super) fn biased(z: &[f32], p: &[f32], bias: Option<&[f32]>, rank: &mut [f32]) {
    let Some(bias) = bias else {
        return rank.copy_from_slice(&z[..rank.len()]);
    };
    for (((rank, &z), &p), &bias) in rank.iter_mut().zip(z).zip(p).zip(bias) {
        *rank = if z == f32::NEG_INFINITY { z } else { p + bias };
    }
}

/// The routers that take the best, or the best two by logit.
#[inline(always)]
fn write_best(plan: &Plan<'_>, best: &Best, p: &[f32], token: usize, out: &mut Assignments<'_>) {
    let masked = best.second_value == f32::NEG_INFINITY;
    let first = p[best.first];
    let second = if masked { 0.0 } else { p[best.second] };
    let two = match plan.choice {
        Choice::Nothing => return,
        // A fixed k takes masked experts as well.
        Choice::Two => true,
        Choice::OneOrTwo => !masked && plan.takes_second(token, best, [first, second]),
        _ => false,
    };
    let of = match plan.weights {
        Weights::Prob => 1.0,
        Weights::Selected if two => first + second,
        Weights::Selected => first,
        Weights::Top2 => first + second,
    };
    out.push(best.first, share(first, of) * plan.weight_scale);
    if two {
        out.push(best.second, share(second, of) * plan.weight_scale);
    }
}
