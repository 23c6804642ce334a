//! The swizzling modes of shared memory (PTX ISA 5.5.7 and 9.7.15.5.1.2).
//!
//! A swizzle permutes the 16-byte chunks inside each 128-byte line of shared memory by the number
//! of that line. Writing it as a function of the *byte address* covers both users: a bulk tensor
//! copy swizzles where it writes, `wgmma` swizzles where it reads, and both look at the address
//! bits themselves, so neither needs to know where a tile starts.

/// Bytes that a swizzle moves as a whole.
pub const CHUNK: u32 = 16;

/// A swizzling mode with 16-byte atomicity, the only ones of `sm_90`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Swizzle {
    /// Addresses stay as they are.
    #[default]
    None,
    /// Address bit 4 ^= bit 7. Rows of 32 bytes; repeats after 256.
    B32,
    /// Address bits 4–5 ^= bits 7–8. Rows of 64 bytes; repeats after 512.
    B64,
    /// Address bits 4–6 ^= bits 7–9. Rows of 128 bytes; repeats after 1,024.
    B128,
}

impl Swizzle {
    /// Every mode, from none to the widest.
    pub const ALL: [Swizzle; 4] = [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128];

    /// How many address bits change: 0, 1, 2 or 3.
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 2,
            Swizzle::B128 => 3,
        }
    }

    /// 16-byte chunks in a row of the pattern: 1 without swizzle, else 2, 4 or 8.
    #[inline]
    pub const fn chunks(self) -> u32 {
        1 << self.bits()
    }

    /// Bytes in a row of the pattern: 16 (no swizzle), 32, 64 or 128.
    #[inline]
    pub const fn span(self) -> u32 {
        CHUNK << self.bits()
    }

    /// Bytes after which the pattern repeats: 16 (no swizzle), 256, 512 or 1,024.
    #[inline]
    pub const fn period(self) -> u32 {
        match self {
            Swizzle::None => CHUNK,
            _ => 128 << self.bits(),
        }
    }

    /// The address at which the byte of the unswizzled address `address` lies.
    ///
    /// Its own inverse: applied twice, it gives back the address.
    #[inline]
    pub const fn apply(self, address: u32) -> u32 {
        self.apply_from(address, 0)
    }

    /// [`Swizzle::apply`] for a pattern whose line 0 is the line `phase` of a 1,024-byte block:
    /// the *matrix base offset* of a `wgmma` descriptor (9.7.15.5.1.2.2).
    #[inline]
    pub const fn apply_from(self, address: u32, phase: u32) -> u32 {
        let mask = self.chunks() - 1;
        let line = (address >> 7).wrapping_sub(phase);
        address ^ ((line & mask) << 4)
    }
}
