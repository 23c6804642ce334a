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
    let mut banks = [Bank::default(); BANKS];
    // Words that were asked for, each with the one before it in its bank; a group asks for 32 at most.
    let mut asked = [(0, NONE); BANKS];
    let mut count = 0;
    let mut most = 0;
    for lane in lanes(mask) {
        let start = (addresses[lane] >> 2) as u32;
        for word in start..start + words as u32 {
            let bank = &mut banks[word as usize % BANKS];
            // Addresses mostly rise from lane to lane: then no list is looked through.
            let known = !exclusive
                && bank.depth > 0
                && (word == bank.highest
                    || (word < bank.highest && listed(&asked, bank.last, word)));
            if known {
                continue;
            }
            asked[count] = (word, if bank.depth == 0 { NONE } else { bank.last });
            *bank = Bank {
                depth: bank.depth + 1,
                highest: bank.highest.max(word),
                last: count as u8,
            };
            count += 1;
            most = most.max(bank.depth);
        }
    }
    most
}

/// What a bank was asked for in one group.
#[derive(Clone, Copy, Default)]
struct Bank {
    /// Words.
    depth: u32,
    /// The highest one.
    highest: u32,
    /// Place of the last one in the list of all.
    last: u8,
}

/// The end of a bank's list.
const NONE: u8 = u8::MAX;

fn listed(asked: &[(u32, u8); BANKS], mut at: u8, word: u32) -> bool {
    while let Some(&(other, before)) = asked.get(usize::from(at)) {
        if other == word {
            return true;
        }
        at = before;
    }
    false
}
