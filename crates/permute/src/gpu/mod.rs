//! Permutation on a GPU: the operations on device memory, which launch the kernels, and the trait
//! for callers whose data is on the host.
//!
//! The functions here take views of device memory, put their work into a stream and return: they
//! allocate nothing, wait for nothing, and may be captured into a graph. No size comes back to the
//! host. The number of assignments A is `token_offsets[T]` on the device; shapes, grids and buffers
//! go by its bound, [`DeviceRoutingTable::max_assignments`](tollgate_device::DeviceRoutingTable),
//! and what lies behind A is not touched.
//!
//! ```text
//! SortPlan::new ─ one workspace ─ SortPlan::maps
//! sort              table            → maps
//! permute           x [T, H]         → rows [R, H]     + zeros where asked
//! unpermute         rows, weights    → y [T, H]
//! permute_backward  drows, addend    → dx [T, H]
//! unpermute_backward dy, rows        → drows [R, H], dweights [A]
//! ```
//!
//! R is the number of rows: A, or more where [`SortShape::row_alignment`] leaves rows between the
//! experts that belong to no token.
//!
//! Arguments are checked before anything is launched: lengths, shapes, limits. What only the device
//! can see is checked there. An expert index outside `0..E`, offsets that are no prefix sums or end
//! beyond the bound, and map entries out of range raise a fault in the status block, with the
//! lowest position as `first_bad_index`, and are left out; nothing is read or written outside the
//! buffers.
//!
//! `impl Permute for Gpu` stages host data through device buffers: convenient, and not fast.

#![expect(unsafe_code, reason = "a launch hands addresses to the device")]

mod host;
mod launch;
mod maps;
mod rows;
mod sort;

pub use maps::{DevicePermuteMaps, DevicePermuteMapsMut};
pub use rows::{
    FreeRows, permute, permute_backward, unpermute, unpermute_backward, zero_free_rows,
};
pub use sort::{MAX_EXPERTS, SortPlan, SortShape, sort};
