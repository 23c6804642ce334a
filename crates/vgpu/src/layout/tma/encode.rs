//! The 128 bytes of a tensor map, and the checks of `cuTensorMapEncodeTiled`.
//!
//! NVIDIA's encoding is not public, so this is an own one, little-endian:
//!
//! | bytes    | content                                                          |
//! |----------|------------------------------------------------------------------|
//! | 0–7      | [`MAGIC`]                                                        |
//! | 8–15     | FNV-1a (64 bits) of bytes 16–127                                 |
//! | 16–21    | element type, rank, interleave, swizzle, L2 promotion, fill      |
//! | 24–31    | global address                                                   |
//! | 32–51    | dimensions − 1, five times 32 bits                               |
//! | 56–87    | strides in bytes, of dimensions 1 to 4                           |
//! | 88–92    | box extents − 1                                                  |
//! | 93–97    | element strides                                                  |
//!
//! Everything else is zero. The checksum finds a map that was overwritten, passed by the wrong
//! address, or encoded by a real driver.

use super::super::swizzle::Swizzle;
use super::types::swizzle_from_raw;
use super::{Interleave, L2Promotion, MAX_RANK, OobFill, TensorElement, TensorMap, TmaError};

/// Bytes of a tensor map.
pub const BYTES: usize = 128;

/// The first bytes of every map.
const MAGIC: [u8; 8] = *b"TGVGTMAP";

/// Builds a tensor map with the parameters and the documented restrictions of
/// `cuTensorMapEncodeTiled`. `strides` has `rank − 1` entries, the other arrays `rank`; entries
/// beyond are ignored.
///
/// The nesting of strides is not checked: the driver's documentation derives strides from padded
/// dimensions, but permuted and overlapping ones are in wide use and work.
///
/// # Errors
/// Every violated restriction is named with the value and its bound; interleaved layouts are not
/// supported.
#[allow(
    clippy::too_many_arguments,
    reason = "the driver's function has these parameters"
)]
pub fn encode_tiled(
    element: TensorElement,
    rank: u32,
    address: u64,
    dims: &[u64],
    strides: &[u64],
    extent: &[u32],
    element_strides: &[u32],
    interleave: Interleave,
    swizzle: Swizzle,
    l2: L2Promotion,
    oob: OobFill,
) -> Result<[u8; BYTES], TmaError> {
    if interleave != Interleave::None {
        return Err(TmaError::NotSupported("an interleaved tensor map"));
    }
    let r = match rank {
        1..=5 => rank as usize,
        _ => return Err(TmaError::Rank(rank)),
    };
    let mut map = TensorMap {
        element,
        rank,
        address,
        dims: [1; MAX_RANK],
        strides: [0; MAX_RANK],
        extent: [1; MAX_RANK],
        element_strides: [1; MAX_RANK],
        swizzle,
        l2,
        oob,
    };
    map.strides[0] = u64::from(element.bytes());
    map.dims[..r].copy_from_slice(entries("globalDim", dims, r)?);
    map.strides[1..r].copy_from_slice(entries("globalStrides", strides, r - 1)?);
    map.extent[..r].copy_from_slice(entries("boxDim", extent, r)?);
    map.element_strides[..r].copy_from_slice(entries("elementStrides", element_strides, r)?);
    map.check()?;
    Ok(map.encode())
}

fn entries<'a, T>(parameter: &'static str, all: &'a [T], need: usize) -> Result<&'a [T], TmaError> {
    all.get(..need).ok_or(TmaError::Entries {
        parameter,
        have: all.len(),
        need,
    })
}

impl TensorMap {
    /// Checks the restrictions of `cuTensorMapEncodeTiled`.
    ///
    /// # Errors
    /// The first violated one, with the value and its bound.
    pub fn check(&self) -> Result<(), TmaError> {
        if !(1..=MAX_RANK as u32).contains(&self.rank) {
            return Err(TmaError::Rank(self.rank));
        }
        if !self.address.is_multiple_of(16) {
            return Err(TmaError::Address {
                address: self.address,
                alignment: 16,
            });
        }
        let range = |parameter, index, value, low, high| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(TmaError::Range {
                parameter,
                index,
                value,
                low,
                high,
            })
        };
        for d in 0..MAX_RANK {
            range("globalDim", d, self.dims[d], 1, 1 << 32)?;
            range("boxDim", d, self.extent[d].into(), 1, 256)?;
            range("elementStrides", d, self.element_strides[d].into(), 1, 8)?;
            if d > 0 {
                range("globalStrides", d - 1, self.strides[d], 0, (1 << 40) - 1)?;
                if !self.strides[d].is_multiple_of(16) {
                    return Err(TmaError::Stride {
                        index: d - 1,
                        stride: self.strides[d],
                    });
                }
            }
        }
        let bytes = self.row_bytes();
        if !bytes.is_multiple_of(16) {
            return Err(TmaError::RowMultiple { bytes });
        }
        if self.swizzle != Swizzle::None && bytes > self.swizzle.span() {
            let span = self.swizzle.span();
            return Err(TmaError::RowTooWide { bytes, span });
        }
        if self.oob == OobFill::Nan && !self.element.is_float() {
            return Err(TmaError::NanFill(self.element));
        }
        let last = (0..MAX_RANK)
            .map(|d| u128::from(self.dims[d] - 1) * u128::from(self.strides[d]))
            .sum::<u128>();
        let end = u128::from(self.address) + last + u128::from(self.element.bytes());
        if end > u128::from(u64::MAX) {
            return Err(TmaError::Extent {
                address: self.address,
            });
        }
        Ok(())
    }

    /// The 128 bytes of the map. Values outside the range that [`TensorMap::check`] demands are
    /// cut to the width of their field.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[16] = self.element as u8;
        bytes[17] = self.rank as u8;
        bytes[18] = Interleave::None as u8;
        bytes[19] = self.swizzle.bits() as u8;
        bytes[20] = self.l2 as u8;
        bytes[21] = self.oob as u8;
        bytes[24..32].copy_from_slice(&self.address.to_le_bytes());
        for d in 0..MAX_RANK {
            let dim = (self.dims[d].wrapping_sub(1) as u32).to_le_bytes();
            bytes[32 + 4 * d..36 + 4 * d].copy_from_slice(&dim);
            if d > 0 {
                let stride = self.strides[d].to_le_bytes();
                bytes[48 + 8 * d..56 + 8 * d].copy_from_slice(&stride);
            }
            bytes[88 + d] = self.extent[d].wrapping_sub(1) as u8;
            bytes[93 + d] = self.element_strides[d] as u8;
        }
        let sum = fnv1a(&bytes[16..]);
        bytes[8..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a map back from its 128 bytes.
    ///
    /// # Errors
    /// When the bytes were not made by [`TensorMap::encode`], have changed since, or describe a map
    /// that [`TensorMap::check`] refuses.
    pub fn decode(bytes: &[u8; BYTES]) -> Result<TensorMap, TmaError> {
        if bytes[..8] != MAGIC {
            return Err(TmaError::Corrupt("it does not start with the mark of one"));
        }
        if word(bytes, 8) != fnv1a(&bytes[16..]) {
            return Err(TmaError::Corrupt("its bytes were changed after encoding"));
        }
        let element = TensorElement::from_raw(bytes[16].into())?;
        let mut map = TensorMap {
            element,
            rank: bytes[17].into(),
            address: word(bytes, 24),
            dims: [1; MAX_RANK],
            strides: [u64::from(element.bytes()); MAX_RANK],
            extent: [1; MAX_RANK],
            element_strides: [1; MAX_RANK],
            swizzle: swizzle_from_raw(bytes[19].into())?,
            l2: L2Promotion::from_raw(bytes[20].into())?,
            oob: OobFill::from_raw(bytes[21].into())?,
        };
        for d in 0..MAX_RANK {
            map.dims[d] = (word(bytes, 32 + 4 * d) & 0xffff_ffff) + 1;
            if d > 0 {
                map.strides[d] = word(bytes, 48 + 8 * d);
            }
            map.extent[d] = u32::from(bytes[88 + d]) + 1;
            map.element_strides[d] = bytes[93 + d].into();
        }
        map.check()?;
        Ok(map)
    }
}

/// The 64-bit number at byte `at`; `at + 8` is within the map.
fn word(bytes: &[u8; BYTES], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
