//! What ptxas refuses is an error when the module is loaded, with the instruction's line.

use super::kernel;
use crate::exec::testing::load_error;

#[test]
fn illegal_forms_name_their_line() {
    for (instruction, part) in [
        ("ld.global.f16 %h0, [%d0];", "F16"),
        (
            "ld.global.v8.b32 {%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8}, [%d0];",
            "sm_100",
        ),
        (
            "ld.global.v4.b64 {%d9, %d10, %d11, %d12}, [%d0];",
            "128 bits",
        ),
        ("ld.global.v2.b128 {%q0, %q1}, [%d0];", "128 bits"),
        ("ld.global.v2.u32 {%r1, %r2, %r3}, [%d0];", "3 elements"),
        ("ld.global.v2.u32 %r1, [%d0];", "1 elements"),
        ("ld.global.u64 %r1, [%d0];", "32 bits"),
        ("ld.volatile.global.ca.u32 %r1, [%d0];", "cache operator"),
        ("ld.volatile.gpu.global.u32 %r1, [%d0];", "scope"),
        ("ld.volatile.const.u32 %r1, [cv];", "strong"),
        ("ld.volatile.local.u32 %r1, [lv];", "strong"),
        ("ld.acquire.global.u32 %r1, [%d0];", "scope"),
        ("ld.gpu.global.u32 %r1, [%d0];", "scope"),
        ("ld.release.gpu.global.u32 %r1, [%d0];", ".release"),
        ("st.acquire.gpu.global.u32 [%d0], %r1;", ".acquire"),
        ("ld.mmio.global.u32 %r1, [%d0];", ".relaxed.sys"),
        ("ld.nc.u32 %r1, [%d0];", ".nc"),
        ("ld.shared.L1::evict_last.u32 %r1, [sv];", "hints"),
        (
            "ld.global.L1::evict_sometimes.u32 %r1, [%d0];",
            "evict_sometimes",
        ),
        ("st.global.L2::128B.u32 [%d0], %r1;", "L2::128B"),
        ("ld.global.global.u32 %r1, [%d0];", "before"),
        ("ld.shared.u32 %r1, [gv];", "Global"),
        ("ld.global.u32 %r1, [sv];", "Shared"),
        ("st.const.u32 [cv], %r1;", "const"),
        ("st.param.u32 [p2], %r1;", "cannot be written"),
        ("ld.global.u32 %r1;", "missing"),
        ("ld.global.u32 %r1, [%d0], %d1;", "too many"),
        ("ld.global.L2::cache_hint.u32 %r1, [%d0];", "missing"),
        ("ld.global %r1, [%d0];", "type"),
        ("ldu.shared.u32 %r1, [sv];", "shared"),
        ("cvta.u64 %d9, %d0;", "u64"),
        ("cvta.to.shared.u32 %r1, %r2;", "u64"),
        ("mapa.shared.u32 %r1, sv, 0;", "shared"),
        ("prefetch.shared.L1 [sv];", "shared"),
        ("prefetch.L3 [%d0];", "L3"),
        ("applypriority.global.L2::evict_normal [%d0], 64;", "128"),
        ("discard.global.L2 [%d0], 32;", "128"),
        (
            "createpolicy.fractional.L2::evict_never.b64 %d9;",
            "evict_never",
        ),
        (
            "multimem.red.release.sys.global.add.u32 [%d0], %r1;",
            "multicast",
        ),
    ] {
        let text = kernel(instruction);
        let error = load_error(&text, "k");
        assert!(error.message.contains(part), "{instruction}: {error}");
        assert_eq!(error.text, instruction);
        let line = text.lines().position(|line| line == instruction).unwrap() as u32 + 1;
        assert_eq!(error.line, line, "{instruction}");
    }
}
