//! Where buffers live and kernels run: CUDA, loaded at run time, or the virtual GPU.
//!
//! [`Gpu`] is one device; everything is reached through it: [`Buffer`]s and views of them,
//! [`Stream`]s and [`Event`]s, launches of the kernels of `tollgate-kernels`, graphs. Memory and
//! streams of other frameworks are accepted as they are: [`DeviceSlice::from_raw`],
//! [`Gpu::share_stream`], [`Gpu::borrow_stream`].
//!
//! The same code runs on both drivers. On the virtual GPU every access of every kernel is checked,
//! and what the checks find is an error of the next [`Stream::synchronize`].

/// The README's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod buffer;
mod driver;
mod error;
mod facts;
mod gpu;
mod graph;
mod interop;
#[cfg(feature = "nvml")]
pub mod nvml;
#[cfg(feature = "cuda")]
mod probe;
mod routing;
mod spec;
mod stream;
pub mod testing;
mod view;
#[cfg(feature = "cuda")]
mod wait;
mod workspace;

pub use buffer::Buffer;
pub use driver::{LaunchCounters, LaunchRecord};
pub use error::{Error, Result};
pub use facts::{Backend, Facts};
pub use gpu::Gpu;
#[cfg(feature = "virtual")]
pub use gpu::VirtualOptions;
pub use graph::Graph;
#[cfg(feature = "cuda")]
pub use probe::{Found, probe};
pub use routing::DeviceRoutingTable;
pub use spec::DeviceSpec;
pub use stream::{Event, Stream};
pub use view::{DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut};
pub use workspace::{Region, Workspace, WorkspaceLayout};

pub use tollgate_kernels::abi::{Abi, DevicePtr, Faults, StatusBlock, StepBlock};
pub use tollgate_kernels::{Kernel, Module};
