//! Workspaces and status blocks for tests, and with them all of [`crate::memory`].

use tollgate_device::{Buffer, Gpu, StatusBlock, Workspace, WorkspaceLayout};

pub use crate::memory::{Fenced, seeded, some_context, step_block};

/// Memory for a layout; nothing in it is defined.
pub fn workspace_memory(gpu: &Gpu, layout: &WorkspaceLayout) -> Buffer<u8> {
    gpu.alloc(layout.bytes()).unwrap()
}

/// The layout over the memory.
pub fn workspace<'a>(memory: &'a mut Buffer<u8>, layout: &WorkspaceLayout) -> Workspace<'a> {
    Workspace::new(memory.slice_mut(), layout).unwrap()
}

/// A status block that says that nothing was met.
pub fn clear_status(gpu: &Gpu) -> Buffer<StatusBlock> {
    gpu.upload(gpu.default_stream(), &[StatusBlock::CLEAR])
        .unwrap()
}
