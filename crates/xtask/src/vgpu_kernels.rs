//! The PTX that the virtual GPU's tests run: compiled from the sources beside it.

use std::path::Path;

use crate::cuda::{Compiler, LocalMemory, ptx};
use crate::files;

/// Sources and PTX, from the workspace's root.
const KERNELS: &str = "crates/vgpu/tests/kernels";
/// Sources whose name ends so use what only sm_90a has; all others are compiled for sm_80.
const HOPPER_SUFFIX: &str = "_sm90a";

/// What to do with PTX that differs from the file beside its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDifference {
    /// Write the file.
    Write,
    /// Fail, and write nothing among the sources.
    Fail,
}

/// Compiles every source, compares or writes its PTX, and assembles every PTX file, also those
/// written by hand.
///
/// # Errors
/// What could not be installed, compiled or assembled; register spills; with
/// [`OnDifference::Fail`] which files differ.
pub fn run(root: &Path, on_difference: OnDifference) -> Result<String, String> {
    let compiler = Compiler::installed(root)?;
    let kernels = root.join(KERNELS);
    let sources = files::with_extension(&kernels, "cu")?;
    if sources.is_empty() {
        return Err(format!("{KERNELS} holds no .cu file"));
    }

    let mut differing = Vec::new();
    for source in &sources {
        let hopper = files::stem_of(source).ends_with(HOPPER_SUFFIX);
        let arch = if hopper { "compute_90a" } else { "compute_80" };
        let text = compiler.compile(source, arch, None)?;
        let beside = source.with_extension("ptx");
        if files::read_if_present(&beside)?.as_deref() == Some(text.as_str()) {
            continue;
        }
        if on_difference == OnDifference::Write {
            files::write(&beside, &text)?;
        }
        differing.push(files::name_of(&beside));
    }
    if on_difference == OnDifference::Fail && !differing.is_empty() {
        return Err(format!(
            "not what its source compiles to: {}; run cargo xtask vgpu-kernels",
            differing.join(", ")
        ));
    }

    let modules = files::with_extension(&kernels, "ptx")?;
    for module in &modules {
        let text = files::read(module)?;
        let target = ptx::target_of(&text)
            .ok_or_else(|| format!("{}: no .target directive", module.display()))?;
        let cubin = compiler.output(&files::name_of(&module.with_extension("cubin")));
        compiler.assemble(module, target, &cubin, LocalMemory::Accept)?;
    }
    Ok(format!(
        "{} sources compiled, {} written; {} PTX files assembled without spills",
        sources.len(),
        differing.len(),
        modules.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_its_ptx_and_no_ptx_names_a_folder() {
        let kernels = crate::root().join(KERNELS);
        let sources = files::with_extension(&kernels, "cu").unwrap();
        assert!(!sources.is_empty());
        for source in sources {
            let beside = source.with_extension("ptx");
            let text = files::read(&beside).unwrap();
            let bare = ptx::without_path_hashes(&ptx::without_folders(&text));
            assert_eq!(bare, text, "{}", beside.display());
            let hopper = files::stem_of(&source).ends_with(HOPPER_SUFFIX);
            let target = if hopper { "sm_90a" } else { "sm_80" };
            assert_eq!(ptx::target_of(&text), Some(target), "{}", beside.display());
        }
    }
}
