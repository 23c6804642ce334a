//! Tests of loads, stores and addresses.

mod addresses;
mod checks;
mod counters;
mod refusals;
mod types;

use crate::exec::testing::{Launch, Outcome, params};
use crate::memory::{Allocation, Memory};

/// A kernel `k` around `body`: `%d0` is an input, `%d1` an output; `%r0` the thread; `%d3` and `%d4`
/// the thread's 4 bytes of both, `%d6` and `%d7` its 16 bytes.
pub(in crate::exec) fn kernel(body: &str) -> String {
    format!(
        ".version 8.6
.target sm_90a
.address_size 64
.const .align 16 .b32 cv[4] = {{10, 20, 30, 40}};
.global .align 16 .b32 gv[4] = {{1, 2, 3, 4}};
.visible .entry k(.param .u64 p0, .param .u64 p1, .param .align 8 .b8 p2[16])
{{
.reg .pred %p<8>;
.reg .b16 %h<8>;
.reg .b32 %r<32>;
.reg .b64 %d<32>;
.reg .f32 %f<8>;
.reg .f64 %e<8>;
.reg .b128 %q<4>;
.shared .align 128 .b8 sv[4096];
.local .align 16 .b8 lv[64];
ld.param.u64 %d0, [p0];
ld.param.u64 %d1, [p1];
mov.u32 %r0, %tid.x;
mul.wide.u32 %d2, %r0, 4;
add.u64 %d3, %d0, %d2;
add.u64 %d4, %d1, %d2;
mul.wide.u32 %d5, %r0, 16;
add.u64 %d6, %d0, %d5;
add.u64 %d7, %d1, %d5;
{body}
ret;
}}
"
    )
}

/// The third parameter: sixteen bytes by value.
pub(in crate::exec) const STRUCT: [u32; 4] = [0x1111_1111, 0x2222_2222, 0x8333_3333, 0x4444_4444];

pub(in crate::exec) fn arguments(input: &Allocation, output: &Allocation) -> Vec<u8> {
    let mut all = params(&[input.base(), output.base()]);
    all.extend(STRUCT.iter().flat_map(|word| word.to_le_bytes()));
    all
}

/// Runs one warp of `body` with every check.
pub(in crate::exec) fn outcome(
    memory: &Memory,
    body: &str,
    input: &Allocation,
    output: &Allocation,
) -> Outcome {
    Launch::new(memory).run(&kernel(body), "k", &arguments(input, output))
}

/// As [`outcome`], where nothing may be reported.
pub(in crate::exec) fn clean(memory: &Memory, body: &str, input: &Allocation, output: &Allocation) {
    let outcome = outcome(memory, body, input, output);
    assert!(
        outcome.fault.is_none(),
        "{body}: {}",
        outcome.fault.unwrap()
    );
    let first = outcome.reports.first();
    assert!(first.is_none(), "{body}: {}", first.unwrap());
}
