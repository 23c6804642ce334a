//! The gate, forward: noise, scores and slots, table, losses, capacity.

use tollgate_core::options::{BalanceOver, GateOptions, Scores};
use tollgate_core::{Philox, Result, Router};
use tollgate_device::{DevicePtr, DeviceRows, DeviceSliceMut, Gpu, StatusBlock, Stream, Workspace};
use tollgate_kernels::abi::gating::GateParams;

use super::capacity;
use super::expert_choice::{self, Choice, LocalChoice};
use super::losses::LossPart;
use super::noise::{self, Noise};
use super::plan::{self, GatePlan, Gated};
use super::state::{DeviceGateState, table_view};
use super::table::finish;
use super::ungated::{self, UngatedInputs};
use super::{DeviceGateInputs, check};

/// The whole gate, see [`crate::Gating::gate`]: puts its work into `stream` and returns.
///
/// Allocates nothing, waits for nothing, and may be captured: a replay reads the step block and the
/// inputs anew. `state` is overwritten; `workspace` means nothing before and after.
///
/// # Errors
/// Shapes that differ from the plan's, inputs that the router needs and were not given, memory that
/// is too small: before anything is launched. What the driver says.
pub fn gate(
    gpu: &Gpu,
    stream: &Stream,
    plan: &GatePlan,
    inputs: &DeviceGateInputs<'_>,
    state: &mut DeviceGateState<'_>,
    workspace: DeviceSliceMut<'_, u8>,
) -> Result<()> {
    check::inputs(plan, inputs)?;
    check::state(plan, state)?;
    let workspace = Workspace::new(workspace, &plan.workspace)?;
    clear_status(stream, state)?;
    match &plan.gated {
        Some(gated) => gated_selection(gpu, stream, plan, gated, inputs, state, &workspace)?,
        None => ungated_selection(gpu, stream, plan, inputs, state, &workspace)?,
    }
    limit(gpu, stream, plan, state, &workspace)
}

/// Fills the table from the selection, where there is a capacity; otherwise they are one.
fn limit(
    gpu: &Gpu,
    stream: &Stream,
    plan: &GatePlan,
    state: &mut DeviceGateState<'_>,
    workspace: &Workspace<'_>,
) -> Result<()> {
    let selection = table_view(plan, &state.selection);
    let (Some(capacity), Some(table)) = (&plan.work.capacity, &mut state.limited) else {
        return Ok(());
    };
    let (status, kept) = (&mut state.status, &mut state.kept);
    Ok(capacity::limit(
        gpu, stream, capacity, &selection, status, workspace, table, kept,
    )?)
}

/// Writes [`StatusBlock::CLEAR`] by fills, which unlike copies from the host can be captured.
fn clear_status(stream: &Stream, state: &mut DeviceGateState<'_>) -> Result<()> {
    let words = state.status_words()?;
    stream.fill(words.counts, 0)?;
    Ok(stream.fill(words.firsts, 0xff)?)
}

fn ungated_selection(
    gpu: &Gpu,
    stream: &Stream,
    plan: &GatePlan,
    inputs: &DeviceGateInputs<'_>,
    state: &mut DeviceGateState<'_>,
    workspace: &Workspace<'_>,
) -> Result<()> {
    let Some(of_router) = &plan.work.ungated else {
        return Ok(());
    };
    let given = UngatedInputs {
        step: inputs.step,
        token_ids: inputs.token_ids,
        hash_table: inputs.hash_table,
        sequence_offsets: inputs.sequence_offsets,
        status: state.status.reborrow(),
    };
    ungated::run(
        gpu,
        stream,
        of_router,
        &given,
        workspace,
        &mut state.selection,
    )
}

fn gated_selection(
    gpu: &Gpu,
    stream: &Stream,
    plan: &GatePlan,
    gated: &Gated,
    inputs: &DeviceGateInputs<'_>,
    state: &mut DeviceGateState<'_>,
    workspace: &Workspace<'_>,
) -> Result<()> {
    if let (true, Some(z), Some(noise_logits)) =
        (plan.uses_noise(), inputs.logits, inputs.noise_logits)
    {
        let noise = Noise {
            step: inputs.step,
            logits: z,
            noise_logits,
            noise: state.noise.reborrow(),
            noisy_logits: state.noisy_logits.reborrow(),
            row_faults: workspace.array(plan.work.row_faults)?,
        };
        noise::add(gpu, stream, noise)?;
    }
    let logits = logits_of(plan, inputs, state)?;
    let params = gate_params(plan, gated, inputs, &logits, state, workspace)?;
    let mut blocks = gated.num_blocks(plan.num_tokens) as u32;
    if gated.drops {
        // The coin is tossed for a batch of no tokens too.
        blocks = blocks.max(1);
    }
    // SAFETY: inputs and state were checked against the plan, whose layouts made the arrays of the
    // state and of the workspace.
    unsafe {
        gpu.launch(
            stream,
            gated.kernel,
            [blocks, 1, 1],
            gated.dynamic_shared,
            &params,
        )?;
    }
    let (Some(to_table), Some(of_losses)) = (&plan.work.finish, plan.work.losses) else {
        return Ok(());
    };
    let losses = LossPart {
        plan: of_losses,
        options: &plan.options,
        training: plan.training,
        step: inputs.step,
        load: state.load.reborrow(),
        losses: state.losses.reborrow(),
    };
    let Some(columns) = &plan.work.choice else {
        let table = &mut state.selection;
        return Ok(finish(
            gpu,
            stream,
            to_table,
            workspace,
            Some(&losses),
            table,
        )?);
    };
    let local = match gated.drops {
        true => Some(LocalChoice {
            dropped: state.dropped.as_slice(),
            experts: workspace.array(plan.work.local_experts)?.into_slice(),
            weights: workspace.array(plan.work.local_weights)?.into_slice(),
        }),
        false => None,
    };
    // The columns' router has no noise: its logits are those of the inputs.
    let logits = inputs
        .logits
        .ok_or_else(|| check::missing("logits", &plan.options.router))?;
    let choice = Choice {
        options: &plan.options,
        logits,
        scores: state.scores.as_slice(),
        local,
    };
    Ok(expert_choice::run(
        gpu,
        stream,
        columns,
        to_table,
        &choice,
        workspace,
        Some(&losses),
        &mut state.selection,
    )?)
}

/// The logits that scores are made of: with noise, where there is noise.
pub(super) fn logits_of<'a>(
    plan: &GatePlan,
    inputs: &DeviceGateInputs<'a>,
    state: &'a DeviceGateState<'_>,
) -> Result<DeviceRows<'a, f32>> {
    if plan.uses_noise() {
        let (t, e) = (plan.num_tokens, plan.num_experts);
        return Ok(state
            .noisy_logits
            .as_slice()
            .rows("noisy logits", t, e, e)?);
    }
    inputs
        .logits
        .ok_or_else(|| check::missing("logits", &plan.options.router))
}

/// Everything that the gate kernels take.
fn gate_params(
    plan: &GatePlan,
    gated: &Gated,
    inputs: &DeviceGateInputs<'_>,
    logits: &DeviceRows<'_, f32>,
    state: &DeviceGateState<'_>,
    workspace: &Workspace<'_>,
) -> Result<GateParams> {
    let options = &plan.options;
    let (tokens, slots) = (plan.num_tokens, gated.slots);
    let mut params = GateParams {
        logits: logits.ptr(),
        logits_stride: logits.stride() as u64,
        row_faults: workspace.array(plan.work.row_faults)?.ptr(),
        bias: inputs.selection_bias.map_or(DevicePtr::NULL, |b| b.ptr()),
        step: inputs.step.ptr(),
        scores: state.scores.ptr(),
        lse: state.lse.ptr(),
        first_choice: state.first_choice.ptr(),
        runner_up: state.runner_up.ptr(),
        slot_experts: DevicePtr::NULL,
        slot_weights: DevicePtr::NULL,
        local_experts: workspace.array(plan.work.local_experts)?.ptr(),
        local_weights: workspace.array(plan.work.local_weights)?.ptr(),
        block_counts: DevicePtr::NULL,
        block_histogram: DevicePtr::NULL,
        load_histogram: DevicePtr::NULL,
        block_shares: DevicePtr::NULL,
        block_squares: DevicePtr::NULL,
        dropped: state.dropped.ptr(),
        status: state.status.ptr(),
        drop_below: 0,
        forced_below: gated.forced_below,
        rule_limit: gated.rule_limit,
        num_tokens: tokens as u32,
        num_experts: plan.num_experts as u32,
        tokens_per_block: gated.tokens_per_block as u32,
        k: gated.ranked as u32,
        slots: slots as u32,
        rule: gated.rule as u32,
        sigmoid: u32::from(gated.scores == Scores::Sigmoid),
        weights: plan::weights(options.weights()),
        load: plan::load(options.balance_over()),
        groups: 0,
        top_groups: 0,
        group_places: 0,
        coin_per_step: 0,
        drop_experts: 0,
        local_choice: 0,
        local_weight: 0,
        local_start: inputs.local_experts.start as u32,
        local_count: inputs.local_experts.len() as u32,
        weight_scale: options.weight_scale,
        vector_rows: u32::from(logits.row_alignment() == 16 && plan.num_experts.is_multiple_of(4)),
    };
    if let Router::Grouped {
        k,
        groups,
        top_groups,
        ..
    } = options.router
    {
        params.groups = groups as u32;
        params.top_groups = top_groups as u32;
        params.group_places = k.div_ceil(top_groups) as u32;
    }
    if let Some(dropout) = options.gating_dropout.filter(|_| plan.training) {
        use tollgate_core::options::Granularity;
        params.drop_below = Philox::threshold(dropout.probability.into());
        params.coin_per_step = u32::from(dropout.granularity == Granularity::Step);
        params.drop_experts = plan::drops_experts(dropout.mode);
        params.local_choice = plan::local_choice(dropout.local_choice);
        params.local_weight = plan::local_weight(dropout.local_weight);
    }
    if let Some(losses) = &plan.work.losses {
        params.block_shares = workspace.array(losses.block_shares)?.ptr();
        params.block_squares = workspace.array(losses.block_squares)?.ptr();
        if loads_in_gate(gated, options) {
            params.load_histogram = workspace.array(losses.load_histogram)?.ptr();
        }
    }
    if let Some(finish) = plan.work.finish.as_ref().filter(|_| slots > 0) {
        params.block_counts = workspace.array(finish.block_counts)?.ptr();
        params.block_histogram = workspace.array(finish.block_histogram)?.ptr();
        (params.slot_experts, params.slot_weights) = if gated.writes_table() {
            let table = &state.selection;
            (table.expert_indices.ptr(), table.routing_weights.ptr())
        } else {
            let experts = workspace.array(finish.slot_experts)?;
            (experts.ptr(), workspace.array(finish.slot_weights)?.ptr())
        };
    }
    Ok(params)
}

/// Whether the gate itself counts the load: not where it is in the histogram anyway, and not where
/// the columns choose, unless first choices count.
fn loads_in_gate(gated: &Gated, options: &GateOptions) -> bool {
    let over = options.balance_over();
    let chosen = gated.slots > 0 || over == BalanceOver::FirstChoice;
    options.balance_alpha > 0.0 && chosen && !gated.load_is_histogram(over)
}

/// The two halves of a status block.
pub(super) struct StatusWords<'a> {
    pub counts: DeviceSliceMut<'a, u32>,
    pub firsts: DeviceSliceMut<'a, u32>,
}

impl DeviceGateState<'_> {
    /// The words that are 0 where nothing was met, and those that are all ones.
    fn status_words(&mut self) -> Result<StatusWords<'_>> {
        let ptr = self.status.ptr().0;
        let half = size_of::<StatusBlock>() as u64 / 2;
        // SAFETY: the status block is four words of memory that the state borrows mutably.
        unsafe {
            Ok(StatusWords {
                counts: DeviceSliceMut::from_raw("status", ptr, 2)?,
                firsts: DeviceSliceMut::from_raw("status", ptr + half, 2)?,
            })
        }
    }
}
