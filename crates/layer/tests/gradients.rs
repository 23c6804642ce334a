//! Every gradient of the reference against finite differences of the reference: every router,
//! weights option, activation and loss.

mod common;

use common::{Problem, routers, sized};
use tollgate::options::{
    Activation, BalanceOver, GateOptions, GatingDropout, LocalChoice, LocalWeight, Scores, Weights,
};
use tollgate::reference::{self, Batch, Parameters};
use tollgate::{DropMode, Router};
use tollgate_testkit::{Probe, check_gradient};

/// Checks all gradients of `<dy, y> + balance + z` for one configuration.
fn check(options: GateOptions, activation: Activation, gated: bool) {
    let name = format!(
        "{} weights {} balance {} {activation} gated {gated}",
        options.router,
        options.weights(),
        options.balance_over()
    );
    let case = sized(12, 4, 5, 6);
    let problem = Problem::<f32>::new(&case, options, activation, gated);
    let (layer, ctx) = (&problem.layer, &problem.ctx);
    let inputs = problem.inputs();
    let parameters = Parameters::widen(&problem.weights());
    let batch = Batch::widen(&inputs);
    let dy: Vec<f64> = problem.dy.iter().map(|&v| f64::from(v)).collect();
    let loss = |parameters: &Parameters, batch: &Batch<'_>| {
        let f = reference::forward(layer, parameters, batch, ctx).unwrap();
        let product: f64 = f.y.iter().zip(&dy).map(|(y, d)| y * d).sum();
        product + f.gate.losses.balance + f.gate.losses.z
    };
    let forward = reference::forward(layer, &parameters, &batch, ctx).unwrap();
    let grads = reference::backward(layer, &parameters, &batch, ctx, &forward, &dy).unwrap();
    let probe = Probe {
        coordinates: 12,
        ..Probe::default()
    };
    check_gradient(&format!("{name}: x"), &batch.x, &grads.x, probe, |x| {
        let batch = Batch {
            x: x.to_vec(),
            ..batch.clone()
        };
        loss(&parameters, &batch)
    });
    type Set = fn(&mut Parameters, Vec<f64>);
    type Tensor<'a> = (&'a str, Option<&'a Vec<f64>>, &'a Vec<f64>, Set);
    let tensors: [Tensor<'_>; 6] = [
        (
            "router",
            parameters.router.as_ref(),
            &grads.router,
            |p, v| p.router = Some(v),
        ),
        (
            "router noise",
            parameters.router_noise.as_ref(),
            &grads.router_noise,
            |p, v| p.router_noise = Some(v),
        ),
        ("up", Some(&parameters.up), &grads.up, |p, v| p.up = v),
        (
            "up bias",
            parameters.up_bias.as_ref(),
            &grads.up_bias,
            |p, v| p.up_bias = Some(v),
        ),
        ("down", Some(&parameters.down), &grads.down, |p, v| {
            p.down = v
        }),
        (
            "down bias",
            parameters.down_bias.as_ref(),
            &grads.down_bias,
            |p, v| p.down_bias = Some(v),
        ),
    ];
    for (tensor, values, gradient, set) in tensors {
        let Some(values) = values else { continue };
        if gradient.is_empty() {
            // A map that this router does not use has no gradient, and must have no influence.
            let mut moved = parameters.clone();
            set(&mut moved, values.iter().map(|v| v + 1.0).collect());
            assert_eq!(
                loss(&moved, &batch),
                loss(&parameters, &batch),
                "{name}: {tensor}"
            );
            continue;
        }
        check_gradient(&format!("{name}: {tensor}"), values, gradient, probe, |v| {
            let mut moved = parameters.clone();
            set(&mut moved, v.to_vec());
            loss(&moved, &batch)
        });
    }
}

/// Losses large enough that a wrong gradient of theirs would be seen beside `<dy, y>`.
fn options(router: Router) -> GateOptions {
    let mut options = GateOptions::new(router);
    options.balance_alpha = 3.0;
    options.z_coefficient = 0.7;
    options
}

/// The weights options that a router takes.
fn weights_of(router: &Router) -> Vec<Weights> {
    Weights::ALL
        .iter()
        .copied()
        .filter(|&w| {
            let mut o = GateOptions::new(*router);
            o.weights = Some(w);
            o.validate(12, 4).is_ok()
        })
        .collect()
}

#[test]
fn every_router_weights_and_activation() {
    for router in routers(4) {
        for weights in weights_of(&router) {
            for activation in Activation::ALL {
                let mut options = options(router);
                options.weights = Some(weights);
                options.weight_scale = 1.5;
                check(options.clone(), *activation, false);
                check(options, *activation, true);
            }
        }
    }
}

#[test]
fn every_balance_loss() {
    for router in routers(4).into_iter().filter(Router::has_gate) {
        for weights in weights_of(&router) {
            for balance_over in BalanceOver::ALL {
                let mut options = options(router);
                options.weights = Some(weights);
                options.balance_over = Some(*balance_over);
                for (activation, gated) in [(Activation::Gelu, false), (Activation::Silu, true)] {
                    check(options.clone(), activation, gated);
                }
            }
        }
    }
}

#[test]
fn jitter_and_every_gating_dropout() {
    for router in ["adaptive:0.3", "sigmoid:2", "noisy:2"] {
        let router: Router = router.parse().unwrap();
        let mut jittered = options(router);
        jittered.jitter = 0.2;
        check(jittered.clone(), Activation::GeluTanh, false);
        for mode in DropMode::ALL {
            for choice in LocalChoice::ALL {
                for weight in LocalWeight::ALL {
                    let mut dropped = jittered.clone();
                    dropped.gating_dropout = Some(GatingDropout {
                        local_choice: *choice,
                        local_weight: *weight,
                        ..GatingDropout::new(1.0, *mode)
                    });
                    check(dropped, Activation::Gelu, false);
                }
            }
        }
    }
    assert_eq!(
        Scores::ALL.len(),
        2,
        "a new kind of scores needs a router above"
    );
}
