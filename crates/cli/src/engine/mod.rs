//! What runs a step: the CPU, or a GPU that holds the tensors meanwhile.

mod clock;
mod gpu;
mod tensors;

use tollgate::device::LaunchCounters;
use tollgate::gating::GateState;
use tollgate::{Cpu, Element, LayerState, RoutingTable, StepContext, Trace};

use crate::args::{DeviceArgs, ExecutionArgs, Place};
use crate::error::Result;
use crate::load::{Model, Tokens};
use crate::step::{Outputs, Problem};

use gpu::OnGpu;

/// A step as it can be looked at, wherever it ran.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What the gate decided.
    pub gate: &'a GateState,
    /// `[T, E]`; empty for routers without a gate.
    pub router_logits: &'a [f32],
    /// `[T, E]`; empty without a backward pass and for routers without a gate.
    pub router_logit_gradient: &'a [f32],
    /// Stages and decisions. The seconds of a stage are NaN where it is counted instead.
    pub trace: &'a Trace,
}

/// What the kernels of one stage did on the virtual GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// As in [`Trace::stages`].
    pub stage: &'static str,
    /// Kernels.
    pub launches: usize,
    /// Summed over them.
    pub counters: LaunchCounters,
}

/// What runs the steps of a command, for all of its routers.
#[derive(Debug)]
pub struct Engine<T> {
    place: Place,
    running: Running<T>,
}

#[derive(Debug)]
enum Running<T> {
    Cpu(Box<LayerState<T>>),
    Gpu(Box<OnGpu<T>>),
}

impl<T: Element> Engine<T> {
    /// Opens the device and gives it the tensors.
    ///
    /// # Errors
    /// A device that is not there; out of memory.
    pub fn new(
        args: &DeviceArgs,
        execution: &ExecutionArgs,
        cpu: &Cpu,
        model: &Model<T>,
        tokens: &Tokens<T>,
        outputs: &Outputs<T>,
    ) -> Result<Self> {
        args.validate()?;
        let running = match args.device {
            Place::Cpu => Running::Cpu(Box::default()),
            Place::Gpu(spec) => {
                let gpu = gpu::open(spec, args.checks, cpu.threads(), execution.seed)?;
                Running::Gpu(Box::new(OnGpu::new(gpu, model, tokens, outputs)?))
            }
        };
        Ok(Self {
            place: args.device,
            running,
        })
    }

    /// On what it runs, as `--device` spells it.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The GPU's name, where it is one.
    pub fn gpu_name(&self) -> Option<&str> {
        match &self.running {
            Running::Cpu(_) => None,
            Running::Gpu(gpu) => Some(gpu.name()),
        }
    }

    /// Whether steps are counted and not timed.
    pub fn counts(&self) -> bool {
        match &self.running {
            Running::Cpu(_) => false,
            Running::Gpu(gpu) => gpu.counts(),
        }
    }

    /// Runs one step and returns its time in seconds: wall-clock on the CPU, by the device's events
    /// on CUDA, NaN where it is counted. The CPU writes `outputs`; a GPU keeps them, see
    /// [`Engine::collect`].
    ///
    /// # Errors
    /// What the layer refuses; on the virtual GPU what the checks found.
    pub fn step(
        &mut self,
        problem: &Problem<'_, T>,
        ctx: &StepContext,
        outputs: &mut Outputs<T>,
    ) -> Result<f64> {
        match &mut self.running {
            Running::Cpu(state) => problem.step(ctx, state, outputs),
            Running::Gpu(gpu) => gpu.step(problem, ctx, outputs.backward.is_some()),
        }
    }

    /// Fetches what the latest step wrote.
    ///
    /// # Errors
    /// What the device says.
    pub fn collect(&self, outputs: &mut Outputs<T>) -> Result<()> {
        match &self.running {
            Running::Cpu(_) => Ok(()),
            Running::Gpu(gpu) => gpu.collect(outputs),
        }
    }

    /// The latest step; nothing before one.
    pub fn seen(&self) -> Seen<'_> {
        match &self.running {
            Running::Cpu(state) => Seen {
                gate: state.gate(),
                router_logits: state.router_logits(),
                router_logit_gradient: state.router_logit_gradient(),
                trace: &state.trace,
            },
            Running::Gpu(gpu) => gpu.seen(),
        }
    }

    /// What the stages of the latest step did, where it was counted.
    pub fn counted(&self) -> Option<&[Counted]> {
        match &self.running {
            Running::Cpu(_) => None,
            Running::Gpu(gpu) => gpu.counted(),
        }
    }

    /// Runs another forward pass beside the latest step, which stays the one that is seen; returns
    /// its routing, and its output `[T, H]`.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn aside(
        &mut self,
        problem: &Problem<'_, T>,
        ctx: &StepContext,
    ) -> Result<(RoutingTable, Vec<T>)> {
        let mut outputs = Outputs {
            y: vec![T::default(); problem.tokens.x.len()],
            backward: None,
        };
        match &mut self.running {
            Running::Cpu(_) => {
                let mut state = LayerState::default();
                problem.step(ctx, &mut state, &mut outputs)?;
                Ok((state.into_gate().table, outputs.y))
            }
            Running::Gpu(gpu) => {
                let table = gpu.forward_aside(problem, ctx)?;
                gpu.collect(&mut outputs)?;
                Ok((table, outputs.y))
            }
        }
    }
}
