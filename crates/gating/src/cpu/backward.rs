//! The gate's backward pass: one pass over the rows for the weights' gradient and both losses.
//!
//! With softmax scores all three are multiples of p: `dz_j = p_j (βf_j + s)`, where s gathers
//! what a row has in common, and the chosen experts add their own part.

use std::borrow::Cow;

use tollgate_core::math::vectorized;
use tollgate_core::options::{GateOptions, LocalWeight, Scores, Weights};
use tollgate_core::{Cpu, DropMode, Result, RowView, RowViewMut, StepContext};

use super::blocks::{BLOCK_ROWS, Team};
use super::dropout::local_shares;
use super::softmax::{dot, dot_scaled, exponentials, scale, sum};
use super::weights::share;
use super::{losses, noise};
use crate::{GateInputs, GateState, check};

/// See [`crate::Gating::gate_backward`].
pub(super) fn run(
    cpu: &Cpu,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    ctx: &StepContext,
    state: &GateState,
    dweights: &[f32],
    mut dlogits: RowViewMut<'_, f32>,
    mut dnoise_logits: Option<RowViewMut<'_, f32>>,
) -> Result<()> {
    let of_noise = dnoise_logits.as_ref().map(|d| (d.rows(), d.cols()));
    let of_logits = (dlogits.rows(), dlogits.cols());
    check::gate_backward(inputs, options, ctx, state, dweights, of_logits, of_noise)?;
    let Some((scores, logits)) = options.router.scores().zip(inputs.logits) else {
        dlogits.fill(0.0);
        if let Some(dnoise) = &mut dnoise_logits {
            dnoise.fill(0.0);
        }
        return Ok(());
    };
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    let noise_logits = inputs
        .noise_logits
        .filter(|_| check::uses_noise(options, ctx));
    let z = match &noise_logits {
        Some(_) => RowView::new(&state.noisy_logits, tokens, experts)?,
        None => logits,
    };
    if let (Some(dnoise), None) = (&mut dnoise_logits, &noise_logits) {
        // Without noise nothing depends on its logits.
        dnoise.fill(0.0);
    }
    let silent = losses::silent(options, state);
    let balance = if silent {
        0.0
    } else {
        f64::from(options.balance_alpha)
    };
    let z_loss = if silent {
        0.0
    } else {
        f64::from(options.z_coefficient)
    };
    let per_token = 1.0 / tokens.max(1) as f64;
    let load = state
        .load
        .iter()
        .map(|f| (balance * experts as f64 * per_token * f) as f32);
    let plan = Plan {
        z,
        scores,
        state,
        inputs,
        weights: options.weights(),
        local_weight: options.gating_dropout.map(|d| d.local_weight),
        gradient: selection_gradient(state, dweights),
        weight_scale: options.weight_scale,
        load: load.filter(|_| balance > 0.0).collect(),
        z_factor: (2.0 * z_loss * per_token) as f32,
    };
    let of_noise = dnoise_logits.filter(|_| noise_logits.is_some());
    let of_noise = of_noise.map(|d| d.chunks(BLOCK_ROWS)).unwrap_or_default();
    let mut of_noise = of_noise.into_iter();
    let blocks: Vec<_> = dlogits
        .chunks(BLOCK_ROWS)
        .into_iter()
        .map(|block| (block, of_noise.next()))
        .enumerate()
        .collect();
    Team::enter(cpu, tokens * experts, |team| {
        team.run(
            blocks,
            Vec::new,
            |scratch, (b, (mut dlogits, mut dnoise))| {
                for r in 0..dlogits.rows() {
                    let t = b * BLOCK_ROWS + r;
                    let dz = dlogits.row_mut(r);
                    plan.row(t, dz, scratch);
                    if let (Some(dnoise), Some(z_noise)) = (&mut dnoise, &noise_logits) {
                        let n = &state.noise[t * experts..(t + 1) * experts];
                        vectorized(
                            #[inline(always)]
                            || noise::backward(dz, n, z_noise.row(t), dnoise.row_mut(r)),
                        );
                    }
                }
            },
        );
    });
    Ok(())
}

/// The gradient of every weight of `selection`, `[A]`; that of a dropped assignment is 0.
fn selection_gradient<'a>(state: &GateState, dweights: &'a [f32]) -> Cow<'a, [f32]> {
    let selected = state.selection.num_assignments();
    if dweights.len() == selected && state.kept.is_empty() {
        return Cow::Borrowed(dweights);
    }
    let mut gradient = vec![0.0; selected];
    for (&position, &dw) in state.kept.iter().zip(dweights) {
        gradient[position as usize] = dw;
    }
    Cow::Owned(gradient)
}

/// What all rows have in common.
struct Plan<'a> {
    z: RowView<'a, f32>,
    scores: Scores,
    state: &'a GateState,
    inputs: &'a GateInputs<'a>,
    weights: Weights,
    local_weight: Option<LocalWeight>,
    /// `[A]` of `selection`, before the scale.
    gradient: Cow<'a, [f32]>,
    weight_scale: f32,
    /// `[E]` `βf = αE/T · f`; empty without a balance loss.
    load: Vec<f32>,
    /// `2c/T`.
    z_factor: f32,
}

/// How a token's weights came from its scores.
enum Origin<'a> {
    /// Each is the score of an expert.
    Scores(&'a [i32]),
    /// Shares of the sum over the chosen.
    Shares(&'a [i32]),
    /// Shares of the best and the runner-up.
    Top2,
    /// Share of the sum over the local experts.
    LocalShare,
    /// Nothing that depends on the logits.
    Constant,
}

impl Plan<'_> {
    /// Writes the gradient of token `t`'s logits.
    fn row(&self, t: usize, dz: &mut [f32], scratch: &mut Vec<f32>) {
        let experts = dz.len();
        if self.state.lse[t].is_nan() {
            return dz.fill(f32::NAN);
        }
        let p = &self.state.scores[t * experts..(t + 1) * experts];
        let g = &self.gradient[self.state.selection.assignments_of(t)];
        let origin = self.origin(t);

        // G = Σ w g over the weights that are scores: part of the multiple of p.
        let mean = match (&origin, self.scores) {
            (Origin::Scores(of), Scores::Softmax) => of.iter().zip(g).fold(0.0, |sum, (&e, g)| {
                p[e as usize].mul_add(self.weight_scale * g, sum)
            }),
            _ => 0.0,
        };
        self.losses(t, p, mean, dz);
        match origin {
            Origin::Scores(of) => {
                for (&e, g) in of.iter().zip(g) {
                    let e = e as usize;
                    let slope = match self.scores {
                        Scores::Softmax => p[e],
                        Scores::Sigmoid => p[e] * (1.0 - p[e]),
                    };
                    dz[e] = slope.mul_add(self.weight_scale * g, dz[e]);
                }
            }
            Origin::Shares(of) => self.shares(of, g, p, dz),
            Origin::Top2 => self.top2(t, g, p, dz),
            Origin::LocalShare => self.local_share(t, g, p, dz, scratch),
            Origin::Constant => {}
        }
    }

    fn origin(&self, t: usize) -> Origin<'_> {
        let chosen = self.state.selection.experts_of(t);
        match self.state.dropped {
            None => match self.weights {
                Weights::Prob => Origin::Scores(chosen),
                Weights::Selected => Origin::Shares(chosen),
                Weights::Top2 => Origin::Top2,
            },
            Some(DropMode::GateExpert) => Origin::Constant,
            Some(DropMode::Gate) => match self.local_weight {
                Some(LocalWeight::GateProb) => Origin::Scores(chosen),
                Some(LocalWeight::Original) => Origin::Scores(&self.state.weight_source[t..=t]),
                Some(LocalWeight::RestrictedSoftmax) => Origin::LocalShare,
                Some(LocalWeight::One) | None => Origin::Constant,
            },
        }
    }

    /// Both losses and `−p_j · mean`.
    fn losses(&self, t: usize, p: &[f32], mean: f32, dz: &mut [f32]) {
        let lse = self.state.lse[t];
        // A fully masked row has no part in the z-loss.
        let of_z = if lse == f32::NEG_INFINITY {
            0.0
        } else {
            self.z_factor * lse
        };
        vectorized(
            #[inline(always)]
            || match self.scores {
                Scores::Softmax if self.load.is_empty() => {
                    let common = of_z - mean;
                    for (dz, &p) in dz.iter_mut().zip(p) {
                        *dz = p * common;
                    }
                }
                Scores::Softmax => {
                    let average = dot(&self.load, p);
                    let common = of_z - mean;
                    for ((dz, &p), &f) in dz.iter_mut().zip(p).zip(&self.load) {
                        *dz = p * ((f - average) + common);
                    }
                }
                Scores::Sigmoid => {
                    self.softmax_times(t, of_z, dz);
                    let total = sum(p);
                    if !self.load.is_empty() && total > 0.0 {
                        let reciprocal = 1.0 / total;
                        let average = dot_scaled(&self.load, p, reciprocal);
                        for ((dz, &p), &f) in dz.iter_mut().zip(p).zip(&self.load) {
                            *dz += p * reciprocal * (f - average) * (1.0 - p);
                        }
                    }
                }
            },
        );
    }

    /// `dz = factor · softmax(z)`: the z-loss of scores that are no softmax themselves.
    #[inline(always)]
    fn softmax_times(&self, t: usize, factor: f32, dz: &mut [f32]) {
        if factor == 0.0 {
            return dz.fill(0.0);
        }
        let max = super::softmax::row_max(self.z.row(t));
        let total = exponentials(self.z.row(t), max, dz);
        scale(dz, factor / total);
    }

    /// `dz_j += w_j (g_j − Σ w g)`, with sigmoids times `1 − p_j`.
    fn shares(&self, of: &[i32], g: &[f32], p: &[f32], dz: &mut [f32]) {
        let total: f32 = of.iter().map(|&e| p[e as usize]).sum();
        let weight = |e: i32| share(p[e as usize], total);
        let mean = of
            .iter()
            .zip(g)
            .fold(0.0, |sum, (&e, &g)| weight(e).mul_add(g, sum));
        for (&e, g) in of.iter().zip(g) {
            let slope = self.slope_of_share(p[e as usize]);
            dz[e as usize] += self.weight_scale * weight(e) * (g - mean) * slope;
        }
    }

    /// By what the slope of a share of scores exceeds that of a share of exponentials.
    #[inline(always)]
    fn slope_of_share(&self, p: f32) -> f32 {
        match self.scores {
            Scores::Softmax => 1.0,
            Scores::Sigmoid => 1.0 - p,
        }
    }

    /// `dz_1 += w_1 w_2 (g_1 − g_2)` and the opposite for the runner-up.
    fn top2(&self, t: usize, g: &[f32], p: &[f32], dz: &mut [f32]) {
        let (first, second) = (self.state.first_choice[t], self.state.runner_up[t]);
        if second < 0 {
            return;
        }
        let chosen = self.state.selection.experts_of(t);
        let of = |e: i32| chosen.iter().position(|&c| c == e).map_or(0.0, |at| g[at]);
        let (first_p, second_p) = (p[first as usize], p[second as usize]);
        let total = first_p + second_p;
        let product = share(first_p, total) * share(second_p, total);
        let step = self.weight_scale * product * (of(first) - of(second));
        dz[first as usize] += step;
        dz[second as usize] -= step;
    }

    /// As [`Self::shares`] over all local experts, of which one has a gradient.
    fn local_share(&self, t: usize, g: &[f32], p: &[f32], dz: &mut [f32], shares: &mut Vec<f32>) {
        let local = &self.inputs.local_experts;
        let (Some(&e), Some(&g)) = (self.state.selection.experts_of(t).first(), g.first()) else {
            return;
        };
        local_shares(self.scores, self.z.row(t), p, local, shares);
        let g = self.weight_scale * g;
        let chosen = (e as usize).checked_sub(local.start);
        let mean = chosen.and_then(|at| shares.get(at)).map_or(0.0, |w| w * g);
        for (at, &w) in shares.iter().enumerate() {
            let own = if chosen == Some(at) { g } else { 0.0 };
            let j = local.start + at;
            dz[j] += w * (own - mean) * self.slope_of_share(p[j]);
        }
    }
}
