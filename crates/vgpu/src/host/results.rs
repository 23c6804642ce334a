//! What the machine found and counted.

use std::sync::Arc;

use serde::Serialize;

use super::machine::Machine;
use super::occupancy::Occupancy;
use crate::counters::Counters;
use crate::machine::TraceLine;
use crate::memory::Owner;
use crate::report::{Kind, Report, Site};

/// What a launch was and did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaunchRecord {
    /// Its number: launches count from 0 in the order in which they were put into streams.
    pub launch: u32,
    /// Kernel.
    pub kernel: Arc<str>,
    /// Device.
    pub device: u32,
    /// Number of the stream.
    pub stream: u32,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; ones without clusters.
    pub cluster: [u32; 3],
    /// Bytes of shared memory that the kernel declares.
    pub static_shared: u32,
    /// Bytes of shared memory that the launch added.
    pub dynamic_shared: u32,
    /// 32-bit registers of a thread, as declared or estimated.
    pub registers: u32,
    /// How many blocks of it an SM holds.
    pub occupancy: Occupancy,
    /// What it did.
    pub counters: Counters,
    /// Warp instructions: its virtual time, in nanoseconds, when nothing runs beside it.
    pub cycles: u64,
    /// Seed of its schedule.
    pub seed: u64,
    /// Whether it came to its end; a fault cuts it short.
    pub complete: bool,
}

impl Machine {
    /// Takes what the checks found so far. A report like one that waits here is not added; 1,024 wait at
    /// most.
    pub fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut self.shared.queues().reports)
    }

    /// A copy of what the checks found and nobody took.
    pub fn reports(&self) -> Vec<Report> {
        self.shared.queues().reports.clone()
    }

    /// Takes the records of the launches that ended, in the order of their ends. The last 65,536 are
    /// kept.
    pub fn take_launches(&self) -> Vec<LaunchRecord> {
        std::mem::take(&mut self.shared.queues().records).into()
    }

    /// Takes the instructions that launches executed, by the launch's number, if
    /// [`trace`](super::Config::trace) asks for them.
    pub fn take_trace(&self) -> Vec<(u32, Vec<TraceLine>)> {
        std::mem::take(&mut self.shared.queues().traces)
    }

    /// Waits for all work and tells of every allocation that is left, of devices and of pinned memory,
    /// in the order in which they were made. Call it when the program should have freed everything.
    /// Variables of modules do not count.
    pub fn check_leaks(&self) -> Vec<Report> {
        for device in 0..self.device_count() {
            // A device that has failed has no work left.
            let _ = self.synchronize_device(device);
        }
        let queues = self.shared.queues();
        let mut left: Vec<_> = queues
            .allocations
            .iter()
            .filter(|(_, allocated)| match allocated.owner {
                Owner::Device(_) => true,
                Owner::Module(_) => false,
                Owner::Host => allocated.host.is_some(),
            })
            .collect();
        left.sort_by_key(|(_, allocated)| allocated.number);
        left.into_iter()
            .map(|(base, allocated)| {
                let (device, what) = match allocated.owner {
                    Owner::Device(device) | Owner::Module(device) => {
                        (device, format!("of device {device}"))
                    }
                    Owner::Host => (0, "of pinned host memory".to_owned()),
                };
                Report {
                    kind: Kind::Leak,
                    message: format!(
                        "{} bytes {what} at {base:#x} (allocation number {}) were never freed",
                        allocated.bytes, allocated.number
                    ),
                    kernel: String::new(),
                    device,
                    site: Site {
                        action: format!("allocation number {}", allocated.number),
                        block: None,
                        thread: None,
                        ptx_line: 0,
                        ptx: String::new(),
                        source: None,
                    },
                    other: None,
                    seed: self.config().seed,
                }
            })
            .collect()
    }
}
