//! `setp` and `set` in all their forms.

use half::{bf16, f16};

use super::{Pool, check, check_all, signed};

const ORDERED: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
const UNORDERED: [&str; 6] = ["equ", "neu", "ltu", "leu", "gtu", "geu"];

/// The ordered comparison of an operator without its last `u`, or `None` for NaN.
fn holds(op: &str, order: Option<std::cmp::Ordering>) -> bool {
    let Some(order) = order else {
        return op == "nan" || UNORDERED.contains(&op);
    };
    match op {
        "num" => true,
        "nan" => false,
        "eq" | "equ" => order.is_eq(),
        "ne" | "neu" => order.is_ne(),
        "lt" | "ltu" | "lo" => order.is_lt(),
        "le" | "leu" | "ls" => order.is_le(),
        "gt" | "gtu" | "hi" => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn floats() -> Vec<&'static str> {
    [&ORDERED[..], &UNORDERED[..], &["num", "nan"]].concat()
}

/// `p`, `q` and the combinations with a third predicate.
fn setp(
    op: &str,
    ty: &str,
    inputs: [Pool; 2],
    order: &dyn Fn(&[u64]) -> Option<std::cmp::Ordering>,
) {
    let body = format!(
        "setp.{op}.{ty} %p0|%p1, %i0, %i1;\nsetp.ne.u32 %p2, %i2, 0;\n\
         setp.{op}.and.{ty} %p3|%p4, %i0, %i1, %p2;\nsetp.{op}.or.{ty} %p5|_, %i0, %i1, !%p2;\n\
         setp.{op}.xor.{ty} %p6, %i0, %i1, %p2;\nmov.b32 %o0, 0;\n\
         @%p0 or.b32 %o0, %o0, 1;\n@%p1 or.b32 %o0, %o0, 2;\n@%p3 or.b32 %o0, %o0, 4;\n\
         @%p4 or.b32 %o0, %o0, 8;\n@%p5 or.b32 %o0, %o0, 16;\n@%p6 or.b32 %o0, %o0, 32;"
    );
    check(&body, &[inputs[0], inputs[1], Pool::Below(2)], 32, |x| {
        let p = holds(op, order(x));
        let c = x[2] != 0;
        [p, !p, p && c, !p && c, p || !c, p ^ c]
            .iter()
            .enumerate()
            .fold(0, |all, (index, &bit)| all | u64::from(bit) << index)
    });
}

#[test]
fn integers() {
    for (bits, pool) in [(16, Pool::B16), (32, Pool::B32), (64, Pool::B64)] {
        for op in ORDERED {
            setp(op, &format!("u{bits}"), [pool; 2], &|x| {
                Some(x[0].cmp(&x[1]))
            });
            setp(op, &format!("s{bits}"), [pool; 2], &|x| {
                Some(signed(x[0], bits).cmp(&signed(x[1], bits)))
            });
        }
        for op in ["eq", "ne"] {
            setp(op, &format!("b{bits}"), [pool; 2], &|x| {
                Some(x[0].cmp(&x[1]))
            });
        }
        for op in ["lo", "ls", "hi", "hs"] {
            setp(op, &format!("u{bits}"), [pool; 2], &|x| {
                Some(x[0].cmp(&x[1]))
            });
        }
    }
}

#[test]
fn floating_point() {
    let single = |x: u64| f32::from_bits(x as u32);
    let flushed = |x: u64| {
        if single(x).is_subnormal() {
            0.0
        } else {
            single(x)
        }
    };
    for op in floats() {
        setp(op, "f32", [Pool::F32; 2], &|x| {
            single(x[0]).partial_cmp(&single(x[1]))
        });
        setp(op, "f64", [Pool::F64; 2], &|x| {
            f64::from_bits(x[0]).partial_cmp(&f64::from_bits(x[1]))
        });
        let body = format!("setp.{op}.ftz.f32 %p0, %i0, %i1;\nselp.u32 %o0, 1, 0, %p0;");
        check(&body, &[Pool::F32; 2], 32, |x| {
            holds(op, flushed(x[0]).partial_cmp(&flushed(x[1]))).into()
        });
    }
}

#[test]
fn sixteen_bits_and_pairs() {
    let formats: [(&str, Pool, Pool, fn(u64) -> f32); 2] = [
        ("f16", Pool::F16, Pool::F16x2, |x| {
            f16::from_bits(x as u16).to_f32()
        }),
        ("bf16", Pool::Bf16, Pool::Bf16x2, |x| {
            bf16::from_bits(x as u16).to_f32()
        }),
    ];
    for (name, alone, pair, read) in formats {
        for op in floats() {
            let order =
                |x: &[u64], shift: u32| read(x[0] >> shift).partial_cmp(&read(x[1] >> shift));
            let body = format!("setp.{op}.{name} %p0, %i0, %i1;\nselp.u32 %o0, 1, 0, %p0;");
            check(&body, &[alone; 2], 32, |x| holds(op, order(x, 0)).into());
            let body = format!(
                "setp.{op}.{name}x2 %p0|%p1, %i0, %i1;\nsetp.ne.u32 %p2, %i2, 0;\n\
                 setp.{op}.xor.{name}x2 %p3|%p4, %i0, %i1, %p2;\n\
                 selp.u32 %o0, 1, 0, %p0;\nselp.u32 %o1, 1, 0, %p1;\n\
                 selp.u32 %o2, 1, 0, %p3;\nselp.u32 %o3, 1, 0, %p4;"
            );
            check_all(&body, &[pair, pair, Pool::Below(2)], &[32; 4], |x| {
                let (low, high) = (holds(op, order(x, 0)), holds(op, order(x, 16)));
                let c = x[2] != 0;
                [low, high, low ^ c, high ^ c].map(u64::from).to_vec()
            });
        }
    }
    let flush = |x: u64| {
        if x & 0x7c00 == 0 {
            0.0
        } else {
            f16::from_bits(x as u16).to_f32()
        }
    };
    let body = "setp.gt.ftz.f16 %p0, %i0, %i1;\nselp.u32 %o0, 1, 0, %p0;";
    check(body, &[Pool::F16; 2], 32, |x| {
        (flush(x[0]) > flush(x[1])).into()
    });
}

#[test]
fn registers_of_truth() {
    let less = |x: &[u64]| signed(x[0], 32) < signed(x[1], 32);
    for (ty, width, truth) in [
        ("u32", 32, 0xffff_ffff),
        ("s32", 32, 0xffff_ffff),
        ("f32", 32, 0x3f80_0000),
        ("f16", 16, 0x3c00),
        ("bf16", 16, 0x3f80),
    ] {
        check(
            &format!("set.lt.{ty}.s32 %o0, %i0, %i1;"),
            &[Pool::B32; 2],
            width,
            |x| {
                if less(x) { truth } else { 0 }
            },
        );
        let body = format!("setp.ne.u32 %p0, %i2, 0;\nset.lt.and.{ty}.s32 %o0, %i0, %i1, !%p0;");
        check(&body, &[Pool::B32, Pool::B32, Pool::Below(2)], width, |x| {
            if less(x) && x[2] == 0 { truth } else { 0 }
        });
    }
    let single = |x: u64| f32::from_bits(x as u32);
    check("set.geu.u32.f32 %o0, %i0, %i1;", &[Pool::F32; 2], 32, |x| {
        if single(x[0]) < single(x[1]) {
            0
        } else {
            0xffff_ffff
        }
    });
    let half = |x: u64| f16::from_bits(x as u16).to_f32();
    check("set.ge.u16.f16 %o0, %i0, %i1;", &[Pool::F16; 2], 16, |x| {
        if half(x[0]) >= half(x[1]) { 0xffff } else { 0 }
    });
    for (ty, truth) in [("f16x2", 0x3c00), ("u32", 0xffff)] {
        check(
            &format!("set.eq.{ty}.f16x2 %o0, %i0, %i1;"),
            &[Pool::F16x2; 2],
            32,
            |x| {
                let part = |shift: u32| {
                    let equal = half(x[0] >> shift) == half(x[1] >> shift);
                    if equal { truth << shift } else { 0 }
                };
                part(16) | part(0)
            },
        );
    }
}
