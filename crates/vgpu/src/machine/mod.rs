//! The machine: devices, grids, and the schedule that runs them.

mod arch;
mod block;
mod checks;
mod cluster;
mod definedness;
mod grid;
mod rng;
mod run;
mod stuck;
mod turn;
mod warp;

pub use arch::{Arch, SHARED_PER_BLOCK, THREADS_PER_BLOCK};
pub use block::{
    Arrival, Barrier, Block, CLUSTER_SHIFT, Gives, LOCAL_START, LOCAL_WINDOW, PARAM_WINDOW,
    SHARED_BASE, SHARED_WINDOW, Shared, WINDOW_BYTES, Waiter,
};
pub(crate) use block::{all_bits, mark_bits};
pub use checks::Checks;
pub use cluster::{Cluster, ClusterBarrier, Delivery};
pub use grid::Grid;
pub use rng::Rng;
pub use run::{GridRun, Launches, RunContext, SliceEnd, Trace, TraceLine};
pub use warp::{Split, Wait, Warp};
