//! Programs that know nothing of the virtual GPU, over the public interfaces of cudarc and cust and
//! over Python's ctypes: built and run as they are, with the library as their driver.

mod common;

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Builds the program in `programs/<name>` and returns what runs it.
fn build(name: &str) -> PathBuf {
    let target = common::library().with_file_name("programs");
    // What a linker looks for where CUDA is installed. The path stays the same, so that a second
    // run has nothing to build.
    let cuda = target.join(format!("cuda-for-{name}"));
    let library = cuda.join("lib64/libcuda.so");
    std::fs::create_dir_all(cuda.join("lib64")).unwrap();
    let _ = std::fs::remove_file(&library);
    symlink(common::library(), &library).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--manifest-path"])
        .arg(common::file(&format!("programs/{name}/Cargo.toml")))
        .arg("--target-dir")
        .arg(&target)
        .env("CUDARC_CUDA_VERSION", "13000")
        .env("CUDA_LIBRARY_PATH", cuda)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} does not build:\n{words}");
    target.join("debug").join(format!("{name}-program"))
}

fn text(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{:?}\n{out}\n{err}", output.status)
}

fn check(program: &str) {
    let driver = common::driver_folder();
    let program = build(program);
    let run = |word: &str, seed: &str| {
        let mut command = Command::new(&program);
        command.arg(word).env("LD_LIBRARY_PATH", driver.path());
        command
            .env("TOLLGATE_VGPU_SEED", seed)
            .env("TOLLGATE_VGPU_MEMORY", "256M");
        command.output().unwrap()
    };
    for seed in ["0", "1", "2"] {
        let output = run("work", seed);
        let words = text(&output);
        assert!(output.status.success() && words.contains("done"), "{words}");
        assert!(!words.contains("tollgate-vgpu:"), "{words}");
    }
    let output = run("racy", "0");
    let words = text(&output);
    assert!(output.status.success(), "{words}");
    assert!(
        words.contains("data race") && words.contains("kernel racy"),
        "{words}"
    );
}

#[test]
fn an_unmodified_cudarc_program_runs_and_is_checked() {
    check("cudarc");
}

#[test]
fn an_unmodified_cust_program_runs_and_is_checked() {
    check("cust");
}

#[test]
fn a_python_program_runs_and_is_checked() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no `python3`");
        return;
    }
    let driver = common::driver_folder();
    let output = Command::new("python3")
        .arg(common::file("programs/saxpy.py"))
        .arg(common::kernels())
        .env("LD_LIBRARY_PATH", driver.path())
        .output()
        .unwrap();
    let words = text(&output);
    assert!(output.status.success() && words.contains("done"), "{words}");
    assert!(!words.contains("tollgate-vgpu:"), "{words}");
}
