//! From a routing table to its maps.

use tollgate_device::{
    DeviceRoutingTable, DeviceSliceMut, Error, Gpu, Region, Result, StatusBlock, Stream, Workspace,
    WorkspaceLayout,
};
use tollgate_kernels::abi::permute::SortParams;
use tollgate_kernels::registry::permute::{
    SORT_COUNT, SORT_ROWS, SORT_SCAN, SORT_SCAN_EXPERTS, SORT_SHARED_EXPERTS, SORT_TILES_PER_BLOCK,
};

use super::launch::{check_status, index};
use super::{DevicePermuteMaps, DevicePermuteMapsMut};

/// Experts at most.
pub const MAX_EXPERTS: usize = 1 << 16;

/// Tokens of a tile are a multiple of this: a warp takes so many at a time.
const TILE_STEP: usize = 32;
/// Assignments that a tile has about: little enough that a small table keeps many warps busy.
const TILE_ASSIGNMENTS: usize = 256;

/// What a sort is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortShape {
    /// T.
    pub num_tokens: usize,
    /// E, at most [`MAX_EXPERTS`].
    pub num_experts: usize,
    /// The bound of A.
    pub max_assignments: usize,
    /// Every expert's rows start at a multiple of this and are filled up to one, as a tiled matrix
    /// product likes them. 1: rows are numbered without gaps.
    pub row_alignment: usize,
}

impl SortShape {
    /// The bound of R: A, and what at most E experts that have assignments are filled up with.
    ///
    /// # Errors
    /// More rows than i32 numbers; an alignment of 0.
    pub fn max_rows(&self) -> Result<usize> {
        let Self {
            num_experts,
            max_assignments,
            row_alignment,
            ..
        } = *self;
        if row_alignment == 0 {
            return Err(Error::TooSmall {
                what: "the alignment of an expert's rows",
                actual: 0,
                needed: 1,
            });
        }
        let filled = num_experts
            .min(max_assignments)
            .checked_mul(row_alignment - 1);
        let rows = filled.and_then(|filled| filled.checked_add(max_assignments));
        let rows = rows.filter(|&rows| rows <= i32::MAX as usize);
        let rows = rows.ok_or_else(|| Error::Overflow {
            what: "rows (R)",
            detail: format!(
                "{max_assignments} assignments, {num_experts} experts aligned to {row_alignment}"
            ),
            limit: i32::MAX as u64,
        })?;
        // Every expert's rows are a multiple of the alignment, and so is their sum.
        Ok(rows / row_alignment * row_alignment)
    }

    /// Tokens of a tile, by the shape alone. With many experts tiles are larger, so that the counts
    /// of all tiles stay a small multiple of A.
    fn tokens_per_tile(&self) -> usize {
        let per_token = self.max_assignments.div_ceil(self.num_tokens.max(1)).max(1);
        let wanted = TILE_ASSIGNMENTS.max(self.num_experts / 2);
        let steps = (wanted / per_token / TILE_STEP).max(1);
        // No more than all tokens: their number must not overflow.
        TILE_STEP * steps.min(self.num_tokens.div_ceil(TILE_STEP).max(1))
    }
}

/// Where maps and scratch memory of a [`sort`] lie in a workspace.
///
/// The counts take `4 · tiles · E` bytes: about `4 · A · max(1, E / 256)` for few experts and never
/// more than about `8 · A + 128 · E` for many, as long as a token has at most E / 64 of them.
#[derive(Debug, Clone, Copy)]
pub struct SortPlan {
    shape: SortShape,
    max_rows: usize,
    tokens_per_tile: usize,
    row_of_assignment: Region<i32>,
    assignment_of_row: Region<i32>,
    token_of_row: Region<i32>,
    expert_offsets: Region<i32>,
    /// `[tiles, E]`.
    counts: Region<u32>,
    /// `[E]`.
    totals: Region<u32>,
}

impl SortPlan {
    /// Adds the arrays to a layout.
    ///
    /// # Errors
    /// More than [`MAX_EXPERTS`] experts; sizes beyond i32.
    pub fn new(layout: &mut WorkspaceLayout, shape: SortShape) -> Result<Self> {
        if shape.num_experts > MAX_EXPERTS {
            return Err(Error::Overflow {
                what: "experts (E)",
                detail: shape.num_experts.to_string(),
                limit: MAX_EXPERTS as u64,
            });
        }
        index("tokens (T)", shape.num_tokens)?;
        let max_rows = shape.max_rows()?;
        let tokens_per_tile = shape.tokens_per_tile();
        // At most 2^26 tiles of at most 2^16 experts.
        let entries = shape.num_tokens.div_ceil(tokens_per_tile) * shape.num_experts;
        Ok(Self {
            shape,
            max_rows,
            tokens_per_tile,
            row_of_assignment: layout.array("row_of_assignment", shape.max_assignments)?,
            assignment_of_row: layout.array("assignment_of_row", max_rows)?,
            token_of_row: layout.array("token_of_row", max_rows)?,
            expert_offsets: layout.array("expert_offsets", shape.num_experts + 1)?,
            counts: layout.array("counts of the tiles", entries)?,
            totals: layout.array("totals of the experts", shape.num_experts)?,
        })
    }

    /// What it was made for.
    pub fn shape(&self) -> SortShape {
        self.shape
    }

    /// The bound of R.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// The maps in the workspace, for [`sort`] to write. A caller may as well give maps that lie
    /// elsewhere.
    ///
    /// # Errors
    /// A workspace that is too small.
    pub fn maps_mut<'a>(&self, workspace: &Workspace<'a>) -> Result<DevicePermuteMapsMut<'a>> {
        Ok(DevicePermuteMapsMut {
            max_rows: self.max_rows,
            row_of_assignment: workspace.array(self.row_of_assignment)?,
            assignment_of_row: workspace.array(self.assignment_of_row)?,
            token_of_row: workspace.array(self.token_of_row)?,
            expert_offsets: workspace.array(self.expert_offsets)?,
        })
    }

    /// The maps in the workspace, as [`sort`] left them.
    ///
    /// # Errors
    /// A workspace that is too small.
    pub fn maps<'a>(&self, workspace: &Workspace<'a>) -> Result<DevicePermuteMaps<'a>> {
        Ok(self.maps_mut(workspace)?.into_maps())
    }
}

/// Counts, offsets and stable maps of a table, in three launches.
///
/// Rows are counted from `expert_indices`; the table's `expert_offsets` must say the same, or a
/// fault is raised. With token offsets that are no prefix sums, or with that fault raised before,
/// no assignment gets a row and all offsets are 0. A token that has an expert twice is not noticed:
/// it gets two rows.
///
/// # Errors
/// A table of another shape than the plan's; arrays that are too small; what the driver says.
pub fn sort(
    gpu: &Gpu,
    stream: &Stream,
    plan: &SortPlan,
    workspace: &Workspace<'_>,
    table: &DeviceRoutingTable<'_>,
    maps: DevicePermuteMapsMut<'_>,
    status: DeviceSliceMut<'_, StatusBlock>,
) -> Result<()> {
    let shape = plan.shape;
    Error::check_shape("tokens (T)", table.num_tokens, shape.num_tokens)?;
    Error::check_shape("experts (E)", table.num_experts, shape.num_experts)?;
    Error::check_shape(
        "the bound of the assignments",
        table.max_assignments,
        shape.max_assignments,
    )?;
    Error::check_shape("the bound of the rows", maps.max_rows, plan.max_rows)?;
    for (what, actual, needed) in [
        (
            "token_offsets, in elements,",
            table.token_offsets.len(),
            shape.num_tokens + 1,
        ),
        (
            "expert_indices, in elements,",
            table.expert_indices.len(),
            shape.max_assignments,
        ),
        (
            "expert_offsets, in elements,",
            table.expert_offsets.len(),
            shape.num_experts + 1,
        ),
        (
            "row_of_assignment, in elements,",
            maps.row_of_assignment.len(),
            shape.max_assignments,
        ),
        (
            "assignment_of_row, in elements,",
            maps.assignment_of_row.len(),
            plan.max_rows,
        ),
        (
            "token_of_row, in elements,",
            maps.token_of_row.len(),
            plan.max_rows,
        ),
        (
            "the maps' expert_offsets, in elements,",
            maps.expert_offsets.len(),
            shape.num_experts + 1,
        ),
    ] {
        Error::check_len(what, actual, needed)?;
    }
    check_status(&status)?;
    let num_tiles = shape.num_tokens.div_ceil(plan.tokens_per_tile);
    let params = SortParams {
        token_offsets: table.token_offsets.ptr(),
        expert_indices: table.expert_indices.ptr(),
        table_expert_offsets: table.expert_offsets.ptr(),
        row_of_assignment: maps.row_of_assignment.ptr(),
        assignment_of_row: maps.assignment_of_row.ptr(),
        token_of_row: maps.token_of_row.ptr(),
        expert_offsets: maps.expert_offsets.ptr(),
        counts: workspace.array(plan.counts)?.ptr(),
        totals: workspace.array(plan.totals)?.ptr(),
        status: status.ptr(),
        num_tokens: index("tokens (T)", shape.num_tokens)?,
        num_experts: shape.num_experts as u32,
        max_assignments: index("assignments (A)", shape.max_assignments)?,
        max_rows: index("rows (R)", plan.max_rows)?,
        tokens_per_tile: plan.tokens_per_tile as u32,
        num_tiles: num_tiles as u32,
        row_alignment: index("the alignment of an expert's rows", shape.row_alignment)?,
        reserved: 0,
    };
    let many = usize::from(shape.num_experts > SORT_SHARED_EXPERTS);
    // One block at least: it fills the maps and writes the offsets of no tokens.
    let blocks = num_tiles.div_ceil(SORT_TILES_PER_BLOCK).max(1) as u32;
    let columns = shape.num_experts.div_ceil(SORT_SCAN_EXPERTS) as u32;
    // SAFETY: table, maps and status were held to the shape that the kernels get, and the counts
    // and totals have the plan's sizes. Views are memory of the device; whoever made them answers
    // for it.
    unsafe {
        gpu.launch(stream, &SORT_COUNT[many], [blocks, 1, 1], 0, &params)?;
        gpu.launch(stream, &SORT_SCAN, [columns, 1, 1], 0, &params)?;
        gpu.launch(stream, &SORT_ROWS[many], [blocks, 1, 1], 0, &params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(num_tokens: usize, num_experts: usize, k: usize) -> SortShape {
        SortShape {
            num_tokens,
            num_experts,
            max_assignments: num_tokens * k,
            row_alignment: 1,
        }
    }

    #[test]
    fn tiles_follow_the_shape() {
        assert_eq!(shape(4096, 256, 8).tokens_per_tile(), 32);
        assert_eq!(shape(4096, 256, 2).tokens_per_tile(), 128);
        assert_eq!(shape(4096, 256, 1).tokens_per_tile(), 256);
        assert_eq!(shape(65_536, 16_384, 8).tokens_per_tile(), 1024);
        assert_eq!(shape(3, 4, 1).tokens_per_tile(), 32);
        assert_eq!(shape(0, 4, 1).tokens_per_tile(), 32);
    }

    #[test]
    fn aligned_rows_are_bounded() {
        let aligned = |assignments, experts, row_alignment| SortShape {
            num_tokens: assignments,
            num_experts: experts,
            max_assignments: assignments,
            row_alignment,
        };
        assert_eq!(aligned(100, 8, 1).max_rows().unwrap(), 100);
        // 100 = 93 + 7 · 1: eight experts of 16, 13 of them full.
        assert_eq!(aligned(100, 8, 16).max_rows().unwrap(), 208);
        assert_eq!(aligned(3, 1000, 128).max_rows().unwrap(), 384);
        assert_eq!(aligned(0, 8, 128).max_rows().unwrap(), 0);
        assert!(aligned(1, 1, 0).max_rows().is_err());
        let error = aligned(i32::MAX as usize, 2, 2).max_rows().unwrap_err();
        assert!(error.to_string().contains("aligned to 2"), "{error}");
    }

    #[test]
    fn too_many_experts_are_named() {
        let layout = &mut WorkspaceLayout::new();
        let error = SortPlan::new(layout, shape(1, MAX_EXPERTS + 1, 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "experts (E): 65537 overflows the limit of 65536"
        );
        assert!(SortPlan::new(layout, shape(1, MAX_EXPERTS, 1)).is_ok());
    }
}
