//! What the tensor instructions say about data: who holds which element, and where it lies.
//!
//! Pure functions of the instruction and its operands; no machine state. Section numbers are those
//! of the PTX ISA 9.0.
//!
//! - [`elements`]: the element types of matrix operands.
//! - [`mma`]: register fragments of `mma.sync`; [`legality`]: which combinations exist, and why
//!   another one does not.
//! - [`kernels`]: the arithmetic of a matrix multiply-accumulate and its accumulation model.
//! - [`ldmatrix`]: `ldmatrix`, `stmatrix` and `movmatrix`.
//! - [`wgmma`]: register fragments of `wgmma`; [`descriptor`]: its operands in shared memory.
//! - [`tma`]: tensor maps and the walk of a bulk tensor copy.
//! - [`swizzle`]: the address permutation that `wgmma` and TMA share.

pub mod descriptor;
pub mod elements;
pub mod kernels;
pub mod ldmatrix;
pub mod legality;
pub mod mma;
pub mod swizzle;
pub mod tma;
pub mod wgmma;

#[cfg(test)]
mod tests;
