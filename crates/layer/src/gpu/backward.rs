//! The backward pass as work of a stream: the forward road in reverse.

use tollgate_core::{Element, Error, Result};
use tollgate_device::{
    DeviceRoutingTable, DeviceRows, DeviceSlice, DeviceSliceMut, Region, Stream, Workspace,
};
use tollgate_gating::gpu::{self as gating, jitter};
use tollgate_gemm::gpu::Launcher;
use tollgate_permute::gpu::{self as permute, DevicePermuteMaps};

use super::state::matrix;
use super::{
    DeviceLayer, DeviceLayerGrads, DeviceLayerInputs, DeviceLayerState, DeviceLayerWeights,
    Observer,
};

impl<T: Element> DeviceLayer<T> {
    /// The gradient of `<dy, y> + balance loss + z loss` with respect to the input, the router and
    /// the experts; dy `[T, H]`.
    ///
    /// `inputs` and `weights` are those of the forward pass that filled `state`, still unchanged
    /// when this pass runs; where the step stands is taken from the state. Experts without rows get
    /// zero gradients (or keep what accumulates).
    ///
    /// # Errors
    /// As [`DeviceLayer::forward`], with a workspace of [`DeviceLayer::workspace_bytes`]; a state that
    /// no forward pass has filled; a gradient that is missing or superfluous.
    pub fn backward(
        &self,
        stream: &Stream,
        inputs: &DeviceLayerInputs<'_, T>,
        weights: &DeviceLayerWeights<'_, T>,
        dy: DeviceRows<'_, T>,
        state: &mut DeviceLayerState<'_, T>,
        grads: &mut DeviceLayerGrads<'_, T>,
        workspace: DeviceSliceMut<'_, u8>,
    ) -> Result<()> {
        self.backward_observed(
            stream,
            inputs,
            weights,
            dy,
            state,
            grads,
            workspace,
            &mut (),
        )
    }

    /// The same, telling `observer` where the stages begin.
    ///
    /// # Errors
    /// As [`DeviceLayer::backward`]; what the observer says.
    pub fn backward_observed(
        &self,
        stream: &Stream,
        inputs: &DeviceLayerInputs<'_, T>,
        weights: &DeviceLayerWeights<'_, T>,
        dy: DeviceRows<'_, T>,
        state: &mut DeviceLayerState<'_, T>,
        grads: &mut DeviceLayerGrads<'_, T>,
        workspace: DeviceSliceMut<'_, u8>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let plan = &*self.plan;
        state.check(self)?;
        if !state.filled {
            return Err(Error::Missing {
                what: "a state that a forward pass has filled",
                because: "backward".to_owned(),
            });
        }
        inputs.check(plan)?;
        weights.check(plan)?;
        grads.check(plan, weights)?;
        Error::check_shape("rows of dy (T)", dy.num_rows(), plan.dims.tokens)?;
        Error::check_shape("columns of dy (H)", dy.num_cols(), plan.dims.shape.hidden)?;
        let workspace = Workspace::new(workspace, &plan.workspace.layout)?;
        let of = Pass {
            layer: self,
            stream,
            inputs,
            weights,
            workspace: &workspace,
        };
        state.has_backward = false;
        of.experts(dy, state, grads, observer)?;
        if !plan.dims.dense {
            of.tokens(state, grads, observer)?;
        }
        state.has_backward = true;
        Ok(())
    }
}

/// A map of the router: its weight, where its gradient goes, and its share of dx.
struct Map<'a> {
    weight: Option<DeviceSlice<'a, f32>>,
    gradient: Option<DeviceSliceMut<'a, f32>>,
    dx: Region<f32>,
}

/// What the stages of a backward pass share.
struct Pass<'a, T> {
    layer: &'a DeviceLayer<T>,
    stream: &'a Stream,
    inputs: &'a DeviceLayerInputs<'a, T>,
    weights: &'a DeviceLayerWeights<'a, T>,
    workspace: &'a Workspace<'a>,
}

impl<T: Element> Pass<'_, T> {
    /// From dy to the gradients of the experts, and of their rows.
    fn experts(
        &self,
        dy: DeviceRows<'_, T>,
        state: &DeviceLayerState<'_, T>,
        grads: &mut DeviceLayerGrads<'_, T>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (gpu, stream, plan) = (&self.layer.gpu, self.stream, &*self.layer.plan);
        let (saved, regions) = (&plan.state, &plan.workspace);
        let shape = &plan.dims.shape;
        let (h, n1, i) = (shape.hidden, shape.up_rows(), shape.intermediate);
        let dense = plan.dims.dense;
        // The gradient of y's rows, then that of x's: the down map is done with the first before the
        // up map writes the second.
        let drows = || matrix(self.workspace, "drows", regions.drows, h);
        let dy_rows = if dense {
            dy
        } else {
            observer.stage(stream, "unpermute_backward")?;
            let y_rows = state.rows("rows of y", saved.y_rows, h)?;
            let dweights = self.workspace.array(regions.dweights)?;
            let (table, maps, status) = (state.table(), state.maps()?, state.raised()?);
            permute::unpermute_backward(
                gpu,
                stream,
                dy,
                y_rows,
                &table,
                &maps,
                drows()?,
                dweights,
                status,
            )?;
            drows()?.into_rows()
        };
        let offsets = state.offsets()?;
        let mut launcher = Launcher::new(gpu, stream, state.raised()?)?;
        let (weights, experts) = (&self.weights.experts, &mut grads.experts);
        observer.stage(stream, "down_backward")?;
        let dpre = || matrix(self.workspace, "dpre", regions.dpre, n1);
        let pre = state.rows("pre", saved.pre, n1)?;
        let act = state.rows("act", saved.act, i)?;
        let out = dpre()?;
        launcher.down_backward(shape, weights, pre, act, dy_rows, offsets, out, experts)?;
        observer.stage(stream, "up_backward")?;
        let (x_rows, dx) = match dense {
            true => (self.inputs.x, grads.x.reborrow()),
            false => (state.rows("rows of x", saved.x_rows, h)?, drows()?),
        };
        let dpre = dpre()?.into_rows();
        launcher.up_backward(shape, weights, x_rows, dpre, offsets, dx, experts)
    }

    /// From the rows' gradients to dx, with the router's share where there is a gate.
    fn tokens(
        &self,
        state: &DeviceLayerState<'_, T>,
        grads: &mut DeviceLayerGrads<'_, T>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let mut addend = None;
        if self.layer.plan.dims.gate {
            observer.stage(self.stream, "gate_backward")?;
            self.gate(state)?;
            observer.stage(self.stream, "router_backward")?;
            addend = Some(self.router(state, grads)?);
        }
        observer.stage(self.stream, "permute_backward")?;
        self.permute(addend, state, grads)
    }

    /// From the gradient of the weights to that of the logits.
    fn gate(&self, state: &DeviceLayerState<'_, T>) -> Result<()> {
        let (gpu, stream, plan) = (&self.layer.gpu, self.stream, &*self.layer.plan);
        let e = plan.dims.shape.experts;
        let regions = &plan.workspace;
        let inputs = plan.gate_inputs(self.inputs, self.weights, state)?;
        let dweights = self.workspace.array(regions.dweights)?.into_slice();
        let dlogits = state.rows_mut("dlogits", plan.state.dlogits, e)?;
        let dnoise = match plan.dims.noisy {
            true => Some(matrix(self.workspace, "dnoise", regions.dnoise, e)?),
            false => None,
        };
        let memory = self.workspace.array(regions.gate)?;
        gating::gate_backward(
            gpu,
            stream,
            &plan.gate,
            &inputs,
            &state.gate,
            dweights,
            dlogits,
            dnoise,
            memory,
        )
    }

    /// From the gradient of the logits to those of the router's maps; returns the router's share of
    /// dx.
    fn router(
        &self,
        state: &DeviceLayerState<'_, T>,
        grads: &mut DeviceLayerGrads<'_, T>,
    ) -> Result<DeviceRows<'_, f32>> {
        let (dims, regions) = (&self.layer.plan.dims, &self.layer.plan.workspace);
        let (h, e) = (dims.shape.hidden, dims.shape.experts);
        let accumulate = grads.experts.accumulate;
        let of_router = Map {
            weight: self.weights.router,
            gradient: grads.router.as_mut().map(DeviceSliceMut::reborrow),
            dx: regions.dx_router,
        };
        let dlogits = state.rows("dlogits", self.layer.plan.state.dlogits, e)?;
        self.map(state, dlogits, of_router, accumulate)?;
        let mut share = regions.dx_router;
        if dims.noisy {
            let of_noise = Map {
                weight: self.weights.router_noise,
                gradient: grads.router_noise.as_mut().map(DeviceSliceMut::reborrow),
                dx: regions.dx_noise,
            };
            let dnoise = matrix(self.workspace, "dnoise", regions.dnoise, e)?.into_rows();
            self.map(state, dnoise, of_noise, accumulate)?;
            self.sum_of_shares(state)?;
            share = regions.dx_sum;
        }
        if dims.jitter {
            let dx = matrix(self.workspace, "dx of the router", share, h)?;
            let amount = self.layer.plan.options.jitter;
            jitter::scale(&self.layer.gpu, self.stream, amount, state.step()?, dx)?;
        }
        Ok(matrix(self.workspace, "dx of the router", share, h)?.into_rows())
    }

    /// The gradient of one map of the router, and its share of dx.
    fn map(
        &self,
        state: &DeviceLayerState<'_, T>,
        dz: DeviceRows<'_, f32>,
        map: Map<'_>,
        accumulate: bool,
    ) -> Result<()> {
        let plan = &*self.layer.plan;
        let h = plan.dims.shape.hidden;
        let group = state.one_group()?;
        let mut launcher = Launcher::new(&self.layer.gpu, self.stream, state.raised()?)?;
        let (Some(weight), Some(gradient)) = (map.weight, map.gradient) else {
            return Ok(());
        };
        if plan.dims.jitter {
            let x = state.rows("jittered x", plan.state.router_input, h)?;
            launcher.k_grouped(dz, x, group, accumulate, gradient)?;
        } else {
            launcher.k_grouped(dz, self.inputs.x, group, accumulate, gradient)?;
        }
        let dx = matrix(self.workspace, "dx of the router", map.dx, h)?;
        launcher.m_grouped_transposed(dz, plan.router_map(weight), group, dx)
    }

    /// `dx_sum = dx_router + dx_noise`: the sum over a token's rows, of which each has one.
    fn sum_of_shares(&self, state: &DeviceLayerState<'_, T>) -> Result<()> {
        let (plan, regions) = (&*self.layer.plan, &self.layer.plan.workspace);
        let (t, h) = (plan.dims.tokens, plan.dims.shape.hidden);
        let rows = |region| Ok::<_, Error>(matrix(self.workspace, "dx", region, h)?.into_rows());
        let (of_router, of_noise) = (rows(regions.dx_router)?, rows(regions.dx_noise)?);
        let sum = matrix(self.workspace, "dx", regions.dx_sum, h)?;
        let numbers = state.memory.array(plan.state.numbers)?.into_slice();
        let none = numbers.part("nothing", 0, 0)?;
        let table = DeviceRoutingTable {
            num_tokens: t,
            max_assignments: t,
            token_offsets: numbers,
            ..state.gate.table()
        };
        let maps = DevicePermuteMaps {
            max_rows: t,
            row_of_assignment: numbers,
            assignment_of_row: none,
            token_of_row: none,
            expert_offsets: none,
        };
        let (gpu, stream, status) = (&self.layer.gpu, self.stream, state.raised()?);
        permute::permute_backward(
            gpu,
            stream,
            of_noise,
            &table,
            &maps,
            Some(of_router),
            sum,
            status,
        )?;
        Ok(())
    }

    /// From the rows' gradients to dx.
    fn permute(
        &self,
        addend: Option<DeviceRows<'_, f32>>,
        state: &DeviceLayerState<'_, T>,
        grads: &mut DeviceLayerGrads<'_, T>,
    ) -> Result<()> {
        let (gpu, plan) = (&self.layer.gpu, &*self.layer.plan);
        let h = plan.dims.shape.hidden;
        let drows = matrix(self.workspace, "drows", plan.workspace.drows, h)?.into_rows();
        let (table, maps, status) = (state.table(), state.maps()?, state.raised()?);
        let dx = grads.x.reborrow();
        permute::permute_backward(gpu, self.stream, drows, &table, &maps, addend, dx, status)?;
        Ok(())
    }
}
