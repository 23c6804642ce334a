//! What the fuzzer demands of this API, shared by `cargo fuzz` and the bounded run of the tests.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Bits, Config, Error, Event, Fill, Function, Graph, LaunchConfig, Machine, Module, Shape3d,
    Stream, StreamFlags, Target, Until,
};
use super::{GraphExec, Source};
use crate::machine::{Arch, Checks};

const DEVICES: u32 = 2;
const MEMORY: u64 = 1 << 20;
/// Calls of one run at most.
const CALLS: usize = 400;

/// Writes to whatever address it is given.
const KERNELS: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 counter = 7;
.visible .entry nothing() { ret; }
.visible .entry store(.param .u64 to, .param .u32 value)
{
    .reg .b64 %rd<3>;
    .reg .b32 %r<4>;
    ld.param.u64 %rd1, [to];
    ld.param.u32 %r1, [value];
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %rd2, %r2, 4;
    add.s64 %rd1, %rd1, %rd2;
    st.global.u32 [%rd1], %r1;
    ret;
}
.visible .entry forever() { again: bra again; }
";

/// Numbers out of the fuzzer's bytes; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// Small mostly, of any size now and then.
    fn size(&mut self) -> u64 {
        let shift = match self.byte() {
            0..=200 => self.below(12),
            _ => self.below(64),
        };
        (u64::from(self.byte()) << shift) | u64::from(self.byte() & 7)
    }

    fn dims(&mut self) -> [u32; 3] {
        match self.byte() {
            0..=200 => [1 + self.below(4) as u32, 1, 1],
            _ => [(); 3].map(|()| self.size() as u32),
        }
    }
}

struct Player<'a> {
    machine: Machine,
    input: Bytes<'a>,
    streams: Vec<Stream>,
    events: Vec<Event>,
    pointers: Vec<u64>,
    modules: Vec<Module>,
    functions: Vec<Function>,
    graphs: Vec<GraphExec>,
}

/// Plays a sequence of calls that the bytes describe, sensible and not. Nothing may panic or hang, and
/// the books must balance.
///
/// # Errors
/// What was violated. A panic or an endless loop is for the caller to notice.
pub fn check_host_api(data: &[u8]) -> Result<(), String> {
    let mut input = Bytes(data);
    let config = Config {
        devices: DEVICES,
        arch: if input.byte() & 1 == 0 {
            Arch::SM_80
        } else {
            Arch::SM_90A
        },
        memory_bytes: MEMORY,
        checks: if input.byte() & 1 == 0 {
            Checks::ALL
        } else {
            Checks::NONE
        },
        seed: u64::from(input.byte()),
        threads: 1,
        budget: 2_000,
        trace: (input.byte() & 1 == 0).then_some(16),
        patience: Duration::from_millis(2),
    };
    let machine = Machine::new(config).map_err(|error| error.to_string())?;
    let mut player = Player {
        streams: Vec::new(),
        events: Vec::new(),
        pointers: vec![0, 0x1234, u64::MAX],
        modules: Vec::new(),
        functions: Vec::new(),
        graphs: Vec::new(),
        machine,
        input,
    };
    for device in 0..DEVICES {
        let stream = player.machine.default_stream(device);
        player
            .streams
            .push(stream.map_err(|error| error.to_string())?);
    }
    for _ in 0..CALLS {
        if player.input.0.is_empty() {
            break;
        }
        match player.call() {
            // A report of anything but a livelock, which names its places, tells of one.
            Ok(()) | Err(Error::Faulted(_)) => {}
            Err(error) if error.to_string().is_empty() => {
                return Err(format!("an error without words: {error:?}"));
            }
            Err(_) => {}
        }
    }
    player.end()
}

impl Player<'_> {
    fn stream(&mut self) -> Stream {
        self.streams[self.input.below(self.streams.len())]
    }

    fn pointer(&mut self) -> u64 {
        let base = self.pointers[self.input.below(self.pointers.len())];
        match self.input.byte() {
            0..=200 => base,
            _ => base.wrapping_add(self.input.size()),
        }
    }

    fn event(&mut self) -> Result<Event, Error> {
        let index = self.input.below(self.events.len());
        let none = || Error::InvalidHandle("no event".to_owned());
        self.events.get(index).copied().ok_or_else(none)
    }

    fn shape(&mut self) -> Shape3d {
        let mut shape = Shape3d::linear(self.input.size());
        if self.input.byte() & 1 == 0 {
            (shape.rows, shape.slices) = (self.input.size(), self.input.size());
            (shape.dst_pitch, shape.src_pitch) = (self.input.size(), self.input.size());
            shape.dst_slice_rows = self.input.size();
            shape.src_slice_rows = self.input.size();
        }
        shape
    }

    fn fill(&mut self) -> Fill {
        Fill {
            ptr: self.pointer(),
            pitch: self.input.size(),
            width: self.input.size(),
            rows: 1 + self.input.below(5) as u64,
            value: self.input.size() as u32,
            element_bytes: 1 << self.input.below(4),
        }
    }

    fn launch_config(&mut self) -> LaunchConfig {
        let flags = self.input.byte();
        LaunchConfig {
            grid: self.input.dims(),
            block: self.input.dims(),
            cluster: (flags & 3 == 3).then(|| self.input.dims()),
            dynamic_shared: if flags & 4 == 0 {
                0
            } else {
                self.input.size() as u32
            },
            cooperative: flags & 8 != 0,
            programmatic_dependent: flags & 16 != 0,
            seed: (flags & 32 != 0).then_some(1),
        }
    }

    fn params(&mut self, function: &Function) -> Vec<u8> {
        let mut params = vec![0; function.program().param_bytes as usize];
        if params.len() >= 8 {
            params[..8].copy_from_slice(&self.pointer().to_le_bytes());
        }
        if self.input.byte() > 240 {
            params.push(0);
        }
        params
    }

    fn call(&mut self) -> Result<(), Error> {
        let machine = self.machine.clone();
        let device = self.input.below(DEVICES as usize + 1) as u32;
        match self.input.below(40) {
            0 | 1 => {
                let bytes = self.input.size();
                self.pointers.push(machine.alloc(device, bytes)?);
            }
            2 => {
                let bytes = self.input.size();
                self.pointers.push(machine.alloc_host(bytes)?);
            }
            3 => machine.free(self.pointer())?,
            4 => machine.free_host(self.pointer())?,
            5 => {
                let (ptr, bytes) = (self.pointer(), self.input.below(300));
                machine.write(ptr, &vec![1; bytes])?;
            }
            6 => {
                let (ptr, bytes) = (self.pointer(), self.input.below(300));
                machine.read(ptr, &mut vec![0; bytes])?;
            }
            7 => {
                let (dst, src) = (self.pointer(), self.pointer());
                machine.copy(dst, src, self.input.size())?;
            }
            8 => {
                let (stream, dst, src) = (self.stream(), self.pointer(), self.pointer());
                machine.copy_3d_async(stream, dst, src, &self.shape())?;
            }
            9 => {
                let (stream, src) = (self.stream(), self.pointer());
                let mut out = vec![0; self.input.below(300)];
                let (to, from) = (Target::Slice(&mut out), Source::Memory(src));
                machine.copy_3d(stream, to, from, &self.shape())?;
            }
            10 => {
                let (stream, dst) = (self.stream(), self.pointer());
                let from = vec![3; self.input.below(300)];
                let (to, from) = (Target::Memory(dst), Source::Slice(&from));
                machine.copy_3d(stream, to, from, &self.shape())?;
            }
            11 => {
                let stream = self.stream();
                machine.fill_2d_async(stream, &self.fill())?;
            }
            12 => {
                let (ptr, count) = (self.pointer(), self.input.size());
                machine.fill32(ptr, 5, count)?;
            }
            13 => {
                let stream = self.stream();
                let ptr = machine.alloc_async(stream, self.input.size())?;
                self.pointers.push(ptr);
            }
            14 => {
                let stream = self.stream();
                machine.free_async(stream, self.pointer())?;
            }
            15 => {
                let flags = StreamFlags {
                    non_blocking: self.input.byte() & 1 == 0,
                    priority: -1,
                };
                self.streams.push(machine.stream(device, flags)?);
            }
            16 => machine.destroy_stream(self.stream())?,
            17 => machine.query(self.stream())?,
            18 => machine.synchronize(self.stream())?,
            19 => machine.synchronize_device(device)?,
            20 => self.events.push(machine.event(device)?),
            21 => {
                let event = self.event()?;
                machine.record(event, self.stream())?;
            }
            22 => {
                let event = self.event()?;
                machine.wait_event(self.stream(), event)?;
            }
            23 => machine.query_event(self.event()?)?,
            24 => machine.synchronize_event(self.event()?)?,
            25 => {
                let (start, end) = (self.event()?, self.event()?);
                machine.elapsed_ms(start, end)?;
            }
            26 => machine.destroy_event(self.event()?)?,
            27 => {
                let again = machine.clone();
                let stream = self.stream();
                let function = move || {
                    again.take_reports();
                    // A callback may call the machine, and gets an answer.
                    let _ = again.mem_info(0);
                };
                machine.call_host(stream, Arc::new(function))?;
            }
            28 => {
                let (stream, ptr) = (self.stream(), self.pointer());
                machine.write_value(stream, ptr, self.input.size(), Bits::W32)?;
            }
            29 => {
                let (stream, ptr) = (self.stream(), self.pointer());
                let until = [
                    Until::GreaterOrEqual,
                    Until::Equal,
                    Until::AnyBit,
                    Until::NoneOr,
                ];
                let until = until[self.input.below(4)];
                machine.wait_value(stream, ptr, self.input.size(), Bits::W64, until)?;
            }
            30 => {
                let module = machine.load(device, KERNELS)?;
                self.functions.extend(module.functions());
                self.pointers.push(module.global("counter")?.0);
                self.modules.push(module);
            }
            31 => {
                let index = self.input.below(self.modules.len());
                if let Some(module) = self.modules.get(index) {
                    machine.unload(module)?;
                }
            }
            32..=34 => {
                let index = self.input.below(self.functions.len());
                let Some(function) = self.functions.get(index).cloned() else {
                    return Ok(());
                };
                let (stream, config) = (self.stream(), self.launch_config());
                let params = self.params(&function);
                machine.launch(stream, &function, &config, &params)?;
            }
            35 => {
                let stream = self.stream();
                if machine.is_capturing(stream)? {
                    let graph = machine.end_capture(stream)?;
                    self.graphs.push(graph.instantiate()?);
                } else {
                    machine.begin_capture(stream)?;
                }
            }
            36 => {
                let mut graph = Graph::new(device);
                let first = graph.add_empty(&[])?;
                let fill = self.fill();
                let second = graph.add_fill(&[first], &fill)?;
                let (dst, src, shape) = (self.pointer(), self.pointer(), self.shape());
                graph.add_copy(&[first], dst, src, &shape)?;
                graph.add_host(&[second], Arc::new(|| {}))?;
                self.graphs.push(graph.instantiate()?);
            }
            37 => {
                let index = self.input.below(self.graphs.len());
                if let Some(graph) = self.graphs.get(index) {
                    let graph = graph.clone();
                    machine.launch_graph(&graph, self.stream())?;
                }
            }
            38 => {
                let peer = self.input.below(3) as u32;
                if self.input.byte() & 1 == 0 {
                    machine.enable_peer(device, peer)?;
                } else {
                    machine.disable_peer(device, peer)?;
                }
            }
            _ => machine.reset(device)?,
        }
        Ok(())
    }

    /// After a reset of all devices nothing is left of them.
    fn end(mut self) -> Result<(), String> {
        self.graphs.clear();
        for device in 0..DEVICES {
            let words = |error: Error| error.to_string();
            if let Ok(info) = self.machine.mem_info(device)
                && info.free > info.total
            {
                return Err(format!("device {device} has {info:?}"));
            }
            self.machine.reset(device).map_err(words)?;
            let info = self.machine.mem_info(device).map_err(words)?;
            if info.free != info.total {
                return Err(format!("device {device} has {info:?} after a reset"));
            }
            self.machine.synchronize_device(device).map_err(words)?;
        }
        for report in self.machine.take_reports() {
            if report.message.is_empty() {
                return Err(format!("a report without words: {report:?}"));
            }
        }
        Ok(())
    }
}
