//! A block: its shared memory, its barriers, its warps.

use super::warp::Warp;
use crate::program::{Dst, PredDst};
use crate::race::Clock;

/// Where static shared memory begins; below it nothing may be touched, so a null pointer into shared
/// memory is found. (On sm_90 the system keeps the first KiB of a block's shared memory.)
pub const SHARED_BASE: u32 = 1024;
/// Where local memory of a thread begins in its space.
pub const LOCAL_START: u32 = 64;
/// Generic addresses of shared memory: the window's start plus the `shared::cluster` address.
pub const SHARED_WINDOW: u64 = 0x10_0000_0000;
/// Generic addresses of local memory.
pub const LOCAL_WINDOW: u64 = 0x20_0000_0000;
/// Generic addresses of the parameter block.
pub const PARAM_WINDOW: u64 = 0x30_0000_0000;
/// Bytes of each window.
pub const WINDOW_BYTES: u64 = 1 << 32;
/// A `shared::cluster` address is `(rank + 1) << CLUSTER_SHIFT | offset`; one below is the block's own.
pub const CLUSTER_SHIFT: u32 = 24;

/// Shared memory of a block. Offsets are `shared::cta` addresses.
#[derive(Default)]
pub struct Shared {
    data: Vec<u8>,
    /// A bit a byte that was written; empty when nothing asks.
    written: Vec<u64>,
}

impl Shared {
    /// `bytes` counts from [`SHARED_BASE`] on.
    pub fn new(bytes: u32, track_writes: bool) -> Self {
        let total = (SHARED_BASE + bytes) as usize;
        Self {
            data: vec![0; total],
            written: vec![0; if track_writes { total.div_ceil(64) } else { 0 }],
        }
    }

    /// End of the usable offsets.
    pub fn end(&self) -> u32 {
        self.data.len() as u32
    }

    /// Whether `bytes` bytes from `offset` on are inside.
    #[inline(always)]
    pub fn holds(&self, offset: u64, bytes: u64) -> bool {
        offset >= u64::from(SHARED_BASE)
            && offset
                .checked_add(bytes)
                .is_some_and(|end| end <= self.data.len() as u64)
    }

    /// Loads 1, 2, 4 or 8 bytes; the caller checked the bounds.
    #[inline(always)]
    pub fn load(&self, offset: u32, bytes: u32) -> u64 {
        let at = offset as usize;
        match bytes {
            1 => u64::from(self.data[at]),
            2 => u64::from(u16::from_le_bytes([self.data[at], self.data[at + 1]])),
            4 => {
                let mut word = [0; 4];
                word.copy_from_slice(&self.data[at..at + 4]);
                u64::from(u32::from_le_bytes(word))
            }
            _ => {
                let mut word = [0; 8];
                word.copy_from_slice(&self.data[at..at + 8]);
                u64::from_le_bytes(word)
            }
        }
    }

    /// Stores 1, 2, 4 or 8 bytes; the caller checked the bounds. Does not mark them written.
    #[inline(always)]
    pub fn store(&mut self, offset: u32, bytes: u32, value: u64) {
        let at = offset as usize;
        self.data[at..at + bytes as usize].copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
    }

    /// Bytes of a range that the caller checked.
    #[inline]
    pub fn bytes(&self, offset: u32, bytes: u32) -> &[u8] {
        &self.data[offset as usize..(offset + bytes) as usize]
    }

    /// Writes bytes to a range that the caller checked, and marks them written.
    pub fn write(&mut self, offset: u32, from: &[u8]) {
        self.data[offset as usize..offset as usize + from.len()].copy_from_slice(from);
        self.mark_written(offset, from.len() as u32, true);
    }

    /// Marks bytes as written or as never written.
    #[inline]
    pub fn mark_written(&mut self, offset: u32, bytes: u32, written: bool) {
        if !self.written.is_empty() {
            mark_bits(&mut self.written, offset, bytes, written);
        }
    }

    /// Whether all bytes were written (true where nothing tracks it).
    #[inline]
    pub fn is_written(&self, offset: u32, bytes: u32) -> bool {
        self.written.is_empty() || all_bits(&self.written, offset, bytes)
    }
}

/// Sets or clears a range of bits.
#[inline]
pub(crate) fn mark_bits(words: &mut [u64], offset: u32, count: u32, value: bool) {
    each_word(offset, count, |index, bits| {
        if value {
            words[index] |= bits;
        } else {
            words[index] &= !bits;
        }
        true
    });
}

/// Whether all bits of a range are set.
#[inline]
pub(crate) fn all_bits(words: &[u64], offset: u32, count: u32) -> bool {
    let mut all = true;
    each_word(offset, count, |index, bits| {
        all = words[index] & bits == bits;
        all
    });
    all
}

#[inline(always)]
fn each_word(offset: u32, count: u32, mut f: impl FnMut(usize, u64) -> bool) {
    let (mut at, end) = (offset, offset + count);
    while at < end {
        let shift = at % 64;
        let run = (64 - shift).min(end - at);
        let bits = (u64::MAX >> (64 - run)) << shift;
        if !f((at / 64) as usize, bits) {
            return;
        }
        at += run;
    }
}

/// One of the 16 barriers of a block.
#[derive(Default)]
pub struct Barrier {
    /// How often it completed.
    pub generation: u64,
    /// Threads that have arrived in this generation.
    pub arrived: u32,
    /// Threads it waits for, from the first arrival; 0 before it. `u32::MAX`: all threads that live.
    pub expected: u32,
    /// What the arrivals publish.
    pub clock: Clock,
    /// Lanes counted in this generation, by warp, where threads are counted: with the first lane of
    /// a warp come those that do not exist or have exited.
    pub counted: Vec<u32>,
    /// How many threads gave a true and a false predicate to a reduction.
    pub votes: [u32; 2],
    /// Who waits for this generation.
    pub waiters: Vec<Waiter>,
    /// The first arrival of this generation.
    pub first: Option<Arrival>,
}

/// Lanes that wait at a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// Warp in the block.
    pub warp: u32,
    /// Its lanes.
    pub lanes: u32,
    /// What the barrier's end gives them.
    pub gives: Gives,
}

/// The result of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// None.
    Nothing,
    /// The number of true predicates.
    Count(Dst),
    /// Whether all were true.
    All(PredDst),
    /// Whether any was true.
    Any(PredDst),
}

/// Who arrived, and how.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Instruction index.
    pub pc: u32,
    /// Warp in the block.
    pub warp: u32,
    /// One of the lanes.
    pub lane: usize,
    /// Whether it reduces.
    pub reduces: bool,
}

/// A block.
#[derive(Default)]
pub struct Block {
    /// `%ctaid`.
    pub index: [u32; 3],
    /// Number in the grid, x fastest.
    pub linear: u64,
    /// Shared memory.
    pub shared: Shared,
    /// Its warps; `None` while one is at work.
    pub warps: Vec<Option<Box<Warp>>>,
    /// Named barriers.
    pub barriers: [Barrier; 16],
    /// Its mbarriers.
    pub mbarriers: crate::exec::Mbarriers,
    /// Its threads' bulk groups.
    pub bulk: crate::exec::BulkGroups,
    /// Its warpgroups' products.
    pub warpgroups: Vec<crate::exec::Warpgroup>,
    /// Threads that have not exited.
    pub live_threads: u32,
    /// Whether it said `griddepcontrol.launch_dependents`.
    pub released_dependents: bool,
    /// Registers that `setmaxnreg.dec` gave back and nobody took.
    pub free_registers: u32,
    /// Its name in the race detector.
    pub uid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_knows_its_bytes() {
        let mut shared = Shared::new(100, true);
        assert!(shared.holds(1024, 100) && !shared.holds(1024, 101) && !shared.holds(1000, 4));
        shared.store(1030, 2, 0xbeef);
        assert_eq!(shared.load(1028, 4), 0xbeef_0000);
        assert!(!shared.is_written(1030, 2));
        shared.mark_written(1030, 2, true);
        assert!(shared.is_written(1030, 2) && !shared.is_written(1029, 2));
        shared.write(1080, &[5; 20]);
        assert!(shared.is_written(1080, 20));
        assert_eq!(shared.load(1088, 8), 0x0505_0505_0505_0505);
    }
}
