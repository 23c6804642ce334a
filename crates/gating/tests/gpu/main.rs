//! The gate over device memory: what only a GPU can get wrong, and what its counters say.

#[path = "../selection/memory.rs"]
mod memory;

mod counters;
mod device;
mod problem;
mod refusals;
mod replay;
