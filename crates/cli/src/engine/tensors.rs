//! The tensors of a model, its tokens and a step, in device memory.

use bytemuck::Pod;
use tollgate::device::{self, Buffer, DeviceRows, Gpu, StepBlock, Stream};
use tollgate::gemm::gpu::{DeviceExpertGrads, DeviceExpertWeights};
use tollgate::gpu::{DeviceLayerGrads, DeviceLayerInputs, DeviceLayerWeights};
use tollgate::{Element, StepContext};

use crate::load::{Model, Tokens};
use crate::step::{Backward, Problem};

/// All that is uploaded once and serves every router.
#[derive(Debug)]
pub(super) struct Tensors<T> {
    tokens: usize,
    hidden: usize,
    x: Buffer<T>,
    token_ids: Option<Buffer<i32>>,
    hash_table: Option<Buffer<i32>>,
    sequence_offsets: Option<Buffer<i32>>,
    step: Buffer<StepBlock>,
    router: Buffer<f32>,
    /// Zeros where the file has none, as on the CPU.
    router_noise: Buffer<f32>,
    selection_bias: Option<Buffer<f32>>,
    up: Buffer<T>,
    up_bias: Option<Buffer<T>>,
    down: Buffer<T>,
    down_bias: Option<Buffer<T>>,
}

/// The upstream gradient and what a backward pass writes.
#[derive(Debug)]
pub(super) struct Gradients<T> {
    dy: Buffer<T>,
    x: Buffer<T>,
    router: Buffer<f32>,
    router_noise: Buffer<f32>,
    up: Buffer<f32>,
    up_bias: Option<Buffer<f32>>,
    down: Buffer<f32>,
    down_bias: Option<Buffer<f32>>,
}

fn optional<T: Pod>(
    gpu: &Gpu,
    stream: &Stream,
    values: Option<&[T]>,
) -> device::Result<Option<Buffer<T>>> {
    values.map(|v| gpu.upload(stream, v)).transpose()
}

impl<T: Element> Tensors<T> {
    pub(super) fn new(
        gpu: &Gpu,
        stream: &Stream,
        model: &Model<T>,
        tokens: &Tokens<T>,
    ) -> device::Result<Self> {
        let zeros;
        let noise = match &model.router_noise {
            Some(noise) => noise,
            None => {
                zeros = vec![0.0; model.router.len()];
                &zeros
            }
        };
        Ok(Self {
            tokens: tokens.count,
            hidden: tokens.hidden,
            x: gpu.upload(stream, &tokens.x)?,
            token_ids: optional(gpu, stream, tokens.ids.as_deref())?,
            hash_table: optional(gpu, stream, model.hash_table.as_deref())?,
            sequence_offsets: optional(gpu, stream, tokens.sequence_offsets.as_deref())?,
            step: gpu.alloc(1)?,
            router: gpu.upload(stream, &model.router)?,
            router_noise: gpu.upload(stream, noise)?,
            selection_bias: optional(gpu, stream, model.selection_bias.as_deref())?,
            up: gpu.upload(stream, &model.up)?,
            up_bias: optional(gpu, stream, model.up_bias.as_deref())?,
            down: gpu.upload(stream, &model.down)?,
            down_bias: optional(gpu, stream, model.down_bias.as_deref())?,
        })
    }

    /// Lets the next pass stand at `ctx`.
    pub(super) fn set_step(&mut self, stream: &Stream, ctx: &StepContext) -> device::Result<()> {
        self.step.write(stream, &[tollgate::gpu::step_block(ctx)])
    }

    pub(super) fn inputs(&self) -> device::Result<DeviceLayerInputs<'_, T>> {
        let (t, h) = (self.tokens, self.hidden);
        Ok(DeviceLayerInputs {
            x: self.x.slice().rows("x", t, h, h)?,
            token_ids: self.token_ids.as_ref().map(Buffer::slice),
            hash_table: self.hash_table.as_ref().map(Buffer::slice),
            sequence_offsets: self.sequence_offsets.as_ref().map(Buffer::slice),
            step: self.step.slice(),
        })
    }

    pub(super) fn weights(&self, problem: &Problem<'_, T>) -> DeviceLayerWeights<'_, T> {
        let bias = self.selection_bias.as_ref().map(Buffer::slice);
        DeviceLayerWeights {
            router: Some(self.router.slice()),
            router_noise: Some(self.router_noise.slice()),
            selection_bias: bias.filter(|_| problem.takes_bias()),
            experts: DeviceExpertWeights {
                up: self.up.slice(),
                up_bias: self.up_bias.as_ref().map(Buffer::slice),
                down: self.down.slice(),
                down_bias: self.down_bias.as_ref().map(Buffer::slice),
            },
        }
    }
}

impl<T: Element> Gradients<T> {
    pub(super) fn new(gpu: &Gpu, stream: &Stream, b: &Backward<T>) -> device::Result<Self> {
        let bias = |b: &Option<Vec<f32>>| b.as_ref().map(|b| gpu.alloc(b.len())).transpose();
        Ok(Self {
            dy: gpu.upload(stream, &b.dy)?,
            x: gpu.alloc(b.x.len())?,
            router: gpu.alloc(b.router.len())?,
            router_noise: gpu.alloc(b.router_noise.len())?,
            up: gpu.alloc(b.up.len())?,
            up_bias: bias(&b.up_bias)?,
            down: gpu.alloc(b.down.len())?,
            down_bias: bias(&b.down_bias)?,
        })
    }

    /// The upstream gradient, and where a backward pass writes.
    pub(super) fn views(
        &mut self,
        tokens: usize,
        hidden: usize,
        gate: bool,
        noisy: bool,
    ) -> device::Result<(DeviceRows<'_, T>, DeviceLayerGrads<'_, T>)> {
        let dy = self.dy.slice().rows("dy", tokens, hidden, hidden)?;
        let grads = DeviceLayerGrads {
            x: self.x.slice_mut().rows("dx", tokens, hidden, hidden)?,
            router: gate.then(|| self.router.slice_mut()),
            router_noise: noisy.then(|| self.router_noise.slice_mut()),
            experts: DeviceExpertGrads {
                up: self.up.slice_mut(),
                up_bias: self.up_bias.as_mut().map(Buffer::slice_mut),
                down: self.down.slice_mut(),
                down_bias: self.down_bias.as_mut().map(Buffer::slice_mut),
                accumulate: false,
            },
        };
        Ok((dy, grads))
    }

    /// Fetches what the latest backward pass wrote.
    pub(super) fn read_into(
        &self,
        stream: &Stream,
        b: &mut Backward<T>,
        gate: bool,
        noisy: bool,
    ) -> device::Result<()> {
        stream.read_into(self.x.slice(), &mut b.x)?;
        if gate {
            stream.read_into(self.router.slice(), &mut b.router)?;
        }
        if noisy {
            stream.read_into(self.router_noise.slice(), &mut b.router_noise)?;
        }
        stream.read_into(self.up.slice(), &mut b.up)?;
        stream.read_into(self.down.slice(), &mut b.down)?;
        for (from, to) in [
            (&self.up_bias, &mut b.up_bias),
            (&self.down_bias, &mut b.down_bias),
        ] {
            if let (Some(from), Some(to)) = (from, to) {
                stream.read_into(from.slice(), to)?;
            }
        }
        Ok(())
    }
}
