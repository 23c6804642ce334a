//! Expert choice (Zhou et al., 2022): every expert takes its best tokens.

use tollgate_core::options::{BalanceOver, GateOptions, Weights};
use tollgate_device::{
    DevicePtr, DeviceRows, DeviceSlice, Error, Gpu, Kernel, Region, Result, Stream, Workspace,
    WorkspaceLayout,
};
use tollgate_kernels::abi::selection::ChoiceParams;
use tollgate_kernels::registry::selection::{
    CHOICE_COUNT, CHOICE_ROWS, CHOICE_SELECT, CHOICE_TIES, CHOICE_WRITE,
};

use super::losses::LossPart;
use super::quota::QuotaPlan;
use super::table::{FinishPlan, TableMut, finish_around, product};

/// Tokens of a block of `tg_choice_count`.
const COUNT_TOKENS: usize = 1024;

/// What [`run`] needs of a workspace, next to a [`FinishPlan`] whose k is E.
#[derive(Debug, Clone, Copy)]
pub struct ChoicePlan {
    quota: QuotaPlan,
    words: usize,
    masks: Region<u32>,
}

impl ChoicePlan {
    /// Adds its arrays to a layout; every expert takes `tokens_per_expert` tokens.
    ///
    /// # Errors
    /// [`tollgate_device::Error::Overflow`].
    pub fn new(
        layout: &mut WorkspaceLayout,
        num_tokens: usize,
        num_experts: usize,
        tokens_per_expert: usize,
    ) -> Result<Self> {
        let words = num_experts.div_ceil(32);
        let what = "words of bits (T · E/32)";
        let bits = product(what, num_tokens, words, isize::MAX as usize)?;
        // Merits are the bits of a score: four digits.
        Ok(Self {
            quota: QuotaPlan::new(layout, num_experts, tokens_per_expert, 4)?,
            words,
            masks: layout.array("bits of the experts", bits)?,
        })
    }
}

/// The scores that columns are ranked by, and what runs instead on a dropped step. All of it is in
/// device memory.
#[derive(Debug)]
pub struct Choice<'a> {
    /// The options; their router need not be looked at.
    pub options: &'a GateOptions,
    /// `[T, E]` that the scores were made from: −∞ tells a masked place from an underflow.
    pub logits: DeviceRows<'a, f32>,
    /// `[T, E]` softmax probabilities, NaN in faulty rows.
    pub scores: DeviceSlice<'a, f32>,
    /// Where a step may be dropped, its decision.
    pub local: Option<LocalChoice<'a>>,
}

/// What a step that Gating Dropout dropped runs.
#[derive(Debug)]
pub struct LocalChoice<'a> {
    /// `[1]` not 0 when the step is dropped; otherwise nothing else is read.
    pub dropped: DeviceSlice<'a, u32>,
    /// `[T]` every token's expert, −1 for none.
    pub experts: DeviceSlice<'a, i32>,
    /// `[T]` its weight.
    pub weights: DeviceSlice<'a, f32>,
}

/// Fills `table` with what the experts take, experts ascending within a token, and finishes the
/// losses.
///
/// The load of the balance loss is counted here unless first choices count: those are for whoever
/// made the scores.
///
/// # Errors
/// Shapes that differ from the plans', arrays that are too small; what the driver says.
pub fn run(
    gpu: &Gpu,
    stream: &Stream,
    plan: &ChoicePlan,
    finish: &FinishPlan,
    choice: &Choice<'_>,
    workspace: &Workspace<'_>,
    losses: Option<&LossPart<'_>>,
    table: &mut TableMut<'_>,
) -> Result<()> {
    let (tokens, experts) = (finish.num_tokens, finish.num_experts);
    Error::check_shape("slots of a token (k)", finish.k_max, experts)?;
    Error::check_shape("rows of logits (T)", choice.logits.num_rows(), tokens)?;
    Error::check_shape("columns of logits (E)", choice.logits.num_cols(), experts)?;
    Error::check_len(
        "scores, in elements,",
        choice.scores.len(),
        tokens * experts,
    )?;
    if let Some(local) = &choice.local {
        Error::check_len("dropped, in elements,", local.dropped.len(), 1)?;
        Error::check_len("local experts, in elements,", local.experts.len(), tokens)?;
        Error::check_len("local weights, in elements,", local.weights.len(), tokens)?;
    }
    table.check(tokens, experts, tokens * experts)?;

    let memory = plan.quota.start(stream, workspace)?;
    let options = choice.options;
    let over = options.balance_over();
    let counted =
        losses.filter(|_| over != BalanceOver::FirstChoice && options.balance_alpha > 0.0);
    let histogram = workspace.array(finish.block_histogram)?.ptr();
    let local = choice.local.as_ref();
    let mut params = ChoiceParams {
        scores: choice.scores.ptr(),
        logits: choice.logits.ptr(),
        logits_stride: choice.logits.stride() as u64,
        dropped: local.map_or(DevicePtr::NULL, |l| l.dropped.ptr()),
        local_experts: local.map_or(DevicePtr::NULL, |l| l.experts.ptr()),
        local_weights: local.map_or(DevicePtr::NULL, |l| l.weights.ptr()),
        histogram: memory.histogram,
        threshold: memory.threshold,
        remaining: memory.remaining,
        // Read before the histogram is written.
        tie_counts: histogram,
        masks: workspace.array(plan.masks)?.ptr(),
        block_counts: workspace.array(finish.block_counts)?.ptr(),
        block_histogram: histogram,
        load_histogram: match counted {
            Some(losses) => workspace.array(losses.plan.load_histogram)?.ptr(),
            None => DevicePtr::NULL,
        },
        token_offsets: table.token_offsets.ptr(),
        expert_indices: table.expert_indices.ptr(),
        routing_weights: table.routing_weights.ptr(),
        num_tokens: tokens as u32,
        num_experts: experts as u32,
        tokens_per_block: finish.tokens_per_block as u32,
        words: plan.words as u32,
        shift: 0,
        first: 0,
        reduced: 0,
        load_singles: u32::from(over == BalanceOver::Top1Only),
        selected: u32::from(options.weights() != Weights::Prob),
        weight_scale: options.weight_scale,
    };
    let launch = |kernel: &'static Kernel, blocks: usize, params: &ChoiceParams| {
        let blocks = product("blocks of the grid", blocks, 1, i32::MAX as usize)? as u32;
        // SAFETY: inputs and table were checked, the layout made the rest.
        unsafe { gpu.launch(stream, kernel, [blocks, 1, 1], 0, params) }
    };
    for digits_left in (0..plan.quota.digits).rev() {
        params.shift = 8 * digits_left;
        params.first = u32::from(digits_left + 1 == plan.quota.digits);
        launch(
            &CHOICE_COUNT,
            tokens.div_ceil(COUNT_TOKENS) * plan.words,
            &params,
        )?;
        plan.quota.resolve(gpu, stream, &memory, digits_left)?;
    }
    let blocks = finish.num_blocks();
    launch(&CHOICE_TIES, blocks * plan.words, &params)?;
    plan.quota.scan(gpu, stream, &memory, histogram, blocks)?;
    launch(&CHOICE_SELECT, blocks * plan.words, &params)?;
    launch(&CHOICE_ROWS, blocks, &params)?;
    finish_around(gpu, stream, finish, workspace, losses, table, |reduced| {
        params.reduced = u32::from(reduced);
        launch(&CHOICE_WRITE, blocks, &params)
    })
}
