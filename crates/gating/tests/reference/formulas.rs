//! Each formula of the papers on numbers that can be worked out by hand.

use tollgate_core::options::{BalanceOver, Capacity, DropOrder, Gap, GateOptions, Weights};
use tollgate_core::{Philox, RowView, StepContext, Stream};
use tollgate_gating::{GateInputs, reference, stochastic};

use crate::support::{close, gate, gate_backward, logs, options};

/// p = 1/2, 1/4, 1/8, 1/8; lse = ln 8.
const EIGHTHS: [f64; 4] = [4.0, 2.0, 1.0, 1.0];

/// Options without auxiliary losses.
fn bare(router: &str) -> GateOptions {
    GateOptions {
        balance_alpha: 0.0,
        z_coefficient: 0.0,
        ..options(router)
    }
}

fn ctx() -> StepContext {
    StepContext::default()
}

#[test]
fn softmax_and_its_gradient() {
    let z = logs(EIGHTHS);
    let (p, lse) = reference::softmax(RowView::new(&z, 1, 4).unwrap());
    close(&p, &[0.5, 0.25, 0.125, 0.125]);
    close(&lse, &[8f64.ln()]);
    let dp = [1.0, 0.0, 0.0, 2.0];
    let view = |v| RowView::new(v, 1, 4).unwrap();
    let dz = reference::softmax_backward(view(&p), view(&dp)).unwrap();
    // Σ p dp = 3/4.
    close(&dz, &[0.125, -0.1875, -0.09375, 0.15625]);
    let masked = logs([3.0, 0.0, 1.0, 0.0]);
    close(
        &reference::softmax(view(&masked)).0,
        &[0.75, 0.0, 0.25, 0.0],
    );
}

#[test]
fn adaptive_takes_two_experts_where_the_gap_is_small() {
    let z = logs(EIGHTHS);
    // The gap is 1/4 of the full softmax and 1/3 of the best two.
    for (gap, tau, experts) in [
        (Gap::Softmax, 0.24, &[0][..]),
        (Gap::Softmax, 0.26, &[0, 1]),
        (Gap::Top2, 0.33, &[0]),
        (Gap::Top2, 0.34, &[0, 1]),
        (Gap::Top2, 1.0, &[0, 1]),
        (Gap::Softmax, 0.0, &[0]),
    ] {
        let o = GateOptions {
            gap,
            ..options(&format!("adaptive:{tau}"))
        };
        assert_eq!(
            gate(&z, 4, &o, &ctx()).table.expert_indices,
            experts,
            "{gap} {tau}"
        );
    }
    // Exactly tied: the gap is 0, which is at most 0.
    for gap in [Gap::Softmax, Gap::Top2] {
        let o = GateOptions {
            gap,
            ..options("adaptive:0")
        };
        assert_eq!(
            gate(&[1.0, 2.0, 2.0], 3, &o, &ctx()).table.expert_indices,
            [1, 2]
        );
    }
    // A masked second is never taken.
    let o = options("adaptive:1");
    assert_eq!(
        gate(&logs([0.0, 1.0, 0.0]), 3, &o, &ctx())
            .table
            .expert_indices,
        [1]
    );
}

#[test]
fn the_three_weights_and_their_gradients() {
    let z = logs(EIGHTHS);
    let (third, ninth) = (1.0 / 3.0, 1.0 / 9.0);
    for (tau, weights, w, g, dz) in [
        // p_j (g_j − Σ p g) with Σ p g = 1/2.
        (
            0.2,
            Weights::Prob,
            &[0.5][..],
            &[1.0][..],
            [0.25, -0.125, -0.0625, -0.0625],
        ),
        (0.2, Weights::Selected, &[1.0], &[1.0], [0.0; 4]),
        (
            0.2,
            Weights::Top2,
            &[2.0 * third],
            &[1.0],
            [2.0 * ninth, -2.0 * ninth, 0.0, 0.0],
        ),
        // Σ p g = 1/2 + 1/2 = 1.
        (
            0.3,
            Weights::Prob,
            &[0.5, 0.25],
            &[1.0, 2.0],
            [0.0, 0.25, -0.125, -0.125],
        ),
        (
            0.3,
            Weights::Selected,
            &[2.0 * third, third],
            &[1.0, 0.0],
            [2.0 * ninth, -2.0 * ninth, 0.0, 0.0],
        ),
        (
            0.3,
            Weights::Top2,
            &[2.0 * third, third],
            &[0.0, 1.0],
            [-2.0 * ninth, 2.0 * ninth, 0.0, 0.0],
        ),
    ] {
        let mut o = GateOptions {
            weights: Some(weights),
            ..bare(&format!("adaptive:{tau}"))
        };
        let state = gate(&z, 4, &o, &ctx());
        close(&state.table.routing_weights, w);
        close(&gate_backward(&z, 4, &o, &state, g), &dz);
        let runner_up = if weights == Weights::Top2 {
            vec![1]
        } else {
            vec![]
        };
        assert_eq!(
            (state.first_choice.clone(), state.runner_up.clone()),
            (vec![0], runner_up)
        );
        // The scale multiplies weights and gradients once.
        o.weight_scale = -2.0;
        let scaled = gate(&z, 4, &o, &ctx());
        close(
            &scaled.table.routing_weights,
            &w.iter().map(|w| -2.0 * w).collect::<Vec<_>>(),
        );
        close(&gate_backward(&z, 4, &o, &scaled, g), &dz.map(|d| -2.0 * d));
    }
}

#[test]
fn top2_without_a_second_is_a_constant() {
    let o = GateOptions {
        weights: Some(Weights::Top2),
        ..bare("top2")
    };
    let z = logs([0.0, 5.0, 0.0]);
    let state = gate(&z, 3, &o, &ctx());
    // A fixed k takes a masked expert with weight 0.
    assert_eq!(state.table.expert_indices, [1, 0]);
    close(&state.table.routing_weights, &[1.0, 0.0]);
    assert_eq!(state.runner_up, [-1]);
    close(&gate_backward(&z, 3, &o, &state, &[3.0, 4.0]), &[0.0; 3]);
    let masked = logs([0.0, 0.0]);
    let state = gate(&masked, 2, &o, &ctx());
    assert_eq!(state.table.expert_indices, [0, 1]);
    close(&state.table.routing_weights, &[0.0, 0.0]);
    assert_eq!(state.lse, [f64::NEG_INFINITY]);
}

#[test]
fn sigmoid_scores_select_with_a_bias_and_weigh_without() {
    // σ = 3/4, 1/2, 1/4.
    let z = logs([3.0, 1.0, 1.0 / 3.0]);
    let mut o = bare("sigmoid:2");
    let state = gate(&z, 3, &o, &ctx());
    assert_eq!(state.table.expert_indices, [0, 1]);
    close(&state.scores, &[0.75, 0.5, 0.25]);
    close(&state.table.routing_weights, &[0.6, 0.4]);
    // w (g − G)(1 − p), G = 0.6.
    let dz = gate_backward(&z, 3, &o, &state, &[1.0, 0.0]);
    close(&dz, &[0.6 * 0.4 * 0.25, -0.4 * 0.6 * 0.5, 0.0]);

    let bias = [0.0, 0.0, 0.6];
    let inputs = GateInputs {
        selection_bias: Some(&bias),
        ..GateInputs::new(RowView::new(&z, 1, 3).unwrap())
    };
    let state = reference::gate(&inputs, &o, &ctx()).unwrap();
    assert_eq!(
        (state.table.expert_indices, state.first_choice),
        (vec![2, 0], vec![2])
    );
    close(&state.table.routing_weights, &[0.25, 0.75]);

    o.weights = Some(Weights::Prob);
    let state = gate(&z, 3, &o, &ctx());
    close(&state.table.routing_weights, &[0.75, 0.5]);
    let dz = gate_backward(&z, 3, &o, &state, &[1.0, 2.0]);
    close(&dz, &[0.75 * 0.25, 2.0 * 0.25, 0.0]);
}

#[test]
fn a_bias_never_unmasks() {
    let z = logs([3.0, 0.0, 1.0]);
    let bias = [0.0, 100.0, 0.0];
    let inputs = GateInputs {
        selection_bias: Some(&bias),
        ..GateInputs::new(RowView::new(&z, 1, 3).unwrap())
    };
    let state = reference::gate(&inputs, &bare("sigmoid:3"), &ctx()).unwrap();
    assert_eq!(state.table.expert_indices, [0, 2, 1]);
    assert_eq!(state.table.routing_weights[2], 0.0);
}

#[test]
fn groups_are_chosen_by_the_sum_of_their_best() {
    // σ = 3/4, 1/4 | 1/2, 0.6. Merits of two places: 1 and 1.1; of one place: 3/4 and 0.6.
    let z = logs([3.0, 1.0 / 3.0, 1.0, 1.5]);
    let state = gate(&z, 4, &bare("grouped:2:2:1"), &ctx());
    assert_eq!(
        (state.table.expert_indices, state.first_choice),
        (vec![3, 2], vec![3])
    );
    let state = gate(&z, 4, &bare("grouped:1:2:1"), &ctx());
    assert_eq!(state.table.expert_indices, [0]);
    // Two groups of which both may be taken: one place each, then the best two of all.
    let state = gate(&z, 4, &bare("grouped:2:2:2"), &ctx());
    assert_eq!(state.table.expert_indices, [0, 3]);
    // A group that cannot fill its places ranks last; equal groups by the lower index.
    let z = logs([900.0, 0.0, 1.0, 1.5]);
    let state = gate(&z, 4, &bare("grouped:2:2:1"), &ctx());
    assert_eq!(state.table.expert_indices, [3, 2]);
    let state = gate(&[1.0; 4], 4, &bare("grouped:2:2:1"), &ctx());
    assert_eq!(state.table.expert_indices, [0, 1]);
}

#[test]
fn second_expert_policies() {
    // g2 = 1/3.
    let z = logs(EIGHTHS);
    for (router, k) in [
        ("second:all", 2),
        ("second:none", 1),
        ("second:threshold:0.33", 2),
        ("second:threshold:0.34", 1),
        ("second:random:0", 2),
        // min(1, g2/τ) = 1.
        ("second:random:0.3", 2),
    ] {
        let state = gate(&z, 4, &options(router), &ctx());
        assert_eq!(state.table.num_assignments(), k, "{router}");
        // The default weights are those of the best two, taken or not.
        close(&state.table.routing_weights, &[2.0 / 3.0, 1.0 / 3.0][..k]);
    }
    // Exactly at the threshold: g2 = 1/2 is not above 1/2.
    let tie = gate(&[1.0, 1.0], 2, &options("second:threshold:0.5"), &ctx());
    assert_eq!(tie.table.num_assignments(), 1);
    let tokens = 6000;
    let many: Vec<f64> = (0..tokens).flat_map(|_| z).collect();
    // Probabilities 2/3 and 1/4; standard deviations at most 37, five are allowed.
    for (router, share) in [("second:random:0.5", 2.0 / 3.0), ("forced:0.75", 0.25)] {
        let state = gate(&many, 4, &options(router), &ctx());
        let two = state.table.tokens_with(2) as f64;
        assert!(
            (two - share * f64::from(tokens)).abs() < 185.0,
            "{router}: {two}"
        );
    }
}

#[test]
fn noise_is_normal_times_softplus_rounded_to_f32() {
    let z = [1.0, 2.0, f64::NEG_INFINITY, 0.5];
    let z_noise = [0.5, -3.0, 1.0, f64::NEG_INFINITY];
    let view = |v| RowView::new(v, 1, 4).unwrap();
    let inputs = GateInputs {
        noise_logits: Some(view(&z_noise)),
        ..GateInputs::new(view(&z))
    };
    let ctx = StepContext {
        seed: 4,
        layer: 2,
        step: 3,
        first_token: 7,
        ..ctx()
    };
    let state = reference::gate(&inputs, &options("noisy:2"), &ctx).unwrap();
    for e in 0..4 {
        let w = Philox::step_words(&ctx, 7, Stream::RouterNoise, e as u32);
        let n = f64::from(Philox::normal(w[0], w[1]) as f32);
        assert_eq!(state.noise[e], n);
        let h = (z[e] + n * (1.0 + z_noise[e].exp()).ln()) as f32;
        // Two forms of softplus differ by a rounding of f64: at most one step of f32.
        let expected = f64::from(h);
        assert!(
            state.noisy_logits[e] == expected
                || (state.noisy_logits[e] - expected).abs() <= 2f64.powi(-23) * expected.abs()
        );
        assert_eq!(
            state.noisy_logits[e],
            f64::from(state.noisy_logits[e] as f32)
        );
    }
    assert_eq!(state.noisy_logits[3], 0.5);
    let (p, lse) = reference::softmax(view(&state.noisy_logits));
    assert_eq!((state.scores, state.lse), (p, lse));

    let inference = StepContext {
        training: false,
        ..ctx
    };
    let without = GateInputs::new(view(&z));
    let state = reference::gate(&without, &options("noisy:2"), &inference).unwrap();
    assert_eq!(state.table.expert_indices, [1, 0]);
    assert!(state.noise.is_empty() && state.noisy_logits.is_empty());
}

#[test]
fn noise_that_is_no_number_makes_the_row_faulty() {
    let z = [f64::NEG_INFINITY, 2.0];
    for noise in [f64::NAN, f64::INFINITY] {
        let z_noise = [noise, 0.0];
        let view = |v| RowView::new(v, 1, 2).unwrap();
        let inputs = GateInputs {
            noise_logits: Some(view(&z_noise)),
            ..GateInputs::new(view(&z))
        };
        let state = reference::gate(&inputs, &options("noisy:1"), &ctx()).unwrap();
        // The masked logit stays masked, but the row is faulty all the same.
        assert_eq!(state.noisy_logits[0], f64::NEG_INFINITY);
        assert_eq!(state.status.first_faulty_row, Some(0));
        assert_eq!(state.table.expert_indices, [0]);
    }
}

#[test]
fn experts_choose_tokens() {
    // Three tokens, two experts; p of expert 0: 3/4, 1/2, 1/4.
    let z: Vec<f64> = [logs([3.0, 1.0]), logs([1.0, 1.0]), logs([1.0, 3.0])].concat();
    let state = gate(&z, 2, &options("expert-choice:2"), &ctx());
    assert_eq!(state.table.token_offsets, [0, 1, 3, 4]);
    assert_eq!(state.table.expert_indices, [0, 0, 1, 1]);
    close(&state.table.routing_weights, &[0.75, 0.5, 0.5, 0.75]);
    // 1 · 3 / 2 rounded up is 2.
    assert_eq!(
        gate(&z, 2, &options("expert-choice:1x"), &ctx()).table,
        state.table
    );
    // A tied column takes the earlier tokens; a faulty row stands first in column 0 only.
    let z = [[0.0, 0.0], [0.0, 0.0], [f64::NAN, 0.0], [0.0, 0.0]].concat();
    let state = gate(&z, 2, &options("expert-choice:2"), &ctx());
    assert_eq!(state.table.token_offsets, [0, 2, 3, 4, 4]);
    assert_eq!(state.table.expert_indices, [0, 1, 1, 0]);
    assert!(state.table.routing_weights[3].is_nan());
    // Masked tokens come last, by index.
    let z: Vec<f64> = [logs([0.0, 1.0]), logs([1.0, 0.0]), logs([0.0, 1.0])].concat();
    let state = gate(&z, 2, &options("expert-choice:2"), &ctx());
    assert_eq!(state.table.expert_indices, [0, 1, 0, 1]);
    // A p that is 0 by underflow stands before a masked one.
    let z = [f64::NEG_INFINITY, 0.0, -1e5, 0.0];
    let state = gate(&z, 2, &options("expert-choice:1"), &ctx());
    assert_eq!(state.table.token_offsets, [0, 1, 2]);
    assert_eq!(state.table.expert_indices, [1, 0]);
}

#[test]
fn routers_without_a_gate() {
    let ctx = StepContext {
        seed: 9,
        layer: 1,
        step: 5,
        first_token: 20,
        ..ctx()
    };
    let inputs = |tokens| GateInputs::<f64>::without_logits(tokens, 5);
    let run = |inputs: &GateInputs<'_, f64>, router| {
        let o = GateOptions {
            weight_scale: 3.0,
            ..options(router)
        };
        reference::gate(inputs, &o, &ctx).unwrap()
    };
    let state = run(&inputs(4), "ensemble");
    assert_eq!(state.table.experts_of(3), [0, 1, 2, 3, 4]);
    close(state.table.weights_of(2), &[0.6000000000000001; 5]);
    assert!(state.scores.is_empty() && state.first_choice.is_empty() && state.load.is_empty());

    let state = run(&inputs(4), "thor");
    let expert = stochastic::batch_expert(&ctx, 5);
    assert_eq!(state.table.sole_expert(), Some(expert));
    close(&state.table.routing_weights, &[3.0; 4]);

    let offsets = [0, 0, 2, 2, 5];
    let sentences = GateInputs {
        sequence_offsets: Some(&offsets),
        ..inputs(5)
    };
    let drawn = |first: u32| {
        let word = Philox::step_words(&ctx, 20 + first, Stream::Stochastic, 0)[0];
        Philox::below(word, 5) as i32
    };
    let state = run(&sentences, "thor:sentence");
    assert_eq!(state.table.expert_indices, [0, 0, 2, 2, 2].map(drawn));
    let state = run(&inputs(5), "thor:token");
    assert_eq!(state.table.expert_indices, [0, 1, 2, 3, 4].map(drawn));

    let ids = [2, 0, 2];
    let table = [4, 3, 1];
    let hash = GateInputs {
        token_ids: Some(&ids),
        hash_table: Some(&table),
        ..inputs(3)
    };
    assert_eq!(run(&hash, "hash").table.expert_indices, [1, 4, 1]);
    let drawn = GateInputs {
        hash_table: None,
        ..hash
    };
    let by_hash = |id: u32| {
        let word = Philox::new(9).words([id, 1, 0, Stream::Hash as u32])[0];
        Philox::below(word, 5) as i32
    };
    assert_eq!(
        run(&drawn, "hash").table.expert_indices,
        [2, 0, 2].map(by_hash)
    );
}

#[test]
fn balance_loss_counts_what_its_option_says() {
    // Rows: one expert (gap 1/4 > 0.2) on 0, two experts (gap 0) on 1 and 2, one expert on 3.
    let z = [
        logs(EIGHTHS),
        logs([1.0, 2.0, 2.0, 3.0 - 2.0]),
        logs([1.0, 1.0, 2.0, 4.0]),
    ]
    .concat();
    let mean = [
        (0.5 + 1.0 / 6.0 + 0.125) / 3.0,
        (0.25 + 1.0 / 3.0 + 0.125) / 3.0,
        (0.125 + 1.0 / 3.0 + 0.25) / 3.0,
        (0.125 + 1.0 / 6.0 + 0.5) / 3.0,
    ];
    for (over, f) in [
        (BalanceOver::Top1Only, [0.5, 0.0, 0.0, 0.5]),
        (
            BalanceOver::FirstChoice,
            [1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0],
        ),
        (BalanceOver::All, [0.25; 4]),
    ] {
        let o = GateOptions {
            balance_over: Some(over),
            balance_alpha: 0.5,
            z_coefficient: 0.0,
            ..options("adaptive:0.2")
        };
        let state = gate(&z, 4, &o, &ctx());
        assert_eq!(state.load, f, "{over}");
        let dot: f64 = f.iter().zip(mean).map(|(f, p)| f * p).sum();
        close(&[state.losses.balance], &[0.5 * 4.0 * dot]);
        let dz = gate_backward(&z, 4, &o, &state, &[0.0; 4]);
        // αE/T p_j (f_j − Σ f p) of the first row.
        let p = [0.5, 0.25, 0.125, 0.125];
        let inner: f64 = f.iter().zip(p).map(|(f, p)| f * p).sum();
        let expected: Vec<f64> = f
            .iter()
            .zip(p)
            .map(|(f, p)| 0.5 * 4.0 / 3.0 * p * (f - inner))
            .collect();
        close(&dz[..4], &expected);
    }
    // All tokens with two experts: nothing counts as top-1.
    let o = options("second:all");
    assert_eq!(gate(&z, 4, &o, &ctx()).load, [0.0; 4]);
    // Sigmoids count as shares of their sum: 3/4, 1/2, 1/4 of 3/2; f = (1, 0, 0).
    let z = logs([3.0, 1.0, 1.0 / 3.0]);
    let o = GateOptions {
        balance_alpha: 1.0,
        z_coefficient: 0.0,
        ..options("sigmoid:1")
    };
    let state = gate(&z, 3, &o, &ctx());
    close(&[state.losses.balance], &[3.0 * 0.5]);
    let dz = gate_backward(&z, 3, &o, &state, &[0.0]);
    let q = [0.5, 1.0 / 3.0, 1.0 / 6.0];
    close(
        &dz,
        &[
            3.0 * q[0] * 0.5 * 0.25,
            3.0 * q[1] * -0.5 * 0.5,
            3.0 * q[2] * -0.5 * 0.75,
        ],
    );
}

#[test]
fn z_loss_is_the_mean_square_of_the_log_sum_exp() {
    let z = [logs(EIGHTHS), logs([0.0; 4])].concat();
    for router in ["top1", "sigmoid:1"] {
        let o = GateOptions {
            balance_alpha: 0.0,
            z_coefficient: 0.5,
            ..options(router)
        };
        let state = gate(&z, 4, &o, &ctx());
        let lse = 8f64.ln();
        close(&[state.losses.z], &[0.5 * lse * lse / 2.0]);
        let dz = gate_backward(&z, 4, &o, &state, &[0.0; 2]);
        close(
            &dz[..4],
            &[0.5, 0.25, 0.125, 0.125].map(|p| 2.0 * 0.5 / 2.0 * lse * p),
        );
        close(&dz[4..], &[0.0; 4]);
    }
}

#[test]
fn capacity_drops_by_position_or_by_probability() {
    // Choices: t0 {0, 1}, t1 {1, 0}, t2 {0, 1} with different p; one row an expert and choice.
    let z = [logs([3.0, 2.0]), logs([1.0, 9.0]), logs([4.0, 1.0])].concat();
    let run = |factor, order| {
        let capacity = Some(Capacity { factor, order });
        gate(
            &z,
            2,
            &GateOptions {
                capacity,
                ..bare("top2")
            },
            &ctx(),
        )
    };
    // ceil(0.5 · 3 · 2 / 2) = 2 rows. Expert 0: t0, t2 (first choices), then t1; expert 1: t1,
    // then t0, then t2.
    let state = run(0.5, DropOrder::Position);
    assert_eq!(state.selection.num_assignments(), 6);
    assert_eq!(state.table.token_offsets, [0, 2, 3, 4]);
    assert_eq!(state.table.expert_indices, [0, 1, 1, 0]);
    assert_eq!(state.kept, [0, 1, 2, 4]);
    close(&state.table.routing_weights, &[0.6, 0.4, 0.9, 0.8]);
    // One row: expert 0 keeps 0.8 of t2 (0.6, 0.1), expert 1 keeps 0.9 of t1; t0 keeps nothing.
    let state = run(0.25, DropOrder::Probability);
    assert_eq!(state.table.token_offsets, [0, 0, 1, 2]);
    assert_eq!(state.kept, [2, 4]);
    assert_eq!(run(0.25, DropOrder::Position).kept, [0, 2]);
    let state = run(0.0, DropOrder::Position);
    assert_eq!((state.table.num_assignments(), state.kept.len()), (0, 0));
    let state = run(1.0, DropOrder::Probability);
    assert_eq!((&state.table, state.kept.len()), (&state.selection, 0));
    state.table.validate().unwrap();
}

#[test]
fn a_dropped_assignment_stays_in_the_sum_of_selected() {
    // Both tokens choose {0, 1}; ceil(0.5 · 2 · 2 / 2) = 1 row an expert: t0 keeps both, t1 none.
    let z = [logs([2.0, 1.0, 1.0]), logs([2.0, 1.0, 1.0])].concat();
    let capacity = Some(Capacity {
        factor: 0.75,
        order: DropOrder::Position,
    });
    let o = GateOptions {
        capacity,
        weights: Some(Weights::Selected),
        ..bare("top2")
    };
    let state = gate(&z, 3, &o, &ctx());
    assert_eq!(state.kept, [0, 1]);
    close(&state.table.routing_weights, &[2.0 / 3.0, 1.0 / 3.0]);
    let dz = gate_backward(&z, 3, &o, &state, &[1.0, 0.0]);
    close(&dz, &[2.0 / 9.0, -2.0 / 9.0, 0.0, 0.0, 0.0, 0.0]);
    // t1's expert 0 alone is dropped: its weight is 2/3 of the two, and pulls on both.
    let z = [logs([2.0, 1.0, 0.5]), logs([2.0, 0.5, 1.0])].concat();
    let state = gate(&z, 3, &o, &ctx());
    assert_eq!(state.kept, [0, 1, 3]);
    let dz = gate_backward(&z, 3, &o, &state, &[0.0, 0.0, 1.0]);
    close(&dz[3..], &[-2.0 / 9.0, 0.0, 2.0 / 9.0]);
}

#[test]
fn faulty_rows_keep_one_expert_and_say_so() {
    let z = [logs([1.0, 2.0]), [f64::NAN, 0.0], [1.0, f64::INFINITY]].concat();
    for router in ["top2", "sigmoid:2", "adaptive:0.1", "grouped:2:2:2"] {
        let o = options(router);
        let state = gate(&z, 2, &o, &ctx());
        assert_eq!(state.status.faulty_rows, 2);
        assert_eq!(state.status.first_faulty_row, Some(1));
        assert_eq!(
            (state.table.experts_of(1), state.table.experts_of(2)),
            (&[0][..], &[0][..])
        );
        assert!(state.table.weights_of(1)[0].is_nan() && state.lse[2].is_nan());
        assert!(state.scores[2..].iter().all(|p| p.is_nan()));
        assert!(state.losses.balance.is_nan() && state.losses.z.is_nan());
        assert_eq!(state.first_choice[1..], [0, 0]);
        let g = vec![1.0; state.table.num_assignments()];
        let dz = gate_backward(&z, 2, &o, &state, &g);
        assert!(dz[..2].iter().all(|d| d.is_finite()) && dz[2..].iter().all(|d| d.is_nan()));
    }
}
