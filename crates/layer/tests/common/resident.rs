//! A problem in device memory, and the layer that stays there.

use tollgate::device::{Buffer, DeviceRows, Faults, Gpu, StepBlock, Stream};
use tollgate::gemm::gpu::{DeviceExpertGrads, DeviceExpertWeights};
use tollgate::gpu::{
    DeviceLayer, DeviceLayerGrads, DeviceLayerInputs, DeviceLayerState, DeviceLayerWeights,
    DeviceStep, step_block,
};
use tollgate::{Element, LayerState, Result};

use super::fenced::Fenced;
use super::{Problem, Step};

/// Everything that a layer needs on a device, in fenced and poisoned memory.
pub struct Resident<'p, T> {
    pub problem: &'p Problem<T>,
    pub gpu: Gpu,
    pub stream: Stream,
    pub layer: DeviceLayer<T>,
    pub state: Buffer<u8>,
    pub workspace: Buffer<u8>,
    pub tensors: Tensors<T>,
    pub outputs: Outputs<T>,
}

/// What a pass reads.
pub struct Tensors<T> {
    x: Fenced<T>,
    dy: Fenced<T>,
    token_ids: Buffer<i32>,
    sequence_offsets: Buffer<i32>,
    pub step: Buffer<StepBlock>,
    router: Buffer<f32>,
    router_noise: Buffer<f32>,
    selection_bias: Option<Buffer<f32>>,
    up: Buffer<T>,
    up_bias: Option<Buffer<T>>,
    down: Buffer<T>,
    down_bias: Option<Buffer<T>>,
}

/// What a pass writes.
pub struct Outputs<T> {
    pub y: Fenced<T>,
    pub dx: Fenced<T>,
    router: Fenced<f32>,
    router_noise: Fenced<f32>,
    up: Fenced<f32>,
    up_bias: Fenced<f32>,
    down: Fenced<f32>,
    down_bias: Fenced<f32>,
}

impl<'p, T: Element> Resident<'p, T> {
    /// Uploads a problem and plans its layer.
    pub fn new(problem: &'p Problem<T>, gpu: &Gpu) -> Self {
        let gpu = gpu.clone();
        let stream = gpu.stream().unwrap();
        let on_gpu = problem.layer.on(gpu.clone());
        let (t, training) = (problem.tokens, problem.ctx.training);
        let layer = DeviceLayer::new(&on_gpu, t, training).unwrap();
        let state = gpu.alloc(layer.state_bytes()).unwrap();
        let workspace = gpu.alloc(layer.workspace_bytes()).unwrap();
        let tensors = Tensors::new(problem, &gpu, &stream);
        let outputs = Outputs::new(problem, &gpu, &stream);
        Self {
            problem,
            gpu,
            stream,
            layer,
            state,
            workspace,
            tensors,
            outputs,
        }
    }

    /// Forward and backward into a stream, then everything back to the host.
    pub fn run(mut self) -> Step<T> {
        let step = self.passes().unwrap();
        self.outputs.collect(&self.stream, step)
    }

    /// A forward pass by itself; its output.
    pub fn infer(mut self) -> Vec<T> {
        let (inputs, weights) = (self.tensors.inputs(), self.tensors.weights());
        let stream = &self.stream;
        let mut state = self.layer.state(stream, self.state.slice_mut()).unwrap();
        let bytes = self.layer.forward_workspace_bytes();
        let memory = self
            .workspace
            .slice_mut()
            .part("workspace", 0, bytes)
            .unwrap();
        let y = self.outputs.y.view_mut();
        self.layer
            .forward(stream, &inputs, &weights, y, &mut state, memory)
            .unwrap();
        self.outputs.y.values(stream, "y")
    }

    fn passes(&mut self) -> Result<DeviceStep> {
        let stream = self.stream.clone();
        let mut state = self.layer.state(&stream, self.state.slice_mut())?;
        let Self {
            problem,
            layer,
            tensors,
            outputs,
            workspace,
            ..
        } = self;
        both(
            problem, layer, &stream, tensors, outputs, &mut state, workspace,
        )?;
        stream.synchronize()?;
        state.download(&stream)
    }

    /// Fills state and workspace with NaNs, as if they had been used for something else.
    pub fn poison(&mut self) {
        let stream = &self.stream;
        stream.fill(self.state.slice_mut(), 0xff).unwrap();
        stream.fill(self.workspace.slice_mut(), 0xff).unwrap();
    }
}

/// Puts forward and backward into a stream.
pub fn both<T: Element>(
    problem: &Problem<T>,
    layer: &DeviceLayer<T>,
    stream: &Stream,
    tensors: &Tensors<T>,
    outputs: &mut Outputs<T>,
    state: &mut DeviceLayerState<'_, T>,
    workspace: &mut Buffer<u8>,
) -> Result<()> {
    let (inputs, weights) = (tensors.inputs(), tensors.weights());
    let y = outputs.y.view_mut();
    layer.forward(stream, &inputs, &weights, y, state, workspace.slice_mut())?;
    let dy = tensors.dy.view();
    let mut grads = outputs.grads(problem);
    let memory = workspace.slice_mut();
    layer.backward(stream, &inputs, &weights, dy, state, &mut grads, memory)
}

impl<T: Element> Tensors<T> {
    pub fn new(p: &Problem<T>, gpu: &Gpu, stream: &Stream) -> Self {
        let (t, h) = (p.tokens, p.layer.shape().hidden);
        let f32s = |values: &[f32]| gpu.upload(stream, values).unwrap();
        let i32s = |values: &[i32]| gpu.upload(stream, values).unwrap();
        let weights = |values: &[T]| gpu.upload(stream, values).unwrap();
        Self {
            x: Fenced::of(gpu, stream, &p.x, t, h),
            dy: Fenced::of(gpu, stream, &p.dy, t, h),
            token_ids: i32s(&p.token_ids),
            sequence_offsets: i32s(&p.sequence_offsets),
            step: gpu.upload(stream, &[step_block(&p.ctx)]).unwrap(),
            router: f32s(&p.router),
            router_noise: f32s(&p.router_noise),
            selection_bias: p.selection_bias.as_deref().map(f32s),
            up: weights(&p.up),
            up_bias: p.up_bias.as_deref().map(weights),
            down: weights(&p.down),
            down_bias: p.down_bias.as_deref().map(weights),
        }
    }

    pub fn inputs(&self) -> DeviceLayerInputs<'_, T> {
        DeviceLayerInputs {
            x: self.x.view(),
            token_ids: Some(self.token_ids.slice()),
            hash_table: None,
            sequence_offsets: Some(self.sequence_offsets.slice()),
            step: self.step.slice(),
        }
    }

    pub fn weights(&self) -> DeviceLayerWeights<'_, T> {
        DeviceLayerWeights {
            router: Some(self.router.slice()),
            router_noise: Some(self.router_noise.slice()),
            selection_bias: self.selection_bias.as_ref().map(Buffer::slice),
            experts: DeviceExpertWeights {
                up: self.up.slice(),
                up_bias: self.up_bias.as_ref().map(Buffer::slice),
                down: self.down.slice(),
                down_bias: self.down_bias.as_ref().map(Buffer::slice),
            },
        }
    }

    pub fn dy(&self) -> DeviceRows<'_, T> {
        self.dy.view()
    }
}

impl<T: Element> Outputs<T> {
    pub fn new(p: &Problem<T>, gpu: &Gpu, stream: &Stream) -> Self {
        let shape = p.layer.shape();
        let (t, h, e) = (p.tokens, shape.hidden, shape.experts);
        let router = &p.layer.options().router;
        let noisy = router.is_noisy() && p.ctx.training;
        let flat = |elems: usize| Fenced::poisoned(gpu, stream, 1, elems);
        let when = |wanted: bool, elems: usize| flat(if wanted { elems } else { 0 });
        Self {
            y: Fenced::poisoned(gpu, stream, t, h),
            dx: Fenced::poisoned(gpu, stream, t, h),
            router: when(router.has_gate(), e * h),
            router_noise: when(noisy, e * h),
            up: flat(p.up.len()),
            up_bias: when(p.up_bias.is_some(), e * shape.up_rows()),
            down: flat(p.down.len()),
            down_bias: when(p.down_bias.is_some(), e * h),
        }
    }

    /// Everything that a pass wrote.
    pub fn collect(&self, stream: &Stream, step: DeviceStep) -> Step<T> {
        let faults = step.status.faults & !Faults::FAULTY_ROW;
        assert_eq!(faults, 0, "only rows may be faulty: {:?}", step.status);
        Step {
            state: LayerState::default(),
            gate: step.gate,
            router_logits: step.router_logits,
            dlogits: step.router_logit_gradient,
            y: self.y.values(stream, "y"),
            dx: self.dx.values(stream, "dx"),
            router: self.router.values(stream, "router"),
            router_noise: self.router_noise.values(stream, "router noise"),
            up: self.up.values(stream, "up"),
            up_bias: self.up_bias.values(stream, "up bias"),
            down: self.down.values(stream, "down"),
            down_bias: self.down_bias.values(stream, "down bias"),
        }
    }

    pub fn grads(&mut self, p: &Problem<T>) -> DeviceLayerGrads<'_, T> {
        let router = &p.layer.options().router;
        let noisy = router.is_noisy() && p.ctx.training;
        DeviceLayerGrads {
            x: self.dx.view_mut(),
            router: router.has_gate().then(|| self.router.flat_mut()),
            router_noise: noisy.then(|| self.router_noise.flat_mut()),
            experts: DeviceExpertGrads {
                up: self.up.flat_mut(),
                up_bias: p.up_bias.is_some().then(|| self.up_bias.flat_mut()),
                down: self.down.flat_mut(),
                down_bias: p.down_bias.is_some().then(|| self.down_bias.flat_mut()),
                accumulate: false,
            },
        }
    }
}
