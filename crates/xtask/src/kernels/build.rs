//! From a source to its PTX and its part of the manifest.

use std::path::Path;

use super::manifest::{ArchResources, ArchSass, Entry, Image, Module};
use super::source::{Language, Source, Target};
use super::{PACKAGE, hash};
use crate::cuda::resources::Resources;
use crate::cuda::{Compiler, LocalMemory, ptx, sass};
use crate::files;

/// A module that passed all checks.
#[derive(Debug)]
pub struct Built {
    /// For the manifest.
    pub module: Module,
    /// Files by their path from `prebuilt/`, with their text.
    pub files: Vec<(String, String)>,
}

impl Built {
    /// Images, entries and the largest number of registers.
    pub fn summary(&self) -> String {
        let entries = || self.module.images.iter().flat_map(|image| &image.entries);
        let registers = entries().flat_map(|entry| &entry.resources);
        format!(
            "{} entries, {} registers at most",
            entries().count(),
            registers.map(ArchResources::registers).max().unwrap_or(0)
        )
    }
}

/// Compiles, assembles and disassembles a source of the package in `package`.
///
/// # Errors
/// The compiler's words, and every use of local memory.
pub fn build(compiler: &Compiler, package: &Path, source: &Source) -> Result<Built, String> {
    let mut built = Built {
        module: Module {
            name: source.name.clone(),
            source: source.path.clone(),
            source_sha256: source.sha256.clone(),
            images: Vec::new(),
        },
        files: Vec::new(),
    };
    for &target in &source.targets {
        let (image, text) = image(compiler, package, source, target)
            .map_err(|e| format!("{PACKAGE}/{}: {e}", source.path))?;
        built.files.push((image.file.clone(), text));
        built.module.images.push(image);
    }
    if hash::of_source(package, &source.path)? != source.sha256 {
        return Err(format!(
            "{PACKAGE}/{}: it, or a header, was changed while it was compiled; run again",
            source.path
        ));
    }
    Ok(built)
}

fn image(
    compiler: &Compiler,
    package: &Path,
    source: &Source,
    target: Target,
) -> Result<(Image, String), String> {
    let path = package.join(&source.path);
    let text = match source.language {
        Language::Cuda => {
            let include = package.join("include");
            ptx::with_version(&compiler.compile(&path, target.virtual_arch(), Some(&include))?)
        }
        Language::Ptx => files::read(&path)?,
    };
    let file = source.image(target);
    let scratch = compiler.output(&file.replace('/', "."));
    files::write(&scratch, &text)?;

    let mut entries = entries_of(&text)?;
    for &arch in target.assembled_for() {
        let cubin = scratch.with_extension(format!("{arch}.cubin"));
        let needs = compiler.assemble(&scratch, arch, &cubin, LocalMemory::Refuse)?;
        same_entries(&entries, needs.iter().map(|r: &Resources| &r.entry), arch)?;
        for (entry, needs) in entries.iter_mut().zip(&needs) {
            entry.resources.push(ArchResources::new(arch, needs));
        }
        if target.disassembled_for().contains(&arch) {
            let counts = sass::parse(&compiler.disassemble(&cubin)?);
            same_entries(&entries, counts.iter().map(|s| &s.entry), arch)?;
            for (entry, counts) in entries.iter_mut().zip(&counts) {
                if counts.local > 0 {
                    return Err(format!(
                        "{} for {arch}: {} loads and stores of local memory",
                        entry.name, counts.local
                    ));
                }
                entry.sass.push(ArchSass::new(arch, counts));
            }
        }
    }
    let image = Image {
        file,
        sha256: hash::of_text(&text),
        entries,
    };
    Ok((image, text))
}

/// The entries of PTX, sorted by name, before they are assembled.
fn entries_of(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = ptx::entries(text)
        .into_iter()
        .map(|entry| Entry {
            name: entry.name.to_owned(),
            max_threads: entry.max_threads,
            resources: Vec::new(),
            sass: Vec::new(),
        })
        .collect();
    if entries.is_empty() {
        return Err("there is no entry; declare kernels extern \"C\" __global__".to_owned());
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Every entry of the PTX, and nothing else, was assembled.
fn same_entries<'a>(
    entries: &[Entry],
    found: impl Iterator<Item = &'a String>,
    arch: &str,
) -> Result<(), String> {
    let expected: Vec<&String> = entries.iter().map(|entry| &entry.name).collect();
    let found: Vec<&String> = found.collect();
    if expected == found {
        Ok(())
    } else {
        Err(format!(
            "for {arch} the compiler's output speaks of {found:?}, the PTX of {expected:?}"
        ))
    }
}
