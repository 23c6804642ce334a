//! fp8: e4m3 (no infinity, largest number 448) and e5m2, always in pairs in PTX.
//!
//! `cvt` to fp8 always has `.satfinite`: what is too large becomes the largest number, NaN the
//! format's NaN without sign.

use super::f32 as single;
use super::half::{self, F16, Half, narrow_magnitude};

/// The NaN of both formats.
pub const NAN: u8 = 0x7f;

/// Puts sign and NaN of the f32 `a` to a magnitude of at most `max`.
#[inline(always)]
fn finish<const RELU: bool>(a: u32, magnitude: u32, max: u32) -> u8 {
    let negative = a >> 31 != 0;
    let magnitude = magnitude.min(max) as u8;
    let signed = if negative {
        magnitude | 0x80
    } else {
        magnitude
    };
    let number = if RELU && negative { 0 } else { signed };
    if single::is_nan(a) { NAN } else { number }
}

/// One `cvt.rn.satfinite.e4m3x2.f32` operand; `RELU` makes negative numbers +0.
#[inline(always)]
pub fn e4m3_from_f32<const RELU: bool>(a: u32) -> u8 {
    finish::<RELU>(a, narrow_magnitude::<3, 7>(a), 0x7e)
}

/// One `cvt.rn.satfinite.e5m2x2.f32` operand; `RELU` makes negative numbers +0.
#[inline(always)]
pub fn e5m2_from_f32<const RELU: bool>(a: u32) -> u8 {
    finish::<RELU>(a, narrow_magnitude::<2, 15>(a), 0x7b)
}

/// An e4m3 number as f32 bits, exactly.
#[inline(always)]
pub fn e4m3_to_f32(a: u8) -> u32 {
    let magnitude = u32::from(a & 0x7f);
    // With the fraction in place the exponent is 2^120 too small, for subnormals as well.
    let scale = f32::from_bits((127 + 120) << 23);
    let number = (f32::from_bits(magnitude << 20) * scale).to_bits() | u32::from(a & 0x80) << 24;
    if magnitude == 0x7f {
        single::NAN
    } else {
        number
    }
}

/// An e5m2 number as f32 bits, exactly.
#[inline(always)]
pub fn e5m2_to_f32(a: u8) -> u32 {
    F16::widen(u16::from(a) << 8)
}

/// One half of `cvt.rn.f16x2.e4m3x2`; exact. `RELU` makes negative numbers +0.
#[inline(always)]
pub fn e4m3_to_f16<const RELU: bool>(a: u8) -> u16 {
    let bits = F16::narrow(e4m3_to_f32(a));
    if RELU { half::relu::<F16>(bits) } else { bits }
}

/// One half of `cvt.rn.f16x2.e5m2x2`; exact. `RELU` makes negative numbers +0.
#[inline(always)]
pub fn e5m2_to_f16<const RELU: bool>(a: u8) -> u16 {
    let bits = u16::from(a) << 8;
    let bits = if half::is_nan::<F16>(bits) {
        half::NAN
    } else {
        bits
    };
    if RELU { half::relu::<F16>(bits) } else { bits }
}
