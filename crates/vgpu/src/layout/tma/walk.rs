//! The walk of a bulk tensor copy over its box.

use super::super::swizzle::{CHUNK, Swizzle};
use super::{MAX_RANK, OobFill, TensorElement, TensorMap, TmaError};

/// What the shared-memory address of a tensor copy must be a multiple of (9.7.9.25.5.2).
pub const SHARED_ALIGNMENT: u32 = 128;

/// Bytes that a shared-memory address can tell apart: no box is larger.
const SHARED_WINDOW: u64 = 1 << 18;

/// Bytes of a copy that lie together in shared memory, and in global memory if they are in the
/// tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Address in shared memory, after the swizzle.
    pub shared: u32,
    /// Address in global memory; `None` outside the tensor, where a load fills and a store skips.
    pub global: Option<u64>,
    /// Bytes.
    pub len: u32,
}

impl TensorMap {
    /// Visits the box whose first element has the given coordinates (dimension 0 first), in the
    /// order of shared memory before the swizzle; `shared` is where the box begins there.
    ///
    /// With a swizzle no piece is longer than a chunk of 16 bytes, as chunks move on their own.
    /// The swizzle acts on shared-memory *addresses*: a box that begins at a multiple of 128 but
    /// not of the pattern's period begins inside the pattern, as on the hardware.
    ///
    /// Coordinates may be negative or beyond the tensor: such elements are outside. An address
    /// along dimension 0 needs no alignment beyond the element's.
    ///
    /// # Errors
    /// When the number of coordinates is not the rank, `shared` is not a multiple of 128, or the
    /// box is larger than shared memory can be; `f` is then not called.
    pub fn walk(
        &self,
        coordinates: &[i32],
        shared: u32,
        mut f: impl FnMut(Piece),
    ) -> Result<(), TmaError> {
        if coordinates.len() != self.rank as usize || coordinates.len() > MAX_RANK {
            return Err(TmaError::Coordinates {
                have: coordinates.len(),
                rank: self.rank,
            });
        }
        if !shared.is_multiple_of(SHARED_ALIGNMENT) {
            return Err(TmaError::Shared(shared));
        }
        if self.shared_bytes() > SHARED_WINDOW {
            return Err(TmaError::Box(self.shared_bytes()));
        }
        let mut origin = [0i64; MAX_RANK];
        for (o, &c) in origin.iter_mut().zip(coordinates) {
            *o = c.into();
        }
        // The part of each row that lies in the tensor, if the row does: the same for all rows.
        let size = i64::from(self.element.bytes());
        let row = i64::from(self.row_bytes());
        let inside_from = (-origin[0] * size).clamp(0, row) as u32;
        let beyond = (self.dims[0] as i64).saturating_sub(origin[0]);
        let inside_to = beyond.saturating_mul(size).clamp(0, row) as u32;

        let mut at = [0u32; MAX_RANK];
        for number in 0..self.rows() as u32 {
            let mut address = self.address.wrapping_add_signed(origin[0] * size);
            let mut inside = inside_from < inside_to;
            for d in 1..MAX_RANK {
                let position = origin[d] + i64::from(at[d] * self.element_strides[d]);
                inside &= (0..self.dims[d] as i64).contains(&position);
                address = address.wrapping_add((position as u64).wrapping_mul(self.strides[d]));
            }
            let (from, to) = if inside {
                (inside_from, inside_to)
            } else {
                (0, 0)
            };
            let begin = shared.wrapping_add(number.wrapping_mul(self.row_pitch()));
            self.walk_row(begin, address, from, to, &mut f);
            for d in 1..MAX_RANK {
                at[d] += 1;
                if at[d] < self.count(d) {
                    break;
                }
                at[d] = 0;
            }
        }
        Ok(())
    }

    /// Visits one row: at `shared` before the swizzle; its bytes `from..to` lie in the tensor, at
    /// `address + from`.
    fn walk_row(&self, shared: u32, address: u64, from: u32, to: u32, f: &mut impl FnMut(Piece)) {
        let unit = match self.swizzle {
            Swizzle::None => self.row_bytes(),
            _ => CHUNK,
        };
        let mut at = 0;
        while at < self.row_bytes() {
            let unit_end = (at - at % unit).saturating_add(unit).min(self.row_bytes());
            let inside = (from..to).contains(&at);
            let boundary = match inside {
                true => to,
                false if at < from => from,
                false => unit_end,
            };
            let end = boundary.min(unit_end);
            f(Piece {
                shared: self.swizzle.apply(shared.wrapping_add(at)),
                global: inside.then(|| address.wrapping_add(at.into())),
                len: end - at,
            });
            at = end;
        }
    }

    /// The 16 bytes with which a load fills what lies outside the tensor, repeated.
    ///
    /// For [`OobFill::Nan`] the ISA speaks of "a special NaN called OOB-NaN" without its bits; here
    /// it is the quiet NaN with all fraction bits set, the canonical NaN of PTX.
    pub fn fill(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        if self.oob == OobFill::Nan && self.element.is_float() {
            let size = self.element.bytes() as usize;
            bytes = [0xff; 16];
            for high in bytes.iter_mut().skip(size - 1).step_by(size) {
                *high = 0x7f;
            }
        }
        bytes
    }

    /// What a load does to the values of the tensor on their way to shared memory: nothing, except
    /// for the types that round to tf32 (to nearest even, in this model) or flush subnormals to
    /// zeros of the same sign. `bytes` are whole elements.
    pub fn convert(&self, bytes: &mut [u8]) {
        let (round, flush) = match self.element {
            TensorElement::F32Ftz => (false, true),
            TensorElement::Tf32 => (true, false),
            TensorElement::Tf32Ftz => (true, true),
            _ => return,
        };
        for element in bytes.as_chunks_mut::<4>().0 {
            let mut bits = u32::from_le_bytes(*element);
            if flush && bits & 0x7f80_0000 == 0 {
                bits &= 0x8000_0000;
            }
            if round && bits & 0x7f80_0000 != 0x7f80_0000 {
                bits = bits.wrapping_add(0xfff + (bits >> 13 & 1)) & 0xffff_e000;
            }
            *element = bits.to_le_bytes();
        }
    }
}
