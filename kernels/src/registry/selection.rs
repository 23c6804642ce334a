//! The kernels around the gate: tables, capacity, draws, losses.

use super::Module;

/// All modules of the family.
pub const MODULES: &[&Module] = &[];
