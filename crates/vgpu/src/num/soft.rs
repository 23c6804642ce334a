//! Exact arithmetic on unpacked numbers, and one rounding from there into any format.
//!
//! Serves what is rare or irregular: directed f64 arithmetic and conversions. A number is an
//! integer times a power of two; what an operation cannot keep is remembered as a set lowest bit,
//! far below the precision of any format.

use super::round::Round;

/// An IEEE binary floating-point format of at most 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Significant bits, the implied one included.
    pub precision: u32,
    /// Bits of the exponent field.
    pub exponent_bits: u32,
    /// The NaN that results take.
    pub nan: u64,
}

/// Half precision.
pub(super) const F16: Format = ieee(11, 5, 0x7fff);
/// bfloat16.
pub(super) const BF16: Format = ieee(8, 8, 0x7fff);
/// Single precision.
pub(super) const F32: Format = ieee(24, 8, 0x7fff_ffff);
/// Double precision.
pub(super) const F64: Format = ieee(53, 11, super::f64::NAN);

const fn ieee(precision: u32, exponent_bits: u32, nan: u64) -> Format {
    Format {
        precision,
        exponent_bits,
        nan,
    }
}

impl Format {
    /// The sign bit.
    pub const fn sign(&self) -> u64 {
        1 << (self.precision - 1 + self.exponent_bits)
    }

    /// The bits of infinity.
    const fn infinity(&self) -> u64 {
        ((1 << self.exponent_bits) - 1) << (self.precision - 1)
    }

    /// The exponent of the last bit of subnormals.
    const fn least_exponent(&self) -> i32 {
        3 - (1 << (self.exponent_bits - 1)) - self.precision as i32
    }
}

/// A finite number: `magnitude * 2^exponent`, with the sign kept for zero.
///
/// The magnitude has at most 126 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finite {
    /// The sign.
    pub negative: bool,
    /// The integer.
    pub magnitude: u128,
    /// The power of two.
    pub exponent: i32,
}

/// An unpacked number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// Any NaN.
    Nan,
    /// Infinity; `true` if negative.
    Infinity(bool),
    /// A finite number.
    Finite(Finite),
}

/// Reads a format's bits; bits above the format are ignored.
pub(super) fn unpack(format: Format, bits: u64) -> Number {
    let negative = bits & format.sign() != 0;
    let magnitude = bits & (format.sign() - 1);
    if magnitude >= format.infinity() {
        let infinite = magnitude == format.infinity();
        return if infinite {
            Number::Infinity(negative)
        } else {
            Number::Nan
        };
    }
    let fraction_bits = format.precision - 1;
    let field = (magnitude >> fraction_bits) as i32;
    let fraction = magnitude & ((1 << fraction_bits) - 1);
    let implied = u64::from(field != 0) << fraction_bits;
    Number::Finite(Finite {
        negative,
        magnitude: u128::from(fraction | implied),
        exponent: format.least_exponent() + (field - 1).max(0),
    })
}

/// `magnitude * 2^-shift` rounded to an integer.
pub(super) fn shift_right(value: Finite, shift: u32, round: Round) -> u128 {
    if shift == 0 {
        return value.magnitude;
    }
    // Beyond the magnitude's bits only "less than half" is left to tell.
    let shift = shift.min(127);
    let floor = value.magnitude >> shift;
    let rest = value.magnitude & ((1 << shift) - 1);
    let half = 1u128 << (shift - 1);
    let up = match round {
        Round::Nearest => rest > half || (rest == half && floor & 1 == 1),
        Round::NearestAway => rest >= half,
        Round::Zero => false,
        Round::Down => value.negative && rest != 0,
        Round::Up => !value.negative && rest != 0,
    };
    floor + u128::from(up)
}

/// Rounds a number into a format. What is too large becomes infinity or, by mode, the largest
/// finite number; always the latter if `finite`, then for infinities as well.
pub(super) fn pack(format: Format, number: Number, round: Round, finite: bool) -> u64 {
    let value = match number {
        Number::Nan => return format.nan,
        Number::Infinity(negative) => {
            let magnitude = format.infinity() - u64::from(finite);
            return magnitude | if negative { format.sign() } else { 0 };
        }
        Number::Finite(value) => value,
    };
    let sign = if value.negative { format.sign() } else { 0 };
    if value.magnitude == 0 {
        return sign;
    }
    let least = format.least_exponent();
    let top = value.exponent + 127 - value.magnitude.leading_zeros() as i32;
    let last = (top - (format.precision as i32 - 1)).max(least);
    let significand = if last > value.exponent {
        shift_right(value, (last - value.exponent) as u32, round)
    } else {
        // Fits: the result has at most the format's precision.
        value.magnitude << (value.exponent - last)
    };
    // A significand that rounded up to the next power of two carries into the exponent, which is
    // right; so does the implied bit of a subnormal that became normal.
    let field = u128::from((last - least) as u32) << (format.precision - 1);
    let magnitude = field + significand;
    let max = format.infinity() - 1;
    if magnitude <= u128::from(max) {
        return sign | magnitude as u64;
    }
    let inwards = match round {
        Round::Nearest | Round::NearestAway => false,
        Round::Zero => true,
        Round::Down => !value.negative,
        Round::Up => value.negative,
    };
    sign | if finite || inwards {
        max
    } else {
        format.infinity()
    }
}

/// Shifts so that the highest bit is bit `bit`; the magnitude is not zero.
fn normalise(value: Finite, bit: i32) -> Finite {
    let shift = bit - (127 - value.magnitude.leading_zeros() as i32);
    debug_assert!(shift >= 0);
    Finite {
        magnitude: value.magnitude << shift,
        exponent: value.exponent - shift,
        ..value
    }
}

/// `a * b`, exactly; magnitudes of at most 62 bits.
pub(super) fn multiply(a: Finite, b: Finite) -> Finite {
    Finite {
        negative: a.negative != b.negative,
        magnitude: a.magnitude * b.magnitude,
        exponent: a.exponent + b.exponent,
    }
}

/// `a + b` for one rounding to at most 64 bits; magnitudes of at most 107 bits. The sign of an
/// exact zero is that of the operands if they agree, else that of the mode.
pub(super) fn add(a: Finite, b: Finite, round: Round) -> Finite {
    let zero_sign = if a.negative == b.negative {
        a.negative
    } else {
        round == Round::Down
    };
    let zero = Finite {
        negative: zero_sign,
        magnitude: 0,
        exponent: 0,
    };
    match (a.magnitude, b.magnitude) {
        (0, 0) => return zero,
        (0, _) => return b,
        (_, 0) => return a,
        _ => {}
    }
    let top = |x: Finite| x.exponent - x.magnitude.leading_zeros() as i32;
    let (large, small) = if top(a) >= top(b) { (a, b) } else { (b, a) };
    // The larger operand goes to bits 124 down. Of the smaller one bits are lost only if it is
    // smaller by 2^17 and more: no cancellation then, so that the lowest bit is far from the
    // rounding.
    let large = normalise(large, 124);
    let shift = small.exponent - large.exponent;
    let aligned = if shift >= 0 {
        small.magnitude << shift
    } else {
        let down = (-shift).min(127) as u32;
        let lost = small.magnitude & ((1 << down) - 1) != 0;
        small.magnitude >> down | u128::from(lost)
    };
    let same = large.negative == small.negative;
    let (magnitude, negative) = if same {
        (large.magnitude + aligned, large.negative)
    } else if large.magnitude >= aligned {
        (large.magnitude - aligned, large.negative)
    } else {
        (aligned - large.magnitude, small.negative)
    };
    if magnitude == 0 {
        return zero;
    }
    Finite {
        negative,
        magnitude,
        exponent: large.exponent,
    }
}

/// `a / b` for one rounding to at most 60 bits; magnitudes of at most 62 bits, `b` not zero.
pub(super) fn divide(a: Finite, b: Finite) -> Finite {
    let negative = a.negative != b.negative;
    if a.magnitude == 0 {
        return Finite {
            negative,
            magnitude: 0,
            exponent: 0,
        };
    }
    let a = normalise(a, 125);
    let quotient = a.magnitude / b.magnitude;
    let lost = !a.magnitude.is_multiple_of(b.magnitude);
    Finite {
        negative,
        magnitude: quotient | u128::from(lost),
        exponent: a.exponent - b.exponent,
    }
}

/// The root of `a` for one rounding to at most 60 bits; a magnitude of at most 62 bits. The sign
/// of zero stays; any other sign is ignored.
pub(super) fn root(a: Finite) -> Finite {
    if a.magnitude == 0 {
        return a;
    }
    let scaled = normalise(a, 125);
    // The exponent must be even to be halved.
    let odd = scaled.exponent & 1;
    let magnitude = scaled.magnitude >> odd;
    let exponent = scaled.exponent + odd;
    let root = magnitude.isqrt();
    let lost = root * root != magnitude;
    Finite {
        negative: a.negative,
        magnitude: root | u128::from(lost),
        exponent: exponent / 2,
    }
}
