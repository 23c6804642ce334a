//! `cvt`: integers against 128-bit ones, floating point against Rust's casts and the `half` crate.
//! The numbers module has the exhaustive tests; these are about the instruction's forms.

use half::{bf16, f16};

use super::{Pool, check, check_all, signed, wrap};

fn single(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn bits(value: f32) -> u64 {
    if value.is_nan() {
        0x7fff_ffff
    } else {
        value.to_bits().into()
    }
}

#[test]
fn between_integers_in_registers_of_every_width() {
    let pools = [(16, Pool::B16), (32, Pool::B32), (64, Pool::B64)];
    for (from_bits, from_sign) in [8, 16, 32, 64]
        .into_iter()
        .flat_map(|b| [(b, false), (b, true)])
    {
        for (to_bits, to_sign) in [8, 16, 32, 64]
            .into_iter()
            .flat_map(|b| [(b, false), (b, true)])
        {
            let name = |bits: u32, sign: bool| format!("{}{bits}", if sign { 's' } else { 'u' });
            let read = |x: u64, bits: u32, sign: bool| {
                let low = wrap(i128::from(x), bits);
                if sign {
                    signed(low, bits)
                } else {
                    i128::from(low)
                }
            };
            let pair = format!("{}.{}", name(to_bits, to_sign), name(from_bits, from_sign));
            for (width, pool) in pools.into_iter().filter(|(width, _)| *width >= from_bits) {
                for (out, _) in pools.into_iter().filter(|(out, _)| *out >= to_bits) {
                    // The register gets the result extended by the destination's sign.
                    check(&format!("cvt.{pair} %o0, %i0;"), &[pool], out, |x| {
                        let value = read(x[0], from_bits, from_sign);
                        wrap(read(wrap(value, to_bits), to_bits, to_sign), out)
                    });
                    let fits = from_bits < to_bits && (to_sign || !from_sign)
                        || from_bits == to_bits && from_sign == to_sign;
                    if fits || width != from_bits.max(16) {
                        continue;
                    }
                    check(&format!("cvt.sat.{pair} %o0, %i0;"), &[pool], out, |x| {
                        let value = read(x[0], from_bits, from_sign);
                        let (low, high) = if to_sign {
                            (-(1_i128 << (to_bits - 1)), (1_i128 << (to_bits - 1)) - 1)
                        } else {
                            (0, (1_i128 << to_bits) - 1)
                        };
                        wrap(value.clamp(low, high), out)
                    });
                }
            }
        }
    }
}

#[test]
fn integers_to_floating_point() {
    check("cvt.rn.f32.s32 %o0, %i0;", &[Pool::B32], 32, |x| {
        bits(x[0] as i32 as f32)
    });
    check("cvt.rn.f32.u32 %o0, %i0;", &[Pool::B32], 32, |x| {
        bits(x[0] as u32 as f32)
    });
    check("cvt.rn.f32.s64 %o0, %i0;", &[Pool::B64], 32, |x| {
        bits(x[0] as i64 as f32)
    });
    check("cvt.rn.f32.u64 %o0, %i0;", &[Pool::B64], 32, |x| {
        bits(x[0] as f32)
    });
    check("cvt.rn.f64.s32 %o0, %i0;", &[Pool::B32], 64, |x| {
        f64::from(x[0] as i32).to_bits()
    });
    check("cvt.rn.f64.u64 %o0, %i0;", &[Pool::B64], 64, |x| {
        (x[0] as f64).to_bits()
    });
    check("cvt.rn.f32.u8 %o0, %i0;", &[Pool::B32], 32, |x| {
        bits(x[0] as u8 as f32)
    });
    check("cvt.rn.f16.s16 %o0, %i0;", &[Pool::B16], 16, |x| {
        f16::from_f64(f64::from(x[0] as i16)).to_bits().into()
    });
    check("cvt.rn.bf16.u16 %o0, %i0;", &[Pool::B16], 16, |x| {
        bf16::from_f64(f64::from(x[0] as u16)).to_bits().into()
    });
    for (mode, up) in [("rz", false), ("rm", false), ("rp", true)] {
        check(
            &format!("cvt.{mode}.f32.u32 %o0, %i0;"),
            &[Pool::B32],
            32,
            |x| {
                let exact = x[0] as f64;
                let nearest = exact as f32;
                bits(match f64::from(nearest) - exact {
                    above if above > 0.0 && !up => nearest.next_down(),
                    below if below < 0.0 && up => nearest.next_up(),
                    _ => nearest,
                })
            },
        );
    }
}

#[test]
fn floating_point_to_integers() {
    let modes: [(&str, fn(f64) -> f64); 4] = [
        ("rni", f64::round_ties_even),
        ("rzi", f64::trunc),
        ("rmi", f64::floor),
        ("rpi", f64::ceil),
    ];
    for (mode, round) in modes {
        for pool in [Pool::F32, Pool::Plain] {
            let value = |x: &[u64]| round(single(x[0]).into());
            check(&format!("cvt.{mode}.s32.f32 %o0, %i0;"), &[pool], 32, |x| {
                value(x) as i32 as u32 as u64
            });
            check(&format!("cvt.{mode}.u32.f32 %o0, %i0;"), &[pool], 32, |x| {
                (value(x) as u32).into()
            });
            check(
                &format!("cvt.{mode}.ftz.s32.f32 %o0, %i0;"),
                &[pool],
                32,
                |x| {
                    let x = single(x[0]);
                    round(if x.is_subnormal() { 0.0 } else { x.into() }) as i32 as u32 as u64
                },
            );
            check(&format!("cvt.{mode}.s64.f32 %o0, %i0;"), &[pool], 64, |x| {
                if value(x).is_nan() {
                    1 << 63
                } else {
                    value(x) as i64 as u64
                }
            });
            check(&format!("cvt.{mode}.u64.f32 %o0, %i0;"), &[pool], 64, |x| {
                if value(x).is_nan() {
                    1 << 63
                } else {
                    value(x) as u64
                }
            });
            // A narrower result is clamped, and extended to its register.
            check(&format!("cvt.{mode}.s8.f32 %o0, %i0;"), &[pool], 32, |x| {
                value(x) as i8 as i32 as u32 as u64
            });
            check(&format!("cvt.{mode}.s32.f32 %o0, %i0;"), &[pool], 64, |x| {
                value(x) as i32 as i64 as u64
            });
            check(&format!("cvt.{mode}.f32.f32 %o0, %i0;"), &[pool], 32, |x| {
                bits(value(x) as f32)
            });
        }
        check(
            &format!("cvt.{mode}.s32.f64 %o0, %i0;"),
            &[Pool::F64],
            32,
            |x| {
                let value = round(f64::from_bits(x[0]));
                if value.is_nan() {
                    1 << 31
                } else {
                    value as i32 as u32 as u64
                }
            },
        );
        check(
            &format!("cvt.{mode}.s16.f16 %o0, %i0;"),
            &[Pool::F16],
            16,
            |x| round(f16::from_bits(x[0] as u16).to_f64()) as i16 as u16 as u64,
        );
    }
}

#[test]
fn between_floating_point() {
    check(
        "cvt.f64.f32 %o0, %i0;",
        &[Pool::F32],
        64,
        |x| match f64::from(single(x[0])) {
            nan if nan.is_nan() => 0xfff8_0000_0000_0000,
            value => value.to_bits(),
        },
    );
    check("cvt.rn.f32.f64 %o0, %i0;", &[Pool::F64], 32, |x| {
        bits(f64::from_bits(x[0]) as f32)
    });
    check("cvt.f32.f16 %o0, %i0;", &[Pool::F16], 32, |x| {
        bits(f16::from_bits(x[0] as u16).to_f32())
    });
    check("cvt.f32.bf16 %o0, %i0;", &[Pool::Bf16], 32, |x| {
        bits(bf16::from_bits(x[0] as u16).to_f32())
    });
    check("cvt.sat.f32.f32 %o0, %i0;", &[Pool::F32], 32, |x| {
        bits(if single(x[0]) > 0.0 {
            single(x[0]).min(1.0)
        } else {
            0.0
        })
    });
    let to_half = |x: f32| {
        if x.is_nan() {
            0x7fff
        } else {
            u64::from(f16::from_f32(x).to_bits())
        }
    };
    let to_brain = |x: f32| {
        if x.is_nan() {
            0x7fff
        } else {
            u64::from(bf16::from_f32(x).to_bits())
        }
    };
    for pool in [Pool::F32, Pool::Plain] {
        check("cvt.rn.f16.f32 %o0, %i0;", &[pool], 16, |x| {
            to_half(single(x[0]))
        });
        check("cvt.rn.bf16.f32 %o0, %i0;", &[pool], 16, |x| {
            to_brain(single(x[0]))
        });
        check("cvt.rn.relu.f16.f32 %o0, %i0;", &[pool], 16, |x| {
            let value = single(x[0]);
            if value <= 0.0 { 0 } else { to_half(value) }
        });
        check("cvt.rn.f16x2.f32 %o0, %i0, %i1;", &[pool; 2], 32, |x| {
            to_half(single(x[0])) << 16 | to_half(single(x[1]))
        });
        check("cvt.rn.bf16x2.f32 %o0, %i0, %i1;", &[pool; 2], 32, |x| {
            to_brain(single(x[0])) << 16 | to_brain(single(x[1]))
        });
        check(
            "cvt.rn.relu.bf16x2.f32 %o0, %i0, %i1;",
            &[pool; 2],
            32,
            |x| {
                let part = |x| {
                    if single(x) <= 0.0 {
                        0
                    } else {
                        to_brain(single(x))
                    }
                };
                part(x[0]) << 16 | part(x[1])
            },
        );
        check("cvt.rz.bf16x2.f32 %o0, %i0, %i1;", &[pool; 2], 32, |x| {
            let part = |x| if single(x).is_nan() { 0x7fff } else { x >> 16 };
            part(x[0]) << 16 | part(x[1])
        });
        check("cvt.rna.tf32.f32 %o0, %i0;", &[pool], 32, |x| {
            if single(x[0]).is_nan() {
                0x7fff_ffff
            } else {
                (x[0] + 0x1000) & !0x1fff & 0xffff_ffff
            }
        });
    }
}

#[test]
fn eight_bits() {
    // The value of a byte, from the formats' definitions.
    let value = |byte: u64, fraction: u32, bias: i32| {
        let exponent = (byte >> fraction & ((1 << (7 - fraction)) - 1)) as i32;
        let rest = (byte & ((1 << fraction) - 1)) as f32 / (1 << fraction) as f32;
        let magnitude = if exponent == 0 {
            rest * 2.0_f32.powi(1 - bias)
        } else {
            (1.0 + rest) * 2.0_f32.powi(exponent - bias)
        };
        if byte & 0x80 != 0 {
            -magnitude
        } else {
            magnitude
        }
    };
    // (name, fraction, bias, the bits of the largest number)
    for (name, fraction, bias, largest) in [("e4m3", 3, 7, 0x7e), ("e5m2", 2, 15, 0x7b)] {
        let nearest = |x: f32| {
            if x.is_nan() {
                return 0x7f;
            }
            // Beyond the largest number all are equally far in f32.
            let magnitude = x.abs().min(value(largest, fraction, bias));
            let distance = |byte: u64| (value(byte, fraction, bias) - magnitude).abs();
            let best = (0..=largest)
                .min_by(|&a, &b| {
                    // Of two neighbours equally near the even one.
                    distance(a)
                        .total_cmp(&distance(b))
                        .then((a & 1).cmp(&(b & 1)))
                })
                .unwrap_or(0);
            best | u64::from(x.is_sign_negative()) << 7
        };
        for (word, relu) in [("", false), (".relu", true)] {
            let part = |x: f32| {
                if relu && x.is_sign_negative() && !x.is_nan() {
                    0
                } else {
                    nearest(x)
                }
            };
            check(
                &format!("cvt.rn.satfinite{word}.{name}x2.f32 %o0, %i0, %i1;"),
                &[Pool::Plain, Pool::F32],
                16,
                |x| part(single(x[0])) << 8 | part(single(x[1])),
            );
            let body = format!("cvt.rn.satfinite{word}.{name}x2.f16x2 %o0, %i0;");
            check(&body, &[Pool::F16x2], 16, |x| {
                let half = |x: u64| f16::from_bits(x as u16).to_f32();
                part(half(x[0] >> 16)) << 8 | part(half(x[0]))
            });
            let body = format!("cvt.rn{word}.f16x2.{name}x2 %o0, %i0;");
            check(&body, &[Pool::B16], 32, |x| {
                let half = |byte: u64| {
                    let magnitude = byte & 0x7f;
                    let nan = magnitude > largest && !(name == "e5m2" && magnitude == 0x7c);
                    if nan {
                        return 0x7fff;
                    }
                    let value = f16::from_f32(value(byte, fraction, bias));
                    if relu && byte & 0x80 != 0 {
                        0
                    } else {
                        u64::from(value.to_bits())
                    }
                };
                half(x[0] >> 8) << 16 | half(x[0] & 0xff)
            });
        }
    }
}

#[test]
fn packed_integers() {
    let clamp = |x: u64, low: i128, high: i128| signed(x, 32).clamp(low, high);
    check(
        "cvt.pack.sat.s16.s32 %o0, %i0, %i1;",
        &[Pool::B32; 2],
        32,
        |x| {
            let part = |x| wrap(clamp(x, -0x8000, 0x7fff), 16);
            part(x[0]) << 16 | part(x[1])
        },
    );
    check(
        "cvt.pack.sat.u16.s32 %o0, %i0, %i1;",
        &[Pool::B32; 2],
        32,
        |x| {
            let part = |x| wrap(clamp(x, 0, 0xffff), 16);
            part(x[0]) << 16 | part(x[1])
        },
    );
    for (bits, sign) in [
        (2, false),
        (2, true),
        (4, false),
        (4, true),
        (8, false),
        (8, true),
    ] {
        let (low, high) = if sign {
            (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1)
        } else {
            (0, (1_i128 << bits) - 1)
        };
        let ty = if sign { "s" } else { "u" };
        let body = format!("cvt.pack.sat.{ty}{bits}.s32.b32 %o0, %i0, %i1, %i2;");
        check_all(&body, &[Pool::B32; 3], &[32], |x| {
            let part = |x| wrap(clamp(x, low, high), bits);
            vec![(x[2] << (2 * bits) | part(x[0]) << bits | part(x[1])) & 0xffff_ffff]
        });
    }
}
