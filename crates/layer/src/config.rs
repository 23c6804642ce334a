//! The layer and its builder.

use std::ops::Range;

use tollgate_core::options::{Activation, GateOptions};
use tollgate_core::{Error, Result, Router, StepContext};
use tollgate_gemm::ExpertShape;

/// A Mixture-of-Experts layer: its sizes, its options and the device it runs on. It owns no
/// tensors; see [`MoeLayer::forward`] and [`MoeLayer::backward`].
#[derive(Debug, Clone)]
pub struct MoeLayer<D> {
    pub(crate) shape: ExpertShape,
    pub(crate) options: GateOptions,
    pub(crate) local_experts: Range<usize>,
    pub(crate) device: D,
}

impl MoeLayer<()> {
    /// Starts a layer of the given sizes: H, I and E. Defaults: adaptive gating with τ = 0.1,
    /// GELU (erf), not gated, all experts local.
    pub fn builder(hidden: usize, intermediate: usize, experts: usize) -> MoeLayerBuilder {
        MoeLayerBuilder {
            shape: ExpertShape {
                experts,
                hidden,
                intermediate,
                activation: Activation::Gelu,
                gated: false,
            },
            options: GateOptions::new(Router::Adaptive { tau: 0.1 }),
            local_experts: 0..experts,
        }
    }
}

impl<D> MoeLayer<D> {
    /// Sizes and form of the experts.
    pub fn shape(&self) -> &ExpertShape {
        &self.shape
    }

    /// The gate's options.
    pub fn options(&self) -> &GateOptions {
        &self.options
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The same layer on another device.
    pub fn on<E>(&self, device: E) -> MoeLayer<E> {
        MoeLayer {
            shape: self.shape,
            options: self.options.clone(),
            local_experts: self.local_experts.clone(),
            device,
        }
    }

    /// The jitter in force, if any.
    pub(crate) fn jitter(&self, ctx: &StepContext) -> Option<f32> {
        (ctx.training && self.options.jitter > 0.0).then_some(self.options.jitter)
    }
}

/// Collects the choices of a layer; [`MoeLayerBuilder::build`] checks them.
#[derive(Debug, Clone)]
pub struct MoeLayerBuilder {
    shape: ExpertShape,
    options: GateOptions,
    local_experts: Range<usize>,
}

impl MoeLayerBuilder {
    /// The routing policy, all other gate options at its defaults. Options set before are lost.
    pub fn router(self, router: Router) -> Self {
        self.gate(GateOptions::new(router))
    }

    /// All of the gate's options.
    pub fn gate(mut self, options: GateOptions) -> Self {
        self.options = options;
        self
    }

    /// The experts' non-linearity.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.shape.activation = activation;
        self
    }

    /// The gated form (SwiGLU and its kin): `a = act(gate) · up`.
    pub fn gated(mut self, gated: bool) -> Self {
        self.shape.gated = gated;
        self
    }

    /// The experts that this rank holds: where Gating Dropout keeps its tokens.
    pub fn local_experts(mut self, local: Range<usize>) -> Self {
        self.local_experts = local;
        self
    }

    /// The layer on a device.
    ///
    /// # Errors
    /// A size of 0 or beyond `i32::MAX`, weights that overflow the address space, an option out of
    /// range, local experts outside `0..E`.
    pub fn build<D>(self, device: D) -> Result<MoeLayer<D>> {
        let ExpertShape {
            experts,
            hidden,
            intermediate,
            ..
        } = self.shape;
        let most = i32::MAX as usize;
        Error::check_range("experts (E)", experts, 1, most)?;
        Error::check_range("hidden (H)", hidden, 1, most)?;
        // Gated experts stack two maps of I rows.
        Error::check_range("intermediate (I)", intermediate, 1, most / 2)?;
        let matrix = Error::checked_product(
            "elements of a weight matrix (N1·H)",
            self.shape.up_rows(),
            hidden,
            isize::MAX as usize / 4,
        )?;
        Error::checked_product(
            "elements of the weights (E × N1·H)",
            experts,
            matrix,
            isize::MAX as usize / 4,
        )?;
        Error::check_range("end of local experts", self.local_experts.end, 1, experts)?;
        Error::check_range(
            "start of local experts",
            self.local_experts.start,
            0,
            self.local_experts.end - 1,
        )?;
        self.options.validate(most, experts)?;
        if self.options.jitter > 0.0 {
            // The random block is column / 4, in 24 bits.
            Error::check_range("hidden (H) with jitter", hidden, 1, 4 << 24)?;
        }
        Ok(MoeLayer {
            shape: self.shape,
            options: self.options,
            local_experts: self.local_experts,
            device,
        })
    }
}
