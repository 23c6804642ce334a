//! Combine weights of the chosen experts, and their gradient with respect to the logits.
//!
//! `g` is the gradient of the loss with respect to the weights before `weight_scale`, one for each
//! chosen expert; no gradient flows through the choice itself.

use tollgate_core::options::{LocalWeight, Scores, Weights};

use super::select::second_share;
use super::softmax::{is_masked, softmax_row};

/// One token whose chosen experts are weighed: a row that is not faulty.
#[derive(Clone, Copy)]
pub(super) struct Weighed<'a> {
    /// `[E]` logits.
    pub z: &'a [f64],
    /// `[E]` scores.
    pub p: &'a [f64],
    /// How the scores were made.
    pub scores: Scores,
    /// The best expert.
    pub first: usize,
    /// The second best, unless there is none or it is masked.
    pub second: Option<usize>,
}

impl Weighed<'_> {
    /// Weights of the experts `chosen`, in their order.
    pub fn weights(&self, option: Weights, chosen: &[usize]) -> Vec<f64> {
        match option {
            Weights::Prob => chosen.iter().map(|&e| self.p[e]).collect(),
            Weights::Selected => self.renormalized(chosen),
            Weights::Top2 => {
                let (first, second) = self.top2();
                let weight = |&e: &usize| match e {
                    _ if e == self.first => first,
                    _ if Some(e) == self.second => second,
                    _ => 0.0,
                };
                chosen.iter().map(weight).collect()
            }
        }
    }

    /// `p_i / Σ_S p`; 0 where the sum is 0.
    fn renormalized(&self, chosen: &[usize]) -> Vec<f64> {
        let sum: f64 = chosen.iter().map(|&e| self.p[e]).sum();
        let share = |&e: &usize| if sum == 0.0 { 0.0 } else { self.p[e] / sum };
        chosen.iter().map(share).collect()
    }

    /// Shares of the best two. Without a second the first has all, unless it is masked itself.
    fn top2(&self) -> (f64, f64) {
        match self.second {
            Some(j) => {
                let second = second_share(self.z[self.first], self.z[j]);
                (1.0 - second, second)
            }
            None if is_masked(self.z[self.first]) => (0.0, 0.0),
            None => (1.0, 0.0),
        }
    }

    /// Adds the weights' gradient to `dz`.
    pub fn backward(&self, option: Weights, chosen: &[usize], g: &[f64], dz: &mut [f64]) {
        match option {
            Weights::Prob => self.prob_backward(chosen, g, dz),
            Weights::Selected => {
                let w = self.renormalized(chosen);
                self.share_backward(&w, chosen, g, dz);
            }
            Weights::Top2 => {
                let Some(second) = self.second else { return };
                // An expert that was not taken has g = 0.
                let of = |e| {
                    chosen
                        .iter()
                        .zip(g)
                        .filter(|&(&c, _)| c == e)
                        .map(|(_, g)| g)
                        .sum()
                };
                let (g1, g2): (f64, f64) = (of(self.first), of(second));
                let (w1, w2) = self.top2();
                dz[self.first] += w1 * w2 * (g1 - g2);
                dz[second] -= w1 * w2 * (g1 - g2);
            }
        }
    }

    /// w = p: through the full softmax, or through each sigmoid by itself.
    fn prob_backward(&self, chosen: &[usize], g: &[f64], dz: &mut [f64]) {
        let p = self.p;
        match self.scores {
            Scores::Softmax => {
                let mut dp = vec![0.0; p.len()];
                for (&e, g) in chosen.iter().zip(g) {
                    dp[e] += g;
                }
                let mean: f64 = chosen.iter().zip(g).map(|(&e, g)| p[e] * g).sum();
                for j in 0..p.len() {
                    dz[j] += p[j] * (dp[j] - mean);
                }
            }
            Scores::Sigmoid => {
                for (&e, g) in chosen.iter().zip(g) {
                    dz[e] += g * p[e] * (1.0 - p[e]);
                }
            }
        }
    }

    /// w = shares of a sum over `members`: `dz_j = w_j (g_j − Σ w g)`, for sigmoids times their own
    /// `1 − p_j`.
    fn share_backward(&self, w: &[f64], members: &[usize], g: &[f64], dz: &mut [f64]) {
        let mean: f64 = w.iter().zip(g).map(|(w, g)| w * g).sum();
        for ((&e, w), g) in members.iter().zip(w).zip(g) {
            let slope = match self.scores {
                Scores::Softmax => 1.0,
                Scores::Sigmoid => 1.0 - self.p[e],
            };
            dz[e] += w * (g - mean) * slope;
        }
    }

    /// Weight of the one local expert that a Gate-Drop step runs.
    pub fn local_weight(
        &self,
        option: LocalWeight,
        expert: usize,
        local: &std::ops::Range<usize>,
    ) -> f64 {
        match option {
            LocalWeight::GateProb => self.p[expert],
            LocalWeight::Original => self.p[self.first],
            LocalWeight::RestrictedSoftmax => self
                .local_shares(local)
                .get(expert - local.start)
                .copied()
                .unwrap_or(0.0),
            LocalWeight::One => 1.0,
        }
    }

    /// Shares of the local experts: softmax of their logits, or their part of the sum of sigmoids.
    fn local_shares(&self, local: &std::ops::Range<usize>) -> Vec<f64> {
        match self.scores {
            Scores::Softmax => softmax_row(&self.z[local.clone()]).0,
            Scores::Sigmoid => self.renormalized(&local.clone().collect::<Vec<_>>()),
        }
    }

    /// Adds the gradient of [`Self::local_weight`] to `dz`.
    pub fn local_backward(
        &self,
        option: LocalWeight,
        expert: usize,
        local: &std::ops::Range<usize>,
        g: f64,
        dz: &mut [f64],
    ) {
        match option {
            LocalWeight::GateProb => self.prob_backward(&[expert], &[g], dz),
            LocalWeight::Original => self.prob_backward(&[self.first], &[g], dz),
            LocalWeight::RestrictedSoftmax => {
                let members: Vec<usize> = local.clone().collect();
                let of = |&e: &usize| if e == expert { g } else { 0.0 };
                let gradients: Vec<f64> = members.iter().map(of).collect();
                self.share_backward(&self.local_shares(local), &members, &gradients, dz);
            }
            LocalWeight::One => {}
        }
    }
}
