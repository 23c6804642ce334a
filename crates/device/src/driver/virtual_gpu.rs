//! The virtual GPU as a driver.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tollgate_kernels::Kernel;
use tollgate_vgpu::host::{self, GraphExec};
use tollgate_vgpu::report::Kind;
use tollgate_vgpu::{Config, LaunchConfig, Machine};

use super::{Dims, Driver, RawEvent, RawFunction, RawGraph, RawStream};
use super::{LaunchCounters, LaunchRecord};
use crate::{Backend, Error, Facts, Result};

/// One device of a machine of its own.
pub(crate) struct VirtualDriver {
    machine: Machine,
    facts: Facts,
    handles: Mutex<Handles>,
    next: AtomicU64,
}

#[derive(Default)]
struct Handles {
    streams: HashMap<u64, tollgate_vgpu::Stream>,
    events: HashMap<u64, tollgate_vgpu::Event>,
    functions: HashMap<u64, tollgate_vgpu::Function>,
    /// By module name, and entry.
    by_name: HashMap<(&'static str, &'static str), u64>,
    modules: HashMap<&'static str, tollgate_vgpu::Module>,
    graphs: HashMap<u64, GraphExec>,
}

/// The only device of the machine.
const DEVICE: u32 = 0;
/// The key of its default stream.
const DEFAULT_STREAM: RawStream = RawStream(0);

fn driver_error(call: &'static str) -> impl Fn(host::Error) -> Error {
    move |error| match error {
        host::Error::OutOfMemory { bytes, free, .. } => Error::OutOfMemory { bytes, free },
        other => Error::Driver {
            call,
            reason: other.to_string(),
        },
    }
}

fn unknown(what: &'static str) -> Error {
    Error::Driver {
        call: what,
        reason: "the handle is unknown to this device".to_owned(),
    }
}

impl VirtualDriver {
    pub(crate) fn new(config: Config) -> Result<Self> {
        let machine = Machine::new(config).map_err(driver_error("Machine::new"))?;
        let arch = machine.arch();
        let facts = Facts {
            backend: Backend::Virtual,
            name: format!("virtual {}", arch.name),
            compute_capability: arch.capability,
            num_sms: arch.multiprocessors,
            memory_bytes: machine.config().memory_bytes,
            shared_per_block_bytes: arch.shared_per_block_optin,
            l2_bytes: 0,
            driver_version: (13, 0),
        };
        let stream = machine
            .default_stream(DEVICE)
            .map_err(driver_error("default_stream"))?;
        let handles = Handles {
            streams: HashMap::from([(DEFAULT_STREAM.0, stream)]),
            ..Handles::default()
        };
        Ok(Self {
            machine,
            facts,
            handles: Mutex::new(handles),
            next: AtomicU64::new(1),
        })
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        // Every change is one insertion or removal: what a panicking thread left is whole.
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn stream(&self, stream: RawStream) -> Result<tollgate_vgpu::Stream> {
        let found = self.handles().streams.get(&stream.0).copied();
        found.ok_or_else(|| unknown("stream"))
    }

    fn event(&self, event: RawEvent) -> Result<tollgate_vgpu::Event> {
        let found = self.handles().events.get(&event.0).copied();
        found.ok_or_else(|| unknown("event"))
    }

    /// What the checks found since the last call, as an error.
    fn findings(&self) -> Result<()> {
        let mut reports = self.machine.take_reports();
        // An illegal launch has failed already, and may have been another thread's.
        reports.retain(|report| report.kind != Kind::Launch);
        match reports.first() {
            None => Ok(()),
            Some(first) => Err(Error::Checks {
                count: reports.len(),
                first: first.to_string(),
            }),
        }
    }

    /// Findings say more than the fault that they lead to.
    fn settled<T>(&self, call: &'static str, outcome: host::Result<T>) -> Result<T> {
        self.findings()?;
        outcome.map_err(driver_error(call))
    }
}

impl Driver for VirtualDriver {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn alloc(&self, bytes: u64) -> Result<u64> {
        self.machine
            .alloc(DEVICE, bytes)
            .map_err(driver_error("alloc"))
    }

    fn free(&self, ptr: u64) {
        // Fails after a fault only, when all memory is lost anyway.
        let _ = self.machine.free(ptr);
    }

    fn write(&self, stream: RawStream, ptr: u64, from: &[u8]) -> Result<()> {
        let stream = self.stream(stream)?;
        // It would work here. CUDA cannot, and what is captured on one must be so on the other.
        if self
            .machine
            .is_capturing(stream)
            .map_err(driver_error("write"))?
        {
            return Err(Error::Driver {
                call: "write",
                reason: "the stream is captured, and a graph cannot hold host memory".to_owned(),
            });
        }
        self.machine
            .write_async(stream, ptr, from)
            .map_err(driver_error("write"))
    }

    fn read(&self, stream: RawStream, ptr: u64, to: &mut [u8]) -> Result<()> {
        let stream = self.stream(stream)?;
        let outcome = self.machine.read_on(stream, ptr, to);
        self.settled("read", outcome)
    }

    fn copy(&self, stream: RawStream, to: u64, from: u64, bytes: u64) -> Result<()> {
        let stream = self.stream(stream)?;
        self.machine
            .copy_async(stream, to, from, bytes)
            .map_err(driver_error("copy"))
    }

    fn fill(&self, stream: RawStream, ptr: u64, byte: u8, bytes: u64) -> Result<()> {
        let stream = self.stream(stream)?;
        self.machine
            .fill8_async(stream, ptr, byte, bytes)
            .map_err(driver_error("fill"))
    }

    fn default_stream(&self) -> RawStream {
        DEFAULT_STREAM
    }

    fn create_stream(&self) -> Result<RawStream> {
        let flags = tollgate_vgpu::StreamFlags {
            non_blocking: true,
            priority: 0,
        };
        let stream = self
            .machine
            .stream(DEVICE, flags)
            .map_err(driver_error("stream"))?;
        let key = self.key();
        self.handles().streams.insert(key, stream);
        Ok(RawStream(key))
    }

    fn destroy_stream(&self, stream: RawStream) {
        if let Some(stream) = self.handles().streams.remove(&stream.0) {
            // Fails after a fault only.
            let _ = self.machine.destroy_stream(stream);
        }
    }

    fn synchronize(&self, stream: RawStream) -> Result<()> {
        let stream = self.stream(stream)?;
        let outcome = self.machine.synchronize(stream);
        self.settled("synchronize", outcome)
    }

    fn create_event(&self) -> Result<RawEvent> {
        let event = self.machine.event(DEVICE).map_err(driver_error("event"))?;
        let key = self.key();
        self.handles().events.insert(key, event);
        Ok(RawEvent(key))
    }

    fn destroy_event(&self, event: RawEvent) {
        if let Some(event) = self.handles().events.remove(&event.0) {
            // Fails after a fault only.
            let _ = self.machine.destroy_event(event);
        }
    }

    fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let (event, stream) = (self.event(event)?, self.stream(stream)?);
        self.machine
            .record(event, stream)
            .map_err(driver_error("record"))
    }

    fn wait_event(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let (event, stream) = (self.event(event)?, self.stream(stream)?);
        self.machine
            .wait_event(stream, event)
            .map_err(driver_error("wait_event"))
    }

    fn elapsed_ms(&self, start: RawEvent, end: RawEvent) -> Result<f32> {
        let (start, end) = (self.event(start)?, self.event(end)?);
        let outcome = self
            .machine
            .synchronize_event(end)
            .and_then(|()| self.machine.elapsed_ms(start, end));
        self.settled("elapsed_ms", outcome)
    }

    fn function(&self, kernel: &Kernel) -> Result<RawFunction> {
        let name = (kernel.module.name, kernel.entry);
        let mut handles = self.handles();
        if let Some(&key) = handles.by_name.get(&name) {
            return Ok(RawFunction(key));
        }
        let module = match handles.modules.get(name.0) {
            Some(module) => module.clone(),
            None => {
                let image = kernel.module.image(self.facts.compute_capability);
                let module = self
                    .machine
                    .load(DEVICE, image)
                    .map_err(driver_error("load"))?;
                handles.modules.insert(name.0, module.clone());
                module
            }
        };
        let function = module
            .function(kernel.entry)
            .map_err(driver_error("function"))?;
        // As much as the device has, if it has less: a launch says what is too much.
        let attributes = function.attributes();
        let room = self
            .facts
            .shared_per_block_bytes
            .saturating_sub(attributes.static_shared);
        let wanted = kernel.max_dynamic_shared.min(room);
        if wanted > attributes.max_dynamic_shared {
            function
                .set_max_dynamic_shared(wanted)
                .map_err(driver_error("set_max_dynamic_shared"))?;
        }
        let key = self.key();
        handles.functions.insert(key, function);
        handles.by_name.insert(name, key);
        Ok(RawFunction(key))
    }

    fn launch(
        &self,
        stream: RawStream,
        kernel: &Kernel,
        function: RawFunction,
        dims: Dims,
        params: &[u8],
    ) -> Result<()> {
        let stream = self.stream(stream)?;
        let function = self.handles().functions.get(&function.0).cloned();
        let function = function.ok_or_else(|| unknown("function"))?;
        let config = LaunchConfig {
            dynamic_shared: dims.dynamic_shared,
            ..LaunchConfig::new(dims.grid, dims.block)
        };
        self.machine
            .launch(stream, &function, &config, params)
            .map_err(|error| Error::Launch {
                kernel: kernel.entry,
                reason: error.to_string(),
            })
    }

    fn begin_capture(&self, stream: RawStream) -> Result<()> {
        let stream = self.stream(stream)?;
        self.machine
            .begin_capture(stream)
            .map_err(driver_error("begin_capture"))
    }

    fn end_capture(&self, stream: RawStream) -> Result<RawGraph> {
        let stream = self.stream(stream)?;
        let graph = self
            .machine
            .end_capture(stream)
            .and_then(|graph| graph.instantiate())
            .map_err(driver_error("end_capture"))?;
        let key = self.key();
        self.handles().graphs.insert(key, graph);
        Ok(RawGraph(key))
    }

    fn launch_graph(&self, graph: RawGraph, stream: RawStream) -> Result<()> {
        let stream = self.stream(stream)?;
        let graph = self.handles().graphs.get(&graph.0).cloned();
        let graph = graph.ok_or_else(|| unknown("graph"))?;
        self.machine
            .launch_graph(&graph, stream)
            .map_err(driver_error("launch_graph"))
    }

    fn destroy_graph(&self, graph: RawGraph) {
        self.handles().graphs.remove(&graph.0);
    }

    fn take_launches(&self) -> Vec<LaunchRecord> {
        let launches = self.machine.take_launches().into_iter();
        launches
            .map(|launch| {
                let c = &launch.counters;
                LaunchRecord {
                    kernel: launch.kernel.to_string(),
                    grid: launch.grid,
                    block: launch.block,
                    counters: LaunchCounters {
                        read_bytes: c.global_read.moved_bytes() + c.async_read_sectors * 32,
                        written_bytes: c.global_write.moved_bytes() + c.async_write_sectors * 32,
                        atomic_bytes: c.global_atomic.moved_bytes(),
                        requested_bytes: c.global_read.requested_bytes
                            + c.global_write.requested_bytes
                            + c.global_atomic.requested_bytes
                            + c.async_read_bytes
                            + c.async_write_bytes,
                        global_instructions: c.global_read.instructions
                            + c.global_write.instructions
                            + c.global_atomic.instructions,
                        bank_conflicts: c.shared_read.conflicts
                            + c.shared_write.conflicts
                            + c.shared_atomic.conflicts,
                        local_sectors: c.local_read.sectors + c.local_write.sectors,
                        warp_instructions: c.warp_instructions.iter().sum(),
                        thread_instructions: c.thread_instructions,
                    },
                }
            })
            .collect()
    }
}
