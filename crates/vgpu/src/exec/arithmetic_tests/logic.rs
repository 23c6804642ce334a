//! Logic, shifts and permutations, bit by bit and byte by byte.

use super::{Pool, check, check_all, signed, wrap};

const WIDTHS: [(u32, Pool); 3] = [(16, Pool::B16), (32, Pool::B32), (64, Pool::B64)];

#[test]
fn bitwise() {
    for (bits, pool) in WIDTHS {
        let two = [pool; 2];
        check(&format!("and.b{bits} %o0, %i0, %i1;"), &two, bits, |x| {
            x[0] & x[1]
        });
        check(&format!("or.b{bits} %o0, %i0, %i1;"), &two, bits, |x| {
            x[0] | x[1]
        });
        check(&format!("xor.b{bits} %o0, %i0, %i1;"), &two, bits, |x| {
            x[0] ^ x[1]
        });
        check(&format!("not.b{bits} %o0, %i0;"), &[pool], bits, |x| {
            wrap(!i128::from(x[0]), bits)
        });
        check(&format!("cnot.b{bits} %o0, %i0;"), &[pool], bits, |x| {
            (x[0] == 0).into()
        });
        check(&format!("xor.b{bits} %o0, %i0, -1;"), &[pool], bits, |x| {
            wrap(!i128::from(x[0]), bits)
        });
    }
}

#[test]
fn predicates() {
    let body = "setp.ne.u32 %p0, %i0, 0;\nsetp.ne.u32 %p1, %i1, 0;\n\
                and.pred %p2, %p0, %p1;\nor.pred %p3, %p0, !%p1;\nxor.pred %p4, %p0, %p1;\n\
                not.pred %p5, %p0;\nmov.pred %p6, %p1;\n\
                selp.u32 %o0, 1, 0, %p2;\nselp.u32 %o1, 1, 0, %p3;\nselp.u32 %o2, 1, 0, %p4;\n\
                selp.u32 %o3, 1, 0, %p5;\nselp.u32 %o4, 1, 0, %p6;";
    check_all(body, &[Pool::Below(2); 2], &[32; 5], |x| {
        vec![x[0] & x[1], x[0] | (1 - x[1]), x[0] ^ x[1], 1 - x[0], x[1]]
    });
}

#[test]
fn every_table_of_three_operands() {
    for table in 0..256_u64 {
        let body = format!("lop3.b32 %o0, %i0, %i1, %i2, {table};");
        check(&body, &[Pool::B32; 3], 32, |x| {
            (0..32).fold(0, |all, bit| {
                let index = (x[0] >> bit & 1) * 4 + (x[1] >> bit & 1) * 2 + (x[2] >> bit & 1);
                all | (table >> index & 1) << bit
            })
        });
    }
    // a ^ b ^ c and a predicate that says whether something is left.
    for (op, join) in [
        ("or", (|p, q| p | q) as fn(u64, u64) -> u64),
        ("and", |p, q| p & q),
    ] {
        let body = format!(
            "setp.ne.u32 %p1, %i3, 0;\nlop3.{op}.b32 %o0|%p0, %i0, %i1, %i2, 0x96, %p1;\n\
             lop3.{op}.b32 _|%p2, %i0, %i1, %i2, 0x80, !%p1;\n\
             selp.u32 %o1, 1, 0, %p0;\nselp.u32 %o2, 1, 0, %p2;"
        );
        let inputs = [
            Pool::Below(2),
            Pool::Below(2),
            Pool::Below(2),
            Pool::Below(2),
        ];
        check_all(&body, &inputs, &[32; 3], |x| {
            let (odd, all) = (x[0] ^ x[1] ^ x[2], x[0] & x[1] & x[2]);
            vec![odd, join(odd, x[3]), join(all, 1 - x[3])]
        });
    }
}

#[test]
fn shifts() {
    for (bits, pool) in WIDTHS {
        let inputs = [pool, Pool::Below(70)];
        let by = |x: u64| x.min(u64::from(bits));
        check(&format!("shl.b{bits} %o0, %i0, %i1;"), &inputs, bits, |x| {
            wrap((u128::from(x[0]) << by(x[1])) as i128, bits)
        });
        for ty in ["b", "u"] {
            check(
                &format!("shr.{ty}{bits} %o0, %i0, %i1;"),
                &inputs,
                bits,
                |x| (u128::from(x[0]) >> by(x[1])) as u64,
            );
        }
        check(&format!("shr.s{bits} %o0, %i0, %i1;"), &inputs, bits, |x| {
            wrap(signed(x[0], bits) >> by(x[1]), bits)
        });
    }
    let inputs = [Pool::B32, Pool::B32, Pool::Below(70)];
    for (mode, wraps) in [("clamp", false), ("wrap", true)] {
        let by = move |x: u64| if wraps { x & 31 } else { x.min(32) };
        let both = |x: &[u64]| u128::from(x[1]) << 32 | u128::from(x[0]);
        check(
            &format!("shf.l.{mode}.b32 %o0, %i0, %i1, %i2;"),
            &inputs,
            32,
            |x| (both(x) << by(x[2]) >> 32) as u64 & 0xffff_ffff,
        );
        check(
            &format!("shf.r.{mode}.b32 %o0, %i0, %i1, %i2;"),
            &inputs,
            32,
            |x| (both(x) >> by(x[2])) as u64 & 0xffff_ffff,
        );
    }
}

#[test]
fn permutations_of_bytes() {
    let bytes = |x: &[u64]| [(x[0] as u32).to_le_bytes(), (x[1] as u32).to_le_bytes()].concat();
    let three = [Pool::B32; 3];
    check("prmt.b32 %o0, %i0, %i1, %i2;", &three, 32, |x| {
        let all = bytes(x);
        let pick = |i: u32| {
            let nibble = x[2] >> (4 * i) & 15;
            let byte = all[(nibble & 7) as usize];
            if nibble & 8 == 0 {
                byte
            } else if byte & 0x80 != 0 {
                0xff
            } else {
                0
            }
        };
        u32::from_le_bytes([0, 1, 2, 3].map(pick)).into()
    });
    // The tables of the ISA: for each value of the control bits the four selected bytes, highest
    // first.
    let modes: [(&str, [[usize; 4]; 4]); 6] = [
        (
            "f4e",
            [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]],
        ),
        (
            "b4e",
            [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]],
        ),
        ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
        (
            "ecl",
            [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]],
        ),
        (
            "ecr",
            [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]],
        ),
        (
            "rc16",
            [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]],
        ),
    ];
    for (mode, table) in modes {
        check(
            &format!("prmt.b32.{mode} %o0, %i0, %i1, %i2;"),
            &three,
            32,
            |x| {
                let all = bytes(x);
                let chosen = table[(x[2] & 3) as usize];
                chosen
                    .iter()
                    .fold(0, |word, &byte| word << 8 | u64::from(all[byte]))
            },
        );
    }
}
