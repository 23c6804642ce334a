//! Barriers of blocks and clusters.

use super::*;
use crate::exec::testing::load_error;

/// Threads hand their number to the thread a warp further on, through shared memory.
fn rotate(barrier: &str) -> String {
    format!(
        "    shl.b32 %r1, %t, 2;
    mov.u32 %r2, smem;
    add.u32 %r3, %r2, %r1;
    st.shared.u32 [%r3], %t;
    {barrier}
    mov.u32 %r4, %ntid.x;
    add.u32 %r5, %t, 32;
    rem.u32 %r5, %r5, %r4;
    shl.b32 %r5, %r5, 2;
    add.u32 %r6, %r2, %r5;
    ld.shared.u32 %r7, [%r6];
    st.global.u32 [%mine], %r7;"
    )
}

#[test]
fn barriers_of_every_form_order_the_block() {
    for seed in 0..12 {
        for form in [
            "bar.sync 0;",
            "bar.cta.sync 3, 128;",
            "barrier.sync 15;",
            "barrier.cta.sync.aligned 1, 128;",
            "mov.u32 %r20, 4; mov.u32 %r21, 128; barrier.sync %r20, %r21;",
            "setp.eq.u32 %p0, %t, 5; bar.red.or.pred %p1, 0, %p0;",
            "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;",
            "barrier.cluster.arrive; barrier.cluster.wait;",
        ] {
            let out = clean(&rotate(form), 128, seed);
            let want: Vec<u32> = (0..128).map(|t| (t + 32) % 128).collect();
            assert_eq!(out, want, "{form}");
        }
    }
}

#[test]
fn without_a_barrier_it_is_a_race() {
    for form in [
        "",
        "bar.warp.sync -1;",
        // Different barriers for the two halves of the block.
        "shr.u32 %r20, %t, 6; bar.sync %r20, 64;",
        "barrier.cluster.arrive.relaxed; barrier.cluster.wait;",
    ] {
        complaint(&rotate(form), 128, Kind::Race);
    }
}

#[test]
fn reductions() {
    let out = clean(
        "    setp.lt.u32 %p0, %t, 37;
    bar.red.popc.u32 %r1, 0, %p0;
    barrier.red.and.pred %p1, 1, 96, !%p0;
    barrier.red.or.aligned.pred %p2, 2, %p0;
    bar.red.and.pred %p3, 3, 1;
    selp.u32 %r2, 1000, 0, %p1;
    selp.u32 %r3, 2000, 0, %p2;
    selp.u32 %r4, 4000, 0, %p3;
    add.u32 %r1, %r1, %r2;
    add.u32 %r1, %r1, %r3;
    add.u32 %r1, %r1, %r4;
    st.global.u32 [%mine], %r1;",
        96,
        2,
    );
    assert_eq!(out, [6037; 96]);
}

#[test]
fn named_barriers_between_producers_and_consumers() {
    // Warp 0 fills a slot, warp 1 empties it, twenty times: full is barrier 1, empty barrier 2.
    let body = |arrive_empty: &str| {
        format!(
            "    mov.u32 %r1, smem;
    shl.b32 %r2, %l, 2;
    add.u32 %r1, %r1, %r2;
    mov.u32 %r3, 0;
    mov.u32 %r9, 0;
    setp.ne.u32 %p0, %w, 0;
    @%p0 bra CONSUMER;
PRODUCE:
    bar.sync 2, 64;
    add.u32 %r4, %r3, %l;
    st.shared.u32 [%r1], %r4;
    bar.arrive 1, 64;
    add.u32 %r3, %r3, 1;
    setp.lt.u32 %p1, %r3, 20;
    @%p1 bra PRODUCE;
    bra END;
CONSUMER:
    bar.arrive 2, 64;
CONSUME:
    bar.sync 1, 64;
    {arrive_empty}
    ld.shared.u32 %r5, [%r1];
    add.u32 %r9, %r9, %r5;
    setp.lt.u32 %p2, %r3, 19;
    bar.warp.sync -1;
    {}
    add.u32 %r3, %r3, 1;
    setp.lt.u32 %p1, %r3, 20;
    @%p1 bra CONSUME;
END:
    st.global.u32 [%mine], %r9;",
            if arrive_empty.is_empty() {
                "@%p2 bar.arrive 2, 64;"
            } else {
                ""
            }
        )
    };
    for seed in 0..20 {
        let out = clean(&body(""), 64, seed);
        let want: Vec<u32> = (0..32).map(|lane| 190 + 20 * lane).collect();
        assert_eq!(out[32..], want);
    }
    // The slot is given back before it was read.
    let early = "setp.lt.u32 %p2, %r3, 19; @%p2 bar.arrive 2, 64;";
    complaint(&body(early), 64, Kind::Race);
}

#[test]
fn threads_that_left_do_not_hold_up_a_barrier() {
    for seed in 0..10 {
        // Whole warps and single lanes leave before, while, and after others wait.
        let out = clean(
            "    setp.eq.u32 %p0, %w, 2;
    @%p0 exit;
    setp.eq.u32 %p0, %t, 5;
    @%p0 exit;
    bar.sync 0;
    mov.u32 %r1, 1;
    st.global.u32 [%mine], %r1;",
            100,
            seed,
        );
        assert_eq!(out.iter().sum::<u32>(), 100 - 32 - 1);
        // With a number of threads, the lanes that a warp does not have count as well.
        let out = clean(
            "    barrier.sync 1, 128;
    mov.u32 %r1, 1;
    st.global.u32 [%mine], %r1;",
            100,
            seed,
        );
        assert_eq!(out, [1; 100]);
    }
}

#[test]
fn an_unaligned_barrier_takes_threads_one_by_one() {
    for seed in 0..6 {
        let out = clean(
            "    setp.lt.u32 %p0, %l, 7;
    @%p0 bra FEW;
    barrier.sync 0;
    bra DONE;
FEW:
    barrier.sync 0;
DONE:
    mov.u32 %r1, 1;
    st.global.u32 [%mine], %r1;",
            64,
            seed,
        );
        assert_eq!(out, [1; 64]);
    }
}

#[test]
fn divergent_aligned_barriers() {
    let body = "    setp.lt.u32 %p0, %l, 7;
    @%p0 bra FEW;
    bar.sync 0;
    bra DONE;
FEW:
    bar.sync 0;
DONE:
    mov.u32 %r1, 1;";
    let report = complaint(body, 64, Kind::DivergentBarrier);
    assert!(report.message.contains("do not come"), "{report}");
    let other = report.other.expect("the other barrier");
    assert_ne!(report.site.ptx_line, other.ptx_line);
    // A lane that waits at the barrier behind the one it skipped.
    let skipped = "    setp.eq.u32 %p0, %l, 3;
    @%p0 bra SKIP;
    bar.sync 0;
SKIP:
    bar.sync 1;";
    complaint(skipped, 32, Kind::DivergentBarrier);
}

#[test]
fn mismatched_barriers() {
    let counts = "    setp.eq.u32 %p0, %w, 0;
    @%p0 bra FIRST;
    bar.sync 1, 64;
    bra DONE;
FIRST:
    bar.sync 1, 96;
DONE:
    mov.u32 %r1, 1;";
    let report = complaint(counts, 64, Kind::DivergentBarrier);
    assert!(report.message.contains("64 threads") && report.message.contains("96 threads"));
    assert_ne!(
        report.other.expect("the other site").ptx_line,
        report.site.ptx_line
    );
    let kinds = "    setp.eq.u32 %p0, %w, 0;
    @%p0 bra FIRST;
    bar.sync 1, 64;
    bra DONE;
FIRST:
    bar.red.or.pred %p1, 1, 64, %p0;
DONE:
    mov.u32 %r1, 1;";
    let report = complaint(kinds, 64, Kind::DivergentBarrier);
    assert!(report.message.contains("reduction"), "{report}");
    let ids = "    shr.u32 %r1, %t, 5;\n    bar.sync %r1, 64;\n";
    let report = complaint(ids, 64, Kind::DivergentBarrier);
    assert!(
        report
            .message
            .contains("barrier 0: 32 of 64 threads have arrived"),
        "{report}"
    );
    assert!(report.message.contains("barrier 1: 32 of 64"), "{report}");
    let lanes = "    and.b32 %r1, %l, 1;\n    bar.sync %r1, 32;\n";
    let report = complaint(lanes, 32, Kind::DivergentBarrier);
    assert!(
        report
            .message
            .contains("lanes of one warp at different barriers"),
        "{report}"
    );
}

#[test]
fn a_missing_arrival_is_a_deadlock_that_names_the_barrier() {
    let body = "    setp.eq.u32 %p0, %w, 3;
    @%p0 exit;
    bar.sync 1, 128;";
    let report = complaint(body, 128, Kind::Deadlock);
    assert!(
        report
            .message
            .contains("barrier 1: 96 of 128 threads have arrived"),
        "{report}"
    );
    assert!(report.message.contains("and 2 more like it"), "{report}");
    assert!(report.site.ptx.contains("bar.sync"), "{report}");
    let cluster = "    setp.eq.u32 %p0, %w, 0;
    @%p0 bra WAIT;
    bar.sync 0;
WAIT:
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;";
    let report = complaint(cluster, 64, Kind::Deadlock);
    assert!(
        report.message.contains("the cluster's barrier: 32 of 64"),
        "{report}"
    );
}

#[test]
fn too_many_arrivals() {
    let body = "    setp.lt.u32 %p0, %l, 16;
    @%p0 barrier.arrive 1, 64;
    barrier.arrive 1, 64;
    barrier.arrive 1, 64;";
    let report = complaint(body, 32, Kind::OverArrival);
    assert!(
        report.message.contains("80 arrivals at barrier 1"),
        "{report}"
    );
    complaint(
        "    barrier.cluster.arrive;\n    barrier.cluster.arrive;",
        32,
        Kind::OverArrival,
    );
    complaint("    barrier.cluster.wait;", 32, Kind::DivergentBarrier);
}

#[test]
fn numbers_out_of_range() {
    complaint(
        "    mov.u32 %r1, 16;\n    bar.sync %r1;",
        32,
        Kind::Undefined,
    );
    complaint(
        "    mov.u32 %r1, 48;\n    bar.sync 1, %r1;",
        32,
        Kind::DivergentBarrier,
    );
    for (text, words) in [
        ("bar.sync 16;", "barrier 16"),
        ("bar.sync 1, 40;", "multiple of 32"),
        ("bar.arrive 1;", "number of threads"),
        ("bar.red.xor.pred %p0, 1, %p1;", ".popc"),
        ("barrier.cluster.sync;", ".arrive or .wait"),
        ("bar.sync 1, 32, 3;", "one too many"),
    ] {
        let error = load_error(&kernel(text), "k");
        assert!(error.message.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_cluster_exchanges_through_its_shared_memory() {
    // Each block reads the word of the next block's thread, between two barriers.
    let body = |first: &str, last: &str| {
        format!(
            "    mov.u32 %r1, smem;
    shl.b32 %r2, %t, 2;
    add.u32 %r1, %r1, %r2;
    mov.u32 %r3, %cluster_ctarank;
    mul.lo.u32 %r4, %r3, 100;
    add.u32 %r4, %r4, %t;
    st.shared.u32 [%r1], %r4;
    {first}
    add.u32 %r5, %r3, 1;
    mov.u32 %r6, %cluster_nctarank;
    rem.u32 %r5, %r5, %r6;
    mapa.shared::cluster.u32 %r7, %r1, %r5;
    ld.shared::cluster.u32 %r8, [%r7];
    mov.u32 %r9, %ctaid.x;
    mov.u32 %r10, %ntid.x;
    mad.lo.u32 %r9, %r9, %r10, %t;
    mul.wide.u32 %d1, %r9, 4;
    add.s64 %d1, %out, %d1;
    st.global.u32 [%d1], %r8;
    {last}
    st.shared.u32 [%r1], %r8;"
        )
    };
    let run = |body: &str, seed| {
        let memory = Memory::new(1, true);
        let out = buffer(&memory, &[0_u32; 256]);
        let launch = Launch {
            blocks: [4, 1, 1],
            cluster: [4, 1, 1],
            seed,
            ..block(&memory, 64)
        };
        let outcome = launch.run(&kernel(body), "k", &params(&[out.base()]));
        (contents::<u32>(&out), outcome)
    };
    let sync = "barrier.cluster.arrive; barrier.cluster.wait;";
    for seed in 0..15 {
        let (out, outcome) = run(&body(sync, sync), seed);
        assert!(
            outcome.fault.is_none() && outcome.reports.is_empty(),
            "{outcome:?}"
        );
        let want = |i: u32| (i / 64 + 1) % 4 * 100 + i % 64;
        assert_eq!(out, (0..256).map(want).collect::<Vec<_>>());
    }
    for broken in [body("bar.sync 0;", sync), body(sync, "bar.sync 0;")] {
        let (_, outcome) = run(&broken, 1);
        assert!(
            outcome
                .reports
                .iter()
                .any(|report| report.kind == Kind::Race),
            "{outcome:?}"
        );
    }
}

#[test]
fn the_shared_memory_of_a_block_ends_with_it() {
    // Block 1 ends at once while block 0 looks at its memory again and again.
    let body = |end: &str| {
        format!(
            "    mov.u32 %r1, smem;
    st.shared.u32 [%r1], %t;
    barrier.cluster.arrive; barrier.cluster.wait;
    mov.u32 %r2, %cluster_ctarank;
    setp.ne.u32 %p0, %r2, 0;
    @%p0 bra END;
    mapa.shared::cluster.u32 %r3, %r1, 1;
    mov.u32 %r4, 0;
MORE:
    ld.shared::cluster.u32 %r5, [%r3];
    add.u32 %r4, %r4, 1;
    setp.lt.u32 %p1, %r4, 1000;
    @%p1 bra MORE;
END:
    {end}"
        )
    };
    let run = |body: &str| {
        let memory = Memory::new(1, true);
        let out = buffer(&memory, &[0_u32; 1]);
        let launch = Launch {
            blocks: [2, 1, 1],
            cluster: [2, 1, 1],
            ..block(&memory, 1)
        };
        let outcome = launch.run(&kernel(body), "k", &params(&[out.base()]));
        assert!(outcome.reports.is_empty(), "{outcome:?}");
        outcome.fault
    };
    let sync = "barrier.cluster.arrive; barrier.cluster.wait;";
    assert!(run(&body(sync)).is_none());
    let fault = run(&body("")).expect("a fault");
    assert_eq!(fault.kind, Kind::UseAfterFree);
    assert!(fault.message.contains("of rank 1, have exited"), "{fault}");
}

#[test]
fn arrivals_are_counted() {
    let (_, outcome) = run_seeded("    bar.sync 0;\n    bar.sync 0;", 128, 1);
    assert_eq!(outcome.counters.barrier_arrivals, 8);
}
