//! A Mixture-of-Experts layer with adaptive gating, Gating Dropout and stochastic experts, forward
//! and backward.
//!
//! - [`MoeLayer`], made by [`MoeLayer::builder`]: the layer, generic over the [`Device`] it runs on.
//! - [`LayerInputs`], [`LayerWeights`], [`LayerGrads`]: borrowed tensors; the caller owns them all.
//! - [`LayerState`]: what a forward pass saves for its backward pass, and all scratch; reused from
//!   step to step, so that a steady state allocates no activations.
//! - [`Trace`]: time, operations and bytes of every stage, and what the gate decided.
//! - [`mod@gpu`]: the same layer over buffers in device memory, for frameworks.
//! - [`mod@reference`]: the whole layer in f64, to compare with.
//!
//! The operations themselves are re-exported: [`gating`], [`permute`], [`gemm`], each with its device
//! form in `gpu`, and the words of [`core`]. [`device`] opens GPUs, real and virtual.
//!
//! `y_t = Σ_{e ∈ S_t} w_e FFN_e(x_t)`; the residual path and its addition are the caller's.

#![forbid(unsafe_code)]

/// The README's example, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod backward;
mod config;
mod forward;
pub mod gpu;
mod place;
pub mod reference;
mod state;
mod tensors;
mod trace;
mod work;

pub use config::{MoeLayer, MoeLayerBuilder};
pub use place::Device;
pub use state::LayerState;
pub use tensors::{LayerGrads, LayerInputs, LayerWeights};
pub use tollgate_core as core;
pub use tollgate_core::{
    Cpu, DType, DropMode, Element, Error, ExpertChoiceCapacity, Philox, Result, Router,
    RoutingTable, RowView, RowViewMut, StepContext, Stream, options,
};
pub use tollgate_device as device;
pub use tollgate_gating as gating;
pub use tollgate_gemm as gemm;
pub use tollgate_gemm::{ExpertGrads, ExpertShape, ExpertWeights};
pub use tollgate_permute as permute;
pub use trace::{Stage, Trace};
