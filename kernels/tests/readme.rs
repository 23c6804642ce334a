//! The README's status table lists every kernel.

use std::path::Path;

use tollgate_kernels::MODULES;

#[test]
fn the_status_table_lists_every_module() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme =
        std::fs::read_to_string(&readme).unwrap_or_else(|e| panic!("{}: {e}", readme.display()));
    let missing: Vec<&str> = MODULES
        .iter()
        .flat_map(|family| family.iter().map(|module| module.name))
        .filter(|name| !readme.contains(&format!("`{name}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "not in the README's status table: {}",
        missing.join(", ")
    );
}
