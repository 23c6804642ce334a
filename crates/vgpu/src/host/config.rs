//! What a machine is made of.

use std::time::Duration;

use super::{Error, Result};
use crate::machine::{Arch, Checks};

/// Devices of a machine at most: the address space has room for that many.
pub const MAX_DEVICES: u32 = 64;

/// What a [`Machine`](super::Machine) is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Devices, 1 to [`MAX_DEVICES`].
    pub devices: u32,
    /// What each of them is.
    pub arch: Arch,
    /// Bytes of memory of each device; pinned host memory has the same limit of its own.
    pub memory_bytes: u64,
    /// Which checks are on.
    pub checks: Checks,
    /// Decides every schedule: two runs with the same seed and the same calls from one host thread
    /// do the same.
    pub seed: u64,
    /// CPU threads that a grid of independent blocks may use.
    pub threads: usize,
    /// Warp instructions of a launch at most; one that needs more ends as a livelock.
    pub budget: u64,
    /// Whether to keep the executed instructions, and how many of each launch at most.
    pub trace: Option<usize>,
    /// How long a host thread waits for other host threads when nothing on the machine can run (a
    /// stream waits for a value that nobody has written). Then it is a deadlock.
    pub patience: Duration,
}

impl Default for Config {
    /// One `sm_90a` of 16 GiB with the default checks, seed 0, and all CPUs.
    fn default() -> Self {
        Self {
            devices: 1,
            arch: Arch::default(),
            memory_bytes: 16 << 30,
            checks: Checks::default(),
            seed: 0,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            budget: 1 << 34,
            trace: None,
            patience: Duration::from_secs(10),
        }
    }
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        if !(1..=MAX_DEVICES).contains(&self.devices) {
            return Err(Error::InvalidValue(format!(
                "{} devices; 1 to {MAX_DEVICES} are possible",
                self.devices
            )));
        }
        Ok(())
    }
}
