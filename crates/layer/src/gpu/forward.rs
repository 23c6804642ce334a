//! The forward pass as work of a stream.

use tollgate_core::{Element, Error, Result};
use tollgate_device::{DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Stream, Workspace};
use tollgate_gating::gpu as gating;
use tollgate_gemm::gpu::{DeviceStacked, Launcher};
use tollgate_permute::gpu::{self as permute, FreeRows};

use super::plan::Plan;
use super::{DeviceLayer, DeviceLayerInputs, DeviceLayerState, DeviceLayerWeights, Observer};

impl<T: Element> DeviceLayer<T> {
    /// `y_t = Σ_{e ∈ S_t} w_e FFN_e(x_t)`; x and y `[T, H]`. A token without experts gets 0.
    ///
    /// Puts the pass into `stream` and returns. `state` keeps what [`DeviceLayer::backward`] needs;
    /// `workspace` holds [`DeviceLayer::forward_workspace_bytes`] bytes at least, and may be used for
    /// anything else once the pass has run.
    ///
    /// # Errors
    /// Before anything is put into the stream: shapes that differ, tensors that the router needs and
    /// were not given, the state of another layer, a workspace that is too small or misaligned.
    /// Null and misaligned pointers were refused when the views were made. Then what the driver
    /// says. Bad data is no error: see [`DeviceLayerState::status`].
    pub fn forward(
        &self,
        stream: &Stream,
        inputs: &DeviceLayerInputs<'_, T>,
        weights: &DeviceLayerWeights<'_, T>,
        y: DeviceRowsMut<'_, T>,
        state: &mut DeviceLayerState<'_, T>,
        workspace: DeviceSliceMut<'_, u8>,
    ) -> Result<()> {
        self.forward_observed(stream, inputs, weights, y, state, workspace, &mut ())
    }

    /// The same, telling `observer` where the stages begin.
    ///
    /// # Errors
    /// As [`DeviceLayer::forward`]; what the observer says.
    pub fn forward_observed(
        &self,
        stream: &Stream,
        inputs: &DeviceLayerInputs<'_, T>,
        weights: &DeviceLayerWeights<'_, T>,
        y: DeviceRowsMut<'_, T>,
        state: &mut DeviceLayerState<'_, T>,
        workspace: DeviceSliceMut<'_, u8>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let plan = &*self.plan;
        state.check(self)?;
        inputs.check(plan)?;
        weights.check(plan)?;
        Error::check_shape("rows of y (T)", y.num_rows(), plan.dims.tokens)?;
        Error::check_shape("columns of y (H)", y.num_cols(), plan.dims.shape.hidden)?;
        let workspace = Workspace::new(workspace, &plan.workspace.forward)?;
        // Until this pass is whole, the state holds none.
        state.filled = false;
        state.has_backward = false;
        stream.copy(inputs.step, state.memory.array(plan.state.step)?)?;
        if plan.dims.gate {
            observer.stage(stream, "router")?;
            self.router(stream, inputs, weights, state)?;
        }
        observer.stage(stream, "gate")?;
        self.gate(stream, inputs, weights, state, &workspace)?;
        self.experts(stream, inputs, weights, y, state, observer)?;
        state.filled = true;
        Ok(())
    }

    /// The router's products, of x or of x with jitter.
    fn router(
        &self,
        stream: &Stream,
        inputs: &DeviceLayerInputs<'_, T>,
        weights: &DeviceLayerWeights<'_, T>,
        state: &DeviceLayerState<'_, T>,
    ) -> Result<()> {
        let (plan, regions) = (&*self.plan, &self.plan.state);
        if !plan.dims.jitter {
            return self.products(stream, inputs.x, weights, state);
        }
        let h = plan.dims.shape.hidden;
        let out = state.rows_mut("jittered x", regions.router_input, h)?;
        let (amount, step) = (plan.options.jitter, state.step()?);
        gating::jitter::apply(&self.gpu, stream, amount, step, inputs.x, out)?;
        let x = state.rows("jittered x", regions.router_input, h)?;
        self.products(stream, x, weights, state)
    }

    /// `logits = x · Wᵀ` of the router's map, and of the noise map where there is noise.
    fn products<X: Element>(
        &self,
        stream: &Stream,
        x: DeviceRows<'_, X>,
        weights: &DeviceLayerWeights<'_, T>,
        state: &DeviceLayerState<'_, T>,
    ) -> Result<()> {
        let (plan, regions) = (&*self.plan, &self.plan.state);
        let e = plan.dims.shape.experts;
        let group = state.one_group()?;
        let mut launcher = Launcher::new(&self.gpu, stream, state.raised()?)?;
        let noise = weights.router_noise.filter(|_| plan.dims.noisy);
        for (map, out) in [
            (weights.router, regions.logits),
            (noise, regions.noise_logits),
        ] {
            if let Some(map) = map {
                let out = state.rows_mut("logits", out, e)?;
                launcher.m_grouped(x, plan.router_map(map), None, group, out)?;
            }
        }
        Ok(())
    }

    fn gate(
        &self,
        stream: &Stream,
        inputs: &DeviceLayerInputs<'_, T>,
        weights: &DeviceLayerWeights<'_, T>,
        state: &mut DeviceLayerState<'_, T>,
        workspace: &Workspace<'_>,
    ) -> Result<()> {
        let plan = &*self.plan;
        let inputs = plan.gate_inputs(inputs, weights, state)?;
        let memory = workspace.array(plan.workspace.gate)?;
        let gate = &mut state.gate;
        gating::gate(&self.gpu, stream, &plan.gate, &inputs, gate, memory)
    }

    /// Permute, experts, unpermute.
    fn experts(
        &self,
        stream: &Stream,
        inputs: &DeviceLayerInputs<'_, T>,
        weights: &DeviceLayerWeights<'_, T>,
        y: DeviceRowsMut<'_, T>,
        state: &DeviceLayerState<'_, T>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (gpu, plan, regions) = (&self.gpu, &*self.plan, &self.plan.state);
        let shape = &plan.dims.shape;
        let (h, n1, i) = (shape.hidden, shape.up_rows(), shape.intermediate);
        let x_rows = if plan.dims.dense {
            inputs.x
        } else {
            observer.stage(stream, "permute")?;
            let (table, sort) = (state.table(), &plan.sort);
            let maps = sort.maps_mut(&state.memory)?;
            permute::sort(
                gpu,
                stream,
                sort,
                &state.memory,
                &table,
                maps,
                state.raised()?,
            )?;
            let rows = state.rows_mut("rows of x", regions.x_rows, h)?;
            let (maps, status) = (state.maps()?, state.raised()?);
            let free = FreeRows::Keep;
            permute::permute(gpu, stream, inputs.x, &table, &maps, rows, free, status)?;
            state.rows("rows of x", regions.x_rows, h)?
        };
        let offsets = state.offsets()?;
        let experts = &weights.experts;
        let mut launcher = Launcher::new(gpu, stream, state.raised()?)?;
        observer.stage(stream, "up")?;
        let pre = state.rows_mut("pre", regions.pre, n1)?;
        let act = state.rows_mut("act", regions.act, i)?;
        launcher.up(shape, experts, x_rows, offsets, pre, act)?;
        let act = state.rows("act", regions.act, i)?;
        observer.stage(stream, "down")?;
        if plan.dims.dense {
            return launcher.down(shape, experts, act, offsets, y);
        }
        let y_rows = state.rows_mut("rows of y", regions.y_rows, h)?;
        launcher.down(shape, experts, act, offsets, y_rows)?;
        observer.stage(stream, "unpermute")?;
        let y_rows = state.rows("rows of y", regions.y_rows, h)?;
        let (table, maps) = (state.table(), state.maps()?);
        let status = state.raised()?;
        permute::unpermute(gpu, stream, y_rows, &table, &maps, y, status)?;
        Ok(())
    }
}

impl<T: Element> Plan<T> {
    /// The router's map `[E, H]` as one group.
    pub(super) fn router_map<'a>(&self, data: DeviceSlice<'a, f32>) -> DeviceStacked<'a, f32> {
        DeviceStacked {
            data,
            experts: 1,
            n: self.dims.shape.experts,
            k: self.dims.shape.hidden,
        }
    }

    /// The gate's view of the inputs.
    pub(super) fn gate_inputs<'a>(
        &self,
        inputs: &DeviceLayerInputs<'a, T>,
        weights: &DeviceLayerWeights<'a, T>,
        state: &DeviceLayerState<'a, T>,
    ) -> Result<gating::DeviceGateInputs<'a>> {
        let e = self.dims.shape.experts;
        let (dims, regions) = (&self.dims, &self.state);
        let view = |wanted: bool, what, region| match wanted {
            true => state.rows(what, region, e).map(Some),
            false => Ok(None),
        };
        Ok(gating::DeviceGateInputs {
            num_tokens: dims.tokens,
            num_experts: e,
            logits: view(dims.gate, "logits", regions.logits)?,
            noise_logits: view(dims.noisy, "noise logits", regions.noise_logits)?,
            selection_bias: weights.selection_bias,
            token_ids: inputs.token_ids,
            hash_table: inputs.hash_table,
            sequence_offsets: inputs.sequence_offsets,
            local_experts: self.local_experts.clone(),
            step: state.step()?,
        })
    }
}
