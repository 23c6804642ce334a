//! The executable specification of the gate: scalar, f64, written to be read beside the papers.
//!
//! - [`softmax`](mod@softmax): scores of a row.
//! - `select`: which experts a token takes.
//! - `weights`: what they count, and the gradient of that.
//! - `capacity`: who keeps its place.
//! - `losses`: balance, z and consistency.
//! - [`gate`](fn@gate) and [`gate_backward`] put them together.
//!
//! It takes the decisions that the f32 implementations take: logits are compared as given (widening
//! from f32 is exact), ties go to the lower expert, draws are the same integers. Decisions that
//! compare *computed* numbers (p_i − p_j with τ) may differ where the numbers all but meet;
//! [`decision_margins`] says how far each token is from that.
//!
//! Results are allocated by these functions. They refuse what the fast implementations refuse, with
//! the same errors, and never panic.

mod backward;
mod capacity;
mod gate;
mod losses;
mod margins;
mod select;
pub mod softmax;
mod weights;
mod widen;

pub use backward::gate_backward;
pub use gate::{NoisyLogits, gate, gate_with};
pub use losses::{Consistency, consistency};
pub use margins::{DECISION_BOUND, decision_margins};
pub use softmax::{softmax, softmax_backward};
pub use widen::Widened;
