//! `ldmatrix`, `stmatrix` and `movmatrix` through PTX.

use super::super::testing::{Launch, Outcome, buffer, contents, empty, params};
use crate::layout::ldmatrix::place;
use crate::memory::Memory;
use crate::report::Kind;

/// A warp writes 32 rows of 16 bytes, `STRIDE` bytes apart, to shared memory, moves them by `ldmatrix`
/// from lane `l`'s row `l`, and stores what it got.
fn load_kernel(count: usize, trans: bool, space: &str, stride: u32, sync: &str) -> String {
    let names: Vec<String> = (0..count).map(|i| format!("%d{i}")).collect();
    let trans = if trans { ".trans" } else { "" };
    let stores: String = (0..count)
        .map(|i| format!("st.global.u32 [%rd2+{}], %d{i};\n", 128 * i))
        .collect();
    let address = if space.is_empty() { "%rd5" } else { "%s1" };
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n\
         .visible .entry k(.param .u64 in, .param .u64 out)\n{{\n\
         .shared .align 128 .b8 tile[8192];\n.reg .b64 %rd<6>;\n.reg .b32 %v<4>, %d<4>, %s<2>, %l;\n\
         ld.param.u64 %rd1, [in];\nld.param.u64 %rd2, [out];\nmov.u32 %l, %laneid;\n\
         mul.wide.u32 %rd3, %l, 16;\nadd.s64 %rd1, %rd1, %rd3;\n\
         mul.wide.u32 %rd3, %l, 4;\nadd.s64 %rd2, %rd2, %rd3;\n\
         ld.global.v4.u32 {{%v0, %v1, %v2, %v3}}, [%rd1];\n\
         mov.u32 %s0, tile;\nmad.lo.u32 %s1, %l, {stride}, %s0;\n\
         st.shared.v4.u32 [%s1], {{%v0, %v1, %v2, %v3}};\n{sync}\n\
         cvt.u64.u32 %rd4, %s1;\ncvta.shared.u64 %rd5, %rd4;\n\
         ldmatrix.sync.aligned.m8n8.x{count}{trans}{space}.b16 {{{}}}, [{address}];\n\
         {stores}ret;\n}}\n",
        names.join(", ")
    )
}

fn run(text: &str) -> (Outcome, Vec<u32>) {
    let memory = Memory::new(1, true);
    let halves: Vec<u16> = (0..32 * 8).collect();
    let input = buffer(&memory, &halves);
    let output = empty(&memory, 4 * 128);
    let outcome = Launch::new(&memory).run(text, "k", &params(&[input.base(), output.base()]));
    (outcome, contents(&output))
}

#[test]
fn loads_deal_out_the_matrices() {
    for count in [1, 2, 4] {
        for trans in [false, true] {
            for space in [".shared", ".shared::cta", ""] {
                let text = load_kernel(count, trans, space, 16, "bar.warp.sync -1;");
                let (outcome, got) = run(&text);
                assert!(outcome.fault.is_none(), "{outcome:?}");
                assert!(outcome.reports.is_empty(), "{outcome:?}");
                for (index, bits) in got.iter().enumerate().take(32 * count) {
                    let (matrix, lane) = (index / 32, index as u32 % 32);
                    let want = |half| {
                        let (row, col) = place(lane, half, trans);
                        (matrix as u32 * 8 + row) * 8 + col
                    };
                    assert_eq!(*bits, want(0) | want(1) << 16, "x{count} {trans} {index}");
                }
            }
        }
    }
}

#[test]
fn bank_conflicts_count() {
    let shared = |stride| {
        let text = load_kernel(4, false, ".shared", stride, "bar.warp.sync -1;");
        run(&text).0.counters.shared_read
    };
    // Rows side by side, in every other 16 bytes, in the same banks, and padded.
    for (stride, wavefronts) in [(16, 4), (32, 8), (128, 32), (144, 4)] {
        let traffic = shared(stride);
        assert_eq!(traffic.wavefronts, wavefronts, "stride {stride}");
        assert_eq!(traffic.conflicts, wavefronts - 4);
        assert_eq!((traffic.instructions, traffic.requested_bytes), (1, 512));
    }
}

#[test]
fn rows_written_by_other_lanes_need_a_barrier() {
    for trans in [false, true] {
        let text = load_kernel(4, trans, ".shared", 16, "");
        let (outcome, _) = run(&text);
        let kinds: Vec<Kind> = outcome.reports.iter().map(|report| report.kind).collect();
        assert_eq!(kinds, [Kind::WarpRace], "{outcome:?}");
    }
}

#[test]
fn rows_must_be_aligned_inside_and_written() {
    let text = load_kernel(4, false, ".shared", 16, "bar.warp.sync -1;");
    let cases = [
        ("[%s1];", "[%s1+8];", Kind::Misaligned),
        ("[%s1];", "[%s1+8192];", Kind::OutOfBounds),
        ("[%s1];", "[%s1+-512];", Kind::OutOfBounds),
    ];
    for (from, to, kind) in cases {
        let (outcome, _) = run(&text.replace(from, to));
        let fault = outcome.fault.expect("a fault");
        assert_eq!(fault.kind, kind, "{fault}");
    }
    let text = load_kernel(4, false, "", 16, "bar.warp.sync -1;").replace("[%rd5]", "[%rd1]");
    let fault = run(&text).0.fault.expect("a fault");
    assert_eq!(fault.kind, Kind::OutOfBounds, "{fault}");
    let text = load_kernel(4, false, ".shared", 16, "bar.warp.sync -1;");
    let (outcome, _) = run(&text.replace("[%s1];", "[%s1+256];"));
    assert_eq!(
        outcome.reports[0].kind,
        Kind::UninitialisedRead,
        "{outcome:?}"
    );
}

#[test]
fn stores_are_the_reverse_of_loads() {
    for trans in [false, true] {
        let word = if trans { ".trans" } else { "" };
        let text = load_kernel(4, trans, ".shared", 16, "bar.warp.sync -1;").replace(
            "st.global.u32 [%rd2+0]",
            &format!(
                "stmatrix.sync.aligned.m8n8.x4{word}.shared.b16 [%s1+1024], {{%d0, %d1, %d2, %d3}};\n\
                 bar.warp.sync -1;\n\
                 ld.shared.v4.u32 {{%d0, %d1, %d2, %d3}}, [%s1+1024];\nst.global.u32 [%rd2+0]"
            ),
        );
        let (outcome, got) = run(&text);
        assert!(
            outcome.fault.is_none() && outcome.reports.is_empty(),
            "{outcome:?}"
        );
        for (index, bits) in got.iter().enumerate() {
            let first = (index % 32 * 8 + index / 32 * 2) as u32;
            assert_eq!(*bits, first | (first + 1) << 16);
        }
        assert_eq!(outcome.counters.shared_write.instructions, 2);
        let (outcome, _) = run(&text.replacen("bar.warp.sync -1;\nld", "ld", 1));
        assert_eq!(outcome.reports.len(), 1, "{outcome:?}");
        assert_eq!(outcome.reports[0].kind, Kind::WarpRace);
    }
}

#[test]
fn movmatrix_transposes() {
    let text = load_kernel(1, false, ".shared", 16, "bar.warp.sync -1;").replace(
        "st.global.u32",
        "movmatrix.sync.aligned.m8n8.trans.b16 %d0, %d0;\nst.global.u32",
    );
    let (outcome, got) = run(&text);
    assert!(
        outcome.fault.is_none() && outcome.reports.is_empty(),
        "{outcome:?}"
    );
    for lane in 0..32 {
        let want = |half| {
            let (row, col) = place(lane, half, true);
            row * 8 + col
        };
        assert_eq!(got[lane as usize], want(0) | want(1) << 16);
    }
}
