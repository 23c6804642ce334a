//! The three grouped products, and the sums of columns.

use tollgate_core::{Element, Result};
use tollgate_device::{DevicePtr, DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Kernel};
use tollgate_kernels::abi::gemm::{ColumnSumsParams, GemmTile, KGroupedParams, MGroupedParams};
use tollgate_kernels::registry::gemm::{COLUMN_SUMS, K_GROUPED, M_GROUPED, M_GROUPED_TRANSPOSED};

use super::{
    DeviceStacked, Launcher, aligned, check_offsets, dims, dims_mut, element_code, optional,
    row_tiles, size, vector, vector_mut,
};
use crate::check;

impl Launcher<'_> {
    /// m-grouped forward: `D[m, :] = round(A[m, :] · B[e]ᵀ + bias[e])`; A `[M, K]`, B `[E, N, K]`,
    /// bias `[E, N]`, D `[M, N]`, offsets `[E+1]`.
    ///
    /// # Errors
    /// Shapes that differ, sizes above `i32::MAX`, what the device says to the launch.
    pub fn m_grouped<A: Element, B: Element, D: Element>(
        &mut self,
        a: DeviceRows<'_, A>,
        b: DeviceStacked<'_, B>,
        bias: Option<DeviceSlice<'_, B>>,
        offsets: DeviceSlice<'_, i32>,
        d: DeviceRowsMut<'_, D>,
    ) -> Result<()> {
        let bias_len = bias.as_ref().map(DeviceSlice::len);
        check::m_grouped_shapes(dims(&a), b.shape(), bias_len, dims_mut(&d))?;
        check_offsets(offsets, b.experts)?;
        let sizes = (b.n, b.k);
        self.product(&M_GROUPED, a, b, sizes, optional(bias), offsets, d)
    }

    /// m-grouped dgrad: `D[m, :] = round(A[m, :] · B[e])`; A `[M, N]`, B `[E, N, K]`, D `[M, K]`,
    /// offsets `[E+1]`.
    ///
    /// # Errors
    /// As [`Launcher::m_grouped`].
    pub fn m_grouped_transposed<A: Element, B: Element, D: Element>(
        &mut self,
        a: DeviceRows<'_, A>,
        b: DeviceStacked<'_, B>,
        offsets: DeviceSlice<'_, i32>,
        d: DeviceRowsMut<'_, D>,
    ) -> Result<()> {
        check::m_grouped_transposed_shapes(dims(&a), b.shape(), dims_mut(&d))?;
        check_offsets(offsets, b.experts)?;
        let sizes = (b.k, b.n);
        let bias = DevicePtr::NULL;
        self.product(&M_GROUPED_TRANSPOSED, a, b, sizes, bias, offsets, d)
    }

    /// Either product, with the columns of D and the terms of a sum.
    fn product<A: Element, B: Element, D: Element>(
        &mut self,
        kernel: &'static Kernel,
        a: DeviceRows<'_, A>,
        b: DeviceStacked<'_, B>,
        (cols, depth): (usize, usize),
        bias: DevicePtr,
        offsets: DeviceSlice<'_, i32>,
        d: DeviceRowsMut<'_, D>,
    ) -> Result<()> {
        let rows = size("rows of A (M)", a.num_rows())?;
        let experts = size("experts (E)", b.experts)?;
        let cols = size("columns of D", cols)?;
        let depth = size("columns of A", depth)?;
        let row_tiles = row_tiles(rows, experts);
        let params = MGroupedParams {
            a: a.ptr(),
            b: b.data.ptr(),
            bias,
            d: d.ptr(),
            offsets: offsets.ptr(),
            status: self.status(),
            a_stride: a.stride() as u64,
            d_stride: d.stride() as u64,
            rows,
            experts,
            cols,
            depth,
            row_tiles,
            a_type: element_code(A::DTYPE),
            b_type: element_code(B::DTYPE),
            d_type: element_code(D::DTYPE),
            a_vector: vector(&a),
            b_vector: b.vector(),
            d_vector: vector_mut(&d),
            reserved: 0,
        };
        let blocks = u64::from(row_tiles) * u64::from(cols.div_ceil(GemmTile::COLS));
        // SAFETY: the views hold the shapes that were checked, in the types that are named; the
        // kernel reads and writes rows below `rows` and columns below `cols` and `depth` only.
        unsafe { self.launch(kernel, blocks, &params) }
    }

    /// k-grouped wgrad: `W[e] (+)= Σ_{m in group e} A[m, :]ᵀ · X[m, :]`; A `[M, N]`, X `[M, K]`,
    /// W `[E, N, K]` f32, offsets `[E+1]`. Empty groups write zeros unless accumulating.
    ///
    /// # Errors
    /// As [`Launcher::m_grouped`].
    pub fn k_grouped<A: Element, X: Element>(
        &mut self,
        a: DeviceRows<'_, A>,
        x: DeviceRows<'_, X>,
        offsets: DeviceSlice<'_, i32>,
        accumulate: bool,
        w: DeviceSliceMut<'_, f32>,
    ) -> Result<()> {
        // An empty array has no E; `check_offsets` names that.
        let experts = offsets.len().saturating_sub(1);
        check_offsets(offsets, experts)?;
        check::k_grouped_shapes(dims(&a), dims(&x), experts, w.len())?;
        let n = size("columns of A (N)", a.num_cols())?;
        let k = size("columns of X (K)", x.num_cols())?;
        let experts = size("experts (E)", experts)?;
        let params = KGroupedParams {
            a: a.ptr(),
            x: x.ptr(),
            w: w.ptr(),
            offsets: offsets.ptr(),
            status: self.status(),
            a_stride: a.stride() as u64,
            x_stride: x.stride() as u64,
            rows: size("rows of A (M)", a.num_rows())?,
            experts,
            n,
            k,
            accumulate: u32::from(accumulate),
            a_type: element_code(A::DTYPE),
            x_type: element_code(X::DTYPE),
            a_vector: vector(&a),
            x_vector: vector(&x),
            w_vector: u32::from(aligned::<f32>(w.ptr(), x.num_cols())),
        };
        let (n_tiles, k_tiles) = (n.div_ceil(GemmTile::ROWS), k.div_ceil(GemmTile::COLS));
        // Both factors are below 2^26 and E below 2^31: saturation is above any grid.
        let tiles = u64::from(n_tiles) * u64::from(k_tiles);
        let blocks = tiles.saturating_mul(u64::from(experts));
        // SAFETY: the views hold the shapes that were checked, in the types that are named; the
        // kernel reads rows below `rows` and writes W alone.
        unsafe { self.launch(&K_GROUPED, blocks, &params) }
    }

    /// `sums[e] (+)= Σ_{m in group e} A[m, :]` in f32, in row order: the gradient of a bias. A
    /// `[M, N]`, sums `[E, N]`, offsets `[E+1]`; the shapes were checked by the caller.
    pub(super) fn column_sums<A: Element>(
        &mut self,
        a: DeviceRows<'_, A>,
        offsets: DeviceSlice<'_, i32>,
        accumulate: bool,
        sums: DeviceSliceMut<'_, f32>,
    ) -> Result<()> {
        let cols = size("columns of A (N)", a.num_cols())?;
        let experts = size("experts (E)", offsets.len().saturating_sub(1))?;
        let params = ColumnSumsParams {
            a: a.ptr(),
            sums: sums.ptr(),
            offsets: offsets.ptr(),
            status: self.status(),
            a_stride: a.stride() as u64,
            rows: size("rows of A (M)", a.num_rows())?,
            experts,
            cols,
            accumulate: u32::from(accumulate),
            a_type: element_code(A::DTYPE),
            reserved: 0,
        };
        let blocks = u64::from(cols.div_ceil(COLUMN_SUMS.threads)) * u64::from(experts);
        // SAFETY: A holds rows · cols elements of its type and `sums` E · cols; the kernel reads
        // rows below `rows` only.
        unsafe { self.launch(&COLUMN_SUMS, blocks, &params) }
    }
}
