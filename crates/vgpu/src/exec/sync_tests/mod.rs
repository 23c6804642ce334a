//! Tests of the instructions by which threads wait for each other and exchange what they have.

mod barrier;
mod copies;
mod mbarrier;
mod mbarrier_errors;
mod misc;
mod warp;

use super::testing::{Launch, Outcome, buffer, contents, params};
use crate::memory::Memory;
use crate::report::{Kind, Report};

/// A kernel `k` that gets the address of its output in `%out`, with `%tid` in `%t`, the lane in `%l` and
/// the number of its warp in `%w`, and has registers to play with: `%r`, `%d` (64 bits), `%p`.
pub(super) fn kernel(body: &str) -> String {
    format!(
        ".version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 out)
{{
    .reg .b32 %r<40>, %t, %l, %w;
    .reg .b64 %d<20>, %out, %mine;
    .reg .pred %p<10>;
    .shared .align 16 .b8 smem[4096];
    ld.param.u64 %out, [out];
    mov.u32 %t, %tid.x;
    mov.u32 %l, %laneid;
    shr.u32 %w, %t, 5;
    mul.wide.u32 %mine, %t, 4;
    add.s64 %mine, %out, %mine;
{body}
    ret;
}}
"
    )
}

/// A launch of one block.
pub(super) fn block(memory: &Memory, threads: u32) -> Launch<'_> {
    Launch {
        threads: [threads, 1, 1],
        budget: 200_000,
        ..Launch::new(memory)
    }
}

/// Runs a body for one block under a seed with a word of output a thread.
pub(super) fn run_seeded(body: &str, threads: u32, seed: u64) -> (Vec<u32>, Outcome) {
    let memory = Memory::new(1, true);
    let out = buffer(&memory, &vec![0_u32; threads as usize]);
    let launch = Launch {
        seed,
        ..block(&memory, threads)
    };
    let outcome = launch.run(&kernel(body), "k", &params(&[out.base()]));
    (contents(&out), outcome)
}

/// As [`run_seeded`], for a body about which no check has anything to say.
pub(super) fn clean(body: &str, threads: u32, seed: u64) -> Vec<u32> {
    let (out, outcome) = run_seeded(body, threads, seed);
    if let Some(report) = outcome.fault.iter().chain(&outcome.reports).next() {
        panic!("{report}\nin seed {seed} of\n{body}");
    }
    out
}

/// Everything that checks say about a body.
pub(super) fn complaints(body: &str, threads: u32, seed: u64) -> Vec<Report> {
    let (_, outcome) = run_seeded(body, threads, seed);
    outcome.reports.into_iter().chain(outcome.fault).collect()
}

/// The report of a kind; panics without one.
pub(super) fn complaint(body: &str, threads: u32, kind: Kind) -> Report {
    let all = complaints(body, threads, 1);
    match all.iter().find(|report| report.kind == kind) {
        Some(report) => report.clone(),
        None => panic!("no {kind:?} among {all:#?}\nof\n{body}"),
    }
}

/// Small deterministic randomness for inputs.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
}
