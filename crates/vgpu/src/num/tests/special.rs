//! NaN, infinities, zeros, flushing, clamping, ordering.

use super::super::compare::*;
use super::super::half::{self, Bf16, F16};
use super::super::{FTZ, KEEP, RM, RN, RP, RZ, f32 as single, f64 as double};

const INF: u32 = 0x7f80_0000;
const ONE: u32 = 0x3f80_0000;
const MINUS: u32 = 0x8000_0000;
const TINY: u32 = 0x0000_0001;
const NORMAL: u32 = 0x0080_0000;

#[test]
fn single_nan_is_canonical() {
    fn check<const M: u8>() {
        for nan in [0x7fc0_0000, 0xffc1_2345, 0x7f80_0001, 0xff80_0001] {
            for (a, b) in [(nan, ONE), (ONE, nan), (nan, INF), (nan, nan)] {
                assert_eq!(single::add::<M, KEEP>(a, b), single::NAN);
                assert_eq!(single::sub::<M, KEEP>(a, b), single::NAN);
                assert_eq!(single::mul::<M, FTZ>(a, b), single::NAN);
                assert_eq!(single::div::<M, KEEP>(a, b), single::NAN);
                assert_eq!(single::fma::<M, KEEP>(a, b, ONE), single::NAN);
                assert_eq!(single::fma::<M, KEEP>(ONE, a, b), single::NAN);
            }
            assert_eq!(single::sqrt::<M, KEEP>(nan), single::NAN);
            assert_eq!(single::rcp::<M, KEEP>(nan), single::NAN);
        }
        assert_eq!(single::add::<M, KEEP>(INF, INF | MINUS), single::NAN);
        assert_eq!(single::sub::<M, KEEP>(INF, INF), single::NAN);
        assert_eq!(single::mul::<M, KEEP>(INF, 0), single::NAN);
        assert_eq!(single::div::<M, KEEP>(0, 0), single::NAN);
        assert_eq!(single::div::<M, KEEP>(INF, INF), single::NAN);
        assert_eq!(single::sqrt::<M, KEEP>(ONE | MINUS), single::NAN);
        assert_eq!(single::fma::<M, KEEP>(INF, 0, ONE), single::NAN);
        assert_eq!(single::add::<M, KEEP>(INF, ONE), INF);
        assert_eq!(single::mul::<M, KEEP>(INF, ONE | MINUS), INF | MINUS);
        assert_eq!(single::fma::<M, KEEP>(INF, ONE, ONE | MINUS), INF);
        assert_eq!(single::div::<M, KEEP>(ONE, INF | MINUS), MINUS);
        assert_eq!(single::div::<M, KEEP>(ONE | MINUS, 0), INF | MINUS);
        assert_eq!(single::rcp::<M, KEEP>(MINUS), INF | MINUS);
        assert_eq!(single::sqrt::<M, KEEP>(MINUS), MINUS);
        assert_eq!(single::sqrt::<M, KEEP>(INF), INF);
    }
    check::<RN>();
    check::<RZ>();
    check::<RM>();
    check::<RP>();
}

#[test]
fn double_keeps_the_first_nan_quieted() {
    let (first, second, one) = (
        0x7ff0_0000_0000_0007,
        0xfff8_0000_0000_0009,
        1.0f64.to_bits(),
    );
    let quiet = 0x7ff8_0000_0000_0007;
    fn check<const M: u8>(first: u64, second: u64, one: u64, quiet: u64) {
        assert_eq!(double::add::<M>(first, second), quiet);
        assert_eq!(double::add::<M>(one, second), second);
        assert_eq!(double::sub::<M>(one, second), second);
        assert_eq!(double::mul::<M>(second, first), second);
        assert_eq!(double::fma::<M>(one, one, first), quiet);
        assert_eq!(double::div::<M>(first, one), quiet);
        assert_eq!(double::sqrt::<M>(first), quiet);
        let infinity = f64::INFINITY.to_bits();
        assert_eq!(double::sub::<M>(infinity, infinity), double::NAN);
        assert_eq!(double::mul::<M>(infinity, 0), double::NAN);
        assert_eq!(double::div::<M>(0, 0), double::NAN);
        assert_eq!(double::div::<M>(one, 0), infinity);
        assert_eq!(double::rcp::<M>(1 << 63), infinity | 1 << 63);
        assert_eq!(double::sqrt::<M>(double::neg(one)), double::NAN);
        assert_eq!(double::sqrt::<M>(1 << 63), 1 << 63);
    }
    check::<RN>(first, second, one, quiet);
    check::<RZ>(first, second, one, quiet);
    check::<RM>(first, second, one, quiet);
    check::<RP>(first, second, one, quiet);
    assert_eq!(double::min(first, one), one);
    assert_eq!(double::max(one, second), one);
    assert_eq!(double::max(first, second), double::NAN);
    assert_eq!(double::min(1 << 63, 0), 1 << 63);
    assert_eq!(double::max(1 << 63, 0), 0);
    assert_eq!(double::min(double::neg(one), one), double::neg(one));
    assert_eq!(double::sat(2.5f64.to_bits()), one);
    assert_eq!(double::sat(double::NAN), 0);
    assert_eq!(double::sat(0.25f64.to_bits()), 0.25f64.to_bits());
}

#[test]
fn ftz_flushes_operands_and_results() {
    assert_eq!(single::add::<RN, FTZ>(TINY, TINY), 0);
    assert_eq!(single::add::<RN, KEEP>(TINY, TINY), 2);
    assert_eq!(single::add::<RP, FTZ>(TINY, 0), 0);
    assert_eq!(single::add::<RN, FTZ>(TINY | MINUS, TINY | MINUS), MINUS);
    assert_eq!(single::mul::<RN, FTZ>(NORMAL | MINUS, 0x3f00_0000), MINUS);
    assert_eq!(single::mul::<RN, KEEP>(NORMAL, 0x3f00_0000), NORMAL / 2);
    assert_eq!(single::fma::<RZ, FTZ>(NORMAL, 0x3f00_0000, 0), 0);
    assert_eq!(single::div::<RN, FTZ>(ONE, TINY), INF);
    assert_eq!(single::rcp::<RN, FTZ>(0x7f00_0000), 0);
    assert_eq!(single::rcp::<RN, KEEP>(0x7f00_0000), NORMAL / 2);
    assert_eq!(single::sqrt::<RN, FTZ>(TINY | MINUS), MINUS);
    assert_eq!(single::abs::<FTZ>(TINY | MINUS), 0);
    assert_eq!(single::neg::<FTZ>(TINY), MINUS);
    assert_eq!(single::neg::<KEEP>(TINY), TINY | MINUS);
    assert_eq!(single::min::<FTZ, KEEP>(TINY, ONE), 0);
    assert_eq!(single::max::<KEEP, KEEP>(TINY, 0), TINY);
    assert!(single::compare::<EQ, FTZ>(TINY, MINUS));
    assert!(!single::compare::<EQ, KEEP>(TINY, MINUS));
    assert!(single::selects_first::<FTZ>(TINY | MINUS));
    assert!(!single::selects_first::<KEEP>(TINY | MINUS));
    assert_eq!(half::add::<F16, FTZ>(0x0001, 0x0001), 0);
    assert_eq!(half::add::<F16, KEEP>(0x0001, 0x0001), 2);
    assert_eq!(half::fma::<F16, FTZ>(0x3c00, 0x8001, 0x8000), 0x8000);
    assert_eq!(half::mul::<Bf16, FTZ>(0x0080, 0x3f00), 0);
    assert_eq!(half::mul::<Bf16, KEEP>(0x0080, 0x3f00), 0x0040);
}

#[test]
fn minimum_and_maximum() {
    const PROPAGATE: bool = true;
    let nan = 0xffc0_0001;
    let numbers = [
        INF | MINUS,
        ONE | MINUS,
        TINY | MINUS,
        MINUS,
        0,
        TINY,
        ONE,
        INF,
    ];
    for (i, &a) in numbers.iter().enumerate() {
        for (j, &b) in numbers.iter().enumerate() {
            assert_eq!(single::min::<KEEP, false>(a, b), numbers[i.min(j)]);
            assert_eq!(single::max::<KEEP, false>(a, b), numbers[i.max(j)]);
            assert_eq!(single::max::<KEEP, PROPAGATE>(a, b), numbers[i.max(j)]);
        }
        assert_eq!(single::min::<KEEP, false>(a, nan), a);
        assert_eq!(single::max::<KEEP, false>(nan, a), a);
        assert_eq!(single::min::<KEEP, PROPAGATE>(a, nan), single::NAN);
        assert_eq!(single::max::<KEEP, PROPAGATE>(nan, a), single::NAN);
    }
    assert_eq!(single::min::<KEEP, false>(nan, nan), single::NAN);
    let halves = [
        0xfc00, 0xbc00, 0x8001, 0x8000, 0x0000, 0x0001, 0x3c00, 0x7c00,
    ];
    for (i, &a) in halves.iter().enumerate() {
        for (j, &b) in halves.iter().enumerate() {
            assert_eq!(half::min::<F16, KEEP, false>(a, b), halves[i.min(j)]);
            assert_eq!(half::max::<F16, KEEP, PROPAGATE>(a, b), halves[i.max(j)]);
        }
        assert_eq!(half::min::<F16, KEEP, false>(a, 0xfe00), a);
        assert_eq!(half::max::<F16, KEEP, PROPAGATE>(0x7e01, a), half::NAN);
    }
    let larger = single::max::<KEEP, false>;
    assert_eq!(
        single::xorsign_abs(larger, ONE | MINUS, 0x4000_0000),
        0xc000_0000
    );
    assert_eq!(
        single::xorsign_abs(larger, ONE | MINUS, 0xc000_0000),
        0x4000_0000
    );
    assert_eq!(
        single::xorsign_abs(single::max::<KEEP, PROPAGATE>, nan, ONE),
        single::NAN
    );
    assert_eq!(
        half::xorsign_abs::<F16>(half::min::<F16, KEEP, false>, 0xbc00, 0x4000),
        0xbc00
    );
}

#[test]
fn clamps() {
    for (value, expected) in [
        (0x3f00_0000, 0x3f00_0000),
        (0x4000_0000, ONE),
        (INF, ONE),
        (INF | MINUS, 0),
        (single::NAN, 0),
        (0xffc0_0000, 0),
        (MINUS, 0),
        (ONE | MINUS, 0),
        (TINY, TINY),
    ] {
        assert_eq!(single::sat(value), expected);
    }
    assert_eq!(half::sat::<F16>(0x4000), 0x3c00);
    assert_eq!(half::sat::<F16>(0x7fff), 0);
    assert_eq!(half::sat::<Bf16>(0x3f00), 0x3f00);
    assert_eq!(half::sat::<Bf16>(0x7f80), 0x3f80);
    assert_eq!(half::relu::<F16>(0xbc00), 0);
    assert_eq!(half::relu::<F16>(0x8000), 0);
    assert_eq!(half::relu::<F16>(0xfe00), half::NAN);
    assert_eq!(half::relu::<Bf16>(0x4000), 0x4000);
    assert_eq!(single::relu(ONE | MINUS), 0);
    assert_eq!(single::relu(single::NAN), single::NAN);
}

#[test]
fn comparisons_ordered_and_unordered() {
    fn check<const OP: u8>(less: bool, equal: bool, greater: bool, unordered: bool) {
        let two = 0x4000_0000;
        let nan = single::NAN;
        assert_eq!(single::compare::<OP, KEEP>(ONE, two), less, "{OP}");
        assert_eq!(single::compare::<OP, KEEP>(MINUS, 0), equal, "{OP}");
        assert_eq!(single::compare::<OP, KEEP>(two, ONE), greater, "{OP}");
        for (a, b) in [(nan, ONE), (ONE, nan), (nan, nan)] {
            assert_eq!(single::compare::<OP, KEEP>(a, b), unordered, "{OP}");
        }
        let (one, nan) = (1.0f64.to_bits(), double::NAN);
        assert_eq!(double::compare::<OP>(one, one), equal);
        assert_eq!(double::compare::<OP>(double::neg(one), one), less);
        assert_eq!(double::compare::<OP>(nan, one), unordered);
        assert_eq!(half::compare::<F16, OP, KEEP>(0x3c00, 0x4000), less);
        assert_eq!(half::compare::<F16, OP, KEEP>(0x7e00, 0x4000), unordered);
        assert_eq!(half::compare::<Bf16, OP, KEEP>(0x4000, 0x3f80), greater);
        if OP <= GE {
            assert_eq!(compare::<OP, u32>(1, 0xffff_ffff), less);
            assert_eq!(compare::<OP, i32>(1, -1), greater);
            assert_eq!(compare::<OP, u16>(7, 7), equal);
        }
    }
    check::<EQ>(false, true, false, false);
    check::<NE>(true, false, true, false);
    check::<LT>(true, false, false, false);
    check::<LE>(true, true, false, false);
    check::<GT>(false, false, true, false);
    check::<GE>(false, true, true, false);
    check::<EQU>(false, true, false, true);
    check::<NEU>(true, false, true, true);
    check::<LTU>(true, false, false, true);
    check::<LEU>(true, true, false, true);
    check::<GTU>(false, false, true, true);
    check::<GEU>(false, true, true, true);
    check::<NUM>(true, true, true, false);
    check::<NAN>(false, false, false, true);
}

#[test]
fn classes_and_signs() {
    for (bits, finite, infinite, normal, subnormal) in [
        (0, true, false, true, false),
        (MINUS, true, false, true, false),
        (TINY, true, false, false, true),
        (NORMAL - 1, true, false, false, true),
        (NORMAL, true, false, true, false),
        (INF - 1, true, false, true, false),
        (INF | MINUS, false, true, false, false),
        (single::NAN, false, false, false, false),
    ] {
        assert_eq!(single::is_finite(bits), finite);
        assert_eq!(single::is_infinite(bits), infinite);
        assert_eq!(single::is_normal(bits), normal);
        assert_eq!(single::is_subnormal(bits), subnormal);
        let wide = f64::from(f32::from_bits(bits)).to_bits();
        assert_eq!(double::is_finite(wide), finite);
        assert_eq!(double::is_infinite(wide), infinite);
    }
    assert!(double::is_subnormal(1) && !double::is_normal(1) && double::is_normal(0));
    assert_eq!(single::copysign(MINUS, ONE), ONE | MINUS);
    assert_eq!(single::copysign(ONE, ONE | MINUS), ONE);
    assert_eq!(double::copysign(1 << 63, 5), 1 << 63 | 5);
    assert_eq!(double::abs(1 << 63 | 5), 5);
    assert_eq!(half::abs::<F16, KEEP>(0xbc00), 0x3c00);
    assert_eq!(half::neg::<Bf16, KEEP>(0x3f80), 0xbf80);
}
