//! Scores at the end of f32's normal numbers: exactly 0 below, in the reference as well, so that
//! shares of tiny scores are shares everywhere and those of nothing are 0.

use tollgate_core::options::{GateOptions, GatingDropout, LocalWeight};
use tollgate_core::{DropMode, RowView, RowViewMut};
use tollgate_gating::GateInputs;
use tollgate_gating::reference::{self, Widened};
use tollgate_testkit::{Case, gate_cases, run_all};

use crate::support::{Tensors, combinations, ctx, dropouts, gate, implementations, routers};
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
    run_all(
        "underflow",
        &cases(),
        &implementations(),
        |case, implementation| {
            let gating = implementation.gating;
            let tensors = deep(case);
            for (i, o) in combinations(case.tokens, case.experts).iter().enumerate() {
                for biased in [false, true] {
                    if !implementation.keeps(case, 2 * i + usize::from(biased), 7) {
                        continue;
                    }
                    let inputs = tensors.inputs(&o.router, biased);
                    forward::compare(gating, &inputs, o, &ctx(), &mut tally);
                    backward::compare(gating, case, &inputs, o, &ctx());
                }
            }
        },
    );
    nearly_all(&tally);
}

#[test]
fn every_dropped_step_agrees_with_the_reference() {
    let mut tally = forward::Tally::default();
    run_all(
        "underflow, dropped",
        &cases(),
        &implementations(),
        |case, implementation| {
            let gating = implementation.gating;
            let tensors = deep(case);
            let mut combination = 0;
            for router in routers(case.tokens, case.experts) {
                for dropout in dropouts().into_iter().filter(|_| router.has_gate()) {
                    combination += 1;
                    if !implementation.keeps(case, combination, 71) {
                        continue;
                    }
                    let mut o = GateOptions::new(router);
                    o.gating_dropout = Some(dropout);
                    let inputs = tensors.inputs(&router, false);
                    forward::compare(gating, &inputs, &o, &ctx(), &mut tally);
                    backward::compare(gating, case, &inputs, &o, &ctx());
                }
            }
        },
    );
    nearly_all(&tally);
}

/// Weights of one token by all implementations, which agree, and by the reference.
fn weights(z: &[f32], o: &GateOptions) -> (Vec<f32>, Vec<f64>) {
    let inputs = GateInputs::new(RowView::new(z, 1, z.len()).unwrap());
    let expected = reference::gate(&Widened::new(&inputs).inputs(), o, &ctx()).unwrap();
    let mut weights = Vec::new();
    for (i, (name, implementation)) in implementations().into_iter().enumerate() {
        let table = gate(implementation.gating, &inputs, o, &ctx()).table;
        assert_eq!(
            table.expert_indices, expected.table.expert_indices,
            "{name}"
        );
        assert!(i == 0 || table.routing_weights == weights, "{name}");
        weights = table.routing_weights;
    }
    (weights, expected.table.routing_weights)
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
    let wide = z.map(f64::from);
    let (expected, _) = reference::softmax(RowView::new(&wide, 1, 4).unwrap());
    assert_eq!(expected.iter().map(|&p| p > 0.0).collect::<Vec<_>>(), kept);
    let inputs = GateInputs::new(view);
    let o = GateOptions::new("sigmoid:1".parse().unwrap());
    let expected = reference::gate(&Widened::new(&inputs).inputs(), &o, &ctx()).unwrap();
    for (name, implementation) in implementations() {
        let (mut p, mut lse) = ([f32::NAN; 4], [f32::NAN]);
        let out = RowViewMut::new(&mut p, 1, 4).unwrap();
        let gating = implementation.gating;
        gating.softmax(view, out, &mut lse).unwrap();
        assert_eq!(p.map(|p| p > 0.0), kept, "{name}");
        let scores = gate(gating, &inputs, &o, &ctx()).scores;
        for e in 0..4 {
            let above = [scores[e] > 0.0, expected.scores[e] > 0.0];
            assert_eq!(above, [kept[e]; 2], "{name}");
            assert!(scores[e] == 0.0 || scores[e].is_normal(), "{name}");
        }
    }
}
