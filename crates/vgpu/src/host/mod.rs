//! The machine as a host program sees it: devices, memory, modules, streams, launches, and what the
//! checks found. Shaped like the CUDA driver API, which `crates/vgpu-driver` puts on top of it.
//!
//! ```
//! use tollgate_vgpu::{Config, LaunchConfig, Machine};
//!
//! # fn main() -> Result<(), tollgate_vgpu::host::Error> {
//! let machine = Machine::new(Config::default())?;
//! let module = machine.load(
//!     0,
//!     ".version 8.0 .target sm_80 .address_size 64 .visible .entry nothing() { exit; }",
//! )?;
//! let stream = machine.default_stream(0)?;
//! let config = LaunchConfig::new([4, 1, 1], [64, 1, 1]);
//! machine.launch(stream, &module.function("nothing")?, &config, &[])?;
//! machine.synchronize(stream)?;
//! assert_eq!(machine.take_launches()[0].counters.blocks, 4);
//! assert!(machine.take_reports().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # When work is done
//! Calls that take a stream put work into its queue and return. Nothing runs until a host thread
//! waits for something, or asks whether it is complete: that thread then runs the machine, one small
//! step after the other, until it has what it waits for. A step is taken by any stream's work that
//! may go on, on any device, chosen by [`Config::seed`]; so kernels of several streams and devices
//! really take turns, and a run can be repeated. With several host threads the order of their calls
//! is theirs, and only one of them runs the machine at a time.
//!
//! A kernel that polls for something is never taken for dead: it may wait for a launch that another
//! host thread has not made yet. Only its budget ends it.
//!
//! # What is ordered
//! A stream's operations, events and waits for them, the default stream with all other streams of its
//! device that are not `non_blocking` (the legacy default stream of CUDA), and what the host did
//! before a call with what it starts. The race detector knows this order, and no other; it takes all
//! host threads for one. `free` waits for its device. A launch with `programmatic_dependent` knows what
//! the launch before it did only after its `griddepcontrol.wait`, whenever either of them ran.
//!
//! # Time
//! [`Machine::elapsed_ms`] is virtual: a warp instruction of a device takes a nanosecond, as do 64
//! copied bytes and the start of every operation. It grows with the work and is the same in every
//! run, but says nothing about the speed of a real device.

mod config;
mod copy;
mod device;
mod engine;
mod error;
mod event;
mod execute;
mod fill;
mod graph;
mod handle;
mod harness;
mod launch;
mod machine;
mod memory;
mod module;
mod occupancy;
mod place;
mod queue;
mod results;
mod stream;
mod value;
mod wait;
mod work;

#[cfg(test)]
mod tests;

pub use self::config::{Config, MAX_DEVICES};
pub use self::copy::{Shape3d, Source, Target};
pub use self::error::{Error, Result};
pub use self::fill::Fill;
pub use self::graph::{Graph, GraphExec, NodeId, NodeKind};
pub use self::handle::{Event, Stream, StreamFlags};
pub use self::harness::check_host_api;
pub use self::launch::LaunchConfig;
pub use self::machine::Machine;
pub use self::memory::{MemInfo, Range};
pub use self::module::{Attributes, Function, Module};
pub use self::occupancy::{Limit, Occupancy};
pub use self::results::LaunchRecord;
pub use self::value::{Bits, Until};
pub use self::work::HostFunction;
pub use crate::layout::tma::{
    Interleave, L2Promotion, OobFill, TensorElement, TensorMap, TmaError, encode_tiled,
};
