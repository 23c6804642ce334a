//! The state's memory: reused from step to step, untouched by an error.

use tollgate_core::options::{Capacity, DropOrder, GateOptions, GatingDropout};
use tollgate_core::{DropMode, Router, RowView, StepContext};
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::gate_cases;

use crate::support::{Tensors, assert_same_state, cpu, ctx, gate, routers};

/// Where every buffer is and how much it holds.
fn buffers(s: &GateState) -> Vec<(usize, usize)> {
    fn of<T>(v: &Vec<T>) -> (usize, usize) {
        (v.as_ptr() as usize, v.capacity())
    }
    let mut all = vec![
        of(&s.scores),
        of(&s.lse),
        of(&s.noisy_logits),
        of(&s.noise),
        of(&s.first_choice),
        of(&s.runner_up),
        of(&s.weight_source),
        of(&s.kept),
        of(&s.load),
    ];
    for table in [&s.selection, &s.table] {
        all.push(of(&table.token_offsets));
        all.push(of(&table.expert_indices));
        all.push(of(&table.routing_weights));
        all.push(of(&table.expert_offsets));
    }
    all
}

#[test]
fn a_second_step_allocates_nothing_in_the_state() {
    let case = gate_cases()
        .into_iter()
        .find(|c| c.name == "many tokens")
        .unwrap();
    let tensors = Tensors::new(&case);
    for router in routers(case.tokens, case.experts) {
        for dropped in [None, Some(DropMode::Gate), Some(DropMode::GateExpert)] {
            let mut o = GateOptions::new(router);
            o.capacity = Some(Capacity {
                factor: 0.9,
                order: DropOrder::Position,
            });
            if router.has_gate() {
                o.gating_dropout = dropped.map(|mode| GatingDropout::new(1.0, mode));
            }
            let inputs = tensors.inputs(&router, false);
            let mut state = gate(&cpu(2), &inputs, &o, &ctx());
            let (before, expected) = (buffers(&state), state.clone());
            for _ in 0..2 {
                cpu(2).gate(&inputs, &o, &ctx(), &mut state).unwrap();
                assert_eq!(before, buffers(&state), "{router}");
                assert_same_state(&router.to_string(), &expected, &state);
            }
        }
    }
}

/// Whatever a state held, the next call leaves what a new one would hold.
#[test]
fn a_used_state_gives_the_same_as_a_new_one() {
    let mut state = GateState::default();
    for (i, case) in gate_cases().iter().filter(|c| c.tokens <= 300).enumerate() {
        let tensors = Tensors::new(case);
        for (j, router) in routers(case.tokens, case.experts).into_iter().enumerate() {
            let mut o = GateOptions::new(router);
            if router.has_gate() && (i + j) % 3 == 0 {
                let mode = if j % 2 == 0 {
                    DropMode::Gate
                } else {
                    DropMode::GateExpert
                };
                o.gating_dropout = Some(GatingDropout::new(1.0, mode));
            }
            if (i + j) % 4 == 0 {
                o.capacity = Some(Capacity {
                    factor: 0.5,
                    order: DropOrder::Probability,
                });
            }
            if j % 5 == 0 {
                o.balance_alpha = 0.0;
            }
            let ctx = StepContext {
                training: (i + j) % 5 != 0,
                ..ctx()
            };
            let inputs = tensors.inputs(&router, false);
            cpu(1).gate(&inputs, &o, &ctx, &mut state).unwrap();
            let what = format!("{} / {router}", case.name);
            assert_same_state(&what, &gate(&cpu(1), &inputs, &o, &ctx), &state);
        }
    }
}

#[test]
fn an_error_leaves_the_state_alone() {
    let case = &gate_cases()[5];
    let tensors = Tensors::new(case);
    let good = GateOptions::new(Router::Adaptive { tau: 0.2 });
    let mut state = gate(&cpu(1), &tensors.inputs(&good.router, false), &good, &ctx());
    let before = state.clone();
    let inputs = tensors.inputs(&good.router, false);
    let z = RowView::new(&tensors.logits, 1, case.experts).unwrap();
    let bias = vec![f32::NAN; case.experts];
    let sigmoid: Router = "sigmoid:2".parse().unwrap();
    let refused: Vec<(GateInputs<'_>, GateOptions, &str)> = vec![
        (
            inputs.clone(),
            GateOptions::new(Router::top_k(case.experts + 1)),
            "k is",
        ),
        (
            inputs.clone(),
            GateOptions::new(Router::Adaptive { tau: f32::NAN }),
            "τ is NaN",
        ),
        (
            GateInputs {
                logits: None,
                ..inputs.clone()
            },
            good.clone(),
            "logits is required",
        ),
        (
            GateInputs {
                logits: Some(z),
                ..inputs.clone()
            },
            good.clone(),
            "rows of logits",
        ),
        (
            inputs.clone(),
            GateOptions::new(Router::Noisy { k: 1 }),
            "noise_logits is required",
        ),
        (
            GateInputs {
                selection_bias: Some(&bias),
                ..inputs.clone()
            },
            GateOptions::new(sigmoid),
            "selection_bias[0] = NaN",
        ),
        (
            GateInputs {
                local_experts: 0..case.experts + 1,
                ..inputs.clone()
            },
            good.clone(),
            "end of local_experts",
        ),
    ];
    for (inputs, options, message) in refused {
        let error = cpu(1)
            .gate(&inputs, &options, &ctx(), &mut state)
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error} should contain {message}");
        assert_same_state(message, &before, &state);
    }
}
