//! The approximate functions.
//!
//! Only IEEE operations in a fixed order are used, no library of the platform, so that the results
//! are the same bits on every machine, with or without vector instructions.
//!
//! | function | bound of the PTX ISA |
//! | --- | --- |
//! | [`ex2`] | 2 ulp |
//! | [`lg2`] | 2^-22 absolute in (0.5, 2), 2^-22 relative elsewhere |
//! | [`rcp`] | 1 ulp (here: correctly rounded) |
//! | [`sqrt`] | 2^-23 relative (here: correctly rounded) |
//! | [`rsqrt`] | 2^-22.9 relative |
//! | [`sin`], [`cos`] | 2^-20.5 absolute in ±2π, 2^-14.7 in ±100π, else best effort |
//! | [`tanh`] | 2^-11 relative |
//! | [`div_approx`], [`div_full`] | 2 ulp (here: correctly rounded) |

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, LN_2};

use super::f32 as single;
use super::f32::{NAN, flush, is_nan};
use super::round::RN;

const SIGN: u32 = 0x8000_0000;

/// `ln(2)^n / n!`: the series of `2^x`.
const EX2: [f32; 8] = {
    let mut terms = [1.0f32; 8];
    let mut term = 1.0;
    let mut n = 1;
    while n < terms.len() {
        term *= LN_2 / n as f64;
        terms[n] = term as f32;
        n += 1;
    }
    terms
};

/// `2 / (ln(2) (2n + 1))`: the series of `log2((1 + s) / (1 - s))` in odd powers of `s`.
const LG2: [f32; 5] = {
    let mut terms = [0.0f32; 5];
    let mut n = 0;
    while n < terms.len() {
        terms[n] = (2.0 / (LN_2 * (2 * n + 1) as f64)) as f32;
        n += 1;
    }
    terms
};

/// `(-1)^n / (2n + FIRST)!`: the series of sine (1) and cosine (0) in squares.
const fn circular<const FIRST: usize>() -> [f64; 8] {
    let mut terms = [1.0; 8];
    let mut n = 1;
    while n < terms.len() {
        let last = (2 * n + FIRST) as f64;
        terms[n] = -terms[n - 1] / (last * (last - 1.0));
        n += 1;
    }
    terms
}

const SIN: [f64; 8] = circular::<1>();
const COS: [f64; 8] = circular::<0>();

/// `1 / n!`: the series of the exponential.
const EXP: [f64; 12] = {
    let mut terms = [1.0; 12];
    let mut n = 1;
    while n < terms.len() {
        terms[n] = terms[n - 1] / n as f64;
        n += 1;
    }
    terms
};

/// Added and subtracted, rounds an f32 of up to 2^22 to an integer, which then sits in the low
/// bits of the sum.
const ROUND_F32: f32 = 12_582_912.0;
/// As [`ROUND_F32`], for an f64 of up to 2^51.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;

/// `2^k` for `k` in the range of normal numbers.
#[inline(always)]
fn power_of_two(k: i32) -> f32 {
    f32::from_bits((k.wrapping_add(127) as u32) << 23)
}

/// `ex2.approx.f32`.
#[inline(always)]
pub fn ex2<const FTZ: bool>(a: u32) -> u32 {
    let x = f32::from_bits(flush::<FTZ>(a));
    // Beyond these all is infinity or zero.
    let x = if x > 130.0 { 130.0 } else { x };
    let x = if x < -160.0 { -160.0 } else { x };
    let shifted = x + ROUND_F32;
    let fraction = x - (shifted - ROUND_F32);
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND_F32.to_bits() as i32);
    let mut power = EX2[EX2.len() - 1];
    for n in (0..EX2.len() - 1).rev() {
        power = power.mul_add(fraction, EX2[n]);
    }
    // In two factors, so that a subnormal result is rounded once and 2^128 is not needed.
    let first = exponent >> 1;
    let second = exponent.wrapping_sub(first);
    let result = (power * power_of_two(first)) * power_of_two(second);
    if is_nan(a) {
        NAN
    } else {
        flush::<FTZ>(result.to_bits())
    }
}

/// `lg2.approx.f32`.
#[inline(always)]
pub fn lg2<const FTZ: bool>(a: u32) -> u32 {
    let a = flush::<FTZ>(a);
    let subnormal = a < 0x0080_0000;
    let scaled = (f32::from_bits(a) * 8_388_608.0).to_bits();
    let bits = if subnormal { scaled } else { a };
    let adjust = if subnormal { -23 } else { 0 };
    // The mantissa between sqrt(1/2) and sqrt(2), so that numbers near one have exponent zero.
    let exponent = (bits.wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits()) as i32) >> 23;
    let mantissa = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut series = LG2[LG2.len() - 1];
    for n in (0..LG2.len() - 1).rev() {
        series = series.mul_add(square, LG2[n]);
    }
    let result = s.mul_add(series, (exponent + adjust) as f32).to_bits();
    let result = flush::<FTZ>(result);
    // Positive numbers are below infinity as integers; then come NaN and all that is negative.
    let result = if a >= 0x7f80_0000 { NAN } else { result };
    let result = if a == 0x7f80_0000 { a } else { result };
    if a & !SIGN == 0 { 0xff80_0000 } else { result }
}

/// `rcp.approx.f32`.
#[inline(always)]
pub fn rcp<const FTZ: bool>(a: u32) -> u32 {
    single::rcp::<RN, FTZ>(a)
}

/// `sqrt.approx.f32`.
#[inline(always)]
pub fn sqrt<const FTZ: bool>(a: u32) -> u32 {
    single::sqrt::<RN, FTZ>(a)
}

/// `rsqrt.approx.f32`.
#[inline(always)]
pub fn rsqrt<const FTZ: bool>(a: u32) -> u32 {
    let x = f64::from(f32::from_bits(flush::<FTZ>(a)));
    let bits = ((1.0 / x.sqrt()) as f32).to_bits();
    if is_nan(bits) { NAN } else { bits }
}

/// `div.full.f32`.
#[inline(always)]
pub fn div_full<const FTZ: bool>(a: u32, b: u32) -> u32 {
    single::div::<RN, FTZ>(a, b)
}

/// `div.approx.f32`: for `|b|` between 2^126 and 2^128 the result is zero, or NaN for an infinite
/// `a`.
#[inline(always)]
pub fn div_approx<const FTZ: bool>(a: u32, b: u32) -> u32 {
    const LARGE: u32 = (126 + 127) << 23;
    let magnitude = b & !SIGN;
    let large = (magnitude > LARGE) & (magnitude < 0x7f80_0000);
    let zero = (a ^ b) & SIGN;
    let unless_number = if a & !SIGN >= 0x7f80_0000 { NAN } else { zero };
    if large {
        unless_number
    } else {
        div_full::<FTZ>(a, b)
    }
}

/// Sine and cosine of `x - n π/2` for the `n` that brings it next to zero, and `n` modulo 4.
/// Precise for `|x|` up to 2^31.
#[inline(always)]
fn reduced(x: f64) -> (f64, f64, u64) {
    /// What [`FRAC_PI_2`] lacks to π/2.
    const REST: f64 = 6.123_233_995_736_766e-17;
    let shifted = x.mul_add(FRAC_2_PI, ROUND_F64);
    let n = shifted - ROUND_F64;
    let angle = n.mul_add(-REST, n.mul_add(-FRAC_PI_2, x));
    let square = angle * angle;
    let series = |terms: &[f64; 8]| {
        let mut sum = terms[7];
        for n in (0..7).rev() {
            sum = sum.mul_add(square, terms[n]);
        }
        sum
    };
    (angle * series(&SIN), series(&COS), shifted.to_bits() & 3)
}

/// Arguments from here on take the slow path.
const FAR: f32 = 2_147_483_648.0;

/// `sin.approx.f32`.
#[inline(always)]
pub fn sin<const FTZ: bool>(a: u32) -> u32 {
    let x = f32::from_bits(flush::<FTZ>(a));
    let result = if x.abs() < FAR {
        let (sine, cosine, quadrant) = reduced(x.into());
        let value = if quadrant & 1 == 0 { sine } else { cosine };
        if quadrant & 2 == 0 { value } else { -value }
    } else {
        libm::sin(x.into())
    };
    circular_result::<FTZ>(result)
}

/// `cos.approx.f32`.
#[inline(always)]
pub fn cos<const FTZ: bool>(a: u32) -> u32 {
    let x = f32::from_bits(flush::<FTZ>(a));
    let result = if x.abs() < FAR {
        let (sine, cosine, quadrant) = reduced(x.into());
        let value = if quadrant & 1 == 0 { cosine } else { sine };
        if quadrant.wrapping_add(1) & 2 == 0 {
            value
        } else {
            -value
        }
    } else {
        libm::cos(x.into())
    };
    circular_result::<FTZ>(result)
}

#[inline(always)]
fn circular_result<const FTZ: bool>(value: f64) -> u32 {
    let bits = (value as f32).to_bits();
    if is_nan(bits) {
        NAN
    } else {
        flush::<FTZ>(bits)
    }
}

/// `tanh.approx.f32`. Subnormal arguments pass through.
#[inline(always)]
pub fn tanh(a: u32) -> u32 {
    let x = f64::from(f32::from_bits(a & !SIGN));
    // From here on the result is one.
    let x = if x > 20.0 { 20.0 } else { x };
    // exp(2x) = 2^n exp(r)
    let shifted = (2.0 * x).mul_add(1.0 / LN_2, ROUND_F64);
    let n = shifted - ROUND_F64;
    let rest = n.mul_add(-LN_2, 2.0 * x);
    let mut power = EXP[EXP.len() - 1];
    for n in (0..EXP.len() - 1).rev() {
        power = power.mul_add(rest, EXP[n]);
    }
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    let far = 1.0 - 2.0 / power.mul_add(scale, 1.0);
    // Near zero the difference above has no digits left, and two terms of the series do.
    let near = x - x * x * x / 3.0;
    let value = if x < 1.0 / 1024.0 { near } else { far };
    let bits = (value as f32).to_bits() | (a & SIGN);
    if is_nan(a) { NAN } else { bits }
}

/// The NaN of the approximate f64 functions.
const NAN_F64: u64 = 0x7fff_ffff_0000_0000;

/// A function of the upper word of `a`, of which the upper word is kept; subnormals are flushed.
#[inline(always)]
fn upper_word(a: u64, function: impl Fn(f64) -> f64) -> u64 {
    const UPPER: u64 = 0xffff_ffff_0000_0000;
    let flush = |bits: u64| {
        let subnormal = bits << 1 >> 53 == 0;
        bits & if subnormal { 1 << 63 } else { UPPER }
    };
    let value = function(f64::from_bits(flush(a)));
    if value.is_nan() {
        NAN_F64
    } else {
        flush(value.to_bits())
    }
}

/// `rcp.approx.ftz.f64`: about 20 bits.
#[inline(always)]
pub fn rcp_f64(a: u64) -> u64 {
    upper_word(a, |x| 1.0 / x)
}

/// `rsqrt.approx.ftz.f64`: about 20 bits.
#[inline(always)]
pub fn rsqrt_ftz_f64(a: u64) -> u64 {
    upper_word(a, |x| 1.0 / x.sqrt())
}

/// `rsqrt.approx.f64`.
#[inline(always)]
pub fn rsqrt_f64(a: u64) -> u64 {
    let value = 1.0 / f64::from_bits(a).sqrt();
    if value.is_nan() {
        super::f64::NAN
    } else {
        value.to_bits()
    }
}
