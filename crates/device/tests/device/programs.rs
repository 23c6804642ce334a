//! Programs that use this crate together with another framework. They are workspaces of their own,
//! because what they use links the CUDA driver; here that is the driver library of the virtual GPU.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::second_run::{library, said};

/// Builds the program in `programs/<name>` against `library` and returns what runs it.
fn build(name: &str, library: &Path) -> PathBuf {
    let target = library.with_file_name("device-programs");
    // What a linker looks for where CUDA is installed. The path stays the same, so that a second
    // run has nothing to build.
    let cuda = target.join(format!("cuda-for-{name}"));
    let place = cuda.join("lib64/libcuda.so");
    std::fs::create_dir_all(cuda.join("lib64")).unwrap();
    let _ = std::fs::remove_file(&place);
    symlink(library, &place).unwrap();
    let manifest =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("programs/{name}/Cargo.toml"));
    // Not `--locked`: its lock file follows the dependencies of this crate.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .env("CUDARC_CUDA_VERSION", "13000")
        .env("CUDA_LIBRARY_PATH", cuda)
        .output()
        .unwrap();
    let (built, words) = said(&output);
    assert!(built, "{name} does not build:\n{words}");
    target
        .join("debug")
        .join(format!("tollgate-{name}-program"))
}

#[test]
fn kernels_run_on_the_streams_and_buffers_of_cust() {
    let Some(library) = library() else { return };
    let program = build("cust", &library);
    let folder = tempfile::tempdir().unwrap();
    // cust was linked against the first name's library; cudarc asks for both.
    symlink(&library, folder.path().join("libcuda.so.1")).unwrap();
    symlink(&library, folder.path().join("libcuda.so")).unwrap();
    for seed in ["0", "1"] {
        let mut command = Command::new(&program);
        command
            .env("LD_LIBRARY_PATH", folder.path())
            .env("TOLLGATE_VGPU_SEED", seed)
            .env("TOLLGATE_VGPU_REPORTS", "stderr")
            .env("TOLLGATE_VGPU_ON_REPORT", "fail");
        let (passed, words) = said(&command.output().unwrap());
        assert!(passed && words.contains("done"), "{words}");
        assert!(!words.contains("tollgate-vgpu:"), "{words}");
    }
}
