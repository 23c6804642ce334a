//! Tests of `membar` and `fence`.

use crate::exec::memory::tests::{arguments, clean, kernel};
use crate::exec::testing::{Launch, buffer, contents, load_error};
use crate::memory::Memory;
use crate::report::{Kind, Report};

#[test]
fn every_form_is_known() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 64]);
    for body in [
        "fence.sc.gpu;",
        "fence.gpu;",
        "fence.acq_rel.cta;",
        "fence.acq_rel.cluster;",
        "fence.acquire.sys;",
        "fence.release.gpu;",
        "fence.acquire.sync_restrict::shared::cluster.cluster;",
        "fence.release.sync_restrict::shared::cta.cluster;",
        "fence.mbarrier_init.release.cluster;",
        "fence.proxy.alias;",
        "fence.proxy.async;",
        "fence.proxy.async.global;",
        "fence.proxy.async.shared::cta;",
        "fence.proxy.async.shared::cluster;",
        "fence.proxy.tensormap::generic.release.gpu;",
        "fence.proxy.tensormap::generic.acquire.sys [%d0], 128;",
        "fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster;",
        "fence.proxy.async::generic.release.sync_restrict::shared::cta.cluster;",
        "membar.cta;",
        "membar.gl;",
        "membar.sys;",
        "membar.proxy.alias;",
    ] {
        clean(&memory, body, &input, &input);
    }
}

#[test]
fn other_forms_are_refused() {
    for (instruction, part) in [
        ("fence.acq_rel;", "end of the opcode"),
        ("fence.proxy.async.shared;", "shared"),
        (
            "fence.proxy.tensormap::generic.acquire.gpu [%d0], 64;",
            "128",
        ),
        ("fence.proxy.tensormap::generic.acquire.gpu;", "missing"),
        ("fence.proxy.texture;", "texture"),
        ("fence.mbarrier_init.release.gpu;", "cluster"),
        (
            "fence.acquire.sync_restrict::shared::cta.cluster;",
            "sync_restrict",
        ),
        ("membar.gpu;", "gpu"),
        ("membar.proxy.async;", "alias"),
        ("fence.sc.gpu 1;", "too many"),
    ] {
        let error = load_error(&kernel(instruction), "k");
        assert!(error.message.contains(part), "{instruction}: {error}");
    }
}

/// Block 0 sends a message to block 1 under a flag.
fn message(write: &str, read: &str, seed: u64) -> (Vec<Report>, u32) {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 2]);
    let output = buffer(&memory, &[0_u32; 1]);
    let body = format!(
        "mov.u32 %r8, %ctaid.x;
         setp.eq.u32 %p0, %r8, 0;
         mov.u32 %r10, 42;
         @!%p0 bra receive;
         st.global.u32 [%d0], %r10;
         {write}
         ret;
         receive:
         {read}
         setp.eq.u32 %p1, %r9, 0;
         @%p1 bra receive;
         FENCE
         ld.global.u32 %r11, [%d0];
         st.global.u32 [%d1], %r11;"
    );
    // What follows a bar is done once the flag is seen.
    let (read, after) = read.split_once('|').unwrap_or((read, ""));
    let body = body
        .replace(&format!("{read}|{after}"), read)
        .replace("FENCE", after);
    let launch = Launch {
        blocks: [2, 1, 1],
        threads: [1, 1, 1],
        seed,
        ..Launch::new(&memory)
    };
    let outcome = launch.run(&kernel(&body), "k", &arguments(&input, &output));
    assert!(outcome.fault.is_none(), "{}", outcome.fault.unwrap());
    (outcome.reports, contents::<u32>(&output)[0])
}

#[test]
fn a_message_needs_both_sides_of_the_fence() {
    const PUT: &str = "st.relaxed.gpu.global.u32 [%d0+4], %r10;";
    const GET: &str = "ld.relaxed.gpu.global.u32 %r9, [%d0+4];";
    let fenced = format!("fence.acq_rel.gpu; {PUT}");
    let barred = format!("membar.gl; {PUT}");
    let awaited = format!("{GET}|fence.acq_rel.gpu;");
    let both = [
        (&*fenced, &*awaited),
        (&*barred, &*awaited),
        (
            "st.release.gpu.global.u32 [%d0+4], %r10;",
            "ld.acquire.gpu.global.u32 %r9, [%d0+4];",
        ),
        (&*fenced, "ld.acquire.gpu.global.u32 %r9, [%d0+4];"),
        ("red.release.gpu.global.add.u32 [%d0+4], %r10;", &*awaited),
        (&*fenced, "atom.acquire.gpu.global.or.b32 %r9, [%d0+4], 0;"),
        (
            "membar.sys; st.volatile.global.u32 [%d0+4], %r10;",
            "ld.volatile.global.u32 %r9, [%d0+4];|membar.sys;",
        ),
    ];
    for (write, read) in both {
        for seed in 0..40 {
            assert_eq!(
                message(write, read, seed),
                (vec![], 42),
                "{write} {read} {seed}"
            );
        }
    }
    let narrow = format!("fence.acq_rel.cta; {PUT}");
    let one_sided = [
        (PUT, &*awaited),
        (&*fenced, GET),
        (&*narrow, &*awaited),
        (
            "st.relaxed.gpu.global.u32 [%d0+4], %r10;",
            "ld.acquire.gpu.global.u32 %r9, [%d0+4];",
        ),
    ];
    for (write, read) in one_sided {
        for seed in 0..40 {
            let (reports, _) = message(write, read, seed);
            assert!(
                reports
                    .iter()
                    .any(|r| matches!(r.kind, Kind::Race | Kind::Scope)),
                "{write} {read} {seed}"
            );
        }
    }
    let (reports, _) = message(
        "st.relaxed.gpu.global.u32 [%d0+4], %r10;",
        "ld.global.u32 %r9, [%d0+4];",
        1,
    );
    assert!(reports.iter().any(|report| report.kind == Kind::Race));
}
