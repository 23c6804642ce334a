//! Inputs that no one should pass: an error that names the value, or a valid result; no panic.

use proptest::prelude::*;
use tollgate_core::options::{
    AuxLoss, BalanceOver, Capacity, DropOrder, Gap, GateOptions, GatingDropout, Granularity,
    LocalChoice, LocalWeight, Scores, SecondPolicy, StochasticPer, Weights,
};
use tollgate_core::{DropMode, ExpertChoiceCapacity, Router, RowView, StepContext};
use tollgate_gating::{GateInputs, GateState, reference};

use crate::support::options;

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    (0..all.len()).prop_map(move |i| all[i])
}

/// Numbers in and out of range, and no numbers.
fn real() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => 0f32..1.0,
        1 => any_of(&[0.0f32, 1.0, 2.5, -1.0, f32::NAN, f32::INFINITY, 1e30, 1e-30]),
    ]
}

fn logit() -> impl Strategy<Value = f64> {
    let special = [
        f64::NEG_INFINITY,
        f64::INFINITY,
        f64::NAN,
        3e38,
        -3e38,
        0.0,
        -0.0,
        1e-40,
        100.0,
        2.0,
    ];
    prop_oneof![5 => -3.0..3.0f64, 1 => (0..special.len()).prop_map(move |i| special[i])]
}

fn router() -> impl Strategy<Value = Router> {
    let count = 0usize..5;
    let scores = || any_of(Scores::ALL);
    prop_oneof![
        (count.clone(), scores()).prop_map(|(k, scores)| Router::TopK { k, scores }),
        (count.clone(), count.clone(), count.clone(), scores()).prop_map(
            |(k, groups, top_groups, scores)| Router::Grouped {
                k,
                groups,
                top_groups,
                scores
            }
        ),
        real().prop_map(|tau| Router::Adaptive { tau }),
        real().prop_map(|one_expert_share| Router::Forced { one_expert_share }),
        any_of(&[SecondPolicy::All, SecondPolicy::None])
            .prop_map(|policy| Router::Second { policy }),
        real().prop_map(|tau| Router::Second {
            policy: SecondPolicy::Threshold(tau)
        }),
        real().prop_map(|tau| Router::Second {
            policy: SecondPolicy::Random(tau)
        }),
        count.clone().prop_map(|k| Router::Noisy { k }),
        count.prop_map(|c| Router::ExpertChoice {
            capacity: ExpertChoiceCapacity::Tokens(c)
        }),
        real().prop_map(|f| Router::ExpertChoice {
            capacity: ExpertChoiceCapacity::Factor(f)
        }),
        any_of(StochasticPer::ALL).prop_map(|per| Router::Stochastic { per }),
        any_of(&[Router::Hash, Router::Ensemble]),
    ]
}

fn dropout() -> impl Strategy<Value = GatingDropout> {
    (
        prop_oneof![Just(1.0), real()],
        any_of(DropMode::ALL),
        any_of(LocalChoice::ALL),
        any_of(LocalWeight::ALL),
        any_of(AuxLoss::ALL),
        any_of(Granularity::ALL),
    )
        .prop_map(
            |(probability, mode, local_choice, local_weight, aux_loss, granularity)| {
                GatingDropout {
                    probability,
                    mode,
                    local_choice,
                    local_weight,
                    aux_loss,
                    granularity,
                }
            },
        )
}

fn gate_options() -> impl Strategy<Value = GateOptions> {
    (
        router(),
        any_of(Gap::ALL),
        prop::option::of(any_of(Weights::ALL)),
        prop::option::of(any_of(BalanceOver::ALL)),
        (real(), real(), real()),
        prop::option::of((real(), any_of(DropOrder::ALL))),
        prop::option::of(dropout()),
    )
        .prop_map(
            |(router, gap, weights, balance_over, reals, capacity, gating_dropout)| GateOptions {
                gap,
                weights,
                balance_over,
                weight_scale: reals.0,
                balance_alpha: reals.1,
                z_coefficient: reals.2,
                capacity: capacity.map(|(factor, order)| Capacity { factor, order }),
                gating_dropout,
                ..GateOptions::new(router)
            },
        )
}

/// Sizes and buffers that may or may not fit each other.
#[derive(Debug, Clone)]
struct Buffers {
    tokens: usize,
    experts: usize,
    logits: Option<(usize, usize)>,
    noise: Option<(usize, usize)>,
    values: Vec<f64>,
    bias: Option<Vec<f64>>,
    ids: Option<Vec<i32>>,
    table: Option<Vec<i32>>,
    offsets: Option<Vec<i32>>,
    local: std::ops::Range<usize>,
}

/// `right` mostly, sometimes something else, sometimes nothing.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    right: T,
    wrong: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop_oneof![12 => Just(Some(right)), 1 => wrong.prop_map(Some), 1 => Just(None)]
}

fn buffers() -> impl Strategy<Value = Buffers> {
    (0usize..6, 0usize..7).prop_flat_map(|(tokens, experts)| {
        let shape = || mostly((tokens, experts), (0usize..6, 0usize..7));
        let index = -1i32..8;
        (
            shape(),
            shape(),
            prop::collection::vec(logit(), 42),
            prop::option::weighted(
                0.3,
                prop::collection::vec(logit(), experts..experts + 1)
                    .prop_map(|b| b.iter().map(|b| b / 3.0).collect::<Vec<_>>()),
            ),
            prop::option::weighted(0.8, prop::collection::vec(0i32..4, tokens..tokens + 1)),
            prop::option::of(prop::collection::vec(index.clone(), 0..6)),
            mostly(vec![0, tokens as i32], prop::collection::vec(index, 0..4)),
            prop_oneof![5 => Just(0..experts), 1 => (0usize..8, 0usize..8).prop_map(|(a, b)| a..b)],
        )
            .prop_map(
                move |(logits, noise, values, bias, ids, table, offsets, local)| Buffers {
                    tokens,
                    experts,
                    logits,
                    noise,
                    values,
                    bias,
                    ids,
                    table,
                    offsets,
                    local,
                },
            )
    })
}

impl Buffers {
    fn inputs(&self) -> GateInputs<'_, f64> {
        let view = |(rows, cols)| RowView::new(&self.values, rows, cols).unwrap();
        GateInputs {
            num_tokens: self.tokens,
            num_experts: self.experts,
            logits: self.logits.map(view),
            noise_logits: self.noise.map(view),
            selection_bias: self.bias.as_deref(),
            token_ids: self.ids.as_deref(),
            hash_table: self.table.as_deref(),
            sequence_offsets: self.offsets.as_deref(),
            local_experts: self.local.clone(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_gate_refuses_or_is_valid(
        options in gate_options(),
        buffers in buffers(),
        seed in any::<u64>(),
        pass in prop_oneof![9 => 0u32..16, 1 => any::<u32>()],
        first_token in any::<u32>(),
        training in any::<bool>(),
        extra in 0usize..2,
    ) {
        let ctx = StepContext { seed, pass, first_token, training, ..StepContext::default() };
        let inputs = buffers.inputs();
        if let Ok(state) = reference::gate(&inputs, &options, &ctx) {
            state.selection.validate().unwrap();
            state.table.validate().unwrap();
            prop_assert_eq!(state.table.num_tokens(), buffers.tokens);
            prop_assert_eq!(state.table.num_experts(), buffers.experts);
            reference::decision_margins(&inputs, &options, &ctx, &state).unwrap();
            let g = vec![0.5; state.table.num_assignments() + extra];
            let result = reference::gate_backward(&inputs, &options, &ctx, &state, &g);
            prop_assert_eq!(result.is_ok(), extra == 0);
            if let Ok((dz, _)) = result {
                prop_assert_eq!(dz.len(), buffers.tokens * buffers.experts);
            }
        }
    }

    #[test]
    fn the_backward_pass_refuses_a_state_of_another_call(
        (options, other) in (gate_options(), gate_options()),
        (buffers, others) in (buffers(), buffers()),
        noise in prop::collection::vec(-2i32..9, 4),
    ) {
        let ctx = StepContext::default();
        if let Ok(mut state) = reference::gate(&others.inputs(), &other, &ctx) {
            let g = vec![0.5; state.table.num_assignments()];
            let _ = reference::gate_backward(&buffers.inputs(), &options, &ctx, &state, &g);
            // A state that was tampered with, at its own sizes.
            for (i, &value) in noise.iter().enumerate() {
                let field = match i {
                    0 => &mut state.first_choice,
                    1 => &mut state.kept,
                    2 => &mut state.table.token_offsets,
                    _ => &mut state.selection.expert_indices,
                };
                let at = field.len().checked_sub(1);
                if let Some(at) = at {
                    field[at] = value;
                }
                let inputs = others.inputs();
                let _ = reference::gate_backward(&inputs, &other, &ctx, &state, &g);
                let _ = reference::decision_margins(&inputs, &other, &ctx, &state);
            }
        }
    }

    #[test]
    fn consistency_refuses_or_is_a_loss(
        (rows, cols) in (0usize..5, 0usize..6),
        (other_rows, other_cols) in (0usize..5, 0usize..6),
        same in prop::bool::weighted(0.8),
        values in prop::collection::vec(logit(), 60),
        padding in prop::option::of(prop::collection::vec(any::<bool>(), 0..5)),
        alpha in real(),
    ) {
        let other = if same { (rows, cols) } else { (other_rows, other_cols) };
        let a = RowView::new(&values[..30], rows, cols).unwrap();
        let b = RowView::new(&values[30..], other.0, other.1).unwrap();
        let result = reference::consistency(a, b, padding.as_deref(), alpha.into());
        if let Ok(c) = result {
            prop_assert!(c.loss.is_nan() || c.loss >= -1e-12);
            prop_assert_eq!((c.da.len(), c.db.len()), (rows * cols, rows * cols));
            if alpha == 0.0 {
                prop_assert_eq!(c.loss.to_bits(), 0);
                prop_assert!(c.da.iter().chain(&c.db).all(|&d| d == 0.0));
            }
        }
    }

    #[test]
    fn the_softmax_is_a_distribution_or_says_what_is_wrong(
        (rows, cols) in (0usize..6, 0usize..7),
        values in prop::collection::vec(logit(), 42),
        gradients in prop::collection::vec(logit(), 42),
        other in prop::option::weighted(0.2, (0usize..6, 0usize..7)),
    ) {
        let z = RowView::new(&values, rows, cols).unwrap();
        let (p, lse) = reference::softmax(z);
        prop_assert_eq!((p.len(), lse.len()), (rows * cols, rows * cols.min(1)));
        for ((z, p), lse) in z.iter().zip(p.chunks(cols.max(1))).zip(&lse) {
            let sum: f64 = p.iter().sum();
            if z.iter().any(|z| z.is_nan() || *z == f64::INFINITY) {
                prop_assert!(lse.is_nan() && p.iter().all(|p| p.is_nan()));
            } else if z.iter().all(|&z| z == f64::NEG_INFINITY) {
                prop_assert!(*lse == f64::NEG_INFINITY && p.iter().all(|&p| p == 0.0));
            } else {
                prop_assert!(lse.is_finite() && (sum - 1.0).abs() < 1e-12);
                prop_assert!(p.iter().all(|p| (0.0..=1.0).contains(p)));
            }
        }
        let shape = other.unwrap_or((rows, cols));
        let dp = RowView::new(&gradients, shape.0, shape.1).unwrap();
        let p = RowView::new(&p, rows, cols).unwrap();
        let result = reference::softmax_backward(p, dp);
        prop_assert_eq!(result.is_ok(), shape == (rows, cols));
        prop_assert!(result.is_err() || result.unwrap().len() == rows * cols);
    }

    #[test]
    fn margins_of_a_state_that_lies_are_no_panic(
        values in prop::collection::vec(logit(), 80),
        lies in prop::collection::vec(logit(), 80),
        router in any_of(&["topk:9", "grouped:6:8:3", "sigmoid:5", "expert-choice:1", "noisy:7"]),
        biased in any::<bool>(),
    ) {
        lying_margins(&values, &lies, router, biased);
    }
}

/// Margins of a state with scores that are none and finite log-sum-exps whatever the logits.
fn lying_margins(z: &[f64], scores: &[f64], router: &str, biased: bool) {
    let (o, ctx) = (options(router), StepContext::default());
    let bias = vec![0.25; 40];
    let view = RowView::new(z, 2, 40).unwrap();
    let takes = router.starts_with("sigmoid") || router.starts_with("grouped");
    let inputs = GateInputs {
        noise_logits: Some(view),
        selection_bias: (biased && takes).then_some(&bias),
        ..GateInputs::new(view)
    };
    let mut state = reference::gate(&inputs, &o, &ctx).unwrap();
    state.scores.copy_from_slice(scores);
    state.lse.fill(1.0);
    let margins = reference::decision_margins(&inputs, &o, &ctx, &state).unwrap();
    assert_eq!(margins.len(), 2);
}

/// A sort of so many rows looks for contradictions in their order.
#[test]
fn numbers_that_are_none_have_a_place_in_every_order() {
    let mut z: Vec<f64> = (0..80).map(|i| f64::from(i * 37 % 80) - 40.0).collect();
    z.iter_mut().step_by(3).for_each(|z| *z = f64::NAN);
    for router in ["topk:9", "grouped:6:8:3", "sigmoid:5", "expert-choice:1"] {
        for biased in [false, true] {
            lying_margins(&z, &z, router, biased);
        }
    }
}

/// Rows without columns take no memory: however many there are, nothing is done for each.
#[test]
fn rows_without_columns_cost_nothing() {
    for rows in [i32::MAX as usize, usize::MAX] {
        let Ok(view) = RowView::<f64>::new(&[], rows, 0) else {
            continue;
        };
        assert_eq!(reference::softmax(view), (vec![], vec![]));
        let legal = rows <= i32::MAX as usize;
        let backward = reference::softmax_backward(view, view);
        let loss = reference::consistency(view, view, None, 1.0);
        assert_eq!((backward.is_ok(), loss.is_ok()), (legal, legal));
        if let Ok(c) = loss {
            assert_eq!((c.loss.to_bits(), c.da.len(), c.db.len()), (0, 0, 0));
        }
    }
}

#[test]
fn refusals_name_the_position() {
    let (ctx, z) = (StepContext::default(), [0.0; 12]);
    let run = |offsets: &[i32]| {
        let inputs = GateInputs::<f64> {
            sequence_offsets: Some(offsets),
            ..GateInputs::without_logits(3, 4)
        };
        let error = reference::gate(&inputs, &options("thor:sentence"), &ctx);
        error.unwrap_err().to_string()
    };
    assert_eq!(run(&[1, 3]), "sequence_offsets[0] is 1, must be in 0..1");
    assert_eq!(run(&[0, 4]), "sequence_offsets[1] is 4, must be in 0..4");
    assert_eq!(
        run(&[0, -1, 3]),
        "sequence_offsets[1] is -1, must be in 0..4"
    );
    assert!(run(&[0, 2, 1, 3]).starts_with("sequence_offsets[2] = 1 cannot be combined with "));
    assert!(run(&[0, 1, 2]).starts_with("sequence_offsets[2] = 2 cannot be combined with 3 tok"));

    let inputs = GateInputs::new(RowView::new(&z, 3, 4).unwrap());
    let o = options("second:all");
    let state = reference::gate(&inputs, &o, &ctx).unwrap();
    let g = [0.0; 6];
    let refused = |damage: &dyn Fn(&mut GateState<f64>)| {
        let mut state = state.clone();
        damage(&mut state);
        let error = reference::gate_backward(&inputs, &o, &ctx, &state, &g);
        error.unwrap_err().to_string()
    };
    assert_eq!(
        refused(&|s| s.runner_up[1] = 4),
        "runner_up[1] = 4 cannot be combined with 4 experts: it must be an expert, or -1 where \
         there is none"
    );
    assert!(refused(&|s| s.runner_up[2] = -2).starts_with("runner_up[2] = -2 cannot"));
    assert_eq!(
        refused(&|s| s.selection.token_offsets[2] = 1),
        "routing table: selection.token_offsets[2] is 1, below its predecessor 2"
    );
    assert_eq!(
        refused(&|s| s.table.token_offsets[1] = 7),
        "table.token_offsets[1] is 7, must be in 0..7"
    );
    assert_eq!(
        refused(&|s| s.table.expert_indices[5] = -1),
        "table.expert_indices[5] is -1, must be in 0..4"
    );
}

#[test]
fn refusals_name_what_is_missing_or_wrong() {
    let z = vec![0.0; 12];
    let view = RowView::new(&z, 3, 4).unwrap();
    let full = GateInputs::new(view);
    let run = |inputs: &GateInputs<'_, f64>, o: &GateOptions, ctx: &StepContext| {
        reference::gate(inputs, o, ctx).unwrap_err().to_string()
    };
    let ctx = StepContext::default();
    let without = GateInputs::<f64>::without_logits(3, 4);
    let error = run(&without, &options("top1"), &ctx);
    assert_eq!(
        error,
        "logits is required by router top1, but was not given"
    );
    let error = run(&full, &options("noisy:2"), &ctx);
    assert_eq!(
        error,
        "noise_logits is required by router noisy:2 in training, but was not given"
    );
    let error = run(&without, &options("hash"), &ctx);
    assert_eq!(
        error,
        "token_ids is required by router hash, but was not given"
    );
    let error = run(&without, &options("thor:sentence"), &ctx);
    assert_eq!(
        error,
        "sequence_offsets is required by router thor:sentence, but was not given"
    );
    let wrong = GateInputs {
        num_tokens: 2,
        ..full.clone()
    };
    let error = run(&wrong, &options("top1"), &ctx);
    assert_eq!(error, "rows of logits (T) is 3, expected 2");

    let ids = [0, 5, 1];
    let table = [0, 1, 4, 2, 1, 0];
    let hash = GateInputs {
        token_ids: Some(&ids),
        ..without.clone()
    };
    let with_table = GateInputs {
        hash_table: Some(&table),
        ..hash.clone()
    };
    let error = run(&with_table, &options("hash"), &ctx);
    assert_eq!(error, "hash_table[2] is 4, must be in 0..4");
    let short = GateInputs {
        hash_table: Some(&table[..2]),
        ..hash
    };
    assert_eq!(
        run(&short, &options("hash"), &ctx),
        "token_ids[1] is 5, must be in 0..2"
    );
    let negative = GateInputs {
        token_ids: Some(&[1, -3, 0]),
        ..without
    };
    let error = run(&negative, &options("hash"), &ctx);
    assert_eq!(error, "token_ids[1] is -3, must be in 0..2147483648");

    let bias = [0.0, f64::NAN, 0.0, 0.0];
    let biased = GateInputs {
        selection_bias: Some(&bias),
        ..full.clone()
    };
    let error = run(&biased, &options("top1"), &ctx);
    assert!(
        error.starts_with("selection_bias cannot be combined with router top1"),
        "{error}"
    );
    let error = run(&biased, &options("sigmoid:1"), &ctx);
    assert!(
        error.starts_with("selection_bias[1] = NaN cannot be combined with router sigmoid:1: "),
        "{error}"
    );

    let late = StepContext { pass: 16, ..ctx };
    assert_eq!(
        run(&full, &options("top1"), &late),
        "pass is 16, must be in 0..=15"
    );
    let dropout = Some(GatingDropout::new(0.5, DropMode::Gate));
    let o = GateOptions {
        gating_dropout: dropout,
        ..options("top1")
    };
    let nowhere = GateInputs {
        local_experts: 2..2,
        ..full.clone()
    };
    assert_eq!(
        run(&nowhere, &o, &ctx),
        "number of local_experts is 0, must be in 1..=4"
    );
    let beyond = GateInputs {
        local_experts: 2..5,
        ..full
    };
    assert_eq!(
        run(&beyond, &o, &ctx),
        "end of local_experts is 5, must be in 0..=4"
    );

    let many = GateInputs::<f64>::without_logits(1 << 20, 1 << 12);
    let error = run(&many, &options("ensemble"), &ctx);
    assert_eq!(
        error,
        "assignments (T·k): 1048576 × 4096 overflows the limit of 2147483647"
    );
}
