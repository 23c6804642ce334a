//! What holds for the functions as a whole.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::proc_address::{exports, symbols};
use super::unsupported::{self, TOPICS};

/// The table for readers.
fn document() -> String {
    let all = symbols().count();
    let missing = unsupported::EXPORTS.len();
    let mut text = format!(
        "# What the driver library does not model\n\n\
         Of the {all} functions of the CUDA 13.0 driver API, with all their versions, {} are \
         modelled. \
         The other {missing} are\nexported too, and answer `CUDA_ERROR_NOT_SUPPORTED` (801).\n\n\
         Made by `UPDATE=1 cargo test -p tollgate-vgpu-driver not_modelled`, which also compares \
         it.\n",
        all - missing
    );
    for (topic, names) in TOPICS {
        let _ = write!(
            text,
            "\n## {}{}\n\n",
            topic[..1].to_uppercase(),
            &topic[1..]
        );
        for name in *names {
            let _ = writeln!(text, "- `{name}`");
        }
    }
    text
}

#[test]
fn not_modelled_is_what_the_document_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/NOT_MODELLED.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), document());
}

#[test]
fn every_function_of_cuda_is_exported_once() {
    let exported: Vec<&str> = exports().map(|export| export.name).collect();
    let unique: BTreeSet<&str> = exported.iter().copied().collect();
    assert_eq!(exported.len(), unique.len(), "a name is exported twice");
    let wanted: BTreeSet<&str> = symbols().map(|(name, _)| name).collect();
    let missing: Vec<_> = wanted.difference(&unique).collect();
    let foreign: Vec<_> = unique.difference(&wanted).collect();
    assert!(
        missing.is_empty() && foreign.is_empty(),
        "missing {missing:?}, foreign {foreign:?}"
    );
}
