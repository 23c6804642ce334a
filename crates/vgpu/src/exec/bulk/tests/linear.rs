//! Loads, and copies between the blocks of a cluster.

use super::*;

const LOAD: &str = "@%lead mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 512;\n\
     @%lead cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%tile], [%in], 512, [%bar];\n";

#[test]
fn a_load_arrives_for_whoever_waits() {
    let input = numbers(256);
    for seed in 0..20 {
        for form in ["shared::cluster", "shared::cta"] {
            let body = format!("{LOAD}AWAIT\n{DUMP}")
                .replace("shared::cluster.global", &format!("{form}.global"));
            let (outcome, got) = run(&body, &input, |launch| launch.seed = seed);
            silent(&outcome);
            assert_eq!(got[..128], input[..128]);
            assert_eq!(got[128], 0xdead_beef);
            let counters = &outcome.counters;
            assert_eq!(
                (counters.async_read_bytes, counters.async_read_sectors),
                (512, 16)
            );
            assert_eq!(counters.distributed_shared_bytes, 0);
        }
    }
}

#[test]
fn a_cache_hint_changes_nothing() {
    let body = format!("{LOAD}AWAIT\n{DUMP}")
        .replace(
            "complete_tx::bytes [",
            "complete_tx::bytes.L2::cache_hint [",
        )
        .replace("512, [%bar];", "512, [%bar], %in;");
    let input = numbers(128);
    let (outcome, got) = run(&body, &input, |_| {});
    silent(&outcome);
    assert_eq!(got[..128], input[..]);
}

#[test]
fn who_does_not_wait_races() {
    for seed in 0..10 {
        let (outcome, _) = run(
            &format!("{LOAD}bar.sync 0;\n{DUMP}"),
            &numbers(128),
            |launch| {
                launch.seed = seed;
                launch.checks.memory_init = false;
                launch.checks.barriers = false;
            },
        );
        assert_eq!(kinds(&outcome), [Kind::Race], "{outcome:?}");
        let text = outcome.reports[0].to_string();
        assert!(
            text.contains("cp.async.bulk") && text.contains("asynchronous write"),
            "{text}"
        );
    }
}

#[test]
fn a_source_written_in_the_kernel_needs_a_proxy_fence() {
    let write = "mul.wide.u32 %x1, %t, 16;\nadd.s64 %x1, %in, %x1;\nst.global.u32 [%x1], %t;\nFENCE\nbar.sync 0;\n";
    for (fence, found) in [("", vec![Kind::ProxyFence]), ("fence.proxy.async;", vec![])] {
        let body = format!("{}{LOAD}AWAIT\n{DUMP}", write.replace("FENCE", fence));
        let (outcome, _) = run(&body, &numbers(128), |_| {});
        assert_eq!(kinds(&outcome), found, "{outcome:?}");
    }
}

#[test]
fn unwritten_bytes_stay_unwritten() {
    let memory = Memory::new(1, true);
    let input = half_written(&memory, &numbers(64), 512);
    let output = buffer(&memory, &[0_u32; 128]);
    let text = kernel(&format!("{LOAD}AWAIT\n{DUMP}"));
    let outcome = launch(
        &text,
        [[0; 128]; 2],
        [input, output.base()],
        &memory,
        |_| {},
    );
    assert_eq!(kinds(&outcome), [Kind::UninitialisedRead]);
    assert_eq!(
        outcome.reports[0].site.ptx.split(' ').next(),
        Some("ld.shared.v4.u32")
    );
    // Whoever reads only the first half is right.
    let body = format!("{LOAD}AWAIT\nsetp.ge.u32 %q, %t, 16;\n@%q exit;\n{DUMP}");
    let outcome = launch(
        &kernel(&body),
        [[0; 128]; 2],
        [input, output.base()],
        &memory,
        |_| {},
    );
    silent(&outcome);
}

#[test]
fn operands_that_the_hardware_refuses() {
    let body = format!("mov.u32 %v8, 520;\n{LOAD}AWAIT\n{DUMP}");
    for (from, to, kind) in [
        ("[%in]", "[%in+8]", Kind::Misaligned),
        ("[%tile]", "[%tile+8]", Kind::Misaligned),
        ("[%in], 512", "[%in], %v8", Kind::Misaligned),
        ("[%in], 512", "[%in], 528", Kind::OutOfBounds),
        ("[%tile]", "[%tile+16384]", Kind::OutOfBounds),
        (
            "[%tile], [%in], 512, [%bar]",
            "[%tile], [%in], 512, [%tile]",
            Kind::BarrierObject,
        ),
    ] {
        let (outcome, _) = run(&body.replace(from, to), &numbers(128), |_| {});
        let fault = outcome.fault.expect("a fault");
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.site.ptx.contains("cp.async.bulk"), "{fault}");
    }
}

#[test]
fn a_block_that_is_gone() {
    let (outcome, _) = run(LOAD, &numbers(128), |_| {});
    assert_eq!(kinds(&outcome), [Kind::AsyncHazard], "{outcome:?}");
    assert!(outcome.reports[0].message.contains("had exited"));
}

/// Two blocks that stay until both are done.
fn cluster(body: &str) -> String {
    format!("{body}\nbarrier.cluster.arrive;\nbarrier.cluster.wait;\n")
}

fn two_blocks(launch: &mut Launch<'_>) {
    launch.blocks = [2, 1, 1];
    launch.cluster = [2, 1, 1];
}

/// Lets each block dump to its own half of the first KiB.
const OWN_HALF: &str = "mov.u32 %s3, %cluster_ctarank;\nmul.wide.u32 %x2, %s3, 512;\n\
                        add.s64 %out, %out, %x2;\n";

#[test]
fn a_multicast_reaches_every_block_of_its_mask() {
    let input = numbers(128);
    let body = cluster(&format!(
        "{OWN_HALF}@%lead mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 512;\n\
         setp.ne.u32 %q, %s3, 0;\n@%q bra GO;\nmov.u16 %h, 3;\n\
         @%lead cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster \
         [%tile], [%in], 512, [%bar], %h;\nGO:\nAWAIT\n{DUMP}"
    ));
    for seed in 0..20 {
        let (outcome, got) = run(&body, &input, |launch| {
            two_blocks(launch);
            launch.seed = seed;
        });
        silent(&outcome);
        assert_eq!(got[..128], input[..]);
        assert_eq!(got[128..256], input[..]);
        // Read once, and sent to one other block.
        assert_eq!(outcome.counters.async_read_bytes, 512);
        assert_eq!(outcome.counters.distributed_shared_bytes, 512);
    }
    let (outcome, _) = run(&body.replace("%h, 3", "%h, 5"), &input, two_blocks);
    let fault = outcome.fault.expect("a fault");
    assert!(fault.message.contains("ctaMask 0x5"), "{fault}");
}

const PUSH: &str = "mov.u32 %s4, 1;\nmapa.shared::cluster.u32 %s5, %tile, %s4;\n\
     mapa.shared::cluster.u32 %s6, %bar, %s4;\n\
     setp.ne.u32 %q, %s3, 0;\n\
     @%q bra OTHER;\n@%lead cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes \
     [%s5], [%tile], 512, [%s6];\nbra DONE;\n\
     OTHER:\n@%lead mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 512;\nAWAIT\n";

#[test]
fn a_block_sends_to_another() {
    let input = numbers(128);
    let body = cluster(&format!(
        "{OWN_HALF}{FILL}{PUBLISH}barrier.cluster.arrive;\nbarrier.cluster.wait;\n{PUSH}{DUMP}DONE:\n"
    ))
    .replace("st.shared.v4.u32 [%s0]", "setp.eq.u32 %q, %s3, 0;\n@%q st.shared.v4.u32 [%s0]");
    for seed in 0..20 {
        let (outcome, got) = run(&body, &input, |launch| {
            two_blocks(launch);
            launch.seed = seed;
        });
        silent(&outcome);
        assert_eq!(got[128..256], input[..]);
        assert_eq!(outcome.counters.distributed_shared_bytes, 512);
    }
    // The barrier of the sender will not do.
    let (outcome, _) = run(
        &body.replace("512, [%s6]", "512, [%bar]"),
        &input,
        two_blocks,
    );
    let fault = outcome.fault.expect("a fault");
    assert!(fault.message.contains("in the same"), "{fault}");
}

#[test]
fn a_block_adds_to_another() {
    let input = numbers(128);
    let body = cluster(&format!(
        "{OWN_HALF}{FILL}{PUBLISH}barrier.cluster.arrive;\nbarrier.cluster.wait;\n{PUSH}{DUMP}DONE:\n"
    ))
    .replace("cp.async.bulk.shared::cluster.shared::cta", "cp.reduce.async.bulk.shared::cluster.shared::cta")
    .replace("complete_tx::bytes [%s5]", "complete_tx::bytes.add.u32 [%s5]");
    for seed in 0..10 {
        let (outcome, got) = run(&body, &input, |launch| {
            two_blocks(launch);
            launch.seed = seed;
        });
        silent(&outcome);
        let want: Vec<u32> = input.iter().map(|number| 2 * number).collect();
        assert_eq!(got[128..256], want);
    }
}

#[test]
fn hints_are_checked() {
    let hint = |operands: &str| {
        let body = format!("cp.async.bulk.prefetch.L2.global {operands};");
        run(&body, &numbers(128), |_| {}).0
    };
    silent(&hint("[%in], 512"));
    assert_eq!(
        hint("[%in], 1024").fault.expect("a fault").kind,
        Kind::OutOfBounds
    );
    assert_eq!(
        hint("[%in+4], 16").fault.expect("a fault").kind,
        Kind::Misaligned
    );
}

#[test]
fn what_cannot_be_is_refused_when_it_is_loaded() {
    use super::super::super::testing::load_error;
    let store = "cp.async.bulk.global.shared::cta.bulk_group [%in], [%tile], 16;";
    for (from, to, words) in [
        ("bulk_group", "bulk_group.cp_mask", "sm_100"),
        ("global.shared::cta", "global.global", "no bulk copy"),
        (
            "bulk_group",
            "mbarrier::complete_tx::bytes",
            "bulk_group expected",
        ),
        (
            "bulk_group [%in], [%tile], 16",
            "bulk_group [%in], [%tile]",
            "operand 3 is missing",
        ),
        ("cp.async", "cp.reduce.async", "a reduction like .add"),
    ] {
        let error = load_error(&kernel(&store.replace(from, to)), "k");
        assert!(error.message.contains(words), "{error}");
    }
    for (reduction, fits) in [
        ("add.u32", true),
        ("add.f32", true),
        ("add.noftz.f16", true),
        ("min.bf16", true),
        ("min.s64", true),
        ("and.b64", true),
        ("inc.u32", true),
        ("add.f16", false),
        ("add.s64", false),
        ("min.f32", false),
        ("and.u32", false),
        ("inc.u64", false),
        ("min.noftz.f16", false),
    ] {
        let line = format!(
            "cp.reduce.async.bulk.global.shared::cta.bulk_group.{reduction} [%in], [%tile], 16;"
        );
        let loaded =
            super::super::super::testing::load(&kernel(&line), "k", &Memory::new(1, false));
        assert_eq!(loaded.is_ok(), fits, "{reduction}");
    }
    let text = kernel(store).replace("sm_90a", "sm_80");
    let error = load_error(&text, "k");
    assert!(error.message.contains("sm_90"), "{error}");
}
