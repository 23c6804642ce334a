//! f16 and bf16 against the `half` crate's conversions around f32 and f64.

use half::{bf16, f16};

use super::{Pool, check};

/// A format: how its bits are read, and how an f64 is rounded to them.
#[derive(Clone, Copy)]
struct Format {
    name: &'static str,
    pool: Pool,
    pair: Pool,
    read: fn(u16) -> f64,
    round: fn(f64) -> u16,
    smallest_normal: f64,
}

const FORMATS: [Format; 2] = [
    Format {
        name: "f16",
        pool: Pool::F16,
        pair: Pool::F16x2,
        read: |x| f16::from_bits(x).to_f64(),
        round: |x| {
            if x.is_nan() {
                0x7fff
            } else {
                f16::from_f32(odd(x)).to_bits()
            }
        },
        smallest_normal: 6.103_515_625e-5,
    },
    Format {
        name: "bf16",
        pool: Pool::Bf16,
        pair: Pool::Bf16x2,
        read: |x| bf16::from_bits(x).to_f64(),
        round: |x| {
            if x.is_nan() {
                0x7fff
            } else {
                bf16::from_f32(odd(x)).to_bits()
            }
        },
        smallest_normal: f32::MIN_POSITIVE as f64,
    },
];

impl Format {
    fn flush(self, x: f64) -> f64 {
        if x.abs() < self.smallest_normal {
            0.0_f64.copysign(x)
        } else {
            x
        }
    }
}

/// Checks an instruction of numbers alone, and of pairs of them.
fn both(format: Format, op: &str, inputs: usize, f: &dyn Fn(&[u16]) -> u16) {
    let sources = ["%i0", "%i0, %i1", "%i0, %i1, %i2"][inputs - 1];
    let alone = format!("{op}.{} %o0, {sources};", format.name);
    check(&alone, &[format.pool; 3][..inputs], 16, |x| {
        let x: Vec<u16> = x.iter().map(|&x| x as u16).collect();
        f(&x).into()
    });
    let pairs = format!("{op}.{}x2 %o0, {sources};", format.name);
    check(&pairs, &[format.pair; 3][..inputs], 32, |x| {
        let low: Vec<u16> = x.iter().map(|&x| x as u16).collect();
        let high: Vec<u16> = x.iter().map(|&x| (x >> 16) as u16).collect();
        u64::from(f(&high)) << 16 | u64::from(f(&low))
    });
}

/// The f32 next to a number, an odd one if it is inexact, so that a second rounding is right. (The
/// crate's own conversions from f64 look at its upper word only.)
fn odd(x: f64) -> f32 {
    let nearest = x as f32;
    let even = nearest.to_bits() & 1 == 0;
    if even && f64::from(nearest) < x {
        nearest.next_up()
    } else if even && f64::from(nearest) > x {
        nearest.next_down()
    } else {
        nearest
    }
}

/// `a * b + c` as an f64 that a second rounding makes right.
fn fma(a: f64, b: f64, c: f64) -> f64 {
    // The product has 22 bits at most; the larger addend comes first, so the rest is exact.
    let product = a * b;
    let (large, small) = if product.abs() > c.abs() {
        (product, c)
    } else {
        (c, product)
    };
    let sum = large + small;
    let rest = small - (sum - large);
    let even = sum.to_bits() & 1 == 0;
    if !sum.is_finite() || rest == 0.0 || !even {
        sum
    } else if rest > 0.0 {
        sum.next_up()
    } else {
        sum.next_down()
    }
}

#[test]
fn sums_and_products() {
    for format in FORMATS {
        let (read, round) = (format.read, format.round);
        let ops: [(&str, fn(f64, f64) -> f64); 3] = [
            ("add", |a, b| a + b),
            ("sub", |a, b| a - b),
            ("mul", |a, b| a * b),
        ];
        for (op, f) in ops {
            for word in ["", ".rn"] {
                both(format, &format!("{op}{word}"), 2, &|x| {
                    round(f(read(x[0]), read(x[1])))
                });
            }
            if format.name == "bf16" {
                continue;
            }
            both(format, &format!("{op}.ftz"), 2, &|x| {
                let value = f(format.flush(read(x[0])), format.flush(read(x[1])));
                round(format.flush(read(round(value))))
            });
            both(format, &format!("{op}.sat"), 2, &|x| {
                let value = f(read(x[0]), read(x[1]));
                round(if value > 0.0 { value.min(1.0) } else { 0.0 })
            });
        }
    }
}

#[test]
fn fused() {
    for format in FORMATS {
        let (read, round) = (format.read, format.round);
        let value = |x: &[u16]| fma(read(x[0]), read(x[1]), read(x[2]));
        both(format, "fma.rn", 3, &|x| round(value(x)));
        both(format, "fma.rn.relu", 3, &|x| {
            let value = value(x);
            if value.is_nan() {
                0x7fff
            } else if value > 0.0 {
                round(value)
            } else {
                0
            }
        });
        if format.name == "f16" {
            both(format, "fma.rn.sat", 3, &|x| {
                let value = value(x);
                round(if value > 0.0 { value.min(1.0) } else { 0.0 })
            });
            both(format, "fma.rn.ftz", 3, &|x| {
                let [a, b, c] = [0, 1, 2].map(|index| format.flush(read(x[index])));
                round(format.flush(read(round(fma(a, b, c)))))
            });
        }
    }
}

#[test]
fn signs_and_extremes() {
    for format in FORMATS {
        let (read, round) = (format.read, format.round);
        both(format, "abs", 1, &|x| x[0] & 0x7fff);
        both(format, "neg", 1, &|x| x[0] ^ 0x8000);
        let is_nan = |x: u16| read(x).is_nan();
        let extreme = |a: u16, b: u16, max: bool, nan: bool| {
            if is_nan(a) || is_nan(b) {
                return match (is_nan(a), is_nan(b)) {
                    (false, true) if !nan => a,
                    (true, false) if !nan => b,
                    _ => 0x7fff,
                };
            }
            if read(a).total_cmp(&read(b)).is_lt() != max {
                a
            } else {
                b
            }
        };
        for (op, max) in [("min", false), ("max", true)] {
            for (word, nan) in [("", false), (".NaN", true)] {
                both(format, &format!("{op}{word}"), 2, &|x| {
                    extreme(x[0], x[1], max, nan)
                });
                both(format, &format!("{op}{word}.xorsign.abs"), 2, &|x| {
                    let value = extreme(x[0] & 0x7fff, x[1] & 0x7fff, max, nan);
                    let sign = (x[0] ^ x[1]) & 0x8000;
                    if is_nan(value) { value } else { value | sign }
                });
            }
        }
        if format.name == "f16" {
            let flush = |x: u16| {
                if is_nan(x) {
                    x
                } else {
                    round(format.flush(read(x)))
                }
            };
            both(format, "abs.ftz", 1, &|x| flush(x[0] & 0x7fff));
            both(format, "neg.ftz", 1, &|x| flush(x[0] ^ 0x8000));
            both(format, "min.ftz", 2, &|x| {
                extreme(flush(x[0]), flush(x[1]), false, false)
            });
            both(format, "max.ftz.NaN", 2, &|x| {
                extreme(flush(x[0]), flush(x[1]), true, true)
            });
        }
    }
}
