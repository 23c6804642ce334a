//! Floating-point arithmetic in all roundings against exact numbers.

use std::cmp::Ordering;

use super::super::half::{self, Bf16, F16, Half};
use super::super::{KEEP, RM, RN, RP, RZ, Round, f32 as single, f64 as double};
use super::Random;
use super::exact::{self, Format, Value, is_rounded, sign_of_sum};

/// Limbs for products of two f32, and of two f64.
const SINGLE: usize = 20;
const DOUBLE: usize = 140;

/// Finite numbers of a format: edges, all exponents, and exponents close to one another, so that
/// sums cancel and results are subnormal or overflow.
fn numbers<const N: usize>(random: &mut Random, format: Format) -> [u64; N] {
    let fraction_bits = format.precision - 1;
    let fields = (1u64 << format.exponent_bits) - 1;
    let shared = random.below(fields);
    let style = random.below(4);
    std::array::from_fn(|_| {
        let fraction = match random.below(4) {
            0 => random.below(4),
            1 => (1u64 << fraction_bits).wrapping_sub(random.below(4) + 1),
            _ => random.next(),
        } % (1 << fraction_bits);
        let field = match style {
            0 => random.below(fields),
            1 => (shared + random.below(3)).min(fields - 1),
            2 => (shared + random.below(u64::from(format.precision) + 3)).min(fields - 1),
            _ => random.pick(&[0, 1, 2, fields / 2, fields - 2, fields - 1]),
        };
        let sign = if random.below(2) == 0 {
            0
        } else {
            format.sign()
        };
        sign | field << fraction_bits | fraction
    })
}

/// How `candidate` compares to `a * b + c`.
fn against_fma<const N: usize>(a: Value, b: Value, c: Value) -> impl Fn(Value) -> Ordering {
    move |candidate| sign_of_sum::<N>(&[candidate, a.times(b).negated(), c.negated()])
}

const ONE: Value = Value {
    negative: false,
    integer: 1,
    exponent: 0,
};
const ZERO: Value = Value {
    negative: false,
    integer: 0,
    exponent: 0,
};

/// The sign that IEEE 754 gives an exact zero sum.
fn zero_sum_is_negative(a: bool, b: bool, mode: u8) -> bool {
    if a == b { a } else { mode == RM }
}

fn check_single<const M: u8>(cases: usize) {
    let mut random = Random(1 + u64::from(M));
    let mode = Round::of(M);
    for _ in 0..cases {
        let [a, b, c] = numbers(&mut random, exact::F32).map(|bits: u64| bits as u32);
        let value = |bits: u32| exact::F32.value(bits.into());
        let (x, y, z) = (value(a), value(b), value(c));
        let right = |bits: u32, compare: &dyn Fn(Value) -> Ordering| {
            is_rounded(exact::F32, bits.into(), mode, compare)
        };
        let sum = single::add::<M, KEEP>(a, b);
        assert!(
            right(sum, &against_fma::<SINGLE>(x, ONE, y)),
            "{a:x} + {b:x} = {sum:x}, {M}"
        );
        if sum << 1 == 0 {
            assert_eq!(
                sum >> 31 != 0,
                zero_sum_is_negative(x.negative, y.negative, M)
            );
        }
        let difference = single::sub::<M, KEEP>(a, b);
        assert_eq!(
            difference,
            single::add::<M, KEEP>(a, single::neg::<KEEP>(b))
        );
        let product = single::mul::<M, KEEP>(a, b);
        let ordering = against_fma::<SINGLE>(x, y, ZERO);
        assert!(
            right(product, &ordering),
            "{a:x} * {b:x} = {product:x}, {M}"
        );
        assert_eq!(product >> 31, (a ^ b) >> 31);
        let fused = single::fma::<M, KEEP>(a, b, c);
        let ordering = against_fma::<SINGLE>(x, y, z);
        assert!(
            right(fused, &ordering),
            "{a:x} * {b:x} + {c:x} = {fused:x}, {M}"
        );
        if sign_of_sum::<SINGLE>(&[x.times(y), z]) == Ordering::Equal {
            let product_negative = x.negative != y.negative;
            assert_eq!(
                fused >> 31 != 0,
                zero_sum_is_negative(product_negative, z.negative, M)
            );
        }
        if y.integer != 0 {
            let quotient = single::div::<M, KEEP>(a, b);
            let divisor = Value {
                negative: false,
                ..y
            };
            let dividend = Value {
                negative: x.negative != y.negative,
                ..x
            };
            let ordering =
                |q: Value| sign_of_sum::<SINGLE>(&[q.times(divisor), dividend.negated()]);
            assert!(
                right(quotient, &ordering),
                "{a:x} / {b:x} = {quotient:x}, {M}"
            );
            assert_eq!(quotient >> 31, (a ^ b) >> 31);
            assert_eq!(
                single::rcp::<M, KEEP>(b),
                single::div::<M, KEEP>(0x3f80_0000, b)
            );
        }
        let positive = single::abs::<KEEP>(a);
        let root = single::sqrt::<M, KEEP>(positive);
        let square = Value {
            negative: false,
            ..x
        };
        let ordering = |r: Value| {
            // Candidates below zero are below every root.
            let sign = Value {
                negative: r.negative,
                ..r.times(r)
            };
            sign_of_sum::<SINGLE>(&[sign, square.negated()])
        };
        assert!(right(root, &ordering), "sqrt {positive:x} = {root:x}, {M}");
    }
}

#[test]
fn single_precision_is_rounded_once() {
    check_single::<RN>(30_000);
    check_single::<RZ>(30_000);
    check_single::<RM>(30_000);
    check_single::<RP>(30_000);
}

fn check_double<const M: u8>(cases: usize) {
    let mut random = Random(11 + u64::from(M));
    let mode = Round::of(M);
    for _ in 0..cases {
        let [a, b, c] = numbers(&mut random, exact::F64);
        let value = |bits: u64| exact::F64.value(bits);
        let (x, y, z) = (value(a), value(b), value(c));
        let right = |bits: u64, compare: &dyn Fn(Value) -> Ordering| {
            is_rounded(exact::F64, bits, mode, compare)
        };
        let sum = double::add::<M>(a, b);
        assert!(
            right(sum, &against_fma::<DOUBLE>(x, ONE, y)),
            "{a:x} + {b:x} = {sum:x}, {M}"
        );
        if sum << 1 == 0 {
            assert_eq!(
                sum >> 63 != 0,
                zero_sum_is_negative(x.negative, y.negative, M)
            );
        }
        assert_eq!(double::sub::<M>(a, b), double::add::<M>(a, double::neg(b)));
        let product = double::mul::<M>(a, b);
        let ordering = against_fma::<DOUBLE>(x, y, ZERO);
        assert!(
            right(product, &ordering),
            "{a:x} * {b:x} = {product:x}, {M}"
        );
        assert_eq!(product >> 63, (a ^ b) >> 63);
        let fused = double::fma::<M>(a, b, c);
        let ordering = against_fma::<DOUBLE>(x, y, z);
        assert!(
            right(fused, &ordering),
            "{a:x} * {b:x} + {c:x} = {fused:x}, {M}"
        );
        if y.integer != 0 {
            let quotient = double::div::<M>(a, b);
            let divisor = Value {
                negative: false,
                ..y
            };
            let dividend = Value {
                negative: x.negative != y.negative,
                ..x
            };
            let ordering =
                |q: Value| sign_of_sum::<DOUBLE>(&[q.times(divisor), dividend.negated()]);
            assert!(
                right(quotient, &ordering),
                "{a:x} / {b:x} = {quotient:x}, {M}"
            );
            assert_eq!(quotient >> 63, (a ^ b) >> 63);
        }
        let positive = double::abs(a);
        let root = double::sqrt::<M>(positive);
        let square = Value {
            negative: false,
            ..x
        };
        let ordering = |r: Value| {
            let sign = Value {
                negative: r.negative,
                ..r.times(r)
            };
            sign_of_sum::<DOUBLE>(&[sign, square.negated()])
        };
        assert!(right(root, &ordering), "sqrt {positive:x} = {root:x}, {M}");
    }
}

#[test]
fn double_precision_is_rounded_once() {
    check_double::<RN>(4_000);
    check_double::<RZ>(8_000);
    check_double::<RM>(8_000);
    check_double::<RP>(8_000);
}

fn check_half<H: Half>(format: Format, cases: usize) {
    let mut random = Random(21);
    for _ in 0..cases {
        let [a, b, c] = numbers(&mut random, format).map(|bits: u64| bits as u16);
        let value = |bits: u16| format.value(bits.into());
        let (x, y, z) = (value(a), value(b), value(c));
        let right = |bits: u16, compare: &dyn Fn(Value) -> Ordering| {
            is_rounded(format, bits.into(), Round::Nearest, compare)
        };
        let sum = half::add::<H, KEEP>(a, b);
        assert!(
            right(sum, &against_fma::<SINGLE>(x, ONE, y)),
            "{a:x} + {b:x} = {sum:x}"
        );
        assert_eq!(
            half::sub::<H, KEEP>(a, b),
            half::add::<H, KEEP>(a, b ^ 0x8000)
        );
        let product = half::mul::<H, KEEP>(a, b);
        let ordering = against_fma::<SINGLE>(x, y, ZERO);
        assert!(right(product, &ordering), "{a:x} * {b:x} = {product:x}");
        let fused = half::fma::<H, KEEP>(a, b, c);
        let ordering = against_fma::<SINGLE>(x, y, z);
        assert!(right(fused, &ordering), "{a:x} * {b:x} + {c:x} = {fused:x}");
    }
}

#[test]
fn half_precision_is_rounded_once() {
    check_half::<F16>(exact::F16, 100_000);
    check_half::<Bf16>(exact::BF16, 100_000);
}

#[test]
fn every_halfway_f16_sum_goes_to_the_even_neighbour() {
    // 2048 and up have a spacing of 2; adding 1 is halfway, a least subnormal more is not.
    for step in 0..1023u16 {
        let a = 0x6800 + step;
        let even = a + (a & 1);
        assert_eq!(half::fma::<F16, KEEP>(a, 0x3c00, 0x3c00), even);
        assert_eq!(half::add::<F16, KEEP>(a, 0x3c00), even);
        // 1 + 2^-10 times 1 is more than halfway.
        assert_eq!(half::fma::<F16, KEEP>(0x3c01, 0x3c00, a), a + 1);
        // (1 + 2^-10)(1 - 2^-10) is less.
        assert_eq!(half::fma::<F16, KEEP>(0x3c01, 0x3bfe, a), a);
    }
}

#[test]
fn an_f32_detour_never_decides_a_tie() {
    // c has a spacing of 2 and a b is next to 1: the sum lies next to halfway, by less, as much
    // and more than an f32 can tell.
    for i in 1..40u16 {
        for c in 0x6800..0x6840u16 {
            let below = half::fma::<F16, KEEP>(0x3c00 + i, 0x3c00 - 2 * i, c);
            assert_eq!(below, c, "1 - {i}^2 2^-20");
            let above = half::fma::<F16, KEEP>(0x3c00 + i, 0x3c00 - 2 * i + 1, c);
            let product = (1.0 + f64::from(i) / 1024.0) * (1.0 - f64::from(2 * i - 1) / 2048.0);
            assert_eq!(above, if product > 1.0 { c + 1 } else { c });
        }
    }
    // 259 = 7 * 37 is halfway between 258 and 260, of which 260 is even.
    let bits = |x: f32| Bf16::narrow(x.to_bits());
    for (exponent, units) in (-60..-14).flat_map(|exponent| [(exponent, 1), (exponent, 3)]) {
        let small = units as f32 * 2f32.powi(exponent - 2);
        let sum = |small| half::fma::<Bf16, KEEP>(bits(7.0), bits(37.0), bits(small));
        assert_eq!(sum(small), bits(260.0), "{small}");
        assert_eq!(sum(-small), bits(258.0), "{small}");
    }
    assert_eq!(
        half::fma::<Bf16, KEEP>(bits(7.0), bits(37.0), 0),
        bits(260.0)
    );
    let below = half::fma::<Bf16, KEEP>(bits(7.0), bits(37.0), bits(f32::MIN_POSITIVE) | 0x8000);
    assert_eq!(below, bits(258.0));
}
