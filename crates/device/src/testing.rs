//! The devices that tests run on.
//!
//! `TOLLGATE_TEST_DEVICES` names them, separated by commas: `virtual`, `cuda`, `cuda:1`. Without it
//! tests run on the virtual GPU, and on the first CUDA device where there is one. What is named
//! must be there: then its absence is a failure. The first call of a process says which devices are
//! used.

use std::io::Write;
use std::sync::OnceLock;

use crate::{DeviceSpec, Gpu};

/// The devices, opened once for the process, with the name that a failure is reported under.
///
/// # Panics
/// When a device that was asked for is not there: this is for tests.
pub fn devices() -> &'static [(String, Gpu)] {
    static DEVICES: OnceLock<Vec<(String, Gpu)>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let opened = match std::env::var("TOLLGATE_TEST_DEVICES") {
            Ok(names) => named(&names),
            Err(_) => found(),
        };
        let names: Vec<String> = opened
            .iter()
            .map(|(spec, gpu)| format!("{spec} ({})", gpu.facts().name))
            .collect();
        // Not `eprintln!`, which tests capture: which devices were used is to be seen.
        let _ = writeln!(std::io::stderr(), "devices: {}", names.join(", "));
        opened
    })
}

fn named(names: &str) -> Vec<(String, Gpu)> {
    let specs = names.split(',').map(str::trim).filter(|n| !n.is_empty());
    specs
        .map(|name| {
            let spec: DeviceSpec = name
                .parse()
                .unwrap_or_else(|error| panic!("TOLLGATE_TEST_DEVICES: {error}"));
            let gpu = Gpu::open(spec)
                .unwrap_or_else(|error| panic!("TOLLGATE_TEST_DEVICES={names}: {error}"));
            (spec.to_string(), gpu)
        })
        .collect()
}

fn found() -> Vec<(String, Gpu)> {
    let specs = [DeviceSpec::Virtual, DeviceSpec::Cuda(0)];
    specs
        .into_iter()
        .filter_map(|spec| Some((spec.to_string(), Gpu::open(spec).ok()?)))
        .collect()
}
