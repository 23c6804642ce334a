//! What a launch did, in numbers that do not depend on the machine it was simulated on.

use serde::Serialize;

use crate::program::Class;

/// Bytes and transactions of one direction of a memory space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Warp instructions.
    pub instructions: u64,
    /// Bytes that the lanes asked for, each lane's counted.
    pub requested_bytes: u64,
    /// Global memory: 32-byte sectors touched, each once an instruction.
    pub sectors: u64,
    /// Shared memory: passes over the 32 banks of 4 bytes. Lanes of 8 bytes go by half-warps and lanes of
    /// 16 by quarter-warps; in a pass each bank delivers one word to every lane that wants it (for
    /// atomics: to one lane), so a group takes as many passes as its busiest bank has words.
    pub wavefronts: u64,
    /// Shared memory: passes beyond the first of each group of lanes.
    pub conflicts: u64,
}

impl Traffic {
    fn add(&mut self, other: &Self) {
        self.instructions += other.instructions;
        self.requested_bytes += other.requested_bytes;
        self.sectors += other.sectors;
        self.wavefronts += other.wavefronts;
        self.conflicts += other.conflicts;
    }

    /// Bytes moved: sectors of 32 bytes.
    pub fn moved_bytes(&self) -> u64 {
        self.sectors * 32
    }
}

/// Counters of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Warp instructions by class, in the order of [`Class::ALL`].
    pub warp_instructions: [u64; Class::ALL.len()],
    /// Instructions summed over the lanes that executed them.
    pub thread_instructions: u64,
    /// Branches at which lanes parted.
    pub divergent_branches: u64,
    /// Branches that some lane took.
    pub branches: u64,
    /// Global loads.
    pub global_read: Traffic,
    /// Global stores.
    pub global_write: Traffic,
    /// Global atomics and reductions.
    pub global_atomic: Traffic,
    /// Shared loads (with `ldmatrix`).
    pub shared_read: Traffic,
    /// Shared stores (with `stmatrix`).
    pub shared_write: Traffic,
    /// Shared atomics.
    pub shared_atomic: Traffic,
    /// Local loads.
    pub local_read: Traffic,
    /// Local stores.
    pub local_write: Traffic,
    /// Loads of parameters and constants.
    pub constant_read: Traffic,
    /// Bytes that asynchronous copies brought from global to shared memory.
    pub async_read_bytes: u64,
    /// Sectors they touched.
    pub async_read_sectors: u64,
    /// Bytes that bulk and tensor copies wrote to global memory.
    pub async_write_bytes: u64,
    /// Sectors they touched.
    pub async_write_sectors: u64,
    /// Bytes written to or read from other blocks' shared memory.
    pub distributed_shared_bytes: u64,
    /// Multiply-adds of tensor cores, times two.
    pub tensor_flops: u64,
    /// Arrivals at barriers of blocks and clusters, by warp.
    pub barrier_arrivals: u64,
    /// Turns in which a warp found itself waiting.
    pub barrier_waits: u64,
    /// Blocks that ran.
    pub blocks: u64,
}

impl Counters {
    /// Adds what another part of the launch did.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self
            .warp_instructions
            .iter_mut()
            .zip(&other.warp_instructions)
        {
            *mine += theirs;
        }
        self.thread_instructions += other.thread_instructions;
        self.divergent_branches += other.divergent_branches;
        self.branches += other.branches;
        self.global_read.add(&other.global_read);
        self.global_write.add(&other.global_write);
        self.global_atomic.add(&other.global_atomic);
        self.shared_read.add(&other.shared_read);
        self.shared_write.add(&other.shared_write);
        self.shared_atomic.add(&other.shared_atomic);
        self.local_read.add(&other.local_read);
        self.local_write.add(&other.local_write);
        self.constant_read.add(&other.constant_read);
        self.async_read_bytes += other.async_read_bytes;
        self.async_read_sectors += other.async_read_sectors;
        self.async_write_bytes += other.async_write_bytes;
        self.async_write_sectors += other.async_write_sectors;
        self.distributed_shared_bytes += other.distributed_shared_bytes;
        self.tensor_flops += other.tensor_flops;
        self.barrier_arrivals += other.barrier_arrivals;
        self.barrier_waits += other.barrier_waits;
        self.blocks += other.blocks;
    }

    /// Warp instructions of a class.
    pub fn instructions(&self, class: Class) -> u64 {
        self.warp_instructions[class as usize]
    }

    /// Warp instructions in all.
    pub fn total_instructions(&self) -> u64 {
        self.warp_instructions.iter().sum()
    }
}
