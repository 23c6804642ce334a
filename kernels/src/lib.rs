//! Device code and its interface: the compiled PTX, one parameter struct a kernel, and what a launch
//! must know of each kernel.
//!
//! A kernel takes one struct by value. It is declared here, in [`abi`]; the header that the kernel
//! includes is generated from the declaration and holds assertions on its size and offsets, so that
//! the two sides cannot drift apart. The PTX under `prebuilt/` is generated from the sources beside it
//! by `cargo xtask kernels`; users of this package need a driver, and no compiler.

#![forbid(unsafe_code)]

pub mod abi;
pub mod registry;

pub use registry::{Kernel, MODULES, Module};
