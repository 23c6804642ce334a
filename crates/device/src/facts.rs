//! What is known of a device.

/// Which driver runs a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// CUDA.
    Cuda,
    /// The virtual GPU.
    Virtual,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Which driver runs it.
    pub backend: Backend,
    /// Its name, as the driver tells it.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub num_sms: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of shared memory that a block may have at most, by opt-in.
    pub shared_per_block_bytes: u32,
    /// Bytes of the L2 cache; 0 where unknown.
    pub l2_bytes: u64,
    /// Version of the driver, as (major, minor).
    pub driver_version: (u32, u32),
}
