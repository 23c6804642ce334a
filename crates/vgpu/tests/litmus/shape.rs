//! A litmus test: what each of a few threads does, where the threads are, and what must come of it.

use std::collections::BTreeSet;

use tollgate_vgpu::host::{Config, LaunchConfig, Machine, StreamFlags};
use tollgate_vgpu::machine::{Arch, Checks};
use tollgate_vgpu::report::Kind;

/// Where the threads of a test are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// Lanes of one warp.
    Lanes,
    /// Lane 0 of warps of one block.
    Warps,
    /// Lane 0 of blocks of one cluster.
    Cluster,
    /// Lane 0 of blocks.
    Blocks,
    /// Lane 0 of the only block of devices of their own; memory is on device 0.
    Devices,
}

/// A litmus test.
///
/// Thread `i` runs `threads[i]`, where `~` stands for `i`. `%m` is global memory of 64 words, of
/// which those from 48 on take the results, `%s` shared memory of 256 bytes with room for an
/// mbarrier at its end, `%b`. All of global memory and the first 16 words of shared memory are zero
/// before any thread runs. A thread's result is `%v`.
#[derive(Clone, Debug)]
pub struct Litmus {
    /// Unique.
    pub name: &'static str,
    /// Where the threads are.
    pub apart: Apart,
    /// What they do.
    pub threads: Vec<String>,
    /// What each schedule must report first; `None`: nothing.
    pub report: Option<Kind>,
    /// Results of the threads that may be seen; empty: any.
    pub outcomes: Vec<Vec<u32>>,
}

/// What was seen over all schedules.
#[derive(Debug, Default)]
pub struct Seen {
    /// How many schedules reported what was wanted, or nothing where nothing was.
    pub right: u64,
    /// A schedule that did not, in words.
    pub wrong: Option<String>,
    /// Results of the threads.
    pub outcomes: BTreeSet<Vec<u32>>,
}

/// Words of global memory.
const WORDS: usize = 64;
/// Where the results are.
const RESULTS: usize = 48;
/// Runs on one machine, after which one with another seed takes turns between devices differently.
const RUNS_OF_A_MACHINE: u64 = 50;

impl Litmus {
    /// The kernel.
    pub fn ptx(&self) -> String {
        let number = match self.apart {
            Apart::Lanes => "mov.u32 %who, %tid.x;",
            Apart::Warps => "mov.u32 %who, %tid.x; shr.u32 %who, %who, 5;",
            Apart::Cluster | Apart::Blocks => "mov.u32 %who, %ctaid.x;",
            Apart::Devices => "ld.param.u32 %who, [device];",
        };
        let cluster = match self.apart {
            Apart::Cluster => format!(
                ".explicitcluster\n.reqnctapercluster {}, 1, 1\n",
                self.threads.len()
            ),
            _ => String::new(),
        };
        // Clusters start together, so that each finds the others' shared memory set up.
        let together = match self.apart {
            Apart::Cluster => "barrier.cluster.arrive;\nbarrier.cluster.wait;",
            _ => "barrier.sync 0;",
        };
        let mut text = format!(
            ".version 8.6\n.target sm_90a\n.address_size 64\n\
             .visible .entry litmus(.param .u64 memory, .param .u32 device)\n{cluster}{{\n\
             .shared .align 16 .b8 shared[256];\n\
             .reg .b64 %m, %d<4>;\n.reg .b32 %who, %lane, %s, %b, %v, %w, %poll, %r<8>;\n\
             .reg .pred %p, %q;\n\
             ld.param.u64 %m, [memory];\nmov.u32 %s, shared;\nadd.u32 %b, %s, 248;\n\
             mov.u32 %v, 0;\n{number}\nmov.u32 %lane, %tid.x;\n\
             setp.ge.u32 %p, %lane, 16;\n@%p bra READY;\n\
             shl.b32 %r0, %lane, 2;\nadd.u32 %r0, %r0, %s;\nst.shared.u32 [%r0], 0;\n\
             fence.proxy.async.shared::cta;\nREADY:\n{together}\n"
        );
        if self.apart != Apart::Lanes {
            text += "and.b32 %lane, %lane, 31;\nsetp.ne.u32 %p, %lane, 0;\n@%p bra DONE;\n";
        }
        for (index, body) in self.threads.iter().enumerate() {
            let body = body.replace('~', &index.to_string());
            let result = 4 * (RESULTS + index);
            text += &format!(
                "setp.ne.u32 %p, %who, {index};\n@%p bra NEXT{index};\n{body}\n\
                 st.global.u32 [%m+{result}], %v;\nbra DONE;\nNEXT{index}:\n"
            );
        }
        // A block must not end while others may use its shared memory.
        let end = match self.apart {
            Apart::Cluster => "barrier.cluster.arrive;\nbarrier.cluster.wait;\n",
            _ => "",
        };
        text + "DONE:\n" + end + "ret;\n}\n"
    }

    /// Runs schedules.
    pub fn run(&self, schedules: u64) -> Seen {
        let mut seen = Seen::default();
        let text = self.ptx();
        for first in (0..schedules).step_by(RUNS_OF_A_MACHINE as usize) {
            let last = (first + RUNS_OF_A_MACHINE).min(schedules);
            if let Err(error) = self.run_some(&text, first..last, &mut seen) {
                seen.wrong.get_or_insert(error);
            }
        }
        seen
    }

    fn run_some(
        &self,
        text: &str,
        seeds: std::ops::Range<u64>,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let in_words = |e: tollgate_vgpu::host::Error| format!("{}: {e}\n{text}", self.name);
        let devices = match self.apart {
            Apart::Devices => self.threads.len() as u32,
            _ => 1,
        };
        let machine = Machine::new(Config {
            devices,
            arch: Arch::SM_90A,
            memory_bytes: 1 << 24,
            checks: Checks::ALL,
            threads: 1,
            budget: 1 << 20,
            seed: seeds.start,
            ..Config::default()
        })
        .map_err(in_words)?;
        let mut places = Vec::new();
        for device in 0..devices {
            if device > 0 {
                machine.enable_peer(device, 0).map_err(in_words)?;
            }
            let module = machine.load(device, text).map_err(in_words)?;
            let function = module.function("litmus").map_err(in_words)?;
            let flags = StreamFlags {
                non_blocking: true,
                ..StreamFlags::default()
            };
            places.push((function, machine.stream(device, flags).map_err(in_words)?));
        }
        let count = self.threads.len() as u32;
        let (grid, block) = match self.apart {
            Apart::Lanes => (1, 32),
            Apart::Warps => (1, 32 * count),
            Apart::Cluster | Apart::Blocks => (count, 32),
            Apart::Devices => (1, 32),
        };
        let memory = machine.alloc(0, 4 * WORDS as u64).map_err(in_words)?;
        for seed in seeds {
            machine.write(memory, &[0; 4 * WORDS]).map_err(in_words)?;
            for (device, (function, stream)) in (0_u32..).zip(&places) {
                let config = LaunchConfig {
                    seed: Some(seed << 8 | u64::from(device)),
                    ..LaunchConfig::new([grid, 1, 1], [block, 1, 1])
                };
                let mut params = memory.to_le_bytes().to_vec();
                params.extend(device.to_le_bytes());
                machine
                    .launch(*stream, function, &config, &params)
                    .map_err(in_words)?;
            }
            for (_, stream) in &places {
                machine.synchronize(*stream).map_err(in_words)?;
            }
            let mut words = [0; 4 * WORDS];
            machine.read(memory, &mut words).map_err(in_words)?;
            let word = |index: usize| {
                u32::from_le_bytes([0, 1, 2, 3].map(|byte| words[4 * (RESULTS + index) + byte]))
            };
            seen.outcomes
                .insert((0..count as usize).map(word).collect());
            let reports = machine.take_reports();
            // Behind a scope that is too narrow comes the race of what was to be ordered by it.
            if reports.first().map(|report| report.kind) == self.report {
                seen.right += 1;
            } else if seen.wrong.is_none() {
                let reports: Vec<String> = reports.iter().map(ToString::to_string).collect();
                seen.wrong = Some(format!(
                    "{}: wanted {:?} in schedule {seed}, got {}",
                    self.name,
                    self.report,
                    reports.join("\n")
                ));
            }
        }
        machine.free(memory).map_err(in_words)
    }
}
