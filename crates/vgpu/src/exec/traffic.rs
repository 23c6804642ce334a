//! Counting what accesses cost: sectors of global memory, passes over the banks of shared memory.

use super::memory::Shape;
use crate::counters::Traffic;
use crate::lane::{LANES, lanes};

/// log2 of a sector's bytes.
const SECTOR_SHIFT: u32 = 5;
/// Banks of shared memory, of one 4-byte word each.
const BANKS: usize = 32;

impl Traffic {
    /// An access whose transactions are not modelled: parameters, constants, local memory.
    #[inline]
    pub(super) fn plain(&mut self, mask: u32, bytes: u32) {
        self.instructions += 1;
        self.requested_bytes += u64::from(mask.count_ones()) * u64::from(bytes);
    }

    /// An access to global memory, `bytes` bytes a lane at naturally aligned addresses.
    #[inline]
    pub(super) fn global(&mut self, addresses: &[u64; LANES], mask: u32, bytes: u32, shape: Shape) {
        self.plain(mask, bytes);
        let first = addresses[mask.trailing_zeros() as usize & (LANES - 1)];
        self.sectors += match shape {
            Shape::Same => 1,
            Shape::Run => {
                let last = first + u64::from(mask.count_ones()) * u64::from(bytes) - 1;
                (last >> SECTOR_SHIFT) - (first >> SECTOR_SHIFT) + 1
            }
            Shape::Scattered => scattered_sectors(addresses, mask),
        };
    }

    /// An access to shared memory, `bytes` bytes a lane at naturally aligned addresses.
    ///
    /// Lanes of 8 bytes go by half-warps, lanes of 16 by quarter-warps, so that a pass moves at most
    /// 128 bytes. Within a pass every bank delivers one word, to as many lanes as want it; lanes that
    /// want different words of one bank take further passes. Atomics (`exclusive`) do not share a word.
    #[inline]
    pub(super) fn shared(
        &mut self,
        addresses: &[u64; LANES],
        mask: u32,
        bytes: u32,
        shape: Shape,
        exclusive: bool,
    ) {
        self.plain(mask, bytes);
        let words = (bytes as usize).div_ceil(4);
        let per_pass = BANKS / words;
        let mut ideal = 0;
        let mut passes = 0;
        for start in (0..LANES).step_by(per_pass) {
            let part = mask & ((u64::MAX >> (64 - per_pass)) << start) as u32;
            if part == 0 {
                continue;
            }
            ideal += 1;
            passes += if !exclusive && (shape == Shape::Same || (shape == Shape::Run && bytes >= 4))
            {
                1
            } else {
                u64::from(bank_passes(addresses, part, words, exclusive))
            };
        }
        self.wavefronts += passes;
        self.conflicts += passes - ideal;
    }
}

/// Distinct sectors; no access straddles two.
fn scattered_sectors(addresses: &[u64; LANES], mask: u32) -> u64 {
    let mut sectors = [0; LANES];
    let mut count = 0;
    let mut rising = true;
    for lane in lanes(mask) {
        let sector = addresses[lane] >> SECTOR_SHIFT;
        if count > 0 {
            // Neighbours in one sector, the common case, take no place.
            if sectors[count - 1] == sector {
                continue;
            }
            rising &= sectors[count - 1] < sector;
        }
        sectors[count] = sector;
        count += 1;
    }
    let sectors = &mut sectors[..count];
    if rising {
        return count as u64;
    }
    sectors.sort_unstable();
    1 + sectors.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
}

/// Passes that the lanes of one group take: the most words that any bank delivers.
fn bank_passes(addresses: &[u64; LANES], mask: u32, words: usize, exclusive: bool) -> u32 {
    // The first word each bank is asked for; most accesses ask each bank for one only.
    let mut first = [u64::MAX; BANKS];
    let mut simple = true;
    for lane in lanes(mask) {
        let start = addresses[lane] >> 2;
        for word in start..start + words as u64 {
            let seen = &mut first[word as usize % BANKS];
            simple &= *seen == u64::MAX || (*seen == word && !exclusive);
            *seen = word;
        }
    }
    if simple {
        return 1;
    }
    let mut all = [0; LANES];
    let mut count = 0;
    for lane in lanes(mask) {
        let start = addresses[lane] >> 2;
        for word in start..start + words as u64 {
            // Sorted by bank, then by word.
            all[count] = (word % BANKS as u64) << 48 | word;
            count += 1;
        }
    }
    let all = &mut all[..count];
    all.sort_unstable();
    let (mut most, mut depth) = (1, 1);
    for pair in all.windows(2) {
        if pair[0] >> 48 != pair[1] >> 48 {
            depth = 1;
        } else if exclusive || pair[0] != pair[1] {
            depth += 1;
        }
        most = most.max(depth);
    }
    most
}
