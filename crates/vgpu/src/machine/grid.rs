//! A launch: its geometry and parameters, and the making of its blocks.

#![allow(clippy::vec_box, reason = "warps are large and change hands often")]

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::arch::Arch;
use super::block::{Block, LOCAL_START, Shared};
use super::checks::Checks;
use super::cluster::Cluster;
use super::warp::{Split, Warp};
use crate::lane::{LANES, Row, Value};
use crate::program::{Program, Special};
use crate::race::Clock;

/// A launch, as its threads see it.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Device.
    pub device: u32,
    /// Number of the launch, unique in the machine.
    pub launch: u32,
    /// Name of its first block in the race detector; block `rank` of cluster `id` is that many blocks
    /// on.
    pub first_uid: u32,
    /// Seed of its schedule.
    pub seed: u64,
    /// What the device can do.
    pub arch: Arch,
    /// Blocks.
    pub blocks: [u32; 3],
    /// Threads a block.
    pub threads: [u32; 3],
    /// Blocks a cluster; ones without a cluster launch.
    pub cluster: [u32; 3],
    /// Whether the launch or the kernel named a cluster size.
    pub explicit_cluster: bool,
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The parameter block.
    pub params: Arc<[u8]>,
    /// Whether the grids before it that it depends on are complete (`griddepcontrol.wait`).
    pub dependency: Arc<AtomicBool>,
    /// What those grids did, from when they are complete: `griddepcontrol.wait` acquires it.
    pub dependency_clock: Arc<OnceLock<Clock>>,
    /// Set when every block has said `griddepcontrol.launch_dependents` or is done.
    pub dependents: Arc<AtomicBool>,
}

impl Grid {
    /// Threads of a block.
    pub fn block_threads(&self) -> u32 {
        self.threads.iter().product()
    }

    /// Blocks of a cluster.
    pub fn cluster_blocks(&self) -> u32 {
        self.cluster.iter().product()
    }

    /// Blocks of the grid.
    pub fn total_blocks(&self) -> u64 {
        self.blocks.iter().map(|&n| u64::from(n)).product()
    }

    /// Clusters of the grid.
    pub fn total_clusters(&self) -> u64 {
        self.total_blocks() / u64::from(self.cluster_blocks())
    }

    /// `%tid` of a thread by its number in the block.
    pub fn thread_index(&self, thread: u32) -> [u32; 3] {
        unflatten(u64::from(thread), self.threads)
    }

    /// `%ctaid` of the block that has this name in the race detector.
    pub fn block_of_uid(&self, uid: u32) -> Option<[u32; 3]> {
        let number = u64::from(uid.checked_sub(self.first_uid)?);
        let per = u64::from(self.cluster_blocks());
        let (_, origin) = self.cluster_origin(number / per);
        let inside = unflatten(number % per, self.cluster);
        (number < self.total_blocks()).then(|| [0, 1, 2].map(|axis| origin[axis] + inside[axis]))
    }

    /// `%ctaid` of the first block of a cluster.
    fn cluster_origin(&self, cluster: u64) -> ([u32; 3], [u32; 3]) {
        let per = [0, 1, 2].map(|axis| self.blocks[axis] / self.cluster[axis]);
        let id = unflatten(cluster, per);
        (id, [0, 1, 2].map(|axis| id[axis] * self.cluster[axis]))
    }

    /// Makes a cluster, with its warps at the first instruction.
    pub(super) fn make_cluster(
        &self,
        id: u64,
        program: &Program,
        checks: Checks,
        spare: &mut Vec<Box<Warp>>,
    ) -> Cluster {
        let (cluster_index, origin) = self.cluster_origin(id);
        let threads = self.block_threads();
        let blocks = (0..self.cluster_blocks())
            .map(|rank| {
                let inside = unflatten(u64::from(rank), self.cluster);
                let index = [0, 1, 2].map(|axis| origin[axis] + inside[axis]);
                let linear = u64::from(index[0])
                    + u64::from(self.blocks[0])
                        * (u64::from(index[1]) + u64::from(self.blocks[1]) * u64::from(index[2]));
                let aligned =
                    (program.static_shared).next_multiple_of(program.dynamic_align.max(1));
                let shared = if self.dynamic_shared == 0 {
                    program.static_shared
                } else {
                    aligned
                };
                let mut block = Block {
                    index,
                    linear,
                    shared: Shared::new(shared + self.dynamic_shared, checks.memory_init),
                    live_threads: threads,
                    ..Block::default()
                };
                block.warps = (0..threads.div_ceil(LANES as u32))
                    .map(|warp| {
                        let place = Place {
                            warp,
                            block: index,
                            rank,
                            inside,
                            cluster_index,
                            static_shared: program.static_shared,
                        };
                        let warp = spare.pop().unwrap_or_default();
                        Some(self.start_warp(warp, &place, program, checks))
                    })
                    .collect();
                block
            })
            .collect();
        Cluster::new(id, blocks, self.seed)
    }

    fn start_warp(
        &self,
        mut warp: Box<Warp>,
        place: &Place,
        program: &Program,
        checks: Checks,
    ) -> Box<Warp> {
        let first = place.warp * LANES as u32;
        let count = (self.block_threads() - first).min(LANES as u32);
        let live = u32::MAX >> (LANES as u32 - count);
        let Warp {
            mut regs,
            mut preds,
            mut defined,
            mut pred_defined,
            mut local,
            mut local_written,
            ..
        } = std::mem::take(&mut *warp);
        // Undefined registers read as 0, so that runs are the same.
        refill(&mut regs, program.rows as usize, Row([0; LANES]));
        refill(&mut preds, program.preds as usize, 0);
        refill(&mut defined, program.rows as usize, 0);
        refill(&mut pred_defined, program.preds as usize, 0);
        let bytes = if program.local_bytes == 0 {
            0
        } else {
            (LOCAL_START + program.local_bytes) as usize * LANES
        };
        refill(&mut local, bytes, 0);
        let tracked = if checks.memory_init {
            bytes.div_ceil(64)
        } else {
            0
        };
        refill(&mut local_written, tracked, 0);
        for &(special, slot) in &program.specials {
            self.fill_special(special, &mut regs[slot as usize..], place);
            defined[slot as usize] = u32::MAX;
        }
        *warp = Warp {
            index: place.warp,
            regs,
            preds,
            defined,
            pred_defined,
            local,
            local_written,
            live,
            splits: vec![Split {
                pc: 0,
                mask: live,
                wait: None,
                behind: false,
                last: 0,
            }],
            ..Warp::default()
        };
        warp
    }

    fn fill_special(&self, special: Special, rows: &mut [Row], place: &Place) {
        let first = place.warp * LANES as u32;
        let all = |value: u32| [value; LANES];
        let by_lane = |f: &dyn Fn(u32) -> u32| std::array::from_fn(|lane| f(lane as u32));
        let axis = usize::from;
        let clusters = [0, 1, 2].map(|axis| self.blocks[axis] / self.cluster[axis]);
        let values: [u32; LANES] = match special {
            Special::Tid(a) => by_lane(&|lane| self.thread_index(first + lane)[axis(a)]),
            Special::Ntid(a) => all(self.threads[axis(a)]),
            Special::Ctaid(a) => all(place.block[axis(a)]),
            Special::Nctaid(a) => all(self.blocks[axis(a)]),
            Special::Laneid => by_lane(&|lane| lane),
            Special::Warpid => all(place.warp),
            Special::Nwarpid => all(self.block_threads().div_ceil(LANES as u32)),
            Special::Smid => {
                let linear = place.block[0] + self.blocks[0] * place.block[1];
                all(linear % self.arch.multiprocessors)
            }
            Special::Nsmid => all(self.arch.multiprocessors),
            Special::Gridid => {
                u64::store(rows, &[u64::from(self.launch); LANES], u32::MAX);
                return;
            }
            Special::IsExplicitCluster => all(u32::from(self.explicit_cluster)),
            Special::Clusterid(a) => all(place.cluster_index[axis(a)]),
            Special::Nclusterid(a) => all(clusters[axis(a)]),
            Special::ClusterCtaid(a) => all(place.inside[axis(a)]),
            Special::ClusterNctaid(a) => all(self.cluster[axis(a)]),
            Special::ClusterCtarank => all(place.rank),
            Special::ClusterNctarank => all(self.cluster_blocks()),
            Special::LanemaskEq => by_lane(&|lane| 1 << lane),
            Special::LanemaskLe => by_lane(&|lane| u32::MAX >> (31 - lane)),
            Special::LanemaskLt => by_lane(&|lane| (1 << lane) - 1),
            Special::LanemaskGe => by_lane(&|lane| u32::MAX << lane),
            Special::LanemaskGt => by_lane(&|lane| (u32::MAX << lane) << 1),
            Special::DynamicSmemSize => all(self.dynamic_shared),
            Special::TotalSmemSize => all(self.dynamic_shared + place.static_shared),
            // Read anew by each instruction that names them.
            Special::Clock
            | Special::ClockHi
            | Special::Clock64
            | Special::Globaltimer
            | Special::GlobaltimerLo
            | Special::GlobaltimerHi => return,
        };
        u32::store(rows, &values, u32::MAX);
    }
}

/// Where a warp is.
struct Place {
    warp: u32,
    block: [u32; 3],
    rank: u32,
    inside: [u32; 3],
    cluster_index: [u32; 3],
    static_shared: u32,
}

fn refill<T: Clone>(values: &mut Vec<T>, len: usize, value: T) {
    values.clear();
    values.resize(len, value);
}

/// Index of element `linear` in a box, x fastest.
pub(super) fn unflatten(linear: u64, dims: [u32; 3]) -> [u32; 3] {
    let (x, y) = (u64::from(dims[0].max(1)), u64::from(dims[1].max(1)));
    [
        (linear % x) as u32,
        (linear / x % y) as u32,
        (linear / x / y) as u32,
    ]
}
