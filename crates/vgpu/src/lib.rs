//! A virtual GPU: runs PTX on the CPU, checks it and counts what it does.
//!
//! [`host`] is the interface; `docs/VGPU.md` of the project tells what is modelled and what is not.
//! A kernel in which each thread writes one word and reads its neighbour's, 32 threads further, with
//! nothing between the two:
//!
//! ```
//! use tollgate_vgpu::{Config, Kind, LaunchConfig, Machine};
//!
//! let ptx = "
//! .version 8.0
//! .target sm_80
//! .address_size 64
//! .visible .entry shift(.param .u64 out)
//! {
//!     .reg .b32 %r<5>;
//!     .reg .b64 %rd<3>;
//!     .shared .align 4 .b32 words[64];
//!     mov.u32 %r0, %tid.x;
//!     mov.u32 %r1, words;
//!     shl.b32 %r2, %r0, 2;
//!     add.u32 %r3, %r1, %r2;
//!     st.shared.u32 [%r3], %r0;
//!     // bar.sync 0;
//!     xor.b32 %r2, %r2, 128;
//!     add.u32 %r3, %r1, %r2;
//!     ld.shared.u32 %r4, [%r3];
//!     ld.param.u64 %rd0, [out];
//!     mul.wide.u32 %rd1, %r0, 4;
//!     add.u64 %rd2, %rd0, %rd1;
//!     st.global.u32 [%rd2], %r4;
//!     exit;
//! }";
//! let run = |ptx: &str| -> Result<_, tollgate_vgpu::host::Error> {
//!     let machine = Machine::new(Config::default())?;
//!     let kernel = machine.load(0, ptx)?.function("shift")?;
//!     let out = machine.alloc(0, 64 * 4)?;
//!     let stream = machine.default_stream(0)?;
//!     let config = LaunchConfig::new([1, 1, 1], [64, 1, 1]);
//!     machine.launch(stream, &kernel, &config, &out.to_le_bytes())?;
//!     machine.synchronize(stream)?;
//!     let mut bytes = [0; 64 * 4];
//!     machine.read(out, &mut bytes)?;
//!     let first = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
//!     Ok((first, machine.take_reports(), machine.take_launches()))
//! };
//!
//! let (_, reports, _) = run(ptx)?;
//! let race = reports.iter().find(|report| report.kind == Kind::Race).expect("a race");
//! let mut lines = [race.site.ptx_line, race.other.as_ref().expect("two accesses").ptx_line];
//! lines.sort_unstable();
//! assert_eq!(lines, [14, 18]);
//!
//! let (first, reports, launches) = run(&ptx.replace("// bar", "bar"))?;
//! assert!(reports.is_empty());
//! assert_eq!(first, 32);
//! assert_eq!(launches[0].counters.barrier_arrivals, 2);
//! # Ok::<(), tollgate_vgpu::host::Error>(())
//! ```

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
pub mod vector;

pub use host::{
    Config, Event, Function, LaunchConfig, LaunchRecord, Machine, Module, Stream, StreamFlags,
};
pub use machine::{Arch, Checks};
pub use report::{Kind, Report};
