//! `--device virtual`: the same as on the CPU, by the kernels.

mod common;

use std::path::Path;

use common::{Small, json, refuses, succeeds, tollgate_with};
use safetensors::SafeTensors;
use serde_json::Value;
use tollgate::DType;

/// The bound of an f32 layer of this size against the reference: three products of up to 40 terms,
/// each off by at most (n + 2) · 2^-24 of the sum of magnitudes of its terms, which is about √n/3
/// of the result's largest: 3 · 42 · 2^-24 · 2.1 = 1.6e-5.
const F32: f64 = 1.6e-5;

/// A small layer as a file, and the options that name it.
fn small(folder: &Path, dtype: DType) -> String {
    let file = Small::new()
        .dense(dtype)
        .write(&folder.join("small.safetensors"));
    format!("--layer {file} --upcycle partition --backward --dtype {dtype}")
}

/// The report without what depends on where it ran.
fn decisions(mut report: Value) -> Value {
    let map = report.as_object_mut().unwrap();
    for key in [
        "stages",
        "total_ms",
        "step_ms",
        "device",
        "device_name",
        "errors",
        "max_rel_error_vs_reference",
        "threads",
    ] {
        assert!(map.remove(key).is_some(), "no {key}");
    }
    report
}

/// Takes the losses, which are sums of probabilities that may differ by a unit of f32.
fn losses(report: &mut Value) -> Vec<f64> {
    let losses = report.as_object_mut().unwrap().remove("losses").unwrap();
    let losses = losses.as_object().unwrap().values();
    losses.map(|v| v.as_f64().unwrap()).collect()
}

/// Everything but numbers that depend on where it ran is the same.
fn assert_same_decisions(what: &str, mut gpu: Value, mut cpu: Value) {
    let (ours, expected) = (losses(&mut gpu), losses(&mut cpu));
    assert_eq!(ours.len(), expected.len(), "{what}");
    for (a, e) in ours.iter().zip(&expected) {
        assert!(
            (a - e).abs() <= 1e-6 * e.abs(),
            "{what}: losses {ours:?} {expected:?}"
        );
    }
    assert_eq!(decisions(gpu), decisions(cpu), "{what}");
}

#[test]
fn every_kind_of_router_reports_what_the_cpu_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), DType::F32);
    for options in [
        "--router adaptive:0.1",
        "--router topk:3 --jitter 0.1 --z-coefficient 0.01",
        "--router sigmoid:2 --capacity 0.8 --drop-order probability",
        "--router second:random:0.4",
        "--router expert-choice:2x",
        "--router noisy:2",
        "--router hash",
        "--router thor",
        "--router thor:sentence",
        "--router thor --pair",
        "--router ensemble",
        "--gating-dropout 1 --local-experts 2..6",
        "--gating-dropout 1:gate-expert",
        "--router adaptive:0.3 --inference",
    ] {
        let on = |device: &str| json(&format!("run {file} {options} --device {device}"));
        let (cpu, gpu) = (on("cpu"), on("virtual"));
        assert_eq!(gpu["device"], "virtual");
        assert_eq!(gpu["device_name"], "virtual sm_90a");
        let error = gpu["max_rel_error_vs_reference"].as_f64().unwrap();
        assert!(error < F32, "{options}: {error}");
        let names = |report: &Value| -> Vec<String> {
            let stages = report["stages"].as_array().unwrap().iter();
            stages.map(|s| s["name"].to_string()).collect()
        };
        assert_eq!(names(&gpu), names(&cpu), "{options}");
        for stage in gpu["stages"].as_array().unwrap() {
            assert!(stage["ms"].is_null() && stage["gbytes_per_s"].is_null());
            let counted = &stage["counted"];
            let launches = counted["launches"].as_u64().unwrap();
            let instructions = counted["warp_instructions"].as_u64().unwrap();
            assert!(launches > 0 && instructions > 0, "{options}: {stage}");
            assert_eq!(counted["local_sectors"], 0, "{options}: {stage}");
        }
        assert!(gpu["total_ms"].is_null() && gpu["step_ms"]["min"].is_null());
        assert_same_decisions(options, gpu, cpu);
    }
}

#[test]
fn half_types_and_several_steps() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [DType::F16, DType::Bf16] {
        let file = small(folder.path(), dtype);
        let options = "--gating-dropout 0.5 --steps 4";
        let on = |device: &str| json(&format!("run {file} {options} --device {device}"));
        let (cpu, gpu) = (on("cpu"), on("virtual"));
        // Six roundings to the type, each carried on by maps of norm about 2.
        let bound = 12.0 * dtype.unit_roundoff();
        let error = gpu["max_rel_error_vs_reference"].as_f64().unwrap();
        assert!(error < bound, "{dtype}: {error}");
        assert_eq!(gpu["dropped_steps"], cpu["dropped_steps"]);
        assert_same_decisions(dtype.name(), gpu, cpu);
    }
}

#[test]
fn the_text_counts_and_does_not_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), DType::F32);
    let text = succeeds(&format!(
        "run {file} --device virtual --threads 1 --steps 2"
    ));
    for part in [
        "virtual sm_90a on 1 thread",
        "Work of step 1",
        "virtual GPU: counted, not timed",
        "unpermute backward",
        "routing of all tokens agrees",
    ] {
        assert!(text.contains(part), "no '{part}' in\n{text}");
    }
    assert!(!text.contains("GFLOP/s") && !text.contains(" ms"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn the_step_is_written_as_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), DType::F32);
    let write = |device: &str| {
        let path = folder.path().join(format!("{device}.safetensors"));
        let shown = path.display();
        succeeds(&format!(
            "run {file} --device {device} --no-check --out {shown}"
        ));
        std::fs::read(path).unwrap()
    };
    let (cpu, gpu) = (write("cpu"), write("virtual"));
    let (cpu, gpu) = (
        SafeTensors::deserialize(&cpu).unwrap(),
        SafeTensors::deserialize(&gpu).unwrap(),
    );
    assert_eq!(cpu.len(), gpu.len());
    for (name, expected) in cpu.tensors() {
        let actual = gpu.tensor(&name).unwrap();
        assert_eq!(actual.shape(), expected.shape(), "{name}");
        assert_eq!(actual.dtype(), expected.dtype(), "{name}");
        if expected.dtype() == safetensors::Dtype::I32 {
            assert_eq!(actual.data(), expected.data(), "{name}");
            continue;
        }
        let values = |bytes: &[u8]| -> Vec<f64> {
            let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            words.map(|b| f64::from(f32::from_le_bytes(b))).collect()
        };
        let (actual, expected) = (values(actual.data()), values(expected.data()));
        let scale = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
        for (a, e) in actual.iter().zip(&expected) {
            assert!((a - e).abs() <= 2.0 * F32 * scale, "{name}: {a} {e}");
        }
    }
}

#[test]
fn checks_find_nothing_in_our_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), DType::F32);
    let report = json(&format!(
        "run {file} --device virtual --checks --router topk:2"
    ));
    assert_eq!(report["routing_differs"], 0);
}

#[test]
fn compare_counts_instructions() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), DType::F32).replace("--dtype f32", "");
    let routers = "--router forced:0.5 --router top1 --router thor";
    let report = json(&format!("compare {file} {routers} --device virtual"));
    assert_eq!(report["device"], "virtual");
    assert_eq!(report["rounds"], 1);
    assert!(report["top2_ms"].is_null());
    let rows = report["routers"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0]["time"], 1.0);
    for row in rows {
        assert!(
            row["ms"].is_null() && row["instructions"].as_u64().unwrap() > 0,
            "{row}"
        );
    }
    let text = succeeds(&format!("compare {file} {routers} --device virtual"));
    assert!(text.contains("virtual GPU: counted, not timed"), "{text}");
    assert!(text.contains("instr."), "{text}");
}

#[test]
fn devices_that_are_not_there_are_named() {
    refuses(&["run", "--device", "gpu"], &["gpu", "cuda:I"]);
    refuses(&["run", "--device", "cuda:x"], &["'x'"]);
    refuses(&["run", "--device", "cuda:99"], &["cuda:99"]);
    refuses(&["compare", "--device", "cuda:99"], &["cuda:99"]);
    refuses(&["run", "--checks"], &["--checks", "--device virtual"]);
    let said = tollgate_with(&["curriculum", "--device", "virtual"]);
    assert_eq!(said.code, 2, "{said:?}");
}
