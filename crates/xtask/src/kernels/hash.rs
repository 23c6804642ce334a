//! Hashes of a kernel's source and of text files. The test of the registry compiles this file too: it
//! notices a change of a source on machines without a compiler.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

/// The folder of the common headers, in the package.
const INCLUDE: &str = "include";

/// SHA-256 in hexadecimal over a source and every file of the package that it includes, directly or
/// not. `source` is a path from the package's folder, with `/`.
///
/// Includes under `#if` count whether they are taken or not: the hash may be too careful and never
/// too careless. Headers of CUDA belong to the compiler, whose version is told apart.
///
/// # Errors
/// A file that is not there, or an include that cannot be followed.
pub fn of_source(package: &Path, source: &str) -> Result<String, String> {
    let mut files = BTreeMap::new();
    let mut open = vec![source.to_owned()];
    while let Some(path) = open.pop() {
        if files.contains_key(&path) {
            continue;
        }
        let text = std::fs::read_to_string(package.join(&path))
            .map_err(|e| format!("{}: {e}", package.join(&path).display()))?;
        for (number, line) in text.lines().enumerate() {
            if let Some(what) = include_directive(line) {
                let found = resolve(package, &path, what)
                    .map_err(|e| format!("{path}, line {}: {e}", number + 1))?;
                open.extend(found);
            }
        }
        files.insert(path, text);
    }
    let mut hasher = Sha256::new();
    hasher.update(format!("{source}\n"));
    for (path, text) in files {
        let text = with_unix_ends(&text);
        // The length keeps text from moving between one file and the next unnoticed.
        hasher.update(format!("{path} {}\n{text}", text.len()));
    }
    Ok(hexadecimal(&hasher.finalize()))
}

/// SHA-256 in hexadecimal of a text, whatever its line ends.
pub fn of_text(text: &str) -> String {
    hexadecimal(&Sha256::digest(with_unix_ends(text)))
}

fn with_unix_ends(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What follows `#include`.
fn include_directive(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start();
    Some(rest.strip_prefix("include")?.trim())
}

/// The file of the package that an include in `path` means; `None` for a header of CUDA or of C++.
fn resolve(package: &Path, path: &str, what: &str) -> Result<Option<String>, String> {
    let common = |name: &str| clean(&format!("{INCLUDE}/{name}"));
    let is_file = |path: &String| package.join(path).is_file();
    if let Some(name) = between(what, '<', '>') {
        return Ok(common(name).filter(is_file));
    }
    let name = between(what, '"', '"')
        .ok_or_else(|| format!("#include {what} is neither \"name\" nor <name>"))?;
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    clean(&format!("{folder}/{name}"))
        .filter(is_file)
        .or_else(|| common(name).filter(is_file))
        .map(Some)
        .ok_or_else(|| {
            format!(
                "\"{name}\" is neither beside the file nor under {INCLUDE}/; headers of CUDA are \
                 written <{name}>"
            )
        })
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    let (name, _) = text.strip_prefix(open)?.split_once(close)?;
    Some(name)
}

/// The path without `.` and `..`; `None` if it leaves the package.
fn clean(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
