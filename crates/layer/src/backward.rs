//! The backward pass: the forward road in reverse.

use tollgate_core::{Element, Error, Result, RowView, RowViewMut, StepContext};
use tollgate_gemm::{ExpertShape, Stacked};

use crate::state::{Pass, Scratch, sized};
use crate::work::Work;
use crate::{Device, LayerGrads, LayerInputs, LayerState, LayerWeights, MoeLayer, Trace};

impl<D: Device> MoeLayer<D> {
    /// The gradient of `<dy, y> + balance loss + z loss` with respect to the input, the router and
    /// the experts; dy `[T, H]`.
    ///
    /// `inputs` and `weights` are those of the forward pass that filled `state`; its context is
    /// taken from there. Experts without rows get zero gradients (or keep what accumulates).
    ///
    /// # Errors
    /// A state without a forward pass, or of another number of tokens; shapes that differ; a
    /// gradient that is missing or superfluous. Nothing is written then.
    pub fn backward<T: Element>(
        &self,
        inputs: &LayerInputs<'_, T>,
        weights: &LayerWeights<'_, T>,
        dy: RowView<'_, T>,
        state: &mut LayerState<T>,
        grads: &mut LayerGrads<'_, T>,
    ) -> Result<()> {
        let Some(pass) = state.pass.clone() else {
            return Err(Error::Missing {
                what: "a state that a forward pass has filled",
                because: "backward".to_owned(),
            });
        };
        self.check_pass(&pass)?;
        let (ctx, tokens) = (pass.ctx, pass.tokens);
        inputs.check(self)?;
        weights.check(self, ctx.training)?;
        Error::check_shape("rows of x (T of the forward pass)", inputs.x.rows(), tokens)?;
        Error::check_shape("rows of dy (T)", dy.rows(), tokens)?;
        Error::check_shape("columns of dy (H)", dy.cols(), self.shape.hidden)?;
        let noisy = self.options.router.is_noisy() && ctx.training;
        grads.check(self, weights, tokens, noisy)?;
        self.device
            .enter(move || self.backward_inside(inputs, weights, &pass, dy, state, grads))
    }

    /// The pass in the state is one of this very layer.
    fn check_pass(&self, pass: &Pass) -> Result<()> {
        let other = |what: String, with: String| {
            Err(Error::Incompatible {
                what,
                with,
                reason: "backward takes the state of its own layer's forward pass",
            })
        };
        if pass.shape != self.shape {
            let of = |s: &ExpertShape| {
                format!(
                    "E {}, H {}, I {}, {}{}",
                    s.experts,
                    s.hidden,
                    s.intermediate,
                    s.activation,
                    if s.gated { ", gated" } else { "" }
                )
            };
            return other(
                format!("a layer of {}", of(&self.shape)),
                format!("the state of a forward pass with {}", of(&pass.shape)),
            );
        }
        if pass.options != self.options || pass.local_experts != self.local_experts {
            return other(
                format!("a layer with router {}", self.options.router),
                format!(
                    "the state of a forward pass with router {} or other options",
                    pass.options.router
                ),
            );
        }
        Ok(())
    }

    fn backward_inside<T: Element>(
        &self,
        inputs: &LayerInputs<'_, T>,
        weights: &LayerWeights<'_, T>,
        pass: &Pass,
        dy: RowView<'_, T>,
        state: &mut LayerState<T>,
        grads: &mut LayerGrads<'_, T>,
    ) -> Result<()> {
        let shape = &self.shape;
        let (t, h, n1, i) = (
            inputs.x.rows(),
            shape.hidden,
            shape.up_rows(),
            shape.intermediate,
        );
        let LayerState {
            gate,
            maps,
            trace,
            logits,
            noise_logits,
            router_input,
            x_rows,
            pre,
            act,
            y_rows,
            scratch,
            pass: saved,
            ..
        } = state;
        trace.stages.retain(|s| !s.name.ends_with("_backward"));
        let (table, device) = (&gate.table, &self.device);
        let (ctx, dense) = (&pass.ctx, pass.dense);
        let a = table.num_assignments();
        let offsets = &table.expert_offsets;
        let of_router = self.sizes::<T>(t, ctx.training);
        let sizes = of_router.routed(table);

        let dweights = sized(&mut scratch.dweights, a);
        let dy_rows = if dense {
            dy
        } else {
            let rows = sized(&mut scratch.dy_rows, a * h);
            trace.stage("unpermute_backward", sizes.unpermute_backward(), || {
                let y_rows = RowView::new(&y_rows[..a * h], a, h)?;
                let drows = RowViewMut::new(&mut *rows, a, h)?;
                device.unpermute_backward(dy, y_rows, table, maps, drows, dweights)
            })?;
            RowView::new(rows, a, h)?
        };
        let pre = RowView::new(&pre[..a * n1], a, n1)?;
        let act = RowView::new(&act[..a * i], a, i)?;
        let dpre = sized(&mut scratch.dpre, a * n1);
        trace.stage("down_backward", sizes.down_backward(), || {
            let dpre = RowViewMut::new(&mut *dpre, a, n1)?;
            let experts = &mut grads.experts;
            device.down_backward(
                shape,
                &weights.experts,
                pre,
                act,
                dy_rows,
                offsets,
                dpre,
                experts,
            )
        })?;
        let dpre = RowView::new(dpre, a, n1)?;
        let x_rows = match dense {
            true => inputs.x,
            false => RowView::new(&x_rows[..a * h], a, h)?,
        };
        let dx_rows = if dense {
            &mut []
        } else {
            sized(&mut scratch.dx_rows, a * h)
        };
        trace.stage("up_backward", sizes.up_backward(), || {
            let experts = &mut grads.experts;
            let dx = match dense {
                true => grads.x.reborrow(),
                false => RowViewMut::new(&mut *dx_rows, a, h)?,
            };
            device.up_backward(shape, &weights.experts, x_rows, dpre, offsets, dx, experts)
        })?;
        if dense {
            return Ok(());
        }

        let mut addend = None;
        if let (true, Some(router)) = (self.options.router.has_gate(), weights.router) {
            let e = shape.experts;
            let noisy = self.options.router.is_noisy() && ctx.training;
            let logits = RowView::new(&logits[..t * e], t, e)?;
            let noise = match noisy {
                true => Some(RowView::new(&noise_logits[..t * e], t, e)?),
                false => None,
            };
            let gate_inputs = self.gate_inputs(inputs, weights, Some(logits), noise);
            let dlogits = sized(&mut scratch.dlogits, t * e);
            let dnoise = sized(&mut scratch.dnoise, if noisy { t * e } else { 0 });
            trace.stage("gate_backward", of_router.gate_backward(), || {
                let dlogits = RowViewMut::new(dlogits, t, e)?;
                let dnoise = match noisy {
                    true => Some(RowViewMut::new(dnoise, t, e)?),
                    false => None,
                };
                device.gate_backward(
                    &gate_inputs,
                    &self.options,
                    ctx,
                    gate,
                    dweights,
                    dlogits,
                    dnoise,
                )
            })?;
            let jittered = self.jitter(ctx).map(|_| &router_input[..t * h]);
            let work = of_router.router_backward();
            self.router_backward(
                inputs, weights, router, ctx, jittered, scratch, grads, work, trace,
            )?;
            addend = Some(RowView::new(&scratch.dx_router[..t * h], t, h)?);
            if let Some(saved) = saved {
                saved.has_logit_gradient = true;
            }
        }
        trace.stage("permute_backward", sizes.permute_backward(), || {
            let drows = RowView::new(&scratch.dx_rows[..a * h], a, h)?;
            device.permute_backward(drows, table, maps, addend, grads.x.reborrow())
        })
    }

    /// From the gradient of the logits to those of the router's maps and its share of dx.
    fn router_backward<T: Element>(
        &self,
        inputs: &LayerInputs<'_, T>,
        weights: &LayerWeights<'_, T>,
        router: &[f32],
        ctx: &StepContext,
        jittered: Option<&[f32]>,
        scratch: &mut Scratch<T>,
        grads: &mut LayerGrads<'_, T>,
        work: Work,
        trace: &mut Trace,
    ) -> Result<()> {
        let (t, h, e) = (inputs.x.rows(), self.shape.hidden, self.shape.experts);
        let accumulate = grads.experts.accumulate;
        let product = |map: &[f32], dz: &[f32], dx: &mut [f32], dw: &mut [f32]| {
            let one_group = [0, t as i32];
            let dz = RowView::new(dz, t, e)?;
            match jittered {
                None => self
                    .device
                    .k_grouped(dz, inputs.x, &one_group, accumulate, dw)?,
                Some(x) => {
                    let x = RowView::new(x, t, h)?;
                    self.device.k_grouped(dz, x, &one_group, accumulate, dw)?;
                }
            }
            let map = Stacked {
                data: map,
                experts: 1,
                n: e,
                k: h,
            };
            let dx = RowViewMut::new(dx, t, h)?;
            self.device.m_grouped_transposed(dz, map, &one_group, dx)
        };
        let noise = weights.router_noise.zip(grads.router_noise.as_deref_mut());
        let dx = sized(&mut scratch.dx_router, t * h);
        trace.stage("router_backward", work, || {
            if let Some(dw) = grads.router.as_deref_mut() {
                product(router, &scratch.dlogits[..t * e], dx, dw)?;
            }
            if let Some((map, dw)) = noise {
                let dx_noise = sized(&mut scratch.dx_noise, t * h);
                product(map, &scratch.dnoise[..t * e], dx_noise, dw)?;
                for (sum, &more) in dx.iter_mut().zip(&*dx_noise) {
                    *sum += more;
                }
            }
            if let Some(amount) = self.jitter(ctx) {
                let dx = RowViewMut::new(dx, t, h)?;
                self.device.jitter_backward(amount, ctx, dx)?;
            }
            Ok(())
        })
    }
}
