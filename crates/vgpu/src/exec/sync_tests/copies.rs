//! `cp.async`: late bytes, groups, and mbarriers.

use super::*;
use crate::exec::testing::load_error;

/// Runs a body whose `%out` is followed by 256 words of input, `1000 + i`, at `%d10`; `%r1` is the
/// thread's place in shared memory (16 bytes a thread), `%d11` in the input (likewise).
fn run_copy(body: &str, threads: u32, seed: u64) -> (Vec<u32>, Outcome) {
    let memory = Memory::new(1, true);
    let input: Vec<u32> = (1000..1256).collect();
    let input = buffer(&memory, &input);
    let out = buffer(&memory, &vec![0_u32; threads as usize]);
    let body = format!(
        "    mov.u64 %d10, {};
    shl.b32 %r0, %t, 4;
    mov.u32 %r1, smem;
    add.u32 %r1, %r1, %r0;
    cvt.u64.u32 %d11, %r0;
    add.s64 %d11, %d10, %d11;
{body}",
        input.base()
    );
    let launch = Launch {
        seed,
        ..block(&memory, threads)
    };
    let outcome = launch.run(&kernel(&body), "k", &params(&[out.base()]));
    (contents(&out), outcome)
}

fn clean_copy(body: &str, threads: u32, seed: u64) -> Vec<u32> {
    let (out, outcome) = run_copy(body, threads, seed);
    assert!(
        outcome.fault.is_none() && outcome.reports.is_empty(),
        "{outcome:#?}\n{body}"
    );
    out
}

fn kinds(body: &str, threads: u32, seed: u64) -> Vec<Kind> {
    let (_, outcome) = run_copy(body, threads, seed);
    outcome
        .reports
        .iter()
        .chain(&outcome.fault)
        .map(|report| report.kind)
        .collect()
}

#[test]
fn every_size_with_and_without_zeros() {
    for seed in 0..4 {
        for (copy, want) in [
            ("cp.async.ca.shared.global [%r1], [%d11], 4;", [1, 0, 0, 0]),
            (
                "cp.async.ca.shared.global.L2::128B [%r1], [%d11], 8;",
                [1, 1, 0, 0],
            ),
            ("cp.async.ca.shared.global [%r1], [%d11], 16;", [1, 1, 1, 1]),
            (
                "cp.async.cg.shared::cta.global [%r1], [%d11], 16, 16;",
                [1, 1, 1, 1],
            ),
            (
                "cp.async.cg.shared.global [%r1], [%d11], 16, 4;",
                [1, 2, 2, 2],
            ),
            (
                "mov.u32 %r9, 0; cp.async.cg.shared.global [%r1], [%d11], 16, %r9;",
                [2, 2, 2, 2],
            ),
            (
                "setp.eq.u32 %p3, 0, 0; cp.async.ca.shared.global [%r1], [%d11], 8, %p3;",
                [2, 2, 0, 0],
            ),
            (
                "setp.eq.u32 %p3, 1, 0;
    createpolicy.fractional.L2::evict_last.b64 %d9;
    cp.async.cg.shared.global.L2::cache_hint [%r1], [%d11], 16, %p3, %d9;",
                [1, 1, 1, 1],
            ),
        ] {
            for (word, want) in want.into_iter().enumerate() {
                let out = clean_copy(
                    &format!(
                        "    mov.u32 %r2, 7;
    st.shared.v4.u32 [%r1], {{%r2, %r2, %r2, %r2}};
    {copy}
    cp.async.wait_all;
    ld.shared.u32 %r3, [%r1+{}];
    st.global.u32 [%mine], %r3;",
                        4 * word
                    ),
                    32,
                    seed,
                );
                let expected = |t: u32| match want {
                    0 => 7,
                    1 => 1000 + 4 * t + word as u32,
                    _ => 0,
                };
                assert_eq!(
                    out,
                    (0..32).map(expected).collect::<Vec<_>>(),
                    "{copy}, word {word}"
                );
            }
        }
    }
}

#[test]
fn whoever_looks_too_early_sees_either_and_races() {
    let body = "    mov.u32 %r2, 7;
    st.shared.u32 [%r1], %r2;
    cp.async.ca.shared.global [%r1], [%d11], 4;
    cp.async.commit_group;
    nanosleep.u32 10;
    nanosleep.u32 10;
    ld.shared.u32 %r3, [%r1];
    cp.async.wait_group 0;
    st.global.u32 [%mine], %r3;";
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let (out, outcome) = run_copy(body, 64, seed);
        seen.extend(out.iter().map(|&value| value == 7));
        assert!(
            outcome
                .reports
                .iter()
                .any(|report| report.kind == Kind::Race),
            "{outcome:?}"
        );
    }
    assert_eq!(
        seen.len(),
        2,
        "old bytes under one schedule, new ones under another"
    );
}

#[test]
fn groups_arrive_in_order() {
    // Two stages: the older group is waited for while the younger one is under way.
    let body = |open: u32| {
        format!(
            "    mov.u32 %r9, 0;
    mov.u32 %r2, 0;
    mov.u32 %r5, %r1;
    cp.async.ca.shared.global [%r5], [%d11], 4;
    cp.async.commit_group;
LOOP:
    add.u32 %r2, %r2, 1;
    xor.b32 %r5, %r5, 2048;
    add.s64 %d11, %d11, 4;
    setp.lt.u32 %p1, %r2, 6;
    @%p1 cp.async.ca.shared.global [%r5], [%d11], 4;
    cp.async.commit_group;
    cp.async.wait_group {open};
    xor.b32 %r6, %r5, 2048;
    ld.shared.u32 %r3, [%r6];
    add.u32 %r9, %r9, %r3;
    @%p1 bra LOOP;
    st.global.u32 [%mine], %r9;"
        )
    };
    for seed in 0..20 {
        let out = clean_copy(&body(1), 32, seed);
        let want = |t: u32| 6 * (1000 + 4 * t) + 15;
        assert_eq!(out, (0..32).map(want).collect::<Vec<_>>());
    }
    assert!(kinds(&body(2), 32, 1).contains(&Kind::Race));
}

#[test]
fn a_wait_is_for_the_own_copies_only() {
    let body = |barrier: &str| {
        format!(
            "    cp.async.cg.shared.global [%r1], [%d11], 16;
    cp.async.wait_all;
    {barrier}
    xor.b32 %r2, %r1, 512;
    ld.shared.u32 %r3, [%r2];
    st.global.u32 [%mine], %r3;"
        )
    };
    for seed in 0..10 {
        let out = clean_copy(&body("bar.sync 0;"), 64, seed);
        assert_eq!(
            out,
            (0..64).map(|t| 1000 + 4 * (t ^ 32)).collect::<Vec<u32>>()
        );
    }
    assert!(kinds(&body(""), 64, 1).contains(&Kind::Race));
    // The barrier before the wait is of no use.
    let early = body("").replace("cp.async.wait_all;", "bar.sync 0;\n    cp.async.wait_all;");
    assert!(kinds(&early, 64, 1).contains(&Kind::Race));
}

#[test]
fn an_mbarrier_tells_of_copies() {
    let body = |arrive: &str, count: u32| {
        format!(
            "    setp.eq.u32 %p9, %t, 0;
    @%p9 mbarrier.init.shared.b64 [smem+2048], {count};
    bar.sync 0;
    cp.async.ca.shared.global [%r1], [%d11], 4;
    {arrive}
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p1, [smem+2048], 0;
    @!%p1 bra WAIT;
    xor.b32 %r2, %r1, 512;
    ld.shared.u32 %r3, [%r2];
    st.global.u32 [%mine], %r3;"
        )
    };
    let plain = "cp.async.mbarrier.arrive.shared.b64 [smem+2048];
    mbarrier.arrive.shared.b64 _, [smem+2048];";
    let noinc = "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [smem+2048];";
    for seed in 0..15 {
        for arrive in [plain, noinc] {
            let out = clean_copy(&body(arrive, 64), 64, seed);
            assert_eq!(
                out,
                (0..64).map(|t| 1000 + 4 * (t ^ 32)).collect::<Vec<u32>>()
            );
        }
    }
    let wrong = "mbarrier.arrive.shared.b64 _, [smem+2048];";
    assert!(kinds(&body(wrong, 64), 64, 1).contains(&Kind::Race));
    assert!(kinds(&body(noinc, 65), 64, 1).contains(&Kind::Deadlock));
    let twice = plain.replace("cp.async.mbarrier.arrive", "cp.async.mbarrier.arrive.noinc");
    let found = kinds(&body(&twice, 64), 64, 1);
    assert!(
        !found.is_empty(),
        "two arrivals a thread where one is expected"
    );
}

#[test]
fn addresses_are_checked_when_the_copy_is_issued() {
    for (copy, kind) in [
        (
            "cp.async.cg.shared.global [%r1], [%d11+4], 16;",
            Kind::Misaligned,
        ),
        (
            "cp.async.ca.shared.global [%r1+2], [%d11], 4;",
            Kind::Misaligned,
        ),
        (
            "cp.async.ca.shared.global [%r1+8192], [%d11], 4;",
            Kind::OutOfBounds,
        ),
        (
            "cp.async.ca.shared.global [%r1], [%d11+4096], 4;",
            Kind::OutOfBounds,
        ),
        (
            "mov.u32 %r9, 8; cp.async.ca.shared.global [%r1], [%d11], 4, %r9;",
            Kind::Undefined,
        ),
    ] {
        assert!(kinds(copy, 32, 1).contains(&kind), "{copy}");
    }
    // Nothing is read where the size is 0, so any address will do.
    let none = "cp.async.ca.shared.global [%r1], [%d11+4096], 4, 0;\n    cp.async.wait_all;";
    clean_copy(none, 32, 1);
}

#[test]
fn bytes_and_sectors_are_counted() {
    let (_, outcome) = run_copy("    cp.async.cg.shared.global [%r1], [%d11], 16, 8;", 32, 1);
    assert_eq!(outcome.counters.async_read_bytes, 256);
    assert_eq!(outcome.counters.async_read_sectors, 16);
}

#[test]
fn what_is_not_in_the_isa_is_refused() {
    for (text, words) in [
        (
            "cp.async.cg.shared.global [%r1], [%d1], 8;",
            "16 are possible",
        ),
        ("cp.async.ca.shared.global [%r1], [%d1], 2;", "4, 8 or 16"),
        ("cp.async.ca.global.shared [%d1], [%r1], 4;", ".shared"),
        ("cp.async.wait_group -1;", "not a number of groups"),
        ("cp.async.start;", "form"),
        (
            "cp.async.ca.shared.global [%r1], [%d1], 4, 4, %d2;",
            "one too many",
        ),
    ] {
        let error = load_error(&kernel(text), "k");
        assert!(error.message.contains(words), "{text}: {error}");
    }
}
