//! Lanes of one warp.

use super::super::*;
use super::rig::*;

const X: u64 = 0x1000;

#[test]
fn lanes_need_a_warp_sync_between_them() {
    for sync in [true, false] {
        let mut r = Rig::one_block();
        assert_eq!(r.tile(0, Kind::Write, 0), None);
        if sync {
            r.d.warp_sync(r.w[0], ALL);
        }
        // Each lane reads its neighbour's word.
        let at = std::array::from_fn(|l| 4 * ((l as u64 + 1) % 32));
        let met = r.access(0, word(SHARED, Kind::Read, Order::Weak, Cta, ALL, &at));
        assert_eq!(met, (!sync).then_some(IntraWarp));
        // And each its own.
        assert_eq!(r.tile(1, Kind::Read, 256), None);
    }
}

#[test]
fn a_lane_is_in_order_with_itself() {
    let mut r = Rig::one_block();
    r.tile(0, Kind::Write, 0);
    assert_eq!(r.tile(0, Kind::Read, 0), None);
    assert_eq!(r.tile(0, Kind::Write, 0), None);
}

#[test]
fn a_partial_warp_sync_orders_its_lanes_only() {
    let mut r = Rig::one_block();
    r.st(0, 0, X);
    r.st(0, 5, X + 4);
    r.d.warp_sync(r.w[0], 0b0011);
    assert_eq!(r.ld(0, 1, X), None);
    assert_eq!(r.ld(0, 2, X), Some(IntraWarp));
    assert_eq!(r.ld(0, 1, X + 4), Some(IntraWarp));
    // What lane 1 learnt goes on to lanes 4 and 5.
    r.st(0, 0, X + 8);
    r.d.warp_sync(r.w[0], 0b0011);
    r.d.warp_sync(r.w[0], 0b110010);
    assert_eq!(r.ld(0, 4, X + 8), None);
    assert_eq!(r.ld(0, 6, X + 8), Some(IntraWarp));
}

#[test]
fn a_lane_releases_for_itself_only() {
    for sync in [true, false] {
        let mut r = Rig::wide();
        for lane in 0..2 {
            r.st(0, lane, X + 4 * lane as u64);
        }
        if sync {
            r.d.warp_sync(r.w[0], ALL);
        }
        r.sts(0, Release, Gpu, 0x2000);
        r.lds(1, Acquire, Gpu, 0x2000);
        assert_eq!(r.ld(1, 0, X), None);
        assert_eq!(r.ld(1, 0, X + 4), (!sync).then_some(Race));
    }
}

#[test]
fn a_lane_acquires_for_itself_only() {
    for sync in [true, false] {
        let mut r = Rig::wide();
        r.st(0, 0, X);
        r.sts(0, Release, Gpu, 0x2000);
        r.lds(1, Acquire, Gpu, 0x2000);
        if sync {
            r.d.warp_sync(r.w[1], ALL);
        }
        assert_eq!(r.ld(1, 1, X), (!sync).then_some(Race));
        assert_eq!(r.ld(1, 0, X), None);
    }
}

#[test]
fn lanes_that_write_the_same_word_in_one_instruction_conflict() {
    let mut r = Rig::one_block();
    let same = [0; 32];
    let store = word(SHARED, Kind::Write, Order::Weak, Cta, 0b110, &same);
    assert_eq!(r.access(0, store), Some(IntraWarp));
    // Unless it is one lane, they are atomic, or they read.
    let mut r = Rig::one_block();
    assert_eq!(r.access(0, Access { lanes: 1, ..store }), None);
    let at = [64; 32];
    assert_eq!(
        r.access(0, word(SHARED, Kind::Rmw, Relaxed, Cta, ALL, &at)),
        None
    );
    assert_eq!(
        r.access(
            0,
            word(SHARED, Kind::Read, Order::Weak, Cta, ALL, &[128; 32])
        ),
        None
    );
}

#[test]
fn bytes_of_a_word_are_told_apart() {
    let mut r = Rig::one_block();
    // Halves by neighbouring lanes, coalesced and not.
    let halves = std::array::from_fn(|l| 2 * l as u64);
    let store = word(SHARED, Kind::Write, Order::Weak, Cta, ALL, &halves);
    assert_eq!(
        r.access(
            0,
            Access {
                bytes: 2,
                unit: 2,
                ..store
            }
        ),
        None
    );
    assert_eq!(
        r.access(
            0,
            Access {
                bytes: 2,
                unit: 2,
                ..store
            }
        ),
        None
    );
    let swapped = std::array::from_fn(|l| 64 + 2 * (l as u64 ^ 1));
    let store = word(SHARED, Kind::Write, Order::Weak, Cta, ALL, &swapped);
    assert_eq!(
        r.access(
            0,
            Access {
                bytes: 2,
                unit: 2,
                ..store
            }
        ),
        None
    );
    // A byte next to another warp's.
    for (offset, met) in [(1, None), (0, Some(Race))] {
        let mut r = Rig::one_block();
        let byte = [256; 32];
        let store = word(SHARED, Kind::Write, Order::Weak, Cta, 1, &byte);
        assert_eq!(
            r.access(
                0,
                Access {
                    bytes: 1,
                    unit: 1,
                    ..store
                }
            ),
            None
        );
        let byte = [256 + offset; 32];
        let store = word(SHARED, Kind::Write, Order::Weak, Cta, 1, &byte);
        assert_eq!(
            r.access(
                1,
                Access {
                    bytes: 1,
                    unit: 1,
                    ..store
                }
            ),
            met
        );
    }
}

#[test]
fn vectors_cover_all_their_words() {
    let mut r = Rig::one_block();
    let rows = std::array::from_fn(|l| 16 * l as u64);
    let store = word(SHARED, Kind::Write, Order::Weak, Cta, ALL, &rows);
    assert_eq!(r.access(0, Access { bytes: 16, ..store }), None);
    assert_eq!(r.tile(1, Kind::Read, 384), Some(Race));
    r.bar(&[0, 1]);
    assert_eq!(r.tile(1, Kind::Read, 256), None);
}

#[test]
fn a_report_names_both_sides() {
    let mut d = Detector::new(Config::default());
    let info = [warp(0, 0, 0, 0), warp(0, 0, 0, 1)];
    let ids = info.map(|i| d.begin_warp(i, &Clock::default()));
    let at = std::array::from_fn(|l| X + 4 * l as u64);
    let access = word(Space::Global, Kind::Write, Order::Weak, Cta, ALL, &at);
    assert_eq!(d.access(ids[0], &Access { inst: 11, ..access }), None);
    let at = [X + 22; 32];
    let access = word(Space::Global, Kind::Read, Order::Weak, Cta, 1 << 9, &at);
    let access = Access {
        bytes: 2,
        unit: 2,
        inst: 12,
        ..access
    };
    let c = *d.access(ids[1], &access).unwrap();
    assert_eq!(
        (c.kind, c.space, c.address, c.bytes),
        (Race, Space::Global, X + 22, 2)
    );
    assert_eq!(
        c.first.who,
        Who::Thread {
            warp: info[0],
            lane: 5
        }
    );
    assert_eq!(
        (c.first.inst, c.first.kind, c.first.strong),
        (11, Kind::Write, None)
    );
    assert_eq!(
        c.second.who,
        Who::Thread {
            warp: info[1],
            lane: 9
        }
    );
    assert_eq!((c.second.inst, c.second.kind), (12, Kind::Read));
    // The same pair is returned once, and counted each time.
    assert_eq!(d.access(ids[1], &access), None);
    assert_eq!(d.num_conflicts(), 2);
}

/// A swizzled matrix load: 16 rows of 64 bytes, 16 bytes a lane, from row `row`.
fn rows(r: &mut Rig, w: usize, row: u64) -> Met {
    let at = std::array::from_fn(|l| {
        let row = row + l as u64 % 16;
        row * 64 + ((l as u64 / 16 + (row >> 1)) & 3) * 16
    });
    let load = word(SHARED, Kind::Read, Order::Weak, Cta, ALL, &at);
    r.access(w, Access { bytes: 16, ..load })
}

#[test]
fn rows_read_by_several_warps_keep_their_lanes() {
    // Of lane 5, which reads the third chunk of row 5, and of lane 21, which reads the fourth.
    let chunk = |row: u64, lane: u64| row * 64 + ((lane / 16 + (row >> 1)) & 3) * 16;
    for (lane, at) in [(5, chunk(5, 5)), (21, chunk(5, 21) + 12)] {
        for writer in [0, 2] {
            for synced in [false, true] {
                let mut r = Rig::of(&[0, 1, 2].map(|w| warp(0, 0, 0, w)));
                for w in 0..2 {
                    assert_eq!(rows(&mut r, w, 0), None);
                    assert_eq!(rows(&mut r, w, 16), None);
                }
                // One lane of each reader that the writer learns of; both are read at `at`.
                let mut clock = Clock::default();
                for w in 0..2 {
                    r.d.release(
                        r.w[w],
                        if synced { 1 << lane } else { !(1 << lane) },
                        &mut clock,
                    );
                }
                r.d.acquire(r.w[writer], ALL, &clock);
                let at = [at; 32];
                let store = word(SHARED, Kind::Write, Order::Weak, Cta, 1 << lane, &at);
                let met = r.access(writer, store);
                assert_eq!(met, (!synced).then_some(Race), "lane {lane} warp {writer}");
            }
        }
    }
}

#[test]
fn rows_and_words_and_lines_agree() {
    for bar in [true, false] {
        // Written by rows, lines or words; read by rows; written in another way.
        for first in 0..3 {
            for second in 0..3 {
                let mut r = Rig::of(&[0, 1, 2].map(|w| warp(0, 0, 0, w)));
                let write = |r: &mut Rig, w: usize, how: u64| {
                    let (bytes, at): (u32, [u64; 32]) = match how {
                        0 => (16, std::array::from_fn(|l| 16 * (l as u64 ^ 5))),
                        1 => (16, std::array::from_fn(|l| 16 * l as u64)),
                        _ => (4, std::array::from_fn(|l| 4 * (l as u64 ^ 1))),
                    };
                    let store = word(SHARED, Kind::Write, Order::Weak, Cta, ALL, &at);
                    r.access(w, Access { bytes, ..store })
                };
                assert_eq!(write(&mut r, 0, first), None);
                r.bar(&[0, 1, 2]);
                assert_eq!(rows(&mut r, 1, 0), None);
                assert_eq!(rows(&mut r, 2, 0), None);
                if bar {
                    r.bar(&[0, 1, 2]);
                }
                assert_eq!(write(&mut r, 0, second), (!bar).then_some(Race));
                r.bar(&[0, 1, 2]);
                assert_eq!(write(&mut r, 1, first), None);
            }
        }
    }
}
