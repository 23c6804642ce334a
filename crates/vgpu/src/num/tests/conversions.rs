//! `cvt` between scalar types.

use super::super::convert::{
    self, Converter, CvtOptions, Kind, Rounding, converter, f32_from_f64, f32_from_s32,
    f32_from_s64, f32_from_u32, f32_from_u64, f64_from_f32, s32_from_f32, s32_from_f64,
    s64_from_f32, u32_from_f32, u32_from_f64, u64_from_f32,
};
use super::super::{FTZ, KEEP, RM, RN, RP, RZ, Round, half, tf32};
use super::Random;
use super::exact::{self, Format, Value, is_rounded, sign_of_sum};

const MODES: [Round; 4] = [Round::Nearest, Round::Zero, Round::Down, Round::Up];
const INTEGERS: [(Kind, u32, bool); 8] = [
    (Kind::U8, 8, false),
    (Kind::U16, 16, false),
    (Kind::U32, 32, false),
    (Kind::U64, 64, false),
    (Kind::S8, 8, true),
    (Kind::S16, 16, true),
    (Kind::S32, 32, true),
    (Kind::S64, 64, true),
];
const FLOATS: [(Kind, Format); 4] = [
    (Kind::F16, exact::F16),
    (Kind::Bf16, exact::BF16),
    (Kind::F32, exact::F32),
    (Kind::F64, exact::F64),
];

fn float_rounding(mode: Round) -> CvtOptions {
    CvtOptions {
        rounding: Some(Rounding::Float(mode)),
        ..CvtOptions::default()
    }
}

fn integer_rounding(mode: Round) -> CvtOptions {
    CvtOptions {
        rounding: Some(Rounding::Integer(mode)),
        ..CvtOptions::default()
    }
}

fn legal(to: Kind, from: Kind, options: CvtOptions) -> Converter {
    converter(to, from, options).unwrap_or_else(|| panic!("{to:?} {from:?} {options:?}"))
}

fn range(bits: u32, signed: bool) -> (i128, i128) {
    if signed {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    }
}

/// The integer in the low bits of a register, by arithmetic.
fn integer(register: u64, bits: u32, signed: bool) -> i128 {
    let low = i128::from(register) % (1 << bits);
    if signed && low >= 1 << (bits - 1) {
        low - (1 << bits)
    } else {
        low
    }
}

/// Checks one source number against every float destination.
fn check_to_floats(random: &mut Random, from: Kind, register: u64, value: Value) {
    for (to, format) in FLOATS {
        for mode in MODES {
            let Some(convert) = converter(to, from, float_rounding(mode)) else {
                continue;
            };
            let result = convert.apply(register);
            let right = is_rounded(format, result, mode, |candidate| {
                sign_of_sum::<80>(&[candidate, value.negated()])
            });
            assert!(right, "{to:?} {from:?} {mode:?} {register:x} {result:x}");
            assert_eq!(
                result & format.sign() != 0,
                value.negative,
                "{to:?} {from:?} {result:x}"
            );
        }
    }
    // Bits above the type do not matter.
    let (to, _) = random.pick(&FLOATS);
    if let Some(convert) = converter(to, from, float_rounding(Round::Nearest)) {
        let width = match from {
            Kind::U8 | Kind::S8 => 8,
            Kind::U16 | Kind::S16 | Kind::F16 | Kind::Bf16 => 16,
            Kind::U32 | Kind::S32 | Kind::F32 => 32,
            _ => return,
        };
        let noise = random.next() << width;
        assert_eq!(convert.apply(register | noise), convert.apply(register));
    }
}

/// Checks one float against every integer destination.
fn check_to_integers(from: Kind, register: u64, value: f64) {
    for (to, bits, signed) in INTEGERS {
        let (low, high) = range(bits, signed);
        for mode in MODES {
            let rounded = match mode {
                Round::Zero => value.trunc(),
                Round::Down => value.floor(),
                Round::Up => value.ceil(),
                _ => {
                    let floor = value.floor();
                    let odd = floor % 2.0 != 0.0;
                    let up = value - floor > 0.5 || (value - floor == 0.5 && odd);
                    floor + f64::from(u8::from(up))
                }
            };
            let expected = if value.is_nan() {
                let top = from == Kind::F64 || bits == 64;
                if top { 1 << (bits - 1) } else { 0 }
            } else {
                (rounded as i128).clamp(low, high)
            };
            let result = legal(to, from, integer_rounding(mode)).apply(register);
            let extended = integer(expected as u64, bits, signed) as u64;
            assert_eq!(result, extended, "{to:?} {from:?} {mode:?} {value}");
        }
    }
}

#[test]
fn every_16_bit_float_to_everything() {
    let mut random = Random(31);
    for (from, format) in [(Kind::F16, exact::F16), (Kind::Bf16, exact::BF16)] {
        let to_f64 = legal(Kind::F64, from, CvtOptions::default());
        let to_f32 = legal(Kind::F32, from, CvtOptions::default());
        for register in 0..=0xffff {
            let double = f64::from_bits(to_f64.apply(register));
            let single = f32::from_bits(to_f32.apply(register) as u32);
            if format.is_finite(register) {
                let value = format.value(register);
                let expected = value.integer as f64
                    * 2f64.powi(value.exponent)
                    * if value.negative { -1.0 } else { 1.0 };
                assert_eq!(double.to_bits(), expected.to_bits());
                assert_eq!(f64::from(single).to_bits(), expected.to_bits());
                check_to_floats(&mut random, from, register, value);
            } else {
                assert_eq!(double.is_nan(), format.is_nan(register));
                assert_eq!(single.is_nan(), format.is_nan(register));
                assert_eq!(double.is_infinite(), !format.is_nan(register));
            }
            check_to_integers(from, register, double);
        }
    }
}

#[test]
fn every_8_and_16_bit_integer_to_everything() {
    let mut random = Random(32);
    for (from, bits, signed) in INTEGERS.into_iter().filter(|entry| entry.1 <= 16) {
        for register in 0..1u64 << bits {
            let value = integer(register, bits, signed);
            check_to_floats(&mut random, from, register, Value::from_integer(value));
            check_integer_to_integers(from, register, value);
        }
    }
}

fn check_integer_to_integers(from: Kind, register: u64, value: i128) {
    for (to, to_bits, to_signed) in INTEGERS {
        let wrapped = legal(to, from, CvtOptions::default()).apply(register);
        let low = value.rem_euclid(1 << to_bits) as u64;
        assert_eq!(wrapped, integer(low, to_bits, to_signed) as u64);
        let sat = CvtOptions {
            sat: true,
            ..CvtOptions::default()
        };
        let (least, most) = range(to_bits, to_signed);
        match converter(to, from, sat) {
            Some(convert) => assert_eq!(convert.apply(register), value.clamp(least, most) as u64),
            None => assert!(least <= value && value <= most, "{to:?} {from:?} {value}"),
        }
    }
}

#[test]
fn wide_integers_to_everything() {
    let mut random = Random(33);
    for (from, bits, signed) in INTEGERS.into_iter().filter(|entry| entry.1 > 16) {
        for _ in 0..4_000 {
            // All lengths, and next to the halves of the shorter precisions.
            let wide = random.next() >> random.below(64);
            let near = (1u64 << random.below(64))
                .wrapping_add(random.below(5))
                .wrapping_sub(2);
            let both = (wide & near.wrapping_neg())
                .wrapping_add(random.below(3))
                .wrapping_sub(1);
            let register = random.pick(&[wide, near, both, !near, !wide]);
            let register = if bits == 64 {
                register
            } else {
                register % (1 << bits)
            };
            let value = integer(register, bits, signed);
            check_to_floats(&mut random, from, register, Value::from_integer(value));
            check_integer_to_integers(from, register, value);
        }
    }
}

/// Numbers of a wide format at, halfway between and next to those of a narrow one.
fn near(random: &mut Random, wide: Format, narrow: Format) -> u64 {
    let drop = wide.precision - narrow.precision;
    let bits = random.next();
    let low = match random.below(4) {
        0 => 0,
        1 => 1 << (drop - 1),
        2 => (1 << (drop - 1)) + 1,
        _ => (1 << (drop - 1)) - 1,
    };
    let bias = (1u64 << (wide.exponent_bits - 1)) - 1;
    let reach = (1u64 << (narrow.exponent_bits - 1)) + u64::from(narrow.precision);
    let field = (bias + random.below(2 * reach)).saturating_sub(reach) % (2 * bias);
    let random_field = random.below(2 * bias);
    let field = random.pick(&[field, field, random_field]);
    let fraction = bits & ((1 << (wide.precision - 1)) - 1);
    let snapped = fraction >> drop << drop | low;
    // Subnormals of the narrow format drop more bits.
    let extra = random.below(u64::from(narrow.precision));
    let coarse = (fraction >> drop >> extra << extra << drop) | (1 << (drop as u64 + extra)) >> 1;
    let fraction = random.pick(&[fraction, snapped, coarse]) & ((1 << (wide.precision - 1)) - 1);
    (bits & wide.sign()) | field << (wide.precision - 1) | fraction
}

#[test]
fn f32_and_f64_to_everything() {
    let mut random = Random(34);
    for (from, format) in [(Kind::F32, exact::F32), (Kind::F64, exact::F64)] {
        for _ in 0..40_000 {
            let narrow = random.pick(&[exact::F16, exact::BF16]);
            let register = match (from, random.below(3)) {
                (Kind::F64, 0) => near(&mut random, format, exact::F32),
                _ => near(&mut random, format, narrow),
            };
            check_to_floats(&mut random, from, register, format.value(register));
        }
        for _ in 0..20_000 {
            let value = random.next() as i64 as f64 / 2f64.powi(random.below(70) as i32);
            let value = random.pick(&[value, value.round(), value.trunc() + 0.5, value * 1e3]);
            let (value, register) = match from {
                Kind::F32 => (f64::from(value as f32), u64::from((value as f32).to_bits())),
                _ => (value, value.to_bits()),
            };
            check_to_integers(from, register, value);
        }
        for value in [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.0,
            -0.0,
            1e-40,
            -1e-40,
        ] {
            let register = match from {
                Kind::F32 => u64::from((value as f32).to_bits()),
                _ => value.to_bits(),
            };
            let value = if from == Kind::F32 {
                f64::from(value as f32)
            } else {
                value
            };
            check_to_integers(from, register, value);
        }
    }
}

#[test]
fn typed_functions_agree_with_the_general_ones() {
    fn check<const M: u8>(random: &mut Random) {
        let mode = Round::of(M);
        let general = |to, from, ftz| {
            legal(
                to,
                from,
                CvtOptions {
                    ftz,
                    ..integer_rounding(mode)
                },
            )
        };
        let s32 = general(Kind::S32, Kind::F32, false);
        let s32_ftz = general(Kind::S32, Kind::F32, true);
        let u32 = general(Kind::U32, Kind::F32, false);
        let s64 = general(Kind::S64, Kind::F32, false);
        let u64 = general(Kind::U64, Kind::F32, false);
        let same = general(Kind::F32, Kind::F32, false);
        let s32_double = general(Kind::S32, Kind::F64, false);
        let u32_double = general(Kind::U32, Kind::F64, false);
        for case in 0..30_000u32 {
            let wide = random.next() as i64 as f64 / 2f64.powi(random.below(70) as i32);
            let double = wide.to_bits();
            let single = (wide as f32).to_bits();
            let (double, single) = if case % 2 == 0 {
                (random.next(), random.next() as u32)
            } else {
                (double, single)
            };
            let full = u64::from(single);
            assert_eq!(s32_from_f32::<M, KEEP>(single), s32.apply(full) as u32);
            assert_eq!(s32_from_f32::<M, FTZ>(single), s32_ftz.apply(full) as u32);
            assert_eq!(u32_from_f32::<M, KEEP>(single), u32.apply(full) as u32);
            assert_eq!(s64_from_f32::<M, KEEP>(single), s64.apply(full));
            assert_eq!(u64_from_f32::<M, KEEP>(single), u64.apply(full));
            assert_eq!(
                convert::f32_integral::<M, KEEP>(single),
                same.apply(full) as u32
            );
            assert_eq!(s32_from_f64::<M>(double), s32_double.apply(double) as u32);
            assert_eq!(u32_from_f64::<M>(double), u32_double.apply(double) as u32);
        }
    }
    let mut random = Random(35);
    check::<RN>(&mut random);
    check::<RZ>(&mut random);
    check::<RM>(&mut random);
    check::<RP>(&mut random);

    let nearest = float_rounding(Round::Nearest);
    let general = |to, from| legal(to, from, nearest);
    let widen = legal(Kind::F64, Kind::F32, CvtOptions::default());
    let flushed = legal(
        Kind::F32,
        Kind::F64,
        CvtOptions {
            ftz: true,
            ..nearest
        },
    );
    for _ in 0..30_000 {
        let wide = random.next() >> random.below(64);
        let word = wide as u32;
        let full = u64::from(word);
        let single = |from| general(Kind::F32, from);
        assert_eq!(f32_from_s32(word), single(Kind::S32).apply(full) as u32);
        assert_eq!(f32_from_u32(word), single(Kind::U32).apply(full) as u32);
        assert_eq!(f32_from_s64(wide), single(Kind::S64).apply(wide) as u32);
        assert_eq!(f32_from_u64(wide), single(Kind::U64).apply(wide) as u32);
        assert_eq!(
            convert::f64_from_s32(word),
            general(Kind::F64, Kind::S32).apply(full)
        );
        assert_eq!(
            convert::f64_from_u32(word),
            general(Kind::F64, Kind::U32).apply(full)
        );
        assert_eq!(f64_from_f32::<KEEP>(word), widen.apply(full));
        let double = near(&mut random, exact::F64, exact::F32);
        assert_eq!(
            f32_from_f64::<KEEP>(double),
            single(Kind::F64).apply(double) as u32
        );
        assert_eq!(f32_from_f64::<FTZ>(double), flushed.apply(double) as u32);
    }
}

#[test]
fn clamping_modifiers() {
    let single = |value: f32| u64::from(value.to_bits());
    let sat = CvtOptions {
        sat: true,
        ..CvtOptions::default()
    };
    let saturate = legal(Kind::F32, Kind::F32, sat);
    for (value, expected) in [
        (0.25, 0.25),
        (1.5, 1.0),
        (-3.0, 0.0),
        (f32::INFINITY, 1.0),
        (f32::NEG_INFINITY, 0.0),
        (f32::NAN, 0.0),
        (-f32::NAN, 0.0),
        (-0.0, 0.0),
    ] {
        assert_eq!(saturate.apply(single(value)), single(expected));
    }
    let nearest = float_rounding(Round::Nearest);
    let sat_half = legal(
        Kind::F16,
        Kind::F32,
        CvtOptions {
            sat: true,
            ..nearest
        },
    );
    assert_eq!(sat_half.apply(single(7.0)), 0x3c00);
    assert_eq!(sat_half.apply(single(f32::NAN)), 0);
    let relu = legal(
        Kind::F16,
        Kind::F32,
        CvtOptions {
            relu: true,
            ..nearest
        },
    );
    assert_eq!(relu.apply(single(-2.0)), 0);
    assert_eq!(relu.apply(single(2.0)), 0x4000);
    assert_eq!(relu.apply(single(-f32::NAN)), 0x7fff);
    let finite = CvtOptions {
        satfinite: true,
        ..nearest
    };
    for (to, most, nan) in [(Kind::F16, 0x7bff, 0x7fff), (Kind::Bf16, 0x7f7f, 0x7fff)] {
        let convert = legal(to, Kind::F32, finite);
        assert_eq!(convert.apply(single(f32::MAX)), most);
        assert_eq!(convert.apply(single(f32::NEG_INFINITY)), most | 0x8000);
        assert_eq!(convert.apply(single(f32::NAN)), nan);
    }
    let flush = legal(
        Kind::F32,
        Kind::F32,
        CvtOptions {
            ftz: true,
            ..CvtOptions::default()
        },
    );
    assert_eq!(flush.apply(0x8000_0001), 0x8000_0000);
    assert_eq!(flush.apply(0x0080_0000), 0x0080_0000);
}

#[test]
fn legal_are_what_the_assembler_takes() {
    let none = CvtOptions::default();
    let rn = float_rounding(Round::Nearest);
    let rz = float_rounding(Round::Zero);
    let rp = float_rounding(Round::Up);
    let rna = float_rounding(Round::NearestAway);
    let rni = integer_rounding(Round::Nearest);
    let rzi = integer_rounding(Round::Zero);
    let sat = |options| CvtOptions {
        sat: true,
        ..options
    };
    let ftz = |options| CvtOptions {
        ftz: true,
        ..options
    };
    let relu = |options| CvtOptions {
        relu: true,
        ..options
    };
    let satfinite = |options| CvtOptions {
        satfinite: true,
        ..options
    };
    use Kind::*;
    // Each tried with ptxas 13.0 for sm_90a.
    for (to, from, options) in [
        (F32, F16, none),
        (F64, Bf16, none),
        (F64, Bf16, rp),
        (F32, Bf16, rn),
        (U16, S32, sat(none)),
        (U32, S32, sat(none)),
        (Bf16, F16, rn),
        (F16, Bf16, rz),
        (Bf16, F32, rp),
        (Bf16, Bf16, rni),
        (Bf16, Bf16, none),
        (F16, F16, none),
        (F16, F32, relu(rn)),
        (F16, F32, satfinite(rn)),
        (Bf16, F32, relu(rn)),
        (Tf32, F32, relu(rz)),
        (Tf32, F32, satfinite(rna)),
        (F32, U8, rn),
        (F64, S32, rn),
        (F32, S32, ftz(rn)),
        (F32, S32, sat(rn)),
        (F16, S32, sat(rn)),
        (F64, F32, ftz(none)),
        (F64, F32, sat(none)),
        (F32, F16, ftz(none)),
        (F32, F16, sat(none)),
        (F16, F16, sat(none)),
        (F16, F16, sat(rni)),
        (F16, F32, ftz(rn)),
        (Bf16, F32, ftz(rn)),
        (F32, Bf16, ftz(none)),
        (F32, F32, ftz(rni)),
        (F32, F32, sat(rni)),
        (S32, F32, sat(rzi)),
        (F32, F64, rn),
    ] {
        assert!(
            converter(to, from, options).is_some(),
            "{to:?} {from:?} {options:?}"
        );
    }
    for (to, from, options) in [
        (F32, F16, rn),
        (F64, F32, rn),
        (F32, F32, rn),
        (F16, F32, none),
        (F32, S32, none),
        (S32, F32, none),
        (S32, F32, rn),
        (U8, S32, rn),
        (S32, S16, sat(none)),
        (S32, S32, sat(none)),
        (F32, Bf16, sat(none)),
        (Bf16, Bf16, sat(none)),
        (Bf16, F32, sat(rn)),
        (Bf16, S32, sat(rn)),
        (F16, Bf16, sat(rn)),
        (S32, Bf16, sat(rzi)),
        (S32, F64, ftz(rzi)),
        (F64, F16, ftz(none)),
        (F32, F16, rzi),
        (F32, F64, rzi),
        (F16, F32, rna),
        (F16, F32, sat(relu(rn))),
        (F16, F32, sat(satfinite(rn))),
        (F16, F32, ftz(relu(rn))),
        (F16, F32, ftz(satfinite(rn))),
        (F16, F32, relu(rp)),
        (F16, F64, relu(rn)),
        (F16, Bf16, relu(rn)),
        (F16, Bf16, satfinite(rn)),
        (Tf32, F32, none),
        (Tf32, F32, relu(rna)),
        (Tf32, F32, ftz(rn)),
        (Tf32, F64, rn),
        (F32, Tf32, none),
    ] {
        assert_eq!(
            converter(to, from, options),
            None,
            "{to:?} {from:?} {options:?}"
        );
    }
}

#[test]
fn tf32_keeps_ten_fraction_bits() {
    let mut random = Random(36);
    let format = Format {
        precision: 11,
        exponent_bits: 8,
    };
    for _ in 0..200_000 {
        let bits = near(&mut random, exact::F32, format) as u32;
        let value = exact::F32.value(bits.into());
        let modes = [
            (Round::Nearest, tf32::from_f32_rn(bits)),
            (Round::NearestAway, tf32::from_f32_rna(bits)),
            (Round::Zero, tf32::from_f32_rz(bits)),
        ];
        for (mode, result) in modes {
            assert_eq!(result & 0x1fff, 0);
            assert_eq!(result >> 31, bits >> 31);
            let right = is_rounded(format, (result >> 13).into(), mode, |candidate| {
                sign_of_sum::<80>(&[candidate, value.negated()])
            });
            assert!(right, "{mode:?} {bits:x} {result:x}");
            let general = legal(Kind::Tf32, Kind::F32, float_rounding(mode));
            assert_eq!(general.apply(bits.into()), u64::from(result));
        }
    }
    assert_eq!(tf32::from_f32_rna(0xffc0_0000), 0x7fff_ffff);
    assert_eq!(
        tf32::from_f32_rn(f32::MAX.to_bits()),
        f32::INFINITY.to_bits()
    );
    assert_eq!(
        tf32::satfinite(tf32::from_f32_rn(f32::MAX.to_bits())),
        0x7f7f_e000
    );
    assert_eq!(tf32::satfinite(f32::NEG_INFINITY.to_bits()), 0xff7f_e000);
}

#[test]
fn narrowing_agrees_with_the_general_conversion() {
    use half::Half;
    let mut random = Random(37);
    let to_half = legal(Kind::F16, Kind::F32, float_rounding(Round::Nearest));
    let to_bf16 = legal(Kind::Bf16, Kind::F32, float_rounding(Round::Nearest));
    for case in 0..400_000 {
        let bits = match case % 3 {
            0 => near(&mut random, exact::F32, exact::F16),
            1 => near(&mut random, exact::F32, exact::BF16),
            _ => random.next() & 0xffff_ffff,
        };
        assert_eq!(
            u64::from(half::F16::narrow(bits as u32)),
            to_half.apply(bits),
            "{bits:x}"
        );
        assert_eq!(
            u64::from(half::Bf16::narrow(bits as u32)),
            to_bf16.apply(bits),
            "{bits:x}"
        );
    }
}
