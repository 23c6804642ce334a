//! Scores at the end of f32's normal numbers: exactly 0 below, in the reference as well, so that
//! shares of tiny scores are shares everywhere and those of nothing are 0.

use tollgate_core::options::{GateOptions, GatingDropout, LocalWeight};
use tollgate_core::{DropMode, RowView, RowViewMut};
use tollgate_gating::reference::{self, Widened};
use tollgate_gating::{GateInputs, Gating};
use tollgate_testkit::{Case, gate_cases};

use crate::support::{Tensors, combinations, cpu, ctx, dropouts, gate, routers};
use crate::{backward, forward};

/// Below this an exponential or a sigmoid is 0.
const CUT: f32 = -87.3;

/// A case's sizes with logits of −80 to −700, in rows of four kinds: far apart; around the cut; all
/// below it; and around the cut of the softmax, below a logit of 0. Some are masked.
fn deep(case: &Case) -> Tensors {
    let mut tensors = Tensors::new(case);
    let mut data = case.data(21);
    for (i, z) in tensors.logits.iter_mut().enumerate() {
        let (t, e) = (i / case.experts, i % case.experts);
        let u = data.uniform().abs() as f32;
        *z = match t % 4 {
            _ if data.below(11) == 0 => f32::NEG_INFINITY,
            0 => -80.0 - 620.0 * u,
            1 => CUT + 5.0 - 10.0 * u,
            2 => -100.0 - 600.0 * u,
            _ if e == t % case.experts => 0.0,
            _ => CUT + 5.0 - 10.0 * u,
        };
    }
    tensors
}

/// Sizes with and without padding of rows.
fn cases() -> Vec<Case> {
    let names = ["many ties", "experts not a power of two"];
    let cases: Vec<Case> = gate_cases()
        .into_iter()
        .filter(|c| names.contains(&c.name))
        .collect();
    assert_eq!(cases.len(), names.len());
    cases
}

/// Most tokens are compared: ties of scores that underflowed are exact. Not those whose groups or
/// columns differ by less than 2^-126, which a machine may flush.
fn nearly_all(tally: &forward::Tally) {
    assert!(
        tally.compared > 1000 && 10 * tally.near <= tally.compared,
        "{} compared, {} near a decision",
        tally.compared,
        tally.near
    );
}

#[test]
fn every_router_and_option_agrees_with_the_reference() {
    let mut tally = forward::Tally::default();
    for case in cases() {
        let tensors = deep(&case);
        for o in combinations(case.tokens, case.experts) {
            for biased in [false, true] {
                let inputs = tensors.inputs(&o.router, biased);
                forward::compare(&inputs, &o, &ctx(), &mut tally);
                backward::compare(&case, &inputs, &o, &ctx());
            }
        }
    }
    nearly_all(&tally);
}

#[test]
fn every_dropped_step_agrees_with_the_reference() {
    let mut tally = forward::Tally::default();
    for case in cases() {
        let tensors = deep(&case);
        for router in routers(case.tokens, case.experts) {
            for dropout in dropouts().into_iter().filter(|_| router.has_gate()) {
                let mut o = GateOptions::new(router);
                o.gating_dropout = Some(dropout);
                let inputs = tensors.inputs(&router, false);
                forward::compare(&inputs, &o, &ctx(), &mut tally);
                backward::compare(&case, &inputs, &o, &ctx());
            }
        }
    }
    nearly_all(&tally);
}

/// Weights of one token by the CPU and by the reference.
fn weights(z: &[f32], o: &GateOptions) -> (Vec<f32>, Vec<f64>) {
    let inputs = GateInputs::new(RowView::new(z, 1, z.len()).unwrap());
    let expected = reference::gate(&Widened::new(&inputs).inputs(), o, &ctx()).unwrap();
    let state = gate(&cpu(1), &inputs, o, &ctx());
    assert_eq!(state.table.expert_indices, expected.table.expert_indices);
    (state.table.routing_weights, expected.table.routing_weights)
}

#[test]
fn shares_of_nothing_are_nothing() {
    let options = |router: &str| GateOptions::new(router.parse().unwrap());
    let all_below = [-100.0, -101.0, -200.0, -300.0];
    for router in ["sigmoid:2", "grouped:2:2:1", "grouped:2:1:1"] {
        assert_eq!(
            weights(&all_below, &options(router)),
            (vec![0.0; 2], vec![0.0; 2]),
            "{router}"
        );
    }
    let mut local = options("sigmoid:2");
    local.gating_dropout = Some(GatingDropout {
        local_weight: LocalWeight::RestrictedSoftmax,
        ..GatingDropout::new(1.0, DropMode::Gate)
    });
    assert_eq!(weights(&all_below, &local), (vec![0.0], vec![0.0]));
    // What is left has everything.
    let one_above = [-87.0, -88.0, -89.0, -90.0];
    let (actual, expected) = weights(&one_above, &options("sigmoid:2"));
    assert_eq!((actual, expected), (vec![1.0, 0.0], vec![1.0, 0.0]));
    // The second of the best two: its share is 0, which no threshold is below.
    let pair = [0.0, -88.0];
    let both = (vec![1.0, 0.0], vec![1.0, 0.0]);
    assert_eq!(weights(&pair, &options("second:all")), both);
    let alone = (vec![1.0], vec![1.0]);
    for router in ["second:threshold:0", "second:random:1e-45"] {
        assert_eq!(weights(&pair, &options(router)), alone, "{router}");
    }
}

#[test]
fn the_last_normal_number_is_kept() {
    let z = [0.0, CUT, CUT.next_down(), -88.0];
    let kept = [true, true, false, false];
    let view = RowView::new(&z, 1, 4).unwrap();
    let (mut p, mut lse) = ([f32::NAN; 4], [f32::NAN]);
    let out = RowViewMut::new(&mut p, 1, 4).unwrap();
    cpu(1).softmax(view, out, &mut lse).unwrap();
    let wide = z.map(f64::from);
    let (expected, _) = reference::softmax(RowView::new(&wide, 1, 4).unwrap());
    assert_eq!(p.map(|p| p > 0.0), kept);
    assert_eq!(expected.iter().map(|&p| p > 0.0).collect::<Vec<_>>(), kept);

    let inputs = GateInputs::new(view);
    let o = GateOptions::new("sigmoid:1".parse().unwrap());
    let scores = gate(&cpu(1), &inputs, &o, &ctx()).scores;
    let expected = reference::gate(&Widened::new(&inputs).inputs(), &o, &ctx()).unwrap();
    for e in 0..4 {
        assert_eq!([scores[e] > 0.0, expected.scores[e] > 0.0], [kept[e]; 2]);
        assert!(scores[e] == 0.0 || scores[e].is_normal());
    }
}
