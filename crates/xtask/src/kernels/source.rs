//! The sources of the kernels package.

use std::path::Path;

use super::hash;
use crate::cuda::ptx;
use crate::files;

/// Folders of the package that are no family of kernels.
const NO_FAMILIES: &[&str] = &["include", "prebuilt", "src", "tests"];
/// Sources whose name ends so are compiled for sm_90a too.
const HOPPER_SUFFIX: &str = "_sm90a";
/// So are those with this line.
const HOPPER_MARK: &str = "// tollgate: also compute_90a";

/// What an image of a module is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everything from sm_80 on.
    Sm80,
    /// sm_90a alone.
    Sm90a,
}

impl Target {
    /// As in `.target`, and in names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm90a => "sm_90a",
        }
    }

    /// The compiler's name of it.
    pub fn virtual_arch(self) -> &'static str {
        match self {
            Self::Sm80 => "compute_80",
            Self::Sm90a => "compute_90a",
        }
    }

    /// The architectures that an image is assembled for.
    pub fn assembled_for(self) -> &'static [&'static str] {
        match self {
            Self::Sm80 => &["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100"],
            Self::Sm90a => &["sm_90a"],
        }
    }

    /// Those of them whose instructions are looked at.
    pub fn disassembled_for(self) -> &'static [&'static str] {
        match self {
            Self::Sm80 => &["sm_80", "sm_90a"],
            Self::Sm90a => &["sm_90a"],
        }
    }
}

/// The language of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// CUDA C++.
    Cuda,
    /// PTX written by hand.
    Ptx,
}

/// A source: one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `family/name`.
    pub name: String,
    /// From the package's folder, with `/`.
    pub path: String,
    /// Its language.
    pub language: Language,
    /// SHA-256 of it and what it includes.
    pub sha256: String,
    /// What it is compiled for.
    pub targets: Vec<Target>,
}

impl Source {
    /// The file of an image, from `prebuilt/`.
    pub fn image(&self, target: Target) -> String {
        format!("{}.{}.ptx", self.name, target.name())
    }
}

/// All sources of the package, by name.
///
/// # Errors
/// What could not be read; two sources of one name; PTX for an architecture that is not among
/// [`Target`].
pub fn find(package: &Path) -> Result<Vec<Source>, String> {
    let mut sources: Vec<Source> = Vec::new();
    for folder in files::children(package)? {
        let family = files::name_of(&folder);
        if !folder.is_dir() || family.starts_with('.') || NO_FAMILIES.contains(&family.as_str()) {
            continue;
        }
        for file in files::children(&folder)? {
            let language = match file.extension().and_then(|extension| extension.to_str()) {
                Some("cu") => Language::Cuda,
                Some("ptx") => Language::Ptx,
                _ => continue,
            };
            let source = read(package, &family, &file, language)?;
            if let Some(other) = sources.iter().find(|other| other.name == source.name) {
                return Err(format!(
                    "{} and {} would be one module; rename one of them",
                    other.path, source.path
                ));
            }
            sources.push(source);
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sources)
}

fn read(package: &Path, family: &str, file: &Path, language: Language) -> Result<Source, String> {
    let path = format!("{family}/{}", files::name_of(file));
    let stem = files::stem_of(file);
    let text = files::read(file)?;
    let targets = match language {
        Language::Cuda => {
            let hopper = stem.ends_with(HOPPER_SUFFIX)
                || text.lines().any(|line| line.trim() == HOPPER_MARK);
            let also = hopper.then_some(Target::Sm90a);
            [Target::Sm80].into_iter().chain(also).collect()
        }
        Language::Ptx => match ptx::target_of(&text) {
            Some("sm_80") => vec![Target::Sm80],
            Some("sm_90a") => vec![Target::Sm90a],
            other => {
                return Err(format!(
                    "{path}: .target is {}, must be sm_80 or sm_90a",
                    other.unwrap_or("missing")
                ));
            }
        },
    };
    Ok(Source {
        name: format!("{family}/{stem}"),
        sha256: hash::of_source(package, &path)?,
        path,
        language,
        targets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> tempfile::TempDir {
        let package = tempfile::tempdir().unwrap();
        for (path, text) in [
            (
                "gating/gate.cu",
                "#include \"tollgate/a.cuh\"\n#include <cuda_fp16.h>\n",
            ),
            ("gating/hand.ptx", ".version 8.0\n.target sm_80\n"),
            ("gemm/big_sm90a.cu", ""),
            ("gemm/marked.cu", "  // tollgate: also compute_90a\n"),
            ("gemm/notes.md", ""),
            (
                "include/tollgate/a.cuh",
                "#pragma once\n  # include \"b.cuh\"\n",
            ),
            (
                "include/tollgate/b.cuh",
                "#include <tollgate/a.cuh>\nint b;\n",
            ),
            ("prebuilt/gating/gate.sm_80.ptx", ""),
            ("src/lib.cu", ""),
        ] {
            files::write(&package.path().join(path), text).unwrap();
        }
        package
    }

    fn hash_of(package: &tempfile::TempDir) -> String {
        find(package.path()).unwrap()[0].sha256.clone()
    }

    #[test]
    fn families_are_all_folders_but_the_packages_own() {
        let sources = find(package().path()).unwrap();
        let found: Vec<_> = sources
            .iter()
            .map(|s| (s.name.as_str(), s.language, s.targets.as_slice()))
            .collect();
        let both = [Target::Sm80, Target::Sm90a];
        let expected = [
            ("gating/gate", Language::Cuda, &both[..1]),
            ("gating/hand", Language::Ptx, &both[..1]),
            ("gemm/big_sm90a", Language::Cuda, &both[..]),
            ("gemm/marked", Language::Cuda, &both[..]),
        ];
        assert_eq!(found, expected);
        assert_eq!(sources[0].image(Target::Sm80), "gating/gate.sm_80.ptx");
    }

    #[test]
    fn the_hash_follows_includes_and_not_line_ends() {
        let package = package();
        let before = hash_of(&package);
        let header = package.path().join("include/tollgate/b.cuh");
        files::write(&header, "#include <tollgate/a.cuh>\r\nint b;\r\n").unwrap();
        assert_eq!(hash_of(&package), before);
        files::write(&header, "#include <tollgate/a.cuh>\nint c;\n").unwrap();
        assert_ne!(hash_of(&package), before);
    }

    #[test]
    fn an_include_that_cannot_be_followed_is_an_error_with_its_place() {
        let package = package();
        for (directive, expected) in [
            (
                "#include \"absent.cuh\"",
                "gating/gate.cu, line 2: \"absent.cuh\"",
            ),
            (
                "#include \"../../outside.cuh\"",
                "line 2: \"../../outside.cuh\"",
            ),
            ("#include NAME", "#include NAME is neither"),
        ] {
            let file = package.path().join("gating/gate.cu");
            files::write(&file, format!("\n{directive}\n")).unwrap();
            let error = find(package.path()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn two_sources_of_one_name_and_foreign_targets_are_errors() {
        let package = package();
        let hand = package.path().join("gating/hand.ptx");
        files::write(&hand, ".target sm_75\n").unwrap();
        let error = find(package.path()).unwrap_err();
        assert!(
            error.contains("gating/hand.ptx: .target is sm_75"),
            "{error}"
        );
        files::write(&hand, ".target sm_80\n").unwrap();
        files::write(&package.path().join("gating/hand.cu"), "").unwrap();
        let error = find(package.path()).unwrap_err();
        assert!(
            error.contains("gating/hand.cu and gating/hand.ptx"),
            "{error}"
        );
    }
}
