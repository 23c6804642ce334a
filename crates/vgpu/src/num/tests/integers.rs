//! Integer instructions against loops over bits and 128-bit arithmetic.

use super::super::int::w32::PrmtMode;
use super::super::int::{w16, w32, w64, x2};
use super::Random;

/// Integers of all lengths, next to powers of two, and their complements.
fn number(random: &mut Random) -> u64 {
    let wide = random.next() >> random.below(64);
    let power = (1u64 << random.below(64))
        .wrapping_add(random.below(3))
        .wrapping_sub(1);
    random.pick(&[wide, !wide, power, !power, wide.rotate_left(32)])
}

/// Bits of `value`, the lowest first.
fn bits(value: u64, count: u32) -> Vec<bool> {
    (0..count).map(|bit| value >> bit & 1 != 0).collect()
}

fn from_bits(bits: &[bool]) -> u64 {
    bits.iter()
        .rev()
        .fold(0, |value, &bit| value << 1 | u64::from(bit))
}

/// Tests that every width has, against `i128`.
macro_rules! check_width {
    ($name:ident, $module:ident, $unsigned:ty, $signed:ty) => {
        #[test]
        fn $name() {
            let mut random = Random(51);
            let width = <$unsigned>::BITS;
            for _ in 0..100_000 {
                let (a, b, c) = (
                    number(&mut random) as $unsigned,
                    number(&mut random) as $unsigned,
                    number(&mut random) as $unsigned,
                );
                let unsigned = |x: $unsigned| i128::from(x);
                let signed = |x: $unsigned| i128::from(x as $signed);
                let cut = |x: i128| x as $unsigned;
                let wide_u = u128::from(a) * u128::from(b);
                let wide_s = signed(a) * signed(b);
                assert_eq!($module::add(a, b), cut(unsigned(a) + unsigned(b)));
                assert_eq!($module::sub(a, b), cut(unsigned(a) - unsigned(b)));
                assert_eq!($module::mul_lo(a, b), wide_u as $unsigned);
                assert_eq!($module::mul_hi_u(a, b), (wide_u >> width) as $unsigned);
                assert_eq!($module::mul_hi_s(a, b), cut(wide_s >> width));
                assert_eq!($module::mad_lo(a, b, c), cut(wide_s + signed(c)));
                let high = (wide_u >> width) as i128 + unsigned(c);
                assert_eq!($module::mad_hi_u(a, b, c), cut(high));
                assert_eq!(
                    $module::mad_hi_s(a, b, c),
                    cut((wide_s >> width) + signed(c))
                );
                let apart = (unsigned(a) - unsigned(b)).abs();
                assert_eq!($module::sad_u(a, b, c), cut(apart + unsigned(c)));
                let apart = (signed(a) - signed(b)).abs();
                assert_eq!($module::sad_s(a, b, c), cut(apart + signed(c)));
                if b != 0 {
                    assert_eq!($module::div_u(a, b), cut(unsigned(a) / unsigned(b)));
                    assert_eq!($module::rem_u(a, b), cut(unsigned(a) % unsigned(b)));
                    assert_eq!($module::div_s(a, b), cut(signed(a) / signed(b)));
                    assert_eq!($module::rem_s(a, b), cut(signed(a) % signed(b)));
                }
                assert_eq!($module::div_u(a, 0), <$unsigned>::MAX);
                assert_eq!($module::div_s(a, 0), <$unsigned>::MAX);
                assert_eq!($module::rem_u(a, 0), <$unsigned>::MAX);
                assert_eq!($module::rem_s(a, 0), <$unsigned>::MAX);
                assert_eq!($module::abs(a), cut(signed(a).abs()));
                assert_eq!($module::neg(a), cut(-signed(a)));
                assert_eq!($module::min_u(a, b), cut(unsigned(a).min(unsigned(b))));
                assert_eq!($module::max_u(a, b), cut(unsigned(a).max(unsigned(b))));
                assert_eq!($module::min_s(a, b), cut(signed(a).min(signed(b))));
                assert_eq!($module::max_s(a, b), cut(signed(a).max(signed(b))));
                assert_eq!($module::relu(a), cut(signed(a).max(0)));
                assert_eq!($module::cnot(a), if a == 0 { 1 } else { 0 });
                let amount = random.pick(&[
                    random_amount(c as u64),
                    width - 1,
                    width,
                    width + 1,
                    u32::MAX,
                ]);
                let held = amount.min(100);
                assert_eq!(
                    $module::shl(a, amount),
                    cut(unsigned(a).wrapping_shl(held.min(64)))
                );
                assert_eq!($module::shr_u(a, amount), cut(unsigned(a) >> held));
                assert_eq!($module::shr_s(a, amount), cut(signed(a) >> held));
            }
            let least = 1 << (width - 1);
            assert_eq!($module::div_s(least, <$unsigned>::MAX), least);
            assert_eq!($module::rem_s(least, <$unsigned>::MAX), 0);
            assert_eq!($module::abs(least), least);
        }
    };
}

fn random_amount(from: u64) -> u32 {
    (from % 70) as u32
}

check_width!(width_16, w16, u16, i16);
check_width!(width_32, w32, u32, i32);
check_width!(width_64, w64, u64, i64);

/// Tests of carries and bit fields, against loops.
macro_rules! check_words {
    ($name:ident, $module:ident, $unsigned:ty, $signed:ty) => {
        #[test]
        fn $name() {
            let mut random = Random(52);
            let width = <$unsigned>::BITS;
            let ones = <$unsigned>::MAX;
            for _ in 0..40_000 {
                let (a, b, c) = (
                    number(&mut random) as $unsigned,
                    number(&mut random) as $unsigned,
                    number(&mut random) as $unsigned,
                );
                let carry = random.below(2) == 1;
                let limit = u128::from(ones);
                let with_carry = |x: $unsigned, y: $unsigned| {
                    let sum = u128::from(x) + u128::from(y) + u128::from(carry);
                    (sum as $unsigned, sum > limit)
                };
                assert_eq!($module::add_carry(a, b, carry), with_carry(a, b));
                let difference = i128::from(a) - i128::from(b) - i128::from(carry);
                let expected = (difference as $unsigned, difference < 0);
                assert_eq!($module::sub_borrow(a, b, carry), expected);
                let low = $module::mul_lo(a, b);
                assert_eq!($module::mad_lo_carry(a, b, c, carry), with_carry(low, c));
                let high = $module::mul_hi_u(a, b);
                assert_eq!($module::mad_hi_carry_u(a, b, c, carry), with_carry(high, c));
                let high = $module::mul_hi_s(a, b);
                assert_eq!($module::mad_hi_carry_s(a, b, c, carry), with_carry(high, c));

                let of = |x: $unsigned| bits(u64::from(x), width);
                let digits = of(a);
                let count = digits.iter().filter(|&&bit| bit).count() as u32;
                assert_eq!($module::popc(a), count);
                let highest = digits.iter().rposition(|&bit| bit);
                let zeros = highest.map_or(width, |top| width - 1 - top as u32);
                assert_eq!($module::clz(a), zeros);
                let reversed: Vec<bool> = digits.iter().rev().copied().collect();
                assert_eq!($module::brev(a), from_bits(&reversed) as $unsigned);

                let find = |wanted: bool| digits.iter().rposition(|&bit| bit == wanted);
                let place = |found: Option<usize>| found.map_or(u32::MAX, |at| at as u32);
                let shift =
                    |found: Option<usize>| found.map_or(u32::MAX, |at| width - 1 - at as u32);
                let sign = digits[width as usize - 1];
                assert_eq!($module::bfind_u(a), place(find(true)));
                assert_eq!($module::bfind_s(a), place(find(!sign)));
                assert_eq!($module::bfind_shift_u(a), shift(find(true)));
                assert_eq!($module::bfind_shift_s(a), shift(find(!sign)));

                let start = random.pick(&[random_amount(c as u64), 255, 256, width, width - 1]);
                let length = random.pick(&[random_amount(b as u64), 0, 255, 256, width]);
                let (pos, len) = ((start & 0xff) as usize, (length & 0xff) as usize);
                let msb = width as usize - 1;
                let field = |fill: bool| {
                    let bit = |i: usize| {
                        if i < len && pos + i <= msb {
                            digits[pos + i]
                        } else {
                            fill
                        }
                    };
                    from_bits(&(0..=msb).map(bit).collect::<Vec<_>>()) as $unsigned
                };
                assert_eq!($module::bfe_u(a, start, length), field(false));
                let fill = len != 0 && digits[(pos + len.max(1) - 1).min(msb)];
                let expected = field(fill);
                assert_eq!(
                    $module::bfe_s(a, start, length),
                    expected,
                    "{a:x} {pos} {len}"
                );
                let mut inserted = of(b);
                for i in 0..len {
                    if pos + i <= msb {
                        inserted[pos + i] = digits[i];
                    }
                }
                let expected = from_bits(&inserted) as $unsigned;
                assert_eq!($module::bfi(a, b, start, length), expected);

                let table = random.next() as u8;
                let (x, y, z) = (of(a), of(b), of(c));
                let looked_up: Vec<bool> = (0..width as usize)
                    .map(|i| {
                        let row = u8::from(x[i]) << 2 | u8::from(y[i]) << 1 | u8::from(z[i]);
                        table >> row & 1 != 0
                    })
                    .collect();
                assert_eq!(
                    $module::lop3(a, b, c, table),
                    from_bits(&looked_up) as $unsigned
                );
            }
        }
    };
}

check_words!(words_32, w32, u32, i32);
check_words!(words_64, w64, u64, i64);

#[test]
fn lop3_takes_the_table_of_the_isa() {
    let (a, b, c) = (0x1234_5678, 0x9abc_def0, 0x0f0f_f0f0);
    assert_eq!(w32::lop3(a, b, c, 0x80), a & b & c);
    assert_eq!(w32::lop3(a, b, c, 0xfe), a | b | c);
    assert_eq!(w32::lop3(a, b, c, 0x40), a & b & !c);
    assert_eq!(w32::lop3(a, b, c, 0x1a), (a & b | c) ^ a);
    assert_eq!(w32::lop3(a, b, c, 0x96), a ^ b ^ c);
}

#[test]
fn wide_products() {
    let mut random = Random(53);
    for _ in 0..50_000 {
        let (a, b, c) = (
            number(&mut random),
            number(&mut random),
            number(&mut random),
        );
        let (x, y) = (a as u32, b as u32);
        let signed = i64::from(x as i32) * i64::from(y as i32);
        assert_eq!(w32::mul_wide_u(x, y), u64::from(x) * u64::from(y));
        assert_eq!(w32::mul_wide_s(x, y), signed as u64);
        assert_eq!(
            w32::mad_wide_s(x, y, c),
            signed.wrapping_add(c as i64) as u64
        );
        assert_eq!(
            w32::mad_wide_u(x, y, c),
            (u64::from(x) * u64::from(y)).wrapping_add(c)
        );
        let (x, y, z) = (a as u16, b as u16, c as u32);
        let signed = i32::from(x as i16) * i32::from(y as i16);
        assert_eq!(w16::mul_wide_u(x, y), u32::from(x) * u32::from(y));
        assert_eq!(w16::mul_wide_s(x, y), signed as u32);
        assert_eq!(
            w16::mad_wide_s(x, y, z),
            signed.wrapping_add(z as i32) as u32
        );
        assert_eq!(
            w16::mad_wide_u(x, y, z),
            (u32::from(x) * u32::from(y)).wrapping_add(z)
        );
    }
}

#[test]
fn saturation_and_24_bits() {
    let mut random = Random(54);
    let clamp = |x: i128| x.clamp(i32::MIN.into(), i32::MAX.into()) as u32;
    for _ in 0..50_000 {
        let [a, b, c] = [(); 3].map(|()| number(&mut random) as u32);
        let signed = |x: u32| i128::from(x as i32);
        assert_eq!(w32::add_sat(a, b), clamp(signed(a) + signed(b)));
        assert_eq!(w32::sub_sat(a, b), clamp(signed(a) - signed(b)));
        let high = (signed(a) * signed(b)) >> 32;
        assert_eq!(w32::mad_hi_sat(a, b, c), clamp(high + signed(c)));
        let low24 = |x: u32| i128::from(x % (1 << 24));
        let signed24 = |x: u32| {
            let low = low24(x);
            if low >= 1 << 23 { low - (1 << 24) } else { low }
        };
        let (u, s) = (low24(a) * low24(b), signed24(a) * signed24(b));
        assert_eq!(w32::mul24_lo_u(a, b), u as u32);
        assert_eq!(w32::mul24_lo_s(a, b), s as u32);
        assert_eq!(w32::mul24_hi_u(a, b), (u >> 16) as u32);
        assert_eq!(w32::mul24_hi_s(a, b), (s >> 16) as u32);
        assert_eq!(w32::mad24_lo_u(a, b, c), (u + signed(c)) as u32);
        assert_eq!(w32::mad24_lo_s(a, b, c), (s + signed(c)) as u32);
        assert_eq!(w32::mad24_hi_u(a, b, c), ((u >> 16) + signed(c)) as u32);
        assert_eq!(w32::mad24_hi_s(a, b, c), ((s >> 16) + signed(c)) as u32);
        let high = i128::from((s >> 16) as i32);
        assert_eq!(w32::mad24_hi_sat(a, b, c), clamp(high + signed(c)));
    }
}

#[test]
fn funnel_shifts_masks_and_extensions() {
    let mut random = Random(55);
    for _ in 0..50_000 {
        let (a, b) = (number(&mut random) as u32, number(&mut random) as u32);
        let amount = random.pick(&[random_amount(random_seed(a)), 31, 32, 33, u32::MAX]);
        let joined = u128::from(b) << 32 | u128::from(a);
        let clamped = amount.min(32);
        let wrapped = amount % 32;
        assert_eq!(
            w32::shf_l_clamp(a, b, amount),
            ((joined << clamped) >> 32) as u32
        );
        assert_eq!(
            w32::shf_l_wrap(a, b, amount),
            ((joined << wrapped) >> 32) as u32
        );
        assert_eq!(w32::shf_r_clamp(a, b, amount), (joined >> clamped) as u32);
        assert_eq!(w32::shf_r_wrap(a, b, amount), (joined >> wrapped) as u32);

        let width = random.pick(&[random_amount(u64::from(b)), 0, 31, 32, 40]);
        let start = random.pick(&[random_amount(u64::from(a)), 0, 31, 32, 40]);
        let mask = |start: u32, width: u32| {
            let bit = |i: u32| u64::from(i >= start && u64::from(i) < end(start, width)) << i;
            (0..32).map(bit).sum::<u64>() as u32
        };
        assert_eq!(w32::bmsk_clamp(start, width), mask(start, width));
        assert_eq!(w32::bmsk_wrap(start, width), mask(start % 32, width % 32));

        let zero_extended = |n: u32| if n >= 32 { a } else { a % (1 << n) };
        let sign_extended = |n: u32| {
            let low = zero_extended(n);
            let negative = n > 0 && n < 32 && low >> (n - 1) != 0;
            if negative {
                (u64::from(low) | u64::MAX << n) as u32
            } else {
                low
            }
        };
        assert_eq!(w32::szext_clamp_u(a, width), zero_extended(width));
        assert_eq!(w32::szext_wrap_u(a, width), zero_extended(width % 32));
        assert_eq!(w32::szext_clamp_s(a, width), sign_extended(width));
        assert_eq!(w32::szext_wrap_s(a, width), sign_extended(width % 32));
    }
    assert_eq!(w32::bmsk_wrap(1, 2), 6);
    assert_eq!(w32::szext_wrap_u(u32::MAX, 0), 0);
}

fn random_seed(a: u32) -> u64 {
    u64::from(a).wrapping_mul(0x9e37_79b9)
}

fn end(start: u32, width: u32) -> u64 {
    u64::from(start) + u64::from(width)
}

#[test]
fn fns_counts_set_bits_from_the_base() {
    let minus_one = u32::MAX;
    assert_eq!(w32::fns(0xaaaa_aaaa, 3, 1), 3);
    assert_eq!(w32::fns(0xaaaa_aaaa, 3, minus_one), 3);
    assert_eq!(w32::fns(0xaaaa_aaaa, 2, 1), 3);
    assert_eq!(w32::fns(0xaaaa_aaaa, 2, minus_one), 1);
    assert_eq!(w32::fns(0xaaaa_aaaa, 3, 0), 3);
    assert_eq!(w32::fns(0xaaaa_aaaa, 2, 0), u32::MAX);
    let mut random = Random(56);
    for _ in 0..50_000 {
        let mask = number(&mut random) as u32;
        let base = random.below(32) as u32;
        let offset = random.below(41) as i32 - 20;
        let set: Vec<u32> = (0..32).filter(|bit| mask >> bit & 1 != 0).collect();
        let expected = match offset {
            0 => set.iter().copied().find(|&bit| bit == base),
            1.. => set
                .iter()
                .copied()
                .filter(|&bit| bit >= base)
                .nth(offset as usize - 1),
            _ => {
                let mut down = set.iter().rev().copied().filter(|&bit| bit <= base);
                down.nth(offset.unsigned_abs() as usize - 1)
            }
        };
        assert_eq!(
            w32::fns(mask, base, offset as u32),
            expected.unwrap_or(u32::MAX)
        );
    }
    assert_eq!(w32::fns(u32::MAX, 32, 1), u32::MAX);
    assert_eq!(w32::fns(u32::MAX, 0, i32::MIN as u32), u32::MAX);
}

#[test]
fn prmt_selects_bytes() {
    let (a, b) = (0x8382_8180, 0x0706_0504);
    assert_eq!(w32::prmt(a, b, 0x3210), a);
    assert_eq!(w32::prmt(a, b, 0x7654), b);
    assert_eq!(w32::prmt(a, b, 0x0426), 0x8004_8206);
    assert_eq!(w32::prmt(a, b, 0xb8c4), 0xffff_0004);
    // The ISA's table: bytes 3 to 0 of the result for control 0 to 3.
    let tables = [
        (
            PrmtMode::F4e,
            [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]],
        ),
        (
            PrmtMode::B4e,
            [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]],
        ),
        (
            PrmtMode::Rc8,
            [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]],
        ),
        (
            PrmtMode::Ecl,
            [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]],
        ),
        (
            PrmtMode::Ecr,
            [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]],
        ),
        (
            PrmtMode::Rc16,
            [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]],
        ),
    ];
    let bytes = [0x80u8, 0x81, 0x82, 0x83, 0x04, 0x05, 0x06, 0x07];
    for (mode, rows) in tables {
        for (control, row) in rows.into_iter().enumerate() {
            let expected = u32::from_be_bytes(row.map(|index| bytes[index]));
            let control = control as u32 | 0xff00;
            assert_eq!(
                w32::prmt_mode(mode, a, b, control),
                expected,
                "{mode:?} {control:x}"
            );
        }
    }
}

#[test]
fn dot_products() {
    let mut random = Random(57);
    for _ in 0..20_000 {
        let [a, b, c] = [(); 3].map(|()| number(&mut random) as u32);
        let unsigned = |word: u32| word.to_le_bytes().map(i64::from);
        let signed = |word: u32| word.to_le_bytes().map(|byte| i64::from(byte as i8));
        let dot = |x: [i64; 4], y: [i64; 4]| {
            let sum: i64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
            (sum + i64::from(c)) as u32
        };
        assert_eq!(
            w32::dp4a::<false, false>(a, b, c),
            dot(unsigned(a), unsigned(b))
        );
        assert_eq!(
            w32::dp4a::<false, true>(a, b, c),
            dot(unsigned(a), signed(b))
        );
        assert_eq!(
            w32::dp4a::<true, false>(a, b, c),
            dot(signed(a), unsigned(b))
        );
        assert_eq!(w32::dp4a::<true, true>(a, b, c), dot(signed(a), signed(b)));
        let (low, high) = (a as u16, (a >> 16) as u16);
        let halves = [i64::from(low), i64::from(high)];
        let signed_halves = [i64::from(low as i16), i64::from(high as i16)];
        let dot2 = |x: [i64; 2], y: &[i64]| (x[0] * y[0] + x[1] * y[1] + i64::from(c)) as u32;
        let (u, s) = (unsigned(b), signed(b));
        assert_eq!(
            w32::dp2a::<false, false, false>(a, b, c),
            dot2(halves, &u[..2])
        );
        assert_eq!(
            w32::dp2a::<false, true, true>(a, b, c),
            dot2(halves, &s[2..])
        );
        assert_eq!(
            w32::dp2a::<true, false, true>(a, b, c),
            dot2(signed_halves, &u[2..])
        );
        assert_eq!(
            w32::dp2a::<true, true, false>(a, b, c),
            dot2(signed_halves, &s[..2])
        );
    }
}

#[test]
fn halves_are_independent() {
    assert_eq!(x2::add(0xffff_0001, 0x0001_ffff), 0);
    assert_eq!(x2::min_u(0x8000_0001, 0x0001_8000), 0x0001_0001);
    assert_eq!(x2::max_u(0x8000_0001, 0x0001_8000), 0x8000_8000);
    assert_eq!(x2::min_s(0x8000_0001, 0x0001_8000), 0x8000_8000);
    assert_eq!(x2::max_s(0x8000_0001, 0x0001_8000), 0x0001_0001);
    assert_eq!(x2::relu(0x8000_7fff), 0x0000_7fff);
    assert_eq!(
        x2::zip3(0x0001_0002, 0x0003_0004, 0x0005_0006, w16::mad_lo),
        0x0008_000e
    );
}
