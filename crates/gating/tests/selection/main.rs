//! The kernels around the gate, against the CPU and the reference, on every device there is.

mod support;
mod table;
mod ungated;
