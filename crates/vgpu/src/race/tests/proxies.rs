//! Asynchronous operations and proxies.

use super::super::*;
use super::rig::*;

#[test]
fn a_copy_is_ordered_by_its_completion() {
    for waits in [true, false] {
        let mut r = Rig::one_block();
        let copy = r.spawn(0);
        assert_eq!(r.bulk(copy, Kind::Write, 0, 1024), None);
        let mut full = ScopedClock::default();
        r.d.agent_release_scoped(copy, Cluster, &mut full);
        r.d.agent_end(copy);
        if waits {
            r.d.acquire_scoped(r.w[1], ALL, Cta, &full);
        }
        assert_eq!(r.tile(1, Kind::Read, 512), (!waits).then_some(Race));
        // The issuing thread itself has to wait too.
        assert_eq!(r.tile(0, Kind::Read, 512), Some(Race));
    }
}

#[test]
fn operations_complete_in_any_order() {
    // Three copies; the third is known first, then the first. The second never is.
    let mut r = Rig::one_block();
    let copies: Vec<AgentId> = (0..3).map(|_| r.spawn(0)).collect();
    let mut full = vec![ScopedClock::default(); 3];
    for i in 0..3 {
        assert_eq!(r.bulk(copies[i], Kind::Write, 128 * i as u64, 128), None);
        r.d.agent_release_scoped(copies[i], Cluster, &mut full[i]);
    }
    r.d.acquire_scoped(r.w[1], ALL, Cta, &full[2]);
    assert_eq!(r.tile(1, Kind::Read, 256), None);
    assert_eq!(r.tile(1, Kind::Read, 0), Some(Race));
    r.d.acquire_scoped(r.w[1], ALL, Cta, &full[0]);
    assert_eq!(r.tile(1, Kind::Read, 0), None);
    assert_eq!(r.tile(1, Kind::Read, 128), Some(Race));
}

#[test]
fn operations_in_flight_conflict_with_each_other() {
    let mut r = Rig::one_block();
    let (a, b) = (r.spawn(0), r.spawn(0));
    r.bulk(a, Kind::Write, 0, 256);
    assert_eq!(r.bulk(b, Kind::Write, 256, 256), None);
    assert_eq!(r.bulk(b, Kind::Write, 192, 64), Some(Race));
    // Two readers do not.
    let (c, d) = (r.spawn(0), r.spawn(0));
    r.bulk(c, Kind::Read, 1024, 64);
    assert_eq!(r.bulk(d, Kind::Read, 1024, 64), None);
}

#[test]
fn generic_writes_need_a_proxy_fence_before_an_asynchronous_access() {
    #[derive(Debug, PartialEq)]
    enum Fence {
        Writer,
        Issuer,
        AfterBarrier,
        None,
    }
    for fence in [
        Fence::Writer,
        Fence::Issuer,
        Fence::AfterBarrier,
        Fence::None,
    ] {
        for kind in [Kind::Read, Kind::Write] {
            let mut r = Rig::one_block();
            r.tile(1, Kind::Write, 0);
            if fence == Fence::Writer {
                r.d.proxy_fence(r.w[1], ALL);
            }
            if fence == Fence::Issuer {
                // Before the barrier it does not know of the write.
                r.d.proxy_fence(r.w[0], ALL);
            }
            r.bar(&[0, 1]);
            if fence == Fence::AfterBarrier {
                r.d.proxy_fence(r.w[0], ALL);
            }
            let good = matches!(fence, Fence::Writer | Fence::AfterBarrier);
            let op = r.spawn(0);
            let met = (!good).then_some(MissingProxyFence);
            assert_eq!(r.bulk(op, kind, 0, 128), met, "{fence:?} {kind:?}");
        }
    }
}

#[test]
fn a_write_after_the_proxy_fence_is_not_covered() {
    let mut r = Rig::one_block();
    r.tile(0, Kind::Write, 0);
    r.d.proxy_fence(r.w[0], ALL);
    r.tile(0, Kind::Write, 128);
    r.d.warp_sync(r.w[0], ALL);
    let op = r.spawn(0);
    assert_eq!(r.bulk(op, Kind::Read, 0, 128), None);
    assert_eq!(r.bulk(op, Kind::Read, 128, 128), Some(MissingProxyFence));
}

#[test]
fn a_proxy_fence_of_one_lane_covers_what_that_lane_knows() {
    // Every lane writes; lane 0 fences and issues. Without a warp sync it knows its own word only.
    for sync in [true, false] {
        let mut r = Rig::one_block();
        r.tile(0, Kind::Write, 0);
        if sync {
            r.d.warp_sync(r.w[0], ALL);
        }
        r.d.proxy_fence(r.w[0], 1);
        let op = r.spawn(0);
        assert_eq!(r.bulk(op, Kind::Read, 0, 4), None);
        assert_eq!(r.bulk(op, Kind::Read, 4, 4), (!sync).then_some(Race));
    }
    // The fence by every lane, then the warp sync: the usual form.
    let mut r = Rig::one_block();
    r.tile(0, Kind::Write, 0);
    r.d.proxy_fence(r.w[0], ALL);
    r.d.warp_sync(r.w[0], ALL);
    let op = r.spawn(0);
    assert_eq!(r.bulk(op, Kind::Read, 0, 128), None);
}

#[test]
fn no_proxy_fence_is_needed_after_generic_reads_or_asynchronous_writes() {
    let mut r = Rig::one_block();
    let first = r.spawn(0);
    r.bulk(first, Kind::Write, 0, 128);
    let (mut full, mut empty) = (ScopedClock::default(), ScopedClock::default());
    r.d.agent_release_scoped(first, Cluster, &mut full);
    r.d.acquire_scoped(r.w[1], ALL, Cta, &full);
    assert_eq!(r.tile(1, Kind::Read, 0), None);
    r.d.release_scoped(r.w[1], ALL, Cta, &mut empty);
    r.d.acquire_scoped(r.w[0], ALL, Cta, &empty);
    let second = r.spawn(0);
    assert_eq!(r.bulk(second, Kind::Write, 0, 128), None);
}

/// A ring of stages, filled by copies and read by one warp, many times round. `empty` says whether
/// the consumer's arrival is waited for; `early` whether it arrives before it reads.
fn ring(rounds: u64, empty_wait: bool, early: bool) -> Option<(u64, ConflictKind)> {
    const STAGES: usize = 4;
    let mut r = Rig::one_block();
    let mut empty = vec![ScopedClock::default(); STAGES];
    for k in 0..rounds {
        let s = k as usize % STAGES;
        let at = 512 * s as u64;
        if empty_wait {
            r.d.acquire_scoped(r.w[0], 1, Cta, &empty[s]);
        }
        let copy = r.spawn(0);
        if let Some(kind) = r.bulk(copy, Kind::Write, at, 512) {
            return Some((k, kind));
        }
        let mut full = ScopedClock::default();
        r.d.agent_release_scoped(copy, Cluster, &mut full);
        r.d.agent_end(copy);
        r.d.acquire_scoped(r.w[1], ALL, Cta, &full);
        empty[s] = ScopedClock::default();
        if early {
            r.d.release_scoped(r.w[1], ALL, Cta, &mut empty[s]);
        }
        if let Some(kind) = r.tile(1, Kind::Read, at + 128) {
            return Some((k, kind));
        }
        if !early {
            r.d.release_scoped(r.w[1], ALL, Cta, &mut empty[s]);
        }
    }
    // Whatever the number of rounds.
    let mut known = Clock::default();
    r.d.release(r.w[1], ALL, &mut known);
    assert!(known.size() < 12, "{}", known.size());
    assert!(r.d.agents.len() == 1 && r.d.memory.histories.held() < 100);
    None
}

#[test]
fn a_slot_is_free_when_its_readers_have_arrived() {
    assert_eq!(ring(64, true, false), None);
    // Not waited for, or freed before it is read: seen once the ring wraps.
    assert_eq!(ring(64, false, false), Some((4, Race)));
    assert_eq!(ring(64, true, true), Some((4, Race)));
}

#[test]
fn a_hundred_thousand_operations_stay_small() {
    assert_eq!(ring(100_000, true, false), None);
}

#[test]
fn a_lane_waits_for_its_own_copies_only() {
    for sync in [true, false] {
        let mut r = Rig::one_block();
        let w = r.w[0];
        let at: [u64; 32] = std::array::from_fn(|l| 16 * l as u64);
        let write = word(SHARED, Kind::Write, Order::Weak, Cta, ALL, &at);
        let write = Access {
            bytes: 16,
            unit: 16,
            ..write
        };
        let ticket = r.d.copy(w);
        assert_eq!(r.d.copy_access(w, ticket, &write), None);
        r.d.copy_wait(w, ALL, ticket);
        if sync {
            r.d.warp_sync(w, ALL);
        }
        // Its own, and its neighbour's.
        let own = word(SHARED, Kind::Read, Order::Weak, Cta, ALL, &at);
        assert_eq!(r.access(0, own), None);
        let next = std::array::from_fn(|l| 16 * ((l as u64 + 1) % 32));
        let next = word(SHARED, Kind::Read, Order::Weak, Cta, ALL, &next);
        assert_eq!(r.access(0, next), (!sync).then_some(Race));
    }
}

#[test]
fn copies_are_in_flight_until_waited_for() {
    let mut r = Rig::one_block();
    let w = r.w[0];
    let at = [0; 32];
    let write = word(SHARED, Kind::Write, Order::Weak, Cta, 1, &at);
    let first = r.d.copy(w);
    assert_eq!(r.d.copy_access(w, first, &write), None);
    let second = r.d.copy(w);
    let at = [64; 32];
    let elsewhere = Access {
        addresses: &at,
        ..write
    };
    assert_eq!(r.d.copy_access(w, second, &elsewhere), None);
    // wait_group 1: the first group is complete, the second is not.
    r.d.copy_wait(w, ALL, first);
    assert_eq!(
        r.access(
            0,
            Access {
                kind: Kind::Read,
                ..write
            }
        ),
        None
    );
    assert_eq!(
        r.access(
            0,
            Access {
                kind: Kind::Read,
                ..elsewhere
            }
        ),
        Some(Race)
    );
    // Nor are two copies to the same place in order.
    let third = r.d.copy(w);
    assert!(
        r.d.copy_access(
            w,
            third,
            &Access {
                inst: 9,
                ..elsewhere
            }
        )
        .is_some()
    );
}

#[test]
fn copies_reach_other_warps_by_an_mbarrier() {
    for arrives in [true, false] {
        let mut r = Rig::one_block();
        let at = std::array::from_fn(|l| 4 * l as u64);
        let write = word(SHARED, Kind::Write, Order::Weak, Cta, ALL, &at);
        let ticket = r.d.copy(r.w[0]);
        r.d.copy_access(r.w[0], ticket, &write);
        let mut full = ScopedClock::default();
        if arrives {
            r.d.copy_release(r.w[0], ALL, ticket, Cta, &mut full);
        } else {
            r.d.release_scoped(r.w[0], ALL, Cta, &mut full);
        }
        r.d.acquire_scoped(r.w[1], ALL, Cta, &full);
        assert_eq!(r.tile(1, Kind::Read, 0), (!arrives).then_some(Race));
    }
}
