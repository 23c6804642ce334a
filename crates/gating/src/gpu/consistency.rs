//! The consistency loss of stochastic experts on a GPU.

use tollgate_core::{Error, Result, RowView, RowViewMut};
use tollgate_device::{
    DevicePtr, DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Error as DeviceError, Gpu,
    Region, Stream, Workspace, WorkspaceLayout,
};
use tollgate_kernels::abi::selection::ConsistencyParams;
use tollgate_kernels::registry::selection::{CONSISTENCY_BLOCK, CONSISTENCY_SUM, CONSISTENCY_WARP};

use super::packed::{pack, unpack};
use super::table::product;
use crate::losses::check_with_gradients;

/// Rows of up to so many columns are a warp's; eight of them wait in shared memory.
const MAX_WARP_COLUMNS: usize = 768;

/// Two logit matrices, and where loss and gradients go. All of it is in device memory.
#[derive(Debug)]
pub struct Consistency<'a> {
    /// `[N, V]`.
    pub a: DeviceRows<'a, f32>,
    /// `[N, V]`.
    pub b: DeviceRows<'a, f32>,
    /// `[N]`, not 0 where a row counts for nothing; `None` counts all rows.
    pub padding: Option<DeviceSlice<'a, u8>>,
    /// α, finite and not negative.
    pub alpha: f32,
    /// `[N, V]`, overwritten.
    pub da: DeviceRowsMut<'a, f32>,
    /// `[N, V]`, overwritten.
    pub db: DeviceRowsMut<'a, f32>,
    /// `[1]` the loss, α included.
    pub loss: DeviceSliceMut<'a, f64>,
}

fn plan(rows: usize) -> Result<(WorkspaceLayout, Region<f64>)> {
    let mut layout = WorkspaceLayout::new();
    let losses = layout.array("losses of the rows", rows)?;
    Ok((layout, losses))
}

/// Bytes of the workspace of [`run`] for N rows.
///
/// # Errors
/// [`Error::Overflow`].
pub fn workspace_bytes(rows: usize) -> Result<usize> {
    Ok(plan(rows)?.0.bytes())
}

/// Loss and both gradients, see [`crate::losses::consistency`]. Capturable.
///
/// # Errors
/// Shapes that differ, arrays that are too small, an α that is negative or not finite.
pub fn run(
    gpu: &Gpu,
    stream: &Stream,
    problem: Consistency<'_>,
    workspace: DeviceSliceMut<'_, u8>,
) -> Result<()> {
    let (rows, columns) = (problem.a.num_rows(), problem.a.num_cols());
    product("rows (N)", rows, 1, i32::MAX as usize)?;
    product("columns (V)", columns, 1, i32::MAX as usize)?;
    Error::check_shape("rows of b (N)", problem.b.num_rows(), rows)?;
    Error::check_shape("columns of b (V)", problem.b.num_cols(), columns)?;
    Error::check_shape("rows of da (N)", problem.da.num_rows(), rows)?;
    Error::check_shape("columns of da (V)", problem.da.num_cols(), columns)?;
    Error::check_shape("rows of db (N)", problem.db.num_rows(), rows)?;
    Error::check_shape("columns of db (V)", problem.db.num_cols(), columns)?;
    DeviceError::check_len("the loss, in elements,", problem.loss.len(), 1)?;
    if let Some(padding) = problem.padding {
        Error::check_shape("padding (N)", padding.len(), rows)?;
    }
    Error::check_real("consistency α", problem.alpha.into(), 0.0, f32::MAX.into())?;
    let (layout, losses) = plan(rows)?;
    let workspace = Workspace::new(workspace, &layout)?;
    let aligned = [
        problem.a.row_alignment(),
        problem.b.row_alignment(),
        problem.da.row_alignment(),
        problem.db.row_alignment(),
    ];
    let wide = aligned.iter().all(|&a| a == 16) && columns.is_multiple_of(4);
    let (kernel, rows_per_block) = match columns {
        0..=MAX_WARP_COLUMNS => (&CONSISTENCY_WARP, CONSISTENCY_WARP.threads as usize / 32),
        _ => (&CONSISTENCY_BLOCK, 1),
    };
    let of_rows = 8 * columns.next_multiple_of(4) * rows_per_block;
    let waits = of_rows <= kernel.max_dynamic_shared as usize;
    let params = ConsistencyParams {
        a: problem.a.ptr(),
        b: problem.b.ptr(),
        padding: problem.padding.map_or(DevicePtr::NULL, |p| p.ptr()),
        da: problem.da.ptr(),
        db: problem.db.ptr(),
        row_losses: workspace.array(losses)?.ptr(),
        loss: problem.loss.ptr(),
        a_stride: problem.a.stride() as u64,
        b_stride: problem.b.stride() as u64,
        da_stride: problem.da.stride() as u64,
        db_stride: problem.db.stride() as u64,
        alpha: problem.alpha.into(),
        rows: rows as u32,
        columns: columns as u32,
        wide: u32::from(wide),
        waits: u32::from(waits),
    };
    let shared = if waits { of_rows as u32 } else { 0 };
    let blocks = rows.div_ceil(rows_per_block) as u32;
    // SAFETY: all shapes were checked, the workspace has a loss for every row.
    unsafe {
        gpu.launch(stream, kernel, [blocks, 1, 1], shared, &params)?;
        gpu.launch(stream, &CONSISTENCY_SUM, [1, 1, 1], 0, &params)?;
    }
    Ok(())
}

/// [`crate::Gating::consistency`] over host memory.
pub(super) fn host(
    gpu: &Gpu,
    a: RowView<'_, f32>,
    b: RowView<'_, f32>,
    padding: Option<&[bool]>,
    alpha: f32,
    da: RowViewMut<'_, f32>,
    db: RowViewMut<'_, f32>,
) -> Result<f64> {
    check_with_gradients(&a, &b, padding, alpha, &da, &db)?;
    let stream = gpu.default_stream();
    let (n, v) = (a.rows(), a.cols());
    let of_a = gpu.upload(stream, &pack(a))?;
    let of_b = gpu.upload(stream, &pack(b))?;
    let padding = match padding {
        Some(padding) => {
            let bytes: Vec<u8> = padding.iter().map(|&p| u8::from(p)).collect();
            Some(gpu.upload(stream, &bytes)?)
        }
        None => None,
    };
    let mut of_da = gpu.alloc::<f32>(n * v)?;
    let mut of_db = gpu.alloc::<f32>(n * v)?;
    let mut loss = gpu.alloc::<f64>(1)?;
    let mut workspace = gpu.alloc::<u8>(workspace_bytes(n)?)?;
    let problem = Consistency {
        a: of_a.slice().rows("a", n, v, v)?,
        b: of_b.slice().rows("b", n, v, v)?,
        padding: padding.as_ref().map(|p| p.slice()),
        alpha,
        da: of_da.slice_mut().rows("da", n, v, v)?,
        db: of_db.slice_mut().rows("db", n, v, v)?,
        loss: loss.slice_mut(),
    };
    run(gpu, stream, problem, workspace.slice_mut())?;
    unpack(&of_da.read(stream)?, da);
    unpack(&of_db.read(stream)?, db);
    Ok(loss.read(stream)?[0])
}
