//! Parameter structs of the kernels around the gate: tables, capacity, draws, losses.

use super::Struct;

/// All of them, in the order of the header.
pub const STRUCTS: &[Struct] = &[];
