//! Conversions with a packed result: `cvt` to and from pairs, and `cvt.pack`.
//!
//! As in PTX, operand `a` goes to the upper half and `b` to the lower.

use super::f32 as single;
use super::fp8;
use super::half::{self, Half};
use super::round::{RN, RZ};

/// Options of a conversion from f32 to f16 or bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PackOptions {
    /// `.relu`.
    pub relu: bool,
    /// `.satfinite`.
    pub satfinite: bool,
}

/// f32 to f16 or bf16 in the mode `M`, [`RN`] or [`RZ`].
#[inline(always)]
pub fn half_from_f32<H: Half, const M: u8>(a: u32, options: PackOptions) -> u16 {
    const { assert!(M == RN || M == RZ) };
    let bits = if M == RN {
        H::narrow(a)
    } else {
        truncate::<H>(a)
    };
    let magnitude = bits & 0x7fff;
    let finite = if magnitude == H::INFINITY {
        bits.wrapping_sub(1)
    } else {
        bits
    };
    let bits = if options.satfinite { finite } else { bits };
    if options.relu {
        half::relu::<H>(bits)
    } else {
        bits
    }
}

/// f32 to f16 or bf16 towards zero.
#[inline(always)]
fn truncate<H: Half>(a: u32) -> u16 {
    let nearest = H::narrow(a);
    let over = single::abs::<false>(H::widen(nearest)) > single::abs::<false>(a);
    // Bits grow away from zero; infinity from a finite number falls to the largest one.
    if single::is_nan(a) {
        half::NAN
    } else {
        nearest.wrapping_sub(u16::from(over))
    }
}

/// `cvt.{rn,rz}{.relu}{.satfinite}.{f16x2,bf16x2}.f32`.
#[inline(always)]
pub fn half2_from_f32<H: Half, const M: u8>(a: u32, b: u32, options: PackOptions) -> u32 {
    let half = |x| u32::from(half_from_f32::<H, M>(x, options));
    half(a) << 16 | half(b)
}

/// `cvt.rn.satfinite{.relu}.e4m3x2.f32`.
#[inline(always)]
pub fn e4m3x2_from_f32<const RELU: bool>(a: u32, b: u32) -> u16 {
    let byte = |x| u16::from(fp8::e4m3_from_f32::<RELU>(x));
    byte(a) << 8 | byte(b)
}

/// `cvt.rn.satfinite{.relu}.e5m2x2.f32`.
#[inline(always)]
pub fn e5m2x2_from_f32<const RELU: bool>(a: u32, b: u32) -> u16 {
    let byte = |x| u16::from(fp8::e5m2_from_f32::<RELU>(x));
    byte(a) << 8 | byte(b)
}

/// `cvt.rn.satfinite{.relu}.e4m3x2.f16x2`.
#[inline(always)]
pub fn e4m3x2_from_f16x2<const RELU: bool>(a: u32) -> u16 {
    let widen = half::F16::widen;
    e4m3x2_from_f32::<RELU>(widen((a >> 16) as u16), widen(a as u16))
}

/// `cvt.rn.satfinite{.relu}.e5m2x2.f16x2`.
#[inline(always)]
pub fn e5m2x2_from_f16x2<const RELU: bool>(a: u32) -> u16 {
    let widen = half::F16::widen;
    e5m2x2_from_f32::<RELU>(widen((a >> 16) as u16), widen(a as u16))
}

/// `cvt.rn{.relu}.f16x2.e4m3x2`.
#[inline(always)]
pub fn f16x2_from_e4m3x2<const RELU: bool>(a: u16) -> u32 {
    let half = |x| u32::from(fp8::e4m3_to_f16::<RELU>(x));
    half((a >> 8) as u8) << 16 | half(a as u8)
}

/// `cvt.rn{.relu}.f16x2.e5m2x2`.
#[inline(always)]
pub fn f16x2_from_e5m2x2<const RELU: bool>(a: u16) -> u32 {
    let half = |x| u32::from(fp8::e5m2_to_f16::<RELU>(x));
    half((a >> 8) as u8) << 16 | half(a as u8)
}

/// `cvt.pack.sat` without operand `c`: `a` and `b`, both `s32`, clamped to 16 bits each.
#[inline(always)]
pub fn pack_s32<const SIGNED: bool>(a: u32, b: u32) -> u32 {
    pack_s32_below::<SIGNED, 16>(a, b, 0)
}

/// `cvt.pack.sat` with operand `c`: `a` and `b`, both `s32`, clamped to `BITS` bits each (2, 4 or
/// 8), below the low bits of `c`.
#[inline(always)]
pub fn pack_s32_below<const SIGNED: bool, const BITS: u32>(a: u32, b: u32, c: u32) -> u32 {
    const { assert!(BITS > 1 && BITS <= 16) };
    let (low, high) = if SIGNED {
        (-(1 << (BITS - 1)), (1 << (BITS - 1)) - 1)
    } else {
        (0, (1 << BITS) - 1)
    };
    let mask = (1 << BITS) - 1;
    let field = |x: u32| (x as i32).clamp(low, high) as u32 & mask;
    let rest = u64::from(c) << (2 * BITS);
    rest as u32 | field(a) << BITS | field(b)
}
