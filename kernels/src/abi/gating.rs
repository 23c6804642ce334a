//! Parameter structs of the gate and its softmax.

use super::Struct;

/// All of them, in the order of the header.
pub const STRUCTS: &[Struct] = &[];
