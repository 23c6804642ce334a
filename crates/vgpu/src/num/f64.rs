//! Double precision on register bits. There is no `.ftz` for f64.

use super::compare::compare as ordered;
use super::round::{RN, Round};
use super::soft::{self, F64, Finite, Number};

/// The NaN that an f64 operation makes of numbers, such as infinity minus infinity.
pub const NAN: u64 = 0xfff8_0000_0000_0000;

const SIGN: u64 = 1 << 63;
const INFINITY: u64 = 0x7ff0_0000_0000_0000;
const MIN_NORMAL: u64 = 0x0010_0000_0000_0000;
const QUIET: u64 = 0x0008_0000_0000_0000;
const ONE: u64 = 0x3ff0_0000_0000_0000;

/// Whether the bits are a NaN.
#[inline(always)]
pub fn is_nan(a: u64) -> bool {
    a & !SIGN > INFINITY
}

/// `result`, unless an operand or the result is NaN: then the first NaN operand, quieted.
#[inline(always)]
fn finish<const N: usize>(operands: [u64; N], result: u64) -> u64 {
    let mut bits = if is_nan(result) { NAN } else { result };
    for &operand in operands.iter().rev() {
        bits = if is_nan(operand) {
            operand | QUIET
        } else {
            bits
        };
    }
    bits
}

#[inline(always)]
fn value(a: u64) -> f64 {
    f64::from_bits(a)
}

/// Finite operands, or `None`.
#[inline(always)]
fn finite<const N: usize>(operands: [u64; N]) -> Option<[Finite; N]> {
    let zero = Finite {
        negative: false,
        magnitude: 0,
        exponent: 0,
    };
    let mut numbers = [zero; N];
    for (number, bits) in numbers.iter_mut().zip(operands) {
        let Number::Finite(finite) = soft::unpack(F64, bits) else {
            return None;
        };
        *number = finite;
    }
    Some(numbers)
}

#[inline(always)]
fn pack(number: Finite, round: Round) -> u64 {
    soft::pack(F64, Number::Finite(number), round, false)
}

/// `add.f64` in the rounding mode `M`.
#[inline(always)]
pub fn add<const M: u8>(a: u64, b: u64) -> u64 {
    let nearest = (value(a) + value(b)).to_bits();
    let result = match finite([a, b]) {
        Some([x, y]) if M != RN => pack(soft::add(x, y, Round::of(M)), Round::of(M)),
        _ => nearest,
    };
    finish([a, b], result)
}

/// `sub.f64` in the rounding mode `M`.
#[inline(always)]
pub fn sub<const M: u8>(a: u64, b: u64) -> u64 {
    // A NaN operand keeps its sign.
    add::<M>(a, if is_nan(b) { b } else { b ^ SIGN })
}

/// `mul.f64` in the rounding mode `M`.
#[inline(always)]
pub fn mul<const M: u8>(a: u64, b: u64) -> u64 {
    let nearest = (value(a) * value(b)).to_bits();
    let result = match finite([a, b]) {
        Some([x, y]) if M != RN => pack(soft::multiply(x, y), Round::of(M)),
        _ => nearest,
    };
    finish([a, b], result)
}

/// `fma.f64` (and `mad.f64`) in the rounding mode `M`.
#[inline(always)]
pub fn fma<const M: u8>(a: u64, b: u64, c: u64) -> u64 {
    let result = match finite([a, b, c]) {
        Some([x, y, z]) if M != RN => pack(
            soft::add(soft::multiply(x, y), z, Round::of(M)),
            Round::of(M),
        ),
        _ => value(a).mul_add(value(b), value(c)).to_bits(),
    };
    finish([a, b, c], result)
}

/// `div.f64` in the rounding mode `M`.
#[inline(always)]
pub fn div<const M: u8>(a: u64, b: u64) -> u64 {
    let result = match finite([a, b]) {
        Some([x, y]) if M != RN && y.magnitude != 0 => pack(soft::divide(x, y), Round::of(M)),
        _ => (value(a) / value(b)).to_bits(),
    };
    finish([a, b], result)
}

/// `rcp.f64` in the rounding mode `M`.
#[inline(always)]
pub fn rcp<const M: u8>(a: u64) -> u64 {
    div::<M>(ONE, a)
}

/// `sqrt.f64` in the rounding mode `M`.
#[inline(always)]
pub fn sqrt<const M: u8>(a: u64) -> u64 {
    let result = match finite([a]) {
        Some([x]) if M != RN && !x.negative => pack(soft::root(x), Round::of(M)),
        _ => value(a).sqrt().to_bits(),
    };
    finish([a], result)
}

/// `.sat` of a result: clamped to 0 to 1, NaN and -0 become +0.
#[inline(always)]
pub fn sat(a: u64) -> u64 {
    // As integers: positive numbers in order, then infinity, NaN and all that is negative.
    if a > INFINITY { 0 } else { a.min(ONE) }
}

/// `abs.f64`.
#[inline(always)]
pub fn abs(a: u64) -> u64 {
    a & !SIGN
}

/// `neg.f64`.
#[inline(always)]
pub fn neg(a: u64) -> u64 {
    a ^ SIGN
}

/// Numbers in the order of signed integers, -0 below +0.
#[inline(always)]
fn key(a: u64) -> i64 {
    (a ^ ((a as i64 >> 63) as u64 >> 1)) as i64
}

/// The smaller or larger operand; a NaN gives way to a number.
#[inline(always)]
fn select<const MAX: bool>(a: u64, b: u64) -> u64 {
    let first = if MAX {
        key(a) >= key(b)
    } else {
        key(a) <= key(b)
    };
    let number = if first { a } else { b };
    if is_nan(a) & is_nan(b) {
        NAN
    } else if is_nan(a) {
        b
    } else if is_nan(b) {
        a
    } else {
        number
    }
}

/// `min.f64`: a NaN gives way to a number; two give [`NAN`]. -0 is less than +0.
#[inline(always)]
pub fn min(a: u64, b: u64) -> u64 {
    select::<false>(a, b)
}

/// `max.f64`: a NaN gives way to a number; two give [`NAN`]. -0 is less than +0.
#[inline(always)]
pub fn max(a: u64, b: u64) -> u64 {
    select::<true>(a, b)
}

/// `setp` and `set` for f64, `OP` of [`compare`](super::compare).
#[inline(always)]
pub fn compare<const OP: u8>(a: u64, b: u64) -> bool {
    ordered::<OP, f64>(value(a), value(b))
}

/// `copysign.f64`: `b` with the sign of `a`.
#[inline(always)]
pub fn copysign(a: u64, b: u64) -> u64 {
    (a & SIGN) | (b & !SIGN)
}

/// `testp.finite.f64`.
#[inline(always)]
pub fn is_finite(a: u64) -> bool {
    a & !SIGN < INFINITY
}

/// `testp.infinite.f64`.
#[inline(always)]
pub fn is_infinite(a: u64) -> bool {
    a & !SIGN == INFINITY
}

/// `testp.normal.f64`: finite and not subnormal; zeros count as normal.
#[inline(always)]
pub fn is_normal(a: u64) -> bool {
    is_finite(a) && !is_subnormal(a)
}

/// `testp.subnormal.f64`.
#[inline(always)]
pub fn is_subnormal(a: u64) -> bool {
    (a & !SIGN).wrapping_sub(1) < MIN_NORMAL - 1
}
