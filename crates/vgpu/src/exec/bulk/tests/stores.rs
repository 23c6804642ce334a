//! Stores, reductions and their groups.

use super::*;
use crate::machine::Checks;

const STORE: &str = "@%lead cp.async.bulk.global.shared::cta.bulk_group [%out], [%tile], 512;\n\
                     @%lead cp.async.bulk.commit_group;\n";
const WAIT: &str = "cp.async.bulk.wait_group 0;\n";
const WAIT_READ: &str = "cp.async.bulk.wait_group.read 0;\n";
/// Every thread overwrites its part of `tile`.
const OVERWRITE: &str = "bar.sync 0;\nst.shared.u32 [%s0], %t;\n";

#[test]
fn a_store_arrives() {
    let input = numbers(128);
    for seed in 0..20 {
        for wait in [WAIT, WAIT_READ] {
            let body = format!("{FILL}{PUBLISH}{STORE}{wait}");
            let (outcome, got) = run(&body, &input, |launch| launch.seed = seed);
            silent(&outcome);
            assert_eq!(got[..128], input[..]);
            assert_eq!(got[128], 0xdead_beef);
            let counters = &outcome.counters;
            assert_eq!(
                (counters.async_write_bytes, counters.async_write_sectors),
                (512, 16)
            );
        }
    }
}

#[test]
fn the_source_needs_a_proxy_fence() {
    let body = format!("{FILL}bar.sync 0;\n{STORE}{WAIT}");
    let (outcome, _) = run(&body, &numbers(128), |_| {});
    assert_eq!(kinds(&outcome), [Kind::ProxyFence], "{outcome:?}");
}

#[test]
fn the_source_is_free_after_its_read() {
    let input = numbers(128);
    for seed in 0..20 {
        for wait in [WAIT, WAIT_READ] {
            let body = format!("{FILL}{PUBLISH}{STORE}{wait}{OVERWRITE}");
            let (outcome, got) = run(&body, &input, |launch| launch.seed = seed);
            silent(&outcome);
            assert_eq!(got[..128], input[..]);
        }
        let body = format!("{FILL}{PUBLISH}{STORE}{OVERWRITE}{WAIT}");
        let (outcome, _) = run(&body, &input, |launch| launch.seed = seed);
        assert_eq!(kinds(&outcome), [Kind::Race], "{outcome:?}");
        // A group that was not committed is not waited for.
        let body = format!("{FILL}{PUBLISH}{STORE}{WAIT}{OVERWRITE}")
            .replace("@%lead cp.async.bulk.commit_group;\n", "");
        let (outcome, _) = run(&body, &input, |launch| launch.seed = seed);
        assert!(kinds(&outcome).contains(&Kind::Race), "{outcome:?}");
    }
}

#[test]
fn the_destination_is_there_after_the_whole_wait() {
    let read = "bar.sync 0;\nmul.wide.u32 %x1, %t, 4;\nadd.s64 %x1, %out, %x1;\n\
                ld.global.u32 %v4, [%x1];\n";
    for seed in 0..10 {
        for (wait, found) in [(WAIT, vec![]), (WAIT_READ, vec![Kind::Race])] {
            let body = format!("{FILL}{PUBLISH}{STORE}{wait}{read}");
            let (outcome, _) = run(&body, &numbers(128), |launch| launch.seed = seed);
            assert_eq!(kinds(&outcome), found, "{outcome:?}");
        }
    }
}

#[test]
fn groups_finish_in_order() {
    // Two stores from two halves of the tile; one group may stay under way.
    let second = STORE.replace("[%out], [%tile]", "[%out+1024], [%tile+1024]");
    let input = numbers(128);
    let first = "bar.sync 0;\nst.shared.u32 [%s0], %t;\n";
    let other = "bar.sync 0;\nst.shared.u32 [%s0+1024], %t;\n";
    let fill = FILL.to_owned() + "st.shared.v4.u32 [%s0+1024], {%v0, %v1, %v2, %v3};\n";
    for seed in 0..20 {
        for (touch, found) in [(first, vec![]), (other, vec![Kind::Race])] {
            let body = format!(
                "{fill}{PUBLISH}{STORE}{second}cp.async.bulk.wait_group.read 1;\n{touch}{WAIT_READ}"
            );
            let (outcome, _) = run(&body, &input, |launch| launch.seed = seed);
            assert_eq!(kinds(&outcome), found, "{outcome:?}");
        }
    }
}

#[test]
fn bytes_that_nobody_wrote_do_not_leave_unnoticed() {
    let body = format!("{FILL}{PUBLISH}{STORE}{WAIT}").replace("[%tile], 512", "[%tile], 528");
    let (outcome, _) = run(&body, &numbers(128), |_| {});
    assert_eq!(kinds(&outcome), [Kind::UninitialisedRead]);
    assert!(
        outcome.reports[0]
            .message
            .contains("16 bytes of its source")
    );
}

#[test]
fn a_block_waits_for_the_reads_of_its_copies() {
    let (outcome, _) = run(&format!("{FILL}{PUBLISH}{STORE}"), &numbers(128), |_| {});
    assert_eq!(kinds(&outcome), [Kind::AsyncHazard], "{outcome:?}");
}

#[test]
fn reductions_of_many_blocks_add_up() {
    let input: Vec<f32> = (0..128).map(|number| number as f32).collect();
    let bits: Vec<u32> = input.iter().map(|value| value.to_bits()).collect();
    let body = format!(
        "{FILL}{PUBLISH}@%lead cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%out], [%tile], 512;\n\
         @%lead cp.async.bulk.commit_group;\n{WAIT}"
    );
    for seed in 0..5 {
        let memory = Memory::new(1, true);
        let source = buffer(&memory, &bits);
        let output = buffer(&memory, &[1.0_f32; 128]);
        let at = [source.base(), output.base()];
        let outcome = launch(&kernel(&body), [[0; 128]; 2], at, &memory, |launch| {
            launch.blocks = [6, 1, 1];
            launch.seed = seed;
        });
        silent(&outcome);
        let want: Vec<f32> = input.iter().map(|value| 1.0 + 6.0 * value).collect();
        assert_eq!(contents::<f32>(&output), want);
    }
    // A plain store races with them.
    let mixed = body.replace(WAIT, &format!("{STORE}{WAIT}"));
    let (outcome, _) = run(&mixed, &bits, |launch| launch.blocks = [2, 1, 1]);
    assert!(kinds(&outcome).contains(&Kind::Race), "{outcome:?}");
}

#[test]
fn constant_memory_is_not_written() {
    let text = kernel(&format!("{FILL}{PUBLISH}{STORE}{WAIT}"))
        .replace(
            ".visible .entry",
            ".const .align 16 .b8 table[512];\n.visible .entry",
        )
        .replace(
            "mov.u32 %bar, bar;",
            "mov.u32 %bar, bar;\nmov.u64 %out, table;",
        );
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &numbers(128));
    let at = [input.base(), input.base()];
    let outcome = launch(&text, [[0; 128]; 2], at, &memory, |launch| {
        launch.checks = Checks::NONE;
    });
    assert_eq!(outcome.fault.expect("a fault").kind, Kind::Undefined);
}
