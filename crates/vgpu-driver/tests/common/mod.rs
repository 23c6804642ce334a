//! What the tests of the driver library share.

#![allow(dead_code, reason = "every test file uses its part")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The library as cargo built it for this test.
pub fn library() -> PathBuf {
    const NAME: &str = "libtollgate_cuda.so";
    let test = std::env::current_exe().unwrap();
    let folders = test.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join(NAME))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {NAME} beside {} or above it", test.display()))
}

/// A folder in which the loader finds the library under the driver's names.
pub fn driver_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so.1", "libcuda.so"] {
        symlink(library(), folder.path().join(name)).unwrap();
    }
    folder
}

/// A file of this crate.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The kernels that the tests load.
pub fn kernels() -> PathBuf {
    file("tests/kernels/kernels.ptx")
}
