//! Bad input: an error that names value and bound, nothing written, never a panic.

mod common;

use common::{Problem, sized};
use proptest::prelude::*;
use tollgate::options::{Activation, GateOptions};
use tollgate::{
    Cpu, Error, ExpertWeights, LayerInputs, LayerState, LayerWeights, MoeLayer, RowView,
    RowViewMut, StepContext,
};
use tollgate_testkit::poison;

fn problem() -> Problem<f32> {
    let options = GateOptions::new("adaptive:0.1".parse().unwrap());
    Problem::new(&sized(6, 4, 8, 8), options, Activation::Gelu, false)
}

/// The error of a forward pass; checks that y was not touched.
fn refused(
    p: &Problem<f32>,
    inputs: &LayerInputs<'_, f32>,
    weights: &LayerWeights<'_, f32>,
    y_rows: usize,
) -> String {
    let mut y: Vec<f32> = poison(y_rows * 8);
    let view = RowViewMut::new(&mut y, y_rows, 8).unwrap();
    let mut state = LayerState::default();
    let error = p
        .layer
        .forward(inputs, weights, &p.ctx, view, &mut state)
        .unwrap_err();
    assert!(y.iter().all(|v| v.is_nan()), "y was written: {error}");
    error.to_string()
}

#[test]
fn shapes_name_value_and_bound() {
    let p = problem();
    let (inputs, weights) = (p.inputs(), p.weights());
    let narrow = LayerInputs::new(RowView::new(&p.x, 6, 7).unwrap());
    let error = refused(&p, &narrow, &weights, 6);
    assert_eq!(error, "columns of x (H) is 7, expected 8");
    let error = refused(&p, &inputs, &weights, 5);
    assert_eq!(error, "rows of y (T) is 5, expected 6");
    let without = LayerWeights {
        router: None,
        ..weights
    };
    let error = refused(&p, &inputs, &without, 6);
    assert_eq!(
        error,
        "router weight (E·H) is required by router adaptive:0.1, but was not given"
    );
    let short = LayerWeights {
        experts: ExpertWeights {
            down: &p.down[1..],
            ..weights.experts
        },
        ..weights
    };
    let error = refused(&p, &inputs, &short, 6);
    assert_eq!(error, "down weights (E·H·I) is 255, expected 256");
}

#[test]
fn backward_needs_its_forward() {
    let p = problem();
    let mut state = LayerState::default();
    let mut step = p.run();
    let mut grads = tollgate::LayerGrads {
        x: RowViewMut::new(&mut step.dx, 6, 8).unwrap(),
        router: Some(&mut step.router),
        router_noise: None,
        experts: tollgate::ExpertGrads {
            up: &mut step.up,
            up_bias: Some(&mut step.up_bias),
            down: &mut step.down,
            down_bias: None,
            accumulate: false,
        },
    };
    let dy = RowView::new(&p.dy, 6, 8).unwrap();
    let (inputs, weights) = (p.inputs(), p.weights());
    let mut backward = |state: &mut LayerState<f32>| {
        p.layer
            .backward(&inputs, &weights, dy, state, &mut grads)
            .unwrap_err()
            .to_string()
    };
    assert!(backward(&mut state).starts_with("a state that a forward pass has filled"));
    let error = backward(&mut step.state);
    assert!(
        error.starts_with("gradient of down_bias (E·H) is required by"),
        "{error}"
    );
}

#[test]
fn overflow_of_assignments_and_rows_is_refused_before_memory_is_touched() {
    // 2^31 halves: the system hands out zero pages lazily, and nothing here touches them.
    let x = vec![half::f16::ZERO; 1 << 31];
    let layer = MoeLayer::builder(1, 1, 2)
        .router("top1".parse().unwrap())
        .build(Cpu::new(1).unwrap())
        .unwrap();
    let inputs = LayerInputs::new(RowView::new(&x, 1 << 31, 1).unwrap());
    let weights = LayerWeights {
        router: Some(&[0.0; 2]),
        router_noise: None,
        selection_bias: None,
        experts: ExpertWeights {
            up: &[half::f16::ZERO; 2],
            up_bias: None,
            down: &[half::f16::ZERO; 2],
            down_bias: None,
        },
    };
    let mut y = [];
    let error = layer
        .forward(
            &inputs,
            &weights,
            &StepContext::default(),
            RowViewMut::new(&mut y, 0, 1).unwrap(),
            &mut LayerState::default(),
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "assignments (T·k): 2147483648 × 1 overflows the limit of 2147483647"
    );
    let error = MoeLayer::builder(1 << 30, (1 << 30) - 1, 64)
        .build(())
        .unwrap_err();
    assert!(matches!(error, Error::Overflow { .. }), "{error}");
}

#[test]
fn builder_errors_name_value_and_bound() {
    let build = |h, i, e, router: &str| {
        MoeLayer::builder(h, i, e)
            .router(router.parse().unwrap())
            .build(())
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        build(8, 8, 0, "top1"),
        "experts (E) is 0, must be in 1..=2147483647"
    );
    assert_eq!(
        build(0, 8, 4, "top1"),
        "hidden (H) is 0, must be in 1..=2147483647"
    );
    assert_eq!(build(8, 8, 4, "topk:5"), "k is 5, must be in 1..=4");
    assert_eq!(
        build(8, 8, 4, "adaptive:1.5"),
        "adaptive τ is 1.5, must be in [0, 1]"
    );
    assert_eq!(
        build(8, 8, 4, "adaptive:NaN"),
        "adaptive τ is NaN, must be in [0, 1]"
    );
    let local = MoeLayer::builder(8, 8, 4)
        .local_experts(2..5)
        .build(())
        .unwrap_err();
    assert_eq!(
        local.to_string(),
        "end of local experts is 5, must be in 1..=4"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the lengths and the values of the tensors: an error that leaves y alone, or a
    /// routing table that is whole.
    #[test]
    fn hostile_lengths_never_panic(
        router in prop::sample::select(vec!["top1", "adaptive:0.1", "hash", "thor:sentence", "noisy:2",
            "expert-choice:9", "sigmoid:2", "ensemble"]),
        lens in prop::collection::vec(0usize..40, 8),
        ids in prop::collection::vec(-2i32..60, 0..8),
        offsets in prop::collection::vec(-2i32..8, 0..4),
        spoil in prop::collection::vec(prop::num::f32::ANY, 12),
    ) {
        let layer = MoeLayer::builder(2, 3, 3)
            .router(router.parse().unwrap())
            .build(Cpu::new(1).unwrap())
            .unwrap();
        let pool: Vec<f32> = spoil.iter().cycle().take(64).copied().collect();
        let near = |len: usize, right: usize| if len.is_multiple_of(3) { len } else { right };
        let rows = near(lens[0], 6);
        let inputs = LayerInputs {
            token_ids: Some(&ids),
            sequence_offsets: Some(&offsets),
            hash_table: None,
            ..LayerInputs::new(RowView::new(&pool[..12], rows.min(6), 2).unwrap())
        };
        let weights = LayerWeights {
            router: (lens[1] % 5 != 0).then_some(&pool[..near(lens[1], 6)]),
            router_noise: (lens[2] % 5 != 0).then_some(&pool[..near(lens[2], 6)]),
            selection_bias: (lens[3] % 2 != 0).then_some(&pool[..near(lens[3], 3)]),
            experts: ExpertWeights {
                up: &pool[..near(lens[4], 18)],
                up_bias: Some(&pool[..near(lens[5], 9)]),
                down: &pool[..near(lens[6], 18)],
                down_bias: None,
            },
        };
        let mut y: Vec<f32> = vec![0.125; 12];
        let rows = rows.min(6);
        let view = RowViewMut::new(&mut y[..rows * 2], rows, 2).unwrap();
        let mut state = LayerState::default();
        let result = layer.forward(&inputs, &weights, &StepContext::default(), view, &mut state);
        match result {
            Ok(()) => state.gate.table.validate().unwrap(),
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                prop_assert!(y.iter().all(|&v| v == 0.125), "y was written");
            }
        }
    }
}
