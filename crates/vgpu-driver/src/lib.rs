//! The CUDA driver API over the virtual GPU: a `libcuda.so.1`.
//!
//! Any program that loads the driver (cudarc, cust, C, Python) runs on [`tollgate_vgpu`] unchanged,
//! and is checked, when the loader finds this library first. `README.md` of the crate tells how,
//! and which environment variables there are; `NOT_MODELLED.md` lists the functions that only
//! answer `CUDA_ERROR_NOT_SUPPORTED`.
//!
//! - `boundary`: what lies between C and the rest: panics, pointers, the macro that exports.
//! - `driver`, `context`, `handles`: the state behind the handles that programs hold.
//! - `api`: the functions, a file a topic. Each file starts with the table of what it exports.

mod abi;
mod api;
mod boundary;
mod context;
mod driver;
mod failure;
mod handles;
mod image;
mod jit;
mod params;
mod reports;
mod settings;
mod stream;
