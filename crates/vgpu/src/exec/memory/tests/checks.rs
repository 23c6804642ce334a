//! What is wrong with accesses, and what the reports say.

use super::{arguments, clean, kernel, outcome};
use crate::exec::testing::{Launch, buffer, contents, empty};
use crate::machine::Checks;
use crate::memory::Memory;
use crate::report::{Kind, Report};

fn fault(memory: &Memory, body: &str) -> Report {
    let input = buffer(memory, &[3_u32; 25]);
    let outcome = outcome(memory, body, &input, &input);
    outcome.fault.unwrap_or_else(|| panic!("{body}: no fault"))
}

#[test]
fn faults_name_address_bytes_allocation_and_thread() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[3_u32; 25]);
    let report = outcome(&memory, "ld.global.u32 %r9, [%d3];", &input, &input)
        .fault
        .expect("a fault");
    assert_eq!(report.kind, Kind::OutOfBounds);
    assert_eq!(report.site.thread, Some([25, 0, 0]));
    assert!(report.site.ptx.contains("ld.global.u32 %r9"));
    let end = input.base() + 100;
    for part in [
        "lane 25, 4 bytes".to_owned(),
        format!("{end:#x}"),
        "100-byte".to_owned(),
    ] {
        assert!(report.message.contains(&part), "{part}: {report}");
    }

    let report = outcome(
        &memory,
        "ld.global.v2.u32 {%r9, %r10}, [%d0+96];",
        &input,
        &input,
    )
    .fault
    .expect("a fault");
    assert_eq!(report.kind, Kind::OutOfBounds);
    let base = input.base();
    for part in [
        "lane 0, 8 bytes".to_owned(),
        format!("past the end of the 100-byte allocation at {base:#x} (offset 96)"),
    ] {
        assert!(report.message.contains(&part), "{part}: {report}");
    }
}

#[test]
fn the_whole_vector_must_be_aligned() {
    let memory = Memory::new(1, true);
    for (body, bytes) in [
        ("ld.global.u16 %h0, [%d0+1];", 2),
        ("ld.global.v2.u16 {%h0, %h1}, [%d0+2];", 4),
        ("st.global.v4.u32 [%d0+8], {%r0, %r0, %r0, %r0};", 16),
        ("ld.global.b128 %q0, [%d0+8];", 16),
        ("st.shared.u64 [sv+4], %d0;", 8),
        ("ld.local.u32 %r9, [lv+2];", 4),
        ("ld.param.u64 %d9, [p2+4];", 8),
        ("atom.global.add.u64 %d9, [%d0+4], 1;", 8),
        ("red.shared.add.u32 [sv+2], 1;", 4),
        ("ld.u32 %r9, [%d0+2];", 4),
    ] {
        let report = fault(&memory, body);
        assert_eq!(report.kind, Kind::Misaligned, "{body}: {report}");
        let part = format!("is not a multiple of {bytes}");
        assert!(report.message.contains(&part), "{report}");
    }
    let report = fault(&memory, "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d0+4];");
    assert!(
        report
            .message
            .contains("offset 4 of the 100-byte allocation"),
        "{report}"
    );
}

#[test]
fn every_space_has_bounds() {
    let memory = Memory::new(1, true);
    for body in [
        "ld.shared.u32 %r9, [sv+4096];",
        "st.shared.u32 [sv+-4], %r0;",
        "mov.u32 %r9, 0; st.shared.u32 [%r9], %r0;",
        "ld.local.u32 %r9, [lv+64];",
        "ld.local.u32 %r9, [lv+-4];",
        "ld.param.u32 %r9, [p2+16];",
        "ld.const.u32 %r9, [cv+16];",
        "mov.u64 %d9, 0; ld.u32 %r9, [%d9];",
        "mov.u64 %d9, 0; st.global.u32 [%d9], %r0;",
        "ld.const.u32 %r9, [%d0];",
        "atom.shared.add.u32 %r9, [sv+4096], 1;",
        "red.global.add.u32 [%d0+100], 1;",
        "mov.u64 %d9, lv; cvta.local.u64 %d9, %d9; ld.u8 %h0, [%d9+64];",
        "mov.u64 %d9, sv; cvta.shared.u64 %d9, %d9; st.u32 [%d9+4096], %r0;",
        "discard.global.L2 [%d0], 128;",
    ] {
        let report = fault(&memory, body);
        assert_eq!(report.kind, Kind::OutOfBounds, "{body}: {report}");
    }
}

#[test]
fn freed_memory_is_told_from_memory_that_never_was() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[3_u32; 25]);
    memory.free(input.base()).unwrap();
    for body in [
        "ld.global.u32 %r9, [%d0+8];",
        "st.u8 [%d0], %r0;",
        "red.global.inc.u32 [%d0], 1;",
    ] {
        let report = outcome(&memory, body, &input, &input)
            .fault
            .expect("a fault");
        assert_eq!(report.kind, Kind::UseAfterFree, "{body}: {report}");
        assert!(
            report.message.contains("allocation of 100 bytes"),
            "{report}"
        );
    }
}

#[test]
fn constants_cannot_be_written() {
    let memory = Memory::new(1, true);
    for body in [
        "mov.u64 %d9, cv; st.global.u32 [%d9], %r0;",
        "mov.u64 %d9, cv; cvta.const.u64 %d9, %d9; st.u32 [%d9], %r0;",
        "mov.u64 %d9, cv; atom.exch.b32 %r9, [%d9], 1;",
        "mov.u64 %d9, p2; cvta.param.u64 %d9, %d9; st.u32 [%d9], %r0;",
    ] {
        let report = fault(&memory, body);
        assert_eq!(report.kind, Kind::Undefined, "{body}: {report}");
        assert!(report.message.contains("read-only"), "{report}");
    }
}

#[test]
fn lanes_in_two_allocations_are_served() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[3_u32; 32]);
    let output = buffer(&memory, &[4_u32; 32]);
    // Odd lanes read the output, even ones the input; each writes where it read.
    let body = "and.b32 %r9, %r0, 1;
        setp.eq.u32 %p0, %r9, 0;
        selp.b64 %d10, %d3, %d4, %p0;
        ld.global.u32 %r10, [%d10];
        mad.lo.u32 %r10, %r10, 100, %r0;
        st.global.u32 [%d10], %r10;";
    clean(&memory, body, &input, &output);
    for lane in 0..32 {
        let even = lane % 2 == 0;
        let want = |mine: bool, old: u32| if mine { 100 * old + lane } else { old };
        assert_eq!(contents::<u32>(&input)[lane as usize], want(even, 3));
        assert_eq!(contents::<u32>(&output)[lane as usize], want(!even, 4));
    }
}

fn kinds(reports: &[Report]) -> Vec<Kind> {
    reports.iter().map(|report| report.kind).collect()
}

#[test]
fn reads_of_what_nobody_wrote_are_told_once() {
    let memory = Memory::new(1, true);
    let output = buffer(&memory, &[0_u32; 128]);
    for body in [
        "ld.global.u32 %r9, [%d3]; st.global.u32 [%d4], %r9;",
        "ld.global.u32 %r9, [%d0]; st.global.u32 [%d4], %r9;",
        "ld.global.v4.u32 {%r9, %r10, %r11, %r12}, [%d6]; st.global.u32 [%d4], %r12;",
        "ld.shared.u32 %r9, [sv+4]; st.global.u32 [%d4], %r9;",
        "ld.local.u8 %r9, [lv]; st.global.u32 [%d4], %r9;",
        "atom.global.add.u32 %r9, [%d3], 1; st.global.u32 [%d4], %r9;",
        "atom.shared.or.b32 %r9, [sv], 1; st.global.u32 [%d4], %r9;",
        "st.local.u8 [lv+1], %r0; ld.local.u16 %h0, [lv]; st.global.u16 [%d4], %h0;",
        "ld.u32 %r9, [%d3]; st.global.u32 [%d4], %r9;",
    ] {
        let input = empty(&memory, 512);
        let outcome = outcome(&memory, body, &input, &output);
        assert!(outcome.fault.is_none(), "{body}");
        assert_eq!(kinds(&outcome.reports), [Kind::UninitialisedRead], "{body}");
    }
    let input = empty(&memory, 512);
    input.write(0, &[1; 64]);
    let outcome = outcome(&memory, "ld.global.u32 %r9, [%d3];", &input, &output);
    assert_eq!(outcome.reports[0].site.thread, Some([16, 0, 0]));
    let message = &outcome.reports[0].message;
    assert!(message.contains("offset 64 of the 512-byte"), "{message}");
    assert!(message.contains("16 of the lanes"), "{message}");
}

#[test]
fn undefined_registers_are_told_where_they_reach_global_memory() {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 512);
    let output = buffer(&memory, &[0_u32; 128]);
    // %r20 is never set. In shared and local memory it makes bytes undefined, and only reading them
    // is told.
    for (body, want) in [
        (
            "st.global.u32 [%d4], %r20;",
            vec![Kind::UninitialisedRegister],
        ),
        ("st.u32 [%d4], %r20;", vec![Kind::UninitialisedRegister]),
        ("st.local.u32 [lv], %r20;", vec![]),
        (
            "mov.u64 %d9, lv; cvta.local.u64 %d9, %d9; st.u32 [%d9], %r20;",
            vec![],
        ),
        (
            "st.local.v2.u32 [lv], {%r0, %r20}; ld.local.u32 %r9, [lv]; st.global.u32 [%d4], %r9;",
            vec![],
        ),
        (
            "st.local.v2.u32 [lv], {%r0, %r20}; ld.local.u32 %r9, [lv+4]; st.global.u32 [%d4], %r9;",
            vec![Kind::UninitialisedRead],
        ),
        (
            "setp.lt.u32 %p0, %r0, 16; @%p0 mov.u32 %r20, 1;
             shl.b32 %r9, %r0, 2; mov.u32 %r10, sv; add.u32 %r10, %r10, %r9;
             st.shared.u32 [%r10], %r20; @%p0 ld.shared.u32 %r11, [%r10];
             @%p0 st.global.u32 [%d4], %r11;",
            vec![],
        ),
        (
            "setp.lt.u32 %p0, %r0, 16; @%p0 mov.u32 %r20, 1;
             shl.b32 %r9, %r0, 2; mov.u32 %r10, sv; add.u32 %r10, %r10, %r9;
             st.shared.u32 [%r10], %r20; ld.shared.u32 %r11, [%r10];
             st.global.u32 [%d4], %r11;",
            vec![Kind::UninitialisedRead],
        ),
        (
            "ld.global.u32 %r9, [%d21];",
            vec![Kind::UninitialisedRegister],
        ),
        (
            "red.shared.add.u32 [sv], %r20;",
            vec![Kind::UninitialisedRegister, Kind::UninitialisedRead],
        ),
    ] {
        let outcome = outcome(&memory, body, &input, &output);
        assert_eq!(kinds(&outcome.reports), want, "{body}");
    }
}

#[test]
fn checks_that_are_off_say_nothing() {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 512);
    let launch = Launch {
        checks: Checks::NONE,
        ..Launch::new(&memory)
    };
    let body = "ld.global.u32 %r9, [%d3]; st.global.u32 [%d4], %r20; st.shared.u32 [sv], %r0;
        ld.shared.u32 %r9, [sv]; ld.local.u32 %r9, [lv];";
    let outcome = launch.run(&kernel(body), "k", &arguments(&input, &input));
    assert_eq!((outcome.fault, outcome.reports), (None, vec![]));
}

#[test]
fn races_are_told_with_both_sides() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 64]);
    let launch = Launch {
        blocks: [2, 1, 1],
        threads: [64, 1, 1],
        ..Launch::new(&memory)
    };
    let run = |body: &str| {
        let outcome = launch.run(&kernel(body), "k", &arguments(&input, &input));
        assert!(outcome.fault.is_none(), "{body}");
        outcome.reports
    };
    let reports = run("st.global.u32 [%d3], %r0;");
    assert_eq!(kinds(&reports), [Kind::Race], "{reports:?}");
    let report = &reports[0];
    let other = report.other.as_ref().expect("the other side");
    assert_ne!(report.site.block, other.block);
    assert_eq!(report.site.thread, other.thread);
    assert_eq!(other.action, "write");
    assert!(other.ptx.contains("st.global.u32"));
    assert!(
        report.message.contains("of the 256-byte allocation"),
        "{report}"
    );

    let neighbour = "shl.b32 %r9, %r0, 2; mov.u32 %r10, sv; add.u32 %r10, %r10, %r9;
        st.shared.u32 [%r10], %r0; bar.sync 0; xor.b32 %r9, %r9, 128; mov.u32 %r11, sv;
        add.u32 %r11, %r11, %r9; ld.shared.u32 %r12, [%r11];";
    assert_eq!(run(neighbour), []);
    let reports = run(&neighbour.replace("bar.sync 0;", ""));
    // The other warp may not have written yet.
    assert!(kinds(&reports).contains(&Kind::Race), "{reports:?}");
    assert!(
        reports
            .iter()
            .any(|report| report.message.contains("of block ("))
    );

    assert_eq!(run("red.global.add.u32 [%d0], 1;"), []);
    assert_eq!(run("st.relaxed.gpu.global.u32 [%d0], 1;"), []);
    let reports = run("red.cta.global.add.u32 [%d0], 1;");
    assert_eq!(kinds(&reports), [Kind::Scope], "{reports:?}");
    let reports = run("st.local.u32 [lv], %r0; ld.local.u32 %r9, [lv]; ld.global.u32 %r9, [%d0];");
    assert_eq!(reports, []);
}

#[test]
fn mbarriers_are_not_data() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 64]);
    let launch = Launch {
        threads: [1, 1, 1],
        ..Launch::new(&memory)
    };
    for (access, want) in [
        ("st.shared.u32 [sv+4], 1;", vec![Kind::BarrierObject]),
        ("ld.shared.u64 %d9, [sv];", vec![Kind::BarrierObject]),
        ("red.shared.add.u32 [sv], 1;", vec![Kind::BarrierObject]),
        ("st.shared.u32 [sv+8], 1;", vec![]),
    ] {
        let body = format!("mbarrier.init.shared.b64 [sv], 1; {access}");
        let outcome = launch.run(&kernel(&body), "k", &arguments(&input, &input));
        assert_eq!(kinds(&outcome.reports), want, "{access}");
    }
}

#[test]
fn discarded_bytes_are_undefined() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 64]);
    let body = "setp.ne.u32 %p0, %r0, 0; @%p0 ret; ld.global.u32 %r9, [%d0+128];
        discard.global.L2 [%d0], 128; ld.global.u32 %r9, [%d0+128]; ld.global.u32 %r9, [%d0+124];";
    let outcome = outcome(&memory, body, &input, &input);
    assert_eq!(kinds(&outcome.reports), [Kind::UninitialisedRead]);
    assert!(outcome.reports[0].site.ptx.contains("+124"));
}
