//! `data/expected.json`, computed in float64 by another program, reproduced: routing, upcycled
//! weights, outputs, balance sums.

mod common;

use common::{json, run_args};
use half::bf16;
use serde_json::Value;
use tollgate::reference::{self, Batch, Parameters};
use tollgate::{Cpu, LayerState, StepContext};
use tollgate_cli::load::{self, Input, Tokens};
use tollgate_cli::step::{Outputs, Problem};

fn expected() -> Value {
    serde_json::from_str(include_str!("../../../data/expected.json")).unwrap()
}

fn reals(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

fn whole(value: &Value) -> Vec<i32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_i64().unwrap() as i32)
        .collect()
}

/// The gate's decisions on all tokens, with these options.
fn route(options: &str) -> LayerState<f32> {
    let args = run_args(&format!("--upcycle partition {options}"));
    let Input { model, tokens } = load::input::<f32>(&args.input).unwrap();
    let problem = Problem::new(
        args.router,
        &args.gate,
        &model,
        &tokens,
        Cpu::new(2).unwrap(),
    );
    let mut state = LayerState::default();
    let mut outputs = Outputs::new(&model, &tokens, false, 0);
    problem
        .unwrap()
        .step(&StepContext::default(), &mut state, &mut outputs)
        .unwrap();
    state
}

#[test]
fn counts_at_every_threshold_and_gap() {
    let all = &expected()["routing_all"];
    for gap in ["softmax", "top2"] {
        let by_tau = all[format!("top2_by_tau_gap_{gap}")].as_object().unwrap();
        assert_eq!(by_tau.len(), 6);
        for (tau, entry) in by_tau {
            let state = route(&format!("--router adaptive:{tau} --gap {gap}"));
            let two = state.gate().table.tokens_with(2);
            assert_eq!(entry["top2_tokens"], two, "gap {gap}, τ = {tau}");
            assert_eq!(state.gate().table.tokens_with(1), 2048 - two);
        }
    }
}

#[test]
fn the_table_at_tau_one_tenth() {
    let file = expected();
    let (all, first) = (&file["routing_all"], &file["routing"]);
    let gate = route("--router adaptive:0.1").into_gate();
    assert_eq!(
        gate.table.expert_offsets,
        whole(&all["expert_offsets_at_tau_0.1"])
    );
    assert_eq!(all["assignments_at_tau_0.1"], gate.table.num_assignments());
    let mut histogram = vec![0; 16];
    for &e in &gate.first_choice {
        histogram[e as usize] += 1;
    }
    assert_eq!(histogram, whole(&all["first_choice_histogram"]));

    let offsets = whole(&first["token_offsets"]);
    assert_eq!(gate.table.token_offsets[..33], offsets);
    let assignments = offsets[32] as usize;
    assert_eq!(
        gate.table.expert_indices[..assignments],
        whole(&first["expert_indices"])
    );
    // A logit is a sum of 384 products, off by at most 386 · 2^-24 of the sum of their magnitudes,
    // here below 20: 4.6e-4 at the very worst, √386 ≈ 20 times less as roundings cancel. That is
    // the relative error of a probability, and the absolute one of a log-sum-exp.
    let bound = 4.6e-4 / 20.0;
    let close = |actual: f32, exact: f64, scale: f64| {
        assert!(
            (f64::from(actual) - exact).abs() <= bound * scale,
            "{actual} {exact}"
        );
    };
    for (&w, exact) in gate
        .table
        .routing_weights
        .iter()
        .zip(reals(&first["routing_weights"]))
    {
        close(w, exact, exact);
    }
    for (&lse, exact) in gate.lse.iter().zip(reals(&first["log_sum_exp"])) {
        close(lse, exact, 1.0);
    }
    let top2 = route("--router adaptive:0.1 --weights top2 --gap softmax").into_gate();
    assert_eq!(top2.runner_up[..32], whole(&first["runner_up"]));
}

#[test]
fn balance_and_z_sums() {
    let all = &expected()["routing_all"];
    for (over, key) in [
        ("top1_only", "balance_top1_only"),
        ("first_choice", "balance_first_choice"),
    ] {
        let report = json(&format!(
            "run --upcycle partition --no-check --repeat 1 --balance-over {over} --balance-alpha 1 \
             --z-coefficient 1"
        ));
        // Means of 2048 values whose own errors (see above) are independent: below 1e-6.
        let close = |actual: &Value, exact: &Value| {
            let (actual, exact) = (actual.as_f64().unwrap(), exact.as_f64().unwrap());
            assert!((actual - exact).abs() <= 1e-6 * exact, "{actual} {exact}");
        };
        close(&report["losses"]["balance"], &all[key]);
        close(&report["losses"]["z"], &all["mean_squared_log_sum_exp"]);
        let cv = report["routing"]["load_variation"].as_f64().unwrap();
        assert!((cv - all["assignment_cv_at_tau_0.1"].as_f64().unwrap()).abs() < 1e-12);
    }
}

#[test]
fn the_noise_has_the_published_bits() {
    let noise = &expected()["upcycling_noise"];
    let Input { model, .. } = load::input::<bf16>(&run_args("").input).unwrap();
    let e = noise["expert"].as_u64().unwrap() as usize;
    for (name, weights) in [("w_up", &model.up), ("w_down", &model.down)] {
        let len = weights.len() / 16;
        let expert = &weights[e * len..(e + 1) * len];
        let bits: Vec<String> = expert[..8]
            .iter()
            .map(|w| format!("{:04x}", w.to_bits()))
            .collect();
        assert_eq!(noise[format!("{name}_bf16_bits_first8")], Value::from(bits));
        let sum: f64 = expert.iter().map(|w| w.to_f64()).sum();
        let exact = noise[format!("{name}_sum")].as_f64().unwrap();
        assert!(
            (sum - exact).abs() <= 1e-11 * exact.abs(),
            "{name}: {sum} {exact}"
        );
    }
    // In f32 the same numbers: bf16 widens exactly.
    let wide = load::input::<f32>(&run_args("").input).unwrap().model;
    assert!(wide.up.iter().zip(&model.up).all(|(a, b)| *a == b.to_f32()));
    let silent = load::input::<bf16>(&run_args("--sigma 0").input)
        .unwrap()
        .model;
    let copy = load::input::<bf16>(&run_args("--upcycle copy").input)
        .unwrap()
        .model;
    assert!(silent.up == copy.up && silent.down == copy.down);
}

/// Sum, sum of magnitudes, sum of squares, Σ (c+1) y and the first four values of a row.
fn moments(row: &[f64]) -> [f64; 8] {
    let weighted = row
        .iter()
        .enumerate()
        .map(|(c, v)| (c + 1) as f64 * v)
        .sum();
    let squares = row.iter().map(|v| v * v).sum();
    let magnitudes = row.iter().map(|v| v.abs()).sum();
    let sum = row.iter().sum();
    [
        sum, magnitudes, squares, weighted, row[0], row[1], row[2], row[3],
    ]
}

fn stored(entry: &Value) -> [f64; 8] {
    let mut all = ["sum", "sum_abs", "sum_sq", "sum_index_weighted"]
        .map(|k| entry[k].as_f64().unwrap())
        .to_vec();
    all.extend(reals(&entry["first4"]));
    all.try_into().unwrap()
}

/// The first eight tokens.
fn eight(tokens: &Tokens<f32>) -> Tokens<f32> {
    Tokens {
        count: 8,
        x: tokens.x[..8 * tokens.hidden].to_vec(),
        ids: None,
        sequence_offsets: None,
        ..tokens.clone()
    }
}

/// Holds the reference to 1e-11 and the f32 layer to a derived bound.
fn outputs_agree(options: &str, rows: &Value) {
    let args = run_args(options);
    let Input { model, tokens } = load::input::<f32>(&args.input).unwrap();
    let tokens = eight(&tokens);
    let (t, h) = (tokens.count, tokens.hidden);
    let cpu = Cpu::new(2).unwrap();
    let problem = Problem::new(args.router, &args.gate, &model, &tokens, cpu).unwrap();
    let ctx = StepContext::default();
    let inputs = problem.inputs().unwrap();
    let exact = reference::forward(
        &problem.layer,
        &Parameters::widen(&problem.weights()),
        &Batch::widen(&inputs),
        &ctx,
    )
    .unwrap();
    let (mut state, mut outputs) = (
        LayerState::default(),
        Outputs::new(&model, &tokens, false, 0),
    );
    problem.step(&ctx, &mut state, &mut outputs).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), t);
    for (token, entry) in rows.iter().enumerate() {
        let want = stored(entry);
        let row = token * h..(token + 1) * h;
        let reference = &exact.y[row.clone()];
        // Sums of 384 values cancel: their errors scale with the sum of magnitudes.
        let magnitudes = want[1];
        let scales = [
            magnitudes,
            magnitudes,
            want[2],
            h as f64 * magnitudes,
            1.0,
            1.0,
            1.0,
            1.0,
        ];
        for ((got, want), scale) in moments(reference).iter().zip(want).zip(scales) {
            assert!(
                (got - want).abs() <= 1e-11 * scale,
                "{options}, token {token}: {got} {want}"
            );
        }
        // In f32 an output is a chain of sums of 384 (router, up) and I ≤ 1536 products, each
        // off by at most (n + 2) 2^-24 of the magnitudes of its terms, √n / 3 times the largest
        // value of the row: 1538 · 2^-24 · 13 + 2 · 386 · 2^-24 · 7 = 1.5e-3 if all roundings
        // conspired; as they do not, √n of them count instead of n: 4e-5.
        let largest = reference.iter().fold(0f64, |m, v| m.max(v.abs()));
        for (c, (got, want)) in outputs.y[row].iter().zip(reference).enumerate() {
            let off = (f64::from(*got) - want).abs();
            assert!(
                off <= 4e-5 * largest,
                "{options}, token {token}, {c}: {got} {want}"
            );
        }
    }
}

#[test]
fn outputs_of_both_upcyclings_and_of_the_dense_ffn() {
    let file = expected();
    outputs_agree(
        "--upcycle noise",
        &file["upcycling_noise"]["moe_output_at_tau_0.1"],
    );
    outputs_agree(
        "--upcycle partition",
        &file["upcycling_partition"]["moe_output_at_tau_0.1"],
    );
    // Copies with weights that sum to 1 are the dense FFN, whatever the routing; so is the sum of
    // the parts.
    let dense = &file["dense_ffn"]["tokens"];
    outputs_agree("--upcycle copy --router top2 --weights selected", dense);
    outputs_agree(
        "--upcycle partition --router ensemble --weight-scale 16",
        dense,
    );
}
