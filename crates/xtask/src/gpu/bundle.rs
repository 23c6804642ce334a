//! One archive with everything that a machine with a GPU, and without cargo, needs to run tests and
//! benchmarks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::{self, Content};
use super::programs::{self, FEATURES, Program};
use super::script;
use crate::{files, program};

/// The archive without `--out`, from the workspace's root.
const ARCHIVE: &str = "target/tollgate-gpu.tar.xz";
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
/// A package whose tests or benchmarks use a GPU.
struct Row {
    package: &'static str,
    /// Tests that cannot be away from cargo and the sources, by a part of their names.
    skip: &'static [&'static str],
}

/// Every package of the bundle: all benchmarks of these, and all test programs that ask for devices.
const TABLE: &[Row] = &[
    Row {
        package: "tollgate-device",
        // They build programs, and start them on the virtual GPU's driver library.
        skip: &["programs::", "second_run::"],
    },
    Row {
        package: "tollgate-gating",
        skip: &[],
    },
    Row {
        package: "tollgate-permute",
        skip: &[],
    },
    Row {
        package: "tollgate-gemm",
        skip: &[],
    },
    Row {
        package: "tollgate",
        skip: &[],
    },
    Row {
        package: "tollgate-benches",
        skip: &[],
    },
];

/// Builds the bundle of the workspace at `root`, and writes it to `out`.
///
/// # Errors
/// What does not build; a package without programs; an archive that is too large.
pub fn run(root: &Path, out: Option<&str>) -> Result<String, String> {
    let packages: Vec<&str> = TABLE.iter().map(|row| row.package).collect();
    let mut arguments = vec!["--profile".to_owned(), PROFILE.to_owned()];
    for setting in PROFILE_SETTINGS {
        arguments.extend([
            "--config".to_owned(),
            format!("profile.{PROFILE}.{setting}"),
        ]);
    }
    let programs = with_devices(programs::build(root, &packages, &arguments)?)?;
    complete(&programs)?;

    let stage = root.join(STAGE);
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(|e| format!("{}: {e}", stage.display()))?;
    }
    for program in &programs {
        archive::copy(&program.path, &stage.join(place(program)))?;
    }
    files::write(&stage.join("tests.txt"), list_of_tests(&programs))?;
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
        programs.len()
    ))
}

/// A program's place in the bundle.
fn place(program: &Program) -> String {
    let folder = if program.bench { "benches" } else { "tests" };
    format!("bin/{folder}/{}", program.name())
}

/// Every package of the table has a program.
fn complete(programs: &[Program]) -> Result<(), String> {
    for row in TABLE {
        if !programs.iter().any(|p| p.package == row.package) {
            return Err(format!(
                "{} has no benchmark, and no test that asks for devices; see the table in {}",
                row.package,
                file!()
            ));
        }
    }
    Ok(())
}

/// The programs without the tests that ask for no devices: those say the same on any machine.
fn with_devices(mut programs: Vec<Program>) -> Result<Vec<Program>, String> {
    let mut keep = Vec::new();
    for program in programs.drain(..) {
        if program.bench || program.asks_for_devices()? {
            keep.push(program);
        }
    }
    Ok(keep)
}

/// The test programs, one a line: name, arguments.
fn list_of_tests(programs: &[Program]) -> String {
    let mut list = String::new();
    for program in programs.iter().filter(|p| !p.bench) {
        let row = TABLE.iter().find(|row| row.package == program.package);
        let skip = row.map_or(&[][..], |row| row.skip).iter();
        let skip: String = skip.map(|test| format!(" --skip {test}")).collect();
        list.push_str(&format!("{}{skip}\n", program.name()));
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

    /// A test program of each package, in files that hold `content`, and a benchmark.
    fn programs(folder: &Path, content: &str) -> Vec<Program> {
        let mut programs: Vec<Program> = TABLE
            .iter()
            .map(|row| Program {
                package: row.package.to_owned(),
                target: "gpu".to_owned(),
                bench: false,
                folder: folder.to_owned(),
                path: folder.join(row.package),
            })
            .collect();
        for program in &programs {
            files::write(&program.path, content).unwrap();
        }
        programs.push(Program {
            bench: true,
            target: "gating".to_owned(),
            ..programs[TABLE.len() - 1].clone()
        });
        programs
    }

    #[test]
    fn a_package_without_programs_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut programs = programs(folder.path(), "");
        assert_eq!(complete(&programs), Ok(()));
        let last = &programs[TABLE.len()];
        assert_eq!(place(last), "bin/benches/tollgate-benches.gating");
        programs.retain(|p| p.package != "tollgate-gemm");
        let error = complete(&programs).unwrap_err();
        assert!(error.contains("tollgate-gemm has no"), "{error}");
    }

    #[test]
    fn tests_that_ask_for_devices_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let programs = programs(folder.path(), "nothing");
        for package in ["tollgate-device", "tollgate-gating"] {
            files::write(&folder.path().join(package), "TOLLGATE_TEST_DEVICES").unwrap();
        }
        let kept = with_devices(programs).unwrap();
        assert_eq!(kept.len(), 3, "{kept:?}");
        assert!(kept[2].bench);
        assert_eq!(
            list_of_tests(&kept),
            "tollgate-device.gpu --skip programs:: --skip second_run::\ntollgate-gating.gpu\n"
        );
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
