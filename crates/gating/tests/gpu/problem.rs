//! One gate call over device memory, in fenced and poisoned buffers.

use tollgate_core::StepContext;
use tollgate_core::options::GateOptions;
use tollgate_device::{Gpu, StatusBlock, StepBlock, Stream};
use tollgate_gating::GateState;
use tollgate_gating::gpu::{self, DeviceGateInputs, DeviceGateState, GatePlan};
use tollgate_testkit::Data;

use crate::memory::{Fenced, step_block};

/// The logits of a problem, and where they lie.
#[derive(Clone)]
pub struct Logits {
    pub tokens: usize,
    pub experts: usize,
    /// `[T, E]`.
    pub values: Vec<f32>,
    /// Elements between rows.
    pub gap: usize,
    /// Elements by which they start beyond a multiple of 128 bytes.
    pub misalign: usize,
}

impl Logits {
    /// Normal numbers with standard deviation 2, packed and aligned.
    pub fn random(tokens: usize, experts: usize, seed: u64) -> Self {
        Self {
            tokens,
            experts,
            values: Data::new(seed).normals(tokens * experts, 2.0),
            gap: 0,
            misalign: 0,
        }
    }
}

/// A gate call with all of its memory.
pub struct Problem {
    pub plan: GatePlan,
    pub step: Fenced<StepBlock>,
    logits: Fenced<f32>,
    noise_logits: Option<Fenced<f32>>,
    stride: usize,
    state: Fenced<u8>,
    workspace: Fenced<u8>,
    dweights: Fenced<f32>,
    dlogits: Fenced<f32>,
    dnoise_logits: Option<Fenced<f32>>,
}

/// Elements by which `Fenced<u8>` must start later to lie at a multiple of 256 bytes, behind its
/// fence of 32.
const TO_ALIGNMENT: usize = 256 - 32;

impl Problem {
    pub fn new(gpu: &Gpu, options: &GateOptions, logits: &Logits, ctx: &StepContext) -> Self {
        let (t, e) = (logits.tokens, logits.experts);
        let plan = GatePlan::new(options, t, e, ctx.training, false).unwrap();
        let stride = e + logits.gap;
        let spread = |values: &[f32]| {
            let mut rows = vec![f32::NAN; t * stride];
            for (row, from) in rows.chunks_mut(stride).zip(values.chunks(e)) {
                row[..e].copy_from_slice(from);
            }
            Fenced::from_slice(gpu, &rows, logits.misalign)
        };
        let noisy = ctx.training && options.router.is_noisy();
        let mut data = Data::new(77);
        let noise: Vec<f32> = data.normals(t * e, 1.0);
        let dweights: Vec<f32> = data.normals(plan.max_assignments(), 1.0);
        let outputs = || Fenced::new(gpu, t * stride, logits.misalign);
        Self {
            step: Fenced::from_slice(gpu, &[step_block(ctx)], 0),
            logits: spread(&logits.values),
            noise_logits: noisy.then(|| spread(&noise)),
            stride,
            state: Fenced::new(gpu, plan.state_bytes(), TO_ALIGNMENT),
            workspace: Fenced::new(gpu, plan.workspace_bytes(), TO_ALIGNMENT),
            dweights: Fenced::from_slice(gpu, &dweights, 0),
            dlogits: outputs(),
            dnoise_logits: noisy.then(outputs),
            plan,
        }
    }

    /// Puts the forward pass into the stream.
    pub fn forward(&mut self, gpu: &Gpu, stream: &Stream) -> tollgate_core::Result<()> {
        self.launch(gpu, stream, false)
    }

    /// Puts both passes into the stream.
    pub fn both(&mut self, gpu: &Gpu, stream: &Stream) -> tollgate_core::Result<()> {
        self.launch(gpu, stream, true)
    }

    fn launch(&mut self, gpu: &Gpu, stream: &Stream, back: bool) -> tollgate_core::Result<()> {
        let (t, e, stride) = (self.plan.num_tokens(), self.plan.num_experts(), self.stride);
        let mut inputs = DeviceGateInputs::new(
            self.logits.get().rows("logits", t, e, stride)?,
            self.step.get(),
        );
        if let Some(noise) = &self.noise_logits {
            inputs.noise_logits = Some(noise.get().rows("noise_logits", t, e, stride)?);
        }
        inputs.local_experts = e / 3..e / 3 + e.div_ceil(2);
        let mut state = DeviceGateState::new(&self.plan, self.state.get_mut())?;
        let workspace = self.workspace.get_mut();
        gpu::gate(gpu, stream, &self.plan, &inputs, &mut state, workspace)?;
        if !back {
            return Ok(());
        }
        let dlogits = self.dlogits.get_mut().rows("dlogits", t, e, stride)?;
        let dnoise = match &mut self.dnoise_logits {
            Some(dnoise) => Some(dnoise.get_mut().rows("dnoise_logits", t, e, stride)?),
            None => None,
        };
        gpu::gate_backward(
            gpu,
            stream,
            &self.plan,
            &inputs,
            &state,
            self.dweights.get(),
            dlogits,
            dnoise,
            self.workspace.get_mut(),
        )
    }

    /// What the forward pass left, once the fences are seen to stand.
    pub fn state(&mut self, stream: &Stream) -> GateState {
        let state = DeviceGateState::new(&self.plan, self.state.get_mut()).unwrap();
        let host = state.download(stream).unwrap();
        self.state.read_fences(stream);
        self.workspace.read_fences(stream);
        self.logits.read_fences(stream);
        host
    }

    /// The status block as the device holds it.
    pub fn status(&mut self, stream: &Stream) -> StatusBlock {
        let state = DeviceGateState::new(&self.plan, self.state.get_mut()).unwrap();
        stream.read(state.status()).unwrap()[0]
    }

    /// The gradients that the backward pass left, `[T, E]`: logits, and noise logits if there are.
    /// What is between rows must be poison still.
    pub fn gradients(&mut self, stream: &Stream) -> Vec<Vec<f32>> {
        let e = self.plan.num_experts();
        let outputs = std::iter::once(&self.dlogits).chain(&self.dnoise_logits);
        outputs
            .map(|memory| {
                let mut values = Vec::new();
                for row in memory.read(stream).chunks(self.stride) {
                    values.extend_from_slice(&row[..e]);
                    assert!(row[e..].iter().all(|gap| gap.to_bits() == u32::MAX));
                }
                values
            })
            .collect()
    }
}
