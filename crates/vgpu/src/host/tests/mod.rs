//! Tests of the host API, on kernels of a few lines.

mod dependent;
mod errors;
mod fuzz;
mod graphs;
mod launches;
mod memory;
mod modules;
mod peers;
mod proxies;
mod streams;
mod threads;

use std::time::Duration;

use super::*;
use crate::machine::{Arch, Checks};
use crate::report::{Kind, Report};

/// Kernels that the tests share.
pub(super) const KERNELS: &str = r"
.version 8.3
.target sm_80
.address_size 64
.visible .global .align 8 .u32 numbers[4] = {1, 2, 3};
.visible .const .align 4 .u32 factor = 5;
.visible .global .align 8 .u64 pointer = numbers+4;
.extern .shared .align 16 .b8 dynamic[];

.visible .entry nothing() { ret; }

// out[i] = value, for each thread
.visible .entry store(.param .u64 out, .param .u32 value)
{
    .reg .b64 %rd<4>;
    .reg .b32 %r<6>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [value];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    mul.wide.u32 %rd2, %r5, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r1;
    ret;
}

// out[i] = in[i] + 1
.visible .entry next(.param .u64 out, .param .u64 in)
{
    .reg .b64 %rd<6>;
    .reg .b32 %r<4>;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [in];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    ld.global.u32 %r2, [%rd5];
    add.s32 %r3, %r2, 1;
    st.global.u32 [%rd4], %r3;
    ret;
}

// Waits until the flag is not 0.
.visible .entry await(.param .u64 flag)
{
    .reg .b64 %rd<2>;
    .reg .b32 %r<2>;
    .reg .pred %p;
    ld.param.u64 %rd1, [flag];
again:
    ld.acquire.sys.global.u32 %r1, [%rd1];
    setp.eq.u32 %p, %r1, 0;
    @%p bra again;
    ret;
}

// Sets the flag.
.visible .entry signal(.param .u64 flag)
{
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [flag];
    st.release.sys.global.u32 [%rd1], 1;
    ret;
}

.visible .entry stop() { trap; }
.visible .entry small() .maxntid 32, 2, 1 { ret; }
.visible .entry exact() .reqntid 64 { ret; }
.visible .entry heavy() .maxnreg 255 { ret; }
";

pub(super) fn machine_of(config: Config) -> Machine {
    Machine::new(config).unwrap()
}

/// A machine with all checks and one CPU thread.
pub(super) fn config() -> Config {
    Config {
        checks: Checks::ALL,
        threads: 1,
        memory_bytes: 1 << 24,
        patience: Duration::from_millis(20),
        ..Config::default()
    }
}

pub(super) fn machine() -> (Machine, Module) {
    let machine = machine_of(config());
    let module = machine.load(0, KERNELS).unwrap();
    (machine, module)
}

/// Parameters of two 8-byte words, cut to what the kernel takes.
pub(super) fn params(function: &Function, words: [u64; 2]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(function.program().param_bytes as usize);
    bytes
}

impl Module {
    /// Launches one block of 32 threads.
    pub(super) fn go(&self, machine: &Machine, stream: Stream, name: &str, words: [u64; 2]) {
        let function = self.function(name).unwrap();
        let config = LaunchConfig::new([1, 1, 1], [32, 1, 1]);
        machine
            .launch(stream, &function, &config, &params(&function, words))
            .unwrap();
    }
}

pub(super) fn read_words(machine: &Machine, ptr: u64, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; count * 4];
    machine.read(ptr, &mut bytes).unwrap();
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

pub(super) fn kinds(reports: &[Report]) -> Vec<Kind> {
    reports.iter().map(|report| report.kind).collect()
}

pub(super) fn stream(machine: &Machine, non_blocking: bool) -> Stream {
    let flags = StreamFlags {
        non_blocking,
        priority: 0,
    };
    machine.stream(0, flags).unwrap()
}

#[test]
fn a_machine_has_the_devices_it_was_asked_for() {
    let machine = machine_of(Config {
        devices: 3,
        arch: Arch::SM_80,
        ..config()
    });
    assert_eq!((machine.device_count(), machine.arch().name), (3, "sm_80"));
    assert_eq!(
        machine.alloc(3, 16),
        Err(Error::NoDevice {
            device: 3,
            count: 3
        })
    );
    for devices in [0, 65] {
        let error = Machine::new(Config {
            devices,
            ..config()
        })
        .unwrap_err();
        assert!(error.to_string().contains("1 to 64"), "{error}");
    }
}

#[test]
fn the_same_seed_does_the_same() {
    let run = |seed| {
        let machine = machine_of(Config { seed, ..config() });
        let module = machine.load(0, KERNELS).unwrap();
        let out = machine.alloc(0, 128).unwrap();
        let streams = [stream(&machine, true), stream(&machine, true)];
        for round in 0..10 {
            for stream in streams {
                module.go(&machine, stream, "store", [out, round]);
            }
        }
        machine.synchronize_device(0).unwrap();
        let order: Vec<u32> = machine.take_launches().iter().map(|l| l.launch).collect();
        (order, machine.take_reports(), read_words(&machine, out, 32))
    };
    assert_eq!(run(1), run(1));
    let orders: Vec<Vec<u32>> = (0..8).map(|seed| run(seed).0).collect();
    assert!(orders.iter().any(|order| *order != orders[0]), "{orders:?}");
}
