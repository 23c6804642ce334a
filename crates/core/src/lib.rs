//! The words of Tollgate: what every other crate says, and nothing that computes a layer.
//!
//! - [`DType`] and [`Element`]: f32, f16 and bf16, and how each becomes an f32.
//! - [`RowView`] and [`RowViewMut`]: borrowed matrices with a row stride; callers own all memory.
//! - [`RoutingTable`]: which token goes to which expert with which weight, as CSR.
//! - [`options`] and [`Router`]: every choice the papers leave open, as a type with its name.
//! - [`Philox`]: counter-based random numbers, so that a draw depends on *what* is drawn and never
//!   on the order of drawing.
//! - [`Cpu`]: the thread pool that CPU implementations run on.
//! - [`Error`]: every error names the offending value and the bound.
//!
//! Letters used everywhere: `T` tokens, `H` hidden size, `I` expert intermediate size, `E` experts,
//! `A` assignments (chosen token–expert pairs).

#![forbid(unsafe_code)]

mod check;
mod cpu;
mod dtype;
mod error;
pub mod math;
mod named;
pub mod options;
mod philox;
mod router;
mod routing;
mod step;
mod view;

pub use cpu::Cpu;
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use named::ParseNameError;
pub use philox::{Philox, Stream};
pub use router::{ExpertChoiceCapacity, Router};
pub use routing::{BrokenInvariant, RoutingTable};
pub use step::{DropMode, StepContext};
pub use view::{RowView, RowViewMut};
