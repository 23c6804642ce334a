//! Bulk copies through PTX.

mod barriers;
mod linear;
mod stores;
mod tensor;

use super::super::testing::{Launch, Outcome, buffer, contents, empty};
use crate::memory::Memory;
use crate::report::Kind;

/// A kernel around `body`. `%t` is the thread, `%lead` whether it is the first, `%tile` 8 KiB of shared
/// memory, `%bar` an mbarrier for one arrival that every thread may use; parameters: two tensor maps,
/// `in` in `%in` and `out` in `%out`. `AWAIT` waits for the barrier's first phase.
fn kernel(body: &str) -> String {
    let body = body.replace(
        "AWAIT",
        "TRY:\nmbarrier.try_wait.parity.shared::cta.b64 %p, [%bar], 0;\n@!%p bra TRY;",
    );
    format!(
        ".version 8.6\n.target sm_90a\n.address_size 64\n\
         .visible .entry k(.param .align 64 .b8 map[128], .param .align 64 .b8 other[128], \
         .param .u64 in, .param .u64 out)\n{{\n\
         .shared .align 1024 .b8 tile[8192];\n.shared .align 8 .b64 bar;\n\
         .reg .b64 %in, %out, %map, %other, %x<9>;\n.reg .b32 %t, %tile, %bar, %v<9>, %s<9>;\n\
         .reg .b16 %h;\n.reg .pred %p, %q, %lead;\n\
         ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\n\
         mov.b64 %x0, map;\ncvta.param.u64 %map, %x0;\nmov.b64 %x0, other;\n\
         cvta.param.u64 %other, %x0;\n\
         mov.u32 %t, %tid.x;\nsetp.eq.u32 %lead, %t, 0;\nmov.u32 %tile, tile;\nmov.u32 %bar, bar;\n\
         @%lead mbarrier.init.shared::cta.b64 [%bar], 1;\n\
         @%lead fence.mbarrier_init.release.cluster;\n\
         barrier.cluster.arrive;\nbarrier.cluster.wait;\n{body}\nret;\n}}\n"
    )
}

/// Every thread stores the 16 bytes at 16 times its number of `tile` to `out`.
const DUMP: &str = "mad.lo.u32 %s0, %t, 16, %tile;\n\
                    ld.shared.v4.u32 {%v0, %v1, %v2, %v3}, [%s0];\n\
                    mul.wide.u32 %x1, %t, 16;\nadd.s64 %x1, %out, %x1;\n\
                    st.global.v4.u32 [%x1], {%v0, %v1, %v2, %v3};\n";

/// Every thread loads 16 bytes from `in` and stores them in `tile`.
const FILL: &str = "mul.wide.u32 %x1, %t, 16;\nadd.s64 %x1, %in, %x1;\n\
                    ld.global.v4.u32 {%v0, %v1, %v2, %v3}, [%x1];\n\
                    mad.lo.u32 %s0, %t, 16, %tile;\n\
                    st.shared.v4.u32 [%s0], {%v0, %v1, %v2, %v3};\n";

/// Makes stores visible to copies, and waits for all threads.
const PUBLISH: &str = "fence.proxy.async.shared::cta;\nbar.sync 0;\n";

/// Runs a kernel with its maps (zeros: none) and buffers.
fn launch(
    text: &str,
    maps: [[u8; 128]; 2],
    [input, output]: [u64; 2],
    memory: &Memory,
    change: impl FnOnce(&mut Launch<'_>),
) -> Outcome {
    let mut launch = Launch::new(memory);
    change(&mut launch);
    let mut params = maps.as_flattened().to_vec();
    params.extend(input.to_le_bytes());
    params.extend(output.to_le_bytes());
    launch.run(text, "k", &params)
}

/// Runs a kernel on `input` with 4 KiB of output that is all written before.
fn run(body: &str, input: &[u32], change: impl FnOnce(&mut Launch<'_>)) -> (Outcome, Vec<u32>) {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, input);
    let output = buffer(&memory, &[0xdead_beef_u32; 1024]);
    let text = kernel(body);
    let at = [input.base(), output.base()];
    let outcome = launch(&text, [[0; 128]; 2], at, &memory, change);
    (outcome, contents(&output))
}

fn silent(outcome: &Outcome) {
    assert!(
        outcome.fault.is_none() && outcome.reports.is_empty(),
        "{outcome:?}"
    );
}

fn kinds(outcome: &Outcome) -> Vec<Kind> {
    assert!(outcome.fault.is_none(), "{outcome:?}");
    outcome.reports.iter().map(|report| report.kind).collect()
}

fn numbers(count: u32) -> Vec<u32> {
    (0..count).map(|number| number * 7 + 1).collect()
}

/// Input of which only the first part is written.
fn half_written(memory: &Memory, written: &[u32], bytes: u64) -> u64 {
    let input = empty(memory, bytes);
    input.write(0, bytemuck::cast_slice(written));
    input.base()
}
