//! Shared pieces of the benchmarks in `benches/`: one file a family there, one idea a file here.
//!
//! - [`harness`]: a family of benchmarks on criterion, with a table of rates after each operation.
//! - [`limits`]: what this machine can do at most, measured in the same run.
//! - [`work`]: operations and bytes of a benchmark, and what share of the limits a time is.
//! - [`shapes`]: the papers' shapes.
//! - [`data`]: random data, and buffers that take turns so that caches cannot help.
//! - [`gpu`]: counters, events and the rate of a copy, for tables about GPUs.
//! - [`check`]: comparisons that run before anything is timed.
//! - [`load`]: how busy other processes kept the machine.
//!
//! `docs/BENCHMARKING.md` says how to run them and how to read what they print.

#![deny(unsafe_code)]

pub mod check;
pub mod data;
pub mod gpu;
pub mod harness;
pub mod limits;
pub mod load;
pub mod shapes;
pub mod table;
pub mod work;
