//! Moves, packing, selections, guards, and what is undefined.

use super::testing::{self, Launch};
use super::{Pool, check, check_all};
use crate::machine::Checks;
use crate::memory::Memory;
use crate::report::Kind;

#[test]
fn copies_and_constants() {
    check("mov.u16 %o0, %i0;", &[Pool::B16], 16, |x| x[0]);
    check("mov.b32 %o0, %i0;", &[Pool::B32], 32, |x| x[0]);
    check("mov.s64 %o0, %i0;", &[Pool::B64], 64, |x| x[0]);
    check("mov.u16 %o0, -2;", &[], 16, |_| 0xfffe);
    check("mov.s32 %o0, -2;", &[], 32, |_| 0xffff_fffe);
    check("mov.b64 %o0, -2;", &[], 64, |_| u64::MAX - 1);
    check("mov.f32 %o0, 0f3FC00000;", &[], 32, |_| 0x3fc0_0000);
    check("mov.f64 %o0, 1.5;", &[], 64, |_| 1.5_f64.to_bits());
    check("mov.u32 %o0, WARP_SZ;", &[], 32, |_| 32);
}

#[test]
fn packing() {
    check("mov.b32 %o0, {%i0, %i1};", &[Pool::B16; 2], 32, |x| {
        x[1] << 16 | x[0]
    });
    check("mov.b64 %o0, {%i0, %i1};", &[Pool::B32; 2], 64, |x| {
        x[1] << 32 | x[0]
    });
    check(
        "mov.b64 %o0, {%i0, %i1, %i2, %i3};",
        &[Pool::B16; 4],
        64,
        |x| x[3] << 48 | x[2] << 32 | x[1] << 16 | x[0],
    );
    check("mov.b32 %o0, {%i0, 7};", &[Pool::B16], 32, |x| {
        7 << 16 | x[0]
    });
    check_all("mov.b32 {%o0, %o1}, %i0;", &[Pool::B32], &[16; 2], |x| {
        vec![x[0] & 0xffff, x[0] >> 16]
    });
    check_all("mov.b64 {%o0, %o1}, %i0;", &[Pool::B64], &[32; 2], |x| {
        vec![x[0] & 0xffff_ffff, x[0] >> 32]
    });
    check_all(
        "mov.b64 {%o0, %o1, %o2, %o3}, %i0;",
        &[Pool::B64],
        &[16; 4],
        |x| (0..4).map(|part| x[0] >> (16 * part) & 0xffff).collect(),
    );
    check("mov.b64 {_, %o0}, %i0;", &[Pool::B64], 32, |x| x[0] >> 32);
    let body = "mov.b128 %q0, {%i0, %i1};\nmov.b128 %q1, %q0;\nmov.b128 {%o1, %o0}, %q1;";
    check_all(body, &[Pool::B64; 2], &[64; 2], |x| vec![x[1], x[0]]);
    // Bytes sit in registers of 8 bits.
    let body = ".reg .b8 %b<4>;\nmov.b32 {%b0, %b1, %b2, %b3}, %i0;\n\
                mov.b32 %o0, {%b3, %b2, %b1, %b0};\nmov.b16 %o1, {%b1, %b2};";
    check_all(body, &[Pool::B32], &[32, 16], |x| {
        vec![(x[0] as u32).swap_bytes().into(), x[0] >> 8 & 0xffff]
    });
    // A vector register is the list of its components.
    let body = ".reg .v2 .b32 %v;\nmov.b64 %v, %i0;\nadd.u32 %v.x, %v.x, 1;\nmov.b64 %o0, %v;";
    check(body, &[Pool::B64], 64, |x| {
        x[0] >> 32 << 32 | u64::from((x[0] as u32).wrapping_add(1))
    });
}

#[test]
fn selections() {
    for (bits, pool) in [(16, Pool::B16), (32, Pool::B32), (64, Pool::B64)] {
        let inputs = [pool, pool, Pool::B32];
        let body = format!("setp.lt.s32 %p0, %i2, 0;\nselp.b{bits} %o0, %i0, %i1, %p0;");
        let negative = |x: &[u64]| x[2] >> 31 == 1;
        check(
            &body,
            &inputs,
            bits,
            |x| if negative(x) { x[0] } else { x[1] },
        );
        let body = format!("setp.lt.s32 %p0, %i2, 0;\nselp.u{bits} %o0, %i0, 5, !%p0;");
        check(&body, &inputs, bits, |x| if negative(x) { 5 } else { x[0] });
        let body = format!("slct.s{bits}.s32 %o0, %i0, %i1, %i2;");
        check(
            &body,
            &inputs,
            bits,
            |x| if negative(x) { x[1] } else { x[0] },
        );
    }
    let float = |x: &[u64]| f32::from_bits(x[2] as u32);
    let inputs = [Pool::B32, Pool::B32, Pool::F32];
    check("slct.b32.f32 %o0, %i0, %i1, %i2;", &inputs, 32, |x| {
        if float(x) >= 0.0 { x[0] } else { x[1] }
    });
    check("slct.ftz.b32.f32 %o0, %i0, %i1, %i2;", &inputs, 32, |x| {
        if float(x) >= 0.0 || float(x).is_subnormal() {
            x[0]
        } else {
            x[1]
        }
    });
}

#[test]
fn guards_keep_the_lanes_that_are_off() {
    let body = "mov.u32 %r0, %laneid;\nsetp.lt.u32 %p0, %r0, 13;\nmov.b32 %o0, %i0;\n\
                mov.b64 %o1, %i1;\n@%p0 add.u32 %o0, %i0, 1;\n@!%p0 add.u64 %o1, %i1, 1;\n\
                @%p0 setp.eq.u32 %p0, %r0, 3;\nselp.u32 %o2, 1, 0, %p0;";
    let inputs = [Pool::B32, Pool::B64];
    let mut rng = crate::machine::Rng::new(3, 0);
    let rows: Vec<Vec<u64>> = (0..75)
        .map(|index| {
            inputs
                .iter()
                .map(|pool| pool.value(index, &mut rng))
                .collect()
        })
        .collect();
    let results = super::run(body, &inputs, &[32, 64, 32], &rows);
    for (index, (row, result)) in rows.iter().zip(results).enumerate() {
        let lane = index % 32;
        let first = lane < 13;
        let right = [
            if first {
                u64::from((row[0] as u32).wrapping_add(1))
            } else {
                row[0]
            },
            if first {
                row[1]
            } else {
                row[1].wrapping_add(1)
            },
            u64::from(lane == 3),
        ];
        assert_eq!(result, right, "lane {lane}");
    }
}

/// A kernel that stores 4 bytes of `%r0` for each thread.
fn stores(body: &str) -> String {
    format!(
        ".version 8.8\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 out) {{\n\
         .reg .pred %p<4>;\n.reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n\
         ld.param.u64 %rd0, [out];\nmov.u32 %r7, %tid.x;\nmad.wide.u32 %rd0, %r7, 4, %rd0;\n\
         {body}\nst.global.u32 [%rd0], %r0;\nret;\n}}\n"
    )
}

fn reports_of(body: &str) -> Vec<Kind> {
    let memory = Memory::new(1, true);
    let out = testing::empty(&memory, 128);
    let launch = Launch {
        checks: Checks::ALL,
        ..Launch::new(&memory)
    };
    let outcome = launch.run(&stores(body), "k", &testing::params(&[out.base()]));
    assert!(outcome.fault.is_none());
    outcome.reports.iter().map(|report| report.kind).collect()
}

#[test]
fn undefined_values_are_reported_where_they_are_stored() {
    assert_eq!(reports_of("mov.u32 %r0, 1;"), []);
    assert_eq!(
        reports_of("add.u32 %r0, %r1, 1;"),
        [Kind::UninitialisedRegister]
    );
    // Defined in some lanes only.
    let some = "setp.lt.u32 %p0, %r7, 5;\n@%p0 mov.u32 %r0, 1;";
    assert_eq!(reports_of(some), [Kind::UninitialisedRegister]);
    // What a selection does not choose may be undefined.
    let chosen = "mov.u32 %r1, 4;\nsetp.lt.u32 %p0, %r7, 64;\nselp.b32 %r0, %r1, %r2, %p0;";
    assert_eq!(reports_of(chosen), []);
    let other = chosen.replace("selp.b32 %r0, %r1, %r2", "selp.b32 %r0, %r2, %r1");
    assert_eq!(reports_of(&other), [Kind::UninitialisedRegister]);
    let unset_predicate = "selp.b32 %r0, 1, 2, %p3;";
    assert_eq!(reports_of(unset_predicate), [Kind::UninitialisedRegister]);
    let by_sign = "slct.b32.s32 %r0, %r7, %r2, %r7;";
    assert_eq!(reports_of(by_sign), []);
}
