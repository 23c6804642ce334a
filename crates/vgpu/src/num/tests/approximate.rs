//! The approximate functions: error against f64, special values, and fixed bits.

use std::f64::consts::PI;

use super::super::approx::*;
use super::super::half::{self, Bf16, F16, Half};
use super::super::{FTZ, KEEP, f32 as single, f64 as double};
use super::Random;

const INF: u32 = 0x7f80_0000;
const MINUS: u32 = 0x8000_0000;
const ONE: u32 = 0x3f80_0000;
const TINY: u32 = 0x0000_0001;

fn value(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

/// The spacing of f32 numbers at `x`.
fn ulp(x: f64) -> f64 {
    let exponent = x.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    2f64.powf(exponent - 23.0)
}

/// Positive finite f32 numbers, evenly over the bits.
fn samples() -> impl Iterator<Item = u32> {
    (0..INF).step_by(9_001)
}

/// Numbers spread evenly over `±range`.
fn spread(range: f64) -> impl Iterator<Item = u32> {
    let count = 200_000;
    (0..=count)
        .map(move |i| ((2.0 * f64::from(i) / f64::from(count) - 1.0) * range) as f32)
        .map(f32::to_bits)
}

/// Largest of `error(bits)`.
fn worst(inputs: impl Iterator<Item = u32>, error: impl Fn(u32) -> f64) -> f64 {
    inputs.map(error).fold(0.0, |worst, error| {
        assert!(!error.is_nan());
        f64::max(worst, error)
    })
}

fn relative(result: u32, exact: f64) -> f64 {
    ((value(result) - exact) / exact).abs()
}

#[test]
fn ex2_is_within_two_ulp() {
    let error = |a: u32| {
        let exact = libm::exp2(value(a));
        let result = value(ex2::<KEEP>(a));
        if exact >= 2f64.powi(128) {
            return if result.is_infinite() {
                0.0
            } else {
                (result - exact).abs() / ulp(result)
            };
        }
        (result - exact).abs() / ulp(exact)
    };
    let both = samples().chain(samples().map(|a| a | MINUS));
    assert!(worst(both, error) <= 2.0);
    let far = worst(spread(150.0), error);
    assert!(far <= 2.0, "{far}");
    for k in -149..128 {
        let exact = (2f64.powi(k) as f32).to_bits();
        assert_eq!(ex2::<KEEP>((k as f32).to_bits()), exact);
    }
}

#[test]
fn ex2_special_values() {
    for a in [0, MINUS, TINY, TINY | MINUS] {
        assert_eq!(ex2::<FTZ>(a), ONE);
        assert_eq!(ex2::<KEEP>(a), ONE);
    }
    assert_eq!(ex2::<FTZ>(INF), INF);
    assert_eq!(ex2::<FTZ>(INF | MINUS), 0);
    assert_eq!(ex2::<FTZ>(0xffc0_0001), single::NAN);
    assert_eq!(ex2::<FTZ>(128f32.to_bits()), INF);
    assert_eq!(ex2::<FTZ>((-127f32).to_bits()), 0);
    assert_eq!(ex2::<KEEP>((-127f32).to_bits()), 0x0040_0000);
    assert_eq!(ex2::<FTZ>((-126f32).to_bits()), 0x0080_0000);
    assert_eq!(ex2::<KEEP>((-149f32).to_bits()), 1);
    assert_eq!(ex2::<KEEP>((-151f32).to_bits()), 0);
}

#[test]
fn lg2_is_within_its_bounds() {
    let bound = 2f64.powi(-22);
    let near = (0x3f00_0001..0x4000_0000).step_by(7);
    let absolute = worst(near, |a| {
        (value(lg2::<KEEP>(a)) - libm::log2(value(a))).abs()
    });
    assert!(absolute <= bound, "{absolute}");
    let outside = samples().filter(|&a| a != 0 && !(0.5..=2.0).contains(&value(a)));
    let error = worst(outside, |a| relative(lg2::<KEEP>(a), libm::log2(value(a))));
    assert!(error <= bound, "{error}");
    for a in [0, MINUS] {
        assert_eq!(lg2::<KEEP>(a), INF | MINUS);
    }
    assert_eq!(lg2::<FTZ>(TINY), INF | MINUS);
    assert_eq!(lg2::<FTZ>(TINY | MINUS), INF | MINUS);
    assert_eq!(lg2::<KEEP>(TINY), (-149f32).to_bits());
    for a in [ONE | MINUS, INF | MINUS, 0x7fc0_0000, 0xffc0_0000] {
        assert_eq!(lg2::<FTZ>(a), single::NAN);
    }
    assert_eq!(lg2::<KEEP>(TINY | MINUS), single::NAN);
    assert_eq!(lg2::<FTZ>(INF), INF);
    assert_eq!(lg2::<FTZ>(ONE), 0);
}

#[test]
fn reciprocals_and_roots() {
    let normal = || samples().filter(|&a| a >= 0x0080_0000);
    let error = worst(normal(), |a| {
        let exact = 1.0 / value(a);
        (value(rcp::<KEEP>(a)) - exact).abs() / ulp(exact)
    });
    assert!(error <= 1.0, "{error}");
    let error = worst(normal(), |a| {
        relative(sqrt::<KEEP>(a), libm::sqrt(value(a)))
    });
    assert!(error <= 2f64.powi(-23), "{error}");
    let all = samples().filter(|&a| a != 0);
    let error = worst(all, |a| {
        relative(rsqrt::<KEEP>(a), 1.0 / libm::sqrt(value(a)))
    });
    assert!(error <= 2f64.powf(-22.9), "{error}");
    for (a, reciprocal, root, reciprocal_root) in [
        (INF | MINUS, MINUS, single::NAN, single::NAN),
        (ONE | MINUS, ONE | MINUS, single::NAN, single::NAN),
        (TINY | MINUS, INF | MINUS, MINUS, INF | MINUS),
        (MINUS, INF | MINUS, MINUS, INF | MINUS),
        (0, INF, 0, INF),
        (TINY, INF, 0, INF),
        (INF, 0, INF, 0),
        (0xffff_ffff, single::NAN, single::NAN, single::NAN),
    ] {
        assert_eq!(rcp::<FTZ>(a), reciprocal);
        assert_eq!(sqrt::<FTZ>(a), root);
        assert_eq!(rsqrt::<FTZ>(a), reciprocal_root);
    }
    assert_eq!(rcp::<FTZ>(0x7f00_0000), 0);
}

#[test]
fn divisions() {
    let mut random = Random(61);
    for _ in 0..100_000 {
        let (a, b) = (random.next() as u32 % INF, random.next() as u32 % INF);
        let exact = value(a) / value(b);
        if b < 0x0080_0000 || exact >= 2f64.powi(128) {
            continue;
        }
        let error = |result: u32| (value(result) - exact).abs() / ulp(exact);
        assert!(error(div_full::<KEEP>(a, b)) <= 2.0);
        let large = value(b) > 2f64.powi(126);
        if large {
            assert_eq!(div_approx::<KEEP>(a | MINUS, b), MINUS);
        } else {
            assert!(error(div_approx::<KEEP>(a, b)) <= 2.0);
        }
    }
    let large = f32::MAX.to_bits();
    assert_eq!(div_approx::<FTZ>(INF, large), single::NAN);
    assert_eq!(div_approx::<FTZ>(single::NAN, large), single::NAN);
    assert_eq!(div_approx::<FTZ>(INF, INF), single::NAN);
    assert_eq!(div_approx::<FTZ>(ONE, INF), 0);
    assert_eq!(div_approx::<FTZ>(ONE, TINY), INF);
    assert_eq!(div_full::<FTZ>(TINY, ONE), 0);
}

#[test]
fn sine_and_cosine_are_within_their_bounds() {
    for (range, bound) in [(2.0 * PI, -20.5), (100.0 * PI, -14.7), (1e6, -14.7)] {
        let bound = 2f64.powf(bound);
        let error = worst(spread(range), |a| {
            let sine = (value(sin::<KEEP>(a)) - libm::sin(value(a))).abs();
            sine.max((value(cos::<KEEP>(a)) - libm::cos(value(a))).abs())
        });
        assert!(error <= bound, "{range} {error}");
    }
    // In truth far better; a lost digit of the reduction would show here.
    let error = worst(samples(), |a| {
        let sine = (value(sin::<KEEP>(a)) - libm::sin(value(a))).abs();
        sine.max((value(cos::<KEEP>(a)) - libm::cos(value(a))).abs())
    });
    assert!(error <= 2f64.powi(-24), "{error}");
    for a in [INF, INF | MINUS, 0x7fc0_0000] {
        assert_eq!(sin::<FTZ>(a), single::NAN);
        assert_eq!(cos::<FTZ>(a), single::NAN);
    }
    for a in [0, MINUS] {
        assert_eq!(sin::<KEEP>(a), a);
        assert_eq!(cos::<KEEP>(a), ONE);
        assert_eq!(sin::<FTZ>(a | TINY), a);
        assert_eq!(sin::<KEEP>(a | TINY), a | TINY);
    }
}

#[test]
fn tanh_is_within_its_bounds() {
    let both = || samples().filter(|&a| a != 0).flat_map(|a| [a, a | MINUS]);
    let error = worst(both(), |a| relative(tanh(a), libm::tanh(value(a))));
    assert!(error <= 2f64.powi(-11), "{error}");
    // In truth nearly an f32's precision.
    let normal = both().filter(|a| a & !MINUS >= 0x0080_0000);
    let error = worst(normal, |a| relative(tanh(a), libm::tanh(value(a))));
    assert!(error <= 2f64.powi(-23), "{error}");
    for sign in [0, MINUS] {
        assert_eq!(tanh(INF | sign), ONE | sign);
        assert_eq!(tanh(sign), sign);
        assert_eq!(tanh(TINY | sign), TINY | sign);
    }
    assert_eq!(tanh(0xffc0_0000), single::NAN);
}

#[test]
fn every_half_ex2_and_tanh() {
    fn check<H: Half, const FLUSH: bool>(relative_bound: f64, absolute_bound: f64) {
        for bits in 0..=0xffffu16 {
            let x = value(H::widen(bits));
            let power = half::ex2::<H, FLUSH>(bits);
            let tangent = half::tanh::<H>(bits);
            if x.is_nan() {
                assert_eq!((power, tangent), (half::NAN, half::NAN));
                continue;
            }
            let exact = libm::exp2(x);
            let result = value(H::widen(power));
            let largest = value(H::widen(H::INFINITY - 1));
            let least = value(H::widen(H::MIN_NORMAL));
            if exact > largest * 1.01 {
                assert_eq!(power, H::INFINITY);
            } else if exact >= least && result.is_finite() {
                assert!((result - exact).abs() <= exact * relative_bound, "{x}");
            } else if FLUSH && exact < least * 0.99 {
                assert_eq!(power, 0);
            }
            let error = (value(H::widen(tangent)) - libm::tanh(x)).abs();
            assert!(error <= absolute_bound, "{x} {error}");
        }
    }
    check::<F16, KEEP>(2f64.powf(-9.9), 2f64.powf(-10.987));
    check::<Bf16, FTZ>(2f64.powi(-7), 2f64.powi(-8));
    assert_eq!(half::ex2::<F16, KEEP>(0xfc00), 0);
    assert_eq!(half::ex2::<F16, KEEP>(0x8000), 0x3c00);
    assert_eq!(half::tanh::<Bf16>(0x8000), 0x8000);
}

#[test]
fn upper_word_functions() {
    let mut random = Random(62);
    let nan = 0x7fff_ffff_0000_0000;
    for _ in 0..50_000 {
        let a = random.next() & 0x7fff_ffff_ffff_ffff;
        let x = f64::from_bits(a);
        if !x.is_normal() || x > 2f64.powi(1021) {
            continue;
        }
        for (result, exact) in [
            (rcp_f64(a), 1.0 / x),
            (rsqrt_ftz_f64(a), 1.0 / libm::sqrt(x)),
            (rsqrt_f64(a), 1.0 / libm::sqrt(x)),
        ] {
            let error = ((f64::from_bits(result) - exact) / exact).abs();
            assert!(error <= 2f64.powi(-19), "{x} {error}");
        }
        assert_eq!(rcp_f64(a) as u32, 0);
        assert_eq!(rsqrt_ftz_f64(a) as u32, 0);
    }
    let (inf, minus, tiny) = (f64::INFINITY.to_bits(), 1u64 << 63, 1u64 << 40);
    for (a, reciprocal, root) in [
        (inf | minus, minus, nan),
        (tiny | minus, inf | minus, inf | minus),
        (minus, inf | minus, inf | minus),
        (0, inf, inf),
        (tiny, inf, inf),
        (inf, 0, 0),
        (0x7ff8_0000_0000_0001, nan, nan),
    ] {
        assert_eq!(rcp_f64(a), reciprocal);
        assert_eq!(rsqrt_ftz_f64(a), root);
    }
    assert_eq!(rsqrt_f64(double::neg(1.0f64.to_bits())), double::NAN);
    assert_eq!(rcp_f64(f64::MAX.to_bits()), 0);
}

#[test]
fn results_are_the_same_bits_everywhere() {
    // A change of these numbers is a change of every recorded run: they hold on all machines.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut feed = |bits: u32| hash = (hash ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3);
    for a in (0..=u32::MAX).step_by(65_537) {
        feed(ex2::<KEEP>(a));
        feed(lg2::<KEEP>(a));
        feed(rsqrt::<KEEP>(a));
        feed(sin::<KEEP>(a));
        feed(cos::<KEEP>(a));
        feed(tanh(a));
    }
    assert_eq!(hash, 0x0d84_1905_a8fa_5695);
}
