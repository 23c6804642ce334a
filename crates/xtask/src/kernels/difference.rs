//! How a committed manifest differs from what it must be, in words.

use super::manifest::{Image, Manifest, Module};
use super::source::Source;
use super::{MANIFEST, PREBUILT};

/// What to do about any difference.
pub const CURE: &str = "run cargo xtask kernels and commit what it changes under kernels/prebuilt";

/// One line a difference. `expected` lacks modules whose sources do not compile; those are left out of
/// the comparison.
pub fn of_manifests(committed: &str, expected: &Manifest, sources: &[Source]) -> Vec<String> {
    let name = format!("{PREBUILT}/{MANIFEST}");
    let known = match Manifest::parse(committed) {
        Ok(known) => known,
        Err(e) => return vec![format!("{name} cannot be read: {e}")],
    };
    let mut found = Vec::new();
    if known.compiler != expected.compiler {
        found.push(format!("{name}: compiler, its flags or the format differ"));
    }
    for module in &known.modules {
        if !sources.iter().any(|source| source.name == module.name) {
            found.push(format!("{name}: {} has no source", module.name));
        }
    }
    for module in &expected.modules {
        match known.module(&module.name) {
            None => found.push(format!("{name}: {} is missing", module.name)),
            Some(old) => found.extend(
                of_modules(old, module).map(|what| format!("{name}: {}: {what}", module.name)),
            ),
        }
    }
    // Order and comments count too; that they alone differ is rare.
    let complete = expected.modules.len() == sources.len();
    let committed = committed.replace("\r\n", "\n");
    if found.is_empty() && complete && committed != expected.text() {
        found.push(format!("{name}: its text differs"));
    }
    found
}

/// The first difference of two modules.
fn of_modules(old: &Module, new: &Module) -> Option<String> {
    if old == new {
        return None;
    }
    if old.source != new.source || old.source_sha256 != new.source_sha256 {
        return Some("the source, or a header of it, has changed".to_owned());
    }
    if old.images.len() != new.images.len() {
        return Some("other images are made".to_owned());
    }
    let changed = old.images.iter().zip(&new.images).find(|(a, b)| a != b);
    Some(changed.map_or_else(
        || "its description differs".to_owned(),
        |(a, b)| of_images(a, b),
    ))
}

fn of_images(old: &Image, new: &Image) -> String {
    let file = &new.file;
    if old.file != new.file || old.sha256 != new.sha256 {
        return format!("{file} has changed");
    }
    let changed = new
        .entries
        .iter()
        .find(|entry| !old.entries.contains(entry));
    match changed {
        Some(entry) => format!("{file}: resources or instructions of {} differ", entry.name),
        None => format!("{file}: its entries differ"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Toolchain, tests::module};
    use super::super::source::{Language, Target};
    use super::*;

    fn source(name: &str) -> Source {
        Source {
            name: name.to_owned(),
            path: format!("{name}.cu"),
            language: Language::Cuda,
            sha256: "00ff".to_owned(),
            targets: vec![Target::Sm80],
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            compiler: Toolchain::current(),
            modules: vec![module("gating/gate"), module("permute/rows")],
        }
    }

    fn found(committed: &Manifest) -> Vec<String> {
        let sources = [source("gating/gate"), source("permute/rows")];
        of_manifests(&committed.text(), &manifest(), &sources)
    }

    #[test]
    fn the_same_manifest_has_no_differences_whatever_its_line_ends() {
        assert_eq!(found(&manifest()), [""; 0]);
        let text = manifest().text().replace('\n', "\r\n");
        let sources = [source("gating/gate"), source("permute/rows")];
        assert_eq!(of_manifests(&text, &manifest(), &sources), [""; 0]);
    }

    #[test]
    fn each_kind_of_difference_is_named() {
        let name = "prebuilt/MANIFEST.toml: ";
        type Change<'a> = &'a dyn Fn(&mut Manifest);
        let cases: [(Change, &str); 8] = [
            (
                &|m| m.compiler = Toolchain::default(),
                "compiler, its flags",
            ),
            (
                &|m| m.modules[0].name = "gating/old".into(),
                "gating/old has no source",
            ),
            (
                &|m| m.modules[1].source_sha256 = "11".into(),
                "permute/rows: the source, or a header",
            ),
            (
                &|m| m.modules[1].images.clear(),
                "permute/rows: other images",
            ),
            (
                &|m| m.modules[0].images[0].sha256 = "11".into(),
                "gating/gate: gating/gate.sm_80.ptx has changed",
            ),
            (
                &|m| m.modules[0].images[0].entries[0].max_threads = None,
                "resources or instructions of tg_entry",
            ),
            (
                &|m| {
                    let entry = m.modules[0].images[0].entries[0].clone();
                    m.modules[0].images[0].entries.push(entry);
                },
                "gating/gate: gating/gate.sm_80.ptx: its entries differ",
            ),
            (&|m| m.modules.reverse(), "its text differs"),
        ];
        for (change, expected) in cases {
            let mut committed = manifest();
            change(&mut committed);
            let found = found(&committed);
            assert!(found[0].starts_with(name), "{found:?}");
            assert!(found[0].contains(expected), "{found:?} {expected}");
        }
    }

    #[test]
    fn a_module_that_does_not_compile_is_not_reported_twice() {
        let mut expected = manifest();
        expected.modules.pop();
        let sources = [source("gating/gate"), source("permute/rows")];
        assert_eq!(
            of_manifests(&manifest().text(), &expected, &sources),
            [""; 0]
        );
        let found = of_manifests("[compiler", &expected, &sources);
        assert!(found[0].contains("cannot be read"), "{found:?}");
    }
}
