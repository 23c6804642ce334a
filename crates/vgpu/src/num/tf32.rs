//! tf32: an f32 whose last 13 bits are zero.

use super::f32::{NAN, is_nan};

/// Bits that tf32 does not have.
const DROPPED: u32 = 0x1fff;
const SIGN: u32 = 0x8000_0000;
/// The largest finite magnitude.
const MAX: u32 = 0x7f7f_e000;

/// Rounds by adding `bias` to the bits, then cutting. NaN becomes the f32 one.
#[inline(always)]
fn round(a: u32, bias: u32) -> u32 {
    if is_nan(a) {
        NAN
    } else {
        a.wrapping_add(bias) & !DROPPED
    }
}

/// `cvt.rn.tf32.f32`: to nearest, ties to even.
#[inline(always)]
pub fn from_f32_rn(a: u32) -> u32 {
    round(a, (DROPPED >> 1) + (a >> 13 & 1))
}

/// `cvt.rna.tf32.f32`: to nearest, ties away from zero.
#[inline(always)]
pub fn from_f32_rna(a: u32) -> u32 {
    round(a, (DROPPED >> 1) + 1)
}

/// `cvt.rz.tf32.f32`: towards zero.
#[inline(always)]
pub fn from_f32_rz(a: u32) -> u32 {
    round(a, 0)
}

/// `.satfinite` of a result: infinity becomes the largest finite number of its sign.
#[inline(always)]
pub fn satfinite(a: u32) -> u32 {
    if is_nan(a) {
        NAN
    } else {
        (a & !SIGN).min(MAX) | (a & SIGN)
    }
}

/// What the tensor cores read of an f32 register that should hold tf32: the upper 19 bits.
#[inline(always)]
pub fn truncate(a: u32) -> u32 {
    a & !DROPPED
}
