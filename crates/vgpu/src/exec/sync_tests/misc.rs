//! Dependent grids, sleep, register pools, asynchronous stores.

use super::*;
use crate::exec::testing::load_error;

#[test]
fn registers_move_between_warps() {
    // 512 threads begin with 128 each; the second warpgroup's warps can only grow when the first
    // one's have shrunk.
    let body = |less: u32, more: u32| {
        format!(
            "    setp.lt.u32 %p0, %t, 256;
    @%p0 bra LESS;
    setmaxnreg.inc.sync.aligned.u32 {more};
    bra DONE;
LESS:
    setmaxnreg.dec.sync.aligned.u32 {less};
DONE:
    mov.u32 %r1, 1;
    st.global.u32 [%mine], %r1;"
        )
    };
    for seed in 0..5 {
        assert_eq!(clean(&body(40, 216), 512, seed), [1; 512]);
    }
    let report = complaint(&body(40, 224), 512, Kind::Deadlock);
    assert!(
        report.message.contains("setmaxnreg: 3072 registers wanted"),
        "{report}"
    );
    let report = complaint(&body(136, 216), 512, Kind::Undefined);
    assert!(report.message.contains("dec to 136 from 128"), "{report}");
}

#[test]
fn a_sleep_lets_time_pass() {
    let out = clean(
        "    mov.u64 %d1, %globaltimer;
WAIT:
    nanosleep.u32 500;
    mov.u64 %d2, %globaltimer;
    sub.s64 %d3, %d2, %d1;
    setp.lt.u64 %p0, %d3, 5000;
    @%p0 bra WAIT;
    mov.u32 %r1, 1;
    st.global.u32 [%mine], %r1;",
        32,
        1,
    );
    assert_eq!(out, [1; 32]);
}

#[test]
fn a_grid_that_depends_on_none_goes_on() {
    let out = clean(
        "    griddepcontrol.wait;
    griddepcontrol.launch_dependents;
    st.global.u32 [%mine], %t;",
        64,
        1,
    );
    assert_eq!(out, (0..64).collect::<Vec<u32>>());
}

/// Rank 1 sends to rank 0, which waits for `bytes` bytes and then reads.
fn send(store: &str, bytes: u32, wait: bool) -> (Vec<u32>, Vec<Outcome>) {
    let wait = if wait {
        "WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [smem+2048], 0;
    @!%p1 bra WAIT;"
    } else {
        ""
    };
    let body = format!(
        "    mov.u32 %r20, 5;
    mov.u32 %r21, 6;
    mov.u32 %r22, 7;
    mov.u32 %r23, 8;
    shl.b32 %r1, %t, 4;
    mov.u32 %r2, smem;
    add.u32 %r1, %r1, %r2;
    st.shared.v4.u32 [%r1], {{%r20, %r20, %r20, %r20}};
    setp.eq.u32 %p9, %t, 0;
    @%p9 mbarrier.init.shared.b64 [smem+2048], 1;
    @%p9 mbarrier.arrive.expect_tx.shared.b64 _, [smem+2048], {bytes};
    barrier.cluster.arrive; barrier.cluster.wait;
    mov.u32 %r3, %cluster_ctarank;
    setp.ne.u32 %p0, %r3, 0;
    @%p0 bra SEND;
    {wait}
    ld.shared.v2.u32 {{%r4, %r5}}, [%r1];
    mad.lo.u32 %r4, %r4, 100, %r5;
    st.global.u32 [%mine], %r4;
    bra END;
SEND:
    mapa.shared::cluster.u32 %r6, %r1, 0;
    add.u32 %r7, %r2, 2048;
    mapa.shared::cluster.u32 %r7, %r7, 0;
    {store}
END:
    barrier.cluster.arrive; barrier.cluster.wait;"
    );
    let mut outcomes = Vec::new();
    let mut first = Vec::new();
    for seed in 0..8 {
        let memory = Memory::new(1, true);
        let out = buffer(&memory, &[0_u32; 32]);
        let launch = Launch {
            blocks: [2, 1, 1],
            cluster: [2, 1, 1],
            seed,
            ..block(&memory, 32)
        };
        outcomes.push(launch.run(&kernel(&body), "k", &params(&[out.base()])));
        first = contents(&out);
    }
    (first, outcomes)
}

#[test]
fn stores_and_reductions_that_complete_transactions() {
    for (store, bytes, want) in [
        ("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r6], %r22, [%r7];", 4, 705),
        (
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%r6], {%r22, %r23}, [%r7];",
            8,
            708,
        ),
        (
            "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%r6], \
             {%r22, %r21, %r22, %r23}, [%r7];",
            16,
            706,
        ),
        (
            "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r6], \
             %r22, [%r7];",
            4,
            1205,
        ),
        (
            "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.inc.u32 [%r6], \
             %r22, [%r7];",
            4,
            605,
        ),
        (
            "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.dec.u32 [%r6], \
             %r22, [%r7];",
            4,
            405,
        ),
        (
            "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.xor.b32 [%r6], \
             %r22, [%r7];",
            4,
            205,
        ),
        (
            "mov.b64 %d1, {%r22, %r21};
    red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u64 [%r6], %d1, [%r7];",
            8,
            1211,
        ),
        (
            "neg.s32 %r22, %r22;
    red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.max.s32 [%r6], %r22, [%r7];",
            4,
            505,
        ),
    ] {
        let (out, outcomes) = send(store, 32 * bytes, true);
        for outcome in &outcomes {
            assert!(outcome.fault.is_none() && outcome.reports.is_empty(), "{store}: {outcome:#?}");
        }
        assert_eq!(out, [want; 32], "{store}");
        let (_, outcomes) = send(store, 32 * bytes + 4, true);
        let fault = outcomes[0].fault.as_ref().expect("bytes that never come");
        assert_eq!(fault.kind, Kind::TransactionCount);
        assert!(fault.message.contains("4 bytes outstanding"), "{fault}");
    }
}

#[test]
fn an_asynchronous_store_must_be_waited_for() {
    let store =
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r6], %r22, [%r7];";
    let (_, outcomes) = send(store, 128, false);
    for outcome in outcomes {
        assert!(
            outcome
                .reports
                .iter()
                .any(|report| report.kind == Kind::Race),
            "{outcome:?}"
        );
    }
    // The word and its mbarrier belong to different blocks.
    let mixed = store.replace("[%r7]", "[smem+2048]");
    let (_, outcomes) = send(&mixed, 128, true);
    let fault = outcomes[0].fault.as_ref().expect("a fault");
    assert_eq!(fault.kind, Kind::BarrierObject);
}

#[test]
fn what_is_not_in_the_isa_is_refused() {
    for (text, words) in [
        ("setmaxnreg.inc.sync.aligned.u32 250;", "multiple of 8"),
        ("setmaxnreg.inc.sync.aligned.u32 16;", "from 24"),
        ("griddepcontrol.start;", ".launch_dependents"),
        (
            "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b16 [%r1], %r2, [%r3];",
            "32 or 64",
        ),
        (
            "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.min.u64 [%r1], \
             %d2, [%r3];",
            "not in PTX",
        ),
    ] {
        let error = load_error(&kernel(text), "k");
        assert!(error.message.contains(words), "{text}: {error}");
    }
}
