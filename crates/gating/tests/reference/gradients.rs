//! Every gradient against finite differences of the forward pass.

use tollgate_core::options::{
    AuxLoss, BalanceOver, Capacity, DropOrder, Gap, GateOptions, GatingDropout, LocalChoice,
    LocalWeight, Weights,
};
use tollgate_core::{DropMode, RowView, StepContext};
use tollgate_gating::reference::{self, NoisyLogits};
use tollgate_gating::{GateInputs, GateState};
use tollgate_testkit::{Data, Probe, check_gradient};

use crate::support::{ROUTERS, options};

const T: usize = 7;
const E: usize = 6;
const IDS: [i32; T] = [5, 0, 3, 3, 9, 1, 7];

/// Logits, noise logits and a bias of one seed. Ranks are at least 0.3 apart, so that no finite
/// difference crosses one.
struct Point {
    z: Vec<f64>,
    z_noise: Vec<f64>,
    bias: Vec<f64>,
}

impl Point {
    fn new(seed: u64) -> Self {
        let mut data = Data::new(seed);
        let mut z = Vec::new();
        for _ in 0..T {
            let mut steps: Vec<f64> = (0..E).map(|i| 0.5 * i as f64 - 1.2).collect();
            for i in (1..E).rev() {
                steps.swap(i, data.below(i + 1));
            }
            z.extend(steps.iter().map(|s| s + 0.1 * data.uniform()));
        }
        let z_noise = (0..T * E).map(|_| data.uniform()).collect();
        let bias = (0..E).map(|_| 0.3 * data.uniform()).collect();
        Self { z, z_noise, bias }
    }

    fn inputs<'a>(&'a self, z: &'a [f64], z_noise: &'a [f64], biased: bool) -> GateInputs<'a, f64> {
        GateInputs {
            noise_logits: Some(RowView::new(z_noise, T, E).unwrap()),
            selection_bias: biased.then_some(&self.bias),
            token_ids: Some(&IDS),
            // Neither all nor one, and not at 0.
            local_experts: 1..4,
            ..GateInputs::new(RowView::new(z, T, E).unwrap())
        }
    }
}

fn ctx() -> StepContext {
    StepContext {
        seed: 77,
        layer: 1,
        step: 12,
        first_token: 100,
        ..StepContext::default()
    }
}

/// The scalar whose gradient the backward pass computes.
fn loss(inputs: &GateInputs<'_, f64>, o: &GateOptions, dweights: &[f64]) -> f64 {
    let state = reference::gate_with(inputs, o, &ctx(), NoisyLogits::Exact).unwrap();
    assert_eq!(
        state.table.num_assignments(),
        dweights.len(),
        "a decision was crossed"
    );
    let weights = state.table.routing_weights.iter();
    let task: f64 = weights.zip(dweights).map(|(w, g)| w * g).sum();
    task + state.losses.balance + state.losses.z
}

/// A probe of all coordinates.
fn every() -> Probe {
    Probe {
        coordinates: T * E,
        ..Probe::default()
    }
}

/// Decisions this far from turning are not turned by a step of 1e-5.
const MARGIN: f64 = 1e-3;

/// The state of inputs whose decisions are all clear.
fn clear_state(inputs: &GateInputs<'_, f64>, o: &GateOptions) -> Option<GateState<f64>> {
    let state = reference::gate_with(inputs, o, &ctx(), NoisyLogits::Exact).unwrap();
    let margins = reference::decision_margins(inputs, o, &ctx(), &state).unwrap();
    let noisy_ranks_clear = state.noisy_logits.chunks(E).all(|h| {
        let mut h: Vec<f64> = h.iter().copied().filter(|h| h.is_finite()).collect();
        h.sort_by(f64::total_cmp);
        h.windows(2).all(|w| w[1] - w[0] > MARGIN)
    });
    (noisy_ranks_clear && margins.iter().all(|&m| m > MARGIN)).then_some(state)
}

/// The first seed whose decisions are all clear, and the state there.
fn clear_point(o: &GateOptions, biased: bool) -> (Point, GateState<f64>) {
    for seed in 0..200 {
        let point = Point::new(seed);
        let inputs = point.inputs(&point.z, &point.z_noise, biased);
        if let Some(state) = clear_state(&inputs, o) {
            return (point, state);
        }
    }
    panic!("no seed with clear decisions for {o:?}");
}

fn check(o: &GateOptions, biased: bool) {
    let what = format!("{o:?} bias {biased}");
    let (point, state) = clear_point(o, biased);
    let mut data = Data::new(5);
    let dweights: Vec<f64> = (0..state.table.num_assignments())
        .map(|_| data.normal())
        .collect();
    let inputs = point.inputs(&point.z, &point.z_noise, biased);
    let (dz, dz_noise) = reference::gate_backward(&inputs, o, &ctx(), &state, &dweights).unwrap();
    check_gradient(&what, &point.z, &dz, every(), |z| {
        loss(&point.inputs(z, &point.z_noise, biased), o, &dweights)
    });
    assert_eq!(
        dz_noise.is_some(),
        o.router.to_string().starts_with("noisy")
    );
    if let Some(dz_noise) = dz_noise {
        check_gradient(&what, &point.z_noise, &dz_noise, every(), |z_noise| {
            loss(&point.inputs(&point.z, z_noise, biased), o, &dweights)
        });
    }
}

/// Options with losses of the size of the task's gradient.
fn loud(router: &str) -> GateOptions {
    GateOptions {
        balance_alpha: 0.7,
        z_coefficient: 0.3,
        weight_scale: 1.5,
        ..options(router)
    }
}

fn takes_bias(router: &str) -> bool {
    router.starts_with("sigmoid") || router.starts_with("grouped")
}

const CAPACITIES: [Option<Capacity>; 3] = [
    None,
    Some(Capacity {
        factor: 0.75,
        order: DropOrder::Position,
    }),
    Some(Capacity {
        factor: 0.6,
        order: DropOrder::Probability,
    }),
];

#[test]
fn every_router_with_every_weight_load_and_capacity() {
    let mut checked = 0;
    for router in ROUTERS {
        for weights in Weights::ALL {
            for balance_over in BalanceOver::ALL {
                for capacity in CAPACITIES {
                    let o = GateOptions {
                        weights: Some(*weights),
                        balance_over: Some(*balance_over),
                        capacity,
                        ..loud(router)
                    };
                    if o.validate(T, E).is_err() {
                        continue;
                    }
                    check(&o, false);
                    if takes_bias(router) {
                        check(&o, true);
                    }
                    checked += 1;
                }
            }
        }
    }
    // 10 routers that choose the best one or two take three options; 5 of sigmoid, grouped and
    // top-3 and 3 of expert choice take two; the 4 without a gate take one: times 9.
    assert_eq!(checked, 9 * (10 * 3 + 8 * 2 + 4));
}

#[test]
fn the_gap_of_the_best_two() {
    for weights in Weights::ALL {
        for capacity in CAPACITIES {
            let o = GateOptions {
                gap: Gap::Top2,
                weights: Some(*weights),
                capacity,
                ..loud("adaptive:0.3")
            };
            check(&o, false);
        }
    }
}

#[test]
fn every_dropped_step() {
    for (i, router) in ROUTERS.into_iter().enumerate() {
        for local_choice in LocalChoice::ALL {
            for local_weight in LocalWeight::ALL {
                for (mode, aux_loss) in [
                    (DropMode::Gate, AuxLoss::Keep),
                    (DropMode::Gate, AuxLoss::Zero),
                    (DropMode::GateExpert, AuxLoss::Keep),
                    (DropMode::GateExpert, AuxLoss::Zero),
                ] {
                    let dropout = GatingDropout {
                        local_choice: *local_choice,
                        local_weight: *local_weight,
                        aux_loss,
                        ..GatingDropout::new(1.0, mode)
                    };
                    let o = GateOptions {
                        gating_dropout: Some(dropout),
                        capacity: CAPACITIES[i % 3],
                        balance_over: Some(BalanceOver::ALL[i % 3]),
                        ..loud(router)
                    };
                    if o.router.has_gate() {
                        check(&o, takes_bias(router) && i % 2 == 0);
                    }
                }
            }
        }
    }
}

/// Whether an expert is masked: every row has masks; rows 0 and 3 leave one expert, row 6 none.
fn masked(i: usize) -> bool {
    let (t, e) = (i / E, i % E);
    match t {
        6 => true,
        0 | 3 => e != t,
        _ => (t + e).is_multiple_of(3),
    }
}

/// As [`check`], on logits with masks: the finite logits are moved, and the noise logits.
fn check_masked(o: &GateOptions) {
    let what = format!("{o:?} masked");
    let finite: Vec<usize> = (0..T * E).filter(|&i| !masked(i)).collect();
    let spread = |x: &[f64]| {
        let mut z = vec![f64::NEG_INFINITY; T * E];
        for (&i, &v) in finite.iter().zip(x) {
            z[i] = v;
        }
        z
    };
    let clear = (0..200).find_map(|seed| {
        let point = Point::new(seed);
        let x: Vec<f64> = finite.iter().map(|&i| point.z[i]).collect();
        let state = clear_state(&point.inputs(&spread(&x), &point.z_noise, false), o)?;
        Some((point, x, state))
    });
    let (point, x, state) = clear.unwrap_or_else(|| panic!("no seed is clear for {what}"));
    let z = spread(&x);
    let inputs = point.inputs(&z, &point.z_noise, false);
    let mut data = Data::new(6);
    let dweights: Vec<f64> = (0..state.table.num_assignments())
        .map(|_| data.normal())
        .collect();
    let (dz, dz_noise) = reference::gate_backward(&inputs, o, &ctx(), &state, &dweights).unwrap();
    for i in (0..T * E).filter(|&i| masked(i)) {
        assert_eq!(dz[i], 0.0, "{what} at {i}");
        assert!(
            dz_noise.as_ref().is_none_or(|d| d[i] == 0.0),
            "{what} at {i}"
        );
    }
    let gradient: Vec<f64> = finite.iter().map(|&i| dz[i]).collect();
    check_gradient(&what, &x, &gradient, every(), |x| {
        loss(
            &point.inputs(&spread(x), &point.z_noise, false),
            o,
            &dweights,
        )
    });
    if let Some(dz_noise) = dz_noise {
        check_gradient(&what, &point.z_noise, &dz_noise, every(), |z_noise| {
            loss(&point.inputs(&z, z_noise, false), o, &dweights)
        });
    }
}

#[test]
fn masked_experts_have_no_gradient_and_disturb_none() {
    for router in ROUTERS {
        for weights in Weights::ALL {
            for capacity in CAPACITIES {
                let o = GateOptions {
                    weights: Some(*weights),
                    capacity,
                    ..loud(router)
                };
                if o.router.has_gate() && o.validate(T, E).is_ok() {
                    check_masked(&o);
                }
            }
        }
    }
}

#[test]
fn masked_experts_on_every_dropped_step() {
    for (i, router) in ROUTERS.into_iter().enumerate() {
        for local_choice in LocalChoice::ALL {
            for local_weight in LocalWeight::ALL {
                let dropout = GatingDropout {
                    local_choice: *local_choice,
                    local_weight: *local_weight,
                    ..GatingDropout::new(1.0, DropMode::Gate)
                };
                let o = GateOptions {
                    gating_dropout: Some(dropout),
                    capacity: CAPACITIES[i % 3],
                    ..loud(router)
                };
                if o.router.has_gate() {
                    check_masked(&o);
                }
            }
        }
    }
}

#[test]
fn softmax_backward() {
    let point = Point::new(1);
    fn view(v: &[f64]) -> RowView<'_, f64> {
        RowView::new(v, T, E).unwrap()
    }
    let mut data = Data::new(8);
    let dprobs: Vec<f64> = (0..T * E).map(|_| data.normal()).collect();
    let (probs, _) = reference::softmax(view(&point.z));
    let dz = reference::softmax_backward(view(&probs), view(&dprobs)).unwrap();
    check_gradient("softmax", &point.z, &dz, every(), |z| {
        reference::softmax(view(z))
            .0
            .iter()
            .zip(&dprobs)
            .map(|(p, d)| p * d)
            .sum()
    });
}
