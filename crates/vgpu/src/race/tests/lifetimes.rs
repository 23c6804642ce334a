//! Warps, blocks, launches and memory that come and go; the host.

use super::super::*;
use super::rig::*;

const X: u64 = 0x1000;

fn store(d: &mut Detector, w: WarpId, inst: u32) -> Met {
    let at = std::array::from_fn(|l| X + 4 * l as u64);
    let access = word(Space::Global, Kind::Write, Order::Weak, Cta, ALL, &at);
    d.access(w, &Access { inst, ..access }).map(|c| c.kind)
}

#[test]
fn a_warp_in_a_used_slot_is_another_warp() {
    let mut d = Detector::new(Config::default());
    let mut end = Clock::default();
    let first = d.begin_warp(warp(0, 0, 0, 0), &Clock::default());
    assert_eq!(store(&mut d, first, 1), None);
    d.end_warp(first, &mut end);
    let second = d.begin_warp(warp(0, 1, 1, 0), &Clock::default());
    assert_eq!(first, second);
    assert_eq!(store(&mut d, second, 2), Some(Race));
    // Ordered after the first (and after the second, which has ended meanwhile).
    d.end_warp(second, &mut end);
    let third = d.begin_warp(warp(0, 2, 2, 0), &end);
    assert_eq!(store(&mut d, third, 3), None);
}

#[test]
fn blocks_of_a_launch_are_not_ordered_and_launches_of_a_stream_are() {
    let mut d = Detector::new(Config::default());
    let mut stream = Clock::default();
    for launch in 0..3 {
        let start = stream.clone();
        for block in 0..2 {
            let info = WarpInfo {
                launch,
                block: 2 * launch + block,
                ..warp(0, 0, 0, 0)
            };
            let w = d.begin_warp(info, &start);
            let met = store(&mut d, w, 10 * launch + block);
            assert_eq!(met, (block == 1).then_some(Race), "launch {launch}");
            d.end_warp(w, &mut stream);
        }
        d.end_launch(launch, &mut stream);
    }
}

#[test]
fn operations_never_waited_for_end_with_the_launch() {
    let mut r = Rig::one_block();
    let op = r.spawn(0);
    r.bulk(op, Kind::Write, 0, 128);
    r.d.agent_end(op);
    let mut end = Clock::default();
    for w in r.w.clone() {
        r.d.end_warp(w, &mut end);
    }
    let w = r.d.begin_warp(
        WarpInfo {
            launch: 5,
            ..warp(0, 0, 0, 0)
        },
        &end,
    );
    r.w = vec![w];
    assert_eq!(r.tile(0, Kind::Read, 0), Some(Race));
    r.d.end_launch(0, &mut end);
    r.d.acquire(w, ALL, &end);
    assert_eq!(r.tile(0, Kind::Read, 64), None);
}

#[test]
fn lanes_that_have_left_are_part_of_the_warp_s_end() {
    let mut r = Rig::one_block();
    r.st(0, 31, X);
    r.d.exit_lanes(r.w[0], 0xffff_0000);
    r.st(0, 0, X + 4);
    r.d.warp_sync(r.w[0], ALL);
    assert_eq!(r.ld(0, 1, X + 4), None);
    // The sync of those that stay says nothing of those that left.
    assert_eq!(r.ld(0, 1, X), Some(IntraWarp));
    let mut end = Clock::default();
    r.d.end_warp(r.w[0], &mut end);
    r.d.acquire(r.w[1], ALL, &end);
    assert_eq!(r.ld(1, 0, X), None);
    assert_eq!(r.ld(1, 0, X + 4), None);
}

#[test]
fn freed_memory_has_no_past() {
    let mut r = Rig::wide();
    r.st(0, 0, X);
    r.sts(0, Release, Gpu, X + 64);
    r.d.forget(Space::Global, X, 128);
    assert_eq!(r.st(1, 0, X), None);
    // Nor does a flag there release anything any more.
    r.st(0, 0, X + 4096);
    assert_eq!(r.lds(1, Acquire, Gpu, X + 64), None);
    assert_eq!(r.ld(1, 0, X + 4096), Some(Race));
}

#[test]
fn shared_memory_is_its_block_s() {
    let mut r = Rig::one_block();
    r.d.begin_block(1, 256);
    r.tile(0, Kind::Write, 0);
    let at = std::array::from_fn(|l| 4 * l as u64);
    let other = word(Space::Shared(1), Kind::Write, Order::Weak, Cta, ALL, &at);
    assert_eq!(r.access(1, other), None);
    r.d.end_block(0);
    r.d.begin_block(0, 4096);
    assert_eq!(r.tile(1, Kind::Write, 0), None);
    // Beyond its end, and in blocks that do not exist, nothing is remembered.
    assert_eq!(r.tile(0, Kind::Write, 1 << 40), None);
    assert_eq!(
        r.access(
            0,
            Access {
                space: Space::Shared(77),
                ..other
            }
        ),
        None
    );
}

#[test]
fn the_host_races_too() {
    let mut r = Rig::one_block();
    let host = r.d.begin_host(3, &Clock::default());
    let range = RangeAccess {
        space: Space::Global,
        kind: Kind::Write,
        proxy: Proxy::Generic,
        address: X,
        bytes: 100_000,
        inst: 50,
    };
    assert_eq!(r.d.access_range(host, 0, &range), None);
    let at = [X + 99_000; 32];
    let load = Access {
        inst: 51,
        ..word(Space::Global, Kind::Read, Order::Weak, Cta, 1, &at)
    };
    let c = r.d.access(r.w[0], &load).unwrap();
    assert_eq!((c.kind, c.first.who), (Race, Who::Host { stream: 3 }));
    let mut stream = Clock::default();
    r.d.release(host, 1, &mut stream);
    r.d.acquire(r.w[1], ALL, &stream);
    assert_eq!(r.ld(1, 0, X + 99_004), None);
    // What the host does next is not covered.
    r.d.access_range(host, 0, &range);
    assert_eq!(r.ld(1, 1, X + 8), Some(Race));
}

#[test]
fn a_lane_s_run_of_bytes_is_its_own() {
    let mut r = Rig::one_block();
    let range = RangeAccess {
        space: Space::Global,
        kind: Kind::Write,
        proxy: Proxy::Generic,
        address: X + 5,
        bytes: 300,
        inst: 60,
    };
    assert_eq!(r.d.access_range(r.w[0], 9, &range), None);
    assert_eq!(r.ld(0, 9, X + 200), None);
    assert_eq!(r.ld(0, 8, X + 200), Some(IntraWarp));
    assert_eq!(r.ld(0, 8, X), None);
}

#[test]
fn memory_is_bounded_over_many_launches() {
    let mut d = Detector::new(Config::default());
    let mut stream = Clock::default();
    for launch in 0..300 {
        let start = stream.clone();
        for block in 0..64 {
            let info = WarpInfo {
                launch,
                block: 64 * launch + block,
                ..warp(0, 0, 0, 0)
            };
            let w = d.begin_warp(info, &start);
            let at = std::array::from_fn(|l| 128 * block as u64 + 4 * l as u64);
            let access = word(Space::Global, Kind::Write, Order::Weak, Cta, ALL, &at);
            assert_eq!(d.access(w, &access), None);
            d.end_warp(w, &mut stream);
        }
        d.end_launch(launch, &mut stream);
    }
    assert!(d.actors.held() <= 300);
    assert_eq!(d.warps.len(), 1);
}

#[test]
fn ids_that_are_not_live_do_nothing() {
    let mut d = Detector::new(Config::default());
    let w = d.begin_warp(warp(0, 0, 0, 0), &Clock::default());
    let agent = d.spawn(w, 1, 0);
    d.agent_end(agent);
    d.agent_end(agent);
    let (mut clock, mut scoped) = (Clock::default(), ScopedClock::default());
    d.agent_release(agent, &mut clock);
    assert!(clock.is_empty());
    d.end_warp(w, &mut clock);
    d.end_warp(w, &mut clock);
    let before = clock.clone();
    assert_eq!(store(&mut d, w, 1), None);
    d.warp_sync(w, ALL);
    d.fence(w, ALL, Gpu, FenceKind::Sc);
    d.proxy_fence(w, ALL);
    d.release(w, ALL, &mut clock);
    d.release_scoped(w, ALL, Gpu, &mut scoped);
    assert!(before.covers(&clock) && scoped.is_empty());
    assert_eq!(d.copy(w), CopyTicket(0));
    let late = d.spawn(w, 1, 0);
    d.agent_release(late, &mut clock);
    d.end_block(9);
    d.end_launch(9, &mut clock);
    assert_eq!(d.num_conflicts(), 0);
}

#[test]
fn addresses_at_the_end_of_memory_are_no_trouble() {
    let mut r = Rig::one_block();
    for bytes in [1, 4, 16, 32] {
        for base in [
            u64::MAX,
            u64::MAX - 3,
            u64::MAX - 31,
            u64::MAX - 127,
            1 << 63,
        ] {
            for stride in [0, 1, bytes as u64, u64::MAX / 31] {
                let at = std::array::from_fn(|l| base.wrapping_add(l as u64 * stride));
                for space in [Space::Global, SHARED] {
                    for order in [Order::Weak, Relaxed] {
                        let access = word(space, Kind::Read, order, Sys, ALL, &at);
                        let access = Access {
                            bytes,
                            unit: bytes.min(4),
                            ..access
                        };
                        assert_eq!(r.access(0, access), None);
                        r.d.forget(space, base, bytes as u64);
                    }
                }
            }
        }
    }
}

#[test]
fn a_warp_outlives_its_clock() {
    // More synchronisations than a record has room for: the warp takes a new number on the way.
    let mut r = Rig::one_block();
    r.st(0, 0, X);
    r.st(0, 1, X + 4);
    for _ in 0..super::super::shadow::TIMES + 10 {
        r.d.warp_sync(r.w[0], 1);
    }
    assert_eq!(r.ld(0, 0, X), None);
    assert_eq!(r.ld(0, 0, X + 4), Some(IntraWarp));
    assert_eq!(r.ld(1, 0, X), Some(Race));
    r.st(0, 2, X + 8);
    r.bar(&[0, 1]);
    for at in [X, X + 4, X + 8] {
        assert_eq!(r.ld(1, 0, at), None);
    }
}
