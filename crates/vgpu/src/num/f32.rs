//! Single precision on register bits.

use super::compare::compare as ordered;
use super::round::{RM, RN, directed, two_sum};

/// The NaN of every f32 result.
pub const NAN: u32 = 0x7fff_ffff;

const SIGN: u32 = 0x8000_0000;
const INFINITY: u32 = 0x7f80_0000;
const MIN_NORMAL: u32 = 0x0080_0000;
const ONE: u32 = 0x3f80_0000;

/// Zero of the same sign for a subnormal, if `FTZ`.
#[inline(always)]
pub fn flush<const FTZ: bool>(a: u32) -> u32 {
    if FTZ && a & !SIGN < MIN_NORMAL {
        a & SIGN
    } else {
        a
    }
}

/// Whether the bits are a NaN.
#[inline(always)]
pub fn is_nan(a: u32) -> bool {
    a & !SIGN > INFINITY
}

/// A result: NaN in its one form, subnormals flushed if `FTZ`.
#[inline(always)]
fn finish<const FTZ: bool>(bits: u32) -> u32 {
    if is_nan(bits) {
        NAN
    } else {
        flush::<FTZ>(bits)
    }
}

#[inline(always)]
fn operand<const FTZ: bool>(a: u32) -> f32 {
    f32::from_bits(flush::<FTZ>(a))
}

/// `high + low` in a directed mode, where `zeros` is the sign bit of an exact zero in `.rm`.
#[inline(always)]
fn directed_sum<const M: u8>(high: f64, low: f64, zeros: u32) -> u32 {
    let bits = directed::<M>(high, low);
    if M == RM && high == 0.0 {
        zeros & SIGN
    } else {
        bits
    }
}

/// `add.f32` in the rounding mode `M`.
#[inline(always)]
pub fn add<const M: u8, const FTZ: bool>(a: u32, b: u32) -> u32 {
    let (x, y) = (operand::<FTZ>(a), operand::<FTZ>(b));
    let bits = if M == RN {
        (x + y).to_bits()
    } else {
        let (high, low) = two_sum(x.into(), y.into());
        directed_sum::<M>(high, low, a | b)
    };
    finish::<FTZ>(bits)
}

/// `sub.f32` in the rounding mode `M`.
#[inline(always)]
pub fn sub<const M: u8, const FTZ: bool>(a: u32, b: u32) -> u32 {
    add::<M, FTZ>(a, b ^ SIGN)
}

/// `mul.f32` in the rounding mode `M`.
#[inline(always)]
pub fn mul<const M: u8, const FTZ: bool>(a: u32, b: u32) -> u32 {
    let (x, y) = (operand::<FTZ>(a), operand::<FTZ>(b));
    let bits = if M == RN {
        (x * y).to_bits()
    } else {
        // 48 bits: exact.
        directed::<M>(f64::from(x) * f64::from(y), 0.0)
    };
    finish::<FTZ>(bits)
}

/// `fma.f32` (and `mad.f32`) in the rounding mode `M`.
#[inline(always)]
pub fn fma<const M: u8, const FTZ: bool>(a: u32, b: u32, c: u32) -> u32 {
    let (x, y, z) = (operand::<FTZ>(a), operand::<FTZ>(b), operand::<FTZ>(c));
    let bits = if M == RN {
        x.mul_add(y, z).to_bits()
    } else {
        let product = f64::from(x) * f64::from(y);
        let (high, low) = two_sum(product, z.into());
        directed_sum::<M>(high, low, a ^ b | c)
    };
    finish::<FTZ>(bits)
}

/// `div.f32` in the rounding mode `M` (not `.approx` and `.full`).
#[inline(always)]
pub fn div<const M: u8, const FTZ: bool>(a: u32, b: u32) -> u32 {
    let (x, y) = (operand::<FTZ>(a), operand::<FTZ>(b));
    let bits = if M == RN {
        (x / y).to_bits()
    } else {
        let (x, y) = (f64::from(x), f64::from(y));
        let quotient = x / y;
        // The remainder is exact: all exponents are far inside the range of f64.
        let rest = quotient.mul_add(-y, x);
        // Infinite, and zero by an infinite divisor, are exact; there the rest is NaN.
        directed::<M>(quotient, if y < 0.0 { -rest } else { rest })
    };
    finish::<FTZ>(bits)
}

/// `rcp.f32` in the rounding mode `M` (not `.approx`).
#[inline(always)]
pub fn rcp<const M: u8, const FTZ: bool>(a: u32) -> u32 {
    div::<M, FTZ>(ONE, a)
}

/// `sqrt.f32` in the rounding mode `M` (not `.approx`).
#[inline(always)]
pub fn sqrt<const M: u8, const FTZ: bool>(a: u32) -> u32 {
    let x = operand::<FTZ>(a);
    let bits = if M == RN {
        x.sqrt().to_bits()
    } else {
        let x = f64::from(x);
        let root = x.sqrt();
        directed::<M>(root, root.mul_add(-root, x))
    };
    finish::<FTZ>(bits)
}

/// `.sat` of a result: clamped to 0 to 1, NaN and -0 become +0.
#[inline(always)]
pub fn sat(a: u32) -> u32 {
    // As integers: positive numbers in order, then infinity, NaN and all that is negative.
    let one = if a > ONE { ONE } else { a };
    if a > INFINITY { 0 } else { one }
}

/// `.relu` of a result: a negative number and -0 become +0, NaN stays.
#[inline(always)]
pub fn relu(a: u32) -> u32 {
    if a & SIGN != 0 && !is_nan(a) { 0 } else { a }
}

/// `abs.f32`.
#[inline(always)]
pub fn abs<const FTZ: bool>(a: u32) -> u32 {
    flush::<FTZ>(a & !SIGN)
}

/// `neg.f32`.
#[inline(always)]
pub fn neg<const FTZ: bool>(a: u32) -> u32 {
    flush::<FTZ>(a ^ SIGN)
}

/// Numbers in the order of signed integers, -0 below +0.
#[inline(always)]
fn key(a: u32) -> i32 {
    (a ^ ((a as i32 >> 31) as u32 >> 1)) as i32
}

/// The smaller or larger operand; a NaN gives way to a number, unless `PROPAGATE`.
#[inline(always)]
fn select<const MAX: bool, const PROPAGATE: bool>(a: u32, b: u32) -> u32 {
    let first = if MAX {
        key(a) >= key(b)
    } else {
        key(a) <= key(b)
    };
    let number = if first { a } else { b };
    let (a_nan, b_nan) = (is_nan(a), is_nan(b));
    if PROPAGATE {
        return if a_nan | b_nan { NAN } else { number };
    }
    let other = if a_nan { b } else { a };
    let other = if a_nan & b_nan { NAN } else { other };
    if a_nan | b_nan { other } else { number }
}

/// `min.f32`; `PROPAGATE` is `.NaN`. -0 is less than +0.
#[inline(always)]
pub fn min<const FTZ: bool, const PROPAGATE: bool>(a: u32, b: u32) -> u32 {
    select::<false, PROPAGATE>(flush::<FTZ>(a), flush::<FTZ>(b))
}

/// `max.f32`; `PROPAGATE` is `.NaN`. -0 is less than +0.
#[inline(always)]
pub fn max<const FTZ: bool, const PROPAGATE: bool>(a: u32, b: u32) -> u32 {
    select::<true, PROPAGATE>(flush::<FTZ>(a), flush::<FTZ>(b))
}

/// `.xorsign.abs`: `f` of the absolute values, with the product of the operands' signs. A NaN
/// result stays as it is.
#[inline(always)]
pub fn xorsign_abs(f: impl Fn(u32, u32) -> u32, a: u32, b: u32) -> u32 {
    let magnitude = f(a & !SIGN, b & !SIGN);
    if is_nan(magnitude) {
        magnitude
    } else {
        magnitude | ((a ^ b) & SIGN)
    }
}

/// `setp` and `set` for f32, `OP` of [`compare`](super::compare).
#[inline(always)]
pub fn compare<const OP: u8, const FTZ: bool>(a: u32, b: u32) -> bool {
    ordered::<OP, f32>(operand::<FTZ>(a), operand::<FTZ>(b))
}

/// `copysign.f32`: `b` with the sign of `a`.
#[inline(always)]
pub fn copysign(a: u32, b: u32) -> u32 {
    (a & SIGN) | (b & !SIGN)
}

/// `slct` on an f32 selector: whether it is at least zero, -0 included; false for NaN.
#[inline(always)]
pub fn selects_first<const FTZ: bool>(c: u32) -> bool {
    operand::<FTZ>(c) >= 0.0
}

/// `testp.finite.f32`.
#[inline(always)]
pub fn is_finite(a: u32) -> bool {
    a & !SIGN < INFINITY
}

/// `testp.infinite.f32`.
#[inline(always)]
pub fn is_infinite(a: u32) -> bool {
    a & !SIGN == INFINITY
}

/// `testp.normal.f32`: finite and not subnormal; zeros count as normal.
#[inline(always)]
pub fn is_normal(a: u32) -> bool {
    is_finite(a) && !is_subnormal(a)
}

/// `testp.subnormal.f32`.
#[inline(always)]
pub fn is_subnormal(a: u32) -> bool {
    (a & !SIGN).wrapping_sub(1) < MIN_NORMAL - 1
}
