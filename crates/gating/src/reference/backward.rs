//! The gate, backward: from the combine weights and the losses to the logits.

use tollgate_core::options::{AuxLoss, GateOptions};
use tollgate_core::{DropMode, Result, StepContext};

use super::losses;
use super::softmax::sigmoid;
use super::weights::Weighed;
use crate::{GateInputs, GateState, check};

/// The gradient of `Σ_a dweights[a] · w_a + balance + z` with respect to the logits `[T, E]`
/// row-major, and to the noise logits `[T, E]` where noise was added; see
/// [`crate::Gating::gate_backward`].
///
/// # Errors
/// Shapes that differ, a state that does not fit the inputs.
pub fn gate_backward(
    inputs: &GateInputs<'_, f64>,
    options: &GateOptions,
    ctx: &StepContext,
    state: &GateState<f64>,
    dweights: &[f64],
) -> Result<(Vec<f64>, Option<Vec<f64>>)> {
    check::backward_state(inputs, options, ctx, state, dweights)?;
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    let scored = options.router.scores().zip(inputs.logits.as_ref());
    let Some((scores, logits)) = scored else {
        return Ok((vec![0.0; tokens * experts], None));
    };
    let g = selection_gradient(state, dweights, f64::from(options.weight_scale));
    let silent = state.dropped.is_some()
        && options
            .gating_dropout
            .is_some_and(|d| d.aux_loss == AuxLoss::Zero);
    let noise = check::uses_noise(options, ctx)
        .then_some(inputs.noise_logits)
        .flatten();
    let mut dlogits = Vec::with_capacity(tokens * experts);
    let mut dnoise_logits = noise.map(|_| Vec::with_capacity(tokens * experts));

    for t in 0..tokens {
        let row = t * experts..(t + 1) * experts;
        let p = &state.scores[row.clone()];
        let z = if noise.is_some() {
            &state.noisy_logits[row.clone()]
        } else {
            logits.row(t)
        };
        let mut dz = vec![0.0; experts];
        if state.lse[t].is_nan() {
            dz.fill(f64::NAN);
        } else {
            let second = state
                .runner_up
                .get(t)
                .and_then(|&j| usize::try_from(j).ok());
            let first = state.first_choice[t] as usize;
            let weighed = Weighed {
                z,
                p,
                scores,
                first,
                second,
            };
            let assignments = state.selection.assignments_of(t);
            let chosen: Vec<usize> = state
                .selection
                .experts_of(t)
                .iter()
                .map(|&e| e as usize)
                .collect();
            let g = &g[assignments];
            match (state.dropped, options.gating_dropout) {
                (None, _) => weighed.backward(options.weights(), &chosen, g, &mut dz),
                (Some(DropMode::Gate), Some(dropout)) => {
                    let local = &inputs.local_experts;
                    for (&e, &g) in chosen.iter().zip(g) {
                        weighed.local_backward(dropout.local_weight, e, local, g, &mut dz);
                    }
                }
                (Some(_), _) => {}
            }
            let (alpha, c) = (
                f64::from(options.balance_alpha),
                f64::from(options.z_coefficient),
            );
            if alpha > 0.0 && !silent {
                losses::balance_backward(alpha, tokens, &state.load, p, scores, &mut dz);
            }
            if c > 0.0 && !silent {
                losses::z_backward(c, tokens, z, &mut dz);
            }
        }
        if let (Some(dnoise), Some(noise)) = (&mut dnoise_logits, &noise) {
            // h = z + n · softplus(z_noise); the slope of softplus is the sigmoid.
            let n = &state.noise[row];
            dnoise.extend((0..experts).map(|e| dz[e] * n[e] * sigmoid(noise.row(t)[e])));
        }
        dlogits.extend(dz);
    }
    Ok((dlogits, dnoise_logits))
}

/// The gradient of every weight of `selection` before the scale; that of a dropped assignment is 0.
fn selection_gradient(state: &GateState<f64>, dweights: &[f64], scale: f64) -> Vec<f64> {
    let mut g = vec![0.0; state.selection.num_assignments()];
    if state.kept.is_empty() {
        // Nothing was dropped, or everything was and `dweights` is empty.
        for (g, dw) in g.iter_mut().zip(dweights) {
            *g = scale * dw;
        }
    }
    for (&position, dw) in state.kept.iter().zip(dweights) {
        g[position as usize] = scale * dw;
    }
    g
}
