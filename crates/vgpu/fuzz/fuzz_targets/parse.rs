//! Any bytes as PTX: `cargo +nightly fuzz run parse` in the folder of the crate. The same check
//! runs for a bounded time, and without nightly, in the crate's tests.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_vgpu::ptx::harness::check_parser;

fuzz_target!(|data: &[u8]| {
    if let Err(violation) = check_parser(data) {
        panic!("{violation}");
    }
});
