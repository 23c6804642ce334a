//! The CUDA compiler: installed, run, and what its output says.

mod compiler;
pub mod ptx;
pub mod resources;
pub mod sass;

pub use compiler::{Compiler, LocalMemory, NVCC_FLAGS, PACKAGES, PTXAS_FLAGS};
