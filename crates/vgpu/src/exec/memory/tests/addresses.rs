//! Generic addresses, and those of clusters.

use super::{arguments, clean, kernel, outcome};
use crate::exec::testing::{Launch, buffer, contents, empty};
use crate::memory::Memory;
use crate::report::Kind;

#[test]
fn generic_addresses_reach_every_window_from_one_instruction() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[77_u32; 32]);
    let output = empty(&memory, 128);
    // Lane 0 mod 4 reads shared, 1 local, 2 global, 3 constant memory.
    let body = "mov.u32 %r10, 5;
        st.shared.u32 [sv+64], %r10;
        mov.u32 %r11, 6;
        st.local.u32 [lv+8], %r11;
        bar.warp.sync -1;
        mov.u64 %d10, sv;
        cvta.shared.u64 %d10, %d10;
        add.u64 %d10, %d10, 64;
        mov.u64 %d11, lv;
        cvta.local.u64 %d11, %d11;
        add.u64 %d11, %d11, 8;
        cvta.global.u64 %d12, %d0;
        mov.u64 %d13, cv;
        cvta.const.u64 %d13, %d13;
        and.b32 %r12, %r0, 3;
        setp.eq.u32 %p0, %r12, 0;
        setp.eq.u32 %p1, %r12, 1;
        setp.eq.u32 %p2, %r12, 2;
        selp.b64 %d14, %d12, %d13, %p2;
        selp.b64 %d14, %d11, %d14, %p1;
        selp.b64 %d14, %d10, %d14, %p0;
        ld.u32 %r13, [%d14];
        st.global.u32 [%d4], %r13;";
    // All lanes store the same to one place: a race that is not what this is about.
    let body = body.replace("st.shared.u32", "st.volatile.shared.u32");
    clean(&memory, &body, &input, &output);
    let want: Vec<u32> = (0..32).map(|lane| [5, 6, 77, 10][lane % 4]).collect();
    assert_eq!(contents::<u32>(&output), want);
}

#[test]
fn isspacep_tells_the_windows_apart() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 32]);
    let addresses = [
        ("mov.u64 %d10, %d0;", "global"),
        ("mov.u64 %d10, cv; cvta.const.u64 %d10, %d10;", "const"),
        ("mov.u64 %d10, lv; cvta.local.u64 %d10, %d10;", "local"),
        ("mov.u64 %d10, p2; cvta.param.u64 %d10, %d10;", "param"),
        ("mov.u64 %d10, sv; cvta.shared.u64 %d10, %d10;", "shared"),
    ];
    let spaces = [
        "global",
        "const",
        "local",
        "param",
        "shared",
        "shared::cta",
        "shared::cluster",
    ];
    for (make, home) in addresses {
        for space in spaces {
            let output = empty(&memory, 128);
            let body = format!(
                "{make}
                 isspacep.{space} %p0, %d10;
                 selp.u32 %r9, 1, 0, %p0;
                 st.global.u32 [%d4], %r9;"
            );
            clean(&memory, &body, &input, &output);
            let want = u32::from(space.starts_with(home));
            assert_eq!(contents::<u32>(&output), [want; 32], "{home} in {space}");
        }
    }
}

#[test]
fn cvta_to_undoes_cvta_and_spoils_what_is_elsewhere() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 32]);
    for (variable, space) in [
        ("sv", "shared"),
        ("lv", "local"),
        ("p2", "param"),
        ("gv", "global"),
    ] {
        let output = empty(&memory, 128);
        let body = format!(
            "mov.u64 %d10, {variable};
             cvta.{space}.u64 %d11, %d10;
             cvta.to.{space}.u64 %d12, %d11;
             setp.eq.u64 %p0, %d10, %d12;
             setp.ne.u64 %p1, %d10, %d11;
             selp.u32 %r9, 1, 0, %p0;
             selp.u32 %r10, 2, 0, %p1;
             or.b32 %r9, %r9, %r10;
             st.global.u32 [%d4], %r9;"
        );
        clean(&memory, &body, &input, &output);
        let want = if space == "global" { 1 } else { 3 };
        assert_eq!(contents::<u32>(&output), [want; 32], "{space}");
    }
    let output = empty(&memory, 128);
    for narrow in [
        "mov.b64 %d11, %d10;",
        "cvt.u32.u64 %r9, %d10; cvt.u64.u32 %d11, %r9;",
    ] {
        let body = format!("cvta.to.shared.u64 %d10, %d0; {narrow} ld.shared.u32 %r9, [%d11];");
        let fault = outcome(&memory, &body, &input, &output)
            .fault
            .expect("a fault");
        assert_eq!(fault.kind, Kind::OutOfBounds, "{fault}");
    }
}

#[test]
fn a_generic_address_is_no_shared_address() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 32]);
    let body = "mov.u64 %d10, sv; cvta.shared.u64 %d10, %d10; st.shared.u32 [%d10], %r0;";
    let fault = outcome(&memory, body, &input, &input)
        .fault
        .expect("a fault");
    assert_eq!(fault.kind, Kind::OutOfBounds);
    assert!(fault.message.contains("cvta.to.shared"), "{fault}");
}

/// Every block of a cluster of four writes into the next one's shared memory.
#[test]
fn mapa_leads_to_other_blocks() {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 4);
    for (map, store) in [
        (
            "mapa.shared::cluster.u32 %r11, sv, %r10;",
            "st.shared::cluster.u32 [%r11], %r9;",
        ),
        (
            "mov.u64 %d10, sv; cvta.shared.u64 %d10, %d10; mapa.u64 %d11, %d10, %r10;",
            "st.u32 [%d11], %r9;",
        ),
        (
            "mov.u64 %d10, sv; mapa.shared::cluster.u64 %d12, %d10, %r10; \
             cvta.shared::cluster.u64 %d11, %d12;",
            "st.u32 [%d11], %r9;",
        ),
    ] {
        let output = empty(&memory, 4 * 4 * 2);
        let body = format!(
            "mov.u32 %r8, %cluster_ctarank;
             add.u32 %r9, %r8, 1;
             and.b32 %r10, %r9, 3;
             setp.ne.u32 %p0, %r0, 0;
             {map}
             @!%p0 {store}
             barrier.cluster.arrive;
             barrier.cluster.wait;
             @%p0 bra done;
             ld.shared.u32 %r12, [sv];
             mul.wide.u32 %d20, %r8, 8;
             add.u64 %d20, %d1, %d20;
             mapa.shared::cluster.u32 %r13, sv, %r10;
             getctarank.shared::cluster.u32 %r14, %r13;
             mul.lo.u32 %r14, %r14, 100;
             add.u32 %r12, %r12, %r14;
             mov.u64 %d21, sv;
             cvta.shared.u64 %d21, %d21;
             mapa.u64 %d22, %d21, %r10;
             getctarank.u64 %r15, %d22;
             st.global.u32 [%d20], %r12;
             st.global.u32 [%d20+4], %r15;
             done:"
        );
        let launch = Launch {
            blocks: [4, 1, 1],
            cluster: [4, 1, 1],
            ..Launch::new(&memory)
        };
        let outcome = launch.run(&kernel(&body), "k", &arguments(&input, &output));
        assert_eq!((outcome.fault, outcome.reports), (None, vec![]), "{map}");
        // Block r holds what block r - 1 wrote: r (and 4 in block 0), and names rank r + 1.
        let want = [4 + 100, 1, 1 + 200, 2, 2 + 300, 3, 3, 0];
        assert_eq!(contents::<u32>(&output), want, "{map}");
        assert_eq!(outcome.counters.distributed_shared_bytes, 4 * 4);
    }
}

#[test]
fn ranks_beyond_the_cluster_and_foreign_shared_addresses_are_found() {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 4);
    let body = "mapa.shared::cluster.u32 %r9, sv, 1; ld.shared::cluster.u32 %r10, [%r9];";
    let outcome = outcome(&memory, body, &input, &input);
    assert_eq!(outcome.reports[0].kind, Kind::OutOfBounds);
    assert!(
        outcome.reports[0]
            .message
            .contains("rank 1 in a cluster of 1")
    );
    let fault = outcome.fault.expect("a fault");
    assert!(
        fault.message.contains("names rank 1 of a cluster of 1"),
        "{fault}"
    );

    let launch = Launch {
        blocks: [2, 1, 1],
        cluster: [2, 1, 1],
        ..Launch::new(&memory)
    };
    let body = "mov.u32 %r8, %cluster_ctarank; xor.b32 %r8, %r8, 1;
        mapa.shared::cluster.u32 %r9, sv, %r8; st.shared.u32 [%r9], %r0;";
    let outcome = launch.run(&kernel(body), "k", &arguments(&input, &input));
    let fault = outcome.fault.expect("a fault");
    assert_eq!(fault.kind, Kind::OutOfBounds);
    assert!(fault.message.contains(".shared::cluster"), "{fault}");
}
