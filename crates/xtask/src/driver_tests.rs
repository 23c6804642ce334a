//! The GPU tests once more, through the CUDA driver's interface: against the driver library of the
//! virtual GPU, as if it were the machine's.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::files;
use crate::gpu::programs;

/// The package of the driver library.
const PACKAGE: &str = "tollgate-vgpu-driver";
/// Where the library stands under the name that programs ask for, from the workspace's root. Not in
/// cargo's own folders: there everything that cargo runs would take it for the machine's driver.
const FOLDER: &str = "target/virtual-driver";
/// Packages whose tests open devices.
const TESTED: &[&str] = &["tollgate-device", "tollgate-gating", "tollgate-permute"];

/// Builds the library and runs the tests of the workspace at `root` on it.
///
/// # Errors
/// What does not build, and failing tests.
pub fn run(root: &Path) -> Result<String, String> {
    let library = built_library(root)?;
    let folder = root.join(FOLDER);
    files::create_folder(&folder)?;
    // cudarc asks for the first name and a program linked against the driver for the second.
    for name in ["libcuda.so", "libcuda.so.1"] {
        let place = folder.join(name);
        fs::copy(&library, &place)
            .map_err(|e| format!("{} to {}: {e}", library.display(), place.display()))?;
    }

    let mut programs = Vec::new();
    for program in programs::build(root, TESTED, &[])? {
        if !program.bench && program.asks_for_devices()? {
            programs.push(program);
        }
    }
    for package in TESTED {
        if !programs.iter().any(|program| program.package == *package) {
            return Err(format!("no test of {package} asks for devices"));
        }
    }
    let mut failed = Vec::new();
    for program in &programs {
        println!("{} on {FOLDER}", program.name());
        let status = Command::new(&program.path)
            .arg("--quiet")
            // Those of the device crate that start programs on the library by themselves.
            .args(["--skip", "programs::", "--skip", "second_run::"])
            .current_dir(&program.folder)
            .env("LD_LIBRARY_PATH", search_path(&folder))
            .env("TOLLGATE_TEST_DEVICES", "cuda")
            // What the virtual GPU finds while it checks a kernel is an error of the next wait.
            .env("TOLLGATE_VGPU_ON_REPORT", "fail")
            .status()
            .map_err(|e| format!("{}: {e}", program.path.display()))?;
        if !status.success() {
            failed.push(format!("{}: {status}", program.name()));
        }
    }
    if failed.is_empty() {
        Ok(format!(
            "{} test programs passed through the driver's interface",
            programs.len()
        ))
    } else {
        Err(format!(
            "through the driver's interface {} of {} test programs failed:\n{}\nto run one: \
             LD_LIBRARY_PATH={} TOLLGATE_TEST_DEVICES=cuda cargo test --features {} -p PACKAGE",
            failed.len(),
            programs.len(),
            failed.join("\n"),
            folder.display(),
            programs::FEATURES
        ))
    }
}

/// Builds the driver library, and says where it is.
fn built_library(root: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--lib", "-p", PACKAGE])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("{PACKAGE} does not build: {}", output.status));
    }
    library_in(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| format!("cargo built {PACKAGE} and names no shared library of it"))
}

/// The shared library among cargo's messages.
fn library_in(messages: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let shared = messages
        .filter(|message| message["target"]["name"] == "tollgate_cuda")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .find(|file| file.as_str().is_some_and(|file| file.ends_with(".so")));
    shared.and_then(|file| file.as_str().map(PathBuf::from))
}

/// The folder, before what the loader searches already.
fn search_path(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("LD_LIBRARY_PATH").filter(|rest| !rest.is_empty()) {
        path.push(":");
        path.push(rest);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_library_is_found_among_the_messages() {
        let messages = [
            json!({"target": {"name": "tollgate_vgpu"}, "filenames": ["/t/libtollgate_vgpu.rlib"]}),
            json!({
                "target": {"name": "tollgate_cuda"},
                "filenames": ["/t/libtollgate_cuda.rlib", "/t/libtollgate_cuda.so"],
            }),
        ];
        let text: Vec<String> = messages.iter().map(Value::to_string).collect();
        let found = library_in(&text.join("\n"));
        assert_eq!(found, Some(PathBuf::from("/t/libtollgate_cuda.so")));
        assert_eq!(library_in(&text[0]), None);
    }

    #[test]
    fn the_folder_is_searched_first() {
        let path = search_path(Path::new("/driver"));
        assert!(path.to_string_lossy().starts_with("/driver"));
    }
}
