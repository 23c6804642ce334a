//! The output file, checked by a program that shares no code with this one: `check_out.py`.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A Python with numpy and safetensors: `TOLLGATE_PYTHON`, else `python3` if it has both.
fn python() -> Option<OsString> {
    if let Some(python) = std::env::var_os("TOLLGATE_PYTHON") {
        return Some(python);
    }
    let probe = Command::new("python3")
        .args(["-c", "import numpy, safetensors"])
        .output();
    match probe {
        Ok(output) if output.status.success() => Some("python3".into()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            let why = why.lines().last().unwrap_or("no reason given");
            tell(&format!("python3 lacks numpy or safetensors ({why})"));
            None
        }
        Err(error) => {
            tell(&format!("no python3 ({error})"));
            None
        }
    }
}

/// Past the test harness, which shows what passing tests print to nobody.
fn tell(why: &str) {
    let text = format!("tests/python.rs is skipped: {why}; set TOLLGATE_PYTHON\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

#[test]
fn the_output_file_agrees_with_numpy() {
    let Some(python) = python() else { return };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let (out, json) = (
        folder.path().join("step.safetensors"),
        folder.path().join("step.json"),
    );
    for (upcycle, more) in [
        ("noise", &["--router", "adaptive:0.1"][..]),
        ("partition", &["--router", "adaptive:0.1"]),
        ("partition", &["--router", "sigmoid:3", "--dtype", "bf16"]),
        (
            "partition",
            &["--router", "second:threshold:0.3", "--weights", "selected"],
        ),
    ] {
        let run = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["run", "--backward", "--json", "--no-check"])
            .args(["--repeat", "1", "--upcycle", upcycle, "--out"])
            .arg(&out)
            .args(more)
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
        std::fs::write(&json, &run.stdout).unwrap();
        let check = Command::new(&python)
            .arg(here.join("tests/check_out.py"))
            .arg(&out)
            .arg(here.join("../../data/minilm-layer3.safetensors"))
            .arg("--report")
            .arg(&json)
            .args(["--expect", &format!("upcycle={upcycle}")])
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", python.display()));
        let said = format!(
            "{upcycle} {more:?}:\n{}{}",
            String::from_utf8_lossy(&check.stdout),
            String::from_utf8_lossy(&check.stderr)
        );
        assert!(check.status.success(), "{said}");
        assert!(said.contains("agrees"), "{said}");
    }
}
