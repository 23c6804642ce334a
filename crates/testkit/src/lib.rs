//! What every operation is tested with: the named edge cases, guarded buffers, tolerances, finite
//! differences, and one runner that holds every implementation to the same reference.

#![forbid(unsafe_code)]

mod cases;
mod data;
mod gradient;
mod guarded;
mod matrix;
mod runner;
mod tolerance;

pub use cases::{Case, LogitKind, edge_cases, gate_cases};
pub use data::Data;
pub use gradient::{Probe, check_gradient};
pub use guarded::{Guarded, poison};
pub use matrix::GuardedMatrix;
pub use runner::run_all;
pub use tolerance::{Mismatch, Tolerance, assert_close, assert_same, compare};
