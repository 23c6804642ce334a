//! The limit on rows per expert: who keeps its place.

use tollgate_core::Router;
use tollgate_core::options::{Capacity, DropOrder};
use tollgate_device::{
    DeviceRoutingTable, DeviceSliceMut, Error, Gpu, Kernel, Region, Result, StatusBlock, Stream,
    Workspace, WorkspaceLayout,
};
use tollgate_kernels::abi::selection::CapacityParams;
use tollgate_kernels::registry::selection::{
    CAPACITY_BY_POSITION, CAPACITY_BY_PROBABILITY, CAPACITY_COUNT, CAPACITY_KEEP, CAPACITY_SCAN,
    CAPACITY_TIES, CAPACITY_WRITE,
};

use super::quota::QuotaPlan;
use super::table::{TableMut, product};
use crate::capacity::rows_per_expert;

/// Assignments of a chunk at least: one warp's.
const MIN_CHUNK: usize = 256;
/// Counts of ties that are kept at most; more experts make longer chunks.
const MAX_TIE_COUNTS: usize = 1 << 22;

/// What [`limit`] needs of a workspace.
#[derive(Debug, Clone, Copy)]
pub struct CapacityPlan {
    num_tokens: usize,
    num_experts: usize,
    max_assignments: usize,
    order: DropOrder,
    quota: QuotaPlan,
    chunk: usize,
    merits: Region<u32>,
    tie_counts: Region<u32>,
    stays: Region<u32>,
    words_before: Region<u32>,
    chunk_kept: Region<u32>,
}

impl CapacityPlan {
    /// Adds its arrays to a layout. The rows per expert are those of
    /// [`rows_per_expert`].
    ///
    /// # Errors
    /// [`tollgate_device::Error::Overflow`].
    pub fn new(
        layout: &mut WorkspaceLayout,
        capacity: &Capacity,
        router: &Router,
        num_tokens: usize,
        num_experts: usize,
    ) -> Result<Self> {
        let k = router.max_experts_per_token(num_experts);
        let what = "assignments (T·k)";
        let max_assignments = product(what, num_tokens, k, i32::MAX as usize)?;
        let rows = rows_per_expert(capacity, router, num_tokens, num_experts);
        let digits = match capacity.order {
            // Choices 0 to k − 1.
            DropOrder::Position => (k.max(2) - 1).ilog2() / 8 + 1,
            DropOrder::Probability => 4,
        };
        let mut chunk = MIN_CHUNK;
        while max_assignments.div_ceil(chunk).saturating_mul(num_experts) > MAX_TIE_COUNTS
            && chunk < max_assignments
        {
            chunk *= 2;
        }
        let chunks = max_assignments.div_ceil(chunk);
        let counts = product("counts of ties", chunks, num_experts, isize::MAX as usize)?;
        let words = max_assignments.div_ceil(32);
        Ok(Self {
            num_tokens,
            num_experts,
            max_assignments,
            order: capacity.order,
            quota: QuotaPlan::new(layout, num_experts, rows, digits)?,
            chunk,
            merits: layout.array("merits", max_assignments)?,
            tie_counts: layout.array("counts of ties", counts)?,
            stays: layout.array("who stays", words)?,
            words_before: layout.array("counts of words", words)?,
            chunk_kept: layout.array("counts of chunks", chunks + 1)?,
        })
    }

    fn num_chunks(&self) -> usize {
        self.max_assignments.div_ceil(self.chunk)
    }
}

/// Fills `table` with what of `selection` the experts have room for, and `kept` `[A]` with the
/// position in the selection of every assignment of the table.
///
/// How many stay is `table.token_offsets[T]`. A host that downloads `kept` takes that many of it,
/// and none where nothing was dropped: where `selection.token_offsets[T]` is the same.
///
/// The selection is believed as far as memory is safe: an expert index out of range is dropped and
/// reported in `status`, as are offsets that are none.
///
/// # Errors
/// Shapes that differ from the plan's, arrays that are too small.
pub fn limit(
    gpu: &Gpu,
    stream: &Stream,
    plan: &CapacityPlan,
    selection: &DeviceRoutingTable<'_>,
    status: &mut DeviceSliceMut<'_, StatusBlock>,
    workspace: &Workspace<'_>,
    table: &mut TableMut<'_>,
    kept: &mut DeviceSliceMut<'_, i32>,
) -> Result<()> {
    let (tokens, experts, most) = (plan.num_tokens, plan.num_experts, plan.max_assignments);
    Error::check_shape("tokens of the selection (T)", selection.num_tokens, tokens)?;
    Error::check_shape(
        "experts of the selection (E)",
        selection.num_experts,
        experts,
    )?;
    Error::check_len(
        "token_offsets, in elements,",
        selection.token_offsets.len(),
        tokens + 1,
    )?;
    Error::check_len(
        "expert_offsets, in elements,",
        selection.expert_offsets.len(),
        experts + 1,
    )?;
    Error::check_len(
        "expert_indices, in elements,",
        selection.expert_indices.len(),
        most,
    )?;
    Error::check_len(
        "routing_weights, in elements,",
        selection.routing_weights.len(),
        most,
    )?;
    Error::check_len("kept, in elements,", kept.len(), most)?;
    Error::check_len("the status block", status.len(), 1)?;
    table.check(tokens, experts, most)?;

    let memory = plan.quota.start(stream, workspace)?;
    let merits = workspace.array(plan.merits)?;
    let mut params = CapacityParams {
        token_offsets: selection.token_offsets.ptr(),
        expert_indices: selection.expert_indices.ptr(),
        routing_weights: selection.routing_weights.ptr(),
        expert_offsets: selection.expert_offsets.ptr(),
        table_token_offsets: table.token_offsets.ptr(),
        table_expert_indices: table.expert_indices.ptr(),
        table_routing_weights: table.routing_weights.ptr(),
        table_expert_offsets: table.expert_offsets.ptr(),
        kept: kept.ptr(),
        status: status.ptr(),
        merits: merits.ptr(),
        histogram: memory.histogram,
        threshold: memory.threshold,
        remaining: memory.remaining,
        tie_counts: workspace.array(plan.tie_counts)?.ptr(),
        stays: workspace.array(plan.stays)?.ptr(),
        words_before: workspace.array(plan.words_before)?.ptr(),
        chunk_kept: workspace.array(plan.chunk_kept)?.ptr(),
        num_tokens: tokens as u32,
        num_experts: experts as u32,
        max_assignments: most as u32,
        rows_per_expert: plan.quota.quota(),
        chunk: plan.chunk as u32,
        num_chunks: plan.num_chunks() as u32,
        largest_merit: ((1u64 << (8 * plan.quota.digits)) - 1) as u32,
        shift: 0,
        first: 0,
        reserved: 0,
    };
    let launch = |kernel: &'static Kernel, threads: usize, params: &CapacityParams| {
        let blocks = threads.div_ceil(kernel.threads as usize) as u32;
        // SAFETY: selection, table and kept were checked, the layout made the rest.
        unsafe { gpu.launch(stream, kernel, [blocks, 1, 1], 0, params) }
    };
    match plan.order {
        DropOrder::Position => {
            // Offsets that are none would leave some out.
            stream.fill(merits, 0)?;
            launch(&CAPACITY_BY_POSITION, tokens, &params)?;
        }
        DropOrder::Probability => launch(&CAPACITY_BY_PROBABILITY, most, &params)?,
    }
    for digits_left in (0..plan.quota.digits).rev() {
        params.shift = 8 * digits_left;
        params.first = u32::from(digits_left + 1 == plan.quota.digits);
        launch(&CAPACITY_COUNT, most, &params)?;
        plan.quota.resolve(gpu, stream, &memory, digits_left)?;
    }
    let warps = 32 * plan.num_chunks();
    launch(&CAPACITY_TIES, warps, &params)?;
    plan.quota
        .scan(gpu, stream, &memory, params.tie_counts, plan.num_chunks())?;
    launch(&CAPACITY_KEEP, warps, &params)?;
    // A block for the chunks, one for the experts.
    launch(&CAPACITY_SCAN, 2 * CAPACITY_SCAN.threads as usize, &params)?;
    launch(&CAPACITY_WRITE, most.max(tokens + 1), &params)
}
