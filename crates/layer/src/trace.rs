//! What a step did and how long it took.

use std::time::Instant;

use tollgate_core::{DropMode, RoutingTable};
use tollgate_gating::{GateStatus, Losses};

use crate::work::Work;

/// One stage of a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// `router`, `gate`, `permute`, `up`, `down`, `unpermute`, and the same with `_backward`.
    pub name: &'static str,
    /// Wall-clock time in seconds.
    pub seconds: f64,
    /// Useful floating-point operations (a multiply–add counts as two); 0 where a stage only moves
    /// or compares.
    pub flops: f64,
    /// Bytes that must be read and written, each tensor once.
    pub bytes: f64,
}

/// The stages of the latest forward and backward pass, and what the gate decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Stages of the forward pass, then of the backward pass if there was one, in order of time.
    pub stages: Vec<Stage>,
    /// T.
    pub tokens: usize,
    /// A.
    pub assignments: usize,
    /// `[E]` rows of each expert.
    pub tokens_per_expert: Vec<usize>,
    /// Tokens with exactly one expert.
    pub one_expert_tokens: usize,
    /// Tokens with exactly two experts.
    pub two_expert_tokens: usize,
    /// Assignments that capacity dropped.
    pub dropped_assignments: usize,
    /// `Some` when Gating Dropout dropped the step.
    pub dropped: Option<DropMode>,
    /// Balance and z loss.
    pub losses: Losses,
    /// Bad data.
    pub status: GateStatus,
}

impl Trace {
    /// Sum of the stages in seconds.
    pub fn seconds(&self) -> f64 {
        self.stages.iter().map(|s| s.seconds).sum()
    }

    /// Runs a stage and notes it.
    pub(crate) fn stage<R>(
        &mut self,
        name: &'static str,
        work: Work,
        run: impl FnOnce() -> R,
    ) -> R {
        let start = Instant::now();
        let result = run();
        self.stages.push(Stage {
            name,
            seconds: start.elapsed().as_secs_f64(),
            flops: work.flops,
            bytes: work.bytes,
        });
        result
    }

    /// Notes what the gate decided.
    pub(crate) fn decisions(&mut self, table: &RoutingTable, selected: usize) {
        self.tokens = table.num_tokens();
        self.assignments = table.num_assignments();
        self.tokens_per_expert.clear();
        self.tokens_per_expert
            .extend((0..table.num_experts()).map(|e| table.count_of(e)));
        self.one_expert_tokens = table.tokens_with(1);
        self.two_expert_tokens = table.tokens_with(2);
        self.dropped_assignments = selected - self.assignments;
    }
}
