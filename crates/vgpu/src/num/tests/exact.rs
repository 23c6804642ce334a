//! Exact numbers: integers of many limbs, and whether a result is the right neighbour of them.

use std::cmp::Ordering;

use super::super::Round;

/// An IEEE format.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub precision: u32,
    pub exponent_bits: u32,
}

pub const F16: Format = Format {
    precision: 11,
    exponent_bits: 5,
};
pub const BF16: Format = Format {
    precision: 8,
    exponent_bits: 8,
};
pub const F32: Format = Format {
    precision: 24,
    exponent_bits: 8,
};
pub const F64: Format = Format {
    precision: 53,
    exponent_bits: 11,
};

/// `±integer * 2^exponent`.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    pub negative: bool,
    pub integer: u128,
    pub exponent: i32,
}

impl Value {
    pub fn from_integer(value: i128) -> Self {
        Self {
            negative: value < 0,
            integer: value.unsigned_abs(),
            exponent: 0,
        }
    }

    pub fn times(self, other: Self) -> Self {
        Self {
            negative: self.negative != other.negative,
            integer: self.integer * other.integer,
            exponent: self.exponent + other.exponent,
        }
    }

    pub fn negated(self) -> Self {
        Self {
            negative: !self.negative,
            ..self
        }
    }
}

impl Format {
    pub fn width(self) -> u32 {
        self.precision + self.exponent_bits
    }

    pub fn sign(self) -> u64 {
        1 << (self.width() - 1)
    }

    pub fn infinity(self) -> u64 {
        self.sign() - (1 << (self.precision - 1))
    }

    pub fn is_nan(self, bits: u64) -> bool {
        bits & (self.sign() - 1) > self.infinity()
    }

    pub fn is_finite(self, bits: u64) -> bool {
        bits & (self.sign() - 1) < self.infinity()
    }

    /// The value of a magnitude; that of infinity is the number that would be next.
    fn magnitude(self, magnitude: u64) -> Value {
        let fraction_bits = self.precision - 1;
        let fraction = magnitude % (1 << fraction_bits);
        let field = magnitude >> fraction_bits;
        let bias = (1i32 << (self.exponent_bits - 1)) - 1;
        let (integer, field) = if field == 0 {
            (fraction, 1)
        } else {
            (fraction + (1 << fraction_bits), field)
        };
        Value {
            negative: false,
            integer: integer.into(),
            exponent: field as i32 - bias - fraction_bits as i32,
        }
    }

    pub fn value(self, bits: u64) -> Value {
        Value {
            negative: bits & self.sign() != 0,
            ..self.magnitude(bits & (self.sign() - 1))
        }
    }

    /// Halfway from a magnitude to the next.
    fn halfway(self, magnitude: u64) -> Value {
        let at = self.magnitude(magnitude);
        Value {
            integer: at.integer * 2 + 1,
            exponent: at.exponent - 1,
            ..at
        }
    }
}

/// Two's complement of `N` limbs, in units of `2^-(32 N)`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fixed<const N: usize>([u64; N]);

impl<const N: usize> Fixed<N> {
    fn of(value: Value) -> Self {
        let shift = value.exponent + 32 * N as i32;
        let mut limbs = [0u64; N];
        for bit in (0..128).filter(|bit| value.integer >> bit & 1 != 0) {
            let position = shift + bit;
            assert!(
                position >= 0 && position < 64 * N as i32 - 2,
                "out of the exact range"
            );
            limbs[position as usize / 64] |= 1 << (position % 64);
        }
        if value.negative {
            Self(limbs).negated()
        } else {
            Self(limbs)
        }
    }

    fn negated(self) -> Self {
        let mut carry = true;
        Self(self.0.map(|limb| {
            let (sum, out) = (!limb).overflowing_add(carry.into());
            carry = out;
            sum
        }))
    }

    fn plus(self, other: Self) -> Self {
        let mut sum = [0u64; N];
        let mut carry = 0u128;
        for i in 0..N {
            carry += u128::from(self.0[i]) + u128::from(other.0[i]);
            sum[i] = carry as u64;
            carry >>= 64;
        }
        Self(sum)
    }

    fn sign(self) -> Ordering {
        if self.0[N - 1] >> 63 != 0 {
            Ordering::Less
        } else if self.0.iter().all(|&limb| limb == 0) {
            Ordering::Equal
        } else {
            Ordering::Greater
        }
    }
}

/// The sign of the exact sum.
pub fn sign_of_sum<const N: usize>(terms: &[Value]) -> Ordering {
    let zero = Fixed::<N>([0; N]);
    terms
        .iter()
        .fold(zero, |sum, &term| sum.plus(Fixed::of(term)))
        .sign()
}

/// Checks that `bits` is an exact value rounded into `format`. `compare` tells how a candidate
/// compares to the exact value. Signs of zero are not looked at.
pub fn is_rounded(
    format: Format,
    bits: u64,
    round: Round,
    compare: impl Fn(Value) -> Ordering,
) -> bool {
    if format.is_nan(bits) {
        return false;
    }
    let negative = bits & format.sign() != 0;
    let magnitude = bits & (format.sign() - 1);
    // From here on as if the result were positive.
    let compare = |candidate: Value| {
        if negative {
            compare(candidate.negated()).reverse()
        } else {
            compare(candidate)
        }
    };
    let round = match (round, negative) {
        (Round::Down, true) => Round::Up,
        (Round::Up, true) => Round::Down,
        (round, _) => round,
    };
    let at = compare(format.magnitude(magnitude));
    let infinite = magnitude == format.infinity();
    let above = |magnitude| compare(format.magnitude(magnitude));
    let zero = magnitude == 0;
    match round {
        // Towards zero; from zero also negative values go there.
        Round::Zero | Round::Down => {
            let below_next =
                magnitude + 1 == format.infinity() || above(magnitude + 1) == Ordering::Greater;
            let not_above = at != Ordering::Greater;
            !infinite
                && if zero && round == Round::Zero {
                    below_next && compare(format.magnitude(1).negated()) == Ordering::Less
                } else {
                    not_above && below_next
                }
        }
        Round::Up => {
            let at_least = infinite || at != Ordering::Less;
            let below = if zero {
                compare(format.magnitude(1).negated()) == Ordering::Less
            } else {
                above(magnitude - 1) == Ordering::Less
            };
            at_least && below
        }
        Round::Nearest | Round::NearestAway => {
            let even = magnitude & 1 == 0;
            let (low, high) = match round {
                Round::Nearest => (even, even),
                _ => (true, false),
            };
            let upper = infinite
                || match compare(format.halfway(magnitude)) {
                    Ordering::Greater => true,
                    Ordering::Equal => high,
                    Ordering::Less => false,
                };
            let lower_edge = if zero {
                format.halfway(0).negated()
            } else {
                format.halfway(magnitude - 1)
            };
            let lower = match compare(lower_edge) {
                Ordering::Less => true,
                Ordering::Equal => low,
                Ordering::Greater => false,
            };
            upper && lower
        }
    }
}
