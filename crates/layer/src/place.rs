//! What a layer needs of the place it runs on.

use tollgate_core::Cpu;
use tollgate_device::Gpu;
use tollgate_gating::Gating;
use tollgate_gemm::{Experts, GroupedGemm};
use tollgate_permute::Permute;

/// A place where all operations of a layer are implemented.
pub trait Device: Gating + Permute + GroupedGemm + Experts + Sync {
    /// Runs a whole pass of the layer, so that what is costly to enter is entered once.
    fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }
}

impl Device for Cpu {
    fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.install(work)
    }
}

/// The host form: every operation copies its operands to the device and its results back. For tests
/// and tools; [`DeviceLayer`](crate::gpu::DeviceLayer) is the layer that stays there.
impl Device for Gpu {}
