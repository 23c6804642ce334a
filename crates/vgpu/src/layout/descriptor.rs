//! Matrix descriptors: how `wgmma` finds an operand in shared memory (PTX ISA 9.7.15.5.1.2).
//!
//! An operand is seen as M or N by K; `mn` below is the row of A or the column of B. Counted in
//! chunks of 16 bytes, or `T = 128 / bits` elements, the canonical layouts (9.7.15.5.1.2.1.3) give
//! an element its address before the swizzle. `W` is the row of the pattern in chunks: 2, 4 or 8.
//!
//! | major | swizzle | address − start |
//! |-------|---------|-----------------|
//! | K     | none    | `16·(mn % 8) + SBO·(mn / 8) + LBO·(k / T)` |
//! | K     | `W`     | `16W·(mn % 8) + SBO·(mn / 8) + 16·(k / T)` |
//! | MN    | none    | `16·(k % 8) + LBO·(k / 8) + SBO·(mn / T)` |
//! | MN    | `W`     | `16W·(k % 8) + SBO·(k / 8) + 16·(mn / T % W) + LBO·(mn / T / W)` |
//!
//! plus the bytes inside the chunk. Then the [`Swizzle`] permutes the chunks by address bits. Since
//! it looks at the sum, a kernel steps through K inside a 128-byte row by adding 32 bytes to the
//! start address and nothing else, as CUTLASS does. LBO does not count in K-major swizzled layouts.

use super::elements::Element;
use super::swizzle::{CHUNK, Swizzle};

/// Which dimension of an operand is contiguous in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Major {
    /// K: the operand is not transposed (`imm-trans` = 0).
    K,
    /// M of operand A or N of operand B (`imm-trans` = 1).
    Mn,
}

/// A decoded matrix descriptor. Addresses and offsets are in bytes, multiples of 16 below 2¹⁸.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixDescriptor {
    /// Address of the first element.
    pub start: u32,
    /// Leading dimension byte offset (LBO).
    pub leading: u32,
    /// Stride dimension byte offset (SBO).
    pub stride: u32,
    /// Which 128-byte line of its 1,024-byte block the swizzle pattern starts at, 0 to 7.
    ///
    /// The ISA defines it as `(pattern start >> 7) & 7`, "0 when the pattern starts at a multiple
    /// of 1,024 bytes". Read here as: the line number in the swizzle is counted from that line.
    pub base_offset: u32,
    /// Swizzling mode.
    pub swizzle: Swizzle,
}

/// What is wrong with a matrix descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Bits that have no meaning are set.
    #[error("matrix descriptor {bits:#018x} sets the reserved bits {reserved:#018x}")]
    Reserved {
        /// The descriptor.
        bits: u64,
        /// Its bits that should be 0.
        reserved: u64,
    },
    /// A base offset without a swizzle.
    #[error("matrix base offset is {0}, must be 0 without a swizzle")]
    BaseOffset(u32),
    /// Several groups of rows or columns would lie at the same place.
    #[error("{field} is 0, so that {groups} groups of the operand lie at the same address")]
    ZeroOffset {
        /// Which offset, in words.
        field: &'static str,
        /// How many groups it separates.
        groups: u32,
    },
    /// The operand leaves the row of the swizzle pattern.
    #[error(
        "start address {start:#x} is {inside} bytes into a {span}-byte swizzled row, \
         of which the instruction reads {reads} bytes: it crosses the row's end"
    )]
    CrossesRow {
        /// Start address.
        start: u32,
        /// Bytes between the row's start and it.
        inside: u32,
        /// Bytes of a row.
        span: u32,
        /// Bytes that are read of a row.
        reads: u32,
    },
    /// The transposed layout of a type that has none.
    #[error("{0} has no transposed layout in shared memory: only .f16 and .bf16 have")]
    Transposed(Element),
}

/// Bits of the descriptor that have a meaning.
const DEFINED: u64 = 0x3fff | 0x3fff << 16 | 0x3fff << 32 | 7 << 49 | 3 << 62;

impl MatrixDescriptor {
    /// Reads the 64-bit descriptor (9.7.15.5.1.2.2).
    ///
    /// # Errors
    /// When reserved bits are set, or a base offset without a swizzle.
    pub fn decode(bits: u64) -> Result<MatrixDescriptor, DescriptorError> {
        let reserved = bits & !DEFINED;
        if reserved != 0 {
            return Err(DescriptorError::Reserved { bits, reserved });
        }
        let field = |low: u32| ((bits >> low) as u32 & 0x3fff) << 4;
        let descriptor = MatrixDescriptor {
            start: field(0),
            leading: field(16),
            stride: field(32),
            base_offset: (bits >> 49) as u32 & 7,
            swizzle: match bits >> 62 {
                0 => Swizzle::None,
                1 => Swizzle::B128,
                2 => Swizzle::B64,
                _ => Swizzle::B32,
            },
        };
        if descriptor.swizzle == Swizzle::None && descriptor.base_offset != 0 {
            return Err(DescriptorError::BaseOffset(descriptor.base_offset));
        }
        Ok(descriptor)
    }

    /// The 64-bit form; the low 4 bits of addresses and offsets, and those above bit 17, are lost.
    pub fn encode(&self) -> u64 {
        let field = |bytes: u32| u64::from((bytes & 0x3_ffff) >> 4);
        let mode = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::B128 => 1,
            Swizzle::B64 => 2,
            Swizzle::B32 => 3,
        };
        field(self.start)
            | field(self.leading) << 16
            | field(self.stride) << 32
            | u64::from(self.base_offset & 7) << 49
            | mode << 62
    }

    /// Checks the descriptor of an operand of `extent` rows (A: 64) or columns (B: N).
    ///
    /// # Errors
    /// When an offset that separates groups is 0, when the start address makes the instruction
    /// cross the end of a swizzled row, and for a transposed type that cannot be.
    pub fn check(
        &self,
        major: Major,
        element: Element,
        extent: u32,
    ) -> Result<(), DescriptorError> {
        if major == Major::Mn && element.bits() != 16 {
            return Err(DescriptorError::Transposed(element));
        }
        let chunks = extent.saturating_mul(element.bits()) / 128;
        let swizzled = self.swizzle != Swizzle::None;
        let (leading_groups, stride_groups) = match (major, swizzled) {
            (Major::K, false) => (2, extent.div_ceil(8)),
            (Major::K, true) => (1, extent.div_ceil(8)),
            (Major::Mn, false) => (2, chunks),
            (Major::Mn, true) => (chunks.div_ceil(self.swizzle.chunks()), 2),
        };
        for (field, offset, groups) in [
            (
                "leading dimension byte offset",
                self.leading,
                leading_groups,
            ),
            ("stride dimension byte offset", self.stride, stride_groups),
        ] {
            if offset == 0 && groups > 1 {
                return Err(DescriptorError::ZeroOffset { field, groups });
            }
        }
        if swizzled {
            let span = self.swizzle.span();
            let reads = match major {
                Major::K => 2 * CHUNK,
                Major::Mn => chunks.saturating_mul(CHUNK).min(span),
            };
            let inside = self.start % span;
            if inside + reads > span {
                return Err(DescriptorError::CrossesRow {
                    start: self.start,
                    inside,
                    span,
                    reads,
                });
            }
        }
        Ok(())
    }

    /// Address of the 16-byte chunk `chunk` of line `line`: a line is an `mn` with chunks along K
    /// (K-major), or a `k` with chunks along MN (MN-major).
    #[inline]
    pub fn chunk_address(&self, major: Major, line: u32, chunk: u32) -> u32 {
        let (group, in_group) = (line / 8, line % 8);
        let width = self.swizzle.chunks();
        let times = u32::wrapping_mul;
        let offset = match (major, self.swizzle) {
            (Major::K, Swizzle::None) => [
                CHUNK * in_group,
                times(self.stride, group),
                times(self.leading, chunk),
            ],
            (Major::K, _) => [
                CHUNK * width * in_group,
                times(self.stride, group),
                times(CHUNK, chunk),
            ],
            (Major::Mn, Swizzle::None) => [
                CHUNK * in_group,
                times(self.leading, group),
                times(self.stride, chunk),
            ],
            (Major::Mn, _) => [
                CHUNK * width * in_group + CHUNK * (chunk % width),
                times(self.stride, group),
                times(self.leading, chunk / width),
            ],
        };
        let address = offset.into_iter().fold(self.start, u32::wrapping_add);
        self.swizzle.apply_from(address, self.base_offset)
    }

    /// Byte address of the element at row or column `mn` and depth `k`.
    #[inline]
    pub fn address(&self, major: Major, element: Element, mn: u32, k: u32) -> u32 {
        let (line, along) = match major {
            Major::K => (mn, k),
            Major::Mn => (k, mn),
        };
        let per_chunk = 128 / element.bits();
        let chunk = self.chunk_address(major, line, along / per_chunk);
        chunk + along % per_chunk * element.bits() / 8
    }

    /// The addresses of a whole operand of `extent` rows or columns, 256 at most; see
    /// [`ChunkMap`].
    pub fn chunks(&self, major: Major, element: Element, extent: u32) -> ChunkMap {
        let extent = extent.min(256);
        let (lines, per_line) = match major {
            Major::K => (extent, 2),
            Major::Mn => (256 / element.bits(), extent * element.bits() / 128),
        };
        let mut addresses = Vec::with_capacity((lines * per_line) as usize);
        for line in 0..lines {
            for chunk in 0..per_line {
                addresses.push(self.chunk_address(major, line, chunk));
            }
        }
        ChunkMap {
            lines,
            per_line,
            addresses,
        }
    }
}

/// Where the 16-byte chunks of an operand lie, line by line.
///
/// Gathered in this order they are a dense matrix: `mn × k` for K-major, `k × mn` for MN-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMap {
    /// Rows of the dense matrix.
    pub lines: u32,
    /// Chunks in each.
    pub per_line: u32,
    /// Shared-memory addresses, `lines · per_line` of them.
    pub addresses: Vec<u32>,
}

impl ChunkMap {
    /// Copies the operand out of `shared`, whose first byte has address 0, as a dense matrix.
    ///
    /// # Errors
    /// The address of the first chunk that does not lie in `shared`; `out` is then unfinished.
    pub fn gather(&self, shared: &[u8], out: &mut Vec<u8>) -> Result<(), u32> {
        out.clear();
        out.reserve(self.addresses.len() * CHUNK as usize);
        for &address in &self.addresses {
            let start = address as usize;
            let chunk = shared.get(start..start + CHUNK as usize).ok_or(address)?;
            out.extend_from_slice(chunk);
        }
        Ok(())
    }
}
