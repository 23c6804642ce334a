//! What a gate call on a GPU does and needs, settled once from options and sizes.

use tollgate_core::options::{
    BalanceOver, Gap, GateOptions, LocalChoice, LocalWeight, Scores, SecondPolicy, Weights,
};
use tollgate_core::{DropMode, Error, Philox, Result, Router};
use tollgate_device::{Kernel, Region, WorkspaceLayout};
use tollgate_kernels::abi::gating::{
    GateLoad, GateLocalChoice, GateLocalWeight, GateRule, GateWeights,
};
use tollgate_kernels::registry::gating as kernels;

use super::capacity::CapacityPlan;
use super::expert_choice::ChoicePlan;
use super::losses::LossPlan;
use super::state::StateLayout;
use super::table::FinishPlan;
use super::ungated::UngatedPlan;
use crate::check;

/// A gate call for given options and sizes: which kernels run, and how state and workspace are laid
/// out. Cheap to make, and never in the way of a captured graph.
#[derive(Debug, Clone)]
pub struct GatePlan {
    pub(super) options: GateOptions,
    pub(super) num_tokens: usize,
    pub(super) num_experts: usize,
    pub(super) training: bool,
    /// `None` for routers without a gate.
    pub(super) gated: Option<Gated>,
    pub(super) state: StateLayout,
    pub(super) state_layout: WorkspaceLayout,
    pub(super) work: WorkLayout,
    pub(super) workspace: WorkspaceLayout,
}

/// What the gate kernels do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gated {
    pub kernel: &'static Kernel,
    pub dynamic_shared: u32,
    pub tokens_per_block: usize,
    /// Experts that are ranked for a token.
    pub ranked: usize,
    /// Slots of a token; 0 where the columns choose.
    pub slots: usize,
    pub rule: GateRule,
    pub rule_limit: f64,
    pub forced_below: u64,
    pub scores: Scores,
    /// Whether steps may be dropped.
    pub drops: bool,
}

/// The workspace of a gate call.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkLayout {
    /// From slots to `selection`, for routers with a gate.
    pub finish: Option<FinishPlan>,
    pub losses: Option<LossPlan>,
    /// Where the columns choose.
    pub choice: Option<ChoicePlan>,
    /// With a capacity.
    pub capacity: Option<CapacityPlan>,
    /// For routers without a gate.
    pub ungated: Option<UngatedPlan>,
    /// `[T]`, for the noisy router in training.
    pub row_faults: Region<u32>,
    /// `[T]`, where the columns choose and steps may be dropped.
    pub local_experts: Region<i32>,
    /// `[T]`.
    pub local_weights: Region<f32>,
    /// `[T·k]`, of the backward pass with a capacity.
    pub positions: Region<i32>,
}

/// Words of dynamic shared memory that every device has.
const SHARED_WORDS: usize = kernels::GATE_BLOCK.max_dynamic_shared as usize / 4;
/// The most experts of a gate: a row waits in shared memory three times.
const MAX_EXPERTS: usize = SHARED_WORDS / 3;
/// The most slots of a token whose row is a warp's.
const MAX_WARP_SLOTS: usize = 32;
/// The most experts of a row that is a warp's.
pub(super) const MAX_WARP_EXPERTS: usize = 1024;
/// Results of so many slots wait in a block's shared memory.
const WAITING_SLOTS: usize = 2048;

/// Whole pieces of 16 bytes.
pub(super) fn padded(words: usize) -> usize {
    words.next_multiple_of(4)
}

/// Words of `BlockResults` in `block_results.cuh`.
fn result_words(tokens: usize, slots: usize, experts: usize, general: bool) -> usize {
    let of_tokens = if general { 6 } else { 4 };
    2 * padded(tokens * slots) + of_tokens * padded(tokens) + 2 * padded(experts)
}

/// Words of `RowMemory` in `row.cuh`.
fn row_words(experts: usize, groups: usize) -> usize {
    3 * padded(experts) + padded(2 * groups) + padded(groups)
}

/// Tokens of a block: few while there are not enough blocks for a whole device, then more, because
/// each block leaves `[E]` sums behind. A power of two; by the number of tokens alone, so that no
/// sum depends on the device.
fn tokens_per_block(tokens: usize, slots: usize, least: usize, most: usize) -> usize {
    const BLOCKS: usize = 256;
    let waiting = WAITING_SLOTS / slots.max(1);
    let most = most.min(waiting.max(1)).max(least);
    let even = tokens.div_ceil(BLOCKS).next_power_of_two();
    // `most` may be no power of two, where slots are none.
    even.clamp(least, 1 << most.ilog2())
}

impl GatePlan {
    /// Plans a gate call for `[T, E]` logits. `training` turns on Gating Dropout and router noise.
    /// `keep_scores` asks for the scores `[T, E]` in the state: expert choice keeps them in any
    /// case.
    ///
    /// # Errors
    /// As [`crate::Gating::gate`] for what concerns options and sizes; more experts than a row in
    /// shared memory may have (8192, fewer with many groups); sizes whose product overflows.
    pub fn new(
        options: &GateOptions,
        num_tokens: usize,
        num_experts: usize,
        training: bool,
        keep_scores: bool,
    ) -> Result<Self> {
        check::sizes(options, num_tokens, num_experts)?;
        let gated = match options.router.scores() {
            Some(scores) => Some(Gated::new(
                options,
                num_tokens,
                num_experts,
                training,
                scores,
            )?),
            None => None,
        };
        let columns = gated.is_some_and(|g| g.rule == GateRule::Columns);
        let keep_scores = gated.is_some() && (keep_scores || columns);
        let k_max = options.router.max_experts_per_token(num_experts);
        let noisy = training && options.router.is_noisy();
        let mut state_layout = WorkspaceLayout::new();
        let state = StateLayout::new(
            &mut state_layout,
            options,
            (num_tokens, num_experts, k_max),
            training,
            keep_scores,
        )?;

        let mut workspace = WorkspaceLayout::new();
        let (mut finish, mut losses) = (None, None);
        if let Some(gated) = &gated {
            let plan = FinishPlan::new(
                &mut workspace,
                num_tokens,
                num_experts,
                gated.slots.max(usize::from(columns) * k_max),
                gated.tokens_per_block,
                columns || gated.writes_table(),
            )?;
            let as_counted = gated.load_is_histogram(options.balance_over());
            losses = Some(LossPlan::new(&mut workspace, &plan, options, as_counted)?);
            finish = Some(plan);
        }
        let dropped_columns = columns && gated.is_some_and(|g| g.drops);
        let only = |wanted: bool| if wanted { num_tokens } else { 0 };
        let limited = gated.is_some() && options.capacity.is_some();
        let work = WorkLayout {
            finish,
            losses,
            choice: match options.router.expert_choice_tokens(num_tokens, num_experts) {
                Some(of_expert) => Some(ChoicePlan::new(
                    &mut workspace,
                    num_tokens,
                    num_experts,
                    of_expert,
                )?),
                None => None,
            },
            capacity: match &options.capacity {
                Some(capacity) => Some(CapacityPlan::new(
                    &mut workspace,
                    capacity,
                    &options.router,
                    num_tokens,
                    num_experts,
                )?),
                None => None,
            },
            ungated: match gated {
                Some(_) => None,
                None => Some(UngatedPlan::new(
                    &mut workspace,
                    options,
                    num_tokens,
                    num_experts,
                )?),
            },
            row_faults: workspace.array("faults of rows", only(noisy))?,
            local_experts: workspace.array("local experts", only(dropped_columns))?,
            local_weights: workspace.array("weights of local experts", only(dropped_columns))?,
            positions: workspace
                .array("positions", if limited { num_tokens * k_max } else { 0 })?,
        };
        Ok(Self {
            options: options.clone(),
            num_tokens,
            num_experts,
            training,
            gated,
            state,
            state_layout,
            work,
            workspace,
        })
    }

    /// T.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// E.
    pub fn num_experts(&self) -> usize {
        self.num_experts
    }

    /// The options that it was made from.
    pub fn options(&self) -> &GateOptions {
        &self.options
    }

    /// The bound of A.
    pub fn max_assignments(&self) -> usize {
        self.num_tokens * self.options.router.max_experts_per_token(self.num_experts)
    }

    /// Bytes of the state: what the layer reads and backward needs.
    pub fn state_bytes(&self) -> usize {
        self.state_layout.bytes()
    }

    /// Bytes of the workspace of [`super::gate`](fn@super::gate) and
    /// [`super::gate_backward`](fn@super::gate_backward).
    pub fn workspace_bytes(&self) -> usize {
        self.workspace.bytes()
    }

    /// Whether noise is added to the logits.
    pub(super) fn uses_noise(&self) -> bool {
        self.training && self.options.router.is_noisy()
    }
}

impl Gated {
    fn new(
        options: &GateOptions,
        tokens: usize,
        experts: usize,
        training: bool,
        scores: Scores,
    ) -> Result<Self> {
        let router = &options.router;
        let (rule, rule_limit) = rule(options);
        let slots = match rule {
            GateRule::Columns => 0,
            _ => router.max_experts_per_token(experts),
        };
        // The weights top2 need the runner-up, taken or not.
        let ranked = match options.weights() {
            Weights::Top2 => 2,
            _ => 1,
        };
        let ranked = ranked.max(slots).min(experts);
        let forced_below = match *router {
            Router::Forced { one_expert_share } => Philox::threshold(one_expert_share.into()),
            _ => 0,
        };
        let mut gated = Self {
            kernel: &kernels::GATE_BLOCK,
            dynamic_shared: 0,
            tokens_per_block: 16,
            ranked,
            slots,
            rule,
            rule_limit,
            forced_below,
            scores,
            drops: training && options.gating_dropout.is_some(),
        };
        let groups = match *router {
            Router::Grouped { groups, .. } => groups,
            _ => 0,
        };
        let fast = matches!(*router, Router::TopK { .. } | Router::Noisy { .. })
            && scores == Scores::Softmax
            && options.weights() != Weights::Top2
            && !gated.drops;
        let of_warp = experts <= MAX_WARP_EXPERTS && slots <= MAX_WARP_SLOTS;
        if fast && of_warp {
            let (kernel, places): (&'static Kernel, usize) = match experts {
                0..=32 => (&kernels::GATE_E32, 32),
                33..=64 => (&kernels::GATE_E64, 64),
                65..=128 => (&kernels::GATE_E128, 128),
                129..=256 => (&kernels::GATE_E256, 256),
                257..=512 => (&kernels::GATE_E512, 512),
                _ => (&kernels::GATE_E1024, 1024),
            };
            let warps = kernel.threads as usize / 32;
            gated.kernel = kernel;
            gated.tokens_per_block = tokens_per_block(tokens, slots, 16, 256);
            let results = result_words(gated.tokens_per_block, slots, experts, false);
            gated.dynamic_shared = 4 * (results + warps * places) as u32;
            return Ok(gated);
        }
        const ROWS: usize = 4;
        let words = |tokens: usize| {
            let per_block = tokens_per_block(tokens, slots, 4, 128);
            let of_rows = ROWS * (padded(experts) + row_words(experts, groups));
            (
                per_block,
                result_words(per_block, slots, experts, true) + of_rows,
            )
        };
        // Which kernel runs does not depend on the batch: the two add up in different orders.
        if of_warp && words(i32::MAX as usize).1 <= SHARED_WORDS {
            let (per_block, words) = words(tokens);
            gated.kernel = &kernels::GATE_WARP;
            gated.tokens_per_block = per_block;
            gated.dynamic_shared = 4 * words as u32;
            return Ok(gated);
        }
        Error::check_range("experts (E) of a gate on a GPU", experts, 1, MAX_EXPERTS)?;
        let words = row_words(experts, groups);
        let what = "words of shared memory for a row and its groups (3·E + 3·groups)";
        Error::check_range(what, words, 0, SHARED_WORDS)?;
        gated.dynamic_shared = 4 * words as u32;
        Ok(gated)
    }

    /// B.
    pub(super) fn num_blocks(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.tokens_per_block)
    }

    /// Whether assignments stand where they belong in the table at once: all but faulty rows use
    /// all their slots.
    pub(super) fn writes_table(&self) -> bool {
        self.rule == GateRule::Fixed && !self.drops
    }

    /// Whether the histogram of the slots is also what counts as load.
    pub(super) fn load_is_histogram(&self, over: BalanceOver) -> bool {
        let runs = self.rule != GateRule::Columns && !self.drops;
        let single = self.slots == 1 && self.rule == GateRule::Fixed;
        runs && (single || over == BalanceOver::All)
    }
}

/// How many of the ranked experts a token takes, and the number that decides about it.
fn rule(options: &GateOptions) -> (GateRule, f64) {
    match options.router {
        Router::TopK { .. } | Router::Grouped { .. } | Router::Noisy { .. } => {
            (GateRule::Fixed, 0.0)
        }
        Router::Adaptive { tau } => match options.gap {
            Gap::Softmax => (GateRule::GapSoftmax, tau.into()),
            Gap::Top2 => {
                let tau = f64::from(tau);
                let limit = if tau < 1.0 {
                    ((1.0 + tau) / (1.0 - tau)).ln()
                } else {
                    f64::INFINITY
                };
                (GateRule::GapLogits, limit)
            }
        },
        Router::Forced { .. } => (GateRule::Forced, 0.0),
        Router::Second { policy } => match policy {
            SecondPolicy::All | SecondPolicy::Random(0.0) => (GateRule::Second, 0.0),
            SecondPolicy::None => (GateRule::Fixed, 0.0),
            SecondPolicy::Threshold(tau) => (GateRule::Threshold, tau.into()),
            SecondPolicy::Random(tau) => (GateRule::Random, tau.into()),
        },
        Router::ExpertChoice { .. }
        | Router::Hash
        | Router::Stochastic { .. }
        | Router::Ensemble => (GateRule::Columns, 0.0),
    }
}

/// The kernels' number of an option.
pub(super) fn weights(option: Weights) -> u32 {
    (match option {
        Weights::Prob => GateWeights::Prob,
        Weights::Selected => GateWeights::Selected,
        Weights::Top2 => GateWeights::Top2,
    }) as u32
}

/// The kernels' number of an option.
pub(super) fn load(option: BalanceOver) -> u32 {
    (match option {
        BalanceOver::Top1Only => GateLoad::Single,
        BalanceOver::FirstChoice => GateLoad::First,
        BalanceOver::All => GateLoad::All,
    }) as u32
}

/// The kernels' number of an option.
pub(super) fn local_choice(option: LocalChoice) -> u32 {
    (match option {
        LocalChoice::RestrictedArgmax => GateLocalChoice::Best,
        LocalChoice::Modulo => GateLocalChoice::Modulo,
        LocalChoice::Uniform => GateLocalChoice::Uniform,
    }) as u32
}

/// The kernels' number of an option.
pub(super) fn local_weight(option: LocalWeight) -> u32 {
    (match option {
        LocalWeight::GateProb => GateLocalWeight::Score,
        LocalWeight::Original => GateLocalWeight::Original,
        LocalWeight::RestrictedSoftmax => GateLocalWeight::Share,
        LocalWeight::One => GateLocalWeight::One,
    }) as u32
}

/// Whether a dropped step skips the experts.
pub(super) fn drops_experts(mode: DropMode) -> u32 {
    u32::from(mode == DropMode::GateExpert)
}
