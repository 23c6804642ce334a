//! The experts' four steps.

use tollgate_core::{Element, Result};
use tollgate_device::{DeviceRows, DeviceRowsMut, DeviceSlice};
use tollgate_kernels::abi::gemm::{ExpertsDownBackwardParams, ExpertsUpParams, GemmTile};
use tollgate_kernels::registry::gemm::{EXPERTS_DOWN_BACKWARD, EXPERTS_UP};

use super::{
    DeviceExpertGrads, DeviceExpertWeights, DeviceStacked, Launcher, VECTOR, activation_code,
    aligned, check_offsets, dims, dims_mut, element_code, optional, row_tiles, size, vector,
    vector_mut,
};
use crate::ExpertShape;
use crate::check::{self, MapLens};

impl<'a, T: Element> DeviceExpertWeights<'a, T> {
    fn up_lens(&self) -> MapLens {
        MapLens {
            weights: self.up.len(),
            bias: self.up_bias.as_ref().map(DeviceSlice::len),
        }
    }

    fn down_lens(&self) -> MapLens {
        MapLens {
            weights: self.down.len(),
            bias: self.down_bias.as_ref().map(DeviceSlice::len),
        }
    }

    fn up_matrices(&self, shape: &ExpertShape) -> DeviceStacked<'a, T> {
        DeviceStacked {
            data: self.up,
            experts: shape.experts,
            n: shape.up_rows(),
            k: shape.hidden,
        }
    }

    fn down_matrices(&self, shape: &ExpertShape) -> DeviceStacked<'a, T> {
        DeviceStacked {
            data: self.down,
            experts: shape.experts,
            n: shape.hidden,
            k: shape.intermediate,
        }
    }
}

/// Whether the second part of a gated row, I elements in, is as well aligned as the row.
fn part_aligned<T>(shape: &ExpertShape) -> bool {
    let bytes = (shape.intermediate as u64).wrapping_mul(size_of::<T>() as u64);
    !shape.gated || bytes.is_multiple_of(VECTOR)
}

impl Launcher<'_> {
    /// Up-projection with bias and activation, in one kernel; x `[A, H]`, writes `pre` `[A, N1]`,
    /// rounded to `T`, and `act` `[A, I]` of what was stored. Offsets `[E+1]`.
    ///
    /// # Errors
    /// Shapes that differ, sizes above `i32::MAX`, what the device says to the launch.
    pub fn up<T: Element>(
        &mut self,
        shape: &ExpertShape,
        weights: &DeviceExpertWeights<'_, T>,
        x: DeviceRows<'_, T>,
        offsets: DeviceSlice<'_, i32>,
        pre: DeviceRowsMut<'_, T>,
        act: DeviceRowsMut<'_, T>,
    ) -> Result<()> {
        let lens = weights.up_lens();
        check::up_shapes(shape, lens, dims(&x), dims_mut(&pre), dims_mut(&act))?;
        check_offsets(offsets, shape.experts)?;
        let rows = size("rows of x (A)", x.num_rows())?;
        let experts = size("experts (E)", shape.experts)?;
        let intermediate = size("intermediate size (I)", shape.intermediate)?;
        let row_tiles = row_tiles(rows, experts);
        let params = ExpertsUpParams {
            x: x.ptr(),
            up: weights.up.ptr(),
            up_bias: optional(weights.up_bias),
            pre: pre.ptr(),
            act: act.ptr(),
            offsets: offsets.ptr(),
            status: self.status(),
            x_stride: x.stride() as u64,
            pre_stride: pre.stride() as u64,
            act_stride: act.stride() as u64,
            rows,
            experts,
            intermediate,
            hidden: size("hidden size (H)", shape.hidden)?,
            row_tiles,
            element_type: element_code(T::DTYPE),
            activation: activation_code(shape.activation),
            gated: u32::from(shape.gated),
            x_vector: vector(&x),
            up_vector: u32::from(aligned::<T>(weights.up.ptr(), shape.hidden)),
            pre_vector: vector_mut(&pre) & u32::from(part_aligned::<T>(shape)),
            act_vector: vector_mut(&act),
        };
        let width = match shape.gated {
            true => GemmTile::COLS / 2,
            false => GemmTile::COLS,
        };
        let blocks = u64::from(row_tiles) * u64::from(intermediate.div_ceil(width));
        // SAFETY: the views hold the shapes that were checked, in T; the kernel reads and writes
        // rows below `rows` only.
        unsafe { self.launch(&EXPERTS_UP, blocks, &params) }
    }

    /// Down-projection with bias; act `[A, I]`, writes `y` `[A, H]`. Offsets `[E+1]`.
    ///
    /// # Errors
    /// As [`Launcher::up`].
    pub fn down<T: Element>(
        &mut self,
        shape: &ExpertShape,
        weights: &DeviceExpertWeights<'_, T>,
        act: DeviceRows<'_, T>,
        offsets: DeviceSlice<'_, i32>,
        y: DeviceRowsMut<'_, T>,
    ) -> Result<()> {
        check::down_shapes(shape, weights.down_lens(), dims(&act), dims_mut(&y))?;
        let matrices = weights.down_matrices(shape);
        self.m_grouped(act, matrices, weights.down_bias, offsets, y)
    }

    /// Backward of `down` and of the activation; pre `[A, N1]`, act `[A, I]`, dy `[A, H]`: writes
    /// `dpre` `[A, N1]` and adds or writes the gradients of `down` and `down_bias`. Offsets
    /// `[E+1]`. Two kernels, three with a bias.
    ///
    /// # Errors
    /// As [`Launcher::up`]; a bias gradient missing or superfluous.
    pub fn down_backward<T: Element>(
        &mut self,
        shape: &ExpertShape,
        weights: &DeviceExpertWeights<'_, T>,
        pre: DeviceRows<'_, T>,
        act: DeviceRows<'_, T>,
        dy: DeviceRows<'_, T>,
        offsets: DeviceSlice<'_, i32>,
        dpre: DeviceRowsMut<'_, T>,
        grads: &mut DeviceExpertGrads<'_>,
    ) -> Result<()> {
        let gradient = MapLens {
            weights: grads.down.len(),
            bias: grads.down_bias.as_ref().map(|g| g.len()),
        };
        check::down_backward_shapes(
            shape,
            weights.down_lens(),
            dims(&pre),
            dims(&act),
            dims(&dy),
            dims_mut(&dpre),
            gradient,
        )?;
        check_offsets(offsets, shape.experts)?;
        let rows = size("rows of dy (A)", dy.num_rows())?;
        let experts = size("experts (E)", shape.experts)?;
        let intermediate = size("intermediate size (I)", shape.intermediate)?;
        let row_tiles = row_tiles(rows, experts);
        let parts = u32::from(part_aligned::<T>(shape));
        let params = ExpertsDownBackwardParams {
            dy: dy.ptr(),
            down: weights.down.ptr(),
            pre: pre.ptr(),
            dpre: dpre.ptr(),
            offsets: offsets.ptr(),
            status: self.status(),
            dy_stride: dy.stride() as u64,
            pre_stride: pre.stride() as u64,
            dpre_stride: dpre.stride() as u64,
            rows,
            experts,
            intermediate,
            hidden: size("hidden size (H)", shape.hidden)?,
            row_tiles,
            element_type: element_code(T::DTYPE),
            activation: activation_code(shape.activation),
            gated: u32::from(shape.gated),
            dy_vector: vector(&dy),
            down_vector: u32::from(aligned::<T>(weights.down.ptr(), shape.intermediate)),
            pre_vector: vector(&pre) & parts,
            dpre_vector: vector_mut(&dpre) & parts,
        };
        let blocks = u64::from(row_tiles) * u64::from(intermediate.div_ceil(GemmTile::COLS));
        // SAFETY: the views hold the shapes that were checked, in T; the kernel reads and writes
        // rows below `rows` only.
        unsafe { self.launch(&EXPERTS_DOWN_BACKWARD, blocks, &params)? };
        let accumulate = grads.accumulate;
        self.k_grouped(dy, act, offsets, accumulate, grads.down.reborrow())?;
        match &mut grads.down_bias {
            Some(bias) => self.column_sums(dy, offsets, accumulate, bias.reborrow()),
            None => Ok(()),
        }
    }

    /// Backward of the up-projection; x `[A, H]`, dpre `[A, N1]`: writes `dx` `[A, H]` and adds or
    /// writes the gradients of `up` and `up_bias`. Offsets `[E+1]`. Two kernels, three with a bias.
    ///
    /// # Errors
    /// As [`Launcher::down_backward`].
    pub fn up_backward<T: Element>(
        &mut self,
        shape: &ExpertShape,
        weights: &DeviceExpertWeights<'_, T>,
        x: DeviceRows<'_, T>,
        dpre: DeviceRows<'_, T>,
        offsets: DeviceSlice<'_, i32>,
        dx: DeviceRowsMut<'_, T>,
        grads: &mut DeviceExpertGrads<'_>,
    ) -> Result<()> {
        let gradient = MapLens {
            weights: grads.up.len(),
            bias: grads.up_bias.as_ref().map(|g| g.len()),
        };
        check::up_backward_shapes(
            shape,
            weights.up_lens(),
            dims(&x),
            dims(&dpre),
            dims_mut(&dx),
            gradient,
        )?;
        let accumulate = grads.accumulate;
        self.m_grouped_transposed(dpre, weights.up_matrices(shape), offsets, dx)?;
        self.k_grouped(dpre, x, offsets, accumulate, grads.up.reborrow())?;
        match &mut grads.up_bias {
            Some(bias) => self.column_sums(dpre, offsets, accumulate, bias.reborrow()),
            None => Ok(()),
        }
    }
}
