//! f32 and f64 arithmetic. Directed roundings are found by stepping from the exact value in f64.

use super::{Pool, check};

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];
const NAN: u64 = 0x7fff_ffff;

fn single(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn double(x: u64) -> f64 {
    f64::from_bits(x)
}

/// The bits of an f32 result.
fn bits(value: f32) -> u64 {
    if value.is_nan() {
        NAN
    } else {
        value.to_bits().into()
    }
}

/// A number that f64 holds exactly, as f32 in a rounding mode. Exact zeros are not looked at.
fn rounded(exact: f64, mode: &str) -> f32 {
    let nearest = exact as f32;
    let below = if f64::from(nearest) > exact {
        nearest.next_down()
    } else {
        nearest
    };
    let above = if f64::from(nearest) < exact {
        nearest.next_up()
    } else {
        nearest
    };
    match mode {
        "rn" => nearest,
        "rm" => below,
        "rp" => above,
        _ => {
            if exact < 0.0 {
                above
            } else {
                below
            }
        }
    }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() {
        0.0_f32.copysign(x)
    } else {
        x
    }
}

fn saturated(x: f32) -> f32 {
    // NaN and -0 become +0.
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

#[test]
fn nearest_on_all_values() {
    let two = [Pool::F32; 2];
    let test = |op: &str, f: fn(f32, f32) -> f32| {
        for rounding in ["", ".rn"] {
            check(
                &format!("{op}{rounding}.f32 %o0, %i0, %i1;"),
                &two,
                32,
                |x| bits(f(single(x[0]), single(x[1]))),
            );
        }
        check(&format!("{op}.ftz.f32 %o0, %i0, %i1;"), &two, 32, |x| {
            bits(flush(f(flush(single(x[0])), flush(single(x[1])))))
        });
        check(&format!("{op}.sat.f32 %o0, %i0, %i1;"), &two, 32, |x| {
            bits(saturated(f(single(x[0]), single(x[1]))))
        });
    };
    test("add", |a, b| a + b);
    test("sub", |a, b| a - b);
    test("mul", |a, b| a * b);
    let three = [Pool::F32; 3];
    for op in ["fma", "mad"] {
        check(
            &format!("{op}.rn.f32 %o0, %i0, %i1, %i2;"),
            &three,
            32,
            |x| bits(single(x[0]).mul_add(single(x[1]), single(x[2]))),
        );
        check(
            &format!("{op}.rn.ftz.f32 %o0, %i0, %i1, %i2;"),
            &three,
            32,
            |x| {
                let [a, b, c] = [0, 1, 2].map(|index| flush(single(x[index])));
                bits(flush(a.mul_add(b, c)))
            },
        );
    }
    check("fma.rn.sat.f32 %o0, %i0, %i1, %i2;", &three, 32, |x| {
        bits(saturated(single(x[0]).mul_add(single(x[1]), single(x[2]))))
    });
    check("div.rn.f32 %o0, %i0, %i1;", &two, 32, |x| {
        bits(single(x[0]) / single(x[1]))
    });
    check("div.rn.ftz.f32 %o0, %i0, %i1;", &two, 32, |x| {
        bits(flush(flush(single(x[0])) / flush(single(x[1]))))
    });
    check("sqrt.rn.f32 %o0, %i0;", &[Pool::F32], 32, |x| {
        bits(single(x[0]).sqrt())
    });
    check("rcp.rn.ftz.f32 %o0, %i0;", &[Pool::F32], 32, |x| {
        bits(flush(1.0 / flush(single(x[0]))))
    });
}

#[test]
fn every_mode_on_plain_numbers() {
    let plain = [Pool::Plain; 3];
    for mode in MODES {
        let test = |op: &str, inputs: usize, exact: &dyn Fn(&[f64]) -> f64| {
            let sources = ["%i0", "%i0, %i1", "%i0, %i1, %i2"][inputs - 1];
            check(
                &format!("{op}.{mode}.f32 %o0, {sources};"),
                &plain[..inputs],
                32,
                |x| {
                    let values: Vec<f64> = x.iter().map(|&x| single(x).into()).collect();
                    match exact(&values) {
                        // No product of the pool is zero; a sum is positive then, but in .rm.
                        0.0 if mode == "rm" => 0x8000_0000,
                        0.0 => 0,
                        exact => bits(rounded(exact, mode)),
                    }
                },
            );
        };
        test("add", 2, &|x| x[0] + x[1]);
        test("sub", 2, &|x| x[0] - x[1]);
        test("mul", 2, &|x| x[0] * x[1]);
        test("fma", 3, &|x| x[0] * x[1] + x[2]);
        test("mad", 3, &|x| x[0] * x[1] + x[2]);
        // Quotients and roots of 13-bit numbers are never so near to an f32 that f64 cannot tell.
        test("div", 2, &|x| x[0] / x[1]);
        test("rcp", 1, &|x| 1.0 / x[0]);
        check(
            &format!("sqrt.{mode}.f32 %o0, %i0;"),
            &plain[..1],
            32,
            |x| match f64::from(single(x[0])) {
                negative if negative < 0.0 => NAN,
                value => bits(rounded(value.sqrt(), mode)),
            },
        );
    }
    check("add.rz.ftz.sat.f32 %o0, %i0, %i1;", &plain[..2], 32, |x| {
        bits(saturated(rounded(
            f64::from(single(x[0])) + f64::from(single(x[1])),
            "rz",
        )))
    });
}

#[test]
fn doubles() {
    // The first NaN operand is kept; there are quiet ones only in the pool, but for random values.
    let finish = |x: &[u64], value: f64| {
        let operand = x.iter().copied().find(|&x| double(x).is_nan());
        match operand {
            Some(nan) => nan | 1 << 51,
            None if value.is_nan() => 0xfff8_0000_0000_0000,
            None => value.to_bits(),
        }
    };
    let test = |body: &str, inputs: usize, f: &dyn Fn(&[f64]) -> f64| {
        check(body, &[Pool::F64; 3][..inputs], 64, |x| {
            let values: Vec<f64> = x.iter().map(|&x| double(x)).collect();
            finish(x, f(&values))
        });
    };
    test("add.f64 %o0, %i0, %i1;", 2, &|x| x[0] + x[1]);
    test("add.rn.f64 %o0, %i0, %i1;", 2, &|x| x[0] + x[1]);
    test("sub.f64 %o0, %i0, %i1;", 2, &|x| x[0] - x[1]);
    test("mul.f64 %o0, %i0, %i1;", 2, &|x| x[0] * x[1]);
    test("div.rn.f64 %o0, %i0, %i1;", 2, &|x| x[0] / x[1]);
    test("fma.rn.f64 %o0, %i0, %i1, %i2;", 3, &|x| {
        x[0].mul_add(x[1], x[2])
    });
    test("mad.rn.f64 %o0, %i0, %i1, %i2;", 3, &|x| {
        x[0].mul_add(x[1], x[2])
    });
    test("sqrt.rn.f64 %o0, %i0;", 1, &|x| x[0].sqrt());
    test("rcp.rn.f64 %o0, %i0;", 1, &|x| 1.0 / x[0]);
    // Sums of integers a little above 2^53, whose exact value an i128 holds.
    for mode in MODES {
        let inputs = [Pool::B32, Pool::Below(1 << 31)];
        let body = format!(
            "mov.b64 %d0, {{%i0, 0x43500000}};\nmov.b64 %d1, {{0, %r0}};\n\
             cvt.rn.f64.u32 %d1, %i1;\nadd.{mode}.f64 %o0, %d0, %d1;"
        );
        check(&body, &inputs, 64, |x| {
            // 2^54 + 4 a, and b; the last bit of the sum is worth 4.
            let exact = (1_u64 << 54) + 4 * x[0] + x[1];
            let (floor, rest) = (exact >> 2, exact & 3);
            let up = match mode {
                "rp" => rest > 0,
                "rn" => rest > 2 || rest == 2 && floor & 1 == 1,
                _ => false,
            };
            let steps = floor + u64::from(up) - (1 << 52);
            0x4350_0000_0000_0000 + steps
        });
    }
}

#[test]
fn signs_and_extremes() {
    let one = [Pool::F32];
    let two = [Pool::F32; 2];
    check("abs.f32 %o0, %i0;", &one, 32, |x| x[0] & 0x7fff_ffff);
    check("neg.f32 %o0, %i0;", &one, 32, |x| x[0] ^ 0x8000_0000);
    let flush_bits = |x: u64| u64::from(flush(single(x)).to_bits());
    check("abs.ftz.f32 %o0, %i0;", &one, 32, |x| {
        flush_bits(x[0] & 0x7fff_ffff)
    });
    check("neg.ftz.f32 %o0, %i0;", &one, 32, |x| {
        flush_bits(x[0] ^ 0x8000_0000)
    });
    check("abs.f64 %o0, %i0;", &[Pool::F64], 64, |x| x[0] & !(1 << 63));
    check("neg.f64 %o0, %i0;", &[Pool::F64], 64, |x| x[0] ^ 1 << 63);
    check("copysign.f32 %o0, %i0, %i1;", &two, 32, |x| {
        x[1] & 0x7fff_ffff | x[0] & 0x8000_0000
    });
    check("copysign.f64 %o0, %i0, %i1;", &[Pool::F64; 2], 64, |x| {
        x[1] & !(1 << 63) | x[0] & 1 << 63
    });
    // IEEE 754-2019: minimumNumber and maximumNumber, and minimum and maximum with .NaN.
    let extreme = |a: f32, b: f32, max: bool, nan: bool| -> f32 {
        if a.is_nan() || b.is_nan() {
            return if nan || a.is_nan() && b.is_nan() {
                f32::NAN
            } else if a.is_nan() {
                b
            } else {
                a
            };
        }
        let order = a.total_cmp(&b);
        if order.is_lt() != max { a } else { b }
    };
    for (op, max) in [("min", false), ("max", true)] {
        for (word, nan) in [("", false), (".NaN", true)] {
            check(&format!("{op}{word}.f32 %o0, %i0, %i1;"), &two, 32, |x| {
                bits(extreme(single(x[0]), single(x[1]), max, nan))
            });
            check(
                &format!("{op}.ftz{word}.f32 %o0, %i0, %i1;"),
                &two,
                32,
                |x| bits(extreme(flush(single(x[0])), flush(single(x[1])), max, nan)),
            );
            check(
                &format!("{op}{word}.xorsign.abs.f32 %o0, %i0, %i1;"),
                &two,
                32,
                |x| {
                    let value = extreme(single(x[0]).abs(), single(x[1]).abs(), max, nan);
                    let sign = (x[0] ^ x[1]) & 0x8000_0000;
                    if value.is_nan() {
                        NAN
                    } else {
                        bits(value) | sign
                    }
                },
            );
        }
        check(
            &format!("{op}.f64 %o0, %i0, %i1;"),
            &[Pool::F64; 2],
            64,
            |x| {
                let [a, b] = [double(x[0]), double(x[1])];
                match (a.is_nan(), b.is_nan()) {
                    (true, true) => 0xfff8_0000_0000_0000,
                    (true, false) => x[1],
                    (false, true) => x[0],
                    _ if a.total_cmp(&b).is_lt() != max => x[0],
                    _ => x[1],
                }
            },
        );
    }
}

#[test]
fn properties() {
    for (word, f) in [
        ("finite", f32::is_finite as fn(f32) -> bool),
        ("infinite", f32::is_infinite),
        ("number", |x| !x.is_nan()),
        ("notanumber", f32::is_nan),
        ("normal", |x| x.is_normal() || x == 0.0),
        ("subnormal", f32::is_subnormal),
    ] {
        let body = format!("testp.{word}.f32 %p0, %i0;\nselp.u32 %o0, 1, 0, %p0;");
        check(&body, &[Pool::F32], 32, |x| f(single(x[0])).into());
    }
    for (word, f) in [
        ("finite", f64::is_finite as fn(f64) -> bool),
        ("infinite", f64::is_infinite),
        ("number", |x| !x.is_nan()),
        ("notanumber", f64::is_nan),
        ("normal", |x| x.is_normal() || x == 0.0),
        ("subnormal", f64::is_subnormal),
    ] {
        let body = format!("testp.{word}.f64 %p0, %i0;\nselp.u32 %o0, 1, 0, %p0;");
        check(&body, &[Pool::F64], 32, |x| f(double(x[0])).into());
    }
}
