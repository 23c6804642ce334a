//! One training step: the layer on an input, forward and if wanted backward, with its time.

use std::time::Instant;

use rayon::prelude::*;
use tollgate::options::{GateOptions, Scores};
use tollgate::{
    Cpu, Element, ExpertGrads, ExpertWeights, LayerGrads, LayerInputs, LayerState, LayerWeights,
    MoeLayer, Philox, Router, RowView, RowViewMut, StepContext, Stream,
};

use crate::args::GateArgs;
use crate::error::Result;
use crate::load::{Model, Tokens};

/// A layer with its parameters and tokens, as the library wants them.
#[derive(Debug)]
pub struct Problem<'a, T> {
    /// The layer.
    pub layer: MoeLayer<Cpu>,
    /// Its parameters.
    pub model: &'a Model<T>,
    /// Its input.
    pub tokens: &'a Tokens<T>,
    /// The noise weight of a noisy router; zeros where the file has none.
    noise: Option<Vec<f32>>,
}

impl<'a, T: Element> Problem<'a, T> {
    /// Builds the layer for a router.
    ///
    /// # Errors
    /// Options that the library refuses.
    pub fn new(
        router: Router,
        gate: &GateArgs,
        model: &'a Model<T>,
        tokens: &'a Tokens<T>,
        cpu: Cpu,
    ) -> Result<Self> {
        let local = gate.local_experts.clone().unwrap_or(0..model.experts);
        let layer = MoeLayer::builder(model.hidden, model.intermediate, model.experts)
            .gate(gate.options(router))
            .activation(model.activation)
            .gated(model.gated)
            .local_experts(local)
            .build(cpu)?;
        let noise = router.is_noisy().then(|| {
            let zeros = || vec![0.0; model.router.len()];
            model.router_noise.clone().unwrap_or_else(zeros)
        });
        Ok(Self {
            layer,
            model,
            tokens,
            noise,
        })
    }

    /// The gate's options.
    pub fn options(&self) -> &GateOptions {
        self.layer.options()
    }

    /// Whether the router adds the file's selection bias to its scores.
    pub fn takes_bias(&self) -> bool {
        match self.options().router {
            Router::Grouped { .. } => true,
            Router::TopK { scores, .. } => scores == Scores::Sigmoid,
            _ => false,
        }
    }

    /// What goes in.
    ///
    /// # Errors
    /// Tokens whose size overflows.
    pub fn inputs(&self) -> Result<LayerInputs<'a, T>> {
        let Tokens {
            count,
            hidden,
            x,
            ids,
            sequence_offsets,
            ..
        } = self.tokens;
        Ok(LayerInputs {
            token_ids: ids.as_deref(),
            hash_table: self.model.hash_table.as_deref(),
            sequence_offsets: sequence_offsets.as_deref(),
            ..LayerInputs::new(RowView::new(x, *count, *hidden)?)
        })
    }

    /// The parameters.
    pub fn weights(&self) -> LayerWeights<'_, T> {
        let bias = self.model.selection_bias.as_deref();
        LayerWeights {
            router: Some(&self.model.router),
            router_noise: self.noise.as_deref(),
            selection_bias: bias.filter(|_| self.takes_bias()),
            experts: ExpertWeights {
                up: &self.model.up,
                up_bias: self.model.up_bias.as_deref(),
                down: &self.model.down,
                down_bias: self.model.down_bias.as_deref(),
            },
        }
    }

    /// Runs one step into `outputs` and returns its wall-clock time in seconds.
    ///
    /// # Errors
    /// What the layer refuses.
    pub fn step(
        &self,
        ctx: &StepContext,
        state: &mut LayerState<T>,
        outputs: &mut Outputs<T>,
    ) -> Result<f64> {
        let (t, h) = (self.tokens.count, self.tokens.hidden);
        let (inputs, weights) = (self.inputs()?, self.weights());
        let start = Instant::now();
        let y = RowViewMut::new(&mut outputs.y, t, h)?;
        self.layer.forward(&inputs, &weights, ctx, y, state)?;
        if let Some(b) = &mut outputs.backward {
            let router = &self.options().router;
            let noisy = router.is_noisy() && ctx.training;
            let mut grads = LayerGrads {
                x: RowViewMut::new(&mut b.x, t, h)?,
                router: router.has_gate().then_some(&mut b.router[..]),
                router_noise: noisy.then_some(&mut b.router_noise[..]),
                experts: ExpertGrads {
                    up: &mut b.up,
                    up_bias: b.up_bias.as_deref_mut(),
                    down: &mut b.down,
                    down_bias: b.down_bias.as_deref_mut(),
                    accumulate: false,
                },
            };
            let dy = RowView::new(&b.dy, t, h)?;
            self.layer
                .backward(&inputs, &weights, dy, state, &mut grads)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// What a step writes; reused from step to step.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs<T> {
    /// `[T, H]`.
    pub y: Vec<T>,
    /// The upstream gradient and the gradients, where they are wanted.
    pub backward: Option<Backward<T>>,
}

/// The upstream gradient and all gradients of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Backward<T> {
    /// `[T, H]`, what comes from above.
    pub dy: Vec<T>,
    /// `[T, H]`.
    pub x: Vec<T>,
    /// `[E, H]`; written where the router has a gate.
    pub router: Vec<f32>,
    /// `[E, H]`; written where the router adds noise.
    pub router_noise: Vec<f32>,
    /// `[E, N1, H]`.
    pub up: Vec<f32>,
    /// `[E, N1]`.
    pub up_bias: Option<Vec<f32>>,
    /// `[E, H, I]`.
    pub down: Vec<f32>,
    /// `[E, H]`.
    pub down_bias: Option<Vec<f32>>,
}

impl<T: Element> Outputs<T> {
    /// Room for what a step of this model on these tokens writes.
    pub fn new(model: &Model<T>, tokens: &Tokens<T>, backward: bool, seed: u64) -> Self {
        let elems = tokens.x.len();
        let bias = |b: &Option<Vec<T>>| b.as_ref().map(|b| vec![0.0; b.len()]);
        Self {
            y: vec![T::default(); elems],
            backward: backward.then(|| Backward {
                dy: upstream_gradient(seed, tokens.hidden, elems),
                x: vec![T::default(); elems],
                router: vec![0.0; model.router.len()],
                router_noise: vec![0.0; model.router.len()],
                up: vec![0.0; model.up.len()],
                up_bias: bias(&model.up_bias),
                down: vec![0.0; model.down.len()],
                down_bias: bias(&model.down_bias),
            }),
        }
    }
}

/// Standard normal numbers rounded to `T`: those of token t, columns 2b and 2b+1, come from the
/// words of (seed, token t, layer 0, step 0, stream `Data`, block b).
fn upstream_gradient<T: Element>(seed: u64, hidden: usize, elems: usize) -> Vec<T> {
    let ctx = StepContext {
        seed,
        ..StepContext::default()
    };
    let mut dy = vec![T::default(); elems];
    dy.par_chunks_mut(hidden.max(1))
        .enumerate()
        .for_each(|(token, row)| {
            for (block, pair) in row.chunks_mut(2).enumerate() {
                let words = Philox::step_words(&ctx, token as u32, Stream::Data, block as u32);
                for (d, w) in pair.iter_mut().zip(words.chunks_exact(2)) {
                    *d = T::from_f32(Philox::normal(w[0], w[1]) as f32);
                }
            }
        });
    dy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_gradient_is_normal_and_seeded() {
        let dy: Vec<f32> = upstream_gradient(3, 100, 20_000);
        let mean = dy.iter().sum::<f32>() / 20_000.0;
        let square = dy.iter().map(|d| d * d).sum::<f32>() / 20_000.0;
        // Standard errors are 1/√n = 0.007 and √(2/n) = 0.01; four of them are allowed.
        assert!(
            mean.abs() < 0.03 && (square - 1.0).abs() < 0.04,
            "{mean} {square}"
        );
        assert_eq!(dy, upstream_gradient::<f32>(3, 100, 20_000));
        assert_ne!(dy, upstream_gradient::<f32>(4, 100, 20_000));
        // A row does not depend on how many rows there are.
        assert_eq!(dy[..500], upstream_gradient::<f32>(3, 100, 500)[..]);
    }
}
