//! From what the gate left for every block of tokens to the routing table: offsets, and where
//! tokens take different numbers of experts the assignments moved together.
//!
//! Whoever selects (the gate, Gating Dropout, capacity) works on blocks of
//! [`FinishPlan::tokens_per_block`] tokens and leaves
//!
//! - the assignments: `direct` at `t · k_max` of the table itself, otherwise in slots `[T, k_max]`
//!   of the workspace. Used slots come first, an unused slot has expert −1 (its weight may be
//!   anything). `direct` pays where all but faulty rows use all their slots: nothing is moved then.
//!   It is right but slow where many do not (Gating Dropout that may drop steps): use slots there.
//! - `block_counts`: the number of assignments of every block.
//! - `block_histogram`: how many every expert has of them.
//!
//! [`finish`] makes the table of it, and the losses along the way, because a launch costs more than
//! their sums.

use tollgate_device::{
    DevicePtr, DeviceSliceMut, Error, Gpu, Region, Result, Stream, Workspace, WorkspaceLayout,
};
use tollgate_kernels::abi::selection::FinishParams;
use tollgate_kernels::registry::selection::{FINISH, FINISH_REDUCE};

use super::losses::LossPart;

/// Tokens of a block of `tg_finish`; the blocks of whoever selects divide it.
const FINISH_TOKENS: usize = 1024;
/// Experts of a block of `tg_finish_reduce`.
const REDUCE_EXPERTS: usize = 32;
/// Up to so many blocks every block of `tg_finish` adds up the counts before it.
const MAX_UNREDUCED_BLOCKS: usize = 2048;
/// Up to so many histogram entries one block of `tg_finish` adds them up.
const MAX_UNREDUCED_ENTRIES: usize = 1 << 16;

/// The arrays between selection and table, planned with the rest of a workspace.
#[derive(Debug, Clone, Copy)]
pub struct FinishPlan {
    /// T.
    pub num_tokens: usize,
    /// E.
    pub num_experts: usize,
    /// The most experts of a token.
    pub k_max: usize,
    /// Tokens of a block; divides 1024.
    pub tokens_per_block: usize,
    /// `[B+1]`: B counts, written by whoever selects; the last entry is for [`finish`].
    pub block_counts: Region<i32>,
    /// `[B, E]`, written by whoever selects.
    pub block_histogram: Region<i32>,
    /// `[T, k_max]`, or empty with `direct`.
    pub slot_experts: Region<i32>,
    /// `[T, k_max]`, or empty with `direct`.
    pub slot_weights: Region<f32>,
    /// `[E]`, for [`finish`].
    expert_counts: Region<i32>,
}

impl FinishPlan {
    /// Adds the arrays to a layout.
    ///
    /// # Errors
    /// [`Error::Overflow`], also for more than `i32::MAX` slots; [`Error::Shape`] for
    /// `tokens_per_block`.
    pub fn new(
        layout: &mut WorkspaceLayout,
        num_tokens: usize,
        num_experts: usize,
        k_max: usize,
        tokens_per_block: usize,
        direct: bool,
    ) -> Result<Self> {
        if !FINISH_TOKENS.is_multiple_of(tokens_per_block) {
            return Err(Error::Shape {
                what: "the tokens of a block, a divisor of 1024,",
                actual: tokens_per_block,
                expected: FINISH_TOKENS,
            });
        }
        let slots = product("slots (T·k)", num_tokens, k_max, i32::MAX as usize)?;
        let blocks = num_tokens.div_ceil(tokens_per_block);
        let entries = product("histograms (B·E)", blocks, num_experts, isize::MAX as usize)?;
        let waiting = if direct { 0 } else { slots };
        Ok(Self {
            num_tokens,
            num_experts,
            k_max,
            tokens_per_block,
            block_counts: layout.array("counts of the blocks", blocks + 1)?,
            block_histogram: layout.array("histograms of the blocks", entries)?,
            slot_experts: layout.array("slots", waiting)?,
            slot_weights: layout.array("weights of the slots", waiting)?,
            expert_counts: layout.array("counts of the experts", num_experts)?,
        })
    }

    /// B: blocks of tokens.
    pub fn num_blocks(&self) -> usize {
        self.num_tokens.div_ceil(self.tokens_per_block)
    }

    /// Whether a launch sums up the blocks first: where they are too many to be read again and
    /// again.
    fn reduces(&self) -> bool {
        let blocks = self.num_blocks();
        blocks > MAX_UNREDUCED_BLOCKS || self.block_histogram.len() > MAX_UNREDUCED_ENTRIES
    }
}

/// A product of sizes within a limit.
pub(super) fn product(what: &'static str, a: usize, b: usize, limit: usize) -> Result<usize> {
    match a.checked_mul(b) {
        Some(product) if product <= limit => Ok(product),
        _ => Err(Error::Overflow {
            what,
            detail: format!("{a} · {b}"),
            limit: limit as u64,
        }),
    }
}

/// A routing table to be written. Its arrays may be longer than needed.
#[derive(Debug)]
pub struct TableMut<'a> {
    /// `[T+1]`.
    pub token_offsets: DeviceSliceMut<'a, i32>,
    /// `[T·k_max]`.
    pub expert_indices: DeviceSliceMut<'a, i32>,
    /// `[T·k_max]`.
    pub routing_weights: DeviceSliceMut<'a, f32>,
    /// `[E+1]`.
    pub expert_offsets: DeviceSliceMut<'a, i32>,
}

impl TableMut<'_> {
    /// The same table for a shorter time.
    pub fn reborrow(&mut self) -> TableMut<'_> {
        TableMut {
            token_offsets: self.token_offsets.reborrow(),
            expert_indices: self.expert_indices.reborrow(),
            routing_weights: self.routing_weights.reborrow(),
            expert_offsets: self.expert_offsets.reborrow(),
        }
    }

    /// Refuses arrays that are too small.
    pub fn check(&self, tokens: usize, experts: usize, slots: usize) -> Result<()> {
        Error::check_len(
            "token_offsets, in elements,",
            self.token_offsets.len(),
            tokens + 1,
        )?;
        Error::check_len(
            "expert_indices, in elements,",
            self.expert_indices.len(),
            slots,
        )?;
        Error::check_len(
            "routing_weights, in elements,",
            self.routing_weights.len(),
            slots,
        )?;
        Error::check_len(
            "expert_offsets, in elements,",
            self.expert_offsets.len(),
            experts + 1,
        )
    }
}

/// Blocks of `threads` threads that have four columns of a row each.
pub(super) fn quad_blocks(rows: usize, columns: usize, threads: u32) -> Result<u32> {
    let limit = i32::MAX as usize;
    if rows > limit || columns > limit {
        return Err(Error::Overflow {
            what: "rows and columns",
            detail: format!("{rows} · {columns}"),
            limit: limit as u64,
        });
    }
    let blocks = (rows * columns.div_ceil(4)).div_ceil(threads as usize);
    product("blocks of the grid", blocks, 1, limit)?;
    Ok(blocks as u32)
}

/// Writes offsets, moves the assignments together, and finishes the losses where they are asked
/// for.
///
/// One launch, or two where there are many blocks. Capturable; allocates nothing.
///
/// # Errors
/// Arrays that are too small; what the driver says.
pub fn finish(
    gpu: &Gpu,
    stream: &Stream,
    plan: &FinishPlan,
    workspace: &Workspace<'_>,
    losses: Option<&LossPart<'_>>,
    table: &mut TableMut<'_>,
) -> Result<()> {
    let params = prepare(plan, workspace, losses, table)?;
    reduce(gpu, stream, plan, losses, &params)?;
    // Behind the blocks for offsets and losses those for the tokens.
    let blocks = plan.num_tokens.div_ceil(FINISH_TOKENS) as u32 + 2;
    // SAFETY: all arrays are of this plan's sizes: the layout made those of the workspace, the
    // table and the losses were checked.
    unsafe { gpu.launch(stream, &FINISH, [blocks, 1, 1], 0, &params) }
}

/// The same for who puts the assignments in place and writes `token_offsets` themselves: `write` is
/// told whether `block_counts` have become prefix sums.
///
/// # Errors
/// As [`finish`], and those of `write`.
pub(super) fn finish_around(
    gpu: &Gpu,
    stream: &Stream,
    plan: &FinishPlan,
    workspace: &Workspace<'_>,
    losses: Option<&LossPart<'_>>,
    table: &TableMut<'_>,
    write: impl FnOnce(bool) -> Result<()>,
) -> Result<()> {
    let mut params = prepare(plan, workspace, losses, table)?;
    params.in_place = 1;
    reduce(gpu, stream, plan, losses, &params)?;
    write(plan.reduces())?;
    // SAFETY: as above.
    unsafe { gpu.launch(stream, &FINISH, [2, 1, 1], 0, &params) }
}

/// Sums over the blocks of tokens, where there are many.
fn reduce(
    gpu: &Gpu,
    stream: &Stream,
    plan: &FinishPlan,
    losses: Option<&LossPart<'_>>,
    params: &FinishParams,
) -> Result<()> {
    if !plan.reduces() {
        return Ok(());
    }
    // A row of tiles for each array that is summed, and a block for the counts of the blocks.
    let tiles = plan.num_experts.div_ceil(REDUCE_EXPERTS) as u32;
    let rows = if losses.is_some() { 3 } else { 1 };
    // SAFETY: as in `finish`.
    unsafe { gpu.launch(stream, &FINISH_REDUCE, [tiles * rows + 1, 1, 1], 0, params) }
}

/// The parameters of both launches.
fn prepare(
    plan: &FinishPlan,
    workspace: &Workspace<'_>,
    losses: Option<&LossPart<'_>>,
    table: &TableMut<'_>,
) -> Result<FinishParams> {
    table.check(
        plan.num_tokens,
        plan.num_experts,
        plan.num_tokens * plan.k_max,
    )?;
    let mut params = FinishParams {
        slot_experts: workspace.array(plan.slot_experts)?.ptr(),
        slot_weights: workspace.array(plan.slot_weights)?.ptr(),
        block_counts: workspace.array(plan.block_counts)?.ptr(),
        block_histogram: workspace.array(plan.block_histogram)?.ptr(),
        load_histogram: DevicePtr::NULL,
        block_shares: DevicePtr::NULL,
        block_squares: DevicePtr::NULL,
        expert_counts: workspace.array(plan.expert_counts)?.ptr(),
        load_counts: DevicePtr::NULL,
        shares: DevicePtr::NULL,
        token_offsets: table.token_offsets.ptr(),
        expert_indices: table.expert_indices.ptr(),
        routing_weights: table.routing_weights.ptr(),
        expert_offsets: table.expert_offsets.ptr(),
        load: DevicePtr::NULL,
        losses: DevicePtr::NULL,
        step: DevicePtr::NULL,
        balance_factor: 0.0,
        z_factor: 0.0,
        silent_below: 0,
        num_tokens: plan.num_tokens as u32,
        num_experts: plan.num_experts as u32,
        k_max: plan.k_max as u32,
        tokens_per_block: plan.tokens_per_block as u32,
        num_blocks: plan.num_blocks() as u32,
        reduced: u32::from(plan.reduces()),
        coin_per_step: 0,
        in_place: 0,
    };
    if let Some(losses) = losses {
        losses.fill(plan, workspace, &mut params)?;
    }
    Ok(params)
}
