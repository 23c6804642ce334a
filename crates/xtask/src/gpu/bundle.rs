//! One archive with everything that a machine with a GPU, and without cargo, needs to run tests and
//! benchmarks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::archive::{self, Content};
use super::script;
use crate::{files, program};

/// The archive without `--out`, from the workspace's root.
const ARCHIVE: &str = "target/tollgate-gpu.tar.gz";
/// Where it is put together, and the name of the folder inside.
const STAGE: &str = "target/tollgate-gpu";
/// The profile that programs are built with, told to cargo on its command line.
const PROFILE: &str = "gpu-bundle";
const PROFILE_SETTINGS: &[&str] = &[
    "inherits='release'",
    "lto='off'",
    "debug=0",
    "strip='symbols'",
];
/// What the device crate must be able to open.
pub const FEATURES: &str = "tollgate-device/cuda,tollgate-device/virtual";

/// A package whose tests or benchmarks use a GPU.
struct Row {
    package: &'static str,
    /// Whether a test program uses one, by its target's name; under compute-sanitizer others would
    /// only cost time.
    uses_gpu: fn(&str) -> bool,
    /// Tests that cannot be away from cargo and the sources, by a part of their names.
    skip: &'static [&'static str],
}

/// Every package of the bundle: all test and benchmark programs of these.
const TABLE: &[Row] = &[
    Row {
        package: "tollgate-device",
        uses_gpu: |_| true,
        // They build programs, and start them on the virtual GPU's driver library.
        skip: &["programs::", "second_run::"],
    },
    Row {
        package: "tollgate-gating",
        uses_gpu: is_gpu,
        skip: &[],
    },
    Row {
        package: "tollgate-permute",
        uses_gpu: is_gpu,
        skip: &[],
    },
    Row {
        package: "tollgate-gemm",
        uses_gpu: is_gpu,
        skip: &[],
    },
    Row {
        package: "tollgate",
        uses_gpu: is_gpu,
        skip: &[],
    },
    Row {
        package: "tollgate-benches",
        uses_gpu: |_| false,
        skip: &[],
    },
];

/// Test programs of device code are called so: `gpu`, `gpu_backward`, `layer_gpu`.
fn is_gpu(target: &str) -> bool {
    target.split(['_', '-']).any(|word| word == "gpu")
}

/// A program that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Executable {
    package: String,
    target: String,
    bench: bool,
    path: PathBuf,
}

impl Executable {
    /// Its name in the bundle.
    fn name(&self) -> String {
        format!("{}.{}", self.package, self.target)
    }

    /// Its place in the bundle.
    fn place(&self) -> String {
        let folder = if self.bench { "benches" } else { "tests" };
        format!("bin/{folder}/{}", self.name())
    }
}

/// Builds the bundle of the workspace at `root`, and writes it to `out`.
///
/// # Errors
/// What does not build; a package without programs; an archive that is too large.
pub fn run(root: &Path, out: Option<&str>) -> Result<String, String> {
    let packages: Vec<&str> = TABLE.iter().map(|row| row.package).collect();
    let executables = parse(&build(root, &packages)?)?;
    complete(&executables)?;

    let stage = root.join(STAGE);
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(|e| format!("{}: {e}", stage.display()))?;
    }
    for executable in &executables {
        archive::copy(&executable.path, &stage.join(executable.place()))?;
    }
    files::write(&stage.join("tests.txt"), list_of_tests(&executables))?;
    let goldens = root.join("crates/vgpu/goldens");
    for name in ["record.cpp", "cases.txt"] {
        archive::copy(&goldens.join(name), &stage.join("goldens").join(name))?;
    }
    archive::copy_tree(&root.join("kernels/prebuilt"), &stage.join("ptx"))?;
    let script = stage.join("run.sh");
    files::write(&script, script::TEXT)?;
    archive::make_executable(&script)?;
    let contents = archive::contents(&stage)?;
    files::write(
        &stage.join("BUNDLE.toml"),
        manifest(&Origin::of(root)?, &contents),
    )?;

    let out = out.map_or_else(|| root.join(ARCHIVE), PathBuf::from);
    let size = archive::pack(&stage, &out, &contents)?;
    Ok(format!(
        "{}: {} programs, {size}; unpack it, and run tollgate-gpu/run.sh",
        out.display(),
        executables.len()
    ))
}

/// Runs cargo, whose errors are shown, and returns its messages.
fn build(root: &Path, packages: &[&str]) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["test", "--no-run"]);
    command.args(["--profile", PROFILE, "--features", FEATURES]);
    command.arg("--message-format=json-render-diagnostics");
    for setting in PROFILE_SETTINGS {
        command
            .arg("--config")
            .arg(format!("profile.{PROFILE}.{setting}"));
    }
    for package in packages {
        command.args(["-p", package]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "the programs of the bundle do not build: {}; see the messages above, and the table in {}",
            output.status,
            file!()
        ));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("cargo: {e}"))
}

/// The programs among cargo's messages, by package and name.
fn parse(messages: &str) -> Result<Vec<Executable>, String> {
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
        found.push(Executable {
            package: package_name(&text(&message["package_id"], "package_id")?).to_owned(),
            target: text(&message["target"]["name"], "target name")?,
            bench,
            path: PathBuf::from(path),
        });
    }
    found.sort_by_key(|executable| (executable.bench, executable.name()));
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

/// Every package of the table has a program.
fn complete(executables: &[Executable]) -> Result<(), String> {
    for row in TABLE {
        if !executables.iter().any(|e| e.package == row.package) {
            return Err(format!(
                "{} has no test and no benchmark program; see the table in {}",
                row.package,
                file!()
            ));
        }
    }
    Ok(())
}

/// The test programs, one a line: name, whether it uses a GPU, arguments.
fn list_of_tests(executables: &[Executable]) -> String {
    let mut list = String::new();
    for executable in executables.iter().filter(|e| !e.bench) {
        if let Some(row) = TABLE.iter().find(|row| row.package == executable.package) {
            let device = match (row.uses_gpu)(&executable.target) {
                true => "gpu",
                false => "cpu",
            };
            let skip: String = row
                .skip
                .iter()
                .map(|test| format!(" --skip {test}"))
                .collect();
            list.push_str(&format!("{} {device}{skip}\n", executable.name()));
        }
    }
    list
}

/// What the programs were built from.
struct Origin {
    commit: String,
    date: String,
    changed: bool,
    toolchain: String,
}

impl Origin {
    fn of(root: &Path) -> Result<Self, String> {
        let git = |arguments: &[&str]| {
            program::run(Command::new("git").current_dir(root).args(arguments))
                .map(|text| text.trim().to_owned())
                .map_err(|e| format!("the commit of the bundle is not known: {e}"))
        };
        Ok(Self {
            commit: git(&["rev-parse", "HEAD"])?,
            date: git(&["show", "-s", "--format=%cs", "HEAD"])?,
            changed: !git(&["status", "--porcelain"])?.is_empty(),
            toolchain: program::run(Command::new("rustc").arg("--version"))?
                .trim()
                .to_owned(),
        })
    }
}

/// The text of `BUNDLE.toml`.
fn manifest(origin: &Origin, contents: &[Content]) -> String {
    let mut text = format!(
        "# What this bundle was built from, and what is in it. run.sh says how to use it.\n\n\
         commit = \"{}\"\ncommit_date = \"{}\"\n\
         # Whether files differed from the commit.\nchanged = {}\n\
         toolchain = \"{}\"\nprofile = \"{}\"\nfeatures = \"{FEATURES}\"\n\n[files]\n",
        origin.commit,
        origin.date,
        origin.changed,
        origin.toolchain,
        PROFILE_SETTINGS.join(" "),
    );
    for file in contents {
        text.push_str(&format!(
            "\"{}\" = {{ bytes = {}, sha256 = \"{}\" }}\n",
            file.path, file.bytes, file.sha256
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(id: &str, target: &str, kind: &str, test: bool, executable: Value) -> String {
        json!({
            "reason": "compiler-artifact", "package_id": id, "executable": executable,
            "target": {"name": target, "kind": [kind]}, "profile": {"test": test},
        })
        .to_string()
    }

    fn executables() -> Vec<Executable> {
        let id = |name: &str| format!("path+file:///w/crates/x#{name}@0.1.0");
        let mut lines: Vec<String> = TABLE
            .iter()
            .map(|row| message(&id(row.package), "gpu", "test", true, json!("/t/gpu-1")))
            .collect();
        lines.push(message(
            &id("tollgate-benches"),
            "gating",
            "bench",
            true,
            json!("/t/b-1"),
        ));
        lines.push(message(
            &id("tollgate-device"),
            "tool",
            "bin",
            false,
            json!("/t/tool"),
        ));
        lines.push(message(
            &id("tollgate-device"),
            "lib",
            "lib",
            false,
            Value::Null,
        ));
        lines.push(json!({"reason": "build-finished", "success": true}).to_string());
        parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn programs_are_tests_and_benches_by_package() {
        let found = executables();
        assert_eq!(found.len(), TABLE.len() + 1, "{found:?}");
        let last = &found[found.len() - 1];
        assert_eq!(last.place(), "bin/benches/tollgate-benches.gating");
        assert_eq!(last.path, Path::new("/t/b-1"));
        assert_eq!(found[0].place(), "bin/tests/tollgate-benches.gpu");
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn a_package_without_programs_is_an_error() {
        let mut found = executables();
        assert_eq!(complete(&found), Ok(()));
        found.retain(|e| e.package != "tollgate-gemm");
        assert!(
            complete(&found)
                .unwrap_err()
                .contains("tollgate-gemm has no")
        );
    }

    #[test]
    fn the_sanitizer_runs_what_uses_a_gpu() {
        assert!(is_gpu("gpu") && is_gpu("gpu_backward") && is_gpu("layer-gpu"));
        assert!(!is_gpu("cpu") && !is_gpu("gpus"));
        let list = list_of_tests(&executables());
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), TABLE.len(), "{list}");
        assert!(lines.contains(&"tollgate-gating.gpu gpu"), "{list}");
        assert!(lines.contains(&"tollgate-benches.gpu cpu"), "{list}");
        let device = "tollgate-device.gpu gpu --skip programs:: --skip second_run::";
        assert!(lines.contains(&device), "{list}");
    }

    #[test]
    fn ids_of_packages_have_two_forms() {
        assert_eq!(
            package_name("path+file:///w/crates/layer#tollgate@0.1.0"),
            "tollgate"
        );
        assert_eq!(package_name("path+file:///w/xtask#0.1.0"), "xtask");
    }

    #[test]
    fn the_manifest_is_toml() {
        let origin = Origin {
            commit: "abc".into(),
            date: "2026-11-24".into(),
            changed: true,
            toolchain: "rustc 1.95.0".into(),
        };
        let contents = [("bin/tests/a", 3 << 20), ("run.sh", 100)].map(|(path, bytes)| Content {
            path: path.into(),
            bytes,
            sha256: "00".into(),
        });
        let table: toml::Table = toml::from_str(&manifest(&origin, &contents)).unwrap();
        assert_eq!(table["changed"], toml::Value::Boolean(true));
        assert_eq!(table["files"]["run.sh"]["bytes"], toml::Value::Integer(100));
    }
}
