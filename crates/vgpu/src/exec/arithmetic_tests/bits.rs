//! Counts, searches, fields and byte products against loops over bits.

use super::{Pool, check, signed, wrap};

fn pool(bits: u32) -> Pool {
    if bits == 32 { Pool::B32 } else { Pool::B64 }
}

#[test]
fn counts_and_searches() {
    for bits in [32, 64] {
        let inputs = [pool(bits)];
        let is_set = |x: u64, position: u32| x >> position & 1 == 1;
        check(&format!("popc.b{bits} %o0, %i0;"), &inputs, 32, |x| {
            (0..bits).filter(|&position| is_set(x[0], position)).count() as u64
        });
        let top = |x: u64| (0..bits).rev().find(|&position| is_set(x, position));
        check(&format!("clz.b{bits} %o0, %i0;"), &inputs, 32, |x| {
            top(x[0])
                .map_or(bits, |position| bits - 1 - position)
                .into()
        });
        check(&format!("brev.b{bits} %o0, %i0;"), &inputs, bits, |x| {
            (0..bits).fold(0, |all, position| all << 1 | (x[0] >> position & 1))
        });
        let none = u64::from(u32::MAX);
        for (ty, is_signed) in [("u", false), ("s", true)] {
            let found = |x: u64| {
                let negative = is_signed && is_set(x, bits - 1);
                top(if negative {
                    wrap(!i128::from(x), bits)
                } else {
                    x
                })
            };
            check(&format!("bfind.{ty}{bits} %o0, %i0;"), &inputs, 32, |x| {
                found(x[0]).map_or(none, u64::from)
            });
            check(
                &format!("bfind.shiftamt.{ty}{bits} %o0, %i0;"),
                &inputs,
                32,
                |x| found(x[0]).map_or(none, |position| u64::from(bits - 1 - position)),
            );
        }
    }
}

#[test]
fn the_nth_set_bit() {
    let inputs = [Pool::B32, Pool::Below(32), Pool::Below(40)];
    let body = "sub.s32 %r0, %i2, 20;\nfns.b32 %o0, %i0, %i1, %r0;";
    check(body, &inputs, 32, |x| {
        let offset = x[2] as i64 - 20;
        let set = |&position: &i64| x[0] >> position & 1 == 1;
        let base = x[1] as i64;
        let found = match offset {
            0 => Some(base).filter(set),
            1.. => (base..32).filter(set).nth(offset as usize - 1),
            _ => (0..=base).rev().filter(set).nth((-offset) as usize - 1),
        };
        found.map_or(u64::from(u32::MAX), |position| position as u64)
    });
}

#[test]
fn fields() {
    for bits in [32, 64] {
        let inputs = [pool(bits), Pool::Below(300), Pool::Below(300)];
        for (ty, is_signed) in [("u", false), ("s", true)] {
            check(
                &format!("bfe.{ty}{bits} %o0, %i0, %i1, %i2;"),
                &inputs,
                bits,
                |x| {
                    let (start, length) = (x[1] & 0xff, x[2] & 0xff);
                    let bit =
                        |position: u64| position < u64::from(bits) && x[0] >> position & 1 == 1;
                    // The field's last bit, or the word's where the field reaches past it.
                    let last = (start + length).min(u64::from(bits));
                    let sign = is_signed && length > 0 && bit(last.wrapping_sub(1));
                    (0..u64::from(bits)).fold(0, |all, position| {
                        let inside = position < length && start + position < u64::from(bits);
                        let one = if inside { bit(start + position) } else { sign };
                        all | u64::from(one) << position
                    })
                },
            );
        }
        let inputs = [pool(bits), pool(bits), Pool::Below(300), Pool::Below(300)];
        check(
            &format!("bfi.b{bits} %o0, %i0, %i1, %i2, %i3;"),
            &inputs,
            bits,
            |x| {
                let (start, length) = (x[2] & 0xff, x[3] & 0xff);
                (0..u64::from(bits)).fold(0, |all, position| {
                    let inside = position >= start && position < start + length;
                    let one = if inside {
                        x[0] >> (position - start)
                    } else {
                        x[1] >> position
                    };
                    all | (one & 1) << position
                })
            },
        );
    }
}

#[test]
fn masks_and_extensions() {
    let inputs = [Pool::Below(70), Pool::Below(70)];
    let mask = |start: u64, width: u64| {
        (0..32_u64)
            .filter(|&position| position >= start && position < start + width)
            .fold(0, |all, position| all | 1 << position)
    };
    check("bmsk.clamp.b32 %o0, %i0, %i1;", &inputs, 32, |x| {
        mask(x[0], x[1])
    });
    check("bmsk.wrap.b32 %o0, %i0, %i1;", &inputs, 32, |x| {
        mask(x[0] & 31, x[1] & 31)
    });
    let inputs = [Pool::B32, Pool::Below(70)];
    for (mode, wraps) in [("clamp", false), ("wrap", true)] {
        let count = move |x: u64| if wraps { x & 31 } else { x.min(32) } as u32;
        check(
            &format!("szext.{mode}.u32 %o0, %i0, %i1;"),
            &inputs,
            32,
            |x| x[0] & ((1_u64 << count(x[1])) - 1),
        );
        check(
            &format!("szext.{mode}.s32 %o0, %i0, %i1;"),
            &inputs,
            32,
            |x| match count(x[1]) {
                0 => 0,
                bits => wrap(signed(x[0], bits), 32),
            },
        );
    }
}

#[test]
fn products_of_bytes() {
    for (first, first_signed) in [("u32", false), ("s32", true)] {
        for (second, second_signed) in [("u32", false), ("s32", true)] {
            let part = |word: u64, bits: u32, index: u32, is_signed: bool| {
                let value = word >> (bits * index) & ((1 << bits) - 1);
                if is_signed {
                    signed(value, bits)
                } else {
                    i128::from(value)
                }
            };
            check(
                &format!("dp4a.{first}.{second} %o0, %i0, %i1, %i2;"),
                &[Pool::B32; 3],
                32,
                |x| {
                    let sum: i128 = (0..4)
                        .map(|i| part(x[0], 8, i, first_signed) * part(x[1], 8, i, second_signed))
                        .sum();
                    wrap(sum + i128::from(x[2]), 32)
                },
            );
            for (mode, from) in [("lo", 0), ("hi", 2)] {
                let body = format!("dp2a.{mode}.{first}.{second} %o0, %i0, %i1, %i2;");
                check(&body, &[Pool::B32; 3], 32, |x| {
                    let sum: i128 = (0..2)
                        .map(|i| {
                            part(x[0], 16, i, first_signed) * part(x[1], 8, from + i, second_signed)
                        })
                        .sum();
                    wrap(sum + i128::from(x[2]), 32)
                });
            }
        }
    }
}
