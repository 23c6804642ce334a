//! The generated headers are what the declarations say.

use std::path::Path;

use tollgate_kernels::abi::headers;

#[test]
fn headers_are_what_the_declarations_say() {
    let bless = std::env::var_os("TOLLGATE_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for header in headers() {
        let path = folder.join(header.path);
        if bless {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &header.text).unwrap();
        }
        let committed =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            committed == header.text,
            "{} differs from its declaration; run TOLLGATE_BLESS=1 cargo test -p tollgate-kernels \
             headers and commit it",
            header.path
        );
    }
}
