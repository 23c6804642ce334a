//! What a gate call on a GPU refuses, before anything is launched.
//!
//! What is in device memory is not looked at: indices out of range are met by the kernels, which
//! report them in the status block.

use tollgate_core::options::StochasticPer;
use tollgate_core::{Error, Result, Router};
use tollgate_device::{DeviceRows, DeviceRowsMut};

use super::DeviceGateInputs;
use super::plan::GatePlan;
use super::state::DeviceGateState;
use crate::check;

/// Inputs that do not fit the plan.
pub(super) fn inputs(plan: &GatePlan, inputs: &DeviceGateInputs<'_>) -> Result<()> {
    let (tokens, experts) = (plan.num_tokens, plan.num_experts);
    let router = &plan.options.router;
    Error::check_shape("tokens (T) of the inputs", inputs.num_tokens, tokens)?;
    Error::check_shape("experts (E) of the inputs", inputs.num_experts, experts)?;
    Error::check_shape("step blocks", inputs.step.len(), 1)?;
    match &inputs.logits {
        Some(logits) => {
            Error::check_shape("rows of logits (T)", logits.num_rows(), tokens)?;
            Error::check_shape("columns of logits (E)", logits.num_cols(), experts)?;
        }
        None if router.has_gate() => return Err(missing("logits", router)),
        None => {}
    }
    if plan.uses_noise() {
        let noise = inputs
            .noise_logits
            .ok_or_else(|| missing("noise_logits", router))?;
        Error::check_shape("rows of noise_logits (T)", noise.num_rows(), tokens)?;
        Error::check_shape("columns of noise_logits (E)", noise.num_cols(), experts)?;
    }
    if let Some(bias) = &inputs.selection_bias {
        check::takes_bias(router)?;
        Error::check_shape("selection_bias (E)", bias.len(), experts)?;
    }
    match router {
        Router::Hash => {
            let ids = inputs
                .token_ids
                .ok_or_else(|| missing("token_ids", router))?;
            Error::check_shape("token_ids (T)", ids.len(), tokens)?;
        }
        Router::Stochastic {
            per: StochasticPer::Sentence,
        } => {
            let offsets = inputs
                .sequence_offsets
                .ok_or_else(|| missing("sequence_offsets", router))?;
            Error::check_range(
                "sequence_offsets (S+1)",
                offsets.len(),
                1,
                i32::MAX as usize,
            )?;
        }
        _ => {}
    }
    check::local_experts(&inputs.local_experts, &plan.options, experts)
}

/// A state of another plan.
pub(super) fn state(plan: &GatePlan, state: &DeviceGateState<'_>) -> Result<()> {
    Error::check_shape("tokens (T) of the state", state.num_tokens, plan.num_tokens)?;
    Error::check_shape(
        "experts (E) of the state",
        state.num_experts,
        plan.num_experts,
    )?;
    let layouts_agree = state.layout == plan.state;
    if layouts_agree {
        return Ok(());
    }
    Err(Error::Incompatible {
        what: "the state".to_owned(),
        with: format!("a plan of router {}", plan.options.router),
        reason: "it was made for another plan",
    })
}

/// Outputs of the backward pass that do not fit the plan.
pub(super) fn gradients(
    plan: &GatePlan,
    dweights: usize,
    dlogits: &DeviceRowsMut<'_, f32>,
    dnoise: Option<&DeviceRowsMut<'_, f32>>,
) -> Result<()> {
    let (tokens, experts) = (plan.num_tokens, plan.num_experts);
    let bound = plan.max_assignments();
    if dweights < bound {
        return Err(Error::BufferTooSmall {
            what: "dweights (the bound of A)",
            actual: dweights,
            needed: bound,
        });
    }
    Error::check_shape("rows of dlogits (T)", dlogits.num_rows(), tokens)?;
    Error::check_shape("columns of dlogits (E)", dlogits.num_cols(), experts)?;
    match dnoise {
        Some(dnoise) => {
            Error::check_shape("rows of dnoise_logits (T)", dnoise.num_rows(), tokens)?;
            Error::check_shape("columns of dnoise_logits (E)", dnoise.num_cols(), experts)
        }
        None if plan.uses_noise() => Err(missing("dnoise_logits", &plan.options.router)),
        None => Ok(()),
    }
}

/// An input that the router needs.
pub(super) fn missing(what: &'static str, router: &Router) -> Error {
    Error::Missing {
        what,
        because: format!("router {router}"),
    }
}

/// Whether rows may be read or written 16 bytes at a time.
pub(super) fn vector_rows(rows: &DeviceRows<'_, f32>) -> u32 {
    u32::from(rows.row_alignment() == 16 && rows.num_cols().is_multiple_of(4))
}

/// The same of rows to be written.
pub(super) fn vector_rows_mut(rows: &DeviceRowsMut<'_, f32>) -> u32 {
    u32::from(rows.row_alignment() == 16 && rows.num_cols().is_multiple_of(4))
}
