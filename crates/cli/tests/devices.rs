//! `tollgate devices`, with and without a driver.

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// The driver library of the virtual GPU, which cargo builds for the tests.
fn driver_library() -> PathBuf {
    const NAME: &str = "libtollgate_cuda.so";
    let test = std::env::current_exe().unwrap();
    let mut folders = test.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| {
        let path = folder.join(NAME);
        path.exists().then_some(path)
    });
    found.unwrap_or_else(|| panic!("no {NAME} beside {} or above it", test.display()))
}

/// What `tollgate devices` prints where the CUDA driver is `library`.
fn devices(options: &[&str], library: Option<&Path>, variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    if let Some(library) = library {
        for name in ["libcuda.so", "libcuda.so.1"] {
            symlink(library, folder.path().join(name)).unwrap();
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("devices")
        .args(options)
        .env("LD_LIBRARY_PATH", folder.path())
        .env_remove("COLUMNS")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

fn as_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_virtual_gpu_is_always_there() {
    let text = common::succeeds("devices");
    let row = text.lines().find(|line| line.starts_with("  virtual "));
    let row = row.unwrap_or_else(|| panic!("no row in\n{text}"));
    assert!(
        row.contains("virtual sm_90a") && row.contains("9.0"),
        "{row}"
    );
    let found = common::json("devices");
    let device = &found["devices"][0];
    assert_eq!(device["device"], "virtual");
    assert_eq!(device["compute_capability"], json!([9, 0]));
    assert_eq!(device["multiprocessors"], 132);
    assert_eq!(device["cuda"], Value::Null);
    if found["no_cuda"].is_string() {
        assert!(
            text.contains("\nNo CUDA device: no CUDA driver can be loaded ("),
            "{text}"
        );
        assert_eq!(found["devices"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn devices_of_a_driver_are_listed() {
    let library = driver_library();
    let variables = [
        ("TOLLGATE_VGPU_DEVICES", "2"),
        ("TOLLGATE_VGPU_ARCH", "sm_80"),
        ("TOLLGATE_VGPU_MEMORY", "3G"),
    ];
    let text = devices(&[], Some(&library), &variables);
    for device in ["cuda:0", "cuda:1"] {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("  {device} ")));
        let row = row.unwrap_or_else(|| panic!("no {device} in\n{text}"));
        for word in [
            "Tollgate virtual GPU (sm_80)",
            "8.0",
            "108",
            "3 GiB",
            "163 KiB",
            "13.0",
        ] {
            assert!(row.contains(word), "no {word} in\n{row}");
        }
    }
    let found = as_json(&devices(&["--json"], Some(&library), &variables));
    assert_eq!(found["no_cuda"], Value::Null);
    let device = &found["devices"][2];
    assert_eq!(device["device"], "cuda:1");
    assert_eq!(device["name"], "Tollgate virtual GPU (sm_80)");
    assert_eq!(device["compute_capability"], json!([8, 0]));
    assert_eq!(device["memory_bytes"], 3_u64 << 30);
    assert_eq!(device["cuda"], json!([13, 0]));
    assert_eq!(device["unusable"], Value::Null);
    // Of virtual devices NVML knows nothing, whether it is there or not.
    assert_eq!(device["now"], Value::Null);
    assert!(found["no_readings"].is_string(), "{found}");
    assert!(
        text.contains("\nNo clocks, power and links: NVML"),
        "{text}"
    );
}

#[test]
fn a_driver_that_is_none_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    if common::json("devices")["no_cuda"].is_string() {
        // Where there is a driver, the loader goes on to it.
        let found = as_json(&devices(&["--json"], Some(&empty), &[]));
        let reason = found["no_cuda"].as_str().unwrap();
        assert!(reason.contains("no CUDA driver can be loaded"), "{reason}");
        assert!(reason.contains("too short"), "{reason}");
    }
    let library = driver_library();
    let wrong = [("TOLLGATE_VGPU_ARCH", "sm_12")];
    let said = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["devices", "--json"])
        .env("LD_LIBRARY_PATH", {
            for name in ["libcuda.so", "libcuda.so.1"] {
                symlink(&library, folder.path().join(name)).unwrap();
            }
            folder.path()
        })
        .envs(wrong)
        .output()
        .unwrap();
    let found = as_json(&String::from_utf8(said.stdout).unwrap());
    let reason = found["no_cuda"].as_str().unwrap();
    assert!(
        reason.starts_with("cuInit: CUDA_ERROR_INVALID_VALUE (1)"),
        "{reason}"
    );
}

#[test]
fn an_option_that_does_not_exist_is_refused() {
    let said = common::tollgate("devices --yaml");
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.contains("--yaml"), "{}", said.err);
}
