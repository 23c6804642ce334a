//! Shuffles, votes, matches, reductions, elections.

use super::*;
use crate::exec::testing::load_error;

/// Words a lane: a value and two operands in, a result and a predicate out.
fn run_shuffle(mode: &str, words: &[[u32; 3]; 32]) -> Vec<[u32; 2]> {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &words.concat());
    let out = buffer(&memory, &[0_u32; 64]);
    let ptx = format!(
        ".version 8.5
.target sm_80
.address_size 64
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 %r<8>;
    .reg .b64 %d<8>;
    .reg .pred %p;
    ld.param.u64 %d0, [in];
    ld.param.u64 %d1, [out];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %d2, %r0, 12;
    add.s64 %d2, %d0, %d2;
    ld.global.u32 %r1, [%d2];
    ld.global.u32 %r2, [%d2+4];
    ld.global.u32 %r3, [%d2+8];
    shfl.sync.{mode}.b32 %r4|%p, %r1, %r2, %r3, 0xffffffff;
    selp.u32 %r5, 1, 0, %p;
    mul.wide.u32 %d3, %r0, 8;
    add.s64 %d3, %d1, %d3;
    st.global.u32 [%d3], %r4;
    st.global.u32 [%d3+4], %r5;
    ret;
}}
"
    );
    let outcome = Launch::new(&memory).run(&ptx, "k", &params(&[input.base(), out.base()]));
    assert!(
        outcome.fault.is_none() && outcome.reports.is_empty(),
        "{outcome:?}"
    );
    contents(&out)
}

/// The ISA's description, lane by lane in signed arithmetic.
fn model(mode: &str, words: &[[u32; 3]; 32], lane: i32) -> [u32; 2] {
    let [own, b, c] = words[lane as usize];
    let (b, clamp, segment) = ((b & 0x1f) as i32, (c & 0x1f) as i32, (c >> 8 & 0x1f) as i32);
    let highest = (lane & segment) | (clamp & !segment);
    let lowest = lane & segment;
    let (from, good) = match mode {
        "up" => (lane - b, lane - b >= highest),
        "down" => (lane + b, lane + b <= highest),
        "bfly" => (lane ^ b, (lane ^ b) <= highest),
        _ => (
            lowest | (b & !segment),
            (lowest | (b & !segment)) <= highest,
        ),
    };
    if good {
        [words[from as usize][0], 1]
    } else {
        [own, 0]
    }
}

#[test]
fn shuffles_do_what_the_isa_says() {
    let mut random = Random::new(7);
    for round in 0..40 {
        // Uniform operands, as compilers write them for each width, and arbitrary ones.
        let width = 1 << (round % 6);
        let offset = random.next() % 32;
        for mode in ["up", "down", "bfly", "idx"] {
            let words: [[u32; 3]; 32] = std::array::from_fn(|_| {
                let clamp = if mode == "up" { 0 } else { 31 };
                let (b, c) = match round % 2 {
                    0 => (offset, (32 - width) << 8 | clamp),
                    _ => (random.next(), random.next() & 0x1f1f),
                };
                [random.next(), b, c]
            });
            let got = run_shuffle(mode, &words);
            let want: Vec<[u32; 2]> = (0..32).map(|lane| model(mode, &words, lane)).collect();
            assert_eq!(got, want, "{mode} {words:?}");
        }
    }
}

#[test]
fn constant_operands_and_a_destination_that_is_the_source() {
    let sum = clean(
        "    mov.u32 %r1, %t;
    shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1;
    add.u32 %r1, %r1, %r2;
    shfl.sync.bfly.b32 %r2, %r1, 8, 31, -1;
    add.u32 %r1, %r1, %r2;
    shfl.sync.bfly.b32 %r2, %r1, 4, 31, -1;
    add.u32 %r1, %r1, %r2;
    shfl.sync.bfly.b32 %r2, %r1, 2, 31, -1;
    add.u32 %r1, %r1, %r2;
    shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;
    add.u32 %r1, %r1, %r2;
    shfl.sync.idx.b32 %r1, %r1, 3, 31, -1;
    st.global.u32 [%mine], %r1;",
        64,
        1,
    );
    let first = (0..32).sum::<u32>();
    assert_eq!(sum, [[first; 32], [first + 32 * 32; 32]].concat());
}

#[test]
fn votes_matches_and_reductions() {
    let out = clean(
        "    and.b32 %r1, %t, 3;
    setp.eq.u32 %p0, %r1, 0;
    vote.sync.ballot.b32 %r2, %p0, -1;
    vote.sync.any.pred %p1, %p0, -1;
    vote.sync.all.pred %p2, %p0, -1;
    vote.sync.uni.pred %p3, %p0, -1;
    vote.sync.all.pred %p4, !%p2, -1;
    match.any.sync.b32 %r3, %r1, -1;
    cvt.u64.u32 %d1, %w;
    match.all.sync.b64 %r4|%p5, %d1, -1;
    match.all.sync.b32 %r5|%p6, %r1, -1;
    redux.sync.add.u32 %r6, %t, -1;
    sub.s32 %r7, %t, 5;
    redux.sync.min.s32 %r8, %r7, -1;
    redux.sync.max.u32 %r9, %r7, -1;
    redux.sync.xor.b32 %r10, %t, -1;
    activemask.b32 %r11;
    selp.u32 %r12, 1, 0, %p1;
    selp.u32 %r13, 2, 0, %p2;
    selp.u32 %r14, 4, 0, %p3;
    selp.u32 %r15, 8, 0, %p4;
    selp.u32 %r16, 16, 0, %p5;
    selp.u32 %r17, 32, 0, %p6;
    or.b32 %r12, %r12, %r13;
    or.b32 %r12, %r12, %r14;
    or.b32 %r12, %r12, %r15;
    or.b32 %r12, %r12, %r16;
    or.b32 %r12, %r12, %r17;
    xor.b32 %r2, %r2, 0x11111111;
    or.b32 %r12, %r12, %r2;
    shr.u32 %r18, %r3, %r1;
    xor.b32 %r18, %r18, 0x11111111;
    or.b32 %r12, %r12, %r18;
    not.b32 %r19, %r4;
    or.b32 %r12, %r12, %r19;
    or.b32 %r12, %r12, %r5;
    not.b32 %r11, %r11;
    or.b32 %r12, %r12, %r11;
    add.s32 %r8, %r8, 5;
    sub.u32 %r8, %r8, %t;
    add.u32 %r8, %r8, %l;
    or.b32 %r12, %r12, %r8;
    or.b32 %r12, %r12, %r10;
    st.global.u32 [%mine], %r12;",
        32,
        1,
    );
    // any, not all, not uniform, all not, all equal warps, not all equal remainders; the rest cancels.
    assert_eq!(out, [1 | 8 | 16; 32]);
    let sums = clean(
        "    sub.s32 %r7, %t, 5;
    redux.sync.add.s32 %r1, %r7, -1;
    redux.sync.max.u32 %r2, %r7, -1;
    redux.sync.min.u32 %r3, %r7, -1;
    redux.sync.max.s32 %r4, %r7, -1;
    redux.sync.and.b32 %r5, %r7, -1;
    redux.sync.or.b32 %r6, %t, -1;
    setp.eq.u32 %p0, %l, 1;
    selp.u32 %r1, %r2, %r1, %p0;
    setp.eq.u32 %p0, %l, 2;
    selp.u32 %r1, %r3, %r1, %p0;
    setp.eq.u32 %p0, %l, 3;
    selp.u32 %r1, %r4, %r1, %p0;
    setp.eq.u32 %p0, %l, 4;
    selp.u32 %r1, %r5, %r1, %p0;
    setp.eq.u32 %p0, %l, 5;
    selp.u32 %r1, %r6, %r1, %p0;
    st.global.u32 [%mine], %r1;",
        32,
        1,
    );
    assert_eq!(sums[..6], [496 - 160, u32::MAX, 0, 26, 0, 31]);
}

#[test]
fn divergent_halves_meet_by_their_own_masks() {
    // Each half reduces in its own branch, then both together.
    let out = clean(
        "    setp.lt.u32 %p0, %l, 16;
    @%p0 bra LOW;
    redux.sync.add.u32 %r1, %t, 0xffff0000;
    bra DONE;
LOW:
    redux.sync.add.u32 %r1, %t, 0x0000ffff;
DONE:
    redux.sync.max.u32 %r2, %r1, -1;
    sub.u32 %r3, %r2, %r1;
    st.global.u32 [%mine], %r3;",
        32,
        3,
    );
    assert_eq!(out, [[256; 16], [0; 16]].concat());
    // Masks may differ at one instruction as long as they are disjoint.
    let tiles = clean(
        "    shr.u32 %r1, %l, 3;
    shl.b32 %r1, %r1, 3;
    mov.u32 %r2, 0xff;
    shl.b32 %r2, %r2, %r1;
    redux.sync.add.u32 %r3, %t, %r2;
    elect.sync %r4|%p0, %r2;
    selp.u32 %r5, 1000, 0, %p0;
    add.u32 %r3, %r3, %r5;
    st.global.u32 [%mine], %r3;",
        32,
        1,
    );
    let want = (0..32_u32).map(|t| (t / 8 * 64 + 28) + if t % 8 == 0 { 1000 } else { 0 });
    assert_eq!(tiles, want.collect::<Vec<_>>());
}

#[test]
fn a_short_warp_takes_part_with_the_lanes_it_has() {
    let out = clean(
        "    vote.sync.ballot.b32 %r1, 1, -1;
    elect.sync %r2|%p0, -1;
    add.u32 %r1, %r1, %r2;
    shfl.sync.down.b32 %r3, %t, 16, 31, -1;
    setp.eq.u32 %p1, %l, 0;
    @%p1 add.u32 %r1, %r1, 0;
    st.global.u32 [%mine], %r1;",
        40,
        1,
    );
    assert_eq!(out[32..], [0xff; 8]);
}

#[test]
fn undefined_values_are_found_where_they_matter() {
    // Lane 31 reads from a lane that does not exist; its value is stored.
    let body = "    shfl.sync.down.b32 %r1, %t, 8, 31, -1;
    st.global.u32 [%mine], %r1;";
    complaint(body, 48, Kind::UninitialisedRegister);
    // Of a lane that lives but was left out, the read itself is reported.
    let body = "    setp.ge.u32 %p0, %l, 16;
    @%p0 bra END;
    shfl.sync.down.b32 %r1, %t, 8, 31, 0xffff;
END:";
    let report = complaint(body, 32, Kind::WrongMask);
    assert!(
        report.message.contains("lane 8 reads from lane 16"),
        "{report}"
    );
}

#[test]
fn wrong_masks() {
    let outside = "    redux.sync.add.u32 %r1, %t, 0xffff;\n";
    let report = complaint(outside, 32, Kind::WrongMask);
    assert!(
        report.message.contains("lane 16 is not in the mask"),
        "{report}"
    );
    let overlapping = "    setp.lt.u32 %p0, %l, 16;
    selp.u32 %r2, 0x1ffff, 0xffff0000, %p0;
    redux.sync.add.u32 %r1, %t, %r2;";
    let report = complaint(overlapping, 32, Kind::WrongMask);
    assert!(
        report.message.contains("lane 16, which is in it"),
        "{report}"
    );
    // Lanes that are named and wait elsewhere.
    let never = "    setp.lt.u32 %p0, %l, 16;
    @%p0 bra LOW;
    bar.warp.sync -1;
    bra DONE;
LOW:
    vote.sync.ballot.b32 %r1, 1, -1;
DONE:";
    let report = complaint(never, 32, Kind::WrongMask);
    assert!(report.message.contains("which do not come"), "{report}");
    assert!(report.other.is_some());
    let undefined = "    redux.sync.add.u32 %r1, %t, %r9;\n";
    complaint(undefined, 32, Kind::UninitialisedRegister);
}

#[test]
fn lanes_meet_at_different_warp_barriers() {
    let exchange = |low: &str, high: &str| {
        format!(
            "    shl.b32 %r1, %l, 2;
    mov.u32 %r2, smem;
    add.u32 %r3, %r2, %r1;
    st.shared.u32 [%r3], %t;
    setp.lt.u32 %p0, %l, 16;
    @%p0 bra LOW;
    {high}
    bra DONE;
LOW:
    {low}
DONE:
    xor.b32 %r1, %r1, 64;
    add.u32 %r3, %r2, %r1;
    ld.shared.u32 %r4, [%r3];
    st.global.u32 [%mine], %r4;"
        )
    };
    let all = "bar.warp.sync -1;";
    for seed in 0..10 {
        let out = clean(&exchange(all, all), 32, seed);
        assert_eq!(out, (0..32).map(|lane| lane ^ 16).collect::<Vec<u32>>());
    }
    complaint(&exchange(all, ""), 32, Kind::WarpRace);
    // Of other masks they are no pair.
    complaint(&exchange("bar.warp.sync 0xffff;", all), 32, Kind::WarpRace);
}

#[test]
fn a_warp_barrier_orders_memory_and_a_vote_does_not() {
    let exchange = |sync: &str| {
        format!(
            "    shl.b32 %r1, %l, 2;
    mov.u32 %r2, smem;
    add.u32 %r2, %r2, %r1;
    st.shared.u32 [%r2], %t;
    {sync}
    xor.b32 %r1, %r1, 4;
    mov.u32 %r2, smem;
    add.u32 %r2, %r2, %r1;
    ld.shared.u32 %r3, [%r2];
    st.global.u32 [%mine], %r3;"
        )
    };
    let out = clean(&exchange("bar.warp.sync -1;"), 32, 1);
    assert_eq!(out, (0..32).map(|t| t ^ 1).collect::<Vec<u32>>());
    complaint(
        &exchange("vote.sync.any.pred %p0, 1, -1;"),
        32,
        Kind::WarpRace,
    );
}

#[test]
fn what_is_not_in_the_isa_is_refused() {
    for (text, words) in [
        ("shfl.down.b32 %r1, %r1, 1, 31;", ".sync"),
        ("vote.any.pred %p0, %p1;", ".sync"),
        ("redux.sync.min.f32 %r1, %r1, -1;", "sm_100"),
        ("redux.sync.and.u32 %r1, %r1, -1;", "not in PTX"),
        ("shfl.sync.left.b32 %r1, %r1, 1, 31, -1;", "mode"),
        ("match.any.sync.b32 %r1|%p0, %r1, -1;", "match.all"),
        ("elect.sync %r1, -1;", "d|p"),
        ("match.any.sync.b16 %r1, %r1, -1;", "b32"),
        ("vote.sync.ballot.pred %p0, %p1, -1;", "b32"),
    ] {
        let error = load_error(&kernel(text), "k");
        assert!(error.message.contains(words), "{text}: {error}");
    }
}
