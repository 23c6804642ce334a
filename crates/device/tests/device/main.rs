//! One body a test, run on every device of [`tollgate_device::testing`].

mod buffers;
mod findings;
mod graphs;
mod kernels;
mod launches;
mod programs;
mod second_run;
mod streams;
