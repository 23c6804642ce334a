//! Any sequence of calls of the host API: `cargo +nightly fuzz run host_api` in the folder of the
//! crate. The same check runs for a bounded time, and without nightly, in the crate's tests.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_vgpu::host::check_host_api;

fuzz_target!(|data: &[u8]| {
    if let Err(violation) = check_host_api(data) {
        panic!("{violation}");
    }
});
