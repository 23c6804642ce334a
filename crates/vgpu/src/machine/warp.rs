//! A warp: its registers, and where its lanes are.

use std::fmt;

use super::cluster::Cluster;
use crate::lane::Row;
use crate::race::WarpId;

/// Lanes at one instruction.
#[derive(Debug)]
pub struct Split {
    /// Index of the next instruction.
    pub pc: u32,
    /// The lanes.
    pub mask: u32,
    /// What they wait for.
    pub wait: Option<Wait>,
    /// Whether the instruction that waits is the one before `pc`.
    pub behind: bool,
    /// When it ran last, in turns of the warp: the fairness among splits.
    pub last: u64,
}

/// What lanes wait for.
pub enum Wait {
    /// These lanes of the warp are to arrive at the same instruction.
    Converge(u32),
    /// A condition of the cluster.
    For {
        /// In words, for the report of a deadlock: `barrier 1, 64 of 128 threads have arrived`.
        reason: Box<dyn Fn(&Cluster) -> String + Send>,
        /// Whether the wait is over.
        ready: Box<dyn Fn(&Cluster) -> bool + Send>,
        /// Whether the hardware would give up after a while (`try_wait`): such lanes are woken when
        /// nothing else can run.
        gives_up: bool,
    },
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Converge(lanes) => write!(f, "Converge({lanes:#x})"),
            Self::For { gives_up, .. } => write!(f, "For(gives_up: {gives_up})"),
        }
    }
}

/// A warp.
#[derive(Default)]
pub struct Warp {
    /// Index in its block.
    pub index: u32,
    /// Its registers.
    pub regs: Vec<Row>,
    /// Its predicates, a lane a bit.
    pub preds: Vec<u32>,
    /// The carry flag of `add.cc` and its kind, a lane a bit.
    pub carry: u32,
    /// Lanes in which each register was set, by first row.
    pub defined: Vec<u32>,
    /// Likewise for predicates.
    pub pred_defined: Vec<u32>,
    /// Local memory, thread after thread.
    pub local: Vec<u8>,
    /// A bit a byte of `local` that was written.
    pub local_written: Vec<u64>,
    /// Lanes that have not exited.
    pub live: u32,
    /// Where the live lanes are.
    pub splits: Vec<Split>,
    /// Turns it had.
    pub turns: u64,
    /// Its name in the race detector.
    pub race: Option<WarpId>,
    /// Lanes that arrived at the cluster's barrier and did not wait yet, by the lowest bit of the
    /// barrier's generation then.
    pub cluster_arrivals: [u32; 2],
    /// Registers a thread that `setmaxnreg` set; 0 before it.
    pub registers: u32,
    /// Asynchronous operations it started.
    pub asynchronous: crate::exec::AsyncState,
}

impl Warp {
    /// Whether a split can run.
    pub(super) fn can_run(&self, cluster: &Cluster) -> bool {
        self.splits
            .iter()
            .any(|split| split.is_ready(self.live, cluster))
    }
}

impl Split {
    pub(super) fn is_ready(&self, live: u32, cluster: &Cluster) -> bool {
        match &self.wait {
            None => true,
            Some(Wait::Converge(lanes)) => lanes & live & !self.mask == 0,
            Some(Wait::For { ready, .. }) => ready(cluster),
        }
    }
}
