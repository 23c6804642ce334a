//! The `tollgate` command: runs, compares and reports Mixture-of-Experts layers; checks PTX.
//!
//! - [`args`]: the command line.
//! - [`load`]: files to tensors; [`upcycle`]: experts made of one dense FFN.
//! - [`step`]: the layer on an input; [`engine`]: the same on whichever device; [`check`]: how far it
//!   is from the f64 reference.
//! - [`run`], [`compare`], [`curriculum`], [`devices`]: the commands; [`report`]: what they print.
//! - [`out`]: a step as a file that can be checked from outside.
//! - [`vgpu`]: PTX on a virtual GPU, which has no part in the layer.

#![forbid(unsafe_code)]

pub mod args;
pub mod check;
pub mod compare;
pub mod curriculum;
pub mod devices;
pub mod engine;
pub mod error;
pub mod load;
pub mod notes;
pub mod out;
pub mod pair;
pub mod progress;
pub mod report;
pub mod run;
pub mod step;
pub mod upcycle;
pub mod vgpu;

pub use error::{Failure, Result};
