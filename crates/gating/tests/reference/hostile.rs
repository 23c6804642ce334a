//! Inputs that no one should pass: an error that names the value, or a valid result; no panic.

use proptest::prelude::*;
use tollgate_core::options::{
    AuxLoss, BalanceOver, Capacity, DropOrder, Gap, GateOptions, GatingDropout, Granularity,
    LocalChoice, LocalWeight, Scores, SecondPolicy, StochasticPer, Weights,
};
use tollgate_core::{DropMode, ExpertChoiceCapacity, Router, RowView, StepContext};
use tollgate_gating::{GateInputs, reference};

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
        }
    }
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
        error.starts_with("selection_bias is NaN, must be in"),
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
