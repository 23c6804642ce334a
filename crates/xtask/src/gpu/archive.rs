//! The files of a bundle: their list, and the archive.

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::{files, program};

/// Test programs hold much of the same code. A dictionary that is larger than ten of them finds it
/// again: the archive is a seventh of what gzip makes, and takes 200 MiB of memory to unpack.
const COMPRESSION: &str = "xz --threads=1 --lzma2=preset=2,dict=192MiB";
/// Bytes of the archive at most: what machines that are lent take.
const LIMIT_BYTES: u64 = 64 << 20;

/// A file of the bundle.
pub struct Content {
    /// From the bundle's folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// All files of the bundle, by path.
pub fn contents(stage: &Path) -> Result<Vec<Content>, String> {
    let (mut found, mut open) = (Vec::new(), vec![stage.to_owned()]);
    while let Some(folder) = open.pop() {
        for path in files::children(&folder)? {
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let relative = path.strip_prefix(stage).unwrap_or(&path);
            let digest = Sha256::digest(&bytes);
            found.push(Content {
                path: relative.display().to_string(),
                bytes: bytes.len() as u64,
                sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Packs the bundle's folder, and returns the archive's size in words.
///
/// # Errors
/// An archive that is too large, with its largest files.
pub fn pack(stage: &Path, archive: &Path, contents: &[Content]) -> Result<String, String> {
    let (Some(above), Some(name)) = (stage.parent(), stage.file_name()) else {
        return Err(format!("{}: no folder to pack", stage.display()));
    };
    if let Some(folder) = archive.parent() {
        files::create_folder(folder)?;
    }
    if !archive.to_string_lossy().ends_with(".tar.xz") {
        return Err(format!("{}: must end in .tar.xz", archive.display()));
    }
    program::run(
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--use-compress-program={COMPRESSION}"))
            .arg("-cf")
            .arg(archive)
            .arg("-C")
            .arg(above)
            .arg(name),
    )?;
    let metadata = fs::metadata(archive).map_err(|e| format!("{}: {e}", archive.display()))?;
    if metadata.len() > LIMIT_BYTES {
        return Err(too_large(archive, metadata.len(), contents));
    }
    Ok(mebibytes(metadata.len()))
}

fn too_large(archive: &Path, bytes: u64, contents: &[Content]) -> String {
    let mut largest: Vec<&Content> = contents.iter().collect();
    largest.sort_by_key(|file| std::cmp::Reverse(file.bytes));
    let lines: Vec<String> = largest
        .iter()
        .take(20)
        .map(|file| format!("  {:>10}  {}", mebibytes(file.bytes), file.path))
        .collect();
    format!(
        "{} has {}, more than {}; its largest files, before packing:\n{}",
        archive.display(),
        mebibytes(bytes),
        mebibytes(LIMIT_BYTES),
        lines.join("\n")
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Copies a file, and makes the folders above it.
pub fn copy(from: &Path, to: &Path) -> Result<(), String> {
    if let Some(folder) = to.parent() {
        files::create_folder(folder)?;
    }
    fs::copy(from, to)
        .map(drop)
        .map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))
}

/// Copies a folder.
pub fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    for path in files::children(from)? {
        let place = to.join(files::name_of(&path));
        if path.is_dir() {
            copy_tree(&path, &place)?;
        } else {
            copy(&path, &place)?;
        }
    }
    Ok(())
}

/// Lets a script be run.
#[cfg(unix)]
pub fn make_executable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// Lets a script be run.
#[cfg(not(unix))]
pub fn make_executable(path: &Path) -> Result<(), String> {
    Err(format!(
        "{}: bundles are made where they run, on Linux",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_is_too_large_names_its_largest_files() {
        let contents = [("run.sh", 100), ("bin/tests/a", 3 << 20)].map(|(path, bytes)| Content {
            path: path.into(),
            bytes,
            sha256: "00".into(),
        });
        let error = too_large(Path::new("a.tar.xz"), 65 << 20, &contents);
        assert!(error.contains("65.0 MiB, more than 64.0 MiB"), "{error}");
        assert!(
            error.lines().nth(1).unwrap().contains("bin/tests/a"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_is_listed_and_packed() {
        let folder = tempfile::tempdir().unwrap();
        let stage = folder.path().join("bundle");
        files::write(&stage.join("b/two"), "22").unwrap();
        files::write(&stage.join("one"), "1").unwrap();
        copy_tree(&stage.join("b"), &stage.join("c/d")).unwrap();
        let listed = contents(&stage).unwrap();
        let names: Vec<(&str, u64)> = listed.iter().map(|f| (f.path.as_str(), f.bytes)).collect();
        assert_eq!(names, [("b/two", 2), ("c/d/two", 2), ("one", 1)]);
        assert_eq!(listed[0].sha256, listed[1].sha256);
        let archive = folder.path().join("out/bundle.tar.xz");
        assert!(pack(&stage, &archive, &listed).unwrap().ends_with("MiB"));
        let list = program::run(Command::new("tar").arg("-tf").arg(&archive)).unwrap();
        assert!(list.contains("bundle/c/d/two"), "{list}");
    }
}
