//! Grouped GEMM and the two linear maps of an expert: forward, dgrad, wgrad.

#![deny(unsafe_code)]

mod activation;
mod check;
mod cpu;
pub mod gpu;
pub mod reference;

use tollgate_core::options::Activation;
use tollgate_core::{Element, Result, RowView, RowViewMut};

/// Stacked matrices `[E, N, K]`, contiguous, row-major: the weights of a group of experts.
#[derive(Debug, Clone, Copy)]
pub struct Stacked<'a, T> {
    /// `E·N·K` elements.
    pub data: &'a [T],
    /// E.
    pub experts: usize,
    /// N, rows of each matrix.
    pub n: usize,
    /// K, columns of each matrix.
    pub k: usize,
}

/// The form of the experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertShape {
    /// E.
    pub experts: usize,
    /// H.
    pub hidden: usize,
    /// I.
    pub intermediate: usize,
    /// The non-linearity.
    pub activation: Activation,
    /// Gated form (SwiGLU and its kin): the up map has 2·I rows, first the I gate rows, then the I
    /// up rows, and `a = act(gate) · up`.
    pub gated: bool,
}

impl ExpertShape {
    /// N1: rows of the up map, I or 2·I.
    pub fn up_rows(&self) -> usize {
        if self.gated {
            2 * self.intermediate
        } else {
            self.intermediate
        }
    }
}

/// Weights of all experts. `up [E, N1, H]`, `up_bias [E, N1]`, `down [E, H, I]`, `down_bias [E, H]`.
#[derive(Debug, Clone, Copy)]
pub struct ExpertWeights<'a, T> {
    /// First linear map.
    pub up: &'a [T],
    /// Its bias.
    pub up_bias: Option<&'a [T]>,
    /// Second linear map.
    pub down: &'a [T],
    /// Its bias.
    pub down_bias: Option<&'a [T]>,
}

impl<'a, T> ExpertWeights<'a, T> {
    /// Experts without biases.
    pub fn new(up: &'a [T], down: &'a [T]) -> Self {
        Self {
            up,
            up_bias: None,
            down,
            down_bias: None,
        }
    }
}

/// Gradients of all expert weights, in f32, laid out as [`ExpertWeights`]. A bias gradient is
/// required exactly when there is a bias. Each backward step checks and writes its own map's part:
/// [`Experts::down_backward`] `down` and `down_bias`, [`Experts::up_backward`] `up` and `up_bias`.
#[derive(Debug)]
pub struct ExpertGrads<'a> {
    /// `[E, N1, H]`.
    pub up: &'a mut [f32],
    /// `[E, N1]`.
    pub up_bias: Option<&'a mut [f32]>,
    /// `[E, H, I]`.
    pub down: &'a mut [f32],
    /// `[E, H]`.
    pub down_bias: Option<&'a mut [f32]>,
    /// Add to what is there (fp32 main gradients) instead of overwriting it. An empty expert's
    /// gradient is written as zero when overwriting.
    pub accumulate: bool,
}

/// Grouped GEMM as an operation, implemented by each device. All memory belongs to the caller.
/// Group e is rows `offsets[e]..offsets[e+1]` of the ragged operand; `offsets` `[E+1]` are exclusive
/// prefix sums that end at its number of rows. Accumulation is f32 whatever the element types.
///
/// Every dimension may be 0: a sum without terms is 0. The bits of a row of D depend on that row
/// and its group's matrix only, not on the rows around it; no bit depends on the number of threads.
/// A NaN or an infinity in a row of A spoils that row of D and no other.
pub trait GroupedGemm {
    /// m-grouped forward: `D[m, :] = round(A[m, :] · B[e]ᵀ + bias[e])`; A `[M, K]`, B `[E, N, K]`,
    /// bias `[E, N]`, D `[M, N]`.
    ///
    /// # Errors
    /// Shapes that differ, offsets that are no prefix sums of M, products that overflow.
    fn m_grouped<A: Element, B: Element, D: Element>(
        &self,
        a: RowView<'_, A>,
        b: Stacked<'_, B>,
        bias: Option<&[B]>,
        offsets: &[i32],
        d: RowViewMut<'_, D>,
    ) -> Result<()>;

    /// m-grouped dgrad: `D[m, :] = round(A[m, :] · B[e])`; A `[M, N]`, B `[E, N, K]`, D `[M, K]`.
    ///
    /// # Errors
    /// As [`GroupedGemm::m_grouped`].
    fn m_grouped_transposed<A: Element, B: Element, D: Element>(
        &self,
        a: RowView<'_, A>,
        b: Stacked<'_, B>,
        offsets: &[i32],
        d: RowViewMut<'_, D>,
    ) -> Result<()>;

    /// k-grouped wgrad: `W[e] (+)= Σ_{m in group e} A[m, :]ᵀ · X[m, :]`; A `[M, N]`, X `[M, K]`,
    /// W `[E, N, K]` f32. Empty groups write zeros unless accumulating.
    ///
    /// # Errors
    /// As [`GroupedGemm::m_grouped`].
    fn k_grouped<A: Element, X: Element>(
        &self,
        a: RowView<'_, A>,
        x: RowView<'_, X>,
        offsets: &[i32],
        accumulate: bool,
        w: &mut [f32],
    ) -> Result<()>;
}

/// The experts' feed-forward network in the four steps that kernels fuse.
///
/// `pre = x · W_upᵀ + b_up` is stored rounded to `T`; the activation takes the stored value, so that
/// backward differentiates at the very point where forward computed. The tensors are expert-major:
/// x `[A, H]`, pre `[A, N1]`, act `[A, I]`, y `[A, H]`, with `offsets` `[E+1]`.
pub trait Experts {
    /// Up-projection with bias and activation; writes `pre` and `act`.
    ///
    /// # Errors
    /// Shapes that differ, offsets that are no prefix sums of A.
    fn up<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        x: RowView<'_, T>,
        offsets: &[i32],
        pre: RowViewMut<'_, T>,
        act: RowViewMut<'_, T>,
    ) -> Result<()>;

    /// Down-projection with bias; writes `y`.
    ///
    /// # Errors
    /// As [`Experts::up`].
    fn down<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        act: RowView<'_, T>,
        offsets: &[i32],
        y: RowViewMut<'_, T>,
    ) -> Result<()>;

    /// Backward of `down` and of the activation: writes `dpre` `[A, N1]` and adds or writes the
    /// gradients of `down` and `down_bias`.
    ///
    /// # Errors
    /// As [`Experts::up`]; a bias gradient missing or superfluous.
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
    ) -> Result<()>;

    /// Backward of the up-projection: writes `dx` `[A, H]` and adds or writes the gradients of `up`
    /// and `up_bias`.
    ///
    /// # Errors
    /// As [`Experts::down_backward`].
    fn up_backward<T: Element>(
        &self,
        shape: &ExpertShape,
        weights: &ExpertWeights<'_, T>,
        x: RowView<'_, T>,
        dpre: RowView<'_, T>,
        offsets: &[i32],
        dx: RowViewMut<'_, T>,
        grads: &mut ExpertGrads<'_>,
    ) -> Result<()>;
}
