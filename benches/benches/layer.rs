//! The whole layer, forward and forward with backward, with several routers.
//!
//! Operations are the useful ones: the experts' two maps for every assignment, and the router's.
//! The weights exceed the last-level cache by themselves, so nothing takes turns; the state is
//! reused from iteration to iteration, as in training.

use std::cell::OnceCell;

use half::bf16;
use tollgate::gating::{GateInputs, GateState, Gating};
use tollgate::gemm::{GroupedGemm, Stacked};
use tollgate::{
    Cpu, Element, ExpertGrads, ExpertWeights, LayerGrads, LayerInputs, LayerState, LayerWeights,
    MoeLayer, Router, RowView, RowViewMut, StepContext,
};
use tollgate_benches::check::{Gradients, LayerCase, check_backward, check_forward};
use tollgate_benches::data::{Rotation, normals};
use tollgate_benches::harness::{Family, Op};
use tollgate_benches::shapes::{LayerShape, layers};
use tollgate_benches::work::Work;

/// Routers of the shapes with one or two experts a token.
const ONE_OR_TWO: &[&str] = &["top2", "adaptive:0.1", "forced:0.8", "top1", "thor"];
const EIGHT: &[&str] = &["topk:8"];

fn main() {
    let mut family = Family::from_args();
    let (cpu, scale) = (family.cpu(), family.scale());
    for pass in [Pass::Forward, Pass::Both] {
        let mut op = family.op(pass.name());
        for shape in layers(scale) {
            // One token is not trained on.
            if pass == Pass::Both && shape.tokens == 1 {
                continue;
            }
            Model::<f32>::new(&cpu, shape).bench(&mut op, pass);
            Model::<bf16>::new(&cpu, shape).bench(&mut op, pass);
        }
        op.finish();
    }
    family.finish();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Both,
}

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "layer_forward",
            Self::Both => "layer_forward_backward",
        }
    }
}

/// A batch and the parameters, made when first used and shared by the routers.
struct Model<T> {
    cpu: Cpu,
    shape: LayerShape,
    batch: OnceCell<(Vec<T>, Vec<f32>)>,
    experts: OnceCell<(Vec<T>, Vec<T>)>,
}

impl<T: Element> Model<T> {
    fn new(cpu: &Cpu, shape: LayerShape) -> Self {
        Self {
            cpu: cpu.clone(),
            shape,
            batch: OnceCell::new(),
            experts: OnceCell::new(),
        }
    }

    /// x `[T, H]` and the router's map `[E, H]`: logits have a standard deviation of about 1.
    fn batch(&self) -> (RowView<'_, T>, &[f32]) {
        let (tokens, s) = (self.shape.tokens, &self.shape.experts);
        let (x, router) = self.batch.get_or_init(|| {
            let scale = 1.0 / (s.hidden as f64).sqrt();
            (
                normals(tokens * s.hidden, 1.0, 1),
                normals(s.experts * s.hidden, scale, 2),
            )
        });
        (RowView::new(x, tokens, s.hidden).expect("x [T, H]"), router)
    }

    /// The maps, scaled so that activations keep a variance of about 1.
    fn experts(&self) -> ExpertWeights<'_, T> {
        let s = &self.shape.experts;
        let (up, down) = self.experts.get_or_init(|| {
            let scale = |fan_in: usize| 1.0 / (fan_in as f64).sqrt();
            (
                normals(s.experts * s.up_rows() * s.hidden, scale(s.hidden), 3),
                normals(
                    s.experts * s.hidden * s.intermediate,
                    scale(s.intermediate),
                    4,
                ),
            )
        });
        ExpertWeights {
            up,
            up_bias: None,
            down,
            down_bias: None,
        }
    }

    fn layer(&self, router: Router) -> MoeLayer<Cpu> {
        let s = &self.shape.experts;
        MoeLayer::builder(s.hidden, s.intermediate, s.experts)
            .router(router)
            .activation(s.activation)
            .gated(s.gated)
            .build(self.cpu.clone())
            .expect("a legal layer")
    }

    /// How many assignments a router makes, and for how many experts: known without running the
    /// experts.
    fn routing(&self, layer: &MoeLayer<Cpu>) -> (usize, usize) {
        let (x, router) = self.batch();
        let (t, s) = (self.shape.tokens, &self.shape.experts);
        let mut logits = vec![0.0; t * s.experts];
        let map = Stacked {
            data: router,
            experts: 1,
            n: s.experts,
            k: s.hidden,
        };
        let out = RowViewMut::new(&mut logits, t, s.experts).expect("logits [T, E]");
        self.cpu
            .m_grouped(x, map, None, &[0, t as i32], out)
            .expect("shapes agree");
        let inputs = match layer.options().router.has_gate() {
            true => GateInputs::new(RowView::new(&logits, t, s.experts).expect("logits [T, E]")),
            false => GateInputs::without_logits(t, s.experts),
        };
        let mut state = GateState::default();
        self.cpu
            .gate(
                &inputs,
                layer.options(),
                &StepContext::default(),
                &mut state,
            )
            .expect("legal inputs");
        let used = state.table.counts().iter().filter(|&&c| c > 0).count();
        (state.table.num_assignments(), used)
    }

    /// Operations, and bytes that cannot stay in a cache: the weights of the experts in use, read
    /// by each pass, their gradients written, input and output.
    fn work(&self, layer: &MoeLayer<Cpu>, pass: Pass) -> Work {
        let (assignments, used) = self.routing(layer);
        let has_gate = layer.options().router.has_gate();
        let forward = self.shape.forward_flops(assignments, has_gate);
        let (t, h) = (self.shape.tokens, self.shape.experts.hidden);
        let weights = self.shape.weight_elems() / self.shape.experts.experts * used;
        let element = size_of::<T>();
        match pass {
            Pass::Forward => Work::products(
                T::DTYPE,
                forward,
                element * (weights + t * h),
                element * t * h,
            ),
            Pass::Both => {
                let gradients = 4 * self.shape.weight_elems();
                let read = element * (2 * weights + 3 * t * h);
                let written = gradients + element * 2 * t * h;
                Work::products(T::DTYPE, 3.0 * forward, read, written)
            }
        }
    }

    fn bench(&self, op: &mut Op<'_>, pass: Pass) {
        let routers = if self.shape.k == 8 { EIGHT } else { ONE_OR_TWO };
        for router in routers {
            let layer = self.layer(router.parse().expect("a router's spelling"));
            let work = self.work(&layer, pass);
            let name = format!("{}-{router}", self.shape.name);
            op.bench(&name, T::DTYPE.name(), "tollgate", work, || {
                self.time(layer, pass)
            });
        }
    }

    fn time(&self, layer: MoeLayer<Cpu>, pass: Pass) -> impl FnMut() {
        let s = &self.shape.experts;
        let (t, h) = (self.shape.tokens, s.hidden);
        let (x, router) = self.batch();
        let experts = self.experts();
        let ctx = StepContext::default();
        let layer = std::rc::Rc::new(layer);
        let checked = std::rc::Rc::clone(&layer);
        let has_gate = layer.options().router.has_gate();
        let set = |_| Set {
            state: LayerState::default(),
            y: vec![T::NAN; t * h],
            backward: (pass == Pass::Both).then(|| Backward {
                dy: normals(t * h, 1.0, 5),
                dx: vec![T::NAN; t * h],
                router: vec![f32::NAN; if has_gate { s.experts * h } else { 0 }],
                up: vec![f32::NAN; s.experts * s.up_rows() * h],
                down: vec![f32::NAN; s.experts * h * s.intermediate],
            }),
        };
        let run = move |set: &mut Set<T>| {
            let inputs = LayerInputs::new(x);
            let weights = LayerWeights {
                router: Some(router),
                router_noise: None,
                selection_bias: None,
                experts,
            };
            let y = RowViewMut::new(&mut set.y, t, h).expect("y [T, H]");
            layer
                .forward(&inputs, &weights, &ctx, y, &mut set.state)
                .expect("legal inputs");
            let Some(backward) = &mut set.backward else {
                return;
            };
            let dy = RowView::new(&backward.dy, t, h).expect("dy [T, H]");
            let mut grads = LayerGrads {
                x: RowViewMut::new(&mut backward.dx, t, h).expect("dx [T, H]"),
                router: has_gate.then_some(&mut backward.router[..]),
                router_noise: None,
                experts: ExpertGrads {
                    up: &mut backward.up,
                    up_bias: None,
                    down: &mut backward.down,
                    down_bias: None,
                    accumulate: false,
                },
            };
            layer
                .backward(&inputs, &weights, dy, &mut set.state, &mut grads)
                .expect("the state of the forward pass");
        };
        Rotation::of(1, set).checked(run, move |set| {
            let case = LayerCase {
                layer: &checked,
                x,
                router,
                experts,
                ctx,
            };
            let y = RowView::new(&set.y, t, h).expect("y [T, H]");
            check_forward(&case, &set.state, y);
            if let Some(backward) = &set.backward {
                let gradients = Gradients {
                    x: RowView::new(&backward.dx, t, h).expect("dx [T, H]"),
                    router: has_gate.then_some(&backward.router[..]),
                    up: &backward.up,
                    down: &backward.down,
                };
                let dy = RowView::new(&backward.dy, t, h).expect("dy [T, H]");
                check_backward(&case, &set.state, dy, &gradients);
            }
        })
    }
}

/// What a pass writes.
struct Set<T> {
    state: LayerState<T>,
    y: Vec<T>,
    backward: Option<Backward<T>>,
}

/// What a backward pass reads and writes besides.
struct Backward<T> {
    dy: Vec<T>,
    dx: Vec<T>,
    router: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}
