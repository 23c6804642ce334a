//! The named edge cases: what holds for every router and every kind of logits.

use tollgate_core::options::{Capacity, DropOrder, GateOptions, GatingDropout};
use tollgate_core::{DropMode, Router, RowView, StepContext};
use tollgate_gating::reference::{self, Widened};
use tollgate_gating::{GateInputs, GateState};
use tollgate_testkit::{Case, gate_cases, run_all};

use crate::support::{ROUTERS, options};

/// The routers of the list that are legal for a case's sizes.
fn legal(case: &Case) -> Vec<GateOptions> {
    ROUTERS
        .iter()
        .map(|router| options(router))
        .filter(|o| o.validate(case.tokens, case.experts).is_ok())
        .collect()
}

/// The case's f32 logits with everything that any router may ask for.
struct Tensors {
    logits: Vec<f32>,
    noise: Vec<f32>,
    ids: Vec<i32>,
}

impl Tensors {
    fn new(case: &Case) -> Self {
        let n = case.tokens * case.experts;
        let mut data = case.data(3);
        let ids = (0..case.tokens).map(|_| data.below(1000) as i32).collect();
        Self {
            logits: case.router_logits(),
            noise: data.normals(n, 1.0),
            ids,
        }
    }

    fn inputs(&self, case: &Case) -> GateInputs<'_> {
        let view = |v| RowView::new(v, case.tokens, case.experts).unwrap();
        GateInputs {
            noise_logits: Some(view(&self.noise)),
            token_ids: Some(&self.ids),
            local_experts: case.experts / 3..case.experts / 3 + case.experts.div_ceil(2),
            ..GateInputs::new(view(&self.logits))
        }
    }
}

fn ctx() -> StepContext {
    StepContext {
        seed: 31,
        layer: 2,
        step: 8,
        first_token: 64,
        ..StepContext::default()
    }
}

/// Runs `check` on every case and router, in both contexts.
fn on_every_case(what: &str, check: impl Fn(&Case, &GateOptions, &GateInputs<'_, f64>)) {
    run_all(what, &gate_cases(), &[("reference", ())], |case, ()| {
        let tensors = Tensors::new(case);
        let widened = Widened::new(&tensors.inputs(case));
        for o in legal(case) {
            check(case, &o, &widened.inputs());
        }
    });
}

fn finite(z: f64) -> bool {
    z > f64::NEG_INFINITY
}

/// The logits that the row's scores were made from.
fn logits_of<'a>(
    state: &'a GateState<f64>,
    inputs: &'a GateInputs<'_, f64>,
    t: usize,
) -> &'a [f64] {
    let experts = inputs.num_experts;
    if state.noisy_logits.is_empty() {
        inputs.logits.as_ref().unwrap().row(t)
    } else {
        &state.noisy_logits[t * experts..(t + 1) * experts]
    }
}

#[test]
fn tables_are_valid_and_counts_are_legal() {
    on_every_case("reference gate", |case, o, inputs| {
        let state = reference::gate(inputs, o, &ctx()).unwrap();
        state.selection.validate().unwrap();
        state.table.validate().unwrap();
        // By their text: a NaN is not equal to itself.
        assert_eq!(
            format!("{:?}", state.table),
            format!("{:?}", state.selection)
        );
        assert!(state.kept.is_empty() && state.dropped.is_none());
        assert_eq!(state.table.num_tokens(), case.tokens);
        assert_eq!(state.table.num_experts(), case.experts);
        if !o.router.has_gate() {
            return;
        }
        let k_max = o.router.max_experts_per_token(case.experts);
        for t in 0..case.tokens {
            let z = logits_of(&state, inputs, t);
            let experts = state.table.experts_of(t);
            let columns_choose = matches!(o.router, Router::ExpertChoice { .. });
            let faulty = z.iter().any(|z| z.is_nan() || *z == f64::INFINITY);
            assert_eq!(faulty, state.lse[t].is_nan(), "{} row {t}", o.router);
            if faulty {
                assert_eq!(state.first_choice[t], 0);
                if !columns_choose {
                    assert_eq!(experts, [0]);
                }
                assert!(state.table.weights_of(t).iter().all(|w| w.is_nan()));
                continue;
            }
            assert!(experts.len() <= k_max);
            assert!(
                state
                    .table
                    .weights_of(t)
                    .iter()
                    .all(|w| (0.0..=1.0).contains(w))
            );
            let row = &state.scores[t * case.experts..(t + 1) * case.experts];
            for e in 0..case.experts {
                assert_eq!(
                    row[e] == 0.0 && !finite(z[e]),
                    !finite(z[e]),
                    "a mask has score 0"
                );
            }
            if columns_choose {
                assert!(experts.windows(2).all(|w| w[0] < w[1]));
                continue;
            }
            let unmasked = z.iter().filter(|&&z| finite(z)).count();
            let taken_masks = experts.iter().filter(|&&e| !finite(z[e as usize])).count();
            let fixed = matches!(
                o.router,
                Router::TopK { .. } | Router::Noisy { .. } | Router::Grouped { .. }
            );
            if fixed {
                assert_eq!(experts.len(), k_max);
            }
            if !matches!(o.router, Router::Grouped { .. }) {
                let allowed = if fixed || unmasked == 0 { k_max } else { 0 };
                assert!(
                    taken_masks <= allowed.saturating_sub(unmasked),
                    "{}",
                    o.router
                );
                // Best first, ties by the lower index; nothing better was left out.
                let better = |a: i32, b: i32| {
                    let (za, zb) = (z[a as usize], z[b as usize]);
                    za > zb || (za == zb && a < b)
                };
                assert!(
                    experts.windows(2).all(|w| better(w[0], w[1])),
                    "{}",
                    o.router
                );
                let last = experts[experts.len() - 1];
                let outside = (0..case.experts as i32).filter(|e| !experts.contains(e));
                assert!(outside.into_iter().all(|e| better(last, e)), "{}", o.router);
            }
            assert_eq!(state.first_choice[t], experts[0]);
        }
        let faulty = state.lse.iter().filter(|l| l.is_nan()).count();
        assert_eq!(state.status.faulty_rows, faulty);
        assert_eq!(
            state.status.first_faulty_row,
            state.lse.iter().position(|l| l.is_nan())
        );
        assert_eq!(state.losses.z.is_nan(), faulty > 0);
        assert_eq!(state.losses.balance.is_nan(), faulty > 0);
        let load: f64 = state.load.iter().sum();
        assert!(
            load == 0.0 || (load - 1.0).abs() < 1e-12,
            "shares of the load sum to 1: {load}"
        );
    });
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    on_every_case("reference gate, one row", |case, o, inputs| {
        if !o.router.has_gate() || matches!(o.router, Router::ExpertChoice { .. }) {
            return;
        }
        let state = reference::gate(inputs, o, &ctx()).unwrap();
        for t in (0..case.tokens).step_by(case.tokens.div_ceil(9).max(1)) {
            let alone = GateInputs {
                num_tokens: 1,
                logits: inputs.logits.map(|z| z.sub_rows(t..t + 1)),
                noise_logits: inputs.noise_logits.map(|z| z.sub_rows(t..t + 1)),
                token_ids: None,
                ..inputs.clone()
            };
            let ctx = StepContext {
                first_token: ctx().first_token + t as u32,
                ..ctx()
            };
            let row = reference::gate(&alone, o, &ctx).unwrap();
            assert_eq!(row.table.expert_indices, state.table.experts_of(t));
            let bits = |w: &[f64]| w.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
            assert_eq!(
                bits(&row.table.routing_weights),
                bits(state.table.weights_of(t))
            );
        }
    });
}

#[test]
fn capacity_keeps_a_part_of_the_selection() {
    on_every_case("reference capacity", |case, o, inputs| {
        let without = reference::gate(inputs, o, &ctx()).unwrap();
        for (factor, order) in [
            (0.0, DropOrder::Position),
            (0.4, DropOrder::Probability),
            (0.7, DropOrder::Position),
            (1e9, DropOrder::Probability),
        ] {
            let capacity = Some(Capacity { factor, order });
            let o = GateOptions {
                capacity,
                ..o.clone()
            };
            let state = reference::gate(inputs, &o, &ctx()).unwrap();
            state.table.validate().unwrap();
            let (all, kept) = (&state.selection, &state.table);
            assert_eq!(all.expert_indices, without.table.expert_indices);
            let k = o.router.max_experts_per_token(case.experts) as f64;
            let even = f64::from(factor) * case.tokens as f64 * k / case.experts as f64;
            let limit = even.ceil() as usize;
            for e in 0..case.experts {
                assert_eq!(kept.count_of(e), all.count_of(e).min(limit));
            }
            let identity: Vec<i32> = (0..kept.num_assignments() as i32).collect();
            let positions = if state.kept.is_empty() {
                &identity
            } else {
                &state.kept
            };
            assert!(positions.windows(2).all(|w| w[0] < w[1]));
            for (a, &position) in positions.iter().enumerate() {
                assert_eq!(
                    kept.expert_indices[a],
                    all.expert_indices[position as usize]
                );
            }
        }
    });
}

#[test]
fn dropped_steps_stay_local_on_every_case() {
    on_every_case("reference gating dropout", |case, o, inputs| {
        if !o.router.has_gate() {
            return;
        }
        let normal = reference::gate(inputs, o, &ctx()).unwrap();
        for mode in DropMode::ALL {
            let dropout = Some(GatingDropout::new(1.0, *mode));
            let o = GateOptions {
                gating_dropout: dropout,
                ..o.clone()
            };
            let state = reference::gate(inputs, &o, &ctx()).unwrap();
            state.table.validate().unwrap();
            let expected = if *mode == DropMode::Gate {
                case.tokens
            } else {
                0
            };
            assert_eq!(state.table.num_assignments(), expected);
            let local = &inputs.local_experts;
            assert!(
                state
                    .table
                    .expert_indices
                    .iter()
                    .all(|&e| local.contains(&(e as usize)))
            );
            assert_eq!(state.load, normal.load);
            assert_eq!(state.first_choice, normal.first_choice);
        }
    });
}

#[test]
fn gradients_are_finite_except_in_faulty_rows() {
    on_every_case("reference backward", |case, o, inputs| {
        let state = reference::gate(inputs, o, &ctx()).unwrap();
        let dweights = vec![1.0; state.table.num_assignments()];
        let (dz, dz_noise) =
            reference::gate_backward(inputs, o, &ctx(), &state, &dweights).unwrap();
        assert_eq!(dz.len(), case.tokens * case.experts);
        for gradient in std::iter::once(&dz).chain(dz_noise.as_ref()) {
            for (t, row) in gradient.chunks(case.experts).enumerate() {
                let faulty = state.lse.get(t).is_some_and(|l| l.is_nan());
                assert!(
                    row.iter()
                        .all(|d| if faulty { d.is_nan() } else { d.is_finite() })
                );
            }
        }
    });
}

#[test]
fn margins_are_positive_where_decisions_are_clear() {
    on_every_case("reference margins", |case, o, inputs| {
        let state = reference::gate(inputs, o, &ctx()).unwrap();
        let margins = reference::decision_margins(inputs, o, &ctx(), &state).unwrap();
        assert_eq!(margins.len(), case.tokens);
        assert!(margins.iter().all(|m| *m >= 0.0));
        let exact = matches!(
            o.router.to_string().as_str(),
            "top1" | "top2" | "sigmoid:1" | "forced:0.5" | "hash" | "thor" | "ensemble"
        );
        assert!(
            !exact || margins.iter().all(|m| m.is_infinite()),
            "{}",
            o.router
        );
    });
    // τ in the middle of f32's error around the gap of 1/4.
    let z = [4f64.ln(), 2f64.ln(), 0.0, 0.0];
    let inputs = GateInputs::new(RowView::new(&z, 1, 4).unwrap());
    for (tau, clear) in [(0.25, false), (0.25001, true)] {
        let o = GateOptions::new(Router::Adaptive { tau });
        let state = reference::gate(&inputs, &o, &ctx()).unwrap();
        let margins = reference::decision_margins(&inputs, &o, &ctx(), &state).unwrap();
        assert_eq!(margins[0] > reference::DECISION_BOUND, clear, "{margins:?}");
    }
    // σ(0) + 1/4 all but meets σ(ln 3) + 0.
    let z = [0.0, 3f64.ln(), -9.0];
    for (bias, clear) in [([0.2500001, 0.0, 0.0], false), ([0.26, 0.0, 0.0], true)] {
        let inputs = GateInputs {
            selection_bias: Some(&bias),
            ..GateInputs::new(RowView::new(&z, 1, 3).unwrap())
        };
        let o = options("sigmoid:1");
        let state = reference::gate(&inputs, &o, &ctx()).unwrap();
        assert_eq!(state.table.expert_indices, [0]);
        let margins = reference::decision_margins(&inputs, &o, &ctx(), &state).unwrap();
        assert_eq!(margins[0] > reference::DECISION_BOUND, clear, "{margins:?}");
    }
}
