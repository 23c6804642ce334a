//! One gate call over device memory, in fenced and poisoned buffers.

use tollgate_core::options::GateOptions;
use tollgate_core::StepContext;
use tollgate_device::{Gpu, StepBlock, Stream};
use tollgate_gating::GateState;
use tollgate_gating::gpu::{self, DeviceGateInputs, DeviceGateState, GatePlan};
use tollgate_testkit::Data;

use crate::memory::{Fenced, step_block};

/// Logits in device memory with everything that a call needs.
pub struct Problem {
    pub plan: GatePlan,
    pub logits: Fenced<f32>,
    pub stride: usize,
    pub step: Fenced<StepBlock>,
    pub state: Fenced<u8>,
    pub workspace: Fenced<u8>,
}

/// Elements by which `Fenced<u8>` must start later to lie at a multiple of 256 bytes, behind its fence
/// of 32.
const TO_ALIGNMENT: usize = 256 - 32;

impl Problem {
    /// `logits` `[T, E]` with `gap` elements between rows, from an address that is `misalign` elements
    /// beyond a multiple of 128 bytes.
    pub fn new(
        gpu: &Gpu,
        options: &GateOptions,
        (tokens, experts): (usize, usize),
        logits: &[f32],
        ctx: &StepContext,
        (gap, misalign): (usize, usize),
    ) -> Self {
        let plan = GatePlan::new(options, tokens, experts, ctx.training, false).unwrap();
        let stride = experts + gap;
        let mut rows = vec![f32::NAN; tokens * stride];
        for (row, from) in rows.chunks_mut(stride).zip(logits.chunks(experts)) {
            row[..experts].copy_from_slice(from);
        }
        Self {
            logits: Fenced::from_slice(gpu, &rows, misalign),
            stride,
            step: Fenced::from_slice(gpu, &[step_block(ctx)], 0),
            state: Fenced::new(gpu, plan.state_bytes(), TO_ALIGNMENT),
            workspace: Fenced::new(gpu, plan.workspace_bytes(), TO_ALIGNMENT),
            plan,
        }
    }

    /// Puts the call into the stream.
    pub fn launch(&mut self, gpu: &Gpu, stream: &Stream) -> tollgate_core::Result<()> {
        let (t, e) = (self.plan.num_tokens(), self.plan.num_experts());
        let logits = self.logits.get().rows("logits", t, e, self.stride)?;
        let inputs = DeviceGateInputs::new(logits, self.step.get());
        let mut state = DeviceGateState::new(&self.plan, self.state.get_mut())?;
        let workspace = self.workspace.get_mut();
        gpu::gate(gpu, stream, &self.plan, &inputs, &mut state, workspace)
    }

    /// What the call left, once the fences are seen to stand.
    pub fn finish(&mut self, stream: &Stream) -> GateState {
        let state = DeviceGateState::new(&self.plan, self.state.get_mut()).unwrap();
        let host = state.download(stream).unwrap();
        self.state.read_fences(stream);
        self.workspace.read_fences(stream);
        self.logits.read_fences(stream);
        host
    }

    /// Both.
    pub fn run(&mut self, gpu: &Gpu) -> GateState {
        let stream = gpu.default_stream();
        self.launch(gpu, stream).unwrap();
        self.finish(stream)
    }
}

/// Normal logits with standard deviation 2.
pub fn random_logits(tokens: usize, experts: usize, seed: u64) -> Vec<f32> {
    Data::new(seed).normals(tokens * experts, 2.0)
}
