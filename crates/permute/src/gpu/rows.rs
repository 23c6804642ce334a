//! The operations that move rows.

use tollgate_core::{DType, Element};
use tollgate_device::{
    DevicePtr, DeviceRoutingTable, DeviceRows, DeviceRowsMut, DeviceSliceMut, Error, Gpu, Kernel,
    Result, StatusBlock, Stream,
};
use tollgate_kernels::abi::permute::{
    CopyRowsParams, RowGradientsParams, SumRowsParams, ZeroRowsParams,
};
use tollgate_kernels::registry::permute::{
    COPY_ROWS, GRADIENTS_MAX_TOKENS, ROW_GRADIENTS, ROW_WARPS_PER_BLOCK, RowKernels, SUM_ROWS,
    WEIGHTED_SUM_ROWS, ZERO_ROWS,
};

use super::DevicePermuteMaps;
use super::launch::{check_followed, check_status, index, share};

/// What an operation does with the rows that belong to no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeRows {
    /// They stay as they are.
    Keep,
    /// Zeros into those between the experts' rows, up to `expert_offsets[E]`.
    ZeroBetween,
    /// Zeros into those, and into all behind, up to the bound.
    ZeroAll,
}

/// Lanes of a warp, and pieces of a line.
const WARP: u64 = 32;

/// `rows[r] = x[t]` for every assignment of token t with row r, bit by bit; x `[T, H]`, rows
/// `[max_rows, H]` or more. x is read once.
///
/// One launch, and one for zeros where they are asked for.
///
/// # Errors
/// Shapes that differ, buffers that are too small, limits; what the driver says.
pub fn permute<T: Element>(
    gpu: &Gpu,
    stream: &Stream,
    x: DeviceRows<'_, T>,
    table: &DeviceRoutingTable<'_>,
    maps: &DevicePermuteMaps<'_>,
    mut rows: DeviceRowsMut<'_, T>,
    free_rows: FreeRows,
    status: DeviceSliceMut<'_, StatusBlock>,
) -> Result<()> {
    let followed = check_followed(table, maps, x.num_rows(), rows.num_rows())?;
    let hidden = x.num_cols();
    Error::check_shape(
        "columns of the permuted matrix (H)",
        rows.num_cols(),
        hidden,
    )?;
    check_status(&status)?;
    zero_free_rows(gpu, stream, maps, rows.reborrow(), free_rows)?;
    if followed.num_tokens == 0 || hidden == 0 {
        return Ok(());
    }
    let width = piece_bytes::<T>(hidden, x.row_alignment().min(rows.row_alignment()));
    let pieces = (hidden * size_of::<T>()) as u64 / width;
    let share = share(gpu, followed.num_tokens, pieces.div_ceil(WARP))?;
    let params = CopyRowsParams {
        x: x.ptr(),
        rows: rows.ptr(),
        x_stride: bytes::<T>(x.stride()),
        rows_stride: bytes::<T>(rows.stride()),
        token_offsets: table.token_offsets.ptr(),
        row_of_assignment: maps.row_of_assignment.ptr(),
        status: status.ptr(),
        num_tokens: followed.num_tokens,
        max_assignments: followed.max_assignments,
        max_rows: followed.max_rows,
        lines_per_warp: share.lines_per_warp,
        pieces,
    };
    // SAFETY: x and rows are views of `[T, H]` and at least `[max_rows, H]`, offsets and maps were
    // held to T and the bounds, and the kernel holds every entry to them. Views are memory of the
    // device; whoever made them answers for it.
    unsafe { gpu.launch(stream, of_width(&COPY_ROWS, width), share.grid, 0, &params) }
}

/// Zeros into the rows that belong to no token, by `token_of_row` and `expert_offsets`. Rows of
/// tokens are not touched.
///
/// # Errors
/// As [`permute`].
pub fn zero_free_rows<T: Element>(
    gpu: &Gpu,
    stream: &Stream,
    maps: &DevicePermuteMaps<'_>,
    rows: DeviceRowsMut<'_, T>,
    free_rows: FreeRows,
) -> Result<()> {
    if free_rows == FreeRows::Keep {
        return Ok(());
    }
    let max_rows = index("rows (R)", maps.max_rows)?;
    Error::check_len(
        "the permuted matrix, in rows,",
        rows.num_rows(),
        maps.max_rows,
    )?;
    Error::check_len(
        "token_of_row, in elements,",
        maps.token_of_row.len(),
        maps.max_rows,
    )?;
    Error::check_len(
        "the maps' expert_offsets, in elements,",
        maps.expert_offsets.len(),
        1,
    )?;
    let hidden = rows.num_cols();
    if max_rows == 0 || hidden == 0 {
        return Ok(());
    }
    let width = piece_bytes::<T>(hidden, rows.row_alignment());
    let pieces = (hidden * size_of::<T>()) as u64 / width;
    let share = share(gpu, max_rows.div_ceil(WARP as u32), pieces.div_ceil(WARP))?;
    let last = maps.expert_offsets.len() - 1;
    let params = ZeroRowsParams {
        rows: rows.ptr(),
        rows_stride: bytes::<T>(rows.stride()),
        token_of_row: maps.token_of_row.ptr(),
        rows_end: match free_rows {
            FreeRows::ZeroAll => DevicePtr::NULL,
            _ => maps.expert_offsets.part("rows_end", last, 1)?.ptr(),
        },
        pieces,
        max_rows,
        lines_per_warp: share.lines_per_warp,
    };
    // SAFETY: rows are a view of at least `[max_rows, H]`, token_of_row has max_rows entries.
    unsafe { gpu.launch(stream, of_width(&ZERO_ROWS, width), share.grid, 0, &params) }
}

/// `y[t] = round(Σ_a w_a · rows[row_of_assignment[a]])` over the token's assignments in table
/// order, accumulated in f32 by fused multiply-adds from 0; a token without experts gets 0. rows
/// `[max_rows, H]` or more, y `[T, H]`. One launch.
///
/// # Errors
/// As [`permute`].
pub fn unpermute<T: Element>(
    gpu: &Gpu,
    stream: &Stream,
    rows: DeviceRows<'_, T>,
    table: &DeviceRoutingTable<'_>,
    maps: &DevicePermuteMaps<'_>,
    y: DeviceRowsMut<'_, T>,
    status: DeviceSliceMut<'_, StatusBlock>,
) -> Result<()> {
    check_weights(table)?;
    let weights = table.routing_weights.ptr();
    let kernels = &WEIGHTED_SUM_ROWS;
    sum(
        gpu, stream, kernels, rows, table, maps, weights, None, y, status,
    )
}

/// Backward of [`permute`]: `dx[t] = round(addend[t] + Σ_a drows[row_of_assignment[a]])`, the sum
/// in table order in f32, starting from the addend (`[T, H]`, 0 if absent). drows `[max_rows, H]`
/// or more, dx `[T, H]`. One launch.
///
/// # Errors
/// As [`permute`].
pub fn permute_backward<T: Element>(
    gpu: &Gpu,
    stream: &Stream,
    drows: DeviceRows<'_, T>,
    table: &DeviceRoutingTable<'_>,
    maps: &DevicePermuteMaps<'_>,
    addend: Option<DeviceRows<'_, f32>>,
    dx: DeviceRowsMut<'_, T>,
    status: DeviceSliceMut<'_, StatusBlock>,
) -> Result<()> {
    if let Some(addend) = &addend {
        Error::check_shape("rows of the addend (T)", addend.num_rows(), dx.num_rows())?;
        Error::check_shape(
            "columns of the addend (H)",
            addend.num_cols(),
            dx.num_cols(),
        )?;
    }
    let (kernels, weights) = (&SUM_ROWS, DevicePtr::NULL);
    sum(
        gpu, stream, kernels, drows, table, maps, weights, addend, dx, status,
    )
}

/// A launch of one of the two kernels that add up a token's rows. The weights, if any, are checked.
fn sum<T: Element>(
    gpu: &Gpu,
    stream: &Stream,
    kernels: &'static RowKernels,
    rows: DeviceRows<'_, T>,
    table: &DeviceRoutingTable<'_>,
    maps: &DevicePermuteMaps<'_>,
    weights: DevicePtr,
    addend: Option<DeviceRows<'_, f32>>,
    y: DeviceRowsMut<'_, T>,
    status: DeviceSliceMut<'_, StatusBlock>,
) -> Result<()> {
    let followed = check_followed(table, maps, y.num_rows(), rows.num_rows())?;
    let hidden = y.num_cols();
    Error::check_shape(
        "columns of the permuted matrix (H)",
        rows.num_cols(),
        hidden,
    )?;
    check_status(&status)?;
    if followed.num_tokens == 0 || hidden == 0 {
        return Ok(());
    }
    let of_addend = addend.as_ref().map_or(16, DeviceRows::row_alignment);
    let alignment = rows.row_alignment().min(y.row_alignment()).min(of_addend);
    let kernel = of_alignment::<T>(kernels, hidden, alignment);
    let lines = (hidden as u64).div_ceil(line_columns::<T>());
    let share = share(gpu, followed.num_tokens, lines)?;
    let params = SumRowsParams {
        rows: rows.ptr(),
        y: y.ptr(),
        addend: addend.as_ref().map_or(DevicePtr::NULL, DeviceRows::ptr),
        rows_stride: rows.stride() as u64,
        y_stride: y.stride() as u64,
        addend_stride: addend.as_ref().map_or(0, DeviceRows::stride) as u64,
        token_offsets: table.token_offsets.ptr(),
        row_of_assignment: maps.row_of_assignment.ptr(),
        weights,
        status: status.ptr(),
        hidden: hidden as u64,
        num_tokens: followed.num_tokens,
        max_assignments: followed.max_assignments,
        max_rows: followed.max_rows,
        lines_per_warp: share.lines_per_warp,
    };
    // SAFETY: as in `permute`; the addend has y's shape, the weights an entry an assignment.
    unsafe { gpu.launch(stream, kernel, share.grid, 0, &params) }
}

/// Backward of [`unpermute`]: `drows[r] = round(w_a · dy[t])` and `dweights[a] = <dy[t], rows[r]>`
/// in f32, in the order that [`Permute::unpermute_backward`](crate::Permute::unpermute_backward)
/// tells. dy `[T, H]`, rows and drows `[max_rows, H]` or more, dweights `[max_assignments]` or
/// more, of which A are written. Rows of drows that belong to no token stay as they are: see
/// [`zero_free_rows`]. Maps that give a row to two assignments leave it to one of them. One launch.
///
/// # Errors
/// As [`permute`].
pub fn unpermute_backward<T: Element>(
    gpu: &Gpu,
    stream: &Stream,
    dy: DeviceRows<'_, T>,
    rows: DeviceRows<'_, T>,
    table: &DeviceRoutingTable<'_>,
    maps: &DevicePermuteMaps<'_>,
    drows: DeviceRowsMut<'_, T>,
    dweights: DeviceSliceMut<'_, f32>,
    status: DeviceSliceMut<'_, StatusBlock>,
) -> Result<()> {
    let followed = check_followed(table, maps, dy.num_rows(), rows.num_rows())?;
    let hidden = dy.num_cols();
    Error::check_shape(
        "columns of the permuted matrix (H)",
        rows.num_cols(),
        hidden,
    )?;
    Error::check_len(
        "the gradient of the permuted matrix, in rows,",
        drows.num_rows(),
        maps.max_rows,
    )?;
    Error::check_shape(
        "columns of the gradient of the permuted matrix (H)",
        drows.num_cols(),
        hidden,
    )?;
    check_weights(table)?;
    Error::check_len(
        "dweights, in elements,",
        dweights.len(),
        table.max_assignments,
    )?;
    check_status(&status)?;
    if followed.num_tokens == 0 {
        return Ok(());
    }
    let alignment = dy.row_alignment().min(rows.row_alignment());
    let alignment = alignment.min(drows.row_alignment());
    // About an assignment for each warp of a block, and a block for each multiprocessor. No result
    // depends on it.
    let per_token = followed
        .max_assignments
        .div_ceil(followed.num_tokens)
        .max(1);
    let wanted = ROW_WARPS_PER_BLOCK.min(GRADIENTS_MAX_TOKENS) as u32 / per_token;
    let spread = followed.num_tokens / gpu.facts().num_sms.max(1);
    let tokens_per_block = wanted.min(spread).max(1);
    let params = RowGradientsParams {
        dy: dy.ptr(),
        rows: rows.ptr(),
        drows: drows.ptr(),
        dweights: dweights.ptr(),
        dy_stride: dy.stride() as u64,
        rows_stride: rows.stride() as u64,
        drows_stride: drows.stride() as u64,
        token_offsets: table.token_offsets.ptr(),
        row_of_assignment: maps.row_of_assignment.ptr(),
        weights: table.routing_weights.ptr(),
        status: status.ptr(),
        hidden: hidden as u64,
        num_tokens: followed.num_tokens,
        max_assignments: followed.max_assignments,
        max_rows: followed.max_rows,
        tokens_per_block,
    };
    let kernel = of_alignment::<T>(&ROW_GRADIENTS, hidden, alignment);
    let grid = [followed.num_tokens.div_ceil(tokens_per_block), 1, 1];
    // SAFETY: as in `permute`; drows is at least `[max_rows, H]`, weights and dweights have an
    // entry an assignment.
    unsafe { gpu.launch(stream, kernel, grid, 0, &params) }
}

fn check_weights(table: &DeviceRoutingTable<'_>) -> Result<()> {
    Error::check_len(
        "routing_weights, in elements,",
        table.routing_weights.len(),
        table.max_assignments,
    )
}

/// Bytes of a stride. A view's rows lie in memory, so this does not overflow where there are two.
fn bytes<T>(elems: usize) -> u64 {
    (elems as u64).wrapping_mul(size_of::<T>() as u64)
}

/// The widest piece that rows of this alignment are made of: 2, 4, 8 or 16 bytes.
fn piece_bytes<T>(hidden: usize, alignment: u64) -> u64 {
    let row = (hidden * size_of::<T>()) as u64;
    alignment.min(1 << row.trailing_zeros().min(4))
}

fn of_width(kernels: &'static [Kernel; 4], width: u64) -> &'static Kernel {
    &kernels[width.trailing_zeros() as usize - 1]
}

/// Columns of a line: `Line::COLUMNS` of the kernels.
fn line_columns<T>() -> u64 {
    WARP * 16 / size_of::<T>() as u64
}

/// The form for rows of this alignment and length.
fn of_alignment<T: Element>(
    kernels: &'static RowKernels,
    hidden: usize,
    alignment: u64,
) -> &'static Kernel {
    let aligned = alignment == 16 && (hidden * size_of::<T>()).is_multiple_of(16);
    let forms = match aligned {
        true => &kernels.aligned,
        false => &kernels.unaligned,
    };
    match T::DTYPE {
        DType::F32 => &forms[0],
        DType::F16 => &forms[1],
        DType::Bf16 => &forms[2],
    }
}
