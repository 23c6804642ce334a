//! fp8, packed pairs and `cvt.pack`.

use super::super::half::{self, Bf16, F16, Half};
use super::super::pack::{self, PackOptions, half_from_f32, half2_from_f32};
use super::super::{RN, RZ, fp8};
use super::Random;

/// What an fp8 format's magnitudes are worth, by the definition, largest last.
fn magnitudes(fraction_bits: u32, bias: i32, largest: u8) -> Vec<f64> {
    let value = |code: u8| {
        let fraction = f64::from(code % (1 << fraction_bits)) / f64::from(1 << fraction_bits);
        match i32::from(code >> fraction_bits) {
            0 => fraction * 2f64.powi(1 - bias),
            field => (1.0 + fraction) * 2f64.powi(field - bias),
        }
    };
    (0..=largest).map(value).collect()
}

fn e4m3() -> Vec<f64> {
    magnitudes(3, 7, 0x7e)
}

fn e5m2() -> Vec<f64> {
    magnitudes(2, 15, 0x7b)
}

/// The nearest entry, the even one of two.
fn nearest(table: &[f64], value: f64) -> u8 {
    let above = table.partition_point(|&entry| entry < value);
    if above == 0 || above == table.len() {
        return above.min(table.len() - 1) as u8;
    }
    let (low, high) = (value - table[above - 1], table[above] - value);
    let up = high < low || (high == low && above % 2 == 0);
    (if up { above } else { above - 1 }) as u8
}

#[test]
fn fp8_formats_have_the_published_numbers() {
    assert_eq!(e4m3().last(), Some(&448.0));
    assert_eq!(e5m2().last(), Some(&57344.0));
    assert_eq!(e4m3()[1], 2f64.powi(-9));
    assert_eq!(e5m2()[1], 2f64.powi(-16));
}

#[test]
fn every_fp8_number_widens_exactly() {
    for code in 0..=255u8 {
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        let magnitude = usize::from(code & 0x7f);
        let single = f32::from_bits(fp8::e4m3_to_f32(code));
        match e4m3().get(magnitude) {
            Some(value) => assert_eq!(f64::from(single).to_bits(), (sign * value).to_bits()),
            None => assert_eq!(fp8::e4m3_to_f32(code), 0x7fff_ffff),
        }
        assert_eq!(
            fp8::e4m3_to_f16::<false>(code),
            F16::narrow(single.to_bits())
        );
        let single = f32::from_bits(fp8::e5m2_to_f32(code));
        match e5m2().get(magnitude) {
            Some(value) => assert_eq!(f64::from(single).to_bits(), (sign * value).to_bits()),
            None if magnitude == 0x7c => assert_eq!(f64::from(single), sign * f64::INFINITY),
            None => assert_eq!(fp8::e5m2_to_f32(code), 0x7fff_ffff),
        }
        assert_eq!(
            fp8::e5m2_to_f16::<false>(code),
            F16::narrow(single.to_bits())
        );
        if code & 0x80 != 0 && magnitude < 0x7c {
            assert_eq!(fp8::e4m3_to_f16::<true>(code), 0);
            assert_eq!(fp8::e5m2_to_f16::<true>(code), 0);
        }
    }
}

fn check_fp8(a: u32) {
    let value = f64::from(f32::from_bits(a));
    let sign = if a >> 31 == 0 { 0 } else { 0x80 };
    let relu = |code: u8| if code & 0x80 != 0 { 0 } else { code };
    let (four, five) = if value.is_nan() {
        (0x7f, 0x7f)
    } else {
        (
            nearest(&e4m3(), value.abs()) | sign,
            nearest(&e5m2(), value.abs()) | sign,
        )
    };
    assert_eq!(fp8::e4m3_from_f32::<false>(a), four, "{value}");
    assert_eq!(fp8::e5m2_from_f32::<false>(a), five, "{value}");
    assert_eq!(fp8::e4m3_from_f32::<true>(a), relu(four));
    assert_eq!(fp8::e5m2_from_f32::<true>(a), relu(five));
}

#[test]
fn every_16_bit_float_to_fp8() {
    for bits in 0..=0xffffu16 {
        check_fp8(F16::widen(bits));
        check_fp8(Bf16::widen(bits));
        let wide = F16::widen(bits);
        let pair = u32::from(bits) << 16 | 0x3c00;
        let expected = u16::from(fp8::e4m3_from_f32::<false>(wide)) << 8 | 0x38;
        assert_eq!(pack::e4m3x2_from_f16x2::<false>(pair), expected);
        let expected = u16::from(fp8::e5m2_from_f32::<false>(wide)) << 8 | 0x3c;
        assert_eq!(pack::e5m2x2_from_f16x2::<false>(pair), expected);
    }
}

#[test]
fn f32_around_every_fp8_rounding_boundary() {
    for table in [e4m3(), e5m2()] {
        for pair in table.windows(2) {
            let middle = ((pair[0] + pair[1]) / 2.0) as f32;
            for bits in middle.to_bits() - 2..=middle.to_bits() + 2 {
                check_fp8(bits);
                check_fp8(bits | 0x8000_0000);
            }
        }
    }
    let mut random = Random(41);
    for _ in 0..100_000 {
        check_fp8(random.next() as u32);
    }
}

#[test]
fn every_fp8_pair_converts_to_f16x2() {
    for pair in 0..=0xffffu16 {
        let [low, high] = pair.to_le_bytes();
        let both = |f: fn(u8) -> u16| u32::from(f(high)) << 16 | u32::from(f(low));
        assert_eq!(
            pack::f16x2_from_e4m3x2::<false>(pair),
            both(fp8::e4m3_to_f16::<false>)
        );
        assert_eq!(
            pack::f16x2_from_e5m2x2::<true>(pair),
            both(fp8::e5m2_to_f16::<true>)
        );
    }
}

/// The largest number of the format at most `value`, by search; both positive.
fn towards_zero<H: Half>(value: f32) -> u16 {
    let (mut low, mut high) = (0, H::INFINITY);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if f32::from_bits(H::widen(middle)) <= value {
            low = middle
        } else {
            high = middle
        }
    }
    if value.is_infinite() {
        H::INFINITY
    } else {
        low
    }
}

fn check_pair<H: Half>(random: &mut Random) {
    let plain = PackOptions::default();
    for _ in 0..100_000 {
        let exponent = random.below(256) as u32;
        let near = (119 + random.below(20) as u32) << 23;
        let field = random.pick(&[exponent << 23, near]);
        let a = field | random.next() as u32 & 0x807f_ffff;
        let b = random.next() as u32;
        if f32::from_bits(a).is_nan() || f32::from_bits(b).is_nan() {
            continue;
        }
        let half = half_from_f32::<H, RZ>(a, plain);
        let sign = (a >> 16) as u16 & 0x8000;
        assert_eq!(
            half,
            towards_zero::<H>(f32::from_bits(a).abs()) | sign,
            "{a:x}"
        );
        for options in [(false, false), (false, true), (true, false), (true, true)]
            .map(|(relu, satfinite)| PackOptions { relu, satfinite })
        {
            let pair = half2_from_f32::<H, RN>(a, b, options);
            let expected = |x: u32| {
                let half = H::narrow(x);
                let half = match half & 0x7fff == H::INFINITY && options.satfinite {
                    true => half - 1,
                    false => half,
                };
                if options.relu && half & 0x8000 != 0 {
                    0
                } else {
                    half
                }
            };
            assert_eq!(pair >> 16, u32::from(expected(a)));
            assert_eq!(pair & 0xffff, u32::from(expected(b)));
        }
    }
    let nan = half_from_f32::<H, RZ>(
        0xffff_ffff,
        PackOptions {
            relu: true,
            satfinite: true,
        },
    );
    assert_eq!(nan, half::NAN);
}

#[test]
fn f32_pairs_to_halves() {
    let mut random = Random(42);
    check_pair::<F16>(&mut random);
    check_pair::<Bf16>(&mut random);
}

#[test]
fn integers_are_packed_below_the_third_operand() {
    let minus = |x: i32| x as u32;
    assert_eq!(pack::pack_s32::<true>(minus(-40000), 40000), 0x8000_7fff);
    assert_eq!(pack::pack_s32::<false>(minus(-1), 70000), 0x0000_ffff);
    assert_eq!(pack::pack_s32::<true>(1, minus(-2)), 0x0001_fffe);
    assert_eq!(
        pack::pack_s32_below::<true, 8>(minus(-200), 5, 0x1234_5678),
        0x5678_8005
    );
    assert_eq!(
        pack::pack_s32_below::<false, 8>(300, minus(-5), 0xabcd_0001),
        0x0001_ff00
    );
    assert_eq!(
        pack::pack_s32_below::<true, 4>(7, minus(-9), 0x0000_0aaa),
        0x000a_aa78
    );
    assert_eq!(pack::pack_s32_below::<false, 2>(5, 1, 0xf), 0xfd);
}
