//! Sectors and bank conflicts against numbers worked out by hand.

use super::{arguments, kernel};
use crate::counters::{Counters, Traffic};
use crate::exec::testing::{Launch, buffer};
use crate::machine::Checks;
use crate::memory::Memory;

/// Counters of one warp; `%r9` is `lane * factor + shift` bytes, `%d10` that in the input.
fn count(factor: u32, shift: u32, access: &str) -> Counters {
    let memory = Memory::new(1, false);
    let input = buffer(&memory, &vec![0_u32; 4096]);
    let body = format!(
        "mad.lo.u32 %r9, %r0, {factor}, {shift};
         cvt.u64.u32 %d9, %r9;
         add.u64 %d10, %d0, %d9;
         mov.u32 %r10, sv;
         add.u32 %r10, %r10, %r9;
         {access}"
    );
    let launch = Launch {
        checks: Checks::NONE,
        ..Launch::new(&memory)
    };
    let outcome = launch.run(&kernel(&body), "k", &arguments(&input, &input));
    assert!(outcome.fault.is_none(), "{}", outcome.fault.unwrap());
    outcome.counters
}

fn global(instructions: u64, requested_bytes: u64, sectors: u64) -> Traffic {
    Traffic {
        instructions,
        requested_bytes,
        sectors,
        ..Traffic::default()
    }
}

fn shared(requested_bytes: u64, wavefronts: u64, conflicts: u64) -> Traffic {
    Traffic {
        instructions: 1,
        requested_bytes,
        wavefronts,
        conflicts,
        ..Traffic::default()
    }
}

#[test]
fn sectors_of_global_accesses() {
    // Coalesced: 128 bytes are 4 sectors; shifted by 4 bytes, 5.
    let load = "ld.global.u32 %r11, [%d10];";
    assert_eq!(count(4, 0, load).global_read, global(1, 128, 4));
    assert_eq!(count(4, 4, load).global_read, global(1, 128, 5));
    // One word for all; strides of 8, 32 and 64 bytes.
    assert_eq!(count(0, 8, load).global_read, global(1, 128, 1));
    assert_eq!(count(8, 0, load).global_read, global(1, 128, 8));
    assert_eq!(count(32, 0, load).global_read, global(1, 128, 32));
    assert_eq!(count(64, 0, load).global_read, global(1, 128, 32));
    // 16 bytes a lane: 512 bytes, 16 sectors; bytes: 1.
    let wide = "ld.global.v4.u32 {%r11, %r12, %r13, %r14}, [%d10];";
    assert_eq!(count(16, 0, wide).global_read, global(1, 512, 16));
    assert_eq!(
        count(1, 0, "ld.global.u8 %h0, [%d10];").global_read,
        global(1, 32, 1)
    );
    // Half a warp.
    let half = "setp.lt.u32 %p0, %r0, 16; @%p0 st.global.u32 [%d10], %r0;";
    assert_eq!(count(4, 0, half).global_write, global(1, 64, 2));
    // Backwards, and there and back: neither rises.
    let back = "sub.u64 %d11, %d0, %d9; ld.global.u32 %r11, [%d11+1024];";
    assert_eq!(count(4, 0, back).global_read, global(1, 128, 5));
    let mixed = "and.b32 %r11, %r0, 1; mul.wide.u32 %d11, %r11, 1024; add.u64 %d12, %d11, %d10;
        ld.global.u32 %r12, [%d12];";
    assert_eq!(count(4, 0, mixed).global_read, global(1, 128, 8));
    // Atomics count apart.
    let counters = count(4, 0, "red.global.add.u32 [%d10], 1;");
    assert_eq!(counters.global_atomic, global(1, 128, 4));
    assert_eq!(
        (counters.global_read, counters.global_write),
        Default::default()
    );
    assert_eq!(counters.global_atomic.moved_bytes(), 128);
}

#[test]
fn bank_conflicts_of_words() {
    let load = "ld.shared.u32 %r11, [%r10];";
    // Every bank once; a broadcast; strides of 2, 3, 4, 32 and 33 words.
    assert_eq!(count(4, 0, load).shared_read, shared(128, 1, 0));
    assert_eq!(count(4, 64, load).shared_read, shared(128, 1, 0));
    assert_eq!(count(0, 4, load).shared_read, shared(128, 1, 0));
    assert_eq!(count(8, 0, load).shared_read, shared(128, 2, 1));
    assert_eq!(count(12, 0, load).shared_read, shared(128, 1, 0));
    assert_eq!(count(16, 0, load).shared_read, shared(128, 4, 3));
    let column = "and.b32 %r12, %r0, 15; mul.lo.u32 %r12, %r12, 128; mov.u32 %r13, sv;
        add.u32 %r13, %r13, %r12; st.shared.u32 [%r13], %r0;";
    // 16 words of one bank, each wanted twice.
    assert_eq!(count(0, 0, column).shared_write, shared(128, 16, 15));
    assert_eq!(count(124, 0, load).shared_read, shared(128, 1, 0));
}

#[test]
fn bank_conflicts_of_narrow_and_wide_lanes() {
    // Four bytes of a word share it; bytes 4 words apart do not.
    assert_eq!(
        count(1, 0, "ld.shared.u8 %h0, [%r10];").shared_read,
        shared(32, 1, 0)
    );
    assert_eq!(
        count(2, 0, "ld.shared.u16 %h0, [%r10];").shared_read,
        shared(64, 1, 0)
    );
    assert_eq!(
        count(16, 0, "st.shared.u8 [%r10], %r0;").shared_write,
        shared(32, 4, 3)
    );
    // 8 bytes: two passes; 16 bytes: four.
    let eight = "ld.shared.v2.u32 {%r11, %r12}, [%r10];";
    let sixteen = "ld.shared.v4.u32 {%r11, %r12, %r13, %r14}, [%r10];";
    assert_eq!(count(8, 0, eight).shared_read, shared(256, 2, 0));
    assert_eq!(count(0, 0, eight).shared_read, shared(256, 2, 0));
    assert_eq!(count(16, 0, sixteen).shared_read, shared(512, 4, 0));
    // Lanes 16 bytes apart of which 8 are read: each half-warp covers 64 words, two passes.
    assert_eq!(count(16, 0, eight).shared_read, shared(256, 4, 2));
    // 32 bytes apart: eight lanes cover 64 words, two passes for each quarter.
    assert_eq!(count(32, 0, sixteen).shared_read, shared(512, 8, 4));
    // Half the warp does not run: half the passes.
    let half = format!("setp.lt.u32 %p0, %r0, 16; @%p0 {sixteen}");
    assert_eq!(count(16, 0, &half).shared_read, shared(256, 2, 0));
}

#[test]
fn atomics_on_one_word_queue() {
    let add = "red.shared.add.u32 [%r10], 1;";
    assert_eq!(count(4, 0, add).shared_atomic, shared(128, 1, 0));
    assert_eq!(count(0, 0, add).shared_atomic, shared(128, 32, 31));
    assert_eq!(count(8, 0, add).shared_atomic, shared(128, 2, 1));
    let wide = "atom.shared.exch.b64 %d11, [%r10], 1;";
    assert_eq!(count(8, 0, wide).shared_atomic, shared(256, 2, 0));
}

#[test]
fn other_spaces_count_bytes() {
    let counters = count(
        0,
        0,
        "st.local.u32 [lv], %r0; ld.local.u16 %h0, [lv]; ld.const.u32 %r11, [cv];",
    );
    assert_eq!(counters.local_write, global(1, 128, 0));
    assert_eq!(counters.local_read, global(1, 64, 0));
    // Two parameters of 8 bytes before it.
    assert_eq!(counters.constant_read, global(3, 2 * 256 + 128, 0));
    // A generic access counts where it goes.
    let counters = count(
        4,
        0,
        "cvt.u64.u32 %d11, %r10; cvta.shared.u64 %d11, %d11; st.u32 [%d11], %r0; ld.u32 %r11, [%d10];",
    );
    assert_eq!(counters.shared_write, shared(128, 1, 0));
    assert_eq!(counters.global_read, global(1, 128, 4));
}
