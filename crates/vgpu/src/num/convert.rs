//! `cvt` between scalar types: any legal pair through [`converter`], and typed functions for the
//! pairs that sit in inner loops.
//!
//! Results of [`Converter::apply`] are extended to 64 bits the way `cvt` extends them to a wider
//! register: with the sign for signed integers, with zeros otherwise.

use super::f32 as single;
use super::round::{RM, RP, RZ, Round};
use super::soft::{self, Finite, Format, Number};
use super::{f64 as double, half, tf32};

/// A scalar type of `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `.u8`
    U8,
    /// `.u16`
    U16,
    /// `.u32`
    U32,
    /// `.u64`
    U64,
    /// `.s8`
    S8,
    /// `.s16`
    S16,
    /// `.s32`
    S32,
    /// `.s64`
    S64,
    /// `.f16`
    F16,
    /// `.bf16`
    Bf16,
    /// `.f32`
    F32,
    /// `.f64`
    F64,
    /// `.tf32`, as a destination only.
    Tf32,
}

/// The bits and the sign of an integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Integer {
    bits: u32,
    signed: bool,
}

impl Integer {
    fn range(self) -> (i128, i128) {
        if self.signed {
            (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
        } else {
            (0, (1 << self.bits) - 1)
        }
    }

    /// The value of the low bits.
    fn read(self, bits: u64) -> i128 {
        let unused = 64 - self.bits;
        if self.signed {
            i128::from((bits << unused) as i64 >> unused)
        } else {
            i128::from(bits << unused >> unused)
        }
    }

    /// The low bits of a value, extended.
    fn write(self, value: i128) -> u64 {
        self.read(value as u64) as u64
    }
}

/// What a [`Kind`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Integer(Integer),
    Float(Format),
    Tf32,
}

impl Kind {
    fn shape(self) -> Shape {
        let unsigned = |bits| {
            Shape::Integer(Integer {
                bits,
                signed: false,
            })
        };
        let signed = |bits| Shape::Integer(Integer { bits, signed: true });
        match self {
            Self::U8 => unsigned(8),
            Self::U16 => unsigned(16),
            Self::U32 => unsigned(32),
            Self::U64 => unsigned(64),
            Self::S8 => signed(8),
            Self::S16 => signed(16),
            Self::S32 => signed(32),
            Self::S64 => signed(64),
            Self::F16 => Shape::Float(soft::F16),
            Self::Bf16 => Shape::Float(soft::BF16),
            Self::F32 => Shape::Float(soft::F32),
            Self::F64 => Shape::Float(soft::F64),
            Self::Tf32 => Shape::Tf32,
        }
    }
}

/// The rounding modifier of a `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To the destination's precision: `.rn`, `.rna`, `.rz`, `.rm`, `.rp`.
    Float(Round),
    /// To an integer: `.rni`, `.rzi`, `.rmi`, `.rpi`.
    Integer(Round),
}

/// The modifiers of a `cvt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CvtOptions {
    /// The rounding modifier, if there is one.
    pub rounding: Option<Rounding>,
    /// `.ftz`.
    pub ftz: bool,
    /// `.sat`.
    pub sat: bool,
    /// `.relu`.
    pub relu: bool,
    /// `.satfinite`.
    pub satfinite: bool,
}

/// A conversion with its modifiers, from [`converter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converter {
    from: Shape,
    to: Shape,
    round: Round,
    integral: bool,
    options: CvtOptions,
}

/// The conversion `cvt.to.from` with these modifiers, or `None` if PTX has no such instruction.
///
/// What the ISA's text leaves open follows NVIDIA's assembler (13.0), but for the required target
/// architecture, which is not looked at.
pub fn converter(to: Kind, from: Kind, options: CvtOptions) -> Option<Converter> {
    use Round::NearestAway;
    let (from_shape, to_shape) = (from.shape(), to.shape());
    let single = from == Kind::F32 || to == Kind::F32;
    let CvtOptions {
        rounding,
        ftz,
        sat,
        relu,
        satfinite,
    } = options;
    let clamps = relu || satfinite;
    let legal = match (from_shape, to_shape) {
        (Shape::Tf32, _) => false,
        (Shape::Integer(source), Shape::Integer(target)) => {
            let ((low, high), (least, most)) = (source.range(), target.range());
            let superset = least <= low && high <= most;
            rounding.is_none() && !clamps && !(sat && superset)
        }
        (Shape::Float(_), Shape::Integer(_)) => {
            matches!(rounding, Some(Rounding::Integer(mode)) if mode != NearestAway) && !clamps
        }
        (Shape::Integer(_), Shape::Float(_)) => {
            matches!(rounding, Some(Rounding::Float(mode)) if mode != NearestAway) && !clamps
        }
        (Shape::Float(_), Shape::Tf32) => {
            let rounding_fits = match rounding {
                Some(Rounding::Float(Round::Nearest | Round::Zero)) => true,
                Some(Rounding::Float(NearestAway)) => !relu,
                _ => false,
            };
            from == Kind::F32 && rounding_fits && !sat && !ftz
        }
        (Shape::Float(source), Shape::Float(target)) => {
            let widens = source.precision <= target.precision
                && source.exponent_bits <= target.exponent_bits;
            let rounding_fits = match rounding {
                None => widens,
                Some(Rounding::Integer(mode)) => from == to && mode != NearestAway,
                // The ISA's own example rounds a bf16 source where nothing can be lost.
                Some(Rounding::Float(mode)) => {
                    (!widens || (from == Kind::Bf16 && from != to)) && mode != NearestAway
                }
            };
            let to_half = matches!(to, Kind::F16 | Kind::Bf16) && from == Kind::F32;
            let two_modes = matches!(
                rounding,
                Some(Rounding::Float(Round::Nearest | Round::Zero))
            );
            rounding_fits && (!clamps || (to_half && two_modes))
        }
        (Shape::Integer(_), Shape::Tf32) => false,
    };
    let brain = from == Kind::Bf16 || to == Kind::Bf16;
    let combine = !(sat && (clamps || brain)) && !(ftz && (clamps || !single));
    if !legal || !combine {
        return None;
    }
    let (round, integral) = match rounding {
        None => (Round::Nearest, false),
        Some(Rounding::Float(mode)) => (mode, false),
        Some(Rounding::Integer(mode)) => (mode, true),
    };
    Some(Converter {
        from: from_shape,
        to: to_shape,
        round,
        integral,
        options,
    })
}

impl Converter {
    /// Converts the low bits of a register.
    pub fn apply(&self, bits: u64) -> u64 {
        match (self.from, self.to) {
            (Shape::Integer(from), Shape::Integer(to)) => {
                let value = from.read(bits);
                to.write(if self.options.sat {
                    clamp(value, to)
                } else {
                    value
                })
            }
            (Shape::Integer(from), Shape::Float(to)) => {
                let value = from.read(bits);
                let finite = Finite {
                    negative: value < 0,
                    magnitude: value.unsigned_abs(),
                    exponent: 0,
                };
                self.finish(to, Number::Finite(finite))
            }
            (Shape::Float(from), Shape::Integer(to)) => {
                to.write(self.integer(from, to, self.operand(from, bits)))
            }
            (Shape::Float(from), Shape::Float(to)) => {
                let number = match self.operand(from, bits) {
                    Number::Finite(finite) if self.integral => {
                        Number::Finite(integral(finite, self.round))
                    }
                    number => number,
                };
                self.finish(to, number)
            }
            (_, Shape::Tf32) | (Shape::Tf32, _) => u64::from(self.tf32(bits as u32)),
        }
    }

    /// The source, flushed if it is f32 and `.ftz` is given.
    fn operand(&self, from: Format, bits: u64) -> Number {
        let flushed = if from == soft::F32 && self.options.ftz {
            u64::from(single::flush::<true>(bits as u32))
        } else {
            bits
        };
        soft::unpack(from, flushed)
    }

    fn integer(&self, from: Format, to: Integer, number: Number) -> i128 {
        let (low, high) = to.range();
        match number {
            // The ISA's two cases for NaN.
            Number::Nan if from == soft::F64 || to.bits == 64 => 1 << (to.bits - 1),
            Number::Nan => 0,
            Number::Infinity(negative) => {
                if negative {
                    low
                } else {
                    high
                }
            }
            Number::Finite(finite) => {
                let rounded = integral(finite, self.round);
                // Past 2^64 the exact value does not matter.
                let shift = rounded.exponent.min(72) as u32;
                let magnitude = (rounded.magnitude << shift) as i128;
                clamp(
                    if rounded.negative {
                        -magnitude
                    } else {
                        magnitude
                    },
                    to,
                )
            }
        }
    }

    /// Rounds into the destination and applies the clamping modifiers.
    fn finish(&self, to: Format, number: Number) -> u64 {
        let bits = soft::pack(to, number, self.round, self.options.satfinite);
        let bits = match to {
            soft::F32 if self.options.ftz => u64::from(single::flush::<true>(bits as u32)),
            _ => bits,
        };
        let bits = match to {
            _ if !self.options.sat => bits,
            soft::F16 => u64::from(half::sat::<half::F16>(bits as u16)),
            soft::F32 => u64::from(single::sat(bits as u32)),
            _ => double::sat(bits),
        };
        let negative = bits & to.sign() != 0 && bits != to.nan;
        if self.options.relu && negative {
            0
        } else {
            bits
        }
    }

    fn tf32(&self, bits: u32) -> u32 {
        let bits = if self.options.ftz {
            single::flush::<true>(bits)
        } else {
            bits
        };
        let rounded = match self.round {
            Round::NearestAway => tf32::from_f32_rna(bits),
            Round::Zero => tf32::from_f32_rz(bits),
            _ => tf32::from_f32_rn(bits),
        };
        let finite = if self.options.satfinite {
            tf32::satfinite(rounded)
        } else {
            rounded
        };
        if self.options.relu {
            single::relu(finite)
        } else {
            finite
        }
    }
}

fn clamp(value: i128, to: Integer) -> i128 {
    let (low, high) = to.range();
    value.clamp(low, high)
}

/// Rounded to an integer; the exponent of the result is not negative.
fn integral(value: Finite, round: Round) -> Finite {
    if value.exponent >= 0 {
        return value;
    }
    let magnitude = soft::shift_right(value, value.exponent.unsigned_abs(), round);
    Finite {
        magnitude,
        exponent: 0,
        ..value
    }
}

/// An f32 rounded to an integer in the mode `M`.
#[inline(always)]
fn round_f32<const M: u8, const FTZ: bool>(a: u32) -> f32 {
    let value = f32::from_bits(single::flush::<FTZ>(a));
    match M {
        RZ => value.trunc(),
        RM => value.floor(),
        RP => value.ceil(),
        _ => value.round_ties_even(),
    }
}

/// An f64 rounded to an integer in the mode `M`.
#[inline(always)]
fn round_f64<const M: u8>(a: u64) -> f64 {
    let value = f64::from_bits(a);
    match M {
        RZ => value.trunc(),
        RM => value.floor(),
        RP => value.ceil(),
        _ => value.round_ties_even(),
    }
}

/// `cvt.s32.f32` with an integer rounding: [`RN`](super::RN) is `.rni` and so on.
#[inline(always)]
pub fn s32_from_f32<const M: u8, const FTZ: bool>(a: u32) -> u32 {
    round_f32::<M, FTZ>(a) as i32 as u32
}

/// `cvt.u32.f32` with an integer rounding.
#[inline(always)]
pub fn u32_from_f32<const M: u8, const FTZ: bool>(a: u32) -> u32 {
    round_f32::<M, FTZ>(a) as u32
}

/// `cvt.s64.f32` with an integer rounding.
#[inline(always)]
pub fn s64_from_f32<const M: u8, const FTZ: bool>(a: u32) -> u64 {
    let value = round_f32::<M, FTZ>(a);
    if value.is_nan() {
        1 << 63
    } else {
        value as i64 as u64
    }
}

/// `cvt.u64.f32` with an integer rounding.
#[inline(always)]
pub fn u64_from_f32<const M: u8, const FTZ: bool>(a: u32) -> u64 {
    let value = round_f32::<M, FTZ>(a);
    if value.is_nan() {
        1 << 63
    } else {
        value as u64
    }
}

/// `cvt.s32.f64` with an integer rounding.
#[inline(always)]
pub fn s32_from_f64<const M: u8>(a: u64) -> u32 {
    let value = round_f64::<M>(a);
    if value.is_nan() {
        1 << 31
    } else {
        value as i32 as u32
    }
}

/// `cvt.u32.f64` with an integer rounding.
#[inline(always)]
pub fn u32_from_f64<const M: u8>(a: u64) -> u32 {
    let value = round_f64::<M>(a);
    if value.is_nan() {
        1 << 31
    } else {
        value as u32
    }
}

/// `cvt.f32.f32` with an integer rounding, such as `cvt.rni.f32.f32`.
#[inline(always)]
pub fn f32_integral<const M: u8, const FTZ: bool>(a: u32) -> u32 {
    let bits = round_f32::<M, FTZ>(a).to_bits();
    if single::is_nan(bits) {
        single::NAN
    } else {
        bits
    }
}

/// `cvt.rn.f32.s32`.
#[inline(always)]
pub fn f32_from_s32(a: u32) -> u32 {
    (a as i32 as f32).to_bits()
}

/// `cvt.rn.f32.u32`.
#[inline(always)]
pub fn f32_from_u32(a: u32) -> u32 {
    (a as f32).to_bits()
}

/// `cvt.rn.f32.s64`.
#[inline(always)]
pub fn f32_from_s64(a: u64) -> u32 {
    (a as i64 as f32).to_bits()
}

/// `cvt.rn.f32.u64`.
#[inline(always)]
pub fn f32_from_u64(a: u64) -> u32 {
    (a as f32).to_bits()
}

/// `cvt.rn.f64.s32`; exact.
#[inline(always)]
pub fn f64_from_s32(a: u32) -> u64 {
    f64::from(a as i32).to_bits()
}

/// `cvt.rn.f64.u32`; exact.
#[inline(always)]
pub fn f64_from_u32(a: u32) -> u64 {
    f64::from(a).to_bits()
}

/// `cvt.f64.f32`; exact, NaN becomes [`double::NAN`].
#[inline(always)]
pub fn f64_from_f32<const FTZ: bool>(a: u32) -> u64 {
    let bits = f64::from(f32::from_bits(single::flush::<FTZ>(a))).to_bits();
    if single::is_nan(a) { double::NAN } else { bits }
}

/// `cvt.rn.f32.f64`.
#[inline(always)]
pub fn f32_from_f64<const FTZ: bool>(a: u64) -> u32 {
    let bits = single::flush::<FTZ>((f64::from_bits(a) as f32).to_bits());
    if double::is_nan(a) { single::NAN } else { bits }
}
