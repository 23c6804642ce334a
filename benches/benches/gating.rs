//! Gating: softmax, the whole gate for each kind of router, and its backward pass.
//!
//! Bytes are the compulsory ones: logits read; scores, log-sum-exp, first choices and one routing
//! table written. Buffers take turns beyond the last-level cache. Behind the tables stands what is
//! known of the kernels for GPUs: see [`gpu`].

#[path = "gating/gpu.rs"]
mod gpu;

use tollgate::core::options::GateOptions;
use tollgate::gating::{GateInputs, GateState, Gating, reference};
use tollgate::{Cpu, Router, RowView, RowViewMut, StepContext};
use tollgate_benches::check::assert_norm;
use tollgate_benches::data::{Rotation, normals, widen};
use tollgate_benches::harness::{Family, Scale};
use tollgate_benches::shapes::{GateShape, gates};
use tollgate_benches::work::Work;
use tollgate_testkit::{Data, Tolerance, assert_close};

/// Routers that are timed on few and on many experts.
const FEW: &[&str] = &[
    "top1",
    "top2",
    "topk:8",
    "sigmoid:8",
    "grouped:8:8:4",
    "adaptive:0.1",
    "forced:0.8",
    "second:random:0.2",
    "noisy:2",
    "expert-choice:2x",
    "hash",
    "thor:token",
];
const MANY: &[&str] = &["topk:8", "grouped:8:8:4"];
const FEW_BACKWARD: &[&str] = &["top2", "topk:8", "sigmoid:8", "adaptive:0.1"];
const MANY_BACKWARD: &[&str] = &["topk:8"];

/// Rows that are compared with the reference, where a row does not depend on the others.
const SAMPLE_ROWS: usize = 1024;

/// How far scores may be off, relatively: e^x errs by 2^-22.6 and the sum of E of them by E
/// roundings; the exponent x = z − lse, of magnitude below 40 here, is rounded twice.
fn score_tolerance(experts: usize) -> f64 {
    let roundings = experts as f64 + 2.0 * 40.0 + 4.0;
    2.0 * 1.6e-7 + roundings / f64::from(1 << 24)
}

/// What a gate call takes.
struct Inputs {
    shape: GateShape,
    logits: Vec<f32>,
    noise_logits: Vec<f32>,
    token_ids: Vec<i32>,
}

impl Inputs {
    fn new(shape: GateShape, router: &Router, seed: u64) -> Self {
        let elems = shape.tokens * shape.experts;
        let only_if = |needed, elems| if needed { elems } else { 0 };
        let mut ids = Data::new(seed);
        let hash = only_if(matches!(router, Router::Hash), shape.tokens);
        Self {
            shape,
            logits: normals(only_if(router.has_gate(), elems), 2.0, seed),
            noise_logits: normals(only_if(router.is_noisy(), elems), 1.0, seed + 100),
            token_ids: (0..hash).map(|_| ids.below(50_000) as i32).collect(),
        }
    }

    /// The first `tokens` tokens.
    fn view(&self, tokens: usize) -> GateInputs<'_> {
        let experts = self.shape.experts;
        let matrix = |data| (!<[f32]>::is_empty(data)).then_some(data);
        let view = |data| {
            matrix(data).map(|d: &[f32]| RowView::new(&d[..tokens * experts], tokens, experts))
        };
        GateInputs {
            logits: view(&self.logits).transpose().expect("logits [T, E]"),
            noise_logits: view(&self.noise_logits)
                .transpose()
                .expect("noise logits [T, E]"),
            token_ids: self.token_ids.get(..tokens),
            ..GateInputs::without_logits(tokens, experts)
        }
    }
}

fn options(router: &str) -> GateOptions {
    GateOptions::new(router.parse().expect("a router's spelling"))
}

fn main() {
    let mut family = Family::from_args();
    let (cpu, scale) = (family.cpu(), family.scale());
    let [few, many] = gates(scale);

    let mut op = family.op("gating_softmax");
    for shape in [few, many] {
        let elems = shape.tokens * shape.experts;
        let work = Work::traffic(4 * elems, 4 * (elems + shape.tokens));
        op.bench(&shape.name(), "f32", "tollgate", work, || {
            softmax(&cpu, scale, shape)
        });
    }
    op.finish();

    let mut op = family.op("gating_forward");
    for (shape, routers) in [(few, FEW), (many, MANY)] {
        for router in routers {
            let options = options(router);
            let name = format!("{}-{router}", shape.name());
            let work = forward_work(shape, &options.router);
            op.bench(&name, "f32", "tollgate", work, || {
                forward(&cpu, scale, shape, options)
            });
        }
    }
    op.finish();

    let mut op = family.op("gating_backward");
    for (shape, routers) in [(few, FEW_BACKWARD), (many, MANY_BACKWARD)] {
        for router in routers {
            let options = options(router);
            let name = format!("{}-{router}", shape.name());
            let assignments = shape.tokens * options.router.max_experts_per_token(shape.experts);
            let elems = shape.tokens * shape.experts;
            // Scores read, logit gradients written; per assignment its expert, weight, gradient.
            let work = Work::traffic(4 * elems + 12 * assignments, 4 * elems);
            op.bench(&name, "f32", "tollgate", work, || {
                backward(&cpu, scale, shape, options)
            });
        }
    }
    op.finish();
    let counted = family.wants_counters();
    family.finish();
    if counted {
        gpu::tables(scale);
    }
}

/// Compulsory bytes of a gate call. Routers whose number of assignments depends on the data are
/// counted with the most they can have; the difference is below a tenth of the bytes.
fn forward_work(shape: GateShape, router: &Router) -> Work {
    let GateShape { tokens, experts } = shape;
    let assignments = match *router {
        Router::ExpertChoice { .. } => {
            experts * router.expert_choice_tokens(tokens, experts).unwrap_or(0)
        }
        _ => tokens * router.max_experts_per_token(experts),
    };
    let table = 4 * (tokens + experts) + 8 * assignments;
    let (mut read, mut written) = (0, table);
    if router.has_gate() {
        read += 4 * tokens * experts;
        written += 4 * tokens * (experts + 2);
    }
    if router.is_noisy() {
        // Noise logits in; noisy logits and the noise out.
        read += 4 * tokens * experts;
        written += 8 * tokens * experts;
    }
    if matches!(router, Router::Hash) {
        read += 4 * tokens;
    }
    Work::traffic(read, written)
}

fn softmax(cpu: &Cpu, scale: Scale, shape: GateShape) -> impl FnMut() + use<> {
    struct Set {
        logits: Vec<f32>,
        probs: Vec<f32>,
        lse: Vec<f32>,
    }
    let GateShape { tokens, experts } = shape;
    let elems = tokens * experts;
    let sets = Rotation::cold(scale, 8 * elems, |set| Set {
        logits: normals(elems, 2.0, set as u64),
        probs: vec![f32::NAN; elems],
        lse: vec![f32::NAN; tokens],
    });
    let cpu = cpu.clone();
    let run = move |set: &mut Set| {
        let logits = RowView::new(&set.logits, tokens, experts).expect("logits [T, E]");
        let probs = RowViewMut::new(&mut set.probs, tokens, experts).expect("probs [T, E]");
        cpu.softmax(logits, probs, &mut set.lse)
            .expect("shapes agree");
    };
    sets.checked(run, move |set| {
        let rows = SAMPLE_ROWS.min(tokens);
        let logits = widen(&set.logits[..rows * experts]);
        let logits = RowView::new(&logits, rows, experts).expect("rows of logits");
        let (expected, _) = reference::softmax(logits);
        let actual = widen(&set.probs[..rows * experts]);
        let tolerance = Tolerance::relative(score_tolerance(experts));
        assert_close("softmax", actual, &expected, tolerance);
    })
}

/// Panics unless `state` agrees with the reference on the first `rows` tokens.
fn check_gate(inputs: &Inputs, options: &GateOptions, ctx: &StepContext, state: &GateState) {
    let GateShape { tokens, experts } = inputs.shape;
    // Expert choice is the one router here whose rows depend on each other.
    let rows = match options.router {
        Router::ExpertChoice { .. } => tokens,
        _ => SAMPLE_ROWS.min(tokens),
    };
    state.table.validate().expect("the table is valid");
    let widened = reference::Widened::new(&inputs.view(rows));
    let expected = reference::gate(&widened.inputs(), options, ctx).expect("legal inputs");
    // A renormalised weight divides two sums of scores.
    let tolerance = Tolerance::relative(4.0 * score_tolerance(experts));
    for t in 0..rows {
        assert_eq!(
            state.table.experts_of(t),
            expected.table.experts_of(t),
            "{}: experts of token {t}",
            options.router
        );
        let weights = widen(state.table.weights_of(t));
        let what = format!("{}: weights of token {t}", options.router);
        assert_close(&what, weights, expected.table.weights_of(t), tolerance);
    }
}

fn forward(
    cpu: &Cpu,
    scale: Scale,
    shape: GateShape,
    options: GateOptions,
) -> impl FnMut() + use<> {
    let ctx = StepContext::default();
    let sets = Rotation::cold(scale, 8 * shape.tokens * shape.experts, |set| {
        let inputs = Inputs::new(shape, &options.router, set as u64);
        (inputs, GateState::default())
    });
    let (cpu, checked) = (cpu.clone(), options.clone());
    let run = move |(inputs, state): &mut (Inputs, GateState)| {
        cpu.gate(&inputs.view(shape.tokens), &options, &ctx, state)
            .expect("legal inputs");
    };
    sets.checked(run, move |(inputs, state)| {
        check_gate(inputs, &checked, &ctx, state)
    })
}

fn backward(
    cpu: &Cpu,
    scale: Scale,
    shape: GateShape,
    options: GateOptions,
) -> impl FnMut() + use<> {
    struct Set {
        inputs: Inputs,
        state: GateState,
        dweights: Vec<f32>,
        dlogits: Vec<f32>,
    }
    let GateShape { tokens, experts } = shape;
    let elems = tokens * experts;
    let ctx = StepContext::default();
    let sets = Rotation::cold(scale, 8 * elems, |set| {
        let inputs = Inputs::new(shape, &options.router, set as u64);
        let mut state = GateState::default();
        cpu.gate(&inputs.view(tokens), &options, &ctx, &mut state)
            .expect("legal inputs");
        let dweights = normals(state.table.num_assignments(), 1.0, 50 + set as u64);
        Set {
            inputs,
            state,
            dweights,
            dlogits: vec![f32::NAN; elems],
        }
    });
    let (cpu, checked) = (cpu.clone(), options.clone());
    let run = move |set: &mut Set| {
        let dlogits = RowViewMut::new(&mut set.dlogits, tokens, experts).expect("dlogits [T, E]");
        let inputs = set.inputs.view(tokens);
        let (state, dweights) = (&set.state, &set.dweights);
        cpu.gate_backward(&inputs, &options, &ctx, state, dweights, dlogits, None)
            .expect("the state of the forward pass");
    };
    sets.checked(run, move |set| {
        // The losses are means over the batch: all of it is compared.
        let widened = reference::Widened::new(&set.inputs.view(tokens));
        let (inputs, dweights) = (widened.inputs(), widen(&set.dweights));
        let state = reference::gate(&inputs, &checked, &ctx).expect("legal inputs");
        let (expected, _) = reference::gate_backward(&inputs, &checked, &ctx, &state, &dweights)
            .expect("the state of the forward pass");
        // A gradient is made of a few products of scores and weights.
        let tolerance = 8.0 * score_tolerance(experts);
        let actual = widen(&set.dlogits);
        assert_norm("gradient of the logits", actual, &expected, tolerance);
    })
}
