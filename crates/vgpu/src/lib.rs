//! A virtual GPU: runs PTX on the CPU, checks it and counts what it does.
//!
//! See `docs/VGPU.md` of the project for what is modelled and what is not.

#![deny(unsafe_code)]

pub mod counters;
pub mod exec;
pub mod host;
pub mod lane;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod num;
pub mod program;
pub mod ptx;
pub mod race;
pub mod report;

pub use host::{
    Config, Event, Function, LaunchConfig, LaunchRecord, Machine, Module, Stream, StreamFlags,
};
pub use machine::{Arch, Checks};
pub use report::{Kind, Report};
