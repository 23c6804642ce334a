//! mbarriers that are used rightly, and the races when they are not waited for.

use super::*;

/// Initialises mbarriers at `smem+2048`, 8 bytes apart, for these arrivals, and waits for the block.
pub(super) fn inits(counts: &[u32]) -> String {
    let inits: String = counts
        .iter()
        .enumerate()
        .map(|(index, count)| {
            format!(
                "    @%p9 mbarrier.init.shared.b64 [smem+{}], {count};\n",
                2048 + 8 * index
            )
        })
        .collect();
    format!("    setp.eq.u32 %p9, %t, 0;\n{inits}    bar.sync 0;\n")
}

/// What a ring of two slots between warp 0 and warp 1 is made of.
struct Ring {
    wait_empty: &'static str,
    arrive_full: &'static str,
    wait_full: &'static str,
    /// Before the slot is read, where it is wrong, and after.
    early_empty: &'static str,
    arrive_empty: &'static str,
}

const GOOD: Ring = Ring {
    wait_empty: "mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r11], %r6;",
    arrive_full: "mbarrier.arrive.shared::cta.b64 _, [%r10];",
    wait_full: "mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r10], %r7;",
    early_empty: "",
    arrive_empty: "mbarrier.arrive.shared::cta.b64 _, [%r11];",
};

impl Ring {
    /// `%r10` is the slot's full barrier, `%r11` its empty one; 25 rounds.
    fn body(&self) -> String {
        let Self {
            wait_empty,
            arrive_full,
            wait_full,
            early_empty,
            arrive_empty,
        } = self;
        format!(
            "{}    mov.u32 %r1, 0;
    mov.u32 %r9, 0;
    shl.b32 %r2, %l, 2;
LOOP:
    and.b32 %r3, %r1, 1;
    shl.b32 %r4, %r3, 7;
    mov.u32 %r5, smem;
    add.u32 %r4, %r4, %r5;
    add.u32 %r4, %r4, %r2;
    shl.b32 %r8, %r3, 3;
    add.u32 %r10, %r5, %r8;
    add.u32 %r11, %r10, 2064;
    add.u32 %r10, %r10, 2048;
    shr.u32 %r7, %r1, 1;
    and.b32 %r7, %r7, 1;
    xor.b32 %r6, %r7, 1;
    setp.ne.u32 %p0, %w, 0;
    @%p0 bra CONSUME;
EMPTY:
    {wait_empty}
    @!%p1 bra EMPTY;
    add.u32 %r12, %r1, %l;
    st.shared.u32 [%r4], %r12;
    {arrive_full}
    bra NEXT;
CONSUME:
    {wait_full}
    @!%p1 bra CONSUME;
    {early_empty}
    ld.shared.u32 %r12, [%r4];
    add.u32 %r9, %r9, %r12;
    {arrive_empty}
NEXT:
    add.u32 %r1, %r1, 1;
    setp.lt.u32 %p2, %r1, 25;
    @%p2 bra LOOP;
    st.global.u32 [%mine], %r9;",
            inits(&[32; 4])
        )
    }
}

#[test]
fn a_ring_goes_round_many_times() {
    let test = "mbarrier.test_wait.parity.acquire.cta.shared.b64 %p1, [%r10], %r7;";
    let hint = "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [%r10], %r7, 1000;";
    let release = "mbarrier.arrive.release.cta.shared::cta.b64 _, [%r10];";
    let state = "mbarrier.arrive.shared.b64 %d1, [%r10];";
    for seed in 0..15 {
        for (wait_full, arrive_full) in [
            (GOOD.wait_full, GOOD.arrive_full),
            (test, release),
            (hint, state),
        ] {
            let ring = Ring {
                wait_full,
                arrive_full,
                ..GOOD
            };
            let out = clean(&ring.body(), 64, seed);
            let want: Vec<u32> = (0..32).map(|lane| 300 + 25 * lane).collect();
            assert_eq!(out[32..], want);
        }
    }
}

#[test]
fn a_ring_with_a_mistake_is_a_race() {
    let unwaited = "setp.eq.u32 %p1, 0, 0;";
    for (name, ring) in [
        (
            "no wait for full",
            Ring {
                wait_full: unwaited,
                ..GOOD
            },
        ),
        (
            "no wait for empty",
            Ring {
                wait_empty: unwaited,
                ..GOOD
            },
        ),
        (
            "empty before it is read",
            Ring {
                early_empty: GOOD.arrive_empty,
                arrive_empty: "",
                ..GOOD
            },
        ),
        (
            "an arrival that does not release",
            Ring {
                arrive_full: "mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r10];",
                ..GOOD
            },
        ),
        (
            "a wait that does not acquire",
            Ring {
                wait_full: "mbarrier.try_wait.parity.relaxed.cta.shared.b64 %p1, [%r10], %r7;",
                ..GOOD
            },
        ),
    ] {
        let all = complaints(&ring.body(), 64, 1);
        assert!(
            all.iter().any(|report| report.kind == Kind::Race),
            "{name}: {all:#?}"
        );
    }
}

#[test]
fn an_mbarrier_must_be_known_before_it_is_used() {
    let body = inits(&[64]).replace("bar.sync 0;", "nanosleep.u32 100;")
        + "    bar.warp.sync -1;
    mbarrier.arrive.shared.b64 _, [smem+2048];";
    let found = (0..20).flat_map(|seed| complaints(&body, 64, seed));
    let kinds: Vec<Kind> = found.map(|report| report.kind).collect();
    assert!(
        kinds.contains(&Kind::Race) && kinds.contains(&Kind::BarrierObject),
        "{kinds:?}"
    );
}

#[test]
fn states_name_their_phase() {
    for seed in 0..8 {
        let out = clean(
            &(inits(&[64])
                + "    mov.u32 %r1, smem;
    mov.u32 %r3, 0;
    shl.b32 %r2, %t, 2;
    add.u32 %r2, %r1, %r2;
LOOP:
    st.shared.u32 [%r2], %r3;
    mbarrier.arrive.shared.b64 %d1, [%r1+2048];
WAIT:
    mbarrier.test_wait.shared.b64 %p1, [%r1+2048], %d1;
    @!%p1 bra WAIT;
    xor.b32 %r4, %t, 32;
    shl.b32 %r4, %r4, 2;
    add.u32 %r4, %r1, %r4;
    ld.shared.u32 %r5, [%r4];
    mbarrier.arrive.shared.b64 %d1, [%r1+2048];
TRY:
    mbarrier.try_wait.shared.b64 %p1, [%r1+2048], %d1;
    @!%p1 bra TRY;
    setp.ne.u32 %p2, %r5, %r3;
    @%p2 trap;
    add.u32 %r3, %r3, 1;
    setp.lt.u32 %p2, %r3, 10;
    @%p2 bra LOOP;
    st.global.u32 [%mine], %r3;"),
            64,
            seed,
        );
        assert_eq!(out, [10; 64]);
    }
}

#[test]
fn counts_that_change() {
    // Pending counts go down one arrival after the other; dropped arrivals are not expected again.
    let out = clean(
        &(inits(&[7])
            + "    setp.ne.u32 %p0, %t, 0;
    @%p0 bra END;
    mbarrier.arrive.noComplete.shared.b64 %d1, [smem+2048], 2;
    mbarrier.pending_count.b64 %r1, %d1;
    mbarrier.arrive_drop.noComplete.release.cta.shared.b64 %d2, [smem+2048], 3;
    mbarrier.pending_count.b64 %r2, %d2;
    mbarrier.arrive.shared::cta.b64 %d3, [smem+2048], 2;
    mbarrier.pending_count.b64 %r3, %d3;
    mbarrier.test_wait.shared.b64 %p1, [smem+2048], %d3;
    selp.u32 %r4, 1, 0, %p1;
    mbarrier.arrive_drop.shared.b64 %d4, [smem+2048];
    mbarrier.pending_count.b64 %r5, %d4;
    mbarrier.arrive.shared::cta.b64 %d5, [smem+2048], 3;
    mbarrier.arrive.shared.b64 %d6, [smem+2048];
    mbarrier.pending_count.b64 %r6, %d6;
    st.global.u32 [%out], %r1;
    st.global.u32 [%out+4], %r2;
    st.global.u32 [%out+8], %r3;
    st.global.u32 [%out+12], %r4;
    st.global.u32 [%out+16], %r5;
    st.global.u32 [%out+20], %r6;
    mbarrier.inval.shared.b64 [smem+2048];
    mbarrier.init.shared.b64 [smem+2048], 1;
END:"),
        32,
        1,
    );
    assert_eq!(out[..6], [7, 5, 2, 1, 4, 3]);
}

#[test]
fn transaction_bytes_hold_a_phase_open() {
    let out = clean(
        &(inits(&[1])
            + "    setp.ne.u32 %p0, %t, 0;
    @%p0 bra END;
    mov.u32 %r9, 0;
    mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [smem+2048], 16;
    mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %d1, [smem+2048], 48;
    mbarrier.test_wait.shared.b64 %p1, [smem+2048], %d1;
    selp.u32 %r1, 1, 0, %p1;
    mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [smem+2048], 8;
    mbarrier.complete_tx.shared::cluster.b64 [smem+2048], 32;
    mbarrier.test_wait.shared.b64 %p1, [smem+2048], %d1;
    selp.u32 %r2, 2, 0, %p1;
    mbarrier.complete_tx.shared.b64 [smem+2048], 8;
    mbarrier.test_wait.shared.b64 %p1, [smem+2048], %d1;
    selp.u32 %r3, 4, 0, %p1;
    add.u32 %r1, %r1, %r2;
    add.u32 %r1, %r1, %r3;
    st.global.u32 [%out], %r1;
END:"),
        32,
        1,
    );
    assert_eq!(out[0], 4);
}

#[test]
fn a_generic_address_names_an_mbarrier_too() {
    let out = clean(
        &(inits(&[32])
            + "    mov.u64 %d1, smem;
    cvta.shared.u64 %d1, %d1;
    mbarrier.arrive.b64 %d2, [%d1+2048];
WAIT:
    mbarrier.try_wait.b64 %p1, [%d1+2048], %d2;
    @!%p1 bra WAIT;
    mov.u32 %r1, 9;
    st.global.u32 [%mine], %r1;"),
        32,
        1,
    );
    assert_eq!(out, [9; 32]);
}

/// Rank 1 writes to rank 0's shared memory and arrives at rank 0's mbarrier.
fn remote(arrive: &str, wait: &str) -> String {
    format!(
        "{}    barrier.cluster.arrive; barrier.cluster.wait;
    mov.u32 %r1, smem;
    shl.b32 %r2, %t, 2;
    add.u32 %r1, %r1, %r2;
    mov.u32 %r3, %cluster_ctarank;
    setp.eq.u32 %p0, %r3, 0;
    @%p0 bra WAIT;
    mapa.shared::cluster.u32 %r4, %r1, 0;
    st.shared::cluster.u32 [%r4], %t;
    mov.u32 %r5, smem;
    mapa.shared::cluster.u32 %r5, %r5, 0;
    {arrive}
    bra END;
WAIT:
    {wait}
    @!%p1 bra WAIT;
    ld.shared.u32 %r6, [%r1];
    st.global.u32 [%mine], %r6;
END:
    barrier.cluster.arrive; barrier.cluster.wait;",
        inits(&[32])
    )
}

#[test]
fn arrivals_from_another_block() {
    let run = |body: &str, seed| {
        let memory = Memory::new(1, true);
        let out = buffer(&memory, &[0_u32; 32]);
        let launch = Launch {
            blocks: [2, 1, 1],
            cluster: [2, 1, 1],
            seed,
            ..block(&memory, 32)
        };
        let outcome = launch.run(&kernel(body), "k", &params(&[out.base()]));
        (contents::<u32>(&out), outcome)
    };
    let plain = "mbarrier.arrive.shared::cluster.b64 _, [%r5+2048];";
    let wide = "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r5+2048];";
    let narrow = "mbarrier.arrive.release.cta.shared::cluster.b64 _, [%r5+2048];";
    let wait = "mbarrier.try_wait.parity.shared::cta.b64 %p1, [smem+2048], 0;";
    let wait_wide = "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [smem+2048], 0;";
    let wait_narrow = "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p1, [smem+2048], 0;";
    for seed in 0..10 {
        for (arrive, wait) in [(plain, wait), (wide, wait_wide), (wide, wait)] {
            let (out, outcome) = run(&remote(arrive, wait), seed);
            assert!(
                outcome.fault.is_none() && outcome.reports.is_empty(),
                "{outcome:?}"
            );
            assert_eq!(out, (0..32).collect::<Vec<u32>>());
        }
    }
    for (arrive, wait) in [(narrow, wait_wide), (wide, wait_narrow)] {
        let (_, outcome) = run(&remote(arrive, wait), 1);
        assert!(
            outcome
                .reports
                .iter()
                .any(|report| report.kind == Kind::Race),
            "{outcome:?}"
        );
    }
}
