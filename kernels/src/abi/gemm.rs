//! Parameter structs of the gemm kernels.

use super::Struct;

/// All of them, in the order of the header.
pub const STRUCTS: &[Struct] = &[];
