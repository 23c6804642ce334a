//! The forward pass: gate → permute → experts → unpermute.

use tollgate_core::{Element, Error, Result, RowView, RowViewMut, StepContext};
use tollgate_gating::{GateInputs, GateState};
use tollgate_gemm::Stacked;

use crate::state::{Pass, sized};
use crate::work::Sizes;
use crate::{Device, LayerInputs, LayerState, LayerWeights, MoeLayer};

impl<D: Device> MoeLayer<D> {
    /// `y_t = Σ_{e ∈ S_t} w_e FFN_e(x_t)`; x and y `[T, H]`. A token without experts gets 0.
    ///
    /// Saves in `state` what [`MoeLayer::backward`] needs, and the step's [`crate::Trace`].
    ///
    /// # Errors
    /// Shapes that differ, tensors that the router needs and were not given, T·k·H beyond the
    /// address space. `y` is not written then. Rows with NaN are no error: their output is NaN and
    /// [`crate::Trace::status`] names them.
    pub fn forward<T: Element>(
        &self,
        inputs: &LayerInputs<'_, T>,
        weights: &LayerWeights<'_, T>,
        ctx: &StepContext,
        y: RowViewMut<'_, T>,
        state: &mut LayerState<T>,
    ) -> Result<()> {
        inputs.check(self)?;
        weights.check(self, ctx.training)?;
        Error::check_shape("rows of y (T)", y.rows(), inputs.x.rows())?;
        Error::check_shape("columns of y (H)", y.cols(), self.shape.hidden)?;
        self.device
            .enter(move || self.forward_inside(inputs, weights, ctx, y, state))
    }

    fn forward_inside<T: Element>(
        &self,
        inputs: &LayerInputs<'_, T>,
        weights: &LayerWeights<'_, T>,
        ctx: &StepContext,
        y: RowViewMut<'_, T>,
        state: &mut LayerState<T>,
    ) -> Result<()> {
        // Until this pass is whole, the state holds none.
        state.pass = None;
        state.trace.stages.clear();
        self.gate_forward(inputs, weights, ctx, state)?;
        let dense = self.is_dense(&state.gate);
        self.experts_forward(inputs, weights, y, dense, ctx.training, state)?;
        let (trace, gate) = (&mut state.trace, &state.gate);
        trace.decisions(&gate.table, gate.selection.num_assignments());
        trace.dropped = gate.dropped;
        trace.losses = gate.losses;
        trace.status = gate.status;
        state.pass = Some(Pass {
            ctx: *ctx,
            tokens: inputs.x.rows(),
            shape: self.shape,
            options: self.options.clone(),
            local_experts: self.local_experts.clone(),
            dense,
            has_logit_gradient: false,
        });
        Ok(())
    }

    /// The router's products and the gate.
    fn gate_forward<T: Element>(
        &self,
        inputs: &LayerInputs<'_, T>,
        weights: &LayerWeights<'_, T>,
        ctx: &StepContext,
        state: &mut LayerState<T>,
    ) -> Result<()> {
        let (t, h, e) = (inputs.x.rows(), self.shape.hidden, self.shape.experts);
        let noisy = self.options.router.is_noisy() && ctx.training;
        let sizes = self.sizes::<T>(t, ctx.training);
        let mut logits = None;
        let mut noise_logits = None;
        if let (true, Some(router)) = (self.options.router.has_gate(), weights.router) {
            let jittered = match self.jitter(ctx) {
                Some(amount) => {
                    let out = sized(&mut state.router_input, t * h);
                    let rows = RowViewMut::new(&mut *out, t, h)?;
                    self.device.jitter(inputs.x, amount, ctx, rows)?;
                    Some(&*out)
                }
                None => None,
            };
            let out = sized(&mut state.logits, t * e);
            let noise_out = noisy.then(|| sized(&mut state.noise_logits, t * e));
            state.trace.stage("router", sizes.router(), || {
                self.router_product(inputs.x, jittered, router, out)?;
                if let (Some(map), Some(out)) = (weights.router_noise, noise_out) {
                    self.router_product(inputs.x, jittered, map, out)?;
                }
                Ok::<(), Error>(())
            })?;
            logits = Some(RowView::new(&state.logits[..t * e], t, e)?);
            if noisy {
                noise_logits = Some(RowView::new(&state.noise_logits[..t * e], t, e)?);
            }
        }
        let gate_inputs = self.gate_inputs(inputs, weights, logits, noise_logits);
        let gate = &mut state.gate;
        state.trace.stage("gate", sizes.gate(), || {
            self.device.gate(&gate_inputs, &self.options, ctx, gate)
        })
    }

    /// `logits = x · Wᵀ` for one `[E, H]` map.
    fn router_product<T: Element>(
        &self,
        x: RowView<'_, T>,
        jittered: Option<&[f32]>,
        map: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        let (t, h, e) = (x.rows(), self.shape.hidden, self.shape.experts);
        let one_group = [0, t as i32];
        let map = Stacked {
            data: map,
            experts: 1,
            n: e,
            k: h,
        };
        let out = RowViewMut::new(out, t, e)?;
        match jittered {
            None => self.device.m_grouped(x, map, None, &one_group, out),
            Some(x) => {
                let x = RowView::new(x, t, h)?;
                self.device.m_grouped(x, map, None, &one_group, out)
            }
        }
    }

    /// Permute, experts, unpermute.
    fn experts_forward<T: Element>(
        &self,
        inputs: &LayerInputs<'_, T>,
        weights: &LayerWeights<'_, T>,
        y: RowViewMut<'_, T>,
        dense: bool,
        training: bool,
        state: &mut LayerState<T>,
    ) -> Result<()> {
        let shape = &self.shape;
        let (t, h, n1, i) = (
            inputs.x.rows(),
            shape.hidden,
            shape.up_rows(),
            shape.intermediate,
        );
        let table = &state.gate.table;
        let a = table.num_assignments();
        let sizes = self.sizes::<T>(t, training).routed(table);
        let trace = &mut state.trace;
        let (maps, device) = (&mut state.maps, &self.device);
        let x_rows = if dense {
            inputs.x
        } else {
            let rows = sized(&mut state.x_rows, a * h);
            trace.stage("permute", sizes.permute(), || {
                device.sort(table, maps)?;
                device.permute(inputs.x, maps, RowViewMut::new(&mut *rows, a, h)?)
            })?;
            RowView::new(rows, a, h)?
        };
        let offsets = &table.expert_offsets;
        let pre = sized(&mut state.pre, a * n1);
        let act = sized(&mut state.act, a * i);
        trace.stage("up", sizes.up(), || {
            let pre = RowViewMut::new(pre, a, n1)?;
            let act = RowViewMut::new(&mut *act, a, i)?;
            device.up(shape, &weights.experts, x_rows, offsets, pre, act)
        })?;
        let act = RowView::new(act, a, i)?;
        if dense {
            return trace.stage("down", sizes.down(), || {
                device.down(shape, &weights.experts, act, offsets, y)
            });
        }
        let y_rows = sized(&mut state.y_rows, a * h);
        trace.stage("down", sizes.down(), || {
            let y_rows = RowViewMut::new(&mut *y_rows, a, h)?;
            device.down(shape, &weights.experts, act, offsets, y_rows)
        })?;
        let y_rows = RowView::new(y_rows, a, h)?;
        trace.stage("unpermute", sizes.unpermute(), || {
            device.unpermute(y_rows, table, maps, y)
        })
    }

    /// One expert for the whole batch with weight 1: the rows are the tokens.
    fn is_dense(&self, gate: &GateState) -> bool {
        !self.options.router.has_gate()
            && gate.table.sole_expert().is_some()
            && self.options.weight_scale == 1.0
    }

    /// What the work of a step of these tokens follows from.
    pub(crate) fn sizes<T>(&self, tokens: usize, training: bool) -> Sizes {
        let router = &self.options.router;
        let noisy = router.is_noisy() && training;
        Sizes::of::<T>(&self.shape, tokens, router.has_gate(), noisy)
    }

    /// The gate's view of the inputs.
    pub(crate) fn gate_inputs<'a, T>(
        &self,
        inputs: &LayerInputs<'a, T>,
        weights: &LayerWeights<'a, T>,
        logits: Option<RowView<'a, f32>>,
        noise_logits: Option<RowView<'a, f32>>,
    ) -> GateInputs<'a> {
        GateInputs {
            logits,
            noise_logits,
            selection_bias: weights.selection_bias,
            token_ids: inputs.token_ids,
            hash_table: inputs.hash_table,
            sequence_offsets: inputs.sequence_offsets,
            local_experts: self.local_experts.clone(),
            ..GateInputs::without_logits(inputs.x.rows(), self.shape.experts)
        }
    }
}
