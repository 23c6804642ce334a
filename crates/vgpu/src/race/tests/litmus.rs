//! Litmus programs: ordering by memory operations and barriers between warps.

use super::super::{Access, Kind, Space};
use super::rig::*;

const X: u64 = 0x1000;
const FLAG: u64 = 0x2000;
const OTHER: u64 = 0x3000;

#[test]
fn message_passing_needs_a_release_and_an_acquire() {
    for (release, acquire, met) in [
        (Release, Acquire, None),
        (Relaxed, Acquire, Some(Race)),
        (Release, Relaxed, Some(Race)),
        (Relaxed, Relaxed, Some(Race)),
    ] {
        let mut r = Rig::wide();
        assert_eq!(r.st(0, 0, X), None);
        assert_eq!(r.sts(0, release, Gpu, FLAG), None);
        assert_eq!(r.lds(1, acquire, Gpu, FLAG), None);
        assert_eq!(r.ld(1, 0, X), met, "{release:?} {acquire:?}");
    }
}

#[test]
fn a_weak_flag_is_itself_a_race() {
    let mut r = Rig::wide();
    r.st(0, 0, FLAG);
    assert_eq!(r.lds(1, Acquire, Sys, FLAG), Some(Race));
    let mut r = Rig::wide();
    r.sts(0, Release, Sys, FLAG);
    assert_eq!(r.ld(1, 0, FLAG), Some(Race));
}

#[test]
fn both_scopes_must_take_in_the_other_thread() {
    // The reader: same cluster, same device, another device; the scope from which on it works.
    for (reader, enough) in [(1, Cluster), (2, Gpu), (3, Sys)] {
        for release in [Cta, Cluster, Gpu, Sys] {
            for acquire in [Cta, Cluster, Gpu, Sys] {
                let mut r = Rig::wide();
                r.st(0, 0, X);
                r.sts(0, Release, release, FLAG);
                let good = release >= enough && acquire >= enough;
                let flag = r.lds(reader, Acquire, acquire, FLAG);
                assert_eq!(flag, (!good).then_some(InsufficientScope));
                assert_eq!(r.ld(reader, 0, X), (!good).then_some(Race));
            }
        }
    }
}

#[test]
fn a_narrow_release_is_seen_in_its_block_only() {
    // A release at .cta through a flag that is polled at .gpu: good within the block.
    let mut r = Rig::one_block();
    r.st(0, 0, X);
    r.sts(0, Release, Cta, FLAG);
    assert_eq!(r.lds(1, Acquire, Gpu, FLAG), None);
    assert_eq!(r.ld(1, 0, X), None);
}

#[test]
fn a_fence_and_a_relaxed_store_release() {
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.fence(0, Gpu);
    r.st(0, 0, OTHER);
    r.sts(0, Relaxed, Gpu, FLAG);
    r.lds(1, Acquire, Gpu, FLAG);
    assert_eq!(r.ld(1, 0, X), None);
    // After the fence: not released.
    assert_eq!(r.ld(1, 0, OTHER), Some(Race));
}

#[test]
fn a_relaxed_load_and_a_fence_acquire() {
    for fenced in [true, false] {
        let mut r = Rig::wide();
        r.st(0, 0, X);
        r.sts(0, Release, Gpu, FLAG);
        r.lds(1, Relaxed, Gpu, FLAG);
        if fenced {
            r.fence(1, Gpu);
        }
        assert_eq!(r.ld(1, 0, X), (!fenced).then_some(Race));
    }
}

#[test]
fn fences_have_scopes_and_their_order_matters() {
    // Too narrow, on either side.
    for (first, second, met) in [
        (Gpu, Gpu, None),
        (Cta, Gpu, Some(Race)),
        (Gpu, Cta, Some(Race)),
    ] {
        let mut r = Rig::wide();
        r.st(0, 0, X);
        r.fence(0, first);
        r.sts(0, Relaxed, Gpu, FLAG);
        r.lds(1, Relaxed, Gpu, FLAG);
        r.fence(1, second);
        assert_eq!(r.ld(1, 0, X), met, "{first:?} {second:?}");
    }
    // The fence before the load, or after the store, does nothing.
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Relaxed, Gpu, FLAG);
    r.fence(0, Gpu);
    r.fence(1, Gpu);
    r.lds(1, Acquire, Gpu, FLAG);
    assert_eq!(r.ld(1, 0, X), Some(Race));
}

#[test]
fn a_narrow_fence_does_not_use_up_what_a_wide_one_will_acquire() {
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Release, Sys, FLAG);
    r.lds(2, Relaxed, Sys, FLAG);
    r.fence(2, Cta);
    r.fence(2, Gpu);
    assert_eq!(r.ld(2, 0, X), None);
}

#[test]
fn store_buffering_orders_nothing() {
    // Each fences between its store and its load: no thread learns of the other's store.
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.fence(0, Gpu);
    r.st(1, 0, OTHER);
    r.fence(1, Gpu);
    assert_eq!(r.ld(0, 0, OTHER), Some(Race));
    assert_eq!(r.ld(1, 0, X), Some(Race));
    // With strong accesses it is a legal program.
    let mut r = Rig::wide();
    r.sts(0, Relaxed, Gpu, X);
    r.fence(0, Gpu);
    r.sts(1, Relaxed, Gpu, OTHER);
    r.fence(1, Gpu);
    assert_eq!(r.lds(0, Relaxed, Gpu, OTHER), None);
    assert_eq!(r.lds(1, Relaxed, Gpu, X), None);
}

#[test]
fn read_modify_writes_carry_a_release_on() {
    // 0 releases, 1 counts up relaxed, 2 acquires what 0 released.
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Release, Gpu, FLAG);
    assert_eq!(r.rmw(1, Relaxed, Gpu, FLAG), None);
    r.lds(2, Acquire, Gpu, FLAG);
    assert_eq!(r.ld(2, 0, X), None);
    // A plain store in between breaks the chain.
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Release, Gpu, FLAG);
    r.sts(1, Relaxed, Gpu, FLAG);
    r.lds(2, Acquire, Gpu, FLAG);
    assert_eq!(r.ld(2, 0, X), Some(Race));
    // So does a read-modify-write whose scope does not reach the writer.
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Release, Gpu, FLAG);
    assert_eq!(r.rmw(1, Relaxed, Cta, FLAG), Some(InsufficientScope));
    r.lds(2, Acquire, Gpu, FLAG);
    assert_eq!(r.ld(2, 0, X), Some(Race));
}

#[test]
fn a_counter_collects_the_releases_of_all() {
    // The last block to arrive reads what all of them wrote.
    for order in [AcqRel, Relaxed] {
        let mut r = Rig::wide();
        for w in 0..3 {
            r.st(w, 0, X + 64 * w as u64);
            assert_eq!(r.rmw(w, order, Gpu, FLAG), None);
        }
        for w in 0..2 {
            let met = (order == Relaxed).then_some(Race);
            assert_eq!(r.ld(2, 0, X + 64 * w), met);
        }
    }
}

#[test]
fn a_thread_s_own_later_strong_store_keeps_its_release() {
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Release, Gpu, FLAG);
    r.st(0, 0, OTHER);
    r.sts(0, Relaxed, Gpu, FLAG);
    r.lds(1, Acquire, Gpu, FLAG);
    assert_eq!(r.ld(1, 0, X), None);
    assert_eq!(r.ld(1, 0, OTHER), Some(Race));
}

#[test]
fn a_weak_store_over_a_flag_releases_nothing() {
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Release, Gpu, FLAG);
    r.st(0, 0, FLAG);
    r.lds(1, Acquire, Gpu, FLAG);
    assert_eq!(r.ld(1, 0, X), Some(Race));
}

#[test]
fn order_is_transitive_through_another_scope() {
    // 0 -> 1 within the cluster, 1 -> 2 within the device.
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Release, Cluster, FLAG);
    r.lds(1, Acquire, Cluster, FLAG);
    r.sts(1, Release, Gpu, OTHER);
    r.lds(2, Acquire, Gpu, OTHER);
    assert_eq!(r.ld(2, 0, X), None);
}

#[test]
fn independent_readers_learn_only_what_they_acquired() {
    // Two writers, two readers in opposite order: each knows what it has seen so far.
    let mut r = Rig::wide();
    for w in 0..2 {
        r.st(w, 0, X + 64 * w as u64);
        r.sts(w, Release, Sys, FLAG + 64 * w as u64);
    }
    r.lds(2, Acquire, Sys, FLAG);
    assert_eq!(r.ld(2, 0, X), None);
    assert_eq!(r.ld(2, 0, X + 64), Some(Race));
    r.lds(3, Acquire, Sys, FLAG + 64);
    assert_eq!(r.ld(3, 0, X + 64), None);
    assert_eq!(r.ld(3, 0, X), Some(Race));
}

#[test]
fn atomics_go_together_but_not_with_weak_accesses() {
    let mut r = Rig::wide();
    for w in 0..3 {
        assert_eq!(r.rmw(w, Relaxed, Gpu, X), None);
    }
    assert_eq!(r.rmw(3, Relaxed, Sys, X), Some(InsufficientScope));
    let mut r = Rig::wide();
    for w in 0..3 {
        r.rmw(w, Relaxed, Gpu, X);
    }
    assert_eq!(r.ld(2, 0, X), Some(Race));
    let mut r = Rig::wide();
    r.rmw(0, Relaxed, Gpu, X);
    assert_eq!(r.ld(0, 1, X), Some(IntraWarp));
}

#[test]
fn strong_accesses_of_different_size_race() {
    let mut r = Rig::wide();
    r.rmw(0, Relaxed, Gpu, X);
    let at = [X; 32];
    let half = word(Space::Global, Kind::Rmw, Relaxed, Gpu, 1, &at);
    assert_eq!(
        r.access(
            1,
            Access {
                bytes: 2,
                unit: 2,
                ..half
            }
        ),
        Some(Race)
    );
}

#[test]
fn an_old_weak_store_behind_a_strong_one_is_not_lost() {
    // The flag is cleared weakly by 0, then raised; 1 polls it and is ordered with neither.
    let mut r = Rig::wide();
    r.st(0, 0, FLAG);
    r.sts(0, Relaxed, Gpu, FLAG);
    assert_eq!(r.lds(1, Relaxed, Gpu, FLAG), Some(Race));
}

#[test]
fn barriers_order_and_their_absence_does_not() {
    for barrier in [true, false] {
        let mut r = Rig::one_block();
        assert_eq!(r.tile(0, Kind::Write, 0), None);
        if barrier {
            r.bar(&[0, 1]);
        }
        let met = (!barrier).then_some(Race);
        assert_eq!(r.tile(1, Kind::Read, 0), met);
    }
    // A read before a write needs one as well.
    for barrier in [true, false] {
        let mut r = Rig::one_block();
        r.tile(1, Kind::Read, 0);
        if barrier {
            r.bar(&[0, 1]);
        }
        let met = (!barrier).then_some(Race);
        assert_eq!(r.tile(0, Kind::Write, 0), met);
    }
}

#[test]
fn one_reader_among_many_is_enough() {
    // Three warps read; the writer is ordered after two of them.
    for missing in 0..4 {
        let mut r = Rig::of(&[0, 1, 2, 3].map(|w| warp(0, 0, 0, w)));
        for w in 0..3 {
            assert_eq!(r.tile(w, Kind::Read, 0), None);
        }
        let known: Vec<usize> = (0..4).filter(|w| *w != missing || *w == 3).collect();
        r.bar(&known);
        let met = (missing < 3).then_some(Race);
        assert_eq!(r.tile(3, Kind::Write, 0), met, "without {missing}");
    }
}

#[test]
fn two_named_barriers_do_not_order_their_users_with_each_other() {
    let mut r = Rig::of(&[0, 1, 2, 3].map(|w| warp(0, 0, 0, w)));
    r.tile(0, Kind::Write, 0);
    r.bar(&[0, 1]);
    r.bar(&[2, 3]);
    assert_eq!(r.tile(1, Kind::Read, 0), None);
    assert_eq!(r.tile(2, Kind::Read, 0), Some(Race));
}
