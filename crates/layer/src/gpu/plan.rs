//! A layer for a number of tokens: what its passes need.

use std::ops::Range;
use std::sync::Arc;

use tollgate_core::options::{GateOptions, StochasticPer};
use tollgate_core::{Element, Error, Result, Router};
use tollgate_device::{
    DeviceSliceMut, Gpu, Region, StatusBlock, StepBlock, Stream, WorkspaceLayout,
};
use tollgate_gating::capacity::rows_per_expert;
use tollgate_gating::gpu::GatePlan;
use tollgate_gemm::ExpertShape;
use tollgate_permute::gpu::{SortPlan, SortShape};

use super::DeviceLayerState;
use crate::MoeLayer;

/// A Mixture-of-Experts layer on a GPU for a fixed number of tokens. Clones share the plan.
///
/// `T` is the element type of activations and expert weights.
#[derive(Debug, Clone)]
pub struct DeviceLayer<T> {
    pub(super) gpu: Gpu,
    pub(super) plan: Arc<Plan<T>>,
}

/// Sizes and layouts. The layouts of state and workspace give the bytes that are asked for and the
/// places of the arrays alike.
#[derive(Debug)]
pub(super) struct Plan<T> {
    pub(super) dims: Dims,
    pub(super) options: GateOptions,
    pub(super) local_experts: Range<usize>,
    pub(super) gate: GatePlan,
    pub(super) sort: SortPlan,
    pub(super) state: StateRegions<T>,
    pub(super) workspace: WorkspaceRegions<T>,
}

/// What is known before anything runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dims {
    pub(super) shape: ExpertShape,
    /// T.
    pub(super) tokens: usize,
    /// R: the most assignments that there can be.
    pub(super) rows: usize,
    /// Whether rows are the tokens themselves (one expert, weight 1): nothing is permuted.
    pub(super) dense: bool,
    /// Whether the router has a gate,
    pub(super) gate: bool,
    /// adds noise to its logits,
    pub(super) noisy: bool,
    /// and sees its input with jitter.
    pub(super) jitter: bool,
}

/// What lives from a forward pass to its backward pass.
#[derive(Debug)]
pub(super) struct StateRegions<T> {
    pub(super) layout: WorkspaceLayout,
    /// `[0, T]`: the router's product is one group.
    pub(super) one_group: Region<i32>,
    /// `[T+1]` 0, 1, 2 …: one row a token, where there is noise.
    pub(super) numbers: Region<i32>,
    pub(super) status: Region<StatusBlock>,
    pub(super) step: Region<StepBlock>,
    pub(super) gate: Region<u8>,
    /// `[T, E]`.
    pub(super) logits: Region<f32>,
    /// `[T, E]`.
    pub(super) noise_logits: Region<f32>,
    /// `[T, H]` x with jitter.
    pub(super) router_input: Region<f32>,
    /// `[R, H]`.
    pub(super) x_rows: Region<T>,
    /// `[R, N1]`.
    pub(super) pre: Region<T>,
    /// `[R, I]`.
    pub(super) act: Region<T>,
    /// `[R, H]`.
    pub(super) y_rows: Region<T>,
    /// `[T, E]`, written by the backward pass.
    pub(super) dlogits: Region<f32>,
}

/// What passes work in.
#[derive(Debug)]
pub(super) struct WorkspaceRegions<T> {
    /// Of both passes,
    pub(super) layout: WorkspaceLayout,
    /// and its part that a forward pass needs.
    pub(super) forward: WorkspaceLayout,
    /// What the gate works in, forward and backward.
    pub(super) gate: Region<u8>,
    /// `[R, H]`: the gradient of the experts' outputs, and once the down map is done with it that
    /// of their inputs.
    pub(super) drows: Region<T>,
    /// `[R, N1]`.
    pub(super) dpre: Region<T>,
    /// `[A]`.
    pub(super) dweights: Region<f32>,
    /// `[T, E]`.
    pub(super) dnoise: Region<f32>,
    /// `[T, H]` the router's share of dx.
    pub(super) dx_router: Region<f32>,
    /// `[T, H]` the noise map's share of it.
    pub(super) dx_noise: Region<f32>,
    /// `[T, H]` the sum of both.
    pub(super) dx_sum: Region<f32>,
}

impl<T: Element> DeviceLayer<T> {
    /// Plans `layer` for `tokens` tokens. In training Gating Dropout, jitter and router noise act.
    ///
    /// # Errors
    /// More tokens than the options allow; sizes beyond the address space.
    pub fn new(layer: &MoeLayer<Gpu>, tokens: usize, training: bool) -> Result<Self> {
        Ok(Self {
            gpu: layer.device.clone(),
            plan: Arc::new(Plan::new(layer, tokens, training)?),
        })
    }

    /// T.
    pub fn num_tokens(&self) -> usize {
        self.plan.dims.tokens
    }

    /// The bound R of the assignments: rows of the experts are reserved for so many.
    pub fn max_assignments(&self) -> usize {
        self.plan.dims.rows
    }

    /// Bytes of a state, which a forward pass fills for its backward pass.
    pub fn state_bytes(&self) -> usize {
        self.plan.state.layout.bytes()
    }

    /// Bytes of the workspace of either pass. Its contents mean nothing between passes; passes that
    /// may run at the same time need one each.
    pub fn workspace_bytes(&self) -> usize {
        self.plan.workspace.layout.bytes()
    }

    /// Bytes of the workspace of a forward pass alone: for inference.
    pub fn forward_workspace_bytes(&self) -> usize {
        self.plan.workspace.forward.bytes()
    }

    /// Lays a state over `memory` and puts its constants there; a forward pass fills the rest.
    ///
    /// Do this once for as many steps as you like, outside of any capture: the host's bytes are
    /// copied.
    ///
    /// # Errors
    /// Fewer bytes than [`DeviceLayer::state_bytes`]; memory that does not start at a multiple of
    /// [`WorkspaceLayout::ALIGNMENT`]; what the driver says.
    pub fn state<'a>(
        &self,
        stream: &Stream,
        memory: DeviceSliceMut<'a, u8>,
    ) -> Result<DeviceLayerState<'a, T>> {
        DeviceLayerState::new(self, stream, memory)
    }
}

/// The most assignments of `tokens` tokens.
fn bound(options: &GateOptions, tokens: usize, experts: usize, training: bool) -> Result<usize> {
    let router = &options.router;
    let k = router.max_experts_per_token(experts);
    let most = i32::MAX as usize;
    let all = Error::checked_product("assignments (T·k)", tokens, k, most)?;
    let mut rows = match router.expert_choice_tokens(tokens, experts) {
        Some(each) => all.min(each.saturating_mul(experts)),
        None => all,
    };
    if options.gating_dropout.is_some() && training {
        // A step that stays local gives every token one expert.
        rows = rows.max(tokens);
    }
    if let Some(capacity) = &options.capacity {
        let limit = rows_per_expert(capacity, router, tokens, experts);
        rows = rows.min(limit.saturating_mul(experts));
    }
    Ok(rows)
}

/// Whether one expert takes all tokens with weight 1, whatever is drawn.
fn is_dense(options: &GateOptions, tokens: usize, experts: usize) -> bool {
    let router = &options.router;
    let sole = match *router {
        Router::Stochastic {
            per: StochasticPer::Batch,
        } => true,
        Router::Stochastic { .. } => experts == 1 || tokens <= 1,
        Router::Ensemble => experts == 1,
        // A hash router may meet a token id without an expert.
        _ => false,
    };
    let drops = options
        .capacity
        .is_some_and(|c| rows_per_expert(&c, router, tokens, experts) < tokens);
    sole && !drops && options.weight_scale == 1.0
}

impl<T: Element> Plan<T> {
    fn new(layer: &MoeLayer<Gpu>, tokens: usize, training: bool) -> Result<Self> {
        let (shape, options) = (layer.shape, layer.options.clone());
        let experts = shape.experts;
        options.validate(tokens, experts)?;
        let rows = bound(&options, tokens, experts, training)?;
        let keep_scores = true;
        let gate = GatePlan::new(&options, tokens, experts, training, keep_scores)?;
        let dims = Dims {
            tokens,
            rows,
            shape,
            dense: is_dense(&options, tokens, experts),
            gate: options.router.has_gate(),
            noisy: options.router.is_noisy() && training,
            jitter: options.router.has_gate() && options.jitter > 0.0 && training,
        };
        let (state, sort) = StateRegions::new(&dims, &gate)?;
        Ok(Self {
            state,
            sort,
            workspace: WorkspaceRegions::new(&dims, &gate)?,
            dims,
            options,
            local_experts: layer.local_experts.clone(),
            gate,
        })
    }
}

impl<T: Element> StateRegions<T> {
    fn new(dims: &Dims, gate: &GatePlan) -> Result<(Self, SortPlan)> {
        let mut layout = WorkspaceLayout::new();
        let Dims { tokens, rows, .. } = *dims;
        let (e, h) = (dims.shape.experts, dims.shape.hidden);
        let permuted = if dims.dense { 0 } else { rows };
        let when = |wanted: bool, rows: usize| if wanted { rows } else { 0 };
        // Maps and the counts that make them; of nothing where nothing is permuted.
        let shape = SortShape {
            num_tokens: when(!dims.dense, tokens),
            num_experts: when(!dims.dense, e),
            max_assignments: permuted,
            row_alignment: 1,
        };
        let sort = SortPlan::new(&mut layout, shape)?;
        let regions = Self {
            one_group: layout.array("router group", 2)?,
            numbers: layout.array("numbers", if dims.noisy { tokens + 1 } else { 0 })?,
            status: layout.array("status", 1)?,
            step: layout.array("step", 1)?,
            gate: layout.array("state of the gate", gate.state_bytes())?,
            logits: matrix(&mut layout, "logits", when(dims.gate, tokens), e)?,
            noise_logits: matrix(&mut layout, "noise logits", when(dims.noisy, tokens), e)?,
            router_input: matrix(&mut layout, "jittered x", when(dims.jitter, tokens), h)?,
            x_rows: matrix(&mut layout, "rows of x", permuted, h)?,
            pre: matrix(
                &mut layout,
                "rows before the activation",
                rows,
                dims.shape.up_rows(),
            )?,
            act: matrix(&mut layout, "rows behind it", rows, dims.shape.intermediate)?,
            y_rows: matrix(&mut layout, "rows of y", permuted, h)?,
            dlogits: matrix(
                &mut layout,
                "gradient of the logits",
                when(dims.gate, tokens),
                e,
            )?,
            layout,
        };
        Ok((regions, sort))
    }
}

impl<T: Element> WorkspaceRegions<T> {
    fn new(dims: &Dims, gate: &GatePlan) -> Result<Self> {
        let mut layout = WorkspaceLayout::new();
        let Dims { tokens, rows, .. } = *dims;
        let (e, h) = (dims.shape.experts, dims.shape.hidden);
        let when = |wanted: bool, rows: usize| if wanted { rows } else { 0 };
        let permuted = when(!dims.dense, rows);
        // The gate's own bound, which may be above the rows.
        let assignments = when(!dims.dense, gate.max_assignments());
        let noisy = when(dims.noisy, tokens);
        let router = when(dims.gate, tokens);
        let work = layout.array("work of the gate", gate.workspace_bytes())?;
        Ok(Self {
            forward: layout.clone(),
            gate: work,
            drows: matrix(&mut layout, "gradient of rows", permuted, h)?,
            dpre: matrix(
                &mut layout,
                "gradient before the activation",
                rows,
                dims.shape.up_rows(),
            )?,
            dweights: layout.array("gradient of the weights", assignments)?,
            dnoise: matrix(&mut layout, "gradient of the noise logits", noisy, e)?,
            dx_router: matrix(&mut layout, "gradient of the router's input", router, h)?,
            dx_noise: matrix(&mut layout, "its share of the noise", noisy, h)?,
            dx_sum: matrix(&mut layout, "sum of both", noisy, h)?,
            layout,
        })
    }
}

/// Room for `[rows, cols]`.
fn matrix<T: Element>(
    layout: &mut WorkspaceLayout,
    what: &'static str,
    rows: usize,
    cols: usize,
) -> Result<Region<T>> {
    let elems = Error::checked_product(what, rows, cols, isize::MAX as usize)?;
    Ok(layout.array(what, elems)?)
}

#[cfg(test)]
mod tests {
    use tollgate_core::DropMode;
    use tollgate_core::options::{Capacity, DropOrder, GatingDropout};

    use super::*;

    fn options(router: &str) -> GateOptions {
        // The spellings below are legal.
        GateOptions::new(router.parse().unwrap())
    }

    fn capacity(factor: f32) -> Option<Capacity> {
        Some(Capacity {
            factor,
            order: DropOrder::Position,
        })
    }

    #[test]
    fn rows_are_bounded_by_what_the_router_can_choose() {
        let rows = |options: &GateOptions| bound(options, 100, 8, true).unwrap();
        assert_eq!(rows(&options("adaptive:0.1")), 200);
        assert_eq!(rows(&options("topk:5")), 500);
        assert_eq!(rows(&options("ensemble")), 800);
        assert_eq!(rows(&options("expert-choice:7")), 56);
        // A step that stays local gives every token an expert.
        let mut dropped = options("expert-choice:7");
        dropped.gating_dropout = Some(GatingDropout::new(0.5, DropMode::Gate));
        assert_eq!(rows(&dropped), 100);
        assert_eq!(bound(&dropped, 100, 8, false).unwrap(), 56);
        // ceil(0.5 · 100 · 2 / 8) = 13 rows an expert.
        let mut limited = options("top2");
        limited.capacity = capacity(0.5);
        assert_eq!(rows(&limited), 104);
        limited.capacity = capacity(f32::MAX);
        assert_eq!(rows(&limited), 200);
        let error = bound(&options("ensemble"), 1 << 29, 8, true).unwrap_err();
        assert!(
            error.to_string().starts_with("assignments (T·k)"),
            "{error}"
        );
    }

    #[test]
    fn one_expert_for_all_with_weight_1_is_dense() {
        let dense = |options: &GateOptions, t, e| is_dense(options, t, e);
        assert!(dense(&options("thor"), 100, 8));
        assert!(!dense(&options("thor:token"), 100, 8));
        assert!(dense(&options("thor:token"), 1, 8));
        assert!(dense(&options("thor:sentence"), 100, 1));
        assert!(dense(&options("ensemble"), 100, 1));
        assert!(!dense(&options("ensemble"), 100, 2));
        assert!(!dense(&options("hash"), 100, 1));
        assert!(!dense(&options("top1"), 100, 1));
        let mut scaled = options("thor");
        scaled.weight_scale = 2.0;
        assert!(!dense(&scaled, 100, 8));
        // ceil(1 · 100 / 8) = 13 rows: the others are dropped.
        let mut limited = options("thor");
        limited.capacity = capacity(1.0);
        assert!(!dense(&limited, 100, 8));
        limited.capacity = capacity(8.0);
        assert!(dense(&limited, 100, 8));
    }
}
