//! What a gate call computes for every row, settled once before the rows.

use tollgate_core::options::{Gap, GateOptions, Scores, SecondPolicy, Weights};
use tollgate_core::{Philox, Router, RowView, StepContext};

use super::search::Best;
use super::softmax::UNDERFLOW;
use crate::{GateInputs, stochastic};

/// How a row chooses its experts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice {
    /// The best by logit.
    One,
    /// The best two by logit.
    Two,
    /// The best by logit, and the second where [`Plan::takes_second`] says so.
    OneOrTwo,
    /// The k best by logit.
    Many { k: usize },
    /// The k best by score plus bias.
    Biased { k: usize },
    /// The k best of the best groups.
    Grouped {
        k: usize,
        groups: usize,
        top_groups: usize,
    },
    /// Nothing: the columns choose.
    Nothing,
}

/// A gate call with a gate: inputs and options as the passes over the rows need them.
#[derive(Debug, Clone)]
pub(super) struct Plan<'a> {
    /// `[T, E]` logits that the scores are made of: with noise, if there is noise.
    pub z: RowView<'a, f32>,
    /// `[T, E]` noise logits, if noise is added.
    pub noise_logits: Option<RowView<'a, f32>>,
    pub bias: Option<&'a [f32]>,
    pub experts: usize,
    pub router: Router,
    pub scores: Scores,
    pub choice: Choice,
    pub weights: Weights,
    pub weight_scale: f32,
    pub gap: Gap,
    /// Gap `top2`: the largest difference of two logits that are taken together.
    pub largest_gap: f64,
    pub ctx: StepContext,
    /// Whether the mean scores are summed for the balance loss.
    pub sums_shares: bool,
}

impl<'a> Plan<'a> {
    /// `z` are the logits of `inputs`, or those with noise.
    pub(super) fn new(
        inputs: &GateInputs<'a>,
        options: &GateOptions,
        ctx: &StepContext,
        scores: Scores,
        z: RowView<'a, f32>,
        noise_logits: Option<RowView<'a, f32>>,
    ) -> Self {
        let biased = inputs.selection_bias.is_some();
        let choice = match options.router {
            Router::TopK { k, .. } if biased => Choice::Biased { k },
            Router::TopK { k: 1, .. } | Router::Noisy { k: 1 } => Choice::One,
            Router::TopK {
                k: 2,
                scores: Scores::Softmax,
            }
            | Router::Noisy { k: 2 } => Choice::Two,
            Router::TopK { k, .. } | Router::Noisy { k } => Choice::Many { k },
            Router::Grouped {
                k,
                groups,
                top_groups,
                ..
            } => Choice::Grouped {
                k,
                groups,
                top_groups,
            },
            Router::Second {
                policy: SecondPolicy::None,
            } => Choice::One,
            Router::Adaptive { .. } | Router::Forced { .. } | Router::Second { .. } => {
                Choice::OneOrTwo
            }
            Router::ExpertChoice { .. }
            | Router::Hash
            | Router::Stochastic { .. }
            | Router::Ensemble => Choice::Nothing,
        };
        let largest_gap = match options.router {
            Router::Adaptive { tau } if tau < 1.0 => {
                let tau = f64::from(tau);
                ((1.0 + tau) / (1.0 - tau)).ln()
            }
            _ => f64::INFINITY,
        };
        Self {
            z,
            noise_logits,
            bias: inputs.selection_bias,
            experts: inputs.num_experts,
            router: options.router,
            scores,
            choice,
            weights: options.weights(),
            weight_scale: options.weight_scale,
            gap: options.gap,
            largest_gap,
            ctx: *ctx,
            sums_shares: options.balance_alpha > 0.0,
        }
    }

    /// The most assignments of a row in the pass over the rows.
    pub(super) fn most_of_a_row(&self) -> usize {
        match self.choice {
            Choice::Nothing => 0,
            Choice::One => 1,
            Choice::Two | Choice::OneOrTwo => self.experts.min(2),
            Choice::Many { k } | Choice::Biased { k } | Choice::Grouped { k, .. } => k,
        }
    }

    /// Whether a token takes its second expert too; that is not masked. `p` are the scores of both.
    ///
    /// Logits are compared in f64, where the difference of two f32 is all but exact.
    #[inline(always)]
    pub(super) fn takes_second(&self, token: usize, best: &Best, p: [f32; 2]) -> bool {
        let difference = || f64::from(best.first_value) - f64::from(best.second_value);
        match self.router {
            Router::Adaptive { tau } => match self.gap {
                Gap::Softmax => p[0] - p[1] <= tau,
                Gap::Top2 => difference() <= self.largest_gap,
            },
            Router::Forced { one_expert_share } => {
                !stochastic::forced_one(&self.ctx, token, one_expert_share)
            }
            Router::Second { policy } => self.second_stays(policy, token, difference()),
            _ => false,
        }
    }

    fn second_stays(&self, policy: SecondPolicy, token: usize, difference: f64) -> bool {
        // p_j / (p_i + p_j), where p_j may have underflowed.
        let share = || match (-difference as f32) < UNDERFLOW {
            true => 0.0,
            false => 1.0 / (1.0 + difference.exp()),
        };
        match policy {
            SecondPolicy::All => true,
            SecondPolicy::None => false,
            SecondPolicy::Threshold(tau) => share() > f64::from(tau),
            SecondPolicy::Random(0.0) => true,
            SecondPolicy::Random(tau) => {
                let word = stochastic::second_word(&self.ctx, token);
                Philox::happens(word, (share() / f64::from(tau)).min(1.0))
            }
        }
    }
}
