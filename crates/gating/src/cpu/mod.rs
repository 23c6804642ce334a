//! The gate on the CPU: one pass over the rows of logits, in blocks, vectorised over experts.
//!
//! - `search`: the best places of a row, exactly.
//! - `softmax`: exponentials, sums and logarithms of rows.
//! - `plan`, `forward`, `weights`, `grouped`: the pass over the rows.
//! - `noise`, `expert_choice`, `ungated`: the routers that need more, or less.
//! - `losses`, `dropout`, `capacity`: what follows the gate's decision.
//! - `jitter`: what precedes it.
//! - `backward`: one pass over the rows as well.
//! - `blocks`, `table`: division of labour.

mod backward;
mod blocks;
mod capacity;
mod dropout;
mod expert_choice;
mod forward;
mod grouped;
mod jitter;
mod losses;
mod noise;
mod plan;
mod search;
mod softmax;
mod table;
mod ungated;
mod weights;

use tollgate_core::options::{GateOptions, Scores};
use tollgate_core::{Cpu, Element, Result, RowView, RowViewMut, StepContext};

use self::blocks::Team;
use self::plan::Plan;
use crate::capacity::rows_per_expert;
use crate::{GateInputs, GateState, GateStatus, Gating, Losses, check};

impl Gating for Cpu {
    fn softmax(
        &self,
        logits: RowView<'_, f32>,
        probs: RowViewMut<'_, f32>,
        lse: &mut [f32],
    ) -> Result<()> {
        softmax::forward(self, logits, probs, lse)
    }

    fn softmax_backward(
        &self,
        probs: RowView<'_, f32>,
        dprobs: RowView<'_, f32>,
        dlogits: RowViewMut<'_, f32>,
    ) -> Result<()> {
        softmax::backward(self, probs, dprobs, dlogits)
    }

    fn gate(
        &self,
        inputs: &GateInputs<'_>,
        options: &GateOptions,
        ctx: &StepContext,
        state: &mut GateState,
    ) -> Result<()> {
        check::gate(inputs, options, ctx)?;
        let elems = inputs.num_tokens * inputs.num_experts;
        Team::enter(self, elems, |team| {
            reset(state);
            match options.router.scores().zip(inputs.logits) {
                Some((scores, logits)) => {
                    gated(team, inputs, options, ctx, scores, logits, state)?;
                }
                None => ungated::run(inputs, options, ctx, state),
            }
            match &options.capacity {
                None => table::copy(team, &state.selection, &mut state.table),
                Some(c) => {
                    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
                    let rows = rows_per_expert(c, &options.router, tokens, experts);
                    capacity::limit(team, rows, c.order, state);
                }
            }
            Ok(())
        })
    }

    fn gate_backward(
        &self,
        inputs: &GateInputs<'_>,
        options: &GateOptions,
        ctx: &StepContext,
        state: &GateState,
        dweights: &[f32],
        dlogits: RowViewMut<'_, f32>,
        dnoise_logits: Option<RowViewMut<'_, f32>>,
    ) -> Result<()> {
        backward::run(
            self,
            inputs,
            options,
            ctx,
            state,
            dweights,
            dlogits,
            dnoise_logits,
        )
    }

    fn jitter<T: Element>(
        &self,
        x: RowView<'_, T>,
        amount: f32,
        ctx: &StepContext,
        out: RowViewMut<'_, f32>,
    ) -> Result<()> {
        jitter::apply(self, x, amount, ctx, out)
    }

    fn jitter_backward(
        &self,
        amount: f32,
        ctx: &StepContext,
        dx: RowViewMut<'_, f32>,
    ) -> Result<()> {
        jitter::backward(self, amount, ctx, dx)
    }

    fn consistency(
        &self,
        a: RowView<'_, f32>,
        b: RowView<'_, f32>,
        padding: Option<&[bool]>,
        alpha: f32,
        da: RowViewMut<'_, f32>,
        db: RowViewMut<'_, f32>,
    ) -> Result<f64> {
        crate::losses::consistency(self, a, b, padding, alpha, da, db)
    }
}

/// Empties what only some calls fill; the rest is overwritten.
fn reset(state: &mut GateState) {
    state.weight_source.clear();
    state.kept.clear();
    state.load.clear();
    state.dropped = None;
    state.losses = Losses::default();
    state.status = GateStatus::default();
}

/// The routers with a gate: everything up to `selection`.
fn gated(
    team: Team,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    ctx: &StepContext,
    scores: Scores,
    logits: RowView<'_, f32>,
    state: &mut GateState,
) -> Result<()> {
    let noise_logits = inputs
        .noise_logits
        .filter(|_| check::uses_noise(options, ctx));
    // The noisy logits are taken out of the state so that the rest of it can be written meanwhile.
    let mut noisy = std::mem::take(&mut state.noisy_logits);
    let z = match &noise_logits {
        Some(noise_logits) => {
            noise::add(
                team,
                &logits,
                noise_logits,
                ctx,
                &mut state.noise,
                &mut noisy,
            );
            RowView::new(&noisy, logits.rows(), logits.cols())?
        }
        None => {
            state.noise.clear();
            logits
        }
    };
    let plan = Plan::new(inputs, options, ctx, scores, z, noise_logits);
    let sums = forward::run(team, &plan, state);
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    if let Some(capacity) = options.router.expert_choice_tokens(tokens, experts) {
        expert_choice::run(team, &plan, capacity, state);
    }
    let dropout = options
        .gating_dropout
        .filter(|d| crate::dropout::dropped(d, ctx));
    state.dropped = dropout.map(|d| d.mode);
    losses::run(options, &sums, state);
    if let Some(dropout) = dropout {
        dropout::run(team, &plan, &dropout, &inputs.local_experts, state);
    }
    if noise_logits.is_none() {
        noisy.clear();
    }
    state.noisy_logits = noisy;
    Ok(())
}
