//! Steps on a GPU.

use tollgate::device::{
    Backend, Buffer, DeviceSpec, Faults, Gpu, StatusBlock, Stream, VirtualOptions,
};
use tollgate::gpu::{DeviceLayer, DeviceStep};
use tollgate::{Element, RoutingTable, StepContext};

use super::clock::{Clock, Measured};
use super::tensors::{Gradients, Tensors};
use super::{Counted, Seen};
use crate::error::{Failure, Result};
use crate::load::{Model, Tokens};
use crate::step::{Outputs, Problem};

/// Opens a device.
///
/// # Errors
/// One that is not there.
pub(super) fn open(spec: DeviceSpec, checks: bool, threads: usize, seed: u64) -> Result<Gpu> {
    Ok(match spec {
        DeviceSpec::Virtual => Gpu::virtual_gpu(&VirtualOptions {
            seed,
            checks,
            threads,
            ..VirtualOptions::default()
        })?,
        cuda => Gpu::open(cuda)?,
    })
}

/// Indices that only the device could look at. Faulty rows are no error: the report tells of them.
fn refuse_bad_indices(status: &StatusBlock) -> Result<()> {
    let faults = status.faults & !Faults::FAULTY_ROW;
    if faults == 0 {
        return Ok(());
    }
    let what = match faults {
        Faults::TOKEN_ID => "token ids outside the hash table",
        Faults::TOKEN_OFFSETS => "sequence offsets that are no prefix sums",
        Faults::EXPERT_INDEX => "expert indices out of range",
        _ => "indices out of range",
    };
    let place = match status.first_bad_index {
        u32::MAX => String::new(),
        position => format!(", the first at position {position}"),
    };
    Err(Failure::Usage(format!(
        "the device met {what}{place}; --device cpu names the value"
    )))
}

/// A GPU with the tensors of a command, and the memory that layers work in.
#[derive(Debug)]
pub(super) struct OnGpu<T> {
    gpu: Gpu,
    stream: Stream,
    tensors: Tensors<T>,
    y: Buffer<T>,
    gradients: Option<Gradients<T>>,
    /// Grow to what the largest layer needs.
    state: Buffer<u8>,
    workspace: Buffer<u8>,
    latest: Latest,
}

/// The latest step; empty before one.
#[derive(Debug, Default)]
struct Latest {
    step: DeviceStep,
    counted: Option<Vec<Counted>>,
    gate: bool,
    noisy: bool,
}

/// One pass, or two.
#[derive(Debug)]
struct Ran {
    step: DeviceStep,
    measured: Measured,
}

impl<T: Element> OnGpu<T> {
    pub(super) fn new(
        gpu: Gpu,
        model: &Model<T>,
        tokens: &Tokens<T>,
        outputs: &Outputs<T>,
    ) -> Result<Self> {
        let stream = gpu.stream()?;
        let tensors = Tensors::new(&gpu, &stream, model, tokens)?;
        let backward = outputs.backward.as_ref();
        let gradients = backward.map(|b| Gradients::new(&gpu, &stream, b));
        Ok(Self {
            y: gpu.alloc(tokens.x.len())?,
            gradients: gradients.transpose()?,
            state: gpu.alloc(0)?,
            workspace: gpu.alloc(0)?,
            gpu,
            stream,
            tensors,
            latest: Latest::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.gpu.facts().name
    }

    pub(super) fn counts(&self) -> bool {
        self.gpu.facts().backend == Backend::Virtual
    }

    pub(super) fn step(
        &mut self,
        problem: &Problem<'_, T>,
        ctx: &StepContext,
        backward: bool,
    ) -> Result<f64> {
        let mut ran = self.run(problem, ctx, backward)?;
        let router = &problem.options().router;
        let (seconds, counted) = match ran.measured {
            Measured::Counted(counted) => (f64::NAN, Some(counted)),
            Measured::Seconds(measured) => {
                for stage in &mut ran.step.trace.stages {
                    let found = measured.iter().find(|(name, _)| *name == stage.name);
                    stage.seconds = found.map_or(f64::NAN, |&(_, seconds)| seconds);
                }
                (measured.iter().map(|(_, seconds)| seconds).sum(), None)
            }
        };
        self.latest = Latest {
            step: ran.step,
            counted,
            gate: router.has_gate(),
            noisy: router.is_noisy() && ctx.training,
        };
        Ok(seconds)
    }

    /// A forward pass that leaves the latest step as it is.
    pub(super) fn forward_aside(
        &mut self,
        problem: &Problem<'_, T>,
        ctx: &StepContext,
    ) -> Result<RoutingTable> {
        Ok(self.run(problem, ctx, false)?.step.gate.table)
    }

    fn run(&mut self, problem: &Problem<'_, T>, ctx: &StepContext, backward: bool) -> Result<Ran> {
        let (t, h) = (problem.tokens.count, problem.tokens.hidden);
        let layer = problem.layer.on(self.gpu.clone());
        let layer = DeviceLayer::<T>::new(&layer, t, ctx.training)?;
        let (stream, gpu) = (&self.stream, &self.gpu);
        for (buffer, bytes) in [
            (&mut self.state, layer.state_bytes()),
            (&mut self.workspace, layer.workspace_bytes()),
        ] {
            if buffer.len() < bytes {
                // The old memory goes first: the new one may need its place.
                *buffer = gpu.alloc(0)?;
                *buffer = gpu.alloc(bytes)?;
            }
        }
        self.tensors.set_step(stream, ctx)?;
        let mut state = layer.state(stream, self.state.slice_mut())?;
        let mut workspace = self.workspace.slice_mut();
        let (inputs, weights) = (self.tensors.inputs()?, self.tensors.weights(problem));
        let mut clock = match gpu.facts().backend {
            Backend::Virtual => Clock::counting(gpu),
            Backend::Cuda => Clock::timing(),
        };
        let mut passes = || {
            let y = self.y.slice_mut().rows("y", t, h, h)?;
            let memory = workspace.reborrow();
            layer.forward_observed(stream, &inputs, &weights, y, &mut state, memory, &mut clock)?;
            if let (true, Some(gradients)) = (backward, &mut self.gradients) {
                let router = &problem.options().router;
                let noisy = router.is_noisy() && ctx.training;
                let (dy, mut grads) = gradients.views(t, h, router.has_gate(), noisy)?;
                let memory = workspace.reborrow();
                layer.backward_observed(
                    stream, &inputs, &weights, dy, &mut state, &mut grads, memory, &mut clock,
                )?;
            }
            Ok::<(), tollgate::Error>(())
        };
        let done = passes();
        // What the checks found says more than the error that it became.
        if let Some(found) = clock.take_finding() {
            return Err(found.into());
        }
        done?;
        let measured = clock.finish(stream)?;
        let step = state.download(stream)?;
        refuse_bad_indices(&step.status)?;
        Ok(Ran { step, measured })
    }

    /// Fetches what the latest step wrote.
    pub(super) fn collect(&self, outputs: &mut Outputs<T>) -> Result<()> {
        self.stream.read_into(self.y.slice(), &mut outputs.y)?;
        if let (Some(gradients), Some(b)) = (&self.gradients, &mut outputs.backward) {
            let Latest { gate, noisy, .. } = self.latest;
            gradients.read_into(&self.stream, b, gate, noisy)?;
        }
        Ok(())
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        let step = &self.latest.step;
        Seen {
            gate: &step.gate,
            router_logits: &step.router_logits,
            router_logit_gradient: &step.router_logit_gradient,
            trace: &step.trace,
        }
    }

    pub(super) fn counted(&self) -> Option<&[Counted]> {
        self.latest.counted.as_deref()
    }
}
