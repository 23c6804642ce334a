//! Integer arithmetic against 128-bit integers.

use super::{Pool, check, check_all, signed, wrap};

const WIDTHS: [(u32, Pool); 3] = [(16, Pool::B16), (32, Pool::B32), (64, Pool::B64)];

/// A value as the type reads it.
fn read(value: u64, bits: u32, is_signed: bool) -> i128 {
    if is_signed {
        signed(value, bits)
    } else {
        i128::from(value)
    }
}

/// Every integer type: its name, width and sign.
fn types() -> impl Iterator<Item = (String, u32, Pool, bool)> {
    WIDTHS.into_iter().flat_map(|(bits, pool)| {
        [
            (format!("u{bits}"), bits, pool, false),
            (format!("s{bits}"), bits, pool, true),
        ]
    })
}

#[test]
fn two_operands() {
    for (ty, bits, pool, sign) in types() {
        let test = |op: &str, f: &dyn Fn(i128, i128) -> i128| {
            check(
                &format!("{op}.{ty} %o0, %i0, %i1;"),
                &[pool; 2],
                bits,
                |x| wrap(f(read(x[0], bits, sign), read(x[1], bits, sign)), bits),
            );
        };
        test("add", &|a, b| a + b);
        test("sub", &|a, b| a - b);
        test("min", &i128::min);
        test("max", &i128::max);
        test("mul.lo", &|a, b| {
            (a as u128).wrapping_mul(b as u128) as i128
        });
        test("div", &|a, b| if b == 0 { -1 } else { a / b });
        test("rem", &|a, b| if b == 0 { -1 } else { a % b });
        if bits < 64 {
            test("mul.hi", &|a, b| (a * b) >> bits);
        }
    }
    let high = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
    check("mul.hi.u64 %o0, %i0, %i1;", &[Pool::B64; 2], 64, |x| {
        high(x[0], x[1])
    });
    check("mul.hi.s64 %o0, %i0, %i1;", &[Pool::B64; 2], 64, |x| {
        // The unsigned product less what the signs add.
        let negative = |a: u64, b: u64| if a >> 63 == 1 { b } else { 0 };
        high(x[0], x[1])
            .wrapping_sub(negative(x[0], x[1]))
            .wrapping_sub(negative(x[1], x[0]))
    });
}

#[test]
fn three_operands() {
    for (ty, bits, pool, sign) in types() {
        let value = |x: u64| read(x, bits, sign);
        check(
            &format!("mad.lo.{ty} %o0, %i0, %i1, %i2;"),
            &[pool; 3],
            bits,
            |x| {
                let product = (value(x[0]) as u128).wrapping_mul(value(x[1]) as u128);
                wrap(product.wrapping_add(value(x[2]) as u128) as i128, bits)
            },
        );
        check(
            &format!("sad.{ty} %o0, %i0, %i1, %i2;"),
            &[pool; 3],
            bits,
            |x| wrap(value(x[2]) + (value(x[0]) - value(x[1])).abs(), bits),
        );
        if bits == 64 {
            continue;
        }
        check(
            &format!("mad.hi.{ty} %o0, %i0, %i1, %i2;"),
            &[pool; 3],
            bits,
            |x| wrap(((value(x[0]) * value(x[1])) >> bits) + value(x[2]), bits),
        );
        check(
            &format!("mul.wide.{ty} %o0, %i0, %i1;"),
            &[pool; 2],
            2 * bits,
            |x| wrap(value(x[0]) * value(x[1]), 2 * bits),
        );
        let wide = if bits == 16 { Pool::B32 } else { Pool::B64 };
        let inputs = [pool, pool, wide];
        check(
            &format!("mad.wide.{ty} %o0, %i0, %i1, %i2;"),
            &inputs,
            2 * bits,
            |x| {
                wrap(
                    value(x[0]) * value(x[1]) + read(x[2], 2 * bits, sign),
                    2 * bits,
                )
            },
        );
    }
    check(
        "mad.hi.sat.s32 %o0, %i0, %i1, %i2;",
        &[Pool::B32; 3],
        32,
        |x| {
            let [a, b, c] = [0, 1, 2].map(|index| signed(x[index], 32));
            wrap(
                (((a * b) >> 32) + c).clamp(i32::MIN.into(), i32::MAX.into()),
                32,
            )
        },
    );
}

#[test]
fn saturation_and_signs() {
    let clamp = |x: i128| wrap(x.clamp(i32::MIN.into(), i32::MAX.into()), 32);
    check("add.sat.s32 %o0, %i0, %i1;", &[Pool::B32; 2], 32, |x| {
        clamp(signed(x[0], 32) + signed(x[1], 32))
    });
    check("sub.sat.s32 %o0, %i0, %i1;", &[Pool::B32; 2], 32, |x| {
        clamp(signed(x[0], 32) - signed(x[1], 32))
    });
    for (bits, pool) in WIDTHS {
        check(&format!("abs.s{bits} %o0, %i0;"), &[pool], bits, |x| {
            wrap(signed(x[0], bits).abs(), bits)
        });
        check(&format!("neg.s{bits} %o0, %i0;"), &[pool], bits, |x| {
            wrap(-signed(x[0], bits), bits)
        });
    }
    check("min.relu.s32 %o0, %i0, %i1;", &[Pool::B32; 2], 32, |x| {
        wrap(signed(x[0], 32).min(signed(x[1], 32)).max(0), 32)
    });
    check("max.relu.s32 %o0, %i0, %i1;", &[Pool::B32; 2], 32, |x| {
        wrap(signed(x[0], 32).max(signed(x[1], 32)).max(0), 32)
    });
}

#[test]
fn pairs_of_sixteen_bits() {
    let test = |op: &str, sign: bool, f: &dyn Fn(i128, i128) -> i128| {
        check(&format!("{op} %o0, %i0, %i1;"), &[Pool::B32; 2], 32, |x| {
            let half = |shift: u32| {
                let part = |x: u64| read(x >> shift & 0xffff, 16, sign);
                wrap(f(part(x[0]), part(x[1])), 16)
            };
            half(16) << 16 | half(0)
        });
    };
    test("add.u16x2", false, &|a, b| a + b);
    test("add.s16x2", true, &|a, b| a + b);
    test("min.u16x2", false, &i128::min);
    test("max.u16x2", false, &i128::max);
    test("min.s16x2", true, &i128::min);
    test("max.s16x2", true, &i128::max);
    test("min.relu.s16x2", true, &|a, b| a.min(b).max(0));
    test("max.relu.s16x2", true, &|a, b| a.max(b).max(0));
}

#[test]
fn twenty_four_bits() {
    for (ty, sign) in [("u32", false), ("s32", true)] {
        let product =
            |x: &[u64]| read(x[0] & 0xff_ffff, 24, sign) * read(x[1] & 0xff_ffff, 24, sign);
        let three = [Pool::B32; 3];
        check(
            &format!("mul24.lo.{ty} %o0, %i0, %i1;"),
            &three[..2],
            32,
            |x| wrap(product(x), 32),
        );
        check(
            &format!("mul24.hi.{ty} %o0, %i0, %i1;"),
            &three[..2],
            32,
            |x| wrap(product(x) >> 16, 32),
        );
        check(
            &format!("mad24.lo.{ty} %o0, %i0, %i1, %i2;"),
            &three,
            32,
            |x| wrap(product(x) + i128::from(x[2]), 32),
        );
        check(
            &format!("mad24.hi.{ty} %o0, %i0, %i1, %i2;"),
            &three,
            32,
            |x| wrap((product(x) >> 16) + i128::from(x[2]), 32),
        );
    }
    check(
        "mad24.hi.sat.s32 %o0, %i0, %i1, %i2;",
        &[Pool::B32; 3],
        32,
        |x| {
            let product = signed(x[0] & 0xff_ffff, 24) * signed(x[1] & 0xff_ffff, 24);
            // The upper 32 of 48 bits, as a signed number.
            let high = signed(wrap(product >> 16, 32), 32);
            wrap(
                (high + signed(x[2], 32)).clamp(i32::MIN.into(), i32::MAX.into()),
                32,
            )
        },
    );
}

/// A 128-bit number in two registers.
fn join(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn parts(x: u128) -> Vec<u64> {
    vec![x as u64, (x >> 64) as u64]
}

#[test]
fn carries_of_two_words() {
    let four = [Pool::B64; 4];
    check_all(
        "add.cc.u64 %o0, %i0, %i2;\naddc.u64 %o1, %i1, %i3;",
        &four,
        &[64, 64],
        |x| parts(join(x[0], x[1]).wrapping_add(join(x[2], x[3]))),
    );
    check_all(
        "sub.cc.s64 %o0, %i0, %i2;\nsubc.s64 %o1, %i1, %i3;",
        &four,
        &[64, 64],
        |x| parts(join(x[0], x[1]).wrapping_sub(join(x[2], x[3]))),
    );
    // The flag goes through four words, and out of the last one.
    let body = "mov.b64 {%r0, %r1}, %i0;\nmov.b64 {%r2, %r3}, %i1;\n\
                mov.b64 {%r4, %r5}, %i2;\nmov.b64 {%r6, %r7}, %i3;\n\
                add.cc.u32 %r0, %r0, %r4;\naddc.cc.u32 %r1, %r1, %r5;\n\
                addc.cc.s32 %r2, %r2, %r6;\naddc.cc.u32 %r3, %r3, %r7;\n\
                mov.b64 %o0, {%r0, %r1};\nmov.b64 %o1, {%r2, %r3};\naddc.u32 %o2, 0, 0;";
    check_all(body, &four, &[64, 64, 32], |x| {
        let (sum, carry) = join(x[0], x[1]).overflowing_add(join(x[2], x[3]));
        [parts(sum), vec![carry.into()]].concat()
    });
    let body = "mov.b64 {%r0, %r1}, %i0;\nmov.b64 {%r4, %r5}, %i1;\n\
                sub.cc.u32 %r0, %r0, %r4;\nsubc.cc.u32 %r1, %r1, %r5;\n\
                mov.b64 %o0, {%r0, %r1};\nsubc.u32 %o1, 0, 0;";
    check_all(body, &four[..2], &[64, 32], |x| {
        let (difference, borrow) = x[0].overflowing_sub(x[1]);
        vec![difference, if borrow { 0xffff_ffff } else { 0 }]
    });
}

#[test]
fn carries_of_products() {
    // 64 × 64 + 128 bits, from words of 32.
    let body = "mov.b64 {%r0, %r1}, %i0;\nmov.b64 {%r2, %r3}, %i1;\n\
                mad.lo.cc.u32 %r4, %r0, %r2, 0;\nmadc.hi.u32 %r5, %r0, %r2, 0;\n\
                mul.hi.u32 %r6, %r1, %r2;\nmad.lo.cc.u32 %r5, %r1, %r2, %r5;\n\
                addc.u32 %r6, %r6, 0;\n\
                mad.lo.cc.u32 %r5, %r0, %r3, %r5;\nmadc.hi.cc.u32 %r6, %r0, %r3, %r6;\n\
                addc.u32 %r7, 0, 0;\n\
                mad.lo.cc.u32 %r6, %r1, %r3, %r6;\nmadc.hi.u32 %r7, %r1, %r3, %r7;\n\
                mov.b64 %o0, {%r4, %r5};\nmov.b64 %o1, {%r6, %r7};";
    check_all(body, &[Pool::B64; 2], &[64, 64], |x| {
        parts(u128::from(x[0]) * u128::from(x[1]))
    });
    check_all(
        "mad.lo.cc.u64 %o0, %i0, %i1, %i2;\nmadc.hi.u64 %o1, %i0, %i1, %i3;",
        &[Pool::B64; 4],
        &[64, 64],
        |x| parts((u128::from(x[0]) * u128::from(x[1])).wrapping_add(join(x[2], x[3]))),
    );
    check_all(
        "mad.lo.cc.s64 %o0, %i0, %i1, %i2;\nmadc.hi.s64 %o1, %i0, %i1, %i3;",
        &[Pool::B64; 4],
        &[64, 64],
        |x| {
            let product = i128::from(x[0] as i64) * i128::from(x[1] as i64);
            parts((product as u128).wrapping_add(join(x[2], x[3])))
        },
    );
    check_all(
        "mad.hi.cc.s32 %o0, %i0, %i1, %i2;\nmadc.lo.cc.s32 %o1, %i0, %i1, %i2;\n\
         addc.s32 %o2, 0, 0;",
        &[Pool::B32; 3],
        &[32, 32, 32],
        |x| {
            let product = signed(x[0], 32) * signed(x[1], 32);
            let high = wrap(product >> 32, 32) + x[2];
            let low = wrap(product, 32) + x[2] + (high >> 32);
            vec![high & 0xffff_ffff, low & 0xffff_ffff, low >> 32]
        },
    );
}

#[test]
fn a_guard_leaves_the_other_lanes_their_carry() {
    // Lanes with odd %i0 carry in the first addition; the second one is for even lanes only.
    let body = "and.b32 %r0, %i0, 1;\nsetp.eq.u32 %p0, %r0, 0;\n\
                add.cc.u32 %r1, %r0, -1;\n@%p0 add.cc.u32 %r1, %i1, %i1;\naddc.u32 %o0, 0, 0;";
    check(body, &[Pool::B32; 2], 32, |x| {
        if x[0] & 1 == 1 { 1 } else { x[1] >> 31 }
    });
}
