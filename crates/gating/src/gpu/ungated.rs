//! Routers without a gate: hash, stochastic experts, ensemble.

use tollgate_core::options::{GateOptions, StochasticPer};
use tollgate_core::{Error, Result, Router, Stream as DrawStream};
use tollgate_device::{
    DevicePtr, DeviceSlice, DeviceSliceMut, Error as DeviceError, Gpu, StatusBlock, StepBlock,
    Stream, Workspace, WorkspaceLayout,
};
use tollgate_kernels::Kernel;
use tollgate_kernels::abi::selection::{CountParams, DrawParams, UngatedParams};
use tollgate_kernels::registry::selection::{
    COUNT_EXPERTS, DRAW_BATCH, DRAW_EXPERTS, DRAW_SENTENCES, ENSEMBLE, HASH_LOOKUP,
};

use super::table::{FinishPlan, TableMut, finish, product};

/// Tokens of a block of `tg_count_experts`.
const COUNT_TOKENS: usize = 1024;

/// What the draws and tables of a call need of a workspace.
#[derive(Debug, Clone, Copy)]
pub struct UngatedPlan {
    num_tokens: usize,
    num_experts: usize,
    router: Router,
    weight: f32,
    /// Where tokens take different experts: their counts.
    finish: Option<FinishPlan>,
}

impl UngatedPlan {
    /// Adds what the router of `options` needs to a layout.
    ///
    /// # Errors
    /// A router with a gate; [`Error::Overflow`], also for more than `i32::MAX` assignments.
    pub fn new(
        layout: &mut WorkspaceLayout,
        options: &GateOptions,
        num_tokens: usize,
        num_experts: usize,
    ) -> Result<Self> {
        let router = options.router;
        let k = router.max_experts_per_token(num_experts);
        product("assignments (T·k)", num_tokens, k, i32::MAX as usize)?;
        let counted = match router {
            Router::Hash => true,
            Router::Stochastic { per } => per != StochasticPer::Batch,
            Router::Ensemble => false,
            _ => {
                return Err(Error::Missing {
                    what: "logits",
                    because: format!("router {router}"),
                });
            }
        };
        let finish = match counted {
            true => Some(FinishPlan::new(
                layout,
                num_tokens,
                num_experts,
                1,
                COUNT_TOKENS,
                true,
            )?),
            false => None,
        };
        Ok(Self {
            num_tokens,
            num_experts,
            router,
            weight: options.weight_scale / k as f32,
            finish,
        })
    }
}

/// What routers without a gate decide by. All of it is in device memory.
#[derive(Debug)]
pub struct UngatedInputs<'a> {
    /// Where training stands.
    pub step: DeviceSlice<'a, StepBlock>,
    /// `[T]`, for the hash router.
    pub token_ids: Option<DeviceSlice<'a, i32>>,
    /// `[V]`, the expert of every token id; without it the hash router draws.
    pub hash_table: Option<DeviceSlice<'a, i32>>,
    /// `[S+1]`, for `thor:sentence`.
    pub sequence_offsets: Option<DeviceSlice<'a, i32>>,
    /// Told of indices out of range: their tokens take expert 0 with weight NaN.
    pub status: DeviceSliceMut<'a, StatusBlock>,
}

/// Fills `table`. Capturable: a replay draws anew from the step block.
///
/// # Errors
/// Inputs that the router needs and were not given; arrays that are too small.
pub fn run(
    gpu: &Gpu,
    stream: &Stream,
    plan: &UngatedPlan,
    inputs: &UngatedInputs<'_>,
    workspace: &Workspace<'_>,
    table: &mut TableMut<'_>,
) -> Result<()> {
    let (tokens, experts) = (plan.num_tokens, plan.num_experts);
    let k = plan.router.max_experts_per_token(experts);
    table.check(tokens, experts, tokens * k)?;
    DeviceError::check_len("the step block", inputs.step.len(), 1)?;
    DeviceError::check_len("the status block", inputs.status.len(), 1)?;
    let (ids, sequences) = match plan.router {
        Router::Hash => (
            Some(required(
                plan.router,
                "token_ids",
                inputs.token_ids,
                tokens,
            )?),
            None,
        ),
        Router::Stochastic {
            per: StochasticPer::Sentence,
        } => {
            let offsets = required(plan.router, "sequence_offsets", inputs.sequence_offsets, 1)?;
            (None, Some(offsets))
        }
        _ => (None, None),
    };
    let optional = |slice: Option<DeviceSlice<'_, i32>>| slice.map_or(DevicePtr::NULL, |s| s.ptr());
    let params = UngatedParams {
        step: inputs.step.ptr(),
        token_ids: optional(ids),
        hash_table: optional(inputs.hash_table),
        sequence_offsets: optional(sequences),
        token_offsets: table.token_offsets.ptr(),
        expert_indices: table.expert_indices.ptr(),
        routing_weights: table.routing_weights.ptr(),
        expert_offsets: table.expert_offsets.ptr(),
        status: inputs.status.ptr(),
        weight: plan.weight,
        num_tokens: tokens as u32,
        num_experts: experts as u32,
        // More ids than i32 can tell apart are never asked for.
        vocabulary: inputs.hash_table.map_or(0, |t| t.len().min(1 << 31) as u32),
        num_sequences: sequences.map_or(0, |s| (s.len() - 1).min(1 << 31) as u32),
        reserved: 0,
    };
    let launch = |kernel: &'static Kernel, threads: usize| {
        let blocks = threads.div_ceil(kernel.threads as usize) as u32;
        // SAFETY: the table was checked, the inputs are as long as the parameters say.
        unsafe { gpu.launch(stream, kernel, [blocks, 1, 1], 0, &params) }
    };
    let drawn_by = |stream_of_draws: DrawStream| {
        let params = DrawParams {
            step: params.step,
            token_ids: params.token_ids,
            expert_indices: params.expert_indices,
            routing_weights: params.routing_weights,
            status: params.status,
            weight: params.weight,
            num_tokens: params.num_tokens,
            num_experts: params.num_experts,
            stream: stream_of_draws as u32,
        };
        let blocks = tokens.div_ceil(4 * DRAW_EXPERTS.threads as usize) as u32;
        // SAFETY: as above.
        unsafe { gpu.launch(stream, &DRAW_EXPERTS, [blocks, 1, 1], 0, &params) }
    };
    // Four assignments a thread, and an offset.
    let all = (tokens * k).div_ceil(4).max(tokens + 1).max(experts + 1);
    match plan.router {
        Router::Hash if inputs.hash_table.is_some() => launch(&HASH_LOOKUP, tokens)?,
        Router::Hash => drawn_by(DrawStream::Hash)?,
        Router::Stochastic { per } => match per {
            StochasticPer::Batch => launch(&DRAW_BATCH, all)?,
            StochasticPer::Sentence => launch(&DRAW_SENTENCES, tokens)?,
            StochasticPer::Token => drawn_by(DrawStream::Stochastic)?,
        },
        _ => launch(&ENSEMBLE, all)?,
    }
    let Some(plan) = &plan.finish else {
        return Ok(());
    };
    let counts = CountParams {
        expert_indices: table.expert_indices.ptr(),
        block_counts: workspace.array(plan.block_counts)?.ptr(),
        block_histogram: workspace.array(plan.block_histogram)?.ptr(),
        num_tokens: tokens as u32,
        num_experts: experts as u32,
    };
    let blocks = plan.num_blocks() as u32;
    // SAFETY: the workspace has room for the counts of all blocks; the experts were just written.
    unsafe { gpu.launch(stream, &COUNT_EXPERTS, [blocks, 1, 1], 0, &counts)? };
    Ok(finish(gpu, stream, plan, workspace, None, table)?)
}

/// An input that must be there, with at least `len` elements.
fn required<'a>(
    router: Router,
    what: &'static str,
    slice: Option<DeviceSlice<'a, i32>>,
    len: usize,
) -> Result<DeviceSlice<'a, i32>> {
    let slice = slice.ok_or_else(|| Error::Missing {
        what,
        because: format!("router {router}"),
    })?;
    DeviceError::check_len(what, slice.len(), len)?;
    Ok(slice)
}
