//! Tensor maps and what a bulk tensor copy does with one (PTX ISA 5.5, 9.7.9.25.5).
//!
//! - [`TensorMap`]: the meaning of a map; [`encode_tiled`] builds one with the checks of
//!   `cuTensorMapEncodeTiled`, [`TensorMap::encode`] and [`TensorMap::decode`] give and take the
//!   128 opaque bytes.
//! - [`TensorMap::walk`]: which bytes of global memory a copy touches, and where they lie in
//!   shared memory.
//! - [`reduce`]: the operations of `cp.reduce.async.bulk` and its tensor form.
//!
//! Tiled maps only. Im2col, `.tile::gather4`, `.tile::scatter4` (both from `sm_100`), interleaved
//! layouts and the packed 4- and 6-bit types are refused.

mod encode;
pub mod reduce;
mod types;
mod walk;

pub use encode::{BYTES, encode_tiled};
pub use types::{Interleave, L2Promotion, OobFill, TensorElement, TmaError, swizzle_from_raw};
pub use walk::{Piece, SHARED_ALIGNMENT};

use super::swizzle::Swizzle;

/// Dimensions a tensor has at most.
pub const MAX_RANK: usize = 5;

/// A tiled tensor map. Dimension 0 is the innermost; entries from `rank` on are 1 (strides: 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Element type.
    pub element: TensorElement,
    /// Dimensions, 1 to 5.
    pub rank: u32,
    /// Address of the element at the origin.
    pub address: u64,
    /// Elements along each dimension.
    pub dims: [u64; MAX_RANK],
    /// Bytes between neighbours along each dimension; that of dimension 0 is the element's size.
    pub strides: [u64; MAX_RANK],
    /// Extent of the box along each dimension, in elements of the tensor.
    pub extent: [u32; MAX_RANK],
    /// Step along each dimension: of the box, the elements at multiples of it are copied.
    ///
    /// That of dimension 0 is ignored, as the driver API documents for maps without interleave.
    pub element_strides: [u32; MAX_RANK],
    /// How the box is permuted in shared memory.
    pub swizzle: Swizzle,
    /// The L2 hint; changes nothing but speed.
    pub l2: L2Promotion,
    /// What stands for elements outside the tensor.
    pub oob: OobFill,
}

impl TensorMap {
    /// Elements that a copy moves along dimension `d`: `⌈extent / element stride⌉`.
    pub fn count(&self, d: usize) -> u32 {
        match d {
            0 => self.extent[0],
            _ => self.extent[d].div_ceil(self.element_strides[d].max(1)),
        }
    }

    /// Bytes of a row, the innermost dimension of the box.
    pub fn row_bytes(&self) -> u32 {
        self.extent[0].saturating_mul(self.element.bytes())
    }

    /// Rows of the box.
    pub fn rows(&self) -> u64 {
        (1..MAX_RANK).fold(1, |rows, d| rows.saturating_mul(self.count(d).into()))
    }

    /// Bytes between the rows of the box in shared memory.
    ///
    /// Without a swizzle rows are dense. With one, a row takes the whole width of the pattern even
    /// if it is shorter: the programming guide asks for room "to accommodate the full swizzle
    /// width".
    pub fn row_pitch(&self) -> u32 {
        match self.swizzle {
            Swizzle::None => self.row_bytes(),
            swizzle => swizzle.span(),
        }
    }

    /// Bytes that a load of the box reports to its mbarrier: all of the box, also what lies
    /// outside the tensor and is filled.
    pub fn box_bytes(&self) -> u64 {
        self.rows().saturating_mul(self.row_bytes().into())
    }

    /// Bytes of shared memory from the start of the box to its end.
    pub fn shared_bytes(&self) -> u64 {
        self.rows().saturating_mul(self.row_pitch().into())
    }
}
