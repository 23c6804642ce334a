//! What a driver must do: the border between this crate's types and CUDA or the virtual GPU.
//!
//! Handles are plain numbers that mean something to the driver that gave them.

use crate::{Facts, Result};

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "virtual")]
pub(crate) mod virtual_gpu;

/// A stream of a driver. CUDA: the `CUstream`; the virtual GPU: its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RawStream(pub u64);

/// An event of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RawEvent(pub u64);

/// A kernel that a driver has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RawFunction(pub u64);

/// A graph that a driver can launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RawGraph(pub u64);

/// Blocks, threads and dynamic shared memory of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dims {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
}

/// What a launch on the virtual GPU was and did.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchRecord {
    /// The kernel's entry.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// What it moved and executed.
    pub counters: LaunchCounters,
}

/// The counters of a launch that benchmarks and tests look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaunchCounters {
    /// Bytes of the 32-byte sectors of global memory that loads touched, each once an instruction.
    pub read_bytes: u64,
    /// The same of stores.
    pub written_bytes: u64,
    /// The same of atomics.
    pub atomic_bytes: u64,
    /// Bytes that the lanes' global loads, stores and atomics asked for.
    pub requested_bytes: u64,
    /// Warp instructions that touched global memory.
    pub global_instructions: u64,
    /// Passes over the banks of shared memory beyond the first of each group of lanes.
    pub bank_conflicts: u64,
    /// Sectors of local memory.
    pub local_sectors: u64,
    /// Warp instructions of all kinds.
    pub warp_instructions: u64,
    /// Instructions summed over the lanes that executed them.
    pub thread_instructions: u64,
}

impl LaunchCounters {
    /// Adds what another launch did.
    pub fn add(&mut self, other: &Self) {
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
        self.atomic_bytes += other.atomic_bytes;
        self.requested_bytes += other.requested_bytes;
        self.global_instructions += other.global_instructions;
        self.bank_conflicts += other.bank_conflicts;
        self.local_sectors += other.local_sectors;
        self.warp_instructions += other.warp_instructions;
        self.thread_instructions += other.thread_instructions;
    }

    /// Bytes moved to and from global memory.
    pub fn moved_bytes(&self) -> u64 {
        self.read_bytes + self.written_bytes + self.atomic_bytes
    }
}

/// A device of a driver. All calls may come from any thread.
pub(crate) trait Driver: Send + Sync {
    fn facts(&self) -> &Facts;

    /// Device memory, aligned to 256 bytes. `bytes` is not 0.
    fn alloc(&self, bytes: u64) -> Result<u64>;
    fn free(&self, ptr: u64);
    /// Copies to the device in the order of the stream; `from` may change when this returns.
    fn write(&self, stream: RawStream, ptr: u64, from: &[u8]) -> Result<()>;
    /// Copies to the host in the order of the stream and waits for it.
    fn read(&self, stream: RawStream, ptr: u64, to: &mut [u8]) -> Result<()>;
    /// Copies on the device.
    fn copy(&self, stream: RawStream, to: u64, from: u64, bytes: u64) -> Result<()>;
    fn fill(&self, stream: RawStream, ptr: u64, byte: u8, bytes: u64) -> Result<()>;

    #[cfg(any(feature = "cuda", feature = "virtual"))]
    fn default_stream(&self) -> RawStream;
    fn create_stream(&self) -> Result<RawStream>;
    fn destroy_stream(&self, stream: RawStream);
    fn synchronize(&self, stream: RawStream) -> Result<()>;

    fn create_event(&self) -> Result<RawEvent>;
    fn destroy_event(&self, event: RawEvent);
    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()>;
    fn wait_event(&self, stream: RawStream, event: RawEvent) -> Result<()>;
    /// Waits for both.
    fn elapsed_ms(&self, start: RawEvent, end: RawEvent) -> Result<f32>;

    /// The kernel, loaded with its module when it is needed for the first time.
    fn function(&self, kernel: &tollgate_kernels::Kernel) -> Result<RawFunction>;
    /// `params` is the kernel's one struct.
    fn launch(
        &self,
        stream: RawStream,
        kernel: &tollgate_kernels::Kernel,
        function: RawFunction,
        dims: Dims,
        params: &[u8],
    ) -> Result<()>;

    fn begin_capture(&self, stream: RawStream) -> Result<()>;
    fn end_capture(&self, stream: RawStream) -> Result<RawGraph>;
    fn launch_graph(&self, graph: RawGraph, stream: RawStream) -> Result<()>;
    fn destroy_graph(&self, graph: RawGraph);

    /// What was launched since the last call, where the driver counts; launches still under way are
    /// not in it.
    fn take_launches(&self) -> Vec<LaunchRecord>;
}
