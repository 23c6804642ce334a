//! The borrowed tensors of a layer's passes.

use tollgate_core::{Error, Result, RowView, RowViewMut};
use tollgate_gemm::{ExpertGrads, ExpertWeights};

use crate::MoeLayer;

/// The inputs of a pass. All memory is the caller's.
#[derive(Debug, Clone, Copy)]
pub struct LayerInputs<'a, T> {
    /// `[T, H]` activations.
    pub x: RowView<'a, T>,
    /// `[T]` token ids; required by the hash router.
    pub token_ids: Option<&'a [i32]>,
    /// `[V]` expert of each token id; without it the hash router draws the table from the seed.
    pub hash_table: Option<&'a [i32]>,
    /// `[S+1]` exclusive prefix sums of the sequence lengths; required by `thor:sentence`.
    pub sequence_offsets: Option<&'a [i32]>,
}

impl<'a, T> LayerInputs<'a, T> {
    /// Activations alone: all that most routers need.
    pub fn new(x: RowView<'a, T>) -> Self {
        Self {
            x,
            token_ids: None,
            hash_table: None,
            sequence_offsets: None,
        }
    }
}

/// The parameters of a layer. All memory is the caller's.
#[derive(Debug, Clone, Copy)]
pub struct LayerWeights<'a, T> {
    /// `[E, H]` f32; required by every router with a gate: `logits = x · routerᵀ`.
    pub router: Option<&'a [f32]>,
    /// `[E, H]` f32; required by the noisy router in training.
    pub router_noise: Option<&'a [f32]>,
    /// `[E]` f32, added to the scores for the selection only (sigmoid and grouped routers).
    pub selection_bias: Option<&'a [f32]>,
    /// The experts: `up [E, N1, H]`, `up_bias [E, N1]`, `down [E, H, I]`, `down_bias [E, H]`.
    pub experts: ExpertWeights<'a, T>,
}

/// Where a backward pass writes. All memory is the caller's.
#[derive(Debug)]
pub struct LayerGrads<'a, T> {
    /// `[T, H]`, the gradient of the input, rounded once to T.
    pub x: RowViewMut<'a, T>,
    /// `[E, H]` f32; required exactly when the router has a gate.
    pub router: Option<&'a mut [f32]>,
    /// `[E, H]` f32; required exactly when the forward pass used router noise.
    pub router_noise: Option<&'a mut [f32]>,
    /// Gradients of the experts, f32. `accumulate` holds for the router's gradients as well.
    pub experts: ExpertGrads<'a>,
}

/// Checks that an optional buffer is there exactly when it is needed, and its length.
pub(crate) fn check_optional(
    what: &'static str,
    actual: Option<usize>,
    needed: Option<usize>,
    because: impl FnOnce() -> String,
) -> Result<()> {
    match (actual, needed) {
        (None, None) => Ok(()),
        (Some(actual), Some(expected)) => Error::check_shape(what, actual, expected),
        (None, Some(_)) => Err(Error::Missing {
            what,
            because: because(),
        }),
        (Some(_), None) => Err(Error::Incompatible {
            what: what.to_owned(),
            with: because(),
            reason: "it is not used there; leave it out",
        }),
    }
}

impl<T> LayerInputs<'_, T> {
    pub(crate) fn check<D>(&self, layer: &MoeLayer<D>) -> Result<()> {
        let tokens = self.x.rows();
        let shape = layer.shape();
        Error::check_shape("columns of x (H)", self.x.cols(), shape.hidden)?;
        let k = layer.options().router.max_experts_per_token(shape.experts);
        let rows = Error::checked_product("assignments (T·k)", tokens, k, i32::MAX as usize)?;
        let widest = shape.hidden.max(shape.up_rows());
        Error::checked_product(
            "elements of the experts' rows (T·k × max(H, N1))",
            rows,
            widest,
            isize::MAX as usize / 4,
        )?;
        Ok(())
    }
}

impl<'a, T> LayerWeights<'a, T> {
    /// A router and its experts: all that most routers need.
    pub fn new(router: &'a [f32], experts: ExpertWeights<'a, T>) -> Self {
        Self {
            router: Some(router),
            router_noise: None,
            selection_bias: None,
            experts,
        }
    }

    pub(crate) fn check<D>(&self, layer: &MoeLayer<D>, training: bool) -> Result<()> {
        let shape = layer.shape();
        let router = &layer.options().router;
        let because = || format!("router {router}");
        let gate = router.has_gate().then_some(shape.experts * shape.hidden);
        // Weights of a router that is not in use are tolerated: a model may switch routers.
        if gate.is_some() {
            let len = self.router.map(<[f32]>::len);
            check_optional("router weight (E·H)", len, gate, because)?;
        }
        if router.is_noisy() && training {
            let len = self.router_noise.map(<[f32]>::len);
            check_optional("router noise weight (E·H)", len, gate, because)?;
        }
        let experts = &self.experts;
        let (e, h, i, n1) = (
            shape.experts,
            shape.hidden,
            shape.intermediate,
            shape.up_rows(),
        );
        Error::check_shape("up weights (E·N1·H)", experts.up.len(), e * n1 * h)?;
        Error::check_shape("down weights (E·H·I)", experts.down.len(), e * h * i)?;
        if let Some(bias) = experts.up_bias {
            Error::check_shape("up bias (E·N1)", bias.len(), e * n1)?;
        }
        if let Some(bias) = experts.down_bias {
            Error::check_shape("down bias (E·H)", bias.len(), e * h)?;
        }
        Ok(())
    }
}

impl<T> LayerGrads<'_, T> {
    /// Checks every output against the layer, the tokens and what the forward pass used.
    pub(crate) fn check<D>(
        &self,
        layer: &MoeLayer<D>,
        weights: &LayerWeights<'_, T>,
        tokens: usize,
        noisy: bool,
    ) -> Result<()> {
        let shape = layer.shape();
        let router = &layer.options().router;
        let because = || format!("router {router}");
        Error::check_shape("rows of dx (T)", self.x.rows(), tokens)?;
        Error::check_shape("columns of dx (H)", self.x.cols(), shape.hidden)?;
        let gate = router.has_gate().then_some(shape.experts * shape.hidden);
        let len = self.router.as_ref().map(|g| g.len());
        check_optional("gradient of the router weight (E·H)", len, gate, because)?;
        let noise = gate.filter(|_| noisy);
        let len = self.router_noise.as_ref().map(|g| g.len());
        check_optional(
            "gradient of the router noise weight (E·H)",
            len,
            noise,
            because,
        )?;
        let (e, experts) = (shape.experts, &self.experts);
        let (up, down) = (e * shape.up_rows(), e * shape.hidden);
        Error::check_shape(
            "gradient of up (E·N1·H)",
            experts.up.len(),
            up * shape.hidden,
        )?;
        Error::check_shape(
            "gradient of down (E·H·I)",
            experts.down.len(),
            down * shape.intermediate,
        )?;
        let bias = |has: bool| {
            format!(
                "an up or down map with{} bias",
                if has { "" } else { "out" }
            )
        };
        for (what, actual, weight, len) in [
            (
                "gradient of up_bias (E·N1)",
                &experts.up_bias,
                weights.experts.up_bias,
                up,
            ),
            (
                "gradient of down_bias (E·H)",
                &experts.down_bias,
                weights.experts.down_bias,
                down,
            ),
        ] {
            let actual = actual.as_ref().map(|g| g.len());
            check_optional(what, actual, weight.map(|_| len), || bias(weight.is_some()))?;
        }
        Ok(())
    }
}
