//! Router logits to routing table: scores, selection, weights, losses; forward and backward.
//!
//! The four rooms: this file says what the operation is, [`mod@reference`] is its executable
//! specification in f64, `cpu` is the fast implementation on the CPU, and [`gpu`] launches the
//! kernels.
//!
//! Shapes: logits and scores `[T, E]` f32 row-major; weights and their gradients `[A]`.

#![deny(unsafe_code)]

pub mod capacity;
mod check;
mod cpu;
pub mod curriculum;
pub mod dropout;
pub mod gpu;
pub mod jitter;
pub mod losses;
pub mod reference;
mod state;
pub mod stochastic;

pub use state::{GateInputs, GateState, GateStatus, Losses};

use tollgate_core::options::GateOptions;
use tollgate_core::{Element, Result, RowView, RowViewMut, StepContext};

/// The gate as an operation, implemented by each device.
///
/// All memory belongs to the caller; [`GateState`] is reused from step to step and allocates only
/// when it grows.
pub trait Gating {
    /// Row-wise softmax: `probs[t,e] = exp(z[t,e] − lse[t])`, `lse` = log Σ exp.
    ///
    /// Masked logits (−∞) have probability exactly 0; a row of only −∞ gives zeros and `lse` −∞.
    /// A row with NaN or +∞ is faulty: probabilities and `lse` are NaN. Exponentials
    /// `exp(z − max)` that are no normal numbers of f32 (`z − max < −87.3`) are exactly 0.
    ///
    /// # Errors
    /// Shapes that differ; more than 2^31 − 1 rows.
    fn softmax(
        &self,
        logits: RowView<'_, f32>,
        probs: RowViewMut<'_, f32>,
        lse: &mut [f32],
    ) -> Result<()>;

    /// `dlogits[t,j] = p_j (dprobs_j − Σ_e p_e dprobs_e)`.
    ///
    /// # Errors
    /// Shapes that differ; more than 2^31 − 1 rows.
    fn softmax_backward(
        &self,
        probs: RowView<'_, f32>,
        dprobs: RowView<'_, f32>,
        dlogits: RowViewMut<'_, f32>,
    ) -> Result<()>;

    /// The whole gate: scores, selection, weights, capacity, Gating Dropout, histogram and losses.
    ///
    /// # Errors
    /// Options out of range, shapes that differ, inputs that the router needs and were not given;
    /// `state` is untouched then. Faulty rows are no error: see [`GateStatus`].
    fn gate(
        &self,
        inputs: &GateInputs<'_>,
        options: &GateOptions,
        ctx: &StepContext,
        state: &mut GateState,
    ) -> Result<()>;

    /// The gradient of the loss with respect to the logits: from the combine weights
    /// (`dweights[a]`, for the assignments of `state.table`) and from the balance and z losses.
    ///
    /// Writes all of `dlogits` `[T,E]`, and of `dnoise_logits` `[T,E]` for the noisy router (where
    /// it is required). `inputs`, `options` and `ctx` are those of the forward pass.
    ///
    /// # Errors
    /// Shapes that differ, a missing output.
    fn gate_backward(
        &self,
        inputs: &GateInputs<'_>,
        options: &GateOptions,
        ctx: &StepContext,
        state: &GateState,
        dweights: &[f32],
        dlogits: RowViewMut<'_, f32>,
        dnoise_logits: Option<RowViewMut<'_, f32>>,
    ) -> Result<()>;

    /// Jitter of the router's input (Switch Transformer): `out = x · U(1 ± amount)`, both `[T, H]`,
    /// widened to f32 and multiplied by [`jitter::factors`].
    ///
    /// # Errors
    /// Shapes that differ; more than 2^31 − 1 rows or 2^26 columns; an amount outside `[0, 1]`; a
    /// pass above 15.
    fn jitter<T: Element>(
        &self,
        x: RowView<'_, T>,
        amount: f32,
        ctx: &StepContext,
        out: RowViewMut<'_, f32>,
    ) -> Result<()>
    where
        Self: Sized;

    /// The way back through [`Gating::jitter`]: multiplies the gradient of its output `[T, H]` by
    /// the factors, in place.
    ///
    /// # Errors
    /// As [`Gating::jitter`].
    fn jitter_backward(
        &self,
        amount: f32,
        ctx: &StepContext,
        dx: RowViewMut<'_, f32>,
    ) -> Result<()>;

    /// The consistency loss of stochastic experts (Zuo et al., ICLR 2022) between the logits `a`
    /// and `b` `[N, V]` of two passes, and its gradients; what it does with padding, masks and
    /// faults is said at [`losses::consistency`].
    ///
    /// # Errors
    /// Shapes that differ, more than 2^31 − 1 rows; an α that is negative or not finite. Nothing is
    /// written then.
    fn consistency(
        &self,
        a: RowView<'_, f32>,
        b: RowView<'_, f32>,
        padding: Option<&[bool]>,
        alpha: f32,
        da: RowViewMut<'_, f32>,
        db: RowViewMut<'_, f32>,
    ) -> Result<f64>;
}
