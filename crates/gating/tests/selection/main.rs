//! The kernels around the gate, against the CPU and the reference, on every device there is.

mod capacity;
mod consistency;
mod counters;
mod elementwise;
mod expert_choice;
mod memory;
mod support;
mod table;
mod ungated;
