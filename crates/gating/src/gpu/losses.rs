//! The auxiliary losses, from the sums that the gate leaves for every block of tokens.
//!
//! Where a loss is wanted the gate writes, next to what [`super::table`] needs,
//!
//! - `block_shares`: the sums over a block's rows of the scores' shares (a faulty row's are NaN,
//!   which is how the loss becomes NaN), in f32: with f64 they would be a noticeable part of the
//!   bytes moved;
//! - `block_squares`: the sum over a block's rows of lse² (0 for a fully masked row, NaN for a
//!   faulty one), in f64;
//! - `load_histogram`: what counts as load
//!   ([`BalanceOver`](tollgate_core::options::BalanceOver)), from the gate's own decision: every
//!   expert's tokens that took it alone, its first choices, or its assignments. It may be
//!   `block_histogram` itself where both are the same.
//!
//! Blocks are added in a fixed order in f64.

use tollgate_core::Philox;
use tollgate_core::options::{AuxLoss, GateOptions, Granularity};
use tollgate_device::{
    DevicePtr, DeviceSlice, DeviceSliceMut, Error, Region, Result, StepBlock, Workspace,
    WorkspaceLayout,
};
use tollgate_kernels::abi::selection::FinishParams;

use super::table::FinishPlan;

/// The sums between gate and losses, planned with the rest of a workspace.
#[derive(Debug, Clone, Copy)]
pub struct LossPlan {
    /// `[B, E]`, or empty without a balance loss.
    pub block_shares: Region<f32>,
    /// `[B]`, or empty without a z-loss.
    pub block_squares: Region<f64>,
    /// `[B, E]`, or empty: without a balance loss, or where `block_histogram` serves.
    pub load_histogram: Region<i32>,
    load_counts: Region<i32>,
    shares: Region<f64>,
    load_is_histogram: bool,
}

impl LossPlan {
    /// Adds the sums that `options` ask for to a layout. `load_is_histogram`: the load is what
    /// `block_histogram` of the finish plan counts anyway.
    ///
    /// # Errors
    /// [`tollgate_device::Error::Overflow`].
    pub fn new(
        layout: &mut WorkspaceLayout,
        finish: &FinishPlan,
        options: &GateOptions,
        load_is_histogram: bool,
    ) -> Result<Self> {
        let (blocks, experts) = (finish.num_blocks(), finish.num_experts);
        let balance = options.balance_alpha > 0.0;
        let only = |wanted: bool, len: usize| if wanted { len } else { 0 };
        let entries = finish.block_histogram.len();
        let squares = only(options.z_coefficient > 0.0, blocks);
        let loads = only(balance && !load_is_histogram, entries);
        Ok(Self {
            block_shares: layout.array("shares of the blocks", only(balance, entries))?,
            block_squares: layout.array("squares of the blocks", squares)?,
            load_histogram: layout.array("load of the blocks", loads)?,
            load_counts: layout.array("load counts", only(balance, experts))?,
            shares: layout.array("shares", only(balance, experts))?,
            load_is_histogram,
        })
    }
}

/// What the losses of a call are made of, and where they go.
#[derive(Debug)]
pub struct LossPart<'a> {
    /// Where the sums are.
    pub plan: LossPlan,
    /// The coefficients, and Gating Dropout's.
    pub options: &'a GateOptions,
    /// Whether training-only behaviour is on: whether a step can be silent.
    pub training: bool,
    /// Read for the coin of Gating Dropout.
    pub step: DeviceSlice<'a, StepBlock>,
    /// `[E]` f_e; empty without a balance loss.
    pub load: DeviceSliceMut<'a, f64>,
    /// `[2]`: balance loss, z-loss; 0 where a coefficient is 0.
    pub losses: DeviceSliceMut<'a, f64>,
}

impl LossPart<'_> {
    /// Adds the losses to the parameters of the launches that finish a table.
    pub(super) fn fill(
        &self,
        finish: &FinishPlan,
        workspace: &Workspace<'_>,
        params: &mut FinishParams,
    ) -> Result<()> {
        let (options, plan) = (self.options, &self.plan);
        let balance = options.balance_alpha > 0.0;
        Error::check_len("losses, in elements,", self.losses.len(), 2)?;
        if balance {
            Error::check_len("load, in elements,", self.load.len(), finish.num_experts)?;
        }
        if let Some(dropout) = options.gating_dropout
            && dropout.aux_loss == AuxLoss::Zero
            && self.training
        {
            Error::check_len("the step block", self.step.len(), 1)?;
            params.step = self.step.ptr();
            params.silent_below = Philox::threshold(dropout.probability.into());
            params.coin_per_step = u32::from(dropout.granularity == Granularity::Step);
        }
        // With no tokens the sums are 0, and so must their means be.
        let tokens = finish.num_tokens.max(1) as f64;
        let experts = finish.num_experts as f64;
        params.balance_factor = f64::from(options.balance_alpha) * experts / tokens;
        params.z_factor = f64::from(options.z_coefficient) / tokens;
        params.block_shares = workspace.array(plan.block_shares)?.ptr();
        params.block_squares = workspace.array(plan.block_squares)?.ptr();
        params.load_counts = workspace.array(plan.load_counts)?.ptr();
        params.shares = workspace.array(plan.shares)?.ptr();
        params.losses = self.losses.ptr();
        params.load = if balance {
            self.load.ptr()
        } else {
            DevicePtr::NULL
        };
        params.load_histogram = if balance && plan.load_is_histogram {
            params.block_histogram
        } else {
            workspace.array(plan.load_histogram)?.ptr()
        };
        Ok(())
    }
}
