//! Gating Dropout on numbers that can be worked out by hand.

use tollgate_core::options::{
    AuxLoss, GateOptions, GatingDropout, LocalChoice, LocalWeight, Weights,
};
use tollgate_core::{DropMode, Philox, RowView, StepContext, Stream};
use tollgate_gating::{GateInputs, GateState, reference};

use crate::support::{close, logs, options};

/// Options whose every training step is dropped.
fn dropping(router: &str, choice: LocalChoice, weight: LocalWeight) -> GateOptions {
    let dropout = GatingDropout {
        local_choice: choice,
        local_weight: weight,
        ..GatingDropout::new(1.0, DropMode::Gate)
    };
    GateOptions {
        gating_dropout: Some(dropout),
        balance_alpha: 0.0,
        z_coefficient: 0.0,
        ..options(router)
    }
}

/// Four experts, of which 2 and 3 are local.
fn run(z: &[f64], o: &GateOptions, ctx: &StepContext) -> GateState<f64> {
    let view = RowView::new(z, z.len() / 4, 4).unwrap();
    let inputs = GateInputs {
        local_experts: 2..4,
        ..GateInputs::new(view)
    };
    reference::gate(&inputs, o, ctx).unwrap()
}

fn backward(z: &[f64], o: &GateOptions, state: &GateState<f64>, g: &[f64]) -> Vec<f64> {
    let view = RowView::new(z, z.len() / 4, 4).unwrap();
    let inputs = GateInputs {
        local_experts: 2..4,
        ..GateInputs::new(view)
    };
    reference::gate_backward(&inputs, o, &StepContext::default(), state, g)
        .unwrap()
        .0
}

/// p = 1/2, 1/4, 1/16, 3/16: the local ones have shares 1/4 and 3/4.
const SIXTEENTHS: [f64; 4] = [8.0, 4.0, 1.0, 3.0];

#[test]
fn every_local_choice_stays_local() {
    let ctx = StepContext {
        seed: 2,
        first_token: 5,
        ..StepContext::default()
    };
    let word = Philox::step_words(&ctx, 5, Stream::LocalChoice, 0)[0];
    let drawn = 2 + Philox::below(word, 2) as i32;
    for (choice, expert) in [
        (LocalChoice::RestrictedArgmax, 3),
        // The first choice 0 mod 2 is 0.
        (LocalChoice::Modulo, 2),
        (LocalChoice::Uniform, drawn),
    ] {
        let o = dropping("top2", choice, LocalWeight::GateProb);
        let state = run(&logs(SIXTEENTHS), &o, &ctx);
        assert_eq!(state.dropped, Some(DropMode::Gate));
        assert_eq!(state.table.expert_indices, [expert], "{choice}");
        assert_eq!(state.first_choice, [0]);
        close(
            &state.table.routing_weights,
            &[[1.0, 3.0][expert as usize - 2] / 16.0],
        );
        state.table.validate().unwrap();
    }
}

#[test]
fn every_local_weight_and_its_gradient() {
    let z = logs(SIXTEENTHS);
    let p = [0.5, 0.25, 0.0625, 0.1875];
    let through = |chosen: usize, g: f64| -> Vec<f64> {
        (0..4)
            .map(|j| p[j] * g * (f64::from(u8::from(j == chosen)) - p[chosen]))
            .collect()
    };
    let share = 0.75 * 0.25;
    for (weight, w, dz) in [
        (LocalWeight::GateProb, 0.1875, through(3, 2.0)),
        (LocalWeight::Original, 0.5, through(0, 2.0)),
        (
            LocalWeight::RestrictedSoftmax,
            0.75,
            vec![0.0, 0.0, -2.0 * share, 2.0 * share],
        ),
        (LocalWeight::One, 1.0, vec![0.0; 4]),
    ] {
        let mut o = dropping("adaptive:0.3", LocalChoice::RestrictedArgmax, weight);
        o.weight_scale = 2.0;
        // The weights option does not apply.
        o.weights = Some(Weights::Selected);
        let state = run(&z, &o, &StepContext::default());
        close(&state.table.routing_weights, &[2.0 * w]);
        close(&backward(&z, &o, &state, &[1.0]), &dz);
        let source = if weight == LocalWeight::Original {
            vec![0]
        } else {
            vec![]
        };
        assert_eq!(state.weight_source, source);
    }
}

#[test]
fn sigmoid_shares_are_of_the_local_sum() {
    // σ = 3/4, 1/2, 1/4, 3/4: local shares 1/4 and 3/4.
    let z = logs([3.0, 1.0, 1.0 / 3.0, 3.0]);
    let o = dropping(
        "sigmoid:2",
        LocalChoice::RestrictedArgmax,
        LocalWeight::RestrictedSoftmax,
    );
    let state = run(&z, &o, &StepContext::default());
    assert_eq!(state.table.expert_indices, [3]);
    close(&state.table.routing_weights, &[0.75]);
    // w_j (g_j − G)(1 − p_j), G = 3/4.
    let dz = backward(&z, &o, &state, &[1.0]);
    close(&dz, &[0.0, 0.0, 0.25 * -0.75 * 0.75, 0.75 * 0.25 * 0.25]);
}

#[test]
fn masked_and_faulty_rows_take_the_first_local_expert() {
    let z = [logs([3.0, 1.0, 0.0, 0.0]), [0.0, f64::NAN, 0.0, 1.0]].concat();
    for (weight, masked) in [
        (LocalWeight::GateProb, 0.0),
        (LocalWeight::Original, 0.75),
        (LocalWeight::RestrictedSoftmax, 0.0),
        (LocalWeight::One, 1.0),
    ] {
        for choice in LocalChoice::ALL {
            let o = dropping("top1", *choice, weight);
            let state = run(&z, &o, &StepContext::default());
            if *choice == LocalChoice::RestrictedArgmax {
                assert_eq!(state.table.experts_of(0), [2]);
            }
            close(state.table.weights_of(0), &[masked]);
            assert_eq!(state.table.experts_of(1), [2]);
            assert!(state.table.weights_of(1)[0].is_nan());
            let dz = backward(&z, &o, &state, &[1.0, 1.0]);
            assert!(dz[..4].iter().all(|d| d.is_finite()) && dz[4..].iter().all(|d| d.is_nan()));
        }
    }
}

#[test]
fn losses_are_those_of_the_gate_itself_or_zero() {
    let z = [logs(SIXTEENTHS), logs([1.0, 1.0, 9.0, 1.0])].concat();
    let mut o = dropping(
        "adaptive:0.3",
        LocalChoice::RestrictedArgmax,
        LocalWeight::One,
    );
    (o.balance_alpha, o.z_coefficient) = (0.1, 0.1);
    let training = StepContext::default();
    let inference = StepContext {
        training: false,
        ..training
    };
    let normal = run(&z, &o, &inference);
    assert_eq!((normal.dropped, normal.table.num_assignments()), (None, 3));
    for mode in [DropMode::Gate, DropMode::GateExpert] {
        for aux_loss in [AuxLoss::Keep, AuxLoss::Zero] {
            let dropout = o.gating_dropout.unwrap();
            o.gating_dropout = Some(GatingDropout {
                mode,
                aux_loss,
                ..dropout
            });
            let state = run(&z, &o, &training);
            let assignments = if mode == DropMode::Gate { 2 } else { 0 };
            assert_eq!(state.dropped, Some(mode));
            assert_eq!(state.table.num_assignments(), assignments);
            assert_eq!(state.table.num_tokens(), 2);
            assert_eq!(state.load, normal.load);
            assert_eq!(state.first_choice, normal.first_choice);
            let dz = backward(&z, &o, &state, &vec![1.0; assignments]);
            if aux_loss == AuxLoss::Keep {
                assert_eq!(state.losses, normal.losses);
                assert!(dz.iter().any(|&d| d != 0.0));
            } else {
                assert_eq!((state.losses.balance, state.losses.z), (0.0, 0.0));
                assert_eq!(dz, [0.0; 8]);
            }
        }
    }
}
