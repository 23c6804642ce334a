//! Registry, prebuilt PTX, manifest and sources speak of the same kernels.
//!
//! No compiler is needed: hashes tell that a source or a header was changed without making its PTX
//! anew. That the PTX is what the sources compile to is checked by `cargo xtask kernels --check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tollgate_kernels::{MODULES, Module};
use toml::{Table, Value};

#[path = "../../crates/xtask/src/kernels/hash.rs"]
mod hash;

/// What to do about most failures here.
const CURE: &str = "run cargo xtask kernels and commit kernels/prebuilt";

/// Folders of the package that are no family of kernels.
const NO_FAMILIES: &[&str] = &["include", "prebuilt", "src", "tests"];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn modules() -> impl Iterator<Item = &'static Module> {
    MODULES.iter().copied().flatten().copied()
}

/// The registry's images of a module, with the architecture in their file's name.
fn images(module: &Module) -> impl Iterator<Item = (&'static str, &'static str)> {
    let hopper = module.sm_90a.map(|text| ("sm_90a", text));
    [("sm_80", module.sm_80)].into_iter().chain(hopper)
}

/// The modules of the manifest.
fn manifest() -> Vec<Table> {
    let path = package().join("prebuilt/MANIFEST.toml");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; {CURE}", path.display()));
    let manifest: Table = toml::from_str(&text).unwrap();
    tables(&manifest, "module")
}

/// The tables of an array; none if the key is absent.
fn tables(table: &Table, key: &str) -> Vec<Table> {
    let list = table.get(key).map_or(&[][..], |v| v.as_array().unwrap());
    list.iter().map(|v| v.as_table().unwrap().clone()).collect()
}

fn text<'a>(table: &'a Table, key: &str) -> &'a str {
    table
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {key} in {table:?}"))
}

/// All files below a folder of the package with one of the extensions, from the package's folder.
fn files(folder: &str, extensions: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<PathBuf> = vec![package().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                open.push(path);
            } else if extensions.contains(&extension.as_ref()) {
                let relative = path.strip_prefix(package()).unwrap();
                let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
                found.insert(parts.join("/"));
            }
        }
    }
    found
}

/// All sources of kernels, from the package's folder.
fn sources() -> BTreeSet<String> {
    let mut found = files("", &["cu", "ptx"]);
    found.retain(|path| !NO_FAMILIES.contains(&path.split('/').next().unwrap()));
    found
}

#[test]
fn every_source_is_in_the_manifest_as_it_is_now() {
    let mut described = BTreeSet::new();
    for module in manifest() {
        let (name, source) = (text(&module, "name"), text(&module, "source"));
        let now = hash::of_source(package(), source).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(
            now == text(&module, "source_sha256"),
            "kernels/{source}, or a header that it includes, was changed and not compiled; {CURE}"
        );
        described.insert(source.to_owned());
    }
    assert_eq!(described, sources(), "manifest and sources differ; {CURE}");
}

#[test]
fn every_module_is_registered_with_the_ptx_of_the_manifest() {
    // Name and architecture, with the hash of the file.
    let mut described = BTreeMap::new();
    for module in manifest() {
        for image in tables(&module, "image") {
            let file = text(&image, "file");
            let stem = format!("{}.", text(&module, "name"));
            let arch = file
                .strip_prefix(&stem)
                .and_then(|rest| rest.strip_suffix(".ptx"));
            let key = format!(
                "{}{}",
                stem,
                arch.unwrap_or_else(|| panic!("{file}: odd name"))
            );
            described.insert(key, text(&image, "sha256").to_owned());
        }
    }
    let mut registered = BTreeMap::new();
    for module in modules() {
        for (arch, ptx) in images(module) {
            let key = format!("{}.{arch}", module.name);
            let twice = registered.insert(key, hash::of_text(ptx));
            assert_eq!(twice, None, "{} is registered twice", module.name);
        }
    }
    let mut problems = Vec::new();
    for (file, sha256) in &described {
        match registered.get(file) {
            None => problems.push(format!("{file} is not in src/registry")),
            Some(other) if other != sha256 => {
                problems.push(format!(
                    "{file} is not the one that the manifest describes; {CURE}"
                ));
            }
            Some(_) => {}
        }
    }
    let unknown = registered
        .keys()
        .filter(|file| !described.contains_key(*file));
    problems.extend(unknown.map(|file| format!("{file} is not in the manifest; {CURE}")));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_prebuilt_file_is_registered() {
    let images = modules().flat_map(|m| images(m).map(move |(arch, _)| (m.name, arch)));
    let registered: BTreeSet<String> = images
        .map(|(name, arch)| format!("prebuilt/{name}.{arch}.ptx"))
        .collect();
    let there = files("prebuilt", &["ptx"]);
    let unknown: Vec<_> = there.difference(&registered).collect();
    assert!(unknown.is_empty(), "not in src/registry: {unknown:?}");
}

/// An entry as its PTX declares it.
#[derive(Debug, PartialEq)]
struct Entry<'a> {
    name: &'a str,
    /// Its parameters, one declaration each.
    params: Vec<&'a str>,
    /// Threads of a block at most, where the source bounds them.
    max_threads: Option<u32>,
}

fn entries(ptx: &str) -> Vec<Entry<'_>> {
    let mut found = Vec::new();
    for piece in ptx.split(".entry ").skip(1) {
        let (name, rest) = piece.split_once('(').unwrap();
        let (params, rest) = rest.split_once(')').unwrap();
        // What stands between the parameters and the body.
        let (directives, _) = rest.split_once('{').unwrap();
        let bound = directives.split_once(".maxntid").map(|(_, rest)| {
            let extents = rest.lines().next().unwrap().split(',');
            extents.map(|n| n.trim().parse::<u32>().unwrap()).product()
        });
        let params = params.split(',').map(str::trim);
        found.push(Entry {
            name: name.trim(),
            params: params.filter(|param| !param.is_empty()).collect(),
            max_threads: bound,
        });
    }
    found
}

#[test]
fn declarations_of_entries_are_read() {
    let ptx = ".visible .entry a(\n\t.param .align 8 .b8 a_param_0[24]\n)\n.maxntid 32, 8, 1\n{\n}\n\
               .visible .entry b(\n\t.param .u64 x,\n\t.param .u32 y\n)\n{\n}\n";
    let expected = [
        Entry {
            name: "a",
            params: vec![".param .align 8 .b8 a_param_0[24]"],
            max_threads: Some(256),
        },
        Entry {
            name: "b",
            params: vec![".param .u64 x", ".param .u32 y"],
            max_threads: None,
        },
    ];
    assert_eq!(entries(ptx), expected);
}

#[test]
fn every_entry_takes_one_struct() {
    for module in modules() {
        for (arch, ptx) in images(module) {
            let found = entries(ptx);
            assert!(!found.is_empty(), "{} for {arch} has no entry", module.name);
            for entry in found {
                let one_struct = matches!(
                    entry.params.as_slice(),
                    [param] if param.contains(" .b8 ") && param.ends_with(']')
                );
                assert!(
                    one_struct,
                    "{} of {}: {:?}",
                    entry.name, module.name, entry.params
                );
            }
        }
    }
}

/// The text of the registry, which is read here as text: statics cannot be enumerated.
fn registry() -> String {
    let sources = files("src/registry", &["rs"]);
    let texts = sources
        .iter()
        .map(|path| std::fs::read_to_string(package().join(path)).unwrap());
    texts.collect()
}

#[test]
fn every_entry_is_registered() {
    let registry = registry();
    for module in modules() {
        for (_, ptx) in images(module) {
            for Entry { name, .. } in entries(ptx) {
                // A macro may put the prefix, which all have, before a shorter name.
                let short = name.strip_prefix("tg_").unwrap_or(name);
                assert!(
                    registry.contains(&format!("\"{name}\""))
                        || registry.contains(&format!("\"{short}\"")),
                    "{name} of {} is not in src/registry; add it, or remove the kernel",
                    module.name
                );
            }
        }
    }
}

/// Every entry that the registry's text spells out, with the threads that are spelled out after it,
/// if they are: `entry: "tg_a", threads: 256`, `kernel("tg_a", 256)`, `A = "tg_a", 256;`.
fn spelled_out(registry: &str) -> Vec<(&str, Option<u32>)> {
    let literals = registry.split("\"tg_").skip(1);
    literals
        .filter_map(|rest| rest.split_once('"'))
        // Alone it is the prefix, for a macro.
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, rest)| {
            let rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            let rest = rest.strip_prefix("threads:").unwrap_or(rest).trim_start();
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            (name, rest[..end].parse().ok())
        })
        .collect()
}

#[test]
fn kernels_that_are_spelled_out_are_found() {
    let text = "A: Kernel = Kernel {\n entry: \"tg_a\",\n threads: 64,\n};\n\
                B: Kernel = kernel(&M, \"tg_b\", 128);\nC = \"tg_c\", 256;\n\
                D = \"tg_d\", THREADS; concat!(\"tg_\", $name)";
    let expected = [
        ("a", Some(64)),
        ("b", Some(128)),
        ("c", Some(256)),
        ("d", None),
    ];
    assert_eq!(spelled_out(text), expected);
}

#[test]
fn the_registry_names_entries_and_their_block_sizes() {
    let registry = registry();
    for (name, threads) in spelled_out(&registry) {
        let name = format!("tg_{name}");
        let (module, entry) = modules()
            .flat_map(|module| images(module).map(move |(_, ptx)| (module, ptx)))
            .flat_map(|(module, ptx)| entries(ptx).into_iter().map(move |entry| (module, entry)))
            .find(|(_, entry)| entry.name == name)
            .unwrap_or_else(|| panic!("src/registry has {name}, and no module has such an entry"));
        if let (Some(threads), Some(bound)) = (threads, entry.max_threads) {
            assert_eq!(
                threads, bound,
                "threads of {name} in {} (registry, PTX)",
                module.name
            );
        }
    }
}

#[test]
fn inline_assembly_has_one_home() {
    for path in files("", &["cu", "cuh", "h"]) {
        if path.starts_with("include/tollgate/ptx/") {
            continue;
        }
        let code = std::fs::read_to_string(package().join(&path)).unwrap();
        for (number, line) in code.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            assert!(
                !words.any(|word| matches!(word, "asm" | "__asm__")),
                "{path}, line {}: inline assembly belongs into include/tollgate/ptx",
                number + 1
            );
        }
    }
}
