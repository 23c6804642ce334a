//! The test and benchmark programs of packages, built by cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What the device crate must be able to open.
pub const FEATURES: &str = "tollgate-device/cuda,tollgate-device/virtual";

/// The variable that names the devices of tests. A program holds its name if, and only if, one of its
/// tests asks for devices: the linker leaves out what nothing calls.
const DEVICES_VARIABLE: &[u8] = b"TOLLGATE_TEST_DEVICES";

/// A program that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its package.
    pub package: String,
    /// Its target's name.
    pub target: String,
    /// A benchmark, and not a test.
    pub bench: bool,
    /// The folder of its package, where cargo starts tests.
    pub folder: PathBuf,
    /// Where it is.
    pub path: PathBuf,
}

impl Program {
    /// A name that no other program has.
    pub fn name(&self) -> String {
        format!("{}.{}", self.package, self.target)
    }

    /// Whether a test of it asks for devices.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn asks_for_devices(&self) -> Result<bool, String> {
        let bytes = fs::read(&self.path).map_err(|e| format!("{}: {e}", self.path.display()))?;
        let word = DEVICES_VARIABLE;
        Ok(bytes.windows(word.len()).any(|window| window == word))
    }
}

/// Builds the test and benchmark programs of packages with [`FEATURES`], in cargo's test profile or
/// as `arguments` say. Cargo's words are shown.
///
/// # Errors
/// A package that is missing or does not build.
pub fn build(root: &Path, packages: &[&str], arguments: &[String]) -> Result<Vec<Program>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root);
    command.args(["test", "--no-run", "--features", FEATURES]);
    command.arg("--message-format=json-render-diagnostics");
    for package in packages {
        command.args(["-p", package]);
    }
    let output = command
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "the programs of {} do not build: {}; cargo's messages are above",
            packages.join(", "),
            output.status
        ));
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The programs among cargo's messages, tests first, by name.
pub fn parse(messages: &str) -> Result<Vec<Program>, String> {
    let mut found = Vec::new();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).map_err(|e| format!("cargo printed '{line}': {e}"))?;
        let Some(path) = message["executable"].as_str() else {
            continue;
        };
        let kinds = message["target"]["kind"].as_array();
        let bench = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "bench"));
        // A command that tests run is built with them, and is no test itself.
        if message["profile"]["test"] != true && !bench {
            continue;
        }
        let text = |value: &Value, what: &str| {
            let missing = || format!("cargo's message has no {what}: {line}");
            value.as_str().map(str::to_owned).ok_or_else(missing)
        };
        let manifest = PathBuf::from(text(&message["manifest_path"], "manifest_path")?);
        found.push(Program {
            package: package_name(&text(&message["package_id"], "package_id")?).to_owned(),
            target: text(&message["target"]["name"], "target name")?,
            bench,
            folder: manifest.parent().unwrap_or(&manifest).to_owned(),
            path: PathBuf::from(path),
        });
    }
    found.sort_by_key(|program| (program.bench, program.name()));
    Ok(found)
}

/// The package of an id: `path+file:///…/gating#tollgate-gating@0.1.0`, or `…/gating#0.1.0` where the
/// folder has the package's name.
fn package_name(id: &str) -> &str {
    let (source, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name,
        None => source.rsplit('/').next().unwrap_or(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(target: &str, kind: &str, test: bool, executable: Value) -> String {
        json!({
            "reason": "compiler-artifact", "package_id": "path+file:///w/crates/x#tollgate-x@0.1.0",
            "manifest_path": "/w/crates/x/Cargo.toml", "executable": executable,
            "target": {"name": target, "kind": [kind]}, "profile": {"test": test},
        })
        .to_string()
    }

    #[test]
    fn programs_are_tests_and_benches() {
        let lines = [
            message("speed", "bench", true, json!("/t/speed-1")),
            message("x", "lib", false, Value::Null),
            message("tool", "bin", false, json!("/t/tool")),
            message("x", "lib", true, json!("/t/x-1")),
            json!({"reason": "build-finished", "success": true}).to_string(),
        ];
        let found = parse(&lines.join("\n")).unwrap();
        let names: Vec<(String, bool)> = found.iter().map(|p| (p.name(), p.bench)).collect();
        let expected = [("tollgate-x.x", false), ("tollgate-x.speed", true)];
        assert_eq!(
            names,
            expected.map(|(name, bench)| (name.to_owned(), bench))
        );
        assert_eq!(found[0].folder, Path::new("/w/crates/x"));
        assert_eq!(found[1].path, Path::new("/t/speed-1"));
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn a_program_tells_whether_it_asks_for_devices() {
        let folder = tempfile::tempdir().unwrap();
        let mut program = parse(&message("x", "test", true, json!("/absent")))
            .unwrap()
            .remove(0);
        assert!(program.asks_for_devices().is_err());
        program.path = folder.path().join("x");
        for (bytes, expected) in [
            (&b"\x7fELF\0TOLLGATE_TEST_DEVICE\0"[..], false),
            (&b"\x7fELF\0\xffTOLLGATE_TEST_DEVICES=\0"[..], true),
        ] {
            fs::write(&program.path, bytes).unwrap();
            assert_eq!(program.asks_for_devices(), Ok(expected));
        }
    }

    #[test]
    fn ids_of_packages_have_two_forms() {
        let long = "path+file:///w/crates/layer#tollgate@0.1.0";
        assert_eq!(package_name(long), "tollgate");
        assert_eq!(package_name("path+file:///w/xtask#0.1.0"), "xtask");
    }
}
