//! The gate, backward.

use tollgate_core::options::{AuxLoss, Scores};
use tollgate_core::{Error, Result};
use tollgate_device::{
    DevicePtr, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Gpu, Stream, Workspace,
};
use tollgate_kernels::abi::gating::{GateBackwardParams, GatePositionsParams};
use tollgate_kernels::registry::gating::{GATE_BACKWARD_BLOCK, GATE_BACKWARD_WARP, GATE_POSITIONS};

use super::forward::logits_of;
use super::plan::{self, GatePlan, MAX_WARP_EXPERTS, padded};
use super::state::DeviceGateState;
use super::{DeviceGateInputs, check};

/// Rows of a block of `tg_gate_backward_warp` at once, and its tokens.
const ROWS: usize = 4;
const TOKENS_PER_BLOCK: usize = 16;

/// The gradient of the loss with respect to the logits, see [`crate::Gating::gate_backward`]: puts
/// its work into `stream` and returns. Capturable.
///
/// `dweights` is in the order of the state's table and as long as the bound of A, of which A
/// entries are read. Writes all of `dlogits` `[T, E]`, and of `dnoise_logits` `[T, E]` where it is
/// given: for the noisy router in training it is required. `plan` and `inputs` are those of the
/// forward pass.
///
/// # Errors
/// Shapes that differ, a missing output, memory that is too small: before anything is launched.
/// What the driver says.
pub fn gate_backward(
    gpu: &Gpu,
    stream: &Stream,
    plan: &GatePlan,
    inputs: &DeviceGateInputs<'_>,
    state: &DeviceGateState<'_>,
    dweights: DeviceSlice<'_, f32>,
    mut dlogits: DeviceRowsMut<'_, f32>,
    mut dnoise_logits: Option<DeviceRowsMut<'_, f32>>,
    workspace: DeviceSliceMut<'_, u8>,
) -> Result<()> {
    check::inputs(plan, inputs)?;
    check::state(plan, state)?;
    check::gradients(plan, dweights.len(), &dlogits, dnoise_logits.as_ref())?;
    let workspace = Workspace::new(workspace, &plan.workspace)?;
    let (tokens, experts) = (plan.num_tokens, plan.num_experts);
    let Some(gated) = &plan.gated else {
        clear(stream, &mut dlogits)?;
        return match &mut dnoise_logits {
            Some(dnoise) => clear(stream, dnoise),
            None => Ok(()),
        };
    };
    let positions = positions(gpu, stream, plan, state, &workspace)?;
    let logits = logits_of(plan, inputs, state)?;
    let options = &plan.options;
    let dropout = options.gating_dropout.filter(|_| gated.drops);
    // With no tokens there is nothing to be written.
    let per_token = 1.0 / tokens.max(1) as f64;
    let params = GateBackwardParams {
        logits: logits.ptr(),
        logits_stride: logits.stride() as u64,
        dlogits: dlogits.ptr(),
        dlogits_stride: dlogits.stride() as u64,
        lse: state.lse.ptr(),
        first_choice: state.first_choice.ptr(),
        runner_up: state.runner_up.ptr(),
        token_offsets: state.selection.token_offsets.ptr(),
        expert_indices: state.selection.expert_indices.ptr(),
        positions,
        dweights: dweights.ptr(),
        load: state.load.ptr(),
        dropped: state.dropped.ptr(),
        balance_factor: f64::from(options.balance_alpha) * experts as f64 * per_token,
        z_factor: (2.0 * f64::from(options.z_coefficient) * per_token) as f32,
        weight_scale: options.weight_scale,
        num_tokens: tokens as u32,
        num_experts: experts as u32,
        max_assignments: plan.max_assignments() as u32,
        sigmoid: u32::from(gated.scores == Scores::Sigmoid),
        weights: plan::weights(options.weights()),
        drop_experts: dropout.map_or(0, |d| plan::drops_experts(d.mode)),
        drop_losses: u32::from(dropout.is_some_and(|d| d.aux_loss == AuxLoss::Zero)),
        local_weight: dropout.map_or(0, |d| plan::local_weight(d.local_weight)),
        local_start: inputs.local_experts.start as u32,
        local_count: inputs.local_experts.len() as u32,
        vector_logits: check::vector_rows(&logits),
        vector_dlogits: check::vector_rows_mut(&dlogits),
    };
    let row = 3 * padded(experts);
    let (kernel, blocks, words) = if experts <= MAX_WARP_EXPERTS {
        let blocks = tokens.div_ceil(TOKENS_PER_BLOCK);
        (&GATE_BACKWARD_WARP, blocks, ROWS * row + padded(experts))
    } else {
        (&GATE_BACKWARD_BLOCK, tokens, row)
    };
    let grid = [blocks as u32, 1, 1];
    // SAFETY: inputs, state and outputs were checked against the plan.
    unsafe { gpu.launch(stream, kernel, grid, 4 * words as u32, &params)? };
    match (dnoise_logits, inputs.noise_logits) {
        (Some(dnoise), Some(noise_logits)) if plan.uses_noise() => Ok(super::noise::backward(
            gpu,
            stream,
            dlogits.as_rows(),
            state.noise.as_slice(),
            noise_logits,
            dnoise,
        )?),
        // Without noise nothing depends on its logits.
        (Some(mut dnoise), _) => clear(stream, &mut dnoise),
        (None, _) => Ok(()),
    }
}

/// Where each assignment of the selection stands in `dweights`; null where both tables are one.
fn positions(
    gpu: &Gpu,
    stream: &Stream,
    plan: &GatePlan,
    state: &DeviceGateState<'_>,
    workspace: &Workspace<'_>,
) -> Result<DevicePtr> {
    let Some(table) = &state.limited else {
        return Ok(DevicePtr::NULL);
    };
    let mut positions = workspace.array(plan.work.positions)?;
    stream.fill(positions.reborrow(), 0xff)?;
    let params = GatePositionsParams {
        token_offsets: table.token_offsets.ptr(),
        kept: state.kept.ptr(),
        positions: positions.ptr(),
        num_tokens: plan.num_tokens as u32,
        max_assignments: plan.max_assignments() as u32,
    };
    let blocks = plan
        .max_assignments()
        .div_ceil(GATE_POSITIONS.threads as usize) as u32;
    // SAFETY: state and workspace hold as many assignments as the plan says.
    unsafe { gpu.launch(stream, &GATE_POSITIONS, [blocks, 1, 1], 0, &params)? };
    Ok(positions.ptr())
}

/// Sets all of a matrix to 0.
fn clear(stream: &Stream, rows: &mut DeviceRowsMut<'_, f32>) -> Result<()> {
    let (count, cols, stride) = (rows.num_rows(), rows.num_cols(), rows.stride());
    if count == 0 || cols == 0 {
        return Ok(());
    }
    let start = rows.ptr().0;
    let fill = |row: usize, elems: usize| {
        let at = start + (row * stride * size_of::<f32>()) as u64;
        // SAFETY: whole rows of a matrix that is borrowed mutably.
        let part = unsafe { DeviceSliceMut::<f32>::from_raw("a gradient", at, elems)? };
        Ok::<_, Error>(stream.fill(part, 0)?)
    };
    if stride == cols {
        return fill(0, count * cols);
    }
    (0..count).try_for_each(|row| fill(row, cols))
}
