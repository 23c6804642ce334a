//! The permute kernels.

use super::Module;

/// All modules of the family.
pub const MODULES: &[&Module] = &[];
