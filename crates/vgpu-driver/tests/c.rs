//! A C program, compiled as it is and linked against the library: what the environment variables
//! do, and what a program sees of a report.

mod common;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The program and the folder with the driver, or nothing on a machine without a C compiler.
fn program() -> Option<&'static (PathBuf, tempfile::TempDir)> {
    static PROGRAM: OnceLock<Option<(PathBuf, tempfile::TempDir)>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            if Command::new("cc").arg("--version").output().is_err() {
                println!("skipped: there is no `cc` to compile a C program with");
                return None;
            }
            let folder = common::driver_folder();
            let program = folder.path().join("program");
            let output = Command::new("cc")
                .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"])
                .arg(&program)
                .arg(common::file("tests/c/program.c"))
                .arg(format!("-L{}", folder.path().display()))
                .arg("-lcuda")
                .output()
                .unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{words}");
            Some((program, folder))
        })
        .as_ref()
}

fn run(mode: &str, variables: &[(&str, &str)]) -> Option<Output> {
    let (program, folder) = program()?;
    let mut command = Command::new(program);
    command
        .arg(mode)
        .arg(common::kernels())
        .env("LD_LIBRARY_PATH", folder.path());
    for (name, value) in variables {
        command.env(format!("TOLLGATE_VGPU_{name}"), value);
    }
    Some(command.output().unwrap())
}

/// Runs a mode that must succeed; returns what it said on stderr.
fn good(mode: &str, variables: &[(&str, &str)]) -> Option<String> {
    let output = run(mode, variables)?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{mode}: {:?}\n{out}\n{err}",
        output.status
    );
    Some(err.into_owned())
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_program_that_uses_most_of_the_api_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder
        .path()
        .join("reports.json")
        .to_str()
        .unwrap()
        .to_owned();
    for seed in ["0", "1", "2"] {
        let variables = [
            ("DEVICES", "2"),
            ("MEMORY", "64M"),
            ("SEED", seed),
            ("CHECKS", "all"),
            ("REPORTS", &path),
        ];
        if good("work", &variables).is_some() {
            // The program tries one launch that is not possible, and does nothing else wrong.
            let reports = json(&path);
            assert_eq!(reports.as_array().unwrap().len(), 1, "{reports}");
            assert_eq!(reports[0]["kind"], "launch", "{reports}");
        }
    }
}

#[test]
fn a_race_is_reported_and_the_program_goes_on() {
    let Some(words) = good("racy", &[]) else {
        return;
    };
    assert!(
        words.contains("data race") && words.contains("kernel racy"),
        "{words}"
    );
    assert!(
        words.trim_end().ends_with("report") || words.trim_end().ends_with("reports"),
        "{words}"
    );
    let words = good("racy", &[("CHECKS", "none")]).unwrap();
    assert!(words.is_empty(), "{words}");
}

#[test]
fn reports_and_counters_go_into_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (reports, counters) = (path("reports.json"), path("counters.json"));
    let Some(words) = good("racy", &[("REPORTS", &reports), ("COUNTERS", &counters)]) else {
        return;
    };
    assert!(!words.contains("data race"), "{words}");
    let reports = json(&reports);
    let race = reports
        .as_array()
        .unwrap()
        .iter()
        .find(|report| report["kind"] == "race")
        .unwrap();
    assert_eq!(race["kernel"], "racy");
    for site in [&race["site"], &race["other"]] {
        assert!(site["ptx"].as_str().unwrap().contains(".shared"), "{race}");
    }
    let counters = json(&counters);
    assert_eq!(counters[0]["kernel"], "racy");
    assert_eq!(counters[0]["counters"]["blocks"], 1);
}

#[test]
fn reports_fail_the_next_synchronising_call_if_asked_to() {
    if let Some(words) = good("fail", &[("ON_REPORT", "fail")]) {
        assert!(words.contains("data race"), "{words}");
    }
}

#[test]
fn an_access_out_of_bounds_ends_the_kernel_and_the_device() {
    if let Some(words) = good("beyond", &[]) {
        assert!(
            words.contains("out of bounds") && words.contains("kernel beyond"),
            "{words}"
        );
    }
}

#[test]
fn memory_that_is_not_freed_is_told_of_at_the_end() {
    let Some(words) = good("leak", &[("CHECKS", "leaks")]) else {
        return;
    };
    assert!(words.contains("leak: 1234 bytes"), "{words}");
    let words = good("leak", &[]).unwrap();
    assert!(words.is_empty(), "{words}");
}

#[test]
fn a_variable_that_makes_no_sense_fails_the_initialisation() {
    for (name, value, needle) in [
        ("ARCH", "sm_12", "TOLLGATE_VGPU_ARCH=sm_12"),
        ("DEVICES", "0", "devices"),
        ("DEVICES", "65", "devices"),
        ("REPORTS", "/nowhere/at/all.json", "/nowhere/at/all.json"),
    ] {
        let Some(output) = run("init", &[(name, value)]) else {
            return;
        };
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains(needle), "{words}");
    }
    let output = run("init", &[("ARCH", "sm_80")]).unwrap();
    assert_eq!(output.status.code(), Some(0));
}
