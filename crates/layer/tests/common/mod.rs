//! A layer with random tensors, run on the CPU and by the reference.
//!
//! Inputs and outputs of the CPU lie in strided memory that starts at an odd element: what is
//! between the rows must neither be read nor written.

// Each test file uses its own part of this.
#![allow(dead_code)]

pub mod check;
pub mod fenced;
pub mod resident;

use tollgate::gating::GateState;
use tollgate::options::{Activation, GateOptions};
use tollgate::reference::{self, Batch, Forward, Gradients, Parameters};
use tollgate::{
    Cpu, Device, Element, ExpertGrads, ExpertWeights, LayerGrads, LayerInputs, LayerState,
    LayerWeights, MoeLayer, Router, RowView, StepContext,
};
use tollgate_testkit::{Case, Data, GuardedMatrix, LogitKind, poison};

/// Every router, by its spelling; `E` is the number of experts, so that k never exceeds it.
pub fn routers(experts: usize) -> Vec<Router> {
    let k = experts.min(3);
    let mut spellings: Vec<String> = [
        "top1",
        "adaptive:0.3",
        "forced:0.5",
        "second:all",
        "second:none",
        "second:threshold:0.3",
        "second:random:0.5",
        "expert-choice:1x",
        "hash",
        "thor",
        "thor:token",
        "thor:sentence",
        "ensemble",
    ]
    .map(str::to_owned)
    .to_vec();
    spellings.push(format!("topk:{k}"));
    spellings.push(format!("sigmoid:{k}"));
    spellings.push(format!("noisy:{}", experts.min(2)));
    if experts.is_multiple_of(2) {
        spellings.push("grouped:1:2:1".to_owned());
        spellings.push("grouped:2:2:2:softmax".to_owned());
    } else {
        spellings.push("grouped:1:1:1:softmax".to_owned());
    }
    spellings.iter().map(|s| s.parse().unwrap()).collect()
}

/// Bends x `[T, H]` and the router `[E, H]` so that their product has the case's kind of logits.
///
/// A linear router gives no masks, and NaN or infinite logits only where x is itself spoilt, which
/// `a_faulty_token_is_named_and_spoils_only_itself` looks at; those kinds stay random here.
fn craft<T: Element>(case: &Case, x: &mut [T], router: &mut [f32]) {
    let h = case.hidden;
    let first_column = |x: &mut [T], router: &mut [f32], logit: fn(usize) -> f32| {
        x.chunks_mut(h).for_each(|row| row[0] = T::from_f32(1.0));
        for (e, row) in router.chunks_mut(h).enumerate() {
            row[0] = logit(e);
        }
    };
    match case.logits {
        LogitKind::AllTied => {
            let row = router[..h].to_vec();
            router
                .chunks_mut(h)
                .for_each(|other| other.copy_from_slice(&row));
        }
        LogitKind::ManyTies => {
            // Small whole numbers: equal sums are equal bits, also in the reference.
            x.iter_mut()
                .for_each(|v| *v = T::from_f32(v.to_f32().round()));
            router.iter_mut().for_each(|w| *w = (2.0 * *w).round());
        }
        LogitKind::OneHot => first_column(x, router, |e| if e == 0 { 40.0 } else { 0.0 }),
        LogitKind::EmptyExperts => first_column(x, router, |e| -60.0 * (e % 2) as f32),
        LogitKind::Huge => router.iter_mut().for_each(|w| *w *= 1e4),
        LogitKind::Random
        | LogitKind::Nan
        | LogitKind::PositiveInfinity
        | LogitKind::Masked
        | LogitKind::FullyMasked => {}
    }
}

/// Elements between two rows.
pub const PAD: usize = 3;

/// All tensors of one layer and one batch.
pub struct Problem<T> {
    pub layer: MoeLayer<Cpu>,
    pub ctx: StepContext,
    pub tokens: usize,
    pub x: Vec<T>,
    pub token_ids: Vec<i32>,
    pub sequence_offsets: Vec<i32>,
    pub router: Vec<f32>,
    pub router_noise: Vec<f32>,
    pub selection_bias: Option<Vec<f32>>,
    pub up: Vec<T>,
    pub up_bias: Option<Vec<T>>,
    pub down: Vec<T>,
    pub down_bias: Option<Vec<T>>,
    pub dy: Vec<T>,
}

/// What one step of an implementation gives.
#[derive(Debug, Clone)]
pub struct Step<T> {
    /// What the host's layer keeps; empty where the layer stays on a device.
    pub state: LayerState<T>,
    pub gate: GateState,
    pub router_logits: Vec<f32>,
    pub dlogits: Vec<f32>,
    pub y: Vec<T>,
    pub dx: Vec<T>,
    pub router: Vec<f32>,
    pub router_noise: Vec<f32>,
    pub up: Vec<f32>,
    pub up_bias: Vec<f32>,
    pub down: Vec<f32>,
    pub down_bias: Vec<f32>,
}

impl<T: Element> Problem<T> {
    pub fn new(case: &Case, options: GateOptions, activation: Activation, gated: bool) -> Self {
        Self::on(Cpu::new(2).unwrap(), case, options, activation, gated)
    }

    pub fn on(
        cpu: Cpu,
        case: &Case,
        options: GateOptions,
        activation: Activation,
        gated: bool,
    ) -> Self {
        let (t, e, h, i) = (case.tokens, case.experts, case.hidden, case.intermediate);
        let mut data = case.data(7);
        let layer = MoeLayer::builder(h, i, e)
            .gate(options)
            .activation(activation)
            .gated(gated)
            .build(cpu)
            .unwrap();
        let n1 = layer.shape().up_rows();
        let per = |n: usize| 1.0 / (n as f64).sqrt();
        let sigmoid = layer.options().router.scores() == Some(tollgate::options::Scores::Sigmoid);
        let mut x: Vec<T> = data.normals(t * h, 1.0);
        let mut router: Vec<f32> = data.normals(e * h, per(h));
        craft(case, &mut x, &mut router);
        let mut half = vec![0; 1];
        half.extend([t / 2, t].map(|n| n as i32));
        Self {
            x,
            token_ids: (0..t).map(|_| data.below(50) as i32).collect(),
            sequence_offsets: half,
            router,
            router_noise: data.normals(e * h, per(h)),
            selection_bias: sigmoid.then(|| data.normals(e, 0.1)),
            up: data.normals(e * n1 * h, per(h)),
            up_bias: Some(data.normals(e * n1, 0.3)),
            down: data.normals(e * h * i, per(i)),
            down_bias: Some(data.normals(e * h, 0.3)),
            dy: data.normals(t * h, 1.0),
            tokens: t,
            ctx: StepContext {
                seed: 11,
                layer: 2,
                step: 5,
                ..StepContext::default()
            },
            layer,
        }
    }

    pub fn inputs(&self) -> LayerInputs<'_, T> {
        self.inputs_of(RowView::new(&self.x, self.tokens, self.layer.shape().hidden).unwrap())
    }

    fn inputs_of<'a>(&'a self, x: RowView<'a, T>) -> LayerInputs<'a, T> {
        LayerInputs {
            token_ids: Some(&self.token_ids),
            sequence_offsets: Some(&self.sequence_offsets),
            ..LayerInputs::new(x)
        }
    }

    pub fn weights(&self) -> LayerWeights<'_, T> {
        LayerWeights {
            router: Some(&self.router),
            router_noise: Some(&self.router_noise),
            selection_bias: self.selection_bias.as_deref(),
            experts: ExpertWeights {
                up: &self.up,
                up_bias: self.up_bias.as_deref(),
                down: &self.down,
                down_bias: self.down_bias.as_deref(),
            },
        }
    }

    /// Forward and backward on the CPU, into poisoned buffers.
    pub fn run(&self) -> Step<T> {
        self.run_in(LayerState::default())
    }

    /// The same with a state that may have been used before.
    pub fn run_in(&self, state: LayerState<T>) -> Step<T> {
        self.run_on(&self.layer, state)
    }

    /// The same on any device.
    pub fn run_on<D: Device>(&self, layer: &MoeLayer<D>, mut state: LayerState<T>) -> Step<T> {
        let (t, shape) = (self.tokens, *self.layer.shape());
        let (e, h, n1) = (shape.experts, shape.hidden, shape.up_rows());
        let x = GuardedMatrix::of(&self.x, t, h, PAD);
        let dy = GuardedMatrix::of(&self.dy, t, h, PAD);
        let (inputs, weights) = (self.inputs_of(x.view()), self.weights());
        let (mut y, mut dx) = (
            GuardedMatrix::<T>::poisoned(t, h, PAD),
            GuardedMatrix::<T>::poisoned(t, h, PAD),
        );
        layer
            .forward(&inputs, &weights, &self.ctx, y.view_mut(), &mut state)
            .unwrap();
        let router = &self.layer.options().router;
        let gate = if router.has_gate() { e * h } else { 0 };
        let noise = if router.is_noisy() { e * h } else { 0 };
        let bias = |b: &Option<Vec<T>>| b.as_ref().map_or(0, Vec::len);
        let mut step = Step {
            gate: state.gate().clone(),
            router_logits: state.router_logits().to_vec(),
            dlogits: Vec::new(),
            state,
            y: y.values("y"),
            dx: Vec::new(),
            router: poison(gate),
            router_noise: poison(noise),
            up: poison(e * n1 * h),
            up_bias: poison(bias(&self.up_bias)),
            down: poison(e * h * shape.intermediate),
            down_bias: poison(bias(&self.down_bias)),
        };
        let mut grads = LayerGrads {
            x: dx.view_mut(),
            router: (gate > 0).then_some(&mut step.router[..]),
            router_noise: (noise > 0).then_some(&mut step.router_noise[..]),
            experts: ExpertGrads {
                up: &mut step.up,
                up_bias: self.up_bias.is_some().then_some(&mut step.up_bias[..]),
                down: &mut step.down,
                down_bias: self.down_bias.is_some().then_some(&mut step.down_bias[..]),
                accumulate: false,
            },
        };
        layer
            .backward(&inputs, &weights, dy.view(), &mut step.state, &mut grads)
            .unwrap();
        step.dx = dx.values("dx");
        step.dlogits = step.state.router_logit_gradient().to_vec();
        step
    }

    /// Forward and backward by the reference.
    pub fn reference(&self) -> (Forward, Gradients) {
        let parameters = Parameters::widen(&self.weights());
        let inputs = self.inputs();
        let batch = Batch::widen(&inputs);
        let forward = reference::forward(&self.layer, &parameters, &batch, &self.ctx).unwrap();
        let dy: Vec<f64> = self.dy.iter().map(|v| v.to_f64()).collect();
        let grads = reference::backward(&self.layer, &parameters, &batch, &self.ctx, &forward, &dy)
            .unwrap();
        (forward, grads)
    }
}

/// Widened exactly.
pub fn wide<T: Element>(values: &[T]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|v| v.to_f64())
}

/// A case of these sizes.
pub fn sized(tokens: usize, experts: usize, hidden: usize, intermediate: usize) -> Case {
    Case {
        name: "sized",
        tokens,
        experts,
        hidden,
        intermediate,
        logits: tollgate_testkit::LogitKind::Random,
        seed: 5,
    }
}

/// A source of values for a test.
pub fn data(seed: u64) -> Data {
    Data::new(seed)
}
