//! Values, on whole numbers that all types hold exactly.

use super::*;
use Element::{Bf16, E4m3, E5m2, F16, F32, S8, S32, Tf32, U8};

#[test]
fn every_choice_of_types() {
    for (types, n) in [
        ([F32, Bf16, Bf16], 128),
        ([F32, F16, F16], 24),
        ([F16, F16, F16], 64),
        ([F32, Tf32, Tf32], 40),
        ([F32, E4m3, E5m2], 8),
        ([F16, E5m2, E4m3], 256),
        ([S32, S8, S8], 32),
        ([S32, U8, S8], 96),
    ] {
        for registers in [false, true] {
            for accumulate in [false, true] {
                Case {
                    registers,
                    accumulate,
                    ..Case::new(types, n)
                }
                .check();
            }
        }
    }
}

#[test]
fn every_layout_of_operands() {
    for swizzle in Swizzle::ALL {
        for left in [Major::K, Major::Mn] {
            for right in [Major::K, Major::Mn] {
                Case {
                    major: [left, right],
                    swizzle: [swizzle, swizzle],
                    ..Case::new([F32, Bf16, Bf16], 64)
                }
                .check();
            }
        }
        Case {
            swizzle: [swizzle, Swizzle::B64],
            ..Case::new([F32, E4m3, E4m3], 16)
        }
        .check();
    }
}

#[test]
fn negated_operands() {
    for negate in [[true, false], [false, true], [true, true]] {
        for registers in [false, true] {
            Case {
                negate,
                registers,
                ..Case::new([F32, F16, F16], 16)
            }
            .check();
        }
    }
}

#[test]
fn satfinite_limits_the_sum() {
    let case = Case {
        accumulate: true,
        ..Case::new([S32, S8, S8], 8)
    };
    let text = case
        .text()
        .replace(".s32.s8.s8", ".s32.s8.s8.satfinite")
        .replace("wgmma.fence", "mov.b32 %d0, 0x7fffffff;\nwgmma.fence");
    let (outcome, got) = case.run(&text, |_| {});
    assert!(
        outcome.fault.is_none() && outcome.reports.is_empty(),
        "{outcome:?}"
    );
    for (lane, bits) in got.iter().enumerate().take(THREADS) {
        let (row, col) = fragment_d(case.form())
            .place(lane as u32, 0, 0)
            .expect("an element");
        let sum = case.want(row, col) - case.added(row, col);
        let want = i32::MAX.saturating_add(sum);
        assert_eq!(*bits as i32, want, "lane {lane}");
    }
}

#[test]
fn operations_on_one_accumulator_follow_each_other() {
    let case = Case::new([F32, Bf16, Bf16], 32);
    let text = case.text();
    let start = text.find("wgmma.mma_async").expect("a product");
    let end = start + text[start..].find('\n').expect("a line") + 1;
    let product = text[start..end].to_owned();
    let thrice = format!("{product}wgmma.commit_group.sync.aligned;\n{product}{product}");
    let (outcome, got) = case.run(&text.replace(&product, &thrice), |_| {});
    assert!(
        outcome.fault.is_none() && outcome.reports.is_empty(),
        "{outcome:?}"
    );
    let want = case.spread(&fragment_d(case.form()), |row, col| {
        let sum = case.want(row, col) - case.added(row, col);
        case.added(row, col) + 3 * sum
    });
    assert!(got == want);
}

#[test]
fn two_groups_in_flight() {
    let case = Case::new([F32, Bf16, Bf16], 16);
    let text = case.text();
    let start = text.find("wgmma.mma_async").expect("a product");
    let end = start + text[start..].find('\n').expect("a line") + 1;
    let product = text[start..end].to_owned();
    // The second one goes to an accumulator of its own.
    let other = product.replace("%d", "%e");
    let pipelined = text
        .replace(
            &product,
            &format!("{product}wgmma.commit_group.sync.aligned;\n{other}"),
        )
        .replace(".reg .f32 %d", ".reg .f32 %e<8>;\n.reg .f32 %d")
        .replace(
            "wgmma.fence",
            "mov.f32 %e0, %d0;\nmov.f32 %e1, %d1;\nmov.f32 %e2, %d2;\n\
             mov.f32 %e3, %d3;\nmov.f32 %e4, %d4;\nmov.f32 %e5, %d5;\nmov.f32 %e6, %d6;\n\
             mov.f32 %e7, %d7;\nwgmma.fence",
        )
        .replace(
            "wait_group.sync.aligned 0;",
            "wait_group.sync.aligned 1;\n\
             add.f32 %d0, %d0, 0f3F800000;\nwgmma.wait_group.sync.aligned 0;\n\
             add.f32 %d0, %d0, %e0;\n",
        );
    let (outcome, got) = case.run(&pipelined, |_| {});
    assert!(
        outcome.fault.is_none() && outcome.reports.is_empty(),
        "{outcome:?}"
    );
    let want = case.spread(&fragment_d(case.form()), |row, col| {
        2 * case.want(row, col) + 1
    });
    assert_eq!(got[..THREADS], want[..THREADS]);
    // What the second group writes may not be touched after the first one's wait.
    let early = pipelined.replace("add.f32 %d0, %d0, 0f3F800000", "add.f32 %d0, %d0, %e0");
    let (outcome, _) = case.run(&early, |_| {});
    let kinds: Vec<_> = outcome.reports.iter().map(|report| report.kind).collect();
    assert_eq!(kinds, [crate::report::Kind::AsyncHazard]);
}
