//! The 64 bits of an mbarrier object in shared memory.
//!
//! PTX leaves them opaque. Here, from the lowest bit on: 20 bits of arrivals that are pending, 20 bits
//! of arrivals that the next phase will expect, 21 bits of transaction bytes in two's complement, 3
//! bits of the phase's number. A state that an arrival returns is the same word as it was before.

/// Arrivals and transaction bytes at most.
pub(super) const MOST: u32 = (1 << 20) - 1;

/// An unpacked object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Arrivals that the phase waits for.
    pub pending: u32,
    /// Arrivals that the next phase will wait for.
    pub expected: u32,
    /// Bytes expected but not there, or, below zero, there before they were expected.
    pub tx: i32,
    /// Number of the phase, modulo 8.
    pub phase: u32,
}

impl Word {
    pub fn unpack(bits: u64) -> Self {
        Self {
            pending: bits as u32 & MOST,
            expected: (bits >> 20) as u32 & MOST,
            // Moved to the top, so that the sign comes along on the way down.
            tx: ((bits >> 40 << 43) as i64 >> 43) as i32,
            phase: (bits >> 61) as u32,
        }
    }

    pub fn pack(self) -> u64 {
        u64::from(self.pending & MOST)
            | u64::from(self.expected & MOST) << 20
            | (self.tx as u64 & 0x1f_ffff) << 40
            | u64::from(self.phase) << 61
    }

    /// Whether nothing is outstanding.
    pub fn is_complete(self) -> bool {
        self.pending == 0 && self.tx == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_what_they_hold() {
        let most = MOST as i32;
        for tx in [0, 1, -1, most, -most, 4096] {
            for (pending, expected, phase) in [(0, 1, 0), (MOST, MOST, 7), (3, 128, 5)] {
                let word = Word {
                    pending,
                    expected,
                    tx,
                    phase,
                };
                assert_eq!(Word::unpack(word.pack()), word);
            }
        }
    }
}
