//! f16 and bf16 on register bits; packed pairs through [`x2`](super::int::x2).
//!
//! `half::add::<F16, FTZ>(a, b)` is `add.ftz.f16`, and
//! `x2::zip(a, b, half::add::<Bf16, KEEP>)` is `add.bf16x2`. All arithmetic rounds once, to
//! nearest even.

use super::approx;
use super::compare::compare as ordered;
use super::round::{RN, odd, two_sum};
use super::{KEEP, f32 as single};

/// The NaN of every f16 and bf16 result.
pub const NAN: u16 = 0x7fff;

const SIGN: u16 = 0x8000;

/// A 16-bit format.
pub trait Half {
    /// The bits of positive infinity.
    const INFINITY: u16;
    /// The bits of one.
    const ONE: u16;
    /// The bits of the least positive normal number.
    const MIN_NORMAL: u16;

    /// The value as f32 bits, exactly; NaN becomes the f32 one.
    fn widen(a: u16) -> u32;

    /// f32 bits rounded to nearest even.
    fn narrow(a: u32) -> u16;

    /// `a * b + c` as an f32 that a second rounding to this format makes right.
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

/// IEEE half precision.
#[derive(Clone, Copy, Debug)]
pub struct F16;

/// bfloat16.
#[derive(Clone, Copy, Debug)]
pub struct Bf16;

/// The magnitude of `a` rounded to nearest even in a format of `FRACTION` bits after the implied
/// one and exponent bias `BIAS`, as that format's bits if the range of its exponent were not
/// limited above. Not for NaN.
#[inline(always)]
pub(super) fn narrow_magnitude<const FRACTION: u32, const BIAS: u32>(a: u32) -> u32 {
    let a = a & 0x7fff_ffff;
    let drop = 23 - FRACTION;
    let rounded = a
        .wrapping_add((1 << (drop - 1)) - 1)
        .wrapping_add(a >> drop & 1);
    let normal = rounded.wrapping_sub((127 - BIAS) << 23) >> drop;
    // Added to a number whose last bit is the format's least, the FPU rounds a subnormal.
    let anchor = (127 + 1 - BIAS + drop) << 23;
    let subnormal = (f32::from_bits(a) + f32::from_bits(anchor))
        .to_bits()
        .wrapping_sub(anchor);
    if a < (127 + 1 - BIAS) << 23 {
        subnormal
    } else {
        normal
    }
}

impl Half for F16 {
    const INFINITY: u16 = 0x7c00;
    const ONE: u16 = 0x3c00;
    const MIN_NORMAL: u16 = 0x0400;

    #[inline(always)]
    fn widen(a: u16) -> u32 {
        let magnitude = u32::from(a & !SIGN);
        // With the fraction in place the exponent is 2^112 too small, for subnormals as well.
        let scale = f32::from_bits((127 + 112) << 23);
        let finite = (f32::from_bits(magnitude << 13) * scale).to_bits();
        let finite = if magnitude == 0x7c00 {
            0x7f80_0000
        } else {
            finite
        };
        let signed = finite | u32::from(a & SIGN) << 16;
        if magnitude > 0x7c00 {
            single::NAN
        } else {
            signed
        }
    }

    #[inline(always)]
    fn narrow(a: u32) -> u16 {
        let magnitude = narrow_magnitude::<10, 15>(a).min(0x7c00) as u16;
        let signed = magnitude | (a >> 16) as u16 & SIGN;
        if single::is_nan(a) { NAN } else { signed }
    }

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        // 22 bits: exact.
        let product = a * b;
        let sum = product + c;
        let c_part = sum - product;
        let rest = (product - (sum - c_part)) + (c - c_part);
        odd(f64::from(sum), f64::from(rest))
    }
}

impl Half for Bf16 {
    const INFINITY: u16 = 0x7f80;
    const ONE: u16 = 0x3f80;
    const MIN_NORMAL: u16 = 0x0080;

    #[inline(always)]
    fn widen(a: u16) -> u32 {
        let bits = u32::from(a) << 16;
        if single::is_nan(bits) {
            single::NAN
        } else {
            bits
        }
    }

    #[inline(always)]
    fn narrow(a: u32) -> u16 {
        let rounded = (a.wrapping_add(0x7fff + (a >> 16 & 1)) >> 16) as u16;
        if single::is_nan(a) { NAN } else { rounded }
    }

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        // 16 bits, and no exponent out of range of f64: exact.
        let (high, low) = two_sum(f64::from(a) * f64::from(b), c.into());
        odd(high, low)
    }
}

/// Zero of the same sign for a subnormal, if `FTZ`.
#[inline(always)]
pub fn flush<H: Half, const FTZ: bool>(a: u16) -> u16 {
    if FTZ && a & !SIGN < H::MIN_NORMAL {
        a & SIGN
    } else {
        a
    }
}

/// Whether the bits are a NaN.
#[inline(always)]
pub fn is_nan<H: Half>(a: u16) -> bool {
    a & !SIGN > H::INFINITY
}

#[inline(always)]
fn operand<H: Half, const FTZ: bool>(a: u16) -> u32 {
    H::widen(flush::<H, FTZ>(a))
}

/// Rounds an f32 result that is exact or has enough bits for a second rounding.
#[inline(always)]
fn result<H: Half, const FTZ: bool>(a: u32) -> u16 {
    flush::<H, FTZ>(H::narrow(a))
}

/// `add.f16`, `add.bf16`.
#[inline(always)]
pub fn add<H: Half, const FTZ: bool>(a: u16, b: u16) -> u16 {
    // 24 bits are more than twice the format's and two: the second rounding does no harm. So in
    // `mul`.
    result::<H, FTZ>(single::add::<RN, false>(
        operand::<H, FTZ>(a),
        operand::<H, FTZ>(b),
    ))
}

/// `sub.f16`, `sub.bf16`.
#[inline(always)]
pub fn sub<H: Half, const FTZ: bool>(a: u16, b: u16) -> u16 {
    add::<H, FTZ>(a, b ^ SIGN)
}

/// `mul.f16`, `mul.bf16`.
#[inline(always)]
pub fn mul<H: Half, const FTZ: bool>(a: u16, b: u16) -> u16 {
    result::<H, FTZ>(single::mul::<RN, false>(
        operand::<H, FTZ>(a),
        operand::<H, FTZ>(b),
    ))
}

/// `fma.f16`, `fma.bf16`.
#[inline(always)]
pub fn fma<H: Half, const FTZ: bool>(a: u16, b: u16, c: u16) -> u16 {
    let value = |x| f32::from_bits(operand::<H, FTZ>(x));
    result::<H, FTZ>(H::fma(value(a), value(b), value(c)).to_bits())
}

/// `.sat` of a result: clamped to 0 to 1, NaN and -0 become +0.
#[inline(always)]
pub fn sat<H: Half>(a: u16) -> u16 {
    // As integers: positive numbers in order, then infinity, NaN and all that is negative.
    if a > H::INFINITY { 0 } else { a.min(H::ONE) }
}

/// `.relu` of a result: a negative number and -0 become +0, NaN the canonical one.
#[inline(always)]
pub fn relu<H: Half>(a: u16) -> u16 {
    let number = if a & SIGN != 0 { 0 } else { a };
    if is_nan::<H>(a) { NAN } else { number }
}

/// `abs.f16`, `abs.bf16`.
#[inline(always)]
pub fn abs<H: Half, const FTZ: bool>(a: u16) -> u16 {
    flush::<H, FTZ>(a & !SIGN)
}

/// `neg.f16`, `neg.bf16`.
#[inline(always)]
pub fn neg<H: Half, const FTZ: bool>(a: u16) -> u16 {
    flush::<H, FTZ>(a ^ SIGN)
}

/// Numbers in the order of signed integers, -0 below +0.
#[inline(always)]
fn key(a: u16) -> i16 {
    (a ^ ((a as i16 >> 15) as u16 >> 1)) as i16
}

#[inline(always)]
fn select<H: Half, const MAX: bool, const PROPAGATE: bool>(a: u16, b: u16) -> u16 {
    let first = if MAX {
        key(a) >= key(b)
    } else {
        key(a) <= key(b)
    };
    let number = if first { a } else { b };
    let (a_nan, b_nan) = (is_nan::<H>(a), is_nan::<H>(b));
    if PROPAGATE {
        return if a_nan | b_nan { NAN } else { number };
    }
    let other = if a_nan { b } else { a };
    let other = if a_nan & b_nan { NAN } else { other };
    if a_nan | b_nan { other } else { number }
}

/// `min.f16`, `min.bf16`; a NaN gives way to a number, unless `PROPAGATE` (`.NaN`). -0 is less
/// than +0.
#[inline(always)]
pub fn min<H: Half, const FTZ: bool, const PROPAGATE: bool>(a: u16, b: u16) -> u16 {
    select::<H, false, PROPAGATE>(flush::<H, FTZ>(a), flush::<H, FTZ>(b))
}

/// `max.f16`, `max.bf16`; a NaN gives way to a number, unless `PROPAGATE` (`.NaN`). -0 is less
/// than +0.
#[inline(always)]
pub fn max<H: Half, const FTZ: bool, const PROPAGATE: bool>(a: u16, b: u16) -> u16 {
    select::<H, true, PROPAGATE>(flush::<H, FTZ>(a), flush::<H, FTZ>(b))
}

/// `.xorsign.abs`: `f` of the absolute values, with the product of the operands' signs. A NaN
/// result stays as it is.
#[inline(always)]
pub fn xorsign_abs<H: Half>(f: impl Fn(u16, u16) -> u16, a: u16, b: u16) -> u16 {
    let magnitude = f(a & !SIGN, b & !SIGN);
    if is_nan::<H>(magnitude) {
        magnitude
    } else {
        magnitude | ((a ^ b) & SIGN)
    }
}

/// `setp` and `set` for f16 and bf16, `OP` of [`compare`](super::compare).
#[inline(always)]
pub fn compare<H: Half, const OP: u8, const FTZ: bool>(a: u16, b: u16) -> bool {
    let value = |x| f32::from_bits(operand::<H, FTZ>(x));
    ordered::<OP, f32>(value(a), value(b))
}

/// `ex2.approx.f16` (without `FTZ`), `ex2.approx.ftz.bf16` (with it): relative error at most
/// 2^-9.9 and 2^-7.
#[inline(always)]
pub fn ex2<H: Half, const FTZ: bool>(a: u16) -> u16 {
    result::<H, FTZ>(approx::ex2::<KEEP>(operand::<H, FTZ>(a)))
}

/// `tanh.approx.f16`, `tanh.approx.bf16`: absolute error at most 2^-10.987 and 2^-8.
#[inline(always)]
pub fn tanh<H: Half>(a: u16) -> u16 {
    H::narrow(approx::tanh(H::widen(a)))
}
