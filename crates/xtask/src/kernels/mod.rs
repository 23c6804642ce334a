//! The prebuilt PTX of the kernels package: made from its sources, checked, and described in a
//! manifest.

mod build;
mod difference;
mod hash;
mod manifest;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use build::Built;
use manifest::{Manifest, Toolchain};
use source::Source;

use crate::cuda::Compiler;
use crate::files;

/// The package, from the workspace's root.
const PACKAGE: &str = "kernels";
/// The folder of what is made, in the package.
const PREBUILT: &str = "prebuilt";
/// Its description, in that folder.
const MANIFEST: &str = "MANIFEST.toml";
/// Most sources compiled at the same time. Each takes about a second of one core.
const MOST_AT_ONCE: usize = 8;

/// What the command is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task<'a> {
    /// Compile what has changed and write it; with a name, that module alone.
    Write(Option<&'a str>),
    /// Compile everything, write nothing, and fail on every difference.
    Check,
}

/// Runs the task in the workspace at `root`.
///
/// # Errors
/// Everything that is wrong with a source; differences, with [`Task::Check`].
pub fn run(root: &Path, task: Task) -> Result<String, String> {
    let package = Package(root.join(PACKAGE));
    let sources = source::find(&package.0)?;
    match task {
        Task::Write(only) => package.write(root, &sources, only),
        Task::Check => package.check(root, &sources),
    }
}

/// The package's folder.
struct Package(PathBuf);

impl Package {
    fn prebuilt(&self, file: &str) -> PathBuf {
        self.0.join(PREBUILT).join(file)
    }

    fn write(&self, root: &Path, all: &[Source], only: Option<&str>) -> Result<String, String> {
        let manifest = self.prebuilt(MANIFEST);
        // A manifest that cannot be read is made anew; it holds nothing that is made elsewhere.
        let mut known = files::read_if_present(&manifest)?
            .and_then(|text| Manifest::parse(&text).ok())
            .unwrap_or_default();
        if known.compiler != Toolchain::current() {
            if let Some(name) = only.filter(|_| !known.modules.is_empty()) {
                return Err(format!(
                    "the compiler or its flags changed, so {name} alone cannot be made: run cargo \
                     xtask kernels without --only"
                ));
            }
            known = Manifest {
                compiler: Toolchain::current(),
                modules: Vec::new(),
            };
        }

        let chosen = choose(all, only)?;
        let mut stale = Vec::new();
        for source in &chosen {
            if !self.is_current(source, &known)? {
                stale.push(*source);
            }
        }
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        if !stale.is_empty() {
            let compiler = Compiler::installed(root)?;
            for result in build_all(&compiler, &self.0, &stale) {
                match result {
                    Ok(built) => made.push(built),
                    Err(e) => errors.push(e),
                }
            }
        }

        let num_made = made.len();
        for built in made {
            for (file, text) in &built.files {
                files::write(&self.prebuilt(file), text)?;
            }
            known
                .modules
                .retain(|module| module.name != built.module.name);
            known.modules.push(built.module);
        }
        let mut removed = Vec::new();
        if only.is_none() {
            known
                .modules
                .retain(|module| all.iter().any(|source| source.name == module.name));
            // A source may have come, and been compiled by other means, since `all` was looked up.
            let wanted = wanted_files(&source::find(&self.0)?);
            for file in self.prebuilt_files()? {
                if !wanted.contains(&file) {
                    let path = self.prebuilt(&file);
                    fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                    println!("removed {PACKAGE}/{PREBUILT}/{file}: it has no source");
                    removed.push(file);
                }
            }
        }
        known.modules.sort_by(|a, b| a.name.cmp(&b.name));
        let text = known.text();
        if files::read_if_present(&manifest)?.as_deref() != Some(text.as_str()) {
            files::write(&manifest, text)?;
        }
        if !errors.is_empty() {
            return Err(format!(
                "{} of {} sources failed; what they made before is kept\n{}",
                errors.len(),
                stale.len(),
                errors.join("\n")
            ));
        }
        Ok(format!(
            "{} modules: {num_made} made, {} up to date, {} files without a source removed",
            chosen.len(),
            chosen.len() - num_made,
            removed.len()
        ))
    }

    /// Whether a source's files and their description are what a compilation would make.
    fn is_current(&self, source: &Source, known: &Manifest) -> Result<bool, String> {
        let Some(module) = known.module(&source.name) else {
            return Ok(false);
        };
        let images: Vec<String> = source.targets.iter().map(|&t| source.image(t)).collect();
        if module.source != source.path
            || module.source_sha256 != source.sha256
            || !module.images.iter().map(|image| &image.file).eq(&images)
        {
            return Ok(false);
        }
        for image in &module.images {
            let text = files::read_if_present(&self.prebuilt(&image.file))?;
            if text.map(|text| hash::of_text(&text)).as_ref() != Some(&image.sha256) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check(&self, root: &Path, sources: &[Source]) -> Result<String, String> {
        let path = self.prebuilt(MANIFEST);
        let committed = match files::read_if_present(&path)? {
            Some(text) => text,
            None => {
                return Err(format!(
                    "{} is missing; {}",
                    path.display(),
                    difference::CURE
                ));
            }
        };
        let compiler = Compiler::installed(root)?;
        let all: Vec<&Source> = sources.iter().collect();
        let (mut modules, mut problems) = (Vec::new(), Vec::new());
        for result in build_all(&compiler, &self.0, &all) {
            match result {
                Ok(built) => {
                    for (file, text) in &built.files {
                        problems.extend(self.compare(file, text)?);
                    }
                    modules.push(built.module);
                }
                Err(e) => problems.push(e),
            }
        }
        let wanted = wanted_files(sources);
        for file in self.prebuilt_files()? {
            if !wanted.contains(&file) {
                problems.push(format!("{PREBUILT}/{file} has no source"));
            }
        }
        let expected = Manifest {
            compiler: Toolchain::current(),
            modules,
        };
        problems.extend(difference::of_manifests(&committed, &expected, sources));
        if problems.is_empty() {
            return Ok(format!(
                "{} modules are what their sources compile to, without spills and local memory",
                sources.len()
            ));
        }
        problems.push(difference::CURE.to_owned());
        Err(problems.join("\n"))
    }

    /// What is wrong with a prebuilt file.
    fn compare(&self, file: &str, text: &str) -> Result<Option<String>, String> {
        let committed = files::read_if_present(&self.prebuilt(file))?;
        Ok(match committed {
            None => Some(format!("{PREBUILT}/{file} is missing")),
            Some(committed) if hash::of_text(&committed) != hash::of_text(text) => Some(format!(
                "{PREBUILT}/{file} is not what its source compiles to"
            )),
            Some(_) => None,
        })
    }

    /// All files under `prebuilt/` but the manifest, from there, with `/`.
    fn prebuilt_files(&self) -> Result<Vec<String>, String> {
        let top = self.0.join(PREBUILT);
        let (mut found, mut open) = (Vec::new(), vec![top.clone()]);
        while let Some(folder) = open.pop().filter(|folder| folder.exists()) {
            for path in files::children(&folder)? {
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let relative = path.strip_prefix(&top).unwrap_or(&path);
                let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
                found.push(parts.join("/"));
            }
        }
        found.retain(|file| file != MANIFEST);
        found.sort();
        Ok(found)
    }
}

/// The sources that a name means: `family/name`, or `name` alone.
fn choose<'a>(all: &'a [Source], only: Option<&str>) -> Result<Vec<&'a Source>, String> {
    let Some(name) = only else {
        return Ok(all.iter().collect());
    };
    let chosen: Vec<&Source> = all
        .iter()
        .filter(|source| {
            source.name == name || source.name.rsplit('/').next().is_some_and(|n| n == name)
        })
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = all.iter().map(|source| source.name.as_str()).collect();
        return Err(format!(
            "no source is called {name}; there are {}",
            names.join(", ")
        ));
    }
    Ok(chosen)
}

/// The files that sources are made into, from `prebuilt/`.
fn wanted_files(sources: &[Source]) -> BTreeSet<String> {
    sources
        .iter()
        .flat_map(|source| source.targets.iter().map(|&target| source.image(target)))
        .collect()
}

/// Builds several sources at a time, and says so; results in the order of the sources.
fn build_all(
    compiler: &Compiler,
    package: &Path,
    sources: &[&Source],
) -> Vec<Result<Built, String>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<Mutex<Option<Result<Built, String>>>> =
        sources.iter().map(|_| Mutex::new(None)).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(source) = sources.get(i) else { break };
            let start = Instant::now();
            let result = build::build(compiler, package, source);
            println!(
                "[{}/{}] {}: {}, {:.1} s",
                done.fetch_add(1, Ordering::Relaxed) + 1,
                sources.len(),
                source.name,
                result.as_ref().map_or("FAILED".to_owned(), Built::summary),
                start.elapsed().as_secs_f64()
            );
            if let Ok(mut place) = results[i].lock() {
                *place = Some(result);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores.min(MOST_AT_ONCE).min(sources.len()) {
            scope.spawn(work);
        }
    });
    results
        .into_iter()
        .map(|place| match place.into_inner() {
            Ok(Some(result)) => result,
            _ => Err("a thread that compiles ended early".to_owned()),
        })
        .collect()
}
