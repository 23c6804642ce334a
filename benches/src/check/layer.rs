//! A sample of a whole layer's results against the reference: outputs and input gradients of a few
//! tokens, weight gradients of a few experts.

use tollgate::gating::{GateInputs, GateState, reference as gating};
use tollgate::gemm::reference as gemm;
use tollgate::{
    Cpu, Element, ExpertShape, ExpertWeights, LayerState, MoeLayer, RoutingTable, RowView,
    StepContext,
};

use super::{assert_norm, norm_tolerance, sample};
use crate::data::widen;

/// A layer with what it was run on. Experts without bias; no jitter, no capacity, no Gating
/// Dropout.
#[derive(Debug, Clone, Copy)]
pub struct LayerCase<'a, T> {
    /// The layer.
    pub layer: &'a MoeLayer<Cpu>,
    /// `[T, H]`.
    pub x: RowView<'a, T>,
    /// `[E, H]`.
    pub router: &'a [f32],
    /// `up [E, N1, H]`, `down [E, H, I]`.
    pub experts: ExpertWeights<'a, T>,
    /// The context of the pass.
    pub ctx: StepContext,
}

/// Tokens that are looked at lie in so many places.
const PLACES: usize = 3;
/// Neighbours looked at in each place.
const NEIGHBOURS: usize = 2;
/// Experts whose weight gradients are looked at.
const EXPERTS: usize = 3;

/// What an expert makes of one row, in f64.
struct OneRow {
    up: Vec<f64>,
    down: Vec<f64>,
    pre: Vec<f64>,
    out: Vec<f64>,
}

impl<T: Element> LayerCase<'_, T> {
    fn shape(&self) -> &ExpertShape {
        self.layer.shape()
    }

    /// Runs of neighbouring tokens, spread over the batch.
    fn runs(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let tokens = self.x.rows();
        let starts = sample(tokens.saturating_sub(NEIGHBOURS - 1), PLACES);
        starts
            .into_iter()
            .map(move |start| start..(start + NEIGHBOURS).min(tokens))
    }

    fn row(&self, expert: usize, x: &[f64]) -> OneRow {
        let shape = self.shape();
        let one = ExpertShape {
            experts: 1,
            ..*shape
        };
        let part = |data: &[T], elems: usize| widen(&data[expert * elems..(expert + 1) * elems]);
        let up = part(self.experts.up, shape.up_rows() * shape.hidden);
        let down = part(self.experts.down, shape.hidden * shape.intermediate);
        let weights = ExpertWeights {
            up: &up[..],
            up_bias: None,
            down: &down[..],
            down_bias: None,
        };
        let passed = gemm::up(&one, &weights, x, &[0, 1]);
        let out = gemm::down(&one, &weights, &passed.act, &[0, 1]);
        OneRow {
            pre: passed.pre,
            out,
            up,
            down,
        }
    }

    /// The reference gate on the layer's own logits of a run of tokens. The router's product is
    /// compared apart: where two logits nearly tie, f32 and f64 products may rank them differently.
    fn gate(&self, state: &LayerState<T>, run: &std::ops::Range<usize>) -> GateState<f64> {
        let experts = self.shape().experts;
        let ctx = StepContext {
            first_token: self.ctx.first_token + run.start as u32,
            ..self.ctx
        };
        let options = self.layer.options();
        let logits = widen(
            state
                .router_logits()
                .get(run.start * experts..run.end * experts)
                .unwrap_or(&[]),
        );
        let inputs = gate_inputs(options.router.has_gate(), &logits, run.len(), experts);
        gating::gate(&inputs, options, &ctx).expect("the layer took the same options")
    }
}

fn gate_inputs(
    has_gate: bool,
    logits: &[f64],
    tokens: usize,
    experts: usize,
) -> GateInputs<'_, f64> {
    if has_gate {
        GateInputs::new(RowView::new(logits, tokens, experts).expect("logits [T, E]"))
    } else {
        GateInputs::without_logits(tokens, experts)
    }
}

/// Panics unless the router's products, the routing and the outputs of a few tokens are right.
pub fn check_forward<T: Element>(
    case: &LayerCase<'_, T>,
    state: &LayerState<T>,
    y: RowView<'_, T>,
) {
    let shape = case.shape();
    let (h, e) = (shape.hidden, shape.experts);
    state.gate().table.validate().expect("the table is valid");
    let router = widen(case.router);
    // Stored on the way: pre-activation, activation, expert's output, output.
    let tolerance = norm_tolerance(T::DTYPE, 4, h + shape.intermediate);
    for run in case.runs() {
        if case.layer.options().router.has_gate() {
            let x: Vec<f64> = run.clone().flat_map(|t| widen(case.x.row(t))).collect();
            let logits = gemm::m_grouped(&x, &router, None, &[0, run.len() as i32], e, h);
            let actual = &state.router_logits()[run.start * e..run.end * e];
            let bound = norm_tolerance(tollgate::DType::F32, 1, h);
            assert_norm("router logits", widen(actual), &logits, bound);
        }
        let gate = case.gate(state, &run);
        for (i, token) in run.enumerate() {
            let chosen = gate.table.experts_of(i);
            assert_eq!(
                state.gate().table.experts_of(token),
                chosen,
                "experts of token {token}"
            );
            let x = widen(case.x.row(token));
            let mut expected = vec![0.0; h];
            for (&expert, &w) in chosen.iter().zip(gate.table.weights_of(i)) {
                let out = case.row(expert as usize, &x).out;
                for (sum, v) in expected.iter_mut().zip(out) {
                    *sum += w * v;
                }
            }
            let what = format!("output of token {token}");
            assert_norm(&what, widen(y.row(token)), &expected, tolerance);
        }
    }
}

/// Where a backward pass wrote.
#[derive(Debug, Clone, Copy)]
pub struct Gradients<'a, T> {
    /// `[T, H]`.
    pub x: RowView<'a, T>,
    /// `[E, H]`.
    pub router: Option<&'a [f32]>,
    /// `[E, N1, H]`.
    pub up: &'a [f32],
    /// `[E, H, I]`.
    pub down: &'a [f32],
}

/// Panics unless the gradients of a few tokens and of a few experts' weights are right;
/// dy `[T, H]`.
pub fn check_backward<T: Element>(
    case: &LayerCase<'_, T>,
    state: &LayerState<T>,
    dy: RowView<'_, T>,
    gradients: &Gradients<'_, T>,
) {
    for run in case.runs() {
        check_tokens(case, state, dy, gradients, &run);
    }
    let table = &state.gate().table;
    let used: Vec<usize> = (0..table.num_experts())
        .filter(|&e| table.count_of(e) > 0)
        .collect();
    for i in sample(used.len(), EXPERTS) {
        check_expert(case, table, dy, gradients, used[i]);
    }
    if let Some(router) = gradients.router {
        let (h, e) = (case.shape().hidden, case.shape().experts);
        for expert in sample(e, EXPERTS) {
            let mut expected = vec![0.0; h];
            for token in 0..case.x.rows() {
                let d = f64::from(state.router_logit_gradient()[token * e + expert]);
                add_scaled(&mut expected, d, case.x.row(token));
            }
            let bound = norm_tolerance(tollgate::DType::F32, 1, case.x.rows());
            let what = format!("gradient of the router's row {expert}");
            let actual = widen(&router[expert * h..(expert + 1) * h]);
            assert_norm(&what, actual, &expected, bound);
        }
    }
}

fn add_scaled<T: Element>(sum: &mut [f64], scale: f64, row: &[T]) {
    for (sum, v) in sum.iter_mut().zip(row) {
        *sum += scale * v.to_f64();
    }
}

/// dlogits and dx of a run of tokens.
fn check_tokens<T: Element>(
    case: &LayerCase<'_, T>,
    state: &LayerState<T>,
    dy: RowView<'_, T>,
    gradients: &Gradients<'_, T>,
    run: &std::ops::Range<usize>,
) {
    let shape = case.shape();
    let (h, e) = (shape.hidden, shape.experts);
    let one = ExpertShape {
        experts: 1,
        ..*shape
    };
    // Stored on the way: pre-activation, the row of dy, dpre, the row of dx, dx; and the output of
    // the expert, through the router.
    let tolerance = norm_tolerance(T::DTYPE, 6, h + shape.intermediate);
    let mut gate = case.gate(state, run);
    let (mut dweights, mut expected) = (Vec::new(), Vec::new());
    for (i, token) in run.clone().enumerate() {
        let x = widen(case.x.row(token));
        let dy = widen(dy.row(token));
        let mut dx = vec![0.0; h];
        let chosen = gate.table.experts_of(i);
        for (&expert, &w) in chosen.iter().zip(gate.table.weights_of(i)) {
            let row = case.row(expert as usize, &x);
            dweights.push(dy.iter().zip(&row.out).map(|(d, o)| d * o).sum::<f64>());
            let dy: Vec<f64> = dy.iter().map(|d| w * d).collect();
            let (n1, inner) = (shape.up_rows(), shape.intermediate);
            let dact = gemm::m_grouped_transposed(&dy, &row.down, &[0, 1], h, inner);
            let dpre = gemm::activate_backward(&one, &row.pre, &dact);
            let drow = gemm::m_grouped_transposed(&dpre, &row.up, &[0, 1], n1, h);
            for (sum, d) in dx.iter_mut().zip(drow) {
                *sum += d;
            }
        }
        expected.push(dx);
    }
    if case.layer.options().router.has_gate() {
        // The losses are means over the batch: their gradients on a run of n of T tokens are those
        // of the batch with the coefficients times n / T and with the batch's load.
        let part = run.len() as f32 / case.x.rows() as f32;
        let mut options = case.layer.options().clone();
        options.balance_alpha *= part;
        options.z_coefficient *= part;
        gate.load.clone_from(&state.gate().load);
        let logits = widen(&state.router_logits()[run.start * e..run.end * e]);
        let inputs = gate_inputs(true, &logits, run.len(), e);
        let ctx = StepContext {
            first_token: case.ctx.first_token + run.start as u32,
            ..case.ctx
        };
        let (dlogits, _) = gating::gate_backward(&inputs, &options, &ctx, &gate, &dweights)
            .expect("the state is that of the forward pass");
        let actual = &state.router_logit_gradient()[run.start * e..run.end * e];
        assert_norm("gradient of the logits", widen(actual), &dlogits, tolerance);
        for (i, dx) in expected.iter_mut().enumerate() {
            for (j, d) in dlogits[i * e..(i + 1) * e].iter().enumerate() {
                add_scaled(dx, *d, &case.router[j * h..(j + 1) * h]);
            }
        }
    }
    for (token, expected) in run.clone().zip(&expected) {
        let what = format!("gradient of token {token}");
        assert_norm(&what, widen(gradients.x.row(token)), expected, tolerance);
    }
}

/// One column of an expert's inner layer: the gradients of the rows of `up` that make it and of the
/// column of `down` that it feeds, from every row of the expert.
fn check_expert<T: Element>(
    case: &LayerCase<'_, T>,
    table: &RoutingTable,
    dy: RowView<'_, T>,
    gradients: &Gradients<'_, T>,
    expert: usize,
) {
    let shape = case.shape();
    let (h, inner, n1) = (shape.hidden, shape.intermediate, shape.up_rows());
    let column = (37 * expert + 11) % inner;
    let unit = ExpertShape {
        experts: 1,
        hidden: h,
        intermediate: 1,
        ..*shape
    };
    // Rows of `up` that belong to the column: one, or the gate's and the up map's.
    let up_rows: Vec<usize> = (0..n1 / inner).map(|part| part * inner + column).collect();
    let up: Vec<&[T]> = up_rows
        .iter()
        .map(|n| &case.experts.up[(expert * n1 + n) * h..][..h])
        .collect();
    let down: Vec<f64> = (0..h)
        .map(|row| case.experts.down[(expert * h + row) * inner + column].to_f64())
        .collect();

    let mut dup = vec![vec![0.0; h]; up.len()];
    let mut ddown = vec![0.0; h];
    for token in 0..table.num_tokens() {
        for a in table.assignments_of(token) {
            if table.expert_indices[a] as usize != expert {
                continue;
            }
            let (x, dy) = (case.x.row(token), dy.row(token));
            let w = f64::from(table.routing_weights[a]);
            let dot = |row: &&[T]| {
                row.iter()
                    .zip(x)
                    .map(|(a, b)| a.to_f64() * b.to_f64())
                    .sum()
            };
            let pre: Vec<f64> = up.iter().map(dot).collect();
            let dact: f64 = dy.iter().zip(&down).map(|(d, v)| w * d.to_f64() * v).sum();
            let dpre = gemm::activate_backward(&unit, &pre, &[dact]);
            for (sum, d) in dup.iter_mut().zip(dpre) {
                add_scaled(sum, d, x);
            }
            add_scaled(&mut ddown, w * gemm::activate(&unit, &pre)[0], dy);
        }
    }
    // Stored on the way: pre-activation, activation, the row of dy, dpre.
    let terms = table.count_of(expert) + h + inner;
    let tolerance = norm_tolerance(T::DTYPE, 4, terms);
    for (n, expected) in up_rows.iter().zip(&dup) {
        let actual = widen(&gradients.up[(expert * n1 + n) * h..][..h]);
        let what = format!("gradient of up, expert {expert}, row {n}");
        assert_norm(&what, actual, expected, tolerance);
    }
    let actual = (0..h).map(|row| f64::from(gradients.down[(expert * h + row) * inner + column]));
    let what = format!("gradient of down, expert {expert}, column {column}");
    assert_norm(&what, actual, &ddown, tolerance);
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tollgate::options::Activation;
    use tollgate::{ExpertGrads, LayerGrads, LayerInputs, LayerWeights, RowViewMut};

    use super::*;
    use crate::data::normals;

    const T: usize = 40;
    const H: usize = 24;
    const I: usize = 32;
    const E: usize = 5;

    /// Everything a pass wrote.
    struct Run {
        state: LayerState<f32>,
        y: Vec<f32>,
        dx: Vec<f32>,
        router: Vec<f32>,
        up: Vec<f32>,
        down: Vec<f32>,
    }

    /// Runs a small gated layer and hands the case, the upstream gradient and the results on.
    fn with_run(router: &str, check: impl FnOnce(&LayerCase<'_, f32>, &[f32], Run)) {
        let layer = MoeLayer::builder(H, I, E)
            .router(router.parse().unwrap())
            .activation(Activation::Silu)
            .gated(true)
            .build(Cpu::new(1).unwrap())
            .unwrap();
        let x: Vec<f32> = normals(T * H, 1.0, 1);
        let map: Vec<f32> = normals(E * H, 0.3, 2);
        let up: Vec<f32> = normals(E * 2 * I * H, 0.2, 3);
        let down: Vec<f32> = normals(E * H * I, 0.2, 4);
        let dy: Vec<f32> = normals(T * H, 1.0, 5);
        let case = LayerCase {
            layer: &layer,
            x: RowView::new(&x, T, H).unwrap(),
            router: &map,
            experts: ExpertWeights {
                up: &up,
                up_bias: None,
                down: &down,
                down_bias: None,
            },
            ctx: StepContext::default(),
        };
        let mut run = Run {
            state: LayerState::default(),
            y: vec![f32::NAN; T * H],
            dx: vec![f32::NAN; T * H],
            router: vec![f32::NAN; E * H],
            up: vec![f32::NAN; up.len()],
            down: vec![f32::NAN; down.len()],
        };
        let inputs = LayerInputs::new(case.x);
        let weights = LayerWeights {
            router: Some(&map),
            router_noise: None,
            selection_bias: None,
            experts: case.experts,
        };
        let y = RowViewMut::new(&mut run.y, T, H).unwrap();
        layer
            .forward(&inputs, &weights, &case.ctx, y, &mut run.state)
            .unwrap();
        let mut grads = LayerGrads {
            x: RowViewMut::new(&mut run.dx, T, H).unwrap(),
            router: Some(&mut run.router),
            router_noise: None,
            experts: ExpertGrads {
                up: &mut run.up,
                up_bias: None,
                down: &mut run.down,
                down_bias: None,
                accumulate: false,
            },
        };
        let dy_rows = RowView::new(&dy, T, H).unwrap();
        layer
            .backward(&inputs, &weights, dy_rows, &mut run.state, &mut grads)
            .unwrap();
        check(&case, &dy, run);
    }

    fn check_run(case: &LayerCase<'_, f32>, dy: &[f32], run: &Run) {
        let rows = |data| RowView::new(data, T, H).unwrap();
        check_forward(case, &run.state, rows(&run.y));
        let gradients = Gradients {
            x: rows(&run.dx),
            router: Some(&run.router),
            up: &run.up,
            down: &run.down,
        };
        check_backward(case, &run.state, rows(dy), &gradients);
    }

    #[test]
    fn right_results_pass() {
        for router in ["top2", "adaptive:0.1", "forced:0.5", "topk:3", "sigmoid:2"] {
            with_run(router, |case, dy, run| check_run(case, dy, &run));
        }
    }

    #[test]
    fn every_kind_of_wrong_result_is_found() {
        type Spoil = fn(&mut Run);
        let spoils: [(&str, Spoil); 6] = [
            ("output", |run| run.y[3] += 0.01),
            ("input gradient", |run| run.dx[3] += 0.01),
            ("last output", |run| run.y[T * H - 1] = f32::NAN),
            ("router gradient", |run| run.router[0] += 0.1),
            ("up gradient", |run| {
                run.up.iter_mut().for_each(|g| *g *= 1.01)
            }),
            ("down gradient", |run| {
                run.down.iter_mut().for_each(|g| *g *= 0.99)
            }),
        ];
        for (what, spoil) in spoils {
            with_run("top2", |case, dy, mut run| {
                spoil(&mut run);
                let caught = catch_unwind(AssertUnwindSafe(|| check_run(case, dy, &run)));
                assert!(caught.is_err(), "wrong {what}");
            });
        }
    }

    #[test]
    fn another_routing_is_found() {
        with_run("forced:0.5", |_, _, other| {
            with_run("top2", |case, dy, mut run| {
                run.state = other.state;
                let caught = catch_unwind(AssertUnwindSafe(|| check_run(case, dy, &run)));
                assert!(caught.is_err(), "the routing of forced:0.5 passed as top2");
            });
        });
    }
}
