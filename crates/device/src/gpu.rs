//! One device.

use std::any::Any;
use std::sync::Arc;

use bytemuck::Pod;
use tollgate_kernels::Kernel;
use tollgate_kernels::abi::Abi;

use crate::driver::{Dims, Driver, RawStream};
use crate::stream::Owner;
use crate::{Buffer, DeviceSpec, Error, Facts, LaunchRecord, Result, Stream};

/// Blocks of a grid along each axis at most.
const GRID_LIMITS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

/// One device, real or virtual. Clones are the same device.
#[derive(Clone)]
pub struct Gpu {
    driver: Arc<dyn Driver>,
    default_stream: Stream,
}

/// How a virtual GPU is made.
#[cfg(feature = "virtual")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualOptions {
    /// Decides every schedule.
    pub seed: u64,
    /// Whether all checks are on: uninitialised reads, races, barriers. Accesses out of bounds are
    /// always found.
    pub checks: bool,
    /// CPU threads that a kernel of independent blocks may use; with checks it is one.
    pub threads: usize,
    /// Bytes of device memory; pages are made when they are written.
    pub memory_bytes: u64,
    /// Warp instructions of a launch at most: more is reported as a livelock. It takes the place of
    /// the deadline that waits for a real device have.
    pub budget: u64,
}

#[cfg(feature = "virtual")]
impl Default for VirtualOptions {
    /// Seed 0, all checks, all CPUs, 16 GiB, 2³⁴ warp instructions.
    fn default() -> Self {
        Self {
            seed: 0,
            checks: true,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: 16 << 30,
            budget: 1 << 34,
        }
    }
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::NoDevice`], which says what is missing.
    pub fn open(spec: DeviceSpec) -> Result<Self> {
        match spec {
            #[cfg(feature = "virtual")]
            DeviceSpec::Virtual => Self::virtual_gpu(&VirtualOptions::default()),
            #[cfg(feature = "cuda")]
            DeviceSpec::Cuda(index) => Self::cuda(index),
            #[cfg(not(all(feature = "virtual", feature = "cuda")))]
            other => Err(Error::NoDevice {
                device: other.to_string(),
                reason: "this build was made without the feature; build with `cuda` or `virtual`"
                    .to_owned(),
            }),
        }
    }

    /// A virtual GPU of its own: an `sm_90a` that runs the PTX on the CPU and checks it.
    ///
    /// # Errors
    /// What the virtual GPU says about its configuration.
    #[cfg(feature = "virtual")]
    pub fn virtual_gpu(options: &VirtualOptions) -> Result<Self> {
        use tollgate_vgpu::{Checks, Config};
        let config = Config {
            seed: options.seed,
            checks: if options.checks {
                Checks {
                    // Buffers that outlive the machine are the host's affair.
                    leaks: false,
                    ..Checks::ALL
                }
            } else {
                Checks::NONE
            },
            threads: options.threads,
            memory_bytes: options.memory_bytes,
            budget: options.budget,
            ..Config::default()
        };
        let driver = crate::driver::virtual_gpu::VirtualDriver::new(config)?;
        Ok(Self::over(Arc::new(driver)))
    }

    /// The CUDA device with the driver's number `index`, by its primary context.
    ///
    /// # Errors
    /// [`Error::NoDevice`] without a driver or such a device.
    #[cfg(feature = "cuda")]
    pub fn cuda(index: u32) -> Result<Self> {
        let driver = crate::driver::cuda::CudaDriver::new(index)?;
        Ok(Self::over(Arc::new(driver)))
    }

    #[cfg(any(feature = "cuda", feature = "virtual"))]
    fn over(driver: Arc<dyn Driver>) -> Self {
        let stream = Stream::new(driver.clone(), driver.default_stream(), Owner::Borrowed);
        Self {
            driver,
            default_stream: stream,
        }
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// What is known of it.
    pub fn facts(&self) -> &Facts {
        self.driver.facts()
    }

    /// Memory for `len` elements; its contents are undefined.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Overflow`].
    pub fn alloc<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        Buffer::new(self, len)
    }

    /// Memory with `values` in it, written in the order of `stream`.
    ///
    /// # Errors
    /// As [`Gpu::alloc`].
    pub fn upload<T: Pod>(&self, stream: &Stream, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.alloc(values.len())?;
        buffer.write(stream, values)?;
        Ok(buffer)
    }

    /// The device's default stream.
    pub fn default_stream(&self) -> &Stream {
        &self.default_stream
    }

    /// A new stream, which does not wait for the default stream.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stream(&self) -> Result<Stream> {
        let raw = self.driver.create_stream()?;
        Ok(Stream::new(self.driver.clone(), raw, Owner::Ours))
    }

    /// A stream of another framework: on CUDA a `CUstream` of this device's primary context.
    ///
    /// # Safety
    /// The handle is a stream of this device and stays one as long as the result and its clones
    /// live.
    pub unsafe fn borrow_stream(&self, handle: u64) -> Stream {
        Stream::new(self.driver.clone(), RawStream(handle), Owner::Borrowed)
    }

    /// The same with what owns the stream, which is kept as long as the result and its clones live.
    ///
    /// # Safety
    /// The handle is a stream of this device and stays one as long as `owner` lives.
    pub unsafe fn share_stream(&self, handle: u64, owner: Arc<dyn Any + Send + Sync>) -> Stream {
        let owner = Owner::Kept { _by: owner };
        Stream::new(self.driver.clone(), RawStream(handle), owner)
    }

    /// Puts a kernel into a stream. `grid` counts blocks; with none of them nothing is launched.
    /// The block's size is the kernel's.
    ///
    /// # Errors
    /// [`Error::Launch`] with the value and its bound; a stream of another device; a module that
    /// the driver does not take.
    ///
    /// # Safety
    /// The addresses in `params` are device memory that is large enough for what the kernel does
    /// with it, in the types that the kernel takes, and stays so until the kernel has run.
    pub unsafe fn launch<P: Abi>(
        &self,
        stream: &Stream,
        kernel: &'static Kernel,
        grid: [u32; 3],
        dynamic_shared: u32,
        params: &P,
    ) -> Result<()> {
        if !Arc::ptr_eq(&self.driver, stream.driver()) {
            return Err(Error::OtherDevice { what: "the stream" });
        }
        let refuse = |reason: String| {
            Err(Error::Launch {
                kernel: kernel.entry,
                reason,
            })
        };
        for (axis, (&blocks, limit)) in grid.iter().zip(GRID_LIMITS).enumerate() {
            if blocks > limit {
                return refuse(format!(
                    "grid.{} is {blocks}, must be at most {limit}",
                    ["x", "y", "z"][axis]
                ));
            }
        }
        if dynamic_shared > kernel.max_dynamic_shared {
            return refuse(format!(
                "{dynamic_shared} bytes of dynamic shared memory, must be at most {}",
                kernel.max_dynamic_shared
            ));
        }
        if grid.contains(&0) {
            return Ok(());
        }
        let function = self.driver.function(kernel)?;
        let dims = Dims {
            grid,
            block: [kernel.threads, 1, 1],
            dynamic_shared,
        };
        let params = bytemuck::bytes_of(params);
        self.driver
            .launch(stream.raw(), kernel, function, dims, params)
    }

    /// What was launched since the last call, with counters: on the virtual GPU; nothing on CUDA.
    pub fn take_launches(&self) -> Vec<LaunchRecord> {
        self.driver.take_launches()
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gpu").field(&self.facts().name).finish()
    }
}
