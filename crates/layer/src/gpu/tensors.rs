//! The tensors of a pass in device memory, and what they are checked against.

use bytemuck::Pod;
use tollgate_core::options::{Scores, StochasticPer};
use tollgate_core::{Element, Error, Result, Router};
use tollgate_device::{DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, StepBlock};
use tollgate_gemm::gpu::{DeviceExpertGrads, DeviceExpertWeights};

use super::plan::Plan;
use crate::tensors::check_optional;

/// The inputs of a pass.
#[derive(Debug, Clone, Copy)]
pub struct DeviceLayerInputs<'a, T> {
    /// `[T, H]` activations.
    pub x: DeviceRows<'a, T>,
    /// `[T]` token ids; required by the hash router.
    pub token_ids: Option<DeviceSlice<'a, i32>>,
    /// `[V]` expert of each token id; without it the hash router draws the table from the seed.
    pub hash_table: Option<DeviceSlice<'a, i32>>,
    /// `[S+1]` exclusive prefix sums of the sequence lengths; required by `thor:sentence`.
    pub sequence_offsets: Option<DeviceSlice<'a, i32>>,
    /// One block: where in training the forward pass stands. It is copied by the forward pass, so
    /// that the backward pass draws the same whatever stands here then.
    pub step: DeviceSlice<'a, StepBlock>,
}

/// The parameters of a layer.
#[derive(Debug, Clone, Copy)]
pub struct DeviceLayerWeights<'a, T> {
    /// `[E, H]` f32; required by every router with a gate: `logits = x · routerᵀ`.
    pub router: Option<DeviceSlice<'a, f32>>,
    /// `[E, H]` f32; required by the noisy router in training.
    pub router_noise: Option<DeviceSlice<'a, f32>>,
    /// `[E]` f32, added to the scores for the selection only (sigmoid and grouped routers).
    pub selection_bias: Option<DeviceSlice<'a, f32>>,
    /// The experts: `up [E, N1, H]`, `up_bias [E, N1]`, `down [E, H, I]`, `down_bias [E, H]`.
    pub experts: DeviceExpertWeights<'a, T>,
}

/// Where a backward pass writes.
#[derive(Debug)]
pub struct DeviceLayerGrads<'a, T> {
    /// `[T, H]`, the gradient of the input, rounded once to T.
    pub x: DeviceRowsMut<'a, T>,
    /// `[E, H]` f32; required exactly when the router has a gate.
    pub router: Option<DeviceSliceMut<'a, f32>>,
    /// `[E, H]` f32; required exactly when the forward pass uses router noise.
    pub router_noise: Option<DeviceSliceMut<'a, f32>>,
    /// Gradients of the experts, f32. `accumulate` holds for the router's gradients as well.
    pub experts: DeviceExpertGrads<'a>,
}

/// Length of an optional view.
fn len<T: Pod>(view: &Option<DeviceSlice<'_, T>>) -> Option<usize> {
    view.as_ref().map(DeviceSlice::len)
}

/// The same of one to be written.
fn len_mut<T: Pod>(view: &Option<DeviceSliceMut<'_, T>>) -> Option<usize> {
    view.as_ref().map(DeviceSliceMut::len)
}

impl<T: Element> DeviceLayerInputs<'_, T> {
    pub(super) fn check(&self, plan: &Plan<T>) -> Result<()> {
        let tokens = plan.dims.tokens;
        Error::check_shape("rows of x (T)", self.x.num_rows(), tokens)?;
        Error::check_shape(
            "columns of x (H)",
            self.x.num_cols(),
            plan.dims.shape.hidden,
        )?;
        Error::check_shape("step blocks", self.step.len(), 1)?;
        let router = &plan.options.router;
        let because = || format!("router {router}");
        match *router {
            Router::Hash => {
                let ids = len(&self.token_ids);
                check_optional("token_ids", ids, Some(tokens), because)
            }
            Router::Stochastic {
                per: StochasticPer::Sentence,
            } if self.sequence_offsets.is_none() => Err(Error::Missing {
                what: "sequence_offsets",
                because: because(),
            }),
            _ => Ok(()),
        }
    }
}

impl<T: Element> DeviceLayerWeights<'_, T> {
    pub(super) fn check(&self, plan: &Plan<T>) -> Result<()> {
        let (shape, router) = (&plan.dims.shape, &plan.options.router);
        let (e, h, i, n1) = (
            shape.experts,
            shape.hidden,
            shape.intermediate,
            shape.up_rows(),
        );
        let because = || format!("router {router}");
        // Weights of a router that is not in use are tolerated: a model may switch routers.
        if router.has_gate() {
            check_optional(
                "router weight (E·H)",
                len(&self.router),
                Some(e * h),
                because,
            )?;
        }
        if plan.dims.noisy {
            let noise = len(&self.router_noise);
            check_optional("router noise weight (E·H)", noise, Some(e * h), because)?;
        }
        if let Some(bias) = &self.selection_bias {
            let takes_bias = matches!(router, Router::Grouped { .. })
                || matches!(router, Router::TopK { scores, .. } if *scores == Scores::Sigmoid);
            if !takes_bias {
                return Err(Error::Incompatible {
                    what: "selection_bias".to_owned(),
                    with: because(),
                    reason: "only sigmoid and grouped routers select by score plus bias",
                });
            }
            Error::check_shape("selection_bias (E)", bias.len(), e)?;
        }
        let experts = &self.experts;
        Error::check_shape("up weights (E·N1·H)", experts.up.len(), e * n1 * h)?;
        Error::check_shape("down weights (E·H·I)", experts.down.len(), e * h * i)?;
        if let Some(bias) = &experts.up_bias {
            Error::check_shape("up bias (E·N1)", bias.len(), e * n1)?;
        }
        if let Some(bias) = &experts.down_bias {
            Error::check_shape("down bias (E·H)", bias.len(), e * h)?;
        }
        Ok(())
    }
}

impl<T: Element> DeviceLayerGrads<'_, T> {
    pub(super) fn check(&self, plan: &Plan<T>, weights: &DeviceLayerWeights<'_, T>) -> Result<()> {
        let (shape, router) = (&plan.dims.shape, &plan.options.router);
        let (e, h) = (shape.experts, shape.hidden);
        let because = || format!("router {router}");
        Error::check_shape("rows of dx (T)", self.x.num_rows(), plan.dims.tokens)?;
        Error::check_shape("columns of dx (H)", self.x.num_cols(), h)?;
        let gate = router.has_gate().then_some(e * h);
        let what = "gradient of the router weight (E·H)";
        check_optional(what, len_mut(&self.router), gate, because)?;
        let noise = gate.filter(|_| plan.dims.noisy);
        let what = "gradient of the router noise weight (E·H)";
        check_optional(what, len_mut(&self.router_noise), noise, because)?;
        let (experts, of) = (&self.experts, &weights.experts);
        let (up, down) = (e * shape.up_rows(), e * h);
        Error::check_shape("gradient of up (E·N1·H)", experts.up.len(), up * h)?;
        let what = "gradient of down (E·H·I)";
        Error::check_shape(what, experts.down.len(), down * shape.intermediate)?;
        let bias = |has: bool| format!("a map with{} bias", if has { "" } else { "out" });
        let (has_up, has_down) = (of.up_bias.is_some(), of.down_bias.is_some());
        let what = "gradient of up_bias (E·N1)";
        let needed = has_up.then_some(up);
        check_optional(what, len_mut(&experts.up_bias), needed, || bias(has_up))?;
        let what = "gradient of down_bias (E·H)";
        let needed = has_down.then_some(down);
        check_optional(what, len_mut(&experts.down_bias), needed, || bias(has_down))
    }
}
