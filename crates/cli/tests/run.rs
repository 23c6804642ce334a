//! `tollgate run` as a user sees it.

mod common;

use common::{Small, json, refuses, succeeds, tollgate};
use serde_json::Value;
use tollgate::DType;

/// Every router, by its spelling.
const ROUTERS: [&str; 20] = [
    "top1",
    "top2",
    "topk:5",
    "sigmoid:3",
    "grouped:3:4:2",
    "grouped:2:4:1:softmax",
    "adaptive:0.1",
    "forced:0.8",
    "second:all",
    "second:none",
    "second:threshold:0.3",
    "second:random:0.5",
    "noisy:2",
    "expert-choice:40",
    "expert-choice:1.5x",
    "hash",
    "thor",
    "thor:sentence",
    "thor:token",
    "ensemble",
];

/// The bound of an f32 layer on the shipped tokens against the reference: its longest chain is
/// three products of up to 1536 terms, each off by at most (n + 2) 2^-24 of the sum of magnitudes
/// of its terms, for random data √n/3 of the result's largest: 3 · 1538 · 2^-24 · 13 = 3.6e-3 at
/// the very worst; errors of n terms partly cancel, like √n instead of n: 9e-5.
const F32: f64 = 1e-4;

#[test]
fn without_arguments_the_report_is_worth_looking_at() {
    let text = succeeds("");
    for part in [
        "tokens   2048 in 18 sequences, H 384",
        "experts  16 of I 1536, gelu",
        "router   adaptive:0.1, gap softmax, weights prob, balance 0.01 over top1_only, z 0.001",
        "2458 assignments, 1.200 per token",
        "  one        1638   80.0 %  █",
        "  two         410   20.0 %  █",
        "coefficient of variation 0.367",
        "       6      307  █",
        "  stage",
        "GFLOP/s",
        "routing of all tokens agrees",
    ] {
        assert!(text.contains(part), "no '{part}' in\n{text}");
    }
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert!(!line.contains('\x1b'), "colour into a pipe: {line}");
        assert_eq!(line, line.trim_end());
    }
    // Two bars of tokens and 16 of experts; those of the times depend on the machine.
    assert!(text.matches("  █").count() >= 18, "{text}");
}

#[test]
fn the_json_of_the_issue() {
    let report = json("run --router adaptive:0.1 --backward");
    assert_eq!(report["router"], "adaptive:0.1");
    assert_eq!(report["dtype"], "f32");
    assert_eq!(report["tokens"], 2048);
    assert_eq!(report["experts"], 16);
    assert_eq!(report["assignments"], 2458);
    assert_eq!(report["routing"]["two_expert_share"], 410.0 / 2048.0);
    assert_eq!(report["routing"]["one_expert_share"], 1638.0 / 2048.0);
    let loads: Vec<u64> = numbers(&report["tokens_per_expert"]);
    assert_eq!(
        loads,
        [
            138, 219, 206, 129, 132, 125, 307, 109, 171, 128, 180, 47, 149, 124, 179, 115
        ]
    );
    let names: Vec<&str> = report["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| {
            for key in ["ms", "gbytes_per_s"] {
                assert!(stage[key].as_f64().unwrap() >= 0.0);
            }
            assert!(stage["gflops"].is_null() || stage["gflops"].as_f64().unwrap() > 0.0);
            stage["name"].as_str().unwrap()
        })
        .collect();
    let forward = ["router", "gate", "permute", "up", "down", "unpermute"];
    assert_eq!(names[..6], forward);
    assert_eq!(names.len(), 12);
    assert!(report["total_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(report["routing_differs"], 0);
    let largest = report["max_rel_error_vs_reference"].as_f64().unwrap();
    assert!(largest < F32, "{largest}");
    let errors = report["errors"].as_object().unwrap();
    assert_eq!(errors.len(), 11, "{errors:?}");
    assert_eq!(
        errors
            .values()
            .map(|e| e.as_f64().unwrap())
            .fold(0.0, f64::max),
        largest
    );
}

fn numbers(value: &Value) -> Vec<u64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap())
        .collect()
}

#[test]
fn every_router_runs_backward_and_agrees_with_the_reference() {
    for router in ROUTERS {
        let report = json(&format!(
            "run --router {router} --backward --upcycle partition --repeat 1"
        ));
        assert_eq!(report["router"], router);
        // Noise is added in f32 here and exactly in the reference: near-ties may fall differently.
        if !router.starts_with("noisy") {
            assert_eq!(report["routing_differs"], 0, "{router}");
            let error = report["max_rel_error_vs_reference"].as_f64().unwrap();
            assert!(error < F32, "{router}: {error}");
        } else {
            assert!(
                report["routing_differs"].as_u64().unwrap() <= 2,
                "{report:#}"
            );
            assert!(
                report["notes"][0]
                    .as_str()
                    .unwrap()
                    .contains("noise weight starts at 0")
            );
        }
        let sum: u64 = numbers(&report["tokens_per_expert"]).iter().sum();
        assert_eq!(report["assignments"], sum);
    }
}

#[test]
fn every_dtype_runs() {
    for (dtype, unit) in [("f16", 2f64.powi(-11)), ("bf16", 2f64.powi(-8))] {
        let report = json(&format!(
            "run --dtype {dtype} --backward --upcycle partition --repeat 1"
        ));
        assert_eq!(report["dtype"], dtype);
        assert_eq!(report["routing_differs"], 0);
        // Four stored tensors on the longest way, each rounded once and carried on by a map; as a
        // share of the largest element, eight units cover them.
        let error = report["max_rel_error_vs_reference"].as_f64().unwrap();
        assert!(error < 8.0 * unit, "{dtype}: {error}");
    }
}

/// A small file in a folder that lives as long as the guard.
fn small() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = Small::new()
        .dense(DType::F32)
        .write(&folder.path().join("small.safetensors"));
    (folder, file)
}

#[test]
fn every_option_is_in_force_and_reported() {
    let (_folder, file) = small();
    let cases = [
        ("--gap top2", "/options/gap", "top2"),
        ("--gap softmax", "/options/gap", "softmax"),
        ("--weights prob", "/options/weights", "prob"),
        ("--weights selected", "/options/weights", "selected"),
        ("--weights top2", "/options/weights", "top2"),
        ("--weight-scale 2.5", "/options/weight_scale", "2.5"),
        ("--weight-scale -1", "/options/weight_scale", "-1.0"),
        (
            "--balance-over top1_only",
            "/options/balance_over",
            "top1_only",
        ),
        (
            "--balance-over first_choice",
            "/options/balance_over",
            "first_choice",
        ),
        ("--balance-over all", "/options/balance_over", "all"),
        ("--balance-alpha 0.1", "/options/balance_alpha", "0.1"),
        ("--z-coefficient 0.1", "/options/z_coefficient", "0.1"),
        ("--capacity 0.5", "/options/capacity/drop_order", "position"),
        (
            "--capacity 0.5 --drop-order probability",
            "/options/capacity/drop_order",
            "probability",
        ),
        ("--capacity 0.5", "/options/capacity/factor", "0.5"),
        ("--jitter 0.3", "/options/jitter", "0.3"),
        (
            "--gating-dropout 1",
            "/options/gating_dropout/dropped",
            "gate",
        ),
        (
            "--gating-dropout 1:gate-expert",
            "/options/gating_dropout/dropped",
            "gate-expert",
        ),
        (
            "--gating-dropout 0:gate-expert",
            "/options/gating_dropout/dropped",
            "null",
        ),
        (
            "--gating-dropout 1 --local-choice modulo",
            "/options/gating_dropout/local_choice",
            "modulo",
        ),
        (
            "--gating-dropout 1 --local-choice uniform",
            "/options/gating_dropout/local_choice",
            "uniform",
        ),
        (
            "--gating-dropout 1 --local-weight original",
            "/options/gating_dropout/local_weight",
            "original",
        ),
        (
            "--gating-dropout 1 --local-weight one",
            "/options/gating_dropout/local_weight",
            "one",
        ),
        (
            "--gating-dropout 1 --local-weight restricted_softmax",
            "/options/gating_dropout/local_weight",
            "restricted_softmax",
        ),
        (
            "--gating-dropout 1 --aux-loss zero",
            "/losses/balance",
            "0.0",
        ),
        (
            "--gating-dropout 1 --granularity step",
            "/options/gating_dropout/granularity",
            "step",
        ),
        (
            "--gating-dropout 1 --local-experts 2..5",
            "/options/gating_dropout/local_experts/1",
            "5",
        ),
        (
            "--gating-dropout 1 --inference",
            "/options/gating_dropout/dropped",
            "null",
        ),
        ("--inference", "/training", "false"),
        (
            "--seed 18446744073709551615",
            "/seed",
            "18446744073709551615",
        ),
        ("--threads 3", "/threads", "3"),
        ("--activation relu", "/activation", "relu"),
        ("--upcycle copy", "/input/upcycle", "copy"),
        ("--sigma 0.5 --upcycle-seed 7", "/input/upcycle_seed", "7"),
        ("--steps 4 --repeat 2", "/steps", "4"),
        ("--no-check", "/max_rel_error_vs_reference", "null"),
    ];
    for (options, pointer, expected) in cases {
        let report = json(
            &format!("run --layer {file} --backward --repeat 1 {options}")
                .replace("--repeat 1 --steps 4 --repeat 2", "--steps 4 --repeat 2"),
        );
        let value = report
            .pointer(pointer)
            .unwrap_or_else(|| panic!("{options}: no {pointer}"));
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(text, expected, "{options}");
        if let Some(error) = report["max_rel_error_vs_reference"].as_f64() {
            assert!(error < F32, "{options}: {error}");
        }
        // The same in words.
        let text = succeeds(
            &format!("run --layer {file} --repeat 1 {options}")
                .replace("--repeat 1 --steps 4 --repeat 2", "--steps 4 --repeat 2"),
        );
        assert!(text.contains("Time of "), "{options}");
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let (folder, file) = small();
    let outs = [1, 2, 3].map(|threads| {
        let out = folder.path().join(format!("{threads}.safetensors"));
        let out = out.to_str().unwrap();
        let common =
            format!("run --layer {file} --backward --router topk:3 --jitter 0.1 --no-check");
        succeeds(&format!("{common} --threads {threads} --out {out}"));
        std::fs::read(out).unwrap()
    });
    assert!(outs[0] == outs[1] && outs[1] == outs[2]);
}

#[test]
fn gating_dropout_drops_its_share_of_steps() {
    let (_folder, file) = small();
    let report = json(&format!(
        "run --layer {file} --gating-dropout 0.5 --local-experts 0..2 --steps 200 --repeat 1 \
         --no-check"
    ));
    // Binomial: mean 100, standard deviation 7; five are allowed.
    let dropped = report["dropped_steps"].as_u64().unwrap();
    assert!(dropped.abs_diff(100) < 36, "{dropped}");
    let times = &report["step_ms"];
    assert!(times["min"].as_f64().unwrap() <= times["median"].as_f64().unwrap());
    let text = succeeds(&format!(
        "run --layer {file} --gating-dropout 1:gate-expert --steps 3"
    ));
    assert!(
        text.contains("Gating Dropout: step 2 is dropped (gate-expert)"),
        "{text}"
    );
    assert!(text.contains("; 3 dropped"), "{text}");
    assert!(text.contains("  none         40  100.0 %"), "{text}");
}

#[test]
fn a_pair_of_passes_draws_twice_and_has_a_consistency_loss() {
    let report = json("run --router thor --pair --upcycle partition --repeat 1 --no-check");
    let drawn: Vec<u64> = numbers(&report["pair"]["experts"]);
    assert_ne!(drawn[0], drawn[1], "seed 0 draws two different experts");
    assert!(report["losses"]["consistency"].as_f64().unwrap() > 0.0);
    // One and the same FFN for all experts: both passes say the same.
    let report = json("run --router thor:token --pair --upcycle copy --repeat 1 --no-check");
    assert!(report["losses"]["consistency"].as_f64().unwrap().abs() < 1e-6);
    let text = succeeds("run --router thor --pair --upcycle partition --repeat 1 --no-check");
    assert!(
        text.contains("pass 0 drew expert 2, pass 1 drew expert 4"),
        "{text}"
    );
    refuses(
        &["run", "--pair"],
        &["--pair", "router is adaptive:0.1", "use it with"],
    );
    refuses(
        &["run", "--pair", "--router", "thor", "--inference"],
        &["leave out --inference"],
    );
}

#[test]
fn more_experts_than_lines_are_summarised() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = Small::new();
    let e = 40;
    small.router = (0..e * Small::H).map(|j| ((j * j) as f32).sin()).collect();
    let file = small
        .tokens(DType::F32)
        .reals("w_up", DType::F32, &[Small::I, Small::H], &small.up)
        .reals("w_down", DType::F32, &[Small::H, Small::I], &small.down)
        .reals("router_weight", DType::F32, &[e, Small::H], &small.router)
        .write(&folder.path().join("many.safetensors"));
    let text = succeeds(&format!("run --layer {file} --router topk:12 --backward"));
    assert!(
        text.contains("least ") && text.contains("median ") && text.contains("…"),
        "{text}"
    );
    assert!(text.contains("9 to 12       40  100.0 %"), "{text}");
    assert!(text.lines().count() < 50);
}

#[test]
fn options_without_effect_and_unused_tensors_are_told() {
    let (folder, file) = small();
    let notes = |arguments: &str| json(arguments)["notes"].to_string();
    let told = notes(&format!(
        "run --layer {file} --router hash --gap top2 --z-coefficient 1"
    ));
    assert!(
        told.contains("no effect on router hash: --gap, --z-coefficient"),
        "{told}"
    );
    assert!(told.contains("no 'hash_table'"), "{told}");
    let biased = Small::new()
        .dense(DType::F32)
        .reals(
            "selection_bias",
            DType::F32,
            &[Small::E],
            &[9.0, 0., 0., 0., 0., 0., 0., 0.],
        )
        .reals(
            "router_noise",
            DType::F32,
            &[Small::E, Small::H],
            &[0.1; Small::E * Small::H],
        )
        .raw(
            "hash_table",
            "I64",
            &[31],
            &[3i64; 31].map(i64::to_le_bytes).concat(),
        )
        .write(&folder.path().join("biased.safetensors"));
    let told = notes(&format!("run --layer {biased}"));
    assert!(
        told.contains("selection bias has no effect on router adaptive:0.1"),
        "{told}"
    );
    // A bias of 9 puts every token there; the table sends every id to expert 3.
    let report = json(&format!("run --layer {biased} --router sigmoid:2"));
    assert_eq!(report["tokens_per_expert"][0], 40);
    let report = json(&format!("run --layer {biased} --router hash"));
    assert_eq!(report["tokens_per_expert"][3], 40);
    let report = json(&format!("run --layer {biased} --router noisy:2 --backward"));
    assert_eq!(
        report["notes"][0],
        "the file's selection bias has no effect on router noisy:2"
    );
    assert!(report["errors"]["grad.router_noise"].as_f64().unwrap() < F32);
}

#[test]
fn help_reads_well() {
    for (arguments, parts) in [
        (
            "--help",
            &["Examples:", "run", "compare", "curriculum", "16 experts"][..],
        ),
        (
            "run --help",
            &[
                "adaptive:TAU",
                "thor[:batch|:sentence|:token]",
                "--gating-dropout",
                "Examples:",
            ],
        ),
        ("compare --help", &["--rounds", "[default: top2"]),
        ("curriculum --help", &["--depth"]),
        ("--version", &["tollgate 0.1.0"]),
    ] {
        let text = succeeds(arguments);
        for part in parts {
            assert!(
                text.contains(part),
                "tollgate {arguments}: no '{part}' in\n{text}"
            );
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{arguments}: {line}");
        }
    }
    // Nothing at all means run.
    assert_eq!(
        tollgate("").out.lines().next(),
        tollgate("run").out.lines().next()
    );
}
