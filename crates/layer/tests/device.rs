//! The layer that stays on a device: against the reference, as a graph, under every schedule.

mod common;

use common::check::check;
use common::resident::{Resident, both};
use common::{Problem, Step, routers, sized};
use tollgate::device::testing::devices;
use tollgate::options::{Activation, Capacity, DropOrder, GateOptions, GatingDropout, Weights};
use tollgate::{DropMode, Element, LayerState, Router, RowViewMut, StepContext};
use tollgate_testkit::{Case, LogitKind, assert_same, edge_cases, run_all};

/// Every device's layer against the reference.
fn agree<T: Element>(case: &Case, options: GateOptions, activation: Activation, gated: bool) {
    let name = format!("{} {} {activation} gated {gated}", T::DTYPE, options.router);
    let problem = Problem::<T>::new(case, options, activation, gated);
    let reference = problem.reference();
    for (device, gpu) in devices() {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&problem, &Resident::new(&problem, gpu).run(), &reference);
        }));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            panic!("{device}: {name}: {}", text.unwrap_or_default());
        }
    }
}

fn options(router: &str) -> GateOptions {
    GateOptions::new(router.parse().unwrap())
}

#[test]
fn every_router() {
    let case = sized(45, 8, 24, 20);
    for router in routers(8) {
        agree::<f32>(&case, GateOptions::new(router), Activation::Gelu, false);
    }
}

#[test]
fn every_case() {
    run_all("device layer", &edge_cases(), &[("gpu", ())], |case, ()| {
        for router in ["adaptive:0.3", "thor", "ensemble"] {
            agree::<f32>(case, options(router), Activation::Gelu, false);
        }
        // Ranked by probability, which f32 cannot tell apart where it is nearly 1.
        if !matches!(case.logits, LogitKind::OneHot | LogitKind::Huge) {
            agree::<f32>(case, options("expert-choice:1x"), Activation::Silu, true);
        }
    });
}

#[test]
fn every_dtype_activation_and_form() {
    let case = sized(33, 4, 24, 16);
    for (i, activation) in Activation::ALL.iter().enumerate() {
        let router = ["adaptive:0.2", "topk:3", "thor", "expert-choice:8"][i % 4];
        for gated in [false, true] {
            agree::<half::f16>(&case, options(router), *activation, gated);
            agree::<half::bf16>(&case, options(router), *activation, gated);
        }
    }
}

#[test]
fn every_weight_capacity_dropout_and_jitter() {
    let case = sized(64, 8, 24, 16);
    for weights in Weights::ALL {
        let mut options = GateOptions::new(Router::Adaptive { tau: 0.3 });
        options.weights = Some(*weights);
        options.weight_scale = 2.5;
        options.jitter = 0.1;
        agree::<f32>(&case, options.clone(), Activation::Silu, true);
        for order in DropOrder::ALL {
            options.capacity = Some(Capacity {
                factor: 0.6,
                order: *order,
            });
            agree::<f32>(&case, options.clone(), Activation::Gelu, false);
        }
        for mode in DropMode::ALL {
            options.gating_dropout = Some(GatingDropout::new(1.0, *mode));
            agree::<f32>(&case, options.clone(), Activation::Gelu, false);
        }
    }
    // No rows at all.
    let mut nothing = options("topk:3");
    nothing.capacity = Some(Capacity {
        factor: 0.0,
        order: DropOrder::Position,
    });
    agree::<f32>(&case, nothing, Activation::Gelu, false);
    // Noise with jitter: two shares of the router's gradient, both scaled.
    let mut noisy = options("noisy:2");
    noisy.jitter = 0.2;
    agree::<f32>(&case, noisy, Activation::Gelu, false);
}

/// Every bit of two steps.
#[track_caller]
fn same<T: Element>(what: &str, a: &Step<T>, b: &Step<T>) {
    assert_eq!(a.gate.table, b.gate.table, "{what}: routing table");
    assert_eq!(a.gate.losses, b.gate.losses, "{what}: losses");
    assert_eq!(a.gate.dropped, b.gate.dropped, "{what}: dropped");
    assert_same(
        &format!("{what}: logits"),
        &a.router_logits,
        &b.router_logits,
    );
    assert_same(&format!("{what}: dlogits"), &a.dlogits, &b.dlogits);
    assert_same(&format!("{what}: y"), &a.y, &b.y);
    assert_same(&format!("{what}: dx"), &a.dx, &b.dx);
    assert_same(&format!("{what}: router"), &a.router, &b.router);
    let noise = format!("{what}: router noise");
    assert_same(&noise, &a.router_noise, &b.router_noise);
    assert_same(&format!("{what}: up"), &a.up, &b.up);
    assert_same(&format!("{what}: up bias"), &a.up_bias, &b.up_bias);
    assert_same(&format!("{what}: down"), &a.down, &b.down);
    assert_same(&format!("{what}: down bias"), &a.down_bias, &b.down_bias);
}

#[test]
fn a_graph_of_forward_and_backward_draws_anew_at_every_replay() {
    let case = sized(30, 4, 16, 12);
    for router in [
        "noisy:2",
        "thor:token",
        "second:random:0.5",
        "adaptive:0.3",
        "thor",
    ] {
        let mut options = options(router);
        if options.router.has_gate() {
            options.jitter = 0.1;
            options.gating_dropout = Some(GatingDropout::new(0.5, DropMode::GateExpert));
        }
        let problem = |ctx: StepContext| {
            let mut p = Problem::<f32>::new(&case, options.clone(), Activation::Gelu, false);
            p.ctx = ctx;
            p
        };
        for (device, gpu) in devices() {
            let first = problem(StepContext::default());
            let mut resident = Resident::new(&first, gpu);
            let stream = resident.stream.clone();
            let Resident {
                layer,
                state,
                workspace,
                tensors,
                outputs,
                ..
            } = &mut resident;
            let mut held = layer.state(&stream, state.slice_mut()).unwrap();
            let graph = stream
                .capture(|stream| {
                    both(
                        &first, layer, stream, tensors, outputs, &mut held, workspace,
                    )
                })
                .unwrap();
            let mut seen = Vec::new();
            for step in [0, 1, 2, 3, 1] {
                let ctx = StepContext {
                    seed: 77,
                    step,
                    ..StepContext::default()
                };
                let block = tollgate::gpu::step_block(&ctx);
                tensors.step.write(&stream, &[block]).unwrap();
                graph.launch(&stream).unwrap();
                stream.synchronize().unwrap();
                let replayed = outputs.collect(&stream, held.download(&stream).unwrap());
                let alone = problem(ctx);
                let eager = Resident::new(&alone, gpu).run();
                same(
                    &format!("{device}: {router} step {step}"),
                    &replayed,
                    &eager,
                );
                seen.push(replayed);
            }
            let changes = |f: fn(&Step<f32>) -> Vec<i32>| {
                seen[..4].windows(2).any(|two| f(&two[0]) != f(&two[1]))
            };
            let offsets = |s: &Step<f32>| s.gate.table.token_offsets.clone();
            let experts = |s: &Step<f32>| s.gate.table.expert_indices.clone();
            assert!(
                changes(offsets) || changes(experts),
                "{router}: every step is the same"
            );
        }
    }
}

#[cfg(feature = "virtual")]
#[test]
fn fifty_schedules_give_the_same_bits() {
    use tollgate::device::{Gpu, VirtualOptions};
    let case = sized(20, 4, 12, 8);
    let mut options = options("adaptive:0.3");
    options.jitter = 0.1;
    let problem = Problem::<half::bf16>::new(&case, options, Activation::Gelu, false);
    let run = |seed| {
        let options = VirtualOptions {
            seed,
            ..VirtualOptions::default()
        };
        Resident::new(&problem, &Gpu::virtual_gpu(&options).unwrap()).run()
    };
    let first = run(0);
    for seed in 1..50 {
        same(&format!("seed {seed}"), &first, &run(seed));
    }
}

#[test]
fn memory_that_was_used_before_changes_nothing() {
    let case = sized(40, 8, 16, 12);
    for router in ["adaptive:0.3", "expert-choice:1x", "thor:token"] {
        let problem = Problem::<f32>::new(&case, options(router), Activation::Gelu, false);
        for (device, gpu) in devices() {
            let clean = Resident::new(&problem, gpu).run();
            let mut used = Resident::new(&problem, gpu);
            used.poison();
            same(&format!("{device}: {router}"), &clean, &used.run());
        }
    }
}

#[test]
fn both_forms_give_the_same_bits_in_training_and_inference() {
    let case = sized(25, 8, 16, 12);
    for router in routers(8) {
        let mut problem =
            Problem::<half::bf16>::new(&case, GateOptions::new(router), Activation::Silu, true);
        for (device, gpu) in devices() {
            let host = problem.layer.on(gpu.clone());
            problem.ctx.training = true;
            let both = problem.run_on(&host, LayerState::default());
            let resident = Resident::new(&problem, gpu).run();
            same(&format!("{device}: {router}"), &resident, &both);

            problem.ctx.training = false;
            let y = Resident::new(&problem, gpu).infer();
            let mut expected = vec![half::bf16::NAN; y.len()];
            let view = RowViewMut::new(&mut expected, 25, 16).unwrap();
            let (inputs, weights) = (problem.inputs(), problem.weights());
            let mut state = LayerState::default();
            host.forward(&inputs, &weights, &problem.ctx, view, &mut state)
                .unwrap();
            assert_same(&format!("{device}: {router} inference"), &y, &expected);
        }
    }
}

#[test]
fn a_faulty_token_raises_the_status_and_spoils_only_itself() {
    let case = sized(20, 4, 16, 12);
    for router in ["adaptive:0.3", "topk:3"] {
        let problem = || Problem::<f32>::new(&case, options(router), Activation::Gelu, false);
        let (clean, mut dirty) = (problem(), problem());
        dirty.x[7 * 16 + 3] = f32::NAN;
        for (device, gpu) in devices() {
            let what = format!("{device}: {router}");
            let (clean, dirty) = (
                Resident::new(&clean, gpu).run(),
                Resident::new(&dirty, gpu).run(),
            );
            let status = dirty.gate.status;
            let found = (status.faulty_rows, status.first_faulty_row);
            assert_eq!(found, (1, Some(7)), "{what}");
            assert_eq!(clean.gate.status.faulty_rows, 0, "{what}");
            for t in 0..20 {
                let row = t * 16..(t + 1) * 16;
                match t {
                    7 => assert!(dirty.y[row].iter().all(|v| v.is_nan()), "{what}"),
                    _ => assert_same(&what, &dirty.y[row.clone()], &clean.y[row]),
                }
            }
        }
    }
}
