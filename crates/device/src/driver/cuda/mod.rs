//! CUDA as a driver: cudarc's raw layers over the primary context of a device.
//!
//! Handles are the driver's own. The default stream is handle 0, the legacy default stream, because
//! that is what frameworks pass when they mean theirs; streams that are made here do not wait for
//! it.
//!
//! No call waits without a limit: what would wait inside the driver is asked for in a loop first.
//! After a wait has ended at its deadline the device may never finish, and freeing memory, which
//! waits for it, is given up: then memory is lost rather than the process.

mod call;
mod context;
mod modules;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::{DriverError, result, sys};
use tollgate_kernels::Kernel;

use self::call::failed;
pub(crate) use self::call::words;
use self::context::{Bound, Context};
use self::modules::Modules;
use super::{Dims, Driver, LaunchRecord, RawEvent, RawFunction, RawGraph, RawStream};
use crate::{DeviceSpec, Error, Facts, Result, probe, wait};

/// The driver takes this much from pageable memory at once; for more it waits for the stream.
const STAGED_BYTES: usize = 64 << 10;

/// A CUDA device by its primary context.
pub(crate) struct CudaDriver {
    facts: Facts,
    context: Context,
    modules: Mutex<Modules>,
    /// The limit of every wait.
    timeout: Duration,
    /// Whether a wait ended at its deadline.
    hangs: AtomicBool,
    /// Whether the device reads pageable memory by itself, so that no copy of it is staged.
    reads_pageable: bool,
}

impl CudaDriver {
    /// Opens the device with the driver's number `index`.
    ///
    /// # Errors
    /// [`Error::NoDevice`], which says what is missing.
    pub(crate) fn new(index: u32) -> Result<Self> {
        let refuse = |reason| Error::NoDevice {
            device: DeviceSpec::Cuda(index).to_string(),
            reason,
        };
        let timeout = wait::timeout().map_err(refuse)?;
        let found = probe::open(index).map_err(refuse)?;
        let context = Context::retain(index)?;
        Ok(Self {
            facts: found.facts,
            context,
            modules: Mutex::default(),
            timeout,
            hangs: AtomicBool::new(false),
            reads_pageable: found.reads_pageable,
        })
    }

    fn bind(&self) -> Result<Bound> {
        self.context.bind()
    }

    /// Waits for what `query` asks about. The context is bound.
    fn wait(
        &self,
        what: &'static str,
        call: &'static str,
        query: impl Fn() -> std::result::Result<(), DriverError>,
    ) -> Result<()> {
        let outcome = wait::poll(what, self.timeout, || match query() {
            Ok(()) => Ok(true),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(failed(call)(error)),
        });
        if let Err(Error::Timeout { .. }) = outcome {
            self.hangs.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn wait_for_stream(&self, stream: RawStream) -> Result<()> {
        // SAFETY: the handle is a stream of this device; a status is asked for, nothing else.
        self.wait("the stream's work", "cuStreamQuery", || unsafe {
            sys::cuStreamQuery(stream.cuda()).result()
        })
    }

    fn wait_for_event(&self, event: RawEvent) -> Result<()> {
        // SAFETY: the event was made here and lives as long as its owner; a status is asked for.
        self.wait("the event", "cuEventQuery", || unsafe {
            result::event::query(event.cuda())
        })
    }

    /// Refuses a copy that a graph would repeat with host memory that is gone.
    fn refuse_capture(&self, call: &'static str, stream: RawStream) -> Result<()> {
        // SAFETY: the handle is a stream of this device; a status is asked for.
        let status = unsafe { result::stream::is_capturing(stream.cuda()) };
        match status.map_err(failed("cuStreamIsCapturing"))? {
            sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => Ok(()),
            _ => Err(Error::Driver {
                call,
                reason: "the stream is captured, and a graph cannot hold host memory".to_owned(),
            }),
        }
    }

    /// Whether the driver may copy from this memory later than it says.
    fn is_read_late(&self, from: &[u8]) -> bool {
        let mut kind: u32 = 0;
        // SAFETY: a number of 32 bits is written to `kind`; the address is looked up, not read.
        let known = unsafe {
            sys::cuPointerGetAttribute(
                (&raw mut kind).cast(),
                sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                from.as_ptr() as u64,
            )
        };
        // Memory that the driver does not know is pageable: it copies such memory before it
        // returns.
        self.reads_pageable || known.result().is_ok()
    }
}

impl RawStream {
    fn cuda(self) -> sys::CUstream {
        self.0 as sys::CUstream
    }
}

impl RawEvent {
    fn cuda(self) -> sys::CUevent {
        self.0 as sys::CUevent
    }
}

impl RawGraph {
    fn cuda(self) -> sys::CUgraphExec {
        self.0 as sys::CUgraphExec
    }
}

impl Driver for CudaDriver {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn alloc(&self, bytes: u64) -> Result<u64> {
        let _bound = self.bind()?;
        // SAFETY: the context is bound; the memory is freed by `free`.
        unsafe { result::malloc_sync(bytes as usize) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory {
                bytes,
                free: result::mem_get_info().map_or(0, |(free, _)| free as u64),
            },
            _ => failed("cuMemAlloc")(error),
        })
    }

    fn free(&self, ptr: u64) {
        if self.hangs.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(_bound) = self.bind() {
            // SAFETY: the memory is of `alloc`, and its owner is gone. The driver fails after a
            // fault only, when all memory is lost anyway.
            let _ = unsafe { result::free_sync(ptr) };
        }
    }

    /// The driver copies pageable memory before it returns, up to [`STAGED_BYTES`] without a wait.
    fn write(&self, stream: RawStream, ptr: u64, from: &[u8]) -> Result<()> {
        let _bound = self.bind()?;
        self.refuse_capture("cuMemcpyHtoDAsync", stream)?;
        if from.len() > STAGED_BYTES {
            self.wait_for_stream(stream)?;
        }
        // SAFETY: the target is memory of this device, as its view says; `from` is not needed after
        // the call, or it is waited for below.
        unsafe { result::memcpy_htod_async(ptr, from, stream.cuda()) }
            .map_err(failed("cuMemcpyHtoDAsync"))?;
        match self.is_read_late(from) {
            true => self.wait_for_stream(stream),
            false => Ok(()),
        }
    }

    fn read(&self, stream: RawStream, ptr: u64, to: &mut [u8]) -> Result<()> {
        let _bound = self.bind()?;
        self.refuse_capture("cuMemcpyDtoHAsync", stream)?;
        // The copy itself waits for the stream, without a limit, if there is anything to wait for.
        self.wait_for_stream(stream)?;
        // SAFETY: the source is memory of this device, as its view says; `to` lives until the copy
        // is waited for.
        unsafe { result::memcpy_dtoh_async(to, ptr, stream.cuda()) }
            .map_err(failed("cuMemcpyDtoHAsync"))?;
        self.wait_for_stream(stream)
    }

    fn copy(&self, stream: RawStream, to: u64, from: u64, bytes: u64) -> Result<()> {
        let _bound = self.bind()?;
        // SAFETY: both are memory of this device, as their views say.
        unsafe { result::memcpy_dtod_async(to, from, bytes as usize, stream.cuda()) }
            .map_err(failed("cuMemcpyDtoDAsync"))
    }

    fn fill(&self, stream: RawStream, ptr: u64, byte: u8, bytes: u64) -> Result<()> {
        let _bound = self.bind()?;
        // SAFETY: this is memory of this device, as its view says.
        unsafe { result::memset_d8_async(ptr, byte, bytes as usize, stream.cuda()) }
            .map_err(failed("cuMemsetD8Async"))
    }

    fn default_stream(&self) -> RawStream {
        RawStream(0)
    }

    fn create_stream(&self) -> Result<RawStream> {
        let _bound = self.bind()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        let stream = stream.map_err(failed("cuStreamCreate"))?;
        Ok(RawStream(stream as u64))
    }

    fn destroy_stream(&self, stream: RawStream) {
        if let Ok(_bound) = self.bind() {
            // SAFETY: the stream was made here, and its last owner is gone; work under way is
            // finished by the driver, which does not wait for it. It fails after a fault only.
            let _ = unsafe { result::stream::destroy(stream.cuda()) };
        }
    }

    fn synchronize(&self, stream: RawStream) -> Result<()> {
        let _bound = self.bind()?;
        self.wait_for_stream(stream)
    }

    fn create_event(&self) -> Result<RawEvent> {
        let _bound = self.bind()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = event.map_err(failed("cuEventCreate"))?;
        Ok(RawEvent(event as u64))
    }

    fn destroy_event(&self, event: RawEvent) {
        if let Ok(_bound) = self.bind() {
            // SAFETY: the event was made here, and its owner is gone. It fails after a fault only.
            let _ = unsafe { result::event::destroy(event.cuda()) };
        }
    }

    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let _bound = self.bind()?;
        // SAFETY: the event was made here; the stream is one of this device.
        unsafe { result::event::record(event.cuda(), stream.cuda()) }
            .map_err(failed("cuEventRecord"))
    }

    fn wait_event(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let _bound = self.bind()?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the event was made here; the stream is one of this device.
        unsafe { result::stream::wait_event(stream.cuda(), event.cuda(), flags) }
            .map_err(failed("cuStreamWaitEvent"))
    }

    fn elapsed_ms(&self, start: RawEvent, end: RawEvent) -> Result<f32> {
        let _bound = self.bind()?;
        self.wait_for_event(start)?;
        self.wait_for_event(end)?;
        probe::elapsed_ms(start.cuda(), end.cuda()).map_err(failed("cuEventElapsedTime"))
    }

    fn function(&self, kernel: &Kernel) -> Result<RawFunction> {
        let _bound = self.bind()?;
        // Every change of the cache is one insertion: what a panicking thread left is whole.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let function = modules.function(kernel, &self.facts)?;
        Ok(RawFunction(function.handle as u64))
    }

    fn launch(
        &self,
        stream: RawStream,
        kernel: &Kernel,
        function: RawFunction,
        dims: Dims,
        params: &[u8],
    ) -> Result<()> {
        let _bound = self.bind()?;
        let refuse = |reason| Error::Launch {
            kernel: kernel.entry,
            reason,
        };
        let most = {
            let modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
            modules.max_dynamic_shared(kernel)
        };
        if dims.dynamic_shared > most {
            return Err(refuse(format!(
                "{} bytes of dynamic shared memory, this device has at most {most}",
                dims.dynamic_shared
            )));
        }
        let [grid, block] = [dims.grid, dims.block].map(|[x, y, z]| (x, y, z));
        let mut arguments = [params.as_ptr().cast_mut().cast()];
        // SAFETY: the function is of a module that stays loaded. It takes one struct by value,
        // which the driver copies before it returns; what its addresses need is the caller's
        // promise.
        unsafe {
            result::launch_kernel(
                function.0 as sys::CUfunction,
                grid,
                block,
                dims.dynamic_shared,
                stream.cuda(),
                &mut arguments,
            )
        }
        .map_err(|error| refuse(format!("cuLaunchKernel: {}", words(error))))
    }

    fn begin_capture(&self, stream: RawStream) -> Result<()> {
        let _bound = self.bind()?;
        // Other threads may go on allocating meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is one of this device.
        unsafe { result::stream::begin_capture(stream.cuda(), mode) }
            .map_err(failed("cuStreamBeginCapture"))
    }

    fn end_capture(&self, stream: RawStream) -> Result<RawGraph> {
        let _bound = self.bind()?;
        // SAFETY: the stream is one of this device.
        let graph = unsafe { result::stream::end_capture(stream.cuda()) };
        let graph = graph.map_err(failed("cuStreamEndCapture"))?;
        let mut ready = std::ptr::null_mut();
        // SAFETY: the graph was just made; what can be launched is a copy of it.
        let outcome = unsafe { sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0) }.result();
        // SAFETY: the graph was just made, and nothing else knows it.
        let destroyed = unsafe { result::graph::destroy(graph) };
        outcome.map_err(failed("cuGraphInstantiate"))?;
        destroyed.map_err(failed("cuGraphDestroy"))?;
        Ok(RawGraph(ready as u64))
    }

    fn launch_graph(&self, graph: RawGraph, stream: RawStream) -> Result<()> {
        let _bound = self.bind()?;
        // SAFETY: the graph was made here and lives as long as its owner; the stream is of this
        // device.
        unsafe { result::graph::launch(graph.cuda(), stream.cuda()) }
            .map_err(failed("cuGraphLaunch"))
    }

    fn destroy_graph(&self, graph: RawGraph) {
        if let Ok(_bound) = self.bind() {
            // SAFETY: the graph was made here, and its owner is gone. It fails after a fault only.
            let _ = unsafe { result::graph::exec_destroy(graph.cuda()) };
        }
    }

    fn take_launches(&self) -> Vec<LaunchRecord> {
        Vec::new()
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        if self.hangs.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(_bound) = self.bind() {
            let modules = self.modules.get_mut();
            modules.unwrap_or_else(PoisonError::into_inner).unload();
        }
        self.context.release();
    }
}
