//! Every implementation against the reference; the CPU against itself: threads, batches, memory.

mod backward;
mod bounds;
mod forward;
mod hostile;
mod invariance;
mod memory;
mod operations;
mod softmax;
mod support;
mod underflow;
