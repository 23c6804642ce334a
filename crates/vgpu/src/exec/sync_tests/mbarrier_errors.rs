//! mbarriers that are used wrongly.

use super::mbarrier::inits;
use super::*;
use crate::exec::testing::load_error;

const WAIT: &str = "WAIT:
    mbarrier.try_wait.parity.shared.b64 %p1, [smem+2048], 0;
    @!%p1 bra WAIT;";

#[test]
fn a_missing_arrival_is_a_deadlock_that_says_what_is_outstanding() {
    // The fourth phase lacks one.
    let body = inits(&[3])
        + "    setp.ne.u32 %p0, %t, 0;
    @%p0 exit;
    mov.u32 %r1, 0;
    mov.u32 %r2, 0;
LOOP:
    mbarrier.arrive.shared.b64 _, [smem+2048];
    mbarrier.arrive.shared.b64 _, [smem+2048];
    setp.lt.u32 %p2, %r1, 3;
    @%p2 mbarrier.arrive.shared.b64 _, [smem+2048];
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p1, [smem+2048], %r2;
    @!%p1 bra WAIT;
    xor.b32 %r2, %r2, 1;
    add.u32 %r1, %r1, 1;
    bra LOOP;";
    let report = complaint(&body, 32, Kind::Deadlock);
    let words = "mbarrier at shared+3072: phase 3, 1 arrival and 0 bytes outstanding";
    assert!(report.message.contains(words), "{report}");
    assert!(report.site.ptx.contains("try_wait"), "{report}");
}

#[test]
fn bytes_that_never_come() {
    let late = |wait: &str| {
        inits(&[1])
            + "    mbarrier.complete_tx.shared.b64 [smem+2048], 1;
    setp.eq.u32 %p0, %t, 0;
    @%p0 mbarrier.arrive.expect_tx.shared.b64 _, [smem+2048], 64;\n"
            + wait
    };
    let report = complaint(&late(WAIT), 32, Kind::TransactionCount);
    let words = "phase 0, 0 arrivals and 32 bytes outstanding (64 bytes expected, 32 delivered)";
    assert!(report.message.contains(words), "{report}");
    // A loop of polls ends with the budget, and is explained likewise.
    complaint(
        &late(&WAIT.replace("try_wait", "test_wait")),
        32,
        Kind::TransactionCount,
    );
}

#[test]
fn a_suspended_wait_may_end_before_the_phase() {
    // Nobody looks at the result, which is mostly true.
    let body = inits(&[1])
        + "    setp.ne.u32 %p0, %l, 0;
    @%p0 bra END;
    setp.ne.u32 %p0, %w, 0;
    @%p0 bra READ;
    st.shared.u32 [smem], 7;
    mbarrier.arrive.shared.b64 _, [smem+2048];
    bra END;
READ:
    mbarrier.try_wait.parity.shared.b64 %p1, [smem+2048], 0;
    ld.shared.u32 %r1, [smem];
END:";
    let races = |seed| {
        let reports = complaints(&body, 64, seed);
        reports.iter().any(|report| report.kind == Kind::Race)
    };
    let count = (0..100).filter(|seed| races(*seed)).count();
    assert!((1..50).contains(&count), "{count} of 100 schedules race");
}

#[test]
fn more_bytes_than_were_expected() {
    let report = complaint(
        &(inits(&[1])
            + "    setp.ne.u32 %p0, %t, 0;
    @%p0 bra END;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem+2048], 16;
    mbarrier.complete_tx.shared.b64 [smem+2048], 24;
END:"),
        32,
        Kind::TransactionCount,
    );
    assert!(
        report
            .message
            .contains("24 bytes came where 16 were expected"),
        "{report}"
    );
    // In a phase that still waits for arrivals it may yet be made good, until the block ends.
    let report = complaint(
        &(inits(&[1])
            + "    setp.ne.u32 %p0, %t, 0;
    @%p0 bra END;
    mbarrier.complete_tx.shared.b64 [smem+2048], 24;
END:"),
        32,
        Kind::TransactionCount,
    );
    assert!(
        report.message.contains("at the end of the block"),
        "{report}"
    );
    let overflow = inits(&[1]) + "    mbarrier.expect_tx.shared.b64 [smem+2048], 100000;";
    complaint(&overflow, 32, Kind::TransactionCount);
}

#[test]
fn misuse() {
    let with = |counts: &[u32], rest: &str| inits(counts) + rest;
    for (body, kind, words) in [
        (
            with(&[16], "    mbarrier.arrive.shared.b64 _, [smem+2048], 3;"),
            Kind::OverArrival,
            "phase 0, 1 arrival and",
        ),
        (
            "    mbarrier.arrive.shared.b64 _, [smem];".to_owned(),
            Kind::BarrierObject,
            "mbarrier.init comes first",
        ),
        (
            "    mbarrier.try_wait.parity.shared.b64 %p1, [smem+8], 1;".to_owned(),
            Kind::BarrierObject,
            "no mbarrier at shared+1032",
        ),
        (
            with(&[1], "    mbarrier.inval.shared.b64 [smem+2056];"),
            Kind::BarrierObject,
            "no mbarrier",
        ),
        (
            with(&[1], "    @%p9 mbarrier.init.shared.b64 [smem+2048], 1;"),
            Kind::BarrierObject,
            "again without mbarrier.inval",
        ),
        (with(&[0], ""), Kind::BarrierObject, "0 arrivals"),
        (
            "    mbarrier.init.shared.b64 [smem+4], 1;".to_owned(),
            Kind::Misaligned,
            "multiple of 8",
        ),
        (
            "    mbarrier.init.shared.b64 [smem+4096], 1;".to_owned(),
            Kind::OutOfBounds,
            "past the end",
        ),
        (
            "    mbarrier.init.b64 [%out], 1;".to_owned(),
            Kind::BarrierObject,
            "not in shared memory",
        ),
        (
            with(
                &[1],
                "    @%p9 mbarrier.arrive.noComplete.shared.b64 %d1, [smem+2048], 1;",
            ),
            Kind::BarrierObject,
            ".noComplete completes",
        ),
        (
            with(
                &[1],
                "    mbarrier.test_wait.parity.shared.b64 %p1, [smem+2048], 2;",
            ),
            Kind::BarrierObject,
            "phase parity 2",
        ),
        (
            with(
                &[1],
                "    @!%p9 bra END;
    mbarrier.arrive.shared.b64 %d1, [smem+2048];
    mbarrier.arrive.shared.b64 _, [smem+2048];
    mbarrier.test_wait.shared.b64 %p1, [smem+2048], %d1;
END:",
            ),
            Kind::BarrierObject,
            "not of the current phase, 2",
        ),
        (
            with(&[1], "    mbarrier.arrive.shared.b64 _, [smem+2048], %r9;"),
            Kind::UninitialisedRegister,
            "never set",
        ),
    ] {
        let report = complaint(&body, 32, kind);
        assert!(report.message.contains(words), "{words}: {report}");
    }
}

#[test]
fn inval_under_those_who_wait() {
    let body = inits(&[2])
        + "    setp.eq.u32 %p0, %w, 0;
    @%p0 bra WAIT;
    nanosleep.u32 1000;
    nanosleep.u32 1000;
    nanosleep.u32 1000;
    setp.eq.u32 %p2, %l, 0;
    @%p2 mbarrier.inval.shared.b64 [smem+2048];
    exit;
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p1, [smem+2048], 0;
    @!%p1 bra WAIT;";
    let found = (0..20).flat_map(|seed| complaints(&body, 64, seed));
    let words: Vec<String> = found.map(|report| report.message).collect();
    assert!(
        words
            .iter()
            .any(|words| words.contains("inval while 32 threads wait")),
        "{words:?}"
    );
}

#[test]
fn what_is_not_in_the_isa_is_refused() {
    for (text, words) in [
        (
            "mbarrier.arrive.shared::cluster.b64 %d1, [%r1];",
            "gives no state",
        ),
        (
            "mbarrier.try_wait.parity.shared::cluster.b64 %p1, [%r1], 0;",
            "own block",
        ),
        ("mbarrier.arrive.expect_tx.shared.b64 _, [%r1];", "missing"),
        ("mbarrier.poke.shared.b64 [%r1];", "operation"),
        ("mbarrier.init.shared.b32 [%r1], 1;", ".b64"),
        ("mbarrier.arrive.acquire.cta.shared.b64 _, [%r1];", ".b64"),
    ] {
        let error = load_error(&kernel(text), "k");
        assert!(error.message.contains(words), "{text}: {error}");
    }
    let old =
        kernel("mbarrier.try_wait.parity.shared.b64 %p1, [%r1], 0;").replace("sm_90a", "sm_80");
    assert!(load_error(&old, "k").message.contains("sm_90"));
}
