//! The kernels of `../kernels/` as cases: everything that one needs to run, and what it must give.
//!
//! A [`Case`] knows how to fill memory, launch, read back and compare; a [`Rig`] is a machine with the
//! case's PTX loaded, or a changed text of it. What is run is decided by the size and the seed: the
//! seed makes both the data and the schedule.

// Every test binary that includes this module uses a part of it.
#![allow(dead_code, unused_imports)]

mod blocks;
mod data;
mod fp8;
mod hopper;
mod language;
mod params;
mod peers;
mod products;
#[path = "../references/mod.rs"]
pub mod references;
mod rig;
mod routing;
mod tensors;
mod warps;

pub use data::{Random, close, same};
pub use params::{Params, launch};
pub use rig::{Failure, Outcome, Rig, Run};

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tollgate_vgpu::host::Config;
use tollgate_vgpu::machine::{Arch, Checks};

/// What a case does with a machine and the number of a size.
type Check = Box<dyn Fn(&Run<'_>, usize) -> Result<(), Failure> + Send + Sync>;

/// A kernel, or two that belong together, with its data and what it must give.
pub struct Case {
    /// Unique; the entry, and after a colon what else tells it from other cases.
    pub name: &'static str,
    /// The source in `../kernels/`, without its ending.
    pub file: &'static str,
    /// The PTX.
    pub ptx: &'static str,
    /// Devices of its machine.
    pub devices: u32,
    /// How many sizes there are. Size 0 is small, takes some milliseconds, goes every way through the
    /// kernel and wraps every ring; the others are the edges and one that is larger.
    pub sizes: usize,
    check: Check,
}

impl Case {
    /// A case whose sizes are problems of its own type. `check` runs one and compares the results.
    fn new<P: Sync>(
        name: &'static str,
        (file, ptx): (&'static str, &'static str),
        problems: &'static [P],
        check: impl Fn(&Run<'_>, &P) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            file,
            ptx,
            devices: 1,
            sizes: problems.len(),
            check: Box::new(move |run, size| check(run, &problems[size])),
        }
    }

    fn on_devices(self, devices: u32) -> Self {
        Self { devices, ..self }
    }

    /// The entry it launches, or the first of them.
    pub fn entry(&self) -> &'static str {
        self.name.split(':').next().expect("a split has a part")
    }

    /// The machine it is run on: as small as its kernels permit, with every check, on one thread.
    pub fn config(&self) -> Config {
        Config {
            devices: self.devices,
            arch: match self.file.ends_with("_sm90a") {
                true => Arch::SM_90A,
                false => Arch::SM_80,
            },
            memory_bytes: 256 << 20,
            checks: Checks::ALL,
            threads: 1,
            budget: 1 << 24,
            ..Config::default()
        }
    }
}

/// `(name, text)` of a PTX file.
macro_rules! kernel_file {
    ($name:literal) => {
        ($name, include_str!(concat!("../kernels/", $name, ".ptx")))
    };
}
use kernel_file;

/// Every case.
pub fn cases() -> Vec<Case> {
    [
        routing::cases(),
        blocks::cases(),
        warps::cases(),
        language::cases(),
        peers::cases(),
        products::cases(),
        hopper::cases(),
        tensors::cases(),
        fp8::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The case of that name.
pub fn case(name: &str) -> Case {
    cases()
        .into_iter()
        .find(|case| case.name == name)
        .unwrap_or_else(|| panic!("there is no case {name}"))
}

/// Calls `work` for each item on all CPUs and gives the results in the items' order.
pub fn spread<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(index) else {
                            return mine;
                        };
                        mine.push((index, work(item)));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker panicked"))
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
