//! Mistakes, each of which is to be found.

use super::*;
use crate::report::Kind;

const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";

fn case() -> Case {
    Case::new([Element::F32, Element::Bf16, Element::Bf16], 16)
}

/// The kinds of report of a variant of the kernel.
fn kinds(change: impl FnOnce(String) -> String) -> Vec<Kind> {
    let case = case();
    let (outcome, _) = case.run(&change(case.text()), |_| {});
    assert!(outcome.fault.is_none(), "{outcome:?}");
    outcome.reports.iter().map(|report| report.kind).collect()
}

/// The fault of a variant of the kernel.
fn fault(change: impl FnOnce(String) -> String) -> crate::report::Report {
    let case = case();
    let (outcome, _) = case.run(&change(case.text()), |_| {});
    outcome.fault.expect("a fault")
}

#[test]
fn a_missing_fence() {
    let found = kinds(|text| text.replace("wgmma.fence.sync.aligned;", ""));
    assert_eq!(found, [Kind::AsyncHazard]);
    // A fence that is too early.
    let found = kinds(|text| {
        text.replace(
            "wgmma.fence.sync.aligned;",
            "wgmma.fence.sync.aligned;\nmov.f32 %d3, %d2;",
        )
    });
    assert_eq!(found, [Kind::AsyncHazard]);
}

#[test]
fn registers_touched_before_the_wait() {
    for touch in ["add.f32 %d1, %d1, %d1;", "st.global.f32 [%rd4], %d7;"] {
        let found = kinds(|text| text.replace(WAIT, &format!("{touch}\n{WAIT}")));
        assert_eq!(found, [Kind::AsyncHazard], "{touch}");
    }
    let found = kinds(|text| text.replace(WAIT, ""));
    assert_eq!(found, [Kind::AsyncHazard; 8][..found.len()]);
    assert!(!found.is_empty());
    let case = Case {
        registers: true,
        ..case()
    };
    let text = case
        .text()
        .replace(WAIT, &format!("mov.b32 %a2, 0;\n{WAIT}"));
    let (outcome, _) = case.run(&text, |_| {});
    assert_eq!(outcome.reports.len(), 1, "{outcome:?}");
    assert_eq!(outcome.reports[0].kind, Kind::AsyncHazard);
}

#[test]
fn a_stage_overwritten_before_the_wait() {
    let overwrite = "mov.u32 %s, tile;\nmov.u32 %v0, 0;\nmad.lo.u32 %s, %t, 64, %s;\n\
                     st.shared.u32 [%s], %v0;";
    let case = case();
    let early = case.text().replace(WAIT, &format!("{overwrite}\n{WAIT}"));
    let late = case.text().replace(WAIT, &format!("{WAIT}\n{overwrite}"));
    let right = case.run(&case.text(), |_| {}).1;
    let mut differs = false;
    for seed in 0..8 {
        let (outcome, got) = case.run(&early, |launch| launch.seed = seed);
        let reports = &outcome.reports;
        assert!(!reports.is_empty() && reports.iter().all(|report| report.kind == Kind::Race));
        assert!(
            reports[0].to_string().contains("wgmma.mma_async"),
            "{}",
            reports[0]
        );
        differs |= got != right;
        let (outcome, got) = case.run(&late, |launch| launch.seed = seed);
        assert!(outcome.reports.is_empty(), "{outcome:?}");
        assert!(got == right);
    }
    assert!(differs, "the values show it, too");
}

#[test]
fn a_missing_proxy_fence_or_barrier() {
    let found = kinds(|text| text.replace("fence.proxy.async.shared::cta;", ""));
    assert_eq!(found, [Kind::ProxyFence]);
    let found = kinds(|text| text.replace("bar.sync 0;", ""));
    assert!(
        found.contains(&Kind::Race) || found.contains(&Kind::ProxyFence),
        "{found:?}"
    );
}

#[test]
fn descriptors_that_lead_nowhere() {
    let fault =
        |change: &str| fault(|text| text.replace("wgmma.fence", &format!("{change}\nwgmma.fence")));
    for (change, words) in [
        ("mov.b64 %rd6, 0;", "byte offset is 0"),
        ("or.b64 %rd6, %rd6, 0x3ff8;", "outside the block's memory"),
        ("or.b64 %rd5, %rd5, 0x4000;", "reserved bits"),
        ("add.s64 %rd5, %rd5, 7;", "crosses the row's end"),
    ] {
        let found = fault(change);
        assert_eq!(found.kind, Kind::Descriptor, "{found}");
        assert!(found.message.contains(words), "{found}");
    }
    let found = fault("cvt.u64.u32 %rd8, %t;\nadd.s64 %rd5, %rd5, %rd8;");
    assert!(
        found.message.contains("lanes name other descriptors of A"),
        "{found}"
    );
}

#[test]
fn operands_that_nobody_wrote() {
    // Half of shared memory is filled; B begins in the other half.
    let found = kinds(|text| text.replace(&format!("%i, {SHARED_BYTES}"), "%i, 8192"));
    assert_eq!(found, [Kind::UninitialisedRead]);
    let found = kinds(|text| text.replace("ld.global.f32 %d5, [%rd2+2560];", ""));
    assert_eq!(found, [Kind::UninitialisedRegister]);
}

#[test]
fn warps_that_do_not_make_a_group() {
    let case = case();
    let (outcome, _) = case.run(&case.text(), |launch| launch.threads = [96, 1, 1]);
    let fault = outcome.fault.expect("a fault");
    assert!(fault.message.contains("fewer than four warps"), "{fault}");
    // One warp leaves out the product.
    let text = case.text().replace(
        "wgmma.fence",
        "setp.lt.u32 %p, %t, 32;\n@%p bra LEAVE;\nwgmma.fence",
    );
    let text = text.replace("ret;\n}", "LEAVE:\nret;\n}");
    let fault = case.run(&text, |_| {}).0.fault.expect("a fault");
    assert_eq!(fault.kind, Kind::Deadlock, "{fault}");
    assert!(fault.message.contains("wgmma.wait_group"), "{fault}");
    // One warp disagrees on a descriptor.
    let text = case.text().replace(
        "wgmma.fence",
        "setp.lt.u32 %p, %t, 32;\n@%p add.s64 %rd6, %rd6, 2;\nwgmma.fence",
    );
    let fault = case.run(&text, |_| {}).0.fault.expect("a fault");
    assert!(fault.message.contains("different wgmma"), "{fault}");
}

#[test]
fn what_cannot_be_is_refused_when_it_is_loaded() {
    use super::super::super::testing::load_error;
    let text = case().text();
    for (from, to, words) in [
        (".m64n16k16", ".m64n12k16", "multiple of 8"),
        (".target sm_90a", ".target sm_90", "sm_90a"),
        (", 1, 1, 0, 0;", ", 2, 1, 0, 0;", "imm-scale"),
        (", 1, 1, 0, 0;", ", 1, 1, 0, 2;", "imm-trans"),
        (", 1, 1, 0, 0;", ", 1, 1, 0, 0, 0;", "one too many"),
        (".f32.bf16.bf16 ", ".f32.bf16.bf16.satfinite ", ".satfinite"),
        ("mma_async.sync", "mma_async.sp.sync", "sparse"),
        (
            "wait_group.sync.aligned 0",
            "wait_group.sync.aligned -1",
            "0 at least",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let error = load_error(&text.replace(from, to), "k");
        assert!(error.message.contains(words), "{error}");
    }
}
