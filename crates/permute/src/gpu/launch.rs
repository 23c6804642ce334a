//! What the operations share: checks before a launch, and grids.

use tollgate_device::{DeviceRoutingTable, DeviceSliceMut, Error, Gpu, Result, StatusBlock};
use tollgate_kernels::registry::permute::ROW_WARPS_PER_BLOCK;

use super::DevicePermuteMaps;

/// Lines that a warp takes at a time: `LINES` of the sources.
const LINES: u64 = 4;
/// Where a grid would have fewer warps a multiprocessor than this, rows are cut finer.
const WARPS_PER_SM: u64 = 8;

/// A count as the kernels number it; indices are i32.
pub(super) fn index(what: &'static str, value: usize) -> Result<u32> {
    const LIMIT: usize = i32::MAX as usize;
    if value > LIMIT {
        return Err(Error::Overflow {
            what,
            detail: value.to_string(),
            limit: LIMIT as u64,
        });
    }
    Ok(value as u32)
}

/// The status block that faults are raised in.
pub(super) fn check_status(status: &DeviceSliceMut<'_, StatusBlock>) -> Result<()> {
    Error::check_len("the status, in blocks,", status.len(), 1)
}

/// What the operations that move rows follow: offsets of the tokens and rows of the assignments.
pub(super) struct Followed {
    pub num_tokens: u32,
    pub max_assignments: u32,
    pub max_rows: u32,
}

/// Checks the arrays that are followed, and the matrices' rows: `tokens` of the token matrix,
/// `rows` of the permuted one.
pub(super) fn check_followed(
    table: &DeviceRoutingTable<'_>,
    maps: &DevicePermuteMaps<'_>,
    tokens: usize,
    rows: usize,
) -> Result<Followed> {
    Error::check_shape("rows of the token matrix (T)", tokens, table.num_tokens)?;
    Error::check_len("the permuted matrix, in rows,", rows, maps.max_rows)?;
    Error::check_len(
        "token_offsets, in elements,",
        table.token_offsets.len(),
        table.num_tokens.saturating_add(1),
    )?;
    Error::check_len(
        "row_of_assignment, in elements,",
        maps.row_of_assignment.len(),
        table.max_assignments,
    )?;
    Ok(Followed {
        num_tokens: index("tokens (T)", table.num_tokens)?,
        max_assignments: index("assignments (A)", table.max_assignments)?,
        max_rows: index("rows (R)", maps.max_rows)?,
    })
}

/// How the lines of `items` (tokens, or groups of rows) are shared out among warps.
pub(super) struct Share {
    pub lines_per_warp: u32,
    pub grid: [u32; 3],
}

/// Warps side by side on an item's lines: as few as fill the device, so that offsets and maps are
/// read by few, and never more than a grid has.
pub(super) fn share(gpu: &Gpu, items: u32, lines: u64) -> Result<Share> {
    let enough = u64::from(gpu.facts().num_sms) * WARPS_PER_SM;
    let items = u64::from(items.max(1));
    let mut at_a_time = LINES;
    while at_a_time > 1 && items * lines.div_ceil(at_a_time) < enough {
        at_a_time /= 2;
    }
    // Tasks are numbered in 32 bits; warps beyond that loop over more lines.
    let warps = lines
        .div_ceil(at_a_time)
        .clamp(1, u64::from(u32::MAX) / items);
    let lines_per_warp = lines.div_ceil(warps).max(1);
    let tasks = items * lines.div_ceil(lines_per_warp);
    let too_long = |_| Error::Overflow {
        what: "lines of a row",
        detail: lines.to_string(),
        limit: u64::from(u32::MAX),
    };
    Ok(Share {
        lines_per_warp: u32::try_from(lines_per_warp).map_err(too_long)?,
        grid: [tasks.div_ceil(ROW_WARPS_PER_BLOCK as u64) as u32, 1, 1],
    })
}
