//! Bad input: an error that names value and bound, nothing written, never a panic.

mod common;

use common::{Problem, sized};
use proptest::prelude::*;
use tollgate::options::{Activation, GateOptions};
use tollgate::{
    Cpu, Error, ExpertWeights, LayerInputs, LayerState, LayerWeights, MoeLayer, MoeLayerBuilder,
    RowView, RowViewMut, StepContext,
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
    let weights = LayerWeights::new(
        &[0.0; 2],
        ExpertWeights::new(&[half::f16::ZERO; 2], &[half::f16::ZERO; 2]),
    );
    let refused = |tokens, builder: MoeLayerBuilder| {
        let layer = builder
            .router("top1".parse().unwrap())
            .build(Cpu::new(1).unwrap())
            .unwrap();
        let inputs = LayerInputs::new(RowView::new(&x, tokens, 1).unwrap());
        let y = RowViewMut::new(&mut [], 0, 1).unwrap();
        let ctx = StepContext::default();
        layer
            .forward(&inputs, &weights, &ctx, y, &mut LayerState::default())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(1 << 31, MoeLayer::builder(1, 1, 2)),
        "assignments (T·k): 2147483648 × 1 overflows the limit of 2147483647"
    );
    // 2^30 + 2 tokens times 2^31 − 2 rows of the up map: the product of rows and widths.
    let wide = MoeLayer::builder(1, (1 << 30) - 1, 1).gated(true);
    assert_eq!(
        refused((1 << 30) + 2, wide),
        "elements of the experts' rows (T·k × max(H, N1)): 1073741826 × 2147483646 overflows the \
         limit of 2305843009213693951"
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

/// Everything a backward pass writes, of any lengths.
struct Grads {
    x: Vec<f32>,
    router: Option<Vec<f32>>,
    router_noise: Option<Vec<f32>>,
    up: Vec<f32>,
    up_bias: Option<Vec<f32>>,
    down: Vec<f32>,
    down_bias: Option<Vec<f32>>,
}

impl Grads {
    /// The right lengths for `p`.
    fn of(p: &Problem<f32>) -> Self {
        let router = &p.layer.options().router;
        let len = |values: &[f32]| poison::<f32>(values.len());
        Self {
            x: len(&p.x),
            router: router.has_gate().then(|| len(&p.router)),
            router_noise: router.is_noisy().then(|| len(&p.router_noise)),
            up: len(&p.up),
            up_bias: p.up_bias.as_deref().map(len),
            down: len(&p.down),
            down_bias: p.down_bias.as_deref().map(len),
        }
    }

    fn backward(&mut self, p: &Problem<f32>, state: &mut LayerState<f32>) -> tollgate::Result<()> {
        let h = p.layer.shape().hidden;
        let rows = self.x.len() / h;
        let mut grads = tollgate::LayerGrads {
            x: RowViewMut::new(&mut self.x[..rows * h], rows, h)?,
            router: self.router.as_deref_mut(),
            router_noise: self.router_noise.as_deref_mut(),
            experts: tollgate::ExpertGrads {
                up: &mut self.up,
                up_bias: self.up_bias.as_deref_mut(),
                down: &mut self.down,
                down_bias: self.down_bias.as_deref_mut(),
                accumulate: false,
            },
        };
        let dy = RowView::new(&p.dy, p.tokens, h)?;
        p.layer
            .backward(&p.inputs(), &p.weights(), dy, state, &mut grads)
    }

    fn untouched(&self) -> bool {
        let optional = [
            &self.router,
            &self.router_noise,
            &self.up_bias,
            &self.down_bias,
        ];
        [&self.x, &self.up, &self.down]
            .into_iter()
            .chain(optional.into_iter().flatten())
            .all(|values| values.iter().all(|v| v.is_nan()))
    }
}

fn forward(p: &Problem<f32>) -> LayerState<f32> {
    let h = p.layer.shape().hidden;
    let mut y = vec![0.0; p.tokens * h];
    let view = RowViewMut::new(&mut y, p.tokens, h).unwrap();
    let mut state = LayerState::default();
    p.layer
        .forward(&p.inputs(), &p.weights(), &p.ctx, view, &mut state)
        .unwrap();
    state
}

/// Layers that differ in one thing each.
fn relatives() -> Vec<Problem<f32>> {
    let of = |router: &str, t, e, h, i, gated| {
        let options = GateOptions::new(router.parse().unwrap());
        Problem::new(&sized(t, e, h, i), options, Activation::Gelu, gated)
    };
    let mut jittered = GateOptions::new("top1".parse().unwrap());
    jittered.jitter = 0.1;
    let mut relatives = vec![
        of("top1", 6, 4, 8, 8, true),
        of("top1", 6, 4, 8, 4, false),
        of("top1", 6, 4, 8, 64, false),
        of("top1", 6, 4, 5, 8, false),
        of("top1", 6, 2, 8, 8, false),
        of("top1", 7, 4, 8, 8, false),
        Problem::new(&sized(6, 4, 8, 8), jittered, Activation::Gelu, false),
    ];
    for router in [
        "top1",
        "top2",
        "hash",
        "thor",
        "thor:token",
        "noisy:2",
        "ensemble",
    ] {
        relatives.push(of(router, 6, 4, 8, 8, false));
    }
    relatives
}

#[test]
fn backward_refuses_the_state_of_any_other_layer() {
    let all = relatives();
    for (i, ran) in all.iter().enumerate() {
        for (j, asked) in all.iter().enumerate() {
            let mut grads = Grads::of(asked);
            let result = grads.backward(asked, &mut forward(ran));
            if i == j {
                result.unwrap();
                assert!(!grads.untouched());
            } else {
                let error = result.unwrap_err();
                assert!(!error.to_string().is_empty());
                assert!(grads.untouched(), "{i} {j}: written in spite of '{error}'");
            }
        }
    }
    let mut grads = Grads::of(&all[0]);
    let error = grads.backward(&all[0], &mut forward(&all[1])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a layer of E 4, H 8, I 8, gelu, gated cannot be combined with the state of a forward pass \
         with E 4, H 8, I 4, gelu: backward takes the state of its own layer's forward pass"
    );
}

#[test]
fn logits_and_their_gradient_are_those_of_the_latest_pass() {
    let p = problem();
    let mut state = forward(&p);
    assert_eq!(state.router_logits().len(), 24);
    assert!(state.router_logit_gradient().is_empty());
    Grads::of(&p).backward(&p, &mut state).unwrap();
    assert_eq!(state.router_logit_gradient().len(), 24);
    let mut y = vec![0.0; 48];
    let view = RowViewMut::new(&mut y, 6, 8).unwrap();
    p.layer
        .forward(&p.inputs(), &p.weights(), &p.ctx, view, &mut state)
        .unwrap();
    assert!(
        state.router_logit_gradient().is_empty(),
        "of the step before"
    );
    assert!(LayerState::<f32>::default().router_logits().is_empty());
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
            Ok(()) => state.gate().table.validate().unwrap(),
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                prop_assert!(y.iter().all(|&v| v == 0.125), "y was written");
            }
        }
    }

    /// Gradients of any lengths: an error that leaves all of them alone, or success.
    #[test]
    fn hostile_gradients_never_panic(
        which in 0usize..14,
        state_of in 0usize..14,
        spoil in 0usize..8,
        len in 0usize..600,
    ) {
        let all = relatives();
        let (p, ran) = (&all[which], &all[if spoil == 7 { state_of } else { which }]);
        let mut grads = Grads::of(p);
        let other = poison::<f32>(len);
        match spoil {
            0 => grads.x = other,
            1 => grads.router = Some(other),
            2 => grads.router_noise = Some(other),
            3 => grads.up = other,
            4 => grads.up_bias = None,
            5 => grads.down = other,
            6 => grads.down_bias = Some(other),
            _ => {}
        }
        if grads.backward(p, &mut forward(ran)).is_err() {
            prop_assert!(grads.untouched());
        }
    }
}
