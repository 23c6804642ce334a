//! The operations on the CPU.
//!
//! - [`schedule`] cuts the ragged problem into units, [`product`] and [`wgrad`] compute a unit,
//!   [`pack`] (with [`transpose`]) brings operands
//!   into the order of the [`kernel`], [`epilogue`] finishes tiles.
//! - A sum is cut into blocks of at most [`pack::DEPTH`] terms by its length alone; a block is one
//!   chain of fused multiply–adds from 0, the blocks are added in order. So a row's bits depend on
//!   nothing but the row and its expert, and no result depends on the number of threads.
//! - bf16 and f16 are widened while they are packed and rounded once, in the epilogue.

mod epilogue;
mod kernel;
mod pack;
mod product;
mod schedule;
mod shared;
mod transpose;
mod wgrad;

use tollgate_core::{Cpu, Element, Result, RowView, RowViewMut};

use self::epilogue::{Activate, ActivateBackward, Store};
use self::product::{Layout, Product};
use self::shared::SharedMatrix;
use self::wgrad::{Wgrad, column_sums};
use crate::{ExpertGrads, ExpertShape, ExpertWeights, Experts, GroupedGemm, Stacked, check};

impl GroupedGemm for Cpu {
    fn m_grouped<A: Element, B: Element, D: Element>(
        &self,
        a: RowView<'_, A>,
        b: Stacked<'_, B>,
        bias: Option<&[B]>,
        offsets: &[i32],
        d: RowViewMut<'_, D>,
    ) -> Result<()> {
        check::m_grouped(&a, &b, bias, offsets, &d)?;
        let product = Product {
            a,
            b: b.data,
            layout: Layout::DepthAdjacent,
            cols: b.n,
            parts: 1,
            offsets,
        };
        let d = SharedMatrix::new(d);
        product.run(self, &Store { bias, cols: b.n, d });
        Ok(())
    }

    fn m_grouped_transposed<A: Element, B: Element, D: Element>(
        &self,
        a: RowView<'_, A>,
        b: Stacked<'_, B>,
        offsets: &[i32],
        d: RowViewMut<'_, D>,
    ) -> Result<()> {
        check::m_grouped_transposed(&a, &b, offsets, &d)?;
        let product = Product {
            a,
            b: b.data,
            layout: Layout::ColsAdjacent,
            cols: b.k,
            parts: 1,
            offsets,
        };
        let store = Store::<B, D> {
            bias: None,
            cols: b.k,
            d: SharedMatrix::new(d),
        };
        product.run(self, &store);
        Ok(())
    }

    fn k_grouped<A: Element, X: Element>(
        &self,
        a: RowView<'_, A>,
        x: RowView<'_, X>,
        offsets: &[i32],
        accumulate: bool,
        w: &mut [f32],
    ) -> Result<()> {
        check::k_grouped(&a, &x, offsets, w)?;
        let wgrad = Wgrad {
            a,
            x,
            offsets,
            accumulate,
        };
        wgrad.run(self, w)
    }
}

impl Experts for Cpu {
    fn up<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        x: RowView<'_, T>,
        offsets: &[i32],
        pre: RowViewMut<'_, T>,
        act: RowViewMut<'_, T>,
    ) -> Result<()> {
        check::up(shape, weights, &x, offsets, &pre, &act)?;
        let product = Product {
            a: x,
            b: weights.up,
            layout: Layout::DepthAdjacent,
            cols: shape.intermediate,
            parts: if shape.gated { 2 } else { 1 },
            offsets,
        };
        let activate = Activate {
            activation: shape.activation,
            intermediate: shape.intermediate,
            bias: weights.up_bias,
            pre: SharedMatrix::new(pre),
            act: SharedMatrix::new(act),
        };
        product.run(self, &activate);
        Ok(())
    }

    fn down<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        act: RowView<'_, T>,
        offsets: &[i32],
        y: RowViewMut<'_, T>,
    ) -> Result<()> {
        check::down(shape, weights, &act, offsets, &y)?;
        self.m_grouped(
            act,
            down_matrices(shape, weights),
            weights.down_bias,
            offsets,
            y,
        )
    }

    fn down_backward<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        pre: RowView<'_, T>,
        act: RowView<'_, T>,
        dy: RowView<'_, T>,
        offsets: &[i32],
        dpre: RowViewMut<'_, T>,
        grads: &mut ExpertGrads<'_>,
    ) -> Result<()> {
        check::down_backward(shape, weights, &pre, &act, &dy, offsets, &dpre, grads)?;
        let product = Product {
            a: dy,
            b: weights.down,
            layout: Layout::ColsAdjacent,
            cols: shape.intermediate,
            parts: 1,
            offsets,
        };
        let activate = ActivateBackward {
            activation: shape.activation,
            intermediate: shape.intermediate,
            gated: shape.gated,
            pre,
            dpre: SharedMatrix::new(dpre),
        };
        product.run(self, &activate);
        self.k_grouped(dy, act, offsets, grads.accumulate, grads.down)?;
        if let Some(bias) = grads.down_bias.as_deref_mut() {
            column_sums(self, dy, offsets, grads.accumulate, bias);
        }
        Ok(())
    }

    fn up_backward<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        x: RowView<'_, T>,
        dpre: RowView<'_, T>,
        offsets: &[i32],
        dx: RowViewMut<'_, T>,
        grads: &mut ExpertGrads<'_>,
    ) -> Result<()> {
        check::up_backward(shape, weights, &x, &dpre, offsets, &dx, grads)?;
        self.m_grouped_transposed(dpre, up_matrices(shape, weights), offsets, dx)?;
        self.k_grouped(dpre, x, offsets, grads.accumulate, grads.up)?;
        if let Some(bias) = grads.up_bias.as_deref_mut() {
            column_sums(self, dpre, offsets, grads.accumulate, bias);
        }
        Ok(())
    }
}

fn up_matrices<'a, T>(shape: &ExpertShape, weights: &ExpertWeights<'a, T>) -> Stacked<'a, T> {
    Stacked {
        data: weights.up,
        experts: shape.experts,
        n: shape.up_rows(),
        k: shape.hidden,
    }
}

fn down_matrices<'a, T>(shape: &ExpertShape, weights: &ExpertWeights<'a, T>) -> Stacked<'a, T> {
    Stacked {
        data: weights.down,
        experts: shape.experts,
        n: shape.hidden,
        k: shape.intermediate,
    }
}
