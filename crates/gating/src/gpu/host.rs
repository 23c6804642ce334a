//! The gate over host memory: copies there, runs, copies back. Convenient, and for tests; a layer
//! calls the functions over device memory.

use bytemuck::Pod;
use tollgate_core::options::GateOptions;
use tollgate_core::{Element, Result, RowView, RowViewMut, StepContext};
use tollgate_device::{Buffer, DeviceRows, DeviceSlice, Gpu, StepBlock, Stream};

use super::{DeviceGateInputs, DeviceGateState, GatePlan, consistency, jitter};
use crate::{GateInputs, GateState, Gating, check};

/// Rows side by side, in device memory.
fn upload_rows(gpu: &Gpu, stream: &Stream, rows: &RowView<'_, f32>) -> Result<Buffer<f32>> {
    let mut packed = Vec::with_capacity(rows.rows() * rows.cols());
    rows.iter().for_each(|row| packed.extend_from_slice(row));
    Ok(gpu.upload(stream, &packed)?)
}

/// What a gate call reads, in device memory.
struct Uploaded {
    logits: Option<Buffer<f32>>,
    noise_logits: Option<Buffer<f32>>,
    selection_bias: Option<Buffer<f32>>,
    token_ids: Option<Buffer<i32>>,
    hash_table: Option<Buffer<i32>>,
    sequence_offsets: Option<Buffer<i32>>,
    step: Buffer<StepBlock>,
}

impl Uploaded {
    fn new(gpu: &Gpu, stream: &Stream, inputs: &GateInputs<'_>, ctx: &StepContext) -> Result<Self> {
        fn optional<T: Pod>(
            gpu: &Gpu,
            stream: &Stream,
            values: Option<&[T]>,
        ) -> Result<Option<Buffer<T>>> {
            match values {
                Some(values) => Ok(Some(gpu.upload(stream, values)?)),
                None => Ok(None),
            }
        }
        let rows = |rows: &Option<RowView<'_, f32>>| match rows {
            Some(rows) => Ok::<_, tollgate_core::Error>(Some(upload_rows(gpu, stream, rows)?)),
            None => Ok(None),
        };
        let step = StepBlock {
            seed: ctx.seed,
            layer: ctx.layer,
            step: ctx.step,
            pass: ctx.pass,
            first_token: ctx.first_token,
        };
        Ok(Self {
            logits: rows(&inputs.logits)?,
            noise_logits: rows(&inputs.noise_logits)?,
            selection_bias: optional(gpu, stream, inputs.selection_bias)?,
            token_ids: optional(gpu, stream, inputs.token_ids)?,
            hash_table: optional(gpu, stream, inputs.hash_table)?,
            sequence_offsets: optional(gpu, stream, inputs.sequence_offsets)?,
            step: gpu.upload(stream, &[step])?,
        })
    }

    fn view(&self, inputs: &GateInputs<'_>) -> Result<DeviceGateInputs<'_>> {
        let (t, e) = (inputs.num_tokens, inputs.num_experts);
        fn rows<'a>(
            what: &'static str,
            buffer: &'a Option<Buffer<f32>>,
            (t, e): (usize, usize),
        ) -> Result<Option<DeviceRows<'a, f32>>> {
            match buffer {
                Some(buffer) => Ok(Some(buffer_rows(what, buffer, t, e)?)),
                None => Ok(None),
            }
        }
        fn slice<T: Pod>(buffer: &Option<Buffer<T>>) -> Option<DeviceSlice<'_, T>> {
            buffer.as_ref().map(Buffer::slice)
        }
        Ok(DeviceGateInputs {
            num_tokens: t,
            num_experts: e,
            logits: rows("logits", &self.logits, (t, e))?,
            noise_logits: rows("noise_logits", &self.noise_logits, (t, e))?,
            selection_bias: slice(&self.selection_bias),
            token_ids: slice(&self.token_ids),
            hash_table: slice(&self.hash_table),
            sequence_offsets: slice(&self.sequence_offsets),
            local_experts: inputs.local_experts.clone(),
            step: self.step.slice(),
        })
    }
}

fn buffer_rows<'a>(
    what: &'static str,
    buffer: &'a Buffer<f32>,
    rows: usize,
    cols: usize,
) -> Result<DeviceRows<'a, f32>> {
    Ok(buffer.slice().rows(what, rows, cols, cols)?)
}

/// Copies packed rows to where they belong.
fn unpack(packed: &[f32], mut rows: RowViewMut<'_, f32>) {
    let cols = rows.cols();
    if cols == 0 {
        return;
    }
    for (r, row) in packed.chunks_exact(cols).enumerate() {
        rows.row_mut(r).copy_from_slice(row);
    }
}

impl Gating for Gpu {
    fn softmax(
        &self,
        logits: RowView<'_, f32>,
        probs: RowViewMut<'_, f32>,
        lse: &mut [f32],
    ) -> Result<()> {
        let shape = (logits.rows(), logits.cols());
        check::softmax(shape, (probs.rows(), probs.cols()), lse.len())?;
        let stream = self.default_stream();
        let (t, e) = shape;
        let of_logits = upload_rows(self, stream, &logits)?;
        let mut of_probs = self.alloc::<f32>(t * e)?;
        let mut of_lse = self.alloc::<f32>(t)?;
        super::softmax(
            self,
            stream,
            &buffer_rows("logits", &of_logits, t, e)?,
            &mut of_probs.slice_mut().rows("probs", t, e, e)?,
            &mut of_lse.slice_mut(),
        )?;
        unpack(&of_probs.read(stream)?, probs);
        Ok(stream.read_into(of_lse.slice(), lse)?)
    }

    fn softmax_backward(
        &self,
        probs: RowView<'_, f32>,
        dprobs: RowView<'_, f32>,
        dlogits: RowViewMut<'_, f32>,
    ) -> Result<()> {
        let (t, e) = (probs.rows(), probs.cols());
        let of_dprobs = (dprobs.rows(), dprobs.cols());
        check::softmax_backward((t, e), of_dprobs, (dlogits.rows(), dlogits.cols()))?;
        let stream = self.default_stream();
        let of_probs = upload_rows(self, stream, &probs)?;
        let of_dprobs = upload_rows(self, stream, &dprobs)?;
        let mut of_dlogits = self.alloc::<f32>(t * e)?;
        super::softmax_backward(
            self,
            stream,
            &buffer_rows("probs", &of_probs, t, e)?,
            &buffer_rows("dprobs", &of_dprobs, t, e)?,
            &mut of_dlogits.slice_mut().rows("dlogits", t, e, e)?,
        )?;
        unpack(&of_dlogits.read(stream)?, dlogits);
        Ok(())
    }

    fn gate(
        &self,
        inputs: &GateInputs<'_>,
        options: &GateOptions,
        ctx: &StepContext,
        state: &mut GateState,
    ) -> Result<()> {
        check::gate(inputs, options, ctx)?;
        let (t, e) = (inputs.num_tokens, inputs.num_experts);
        let plan = GatePlan::new(options, t, e, ctx.training, true)?;
        let stream = self.default_stream();
        let uploaded = Uploaded::new(self, stream, inputs, ctx)?;
        let mut memory = self.alloc::<u8>(plan.state_bytes())?;
        let mut workspace = self.alloc::<u8>(plan.workspace_bytes())?;
        let mut of_device = DeviceGateState::new(&plan, memory.slice_mut())?;
        super::gate(
            self,
            stream,
            &plan,
            &uploaded.view(inputs)?,
            &mut of_device,
            workspace.slice_mut(),
        )?;
        *state = of_device.download(stream)?;
        Ok(())
    }

    fn gate_backward(
        &self,
        inputs: &GateInputs<'_>,
        options: &GateOptions,
        ctx: &StepContext,
        state: &GateState,
        dweights: &[f32],
        dlogits: RowViewMut<'_, f32>,
        dnoise_logits: Option<RowViewMut<'_, f32>>,
    ) -> Result<()> {
        let of_noise = dnoise_logits.as_ref().map(|d| (d.rows(), d.cols()));
        let of_logits = (dlogits.rows(), dlogits.cols());
        check::gate_backward(inputs, options, ctx, state, dweights, of_logits, of_noise)?;
        let (t, e) = (inputs.num_tokens, inputs.num_experts);
        let plan = GatePlan::new(options, t, e, ctx.training, true)?;
        let stream = self.default_stream();
        let uploaded = Uploaded::new(self, stream, inputs, ctx)?;
        let mut memory = self.alloc::<u8>(plan.state_bytes())?;
        let mut workspace = self.alloc::<u8>(plan.workspace_bytes())?;
        let mut of_device = DeviceGateState::new(&plan, memory.slice_mut())?;
        of_device.upload(stream, state)?;
        // Entries behind A mean nothing, but the kernels are promised the bound.
        let mut of_weights = dweights.to_vec();
        of_weights.resize(plan.max_assignments(), 0.0);
        let of_weights = self.upload(stream, &of_weights)?;
        let mut of_dlogits = self.alloc::<f32>(t * e)?;
        let mut of_dnoise = self.alloc::<f32>(if of_noise.is_some() { t * e } else { 0 })?;
        let of_dnoise_rows = match of_noise {
            Some(_) => Some(of_dnoise.slice_mut().rows("dnoise_logits", t, e, e)?),
            None => None,
        };
        super::gate_backward(
            self,
            stream,
            &plan,
            &uploaded.view(inputs)?,
            &of_device,
            of_weights.slice(),
            of_dlogits.slice_mut().rows("dlogits", t, e, e)?,
            of_dnoise_rows,
            workspace.slice_mut(),
        )?;
        unpack(&of_dlogits.read(stream)?, dlogits);
        if let Some(dnoise) = dnoise_logits {
            unpack(&of_dnoise.read(stream)?, dnoise);
        }
        Ok(())
    }

    fn jitter<T: Element>(
        &self,
        x: RowView<'_, T>,
        amount: f32,
        ctx: &StepContext,
        out: RowViewMut<'_, f32>,
    ) -> Result<()> {
        jitter::host_apply(self, x, amount, ctx, out)
    }

    fn jitter_backward(
        &self,
        amount: f32,
        ctx: &StepContext,
        dx: RowViewMut<'_, f32>,
    ) -> Result<()> {
        jitter::host_backward(self, amount, ctx, dx)
    }

    fn consistency(
        &self,
        a: RowView<'_, f32>,
        b: RowView<'_, f32>,
        padding: Option<&[bool]>,
        alpha: f32,
        da: RowViewMut<'_, f32>,
        db: RowViewMut<'_, f32>,
    ) -> Result<f64> {
        consistency::host(self, a, b, padding, alpha, da, db)
    }
}
