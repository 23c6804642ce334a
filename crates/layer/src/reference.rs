//! The whole layer in f64: the executable specification that every device's layer is held to.
//!
//! `y_t = Σ_{e ∈ S_t} w_e FFN_e(x_t)`, written expert by expert with the reference rooms of the
//! operations. Stored values widen exactly and nothing is rounded on the way (not even the noisy
//! router's logits, so that the whole is differentiable), except for the factors of the jitter. Experts are independent of each other
//! and run on rayon's current pool; the numbers do not depend on it.

use rayon::prelude::*;
use tollgate_core::{Element, Error, Result, RowView, StepContext};
use tollgate_gating::{GateInputs, GateState, jitter, reference as gating};
use tollgate_gemm::{ExpertShape, ExpertWeights, reference as gemm};

use crate::{LayerInputs, LayerWeights, MoeLayer};

/// The parameters of a layer in f64, laid out as [`LayerWeights`].
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// `[E, H]`.
    pub router: Option<Vec<f64>>,
    /// `[E, H]`.
    pub router_noise: Option<Vec<f64>>,
    /// `[E]`.
    pub selection_bias: Option<Vec<f64>>,
    /// `[E, N1, H]`.
    pub up: Vec<f64>,
    /// `[E, N1]`.
    pub up_bias: Option<Vec<f64>>,
    /// `[E, H, I]`.
    pub down: Vec<f64>,
    /// `[E, H]`.
    pub down_bias: Option<Vec<f64>>,
}

fn widen<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

impl Parameters {
    /// Exact copies.
    pub fn widen<T: Element>(weights: &LayerWeights<'_, T>) -> Self {
        Self {
            router: weights.router.map(widen),
            router_noise: weights.router_noise.map(widen),
            selection_bias: weights.selection_bias.map(widen),
            up: widen(weights.experts.up),
            up_bias: weights.experts.up_bias.map(widen),
            down: widen(weights.experts.down),
            down_bias: weights.experts.down_bias.map(widen),
        }
    }

    /// The weights of one expert.
    fn expert(&self, shape: &ExpertShape, e: usize) -> ExpertWeights<'_, f64> {
        let (h, i, n1) = (shape.hidden, shape.intermediate, shape.up_rows());
        let part = |len: usize| e * len..(e + 1) * len;
        ExpertWeights {
            up: &self.up[part(n1 * h)],
            up_bias: self.up_bias.as_deref().map(|b| &b[part(n1)]),
            down: &self.down[part(h * i)],
            down_bias: self.down_bias.as_deref().map(|b| &b[part(h)]),
        }
    }
}

/// The inputs of a pass in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch<'a> {
    /// T.
    pub tokens: usize,
    /// `[T, H]`.
    pub x: Vec<f64>,
    /// As in [`LayerInputs`].
    pub token_ids: Option<&'a [i32]>,
    /// As in [`LayerInputs`].
    pub hash_table: Option<&'a [i32]>,
    /// As in [`LayerInputs`].
    pub sequence_offsets: Option<&'a [i32]>,
}

impl<'a> Batch<'a> {
    /// Exact copies.
    pub fn widen<T: Element>(inputs: &LayerInputs<'a, T>) -> Self {
        Self {
            tokens: inputs.x.rows(),
            x: inputs.x.iter().flat_map(widen).collect(),
            token_ids: inputs.token_ids,
            hash_table: inputs.hash_table,
            sequence_offsets: inputs.sequence_offsets,
        }
    }
}

/// What the forward pass computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `[T, E]`; empty for routers without a gate.
    pub logits: Vec<f64>,
    /// `[T, E]`; empty unless noise is used.
    pub noise_logits: Vec<f64>,
    /// `[T, H]` what the router saw: x, with jitter where there is jitter.
    pub router_input: Vec<f64>,
    /// The gate's decisions.
    pub gate: GateState<f64>,
    /// `[T, H]`.
    pub y: Vec<f64>,
    /// What each expert computed.
    experts: Vec<ExpertPass>,
}

/// The rows of one expert and what it made of them.
#[derive(Debug, Clone, PartialEq)]
struct ExpertPass {
    /// Its rows: (token, assignment), by token.
    rows: Vec<(usize, usize)>,
    /// `[rows, H]`.
    x: Vec<f64>,
    up: gemm::Up,
    /// `[rows, H]`.
    out: Vec<f64>,
}

/// Gradients, laid out as the parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// `[T, H]`.
    pub x: Vec<f64>,
    /// `[T, E]`; empty for routers without a gate.
    pub logits: Vec<f64>,
    /// `[E, H]`; empty for routers without a gate.
    pub router: Vec<f64>,
    /// `[E, H]`; empty unless noise is used.
    pub router_noise: Vec<f64>,
    /// `[E, N1, H]`.
    pub up: Vec<f64>,
    /// `[E, N1]`, whether or not there is a bias.
    pub up_bias: Vec<f64>,
    /// `[E, H, I]`.
    pub down: Vec<f64>,
    /// `[E, H]`, whether or not there is a bias.
    pub down_bias: Vec<f64>,
}

/// The gate's inputs from the router's products.
fn gate_inputs<'a, D>(
    layer: &MoeLayer<D>,
    parameters: &'a Parameters,
    batch: &Batch<'a>,
    logits: &'a [f64],
    noise_logits: &'a [f64],
) -> Result<GateInputs<'a, f64>> {
    let (t, e) = (batch.tokens, layer.shape.experts);
    let view = |z: &'a [f64], used: bool| match used {
        true => RowView::new(z, t, e).map(Some),
        false => Ok(None),
    };
    let gated = layer.options.router.has_gate();
    Ok(GateInputs {
        logits: view(logits, gated)?,
        noise_logits: view(noise_logits, gated && noise_logits.len() == t * e)?,
        selection_bias: parameters.selection_bias.as_deref(),
        token_ids: batch.token_ids,
        hash_table: batch.hash_table,
        sequence_offsets: batch.sequence_offsets,
        local_experts: layer.local_experts.clone(),
        ..GateInputs::without_logits(t, e)
    })
}

/// The router map in use, or an error that names it.
fn required<'a>(
    what: &'static str,
    map: &'a Option<Vec<f64>>,
    layer: &MoeLayer<impl Sized>,
) -> Result<&'a [f64]> {
    map.as_deref().ok_or_else(|| Error::Missing {
        what,
        because: format!("router {}", layer.options.router),
    })
}

/// The forward pass.
///
/// # Errors
/// What the gate refuses, a missing router map. Slices that do not fit the layer are a caller's bug
/// and panic.
pub fn forward<D>(
    layer: &MoeLayer<D>,
    parameters: &Parameters,
    batch: &Batch<'_>,
    ctx: &StepContext,
) -> Result<Forward> {
    let shape = &layer.shape;
    let (t, h, e) = (batch.tokens, shape.hidden, shape.experts);
    let one_group = [0, t as i32];
    let router = &layer.options.router;

    let mut router_input = batch.x.clone();
    if let Some(amount) = layer.jitter(ctx) {
        for (token, row) in router_input.chunks_mut(h).enumerate() {
            for (block, four) in row.chunks_mut(4).enumerate() {
                let factors = jitter::factors(ctx, token, block, amount);
                for (v, f) in four.iter_mut().zip(factors) {
                    *v *= f64::from(f);
                }
            }
        }
    }
    let (mut logits, mut noise_logits) = (Vec::new(), Vec::new());
    if router.has_gate() {
        let map = required("router weight (E·H)", &parameters.router, layer)?;
        logits = gemm::m_grouped(&router_input, map, None, &one_group, e, h);
        if router.is_noisy() && ctx.training {
            let map = required("router noise weight (E·H)", &parameters.router_noise, layer)?;
            noise_logits = gemm::m_grouped(&router_input, map, None, &one_group, e, h);
        }
    }
    let inputs = gate_inputs(layer, parameters, batch, &logits, &noise_logits)?;
    let gate = gating::gate_with(&inputs, &layer.options, ctx, gating::NoisyLogits::Exact)?;

    let mut rows_of = vec![Vec::new(); e];
    for token in 0..t {
        for a in gate.table.assignments_of(token) {
            rows_of[gate.table.expert_indices[a] as usize].push((token, a));
        }
    }
    let experts: Vec<ExpertPass> = rows_of
        .into_par_iter()
        .enumerate()
        .map(|(e, rows)| {
            let x: Vec<f64> = rows
                .iter()
                .flat_map(|&(token, _)| &batch.x[token * h..(token + 1) * h])
                .copied()
                .collect();
            let group = [0, rows.len() as i32];
            let (one, weights) = (one_expert(shape), parameters.expert(shape, e));
            let up = gemm::up(&one, &weights, &x, &group);
            let out = gemm::down(&one, &weights, &up.act, &group);
            ExpertPass { rows, x, up, out }
        })
        .collect();

    let mut y = vec![0.0; t * h];
    for expert in &experts {
        for (r, &(token, a)) in expert.rows.iter().enumerate() {
            let w = gate.table.routing_weights[a];
            for (sum, v) in y[token * h..(token + 1) * h]
                .iter_mut()
                .zip(&expert.out[r * h..])
            {
                *sum += w * v;
            }
        }
    }
    Ok(Forward {
        logits,
        noise_logits,
        router_input,
        gate,
        y,
        experts,
    })
}

/// The shape of each expert by itself.
fn one_expert(shape: &ExpertShape) -> ExpertShape {
    ExpertShape {
        experts: 1,
        ..*shape
    }
}

/// The gradient of `<dy, y> + balance loss + z loss`; dy `[T, H]`.
///
/// # Errors
/// As [`forward`].
pub fn backward<D>(
    layer: &MoeLayer<D>,
    parameters: &Parameters,
    batch: &Batch<'_>,
    ctx: &StepContext,
    forward: &Forward,
    dy: &[f64],
) -> Result<Gradients> {
    let shape = &layer.shape;
    let (t, h, e) = (batch.tokens, shape.hidden, shape.experts);
    let one_group = [0, t as i32];
    let weights = &forward.gate.table.routing_weights;

    let passes: Vec<_> = forward
        .experts
        .par_iter()
        .enumerate()
        .map(|(e, pass)| {
            // d(w·out) = w·dy for the expert, <dy, out> for the weight.
            let mut drows = Vec::with_capacity(pass.out.len());
            let mut dweights = Vec::with_capacity(pass.rows.len());
            for (r, &(token, a)) in pass.rows.iter().enumerate() {
                let dy = &dy[token * h..(token + 1) * h];
                drows.extend(dy.iter().map(|d| weights[a] * d));
                let out = &pass.out[r * h..(r + 1) * h];
                dweights.push(dy.iter().zip(out).map(|(d, o)| d * o).sum::<f64>());
            }
            let group = [0, pass.rows.len() as i32];
            let (one, own) = (one_expert(shape), parameters.expert(shape, e));
            let up = &pass.up;
            let down = gemm::down_backward(&one, &own, &up.pre, &up.act, &drows, &group);
            let up = gemm::up_backward(&one, &own, &pass.x, &down.dpre, &group);
            (dweights, down, up)
        })
        .collect();

    let mut grads = Gradients {
        x: vec![0.0; t * h],
        logits: Vec::new(),
        router: Vec::new(),
        router_noise: Vec::new(),
        up: Vec::new(),
        up_bias: Vec::new(),
        down: Vec::new(),
        down_bias: Vec::new(),
    };
    let mut dweights = vec![0.0; weights.len()];
    for (pass, (dw, down, up)) in forward.experts.iter().zip(passes) {
        for (r, &(token, a)) in pass.rows.iter().enumerate() {
            dweights[a] = dw[r];
            for (sum, d) in grads.x[token * h..(token + 1) * h]
                .iter_mut()
                .zip(&up.dx[r * h..])
            {
                *sum += d;
            }
        }
        grads.up.extend(up.up);
        grads.up_bias.extend(up.up_bias);
        grads.down.extend(down.down);
        grads.down_bias.extend(down.down_bias);
    }

    if layer.options.router.has_gate() {
        let Forward {
            logits,
            noise_logits,
            router_input,
            gate,
            ..
        } = forward;
        let inputs = gate_inputs(layer, parameters, batch, logits, noise_logits)?;
        let (dlogits, dnoise) =
            gating::gate_backward(&inputs, &layer.options, ctx, gate, &dweights)?;
        let map = required("router weight (E·H)", &parameters.router, layer)?;
        let mut dx = gemm::m_grouped_transposed(&dlogits, map, &one_group, e, h);
        grads.router = gemm::k_grouped(&dlogits, router_input, &one_group, e, h);
        if let Some(dnoise) = dnoise {
            let map = required("router noise weight (E·H)", &parameters.router_noise, layer)?;
            let more = gemm::m_grouped_transposed(&dnoise, map, &one_group, e, h);
            for (sum, d) in dx.iter_mut().zip(more) {
                *sum += d;
            }
            grads.router_noise = gemm::k_grouped(&dnoise, router_input, &one_group, e, h);
        }
        for (token, row) in dx.chunks(h).enumerate() {
            for (c, d) in row.iter().enumerate() {
                let factor = layer.jitter(ctx).map_or(1.0, |amount| {
                    f64::from(jitter::factors(ctx, token, c / 4, amount)[c % 4])
                });
                grads.x[token * h + c] += factor * d;
            }
        }
        grads.logits = dlogits;
    }
    Ok(grads)
}
