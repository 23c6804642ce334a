//! One run: a new machine, its buffers, all launches, and what came of it.

use std::collections::BTreeMap;

use tollgate_vgpu::host::{
    Config, Error, Function, LaunchConfig, LaunchRecord, Machine, Module, Stream, StreamFlags,
};
use tollgate_vgpu::machine::TraceLine;
use tollgate_vgpu::report::Report;

use super::buffer::Contents;
use super::groups::Group;
use super::place::Pointer;
use super::plan::Plan;
use crate::error::{Failure, Result};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Seed of its machine.
    pub seed: u64,
    /// What the checks found.
    pub reports: Vec<Report>,
    /// What the launches did, in their order on the command line.
    pub launches: Vec<LaunchRecord>,
    /// The first instructions of each launch, if they were asked for.
    pub traces: Vec<Trace>,
    /// Bytes of the buffers, in the order of the plan; `None` where a fault took them.
    pub buffers: Vec<Option<Vec<u8>>>,
}

/// The first instructions that a launch executed.
#[derive(Debug)]
pub struct Trace {
    /// The launch's number.
    pub launch: u32,
    /// The instructions.
    pub steps: Vec<Step>,
}

/// An instruction that a warp executed.
#[derive(Debug)]
pub struct Step {
    /// Block in the grid, x fastest.
    pub block: u64,
    /// Warp in the block.
    pub warp: u32,
    /// The lanes that executed it.
    pub lanes: u32,
    /// Line of the PTX.
    pub line: u32,
    /// The instruction.
    pub text: String,
}

/// Runs the plan with a seed.
///
/// # Errors
/// What makes a run impossible: PTX that cannot be loaded, arguments that do not fit, too little
/// memory. What a check finds is no error.
pub fn run(plan: &Plan<'_>, seed: u64) -> Result<Outcome> {
    let machine = Machine::new(Config {
        seed,
        ..plan.config.clone()
    });
    let machine = machine.map_err(refused)?;
    let mut session = Session {
        plan,
        modules: BTreeMap::new(),
        streams: BTreeMap::new(),
        addresses: Vec::new(),
        launched: Vec::new(),
        machine,
    };
    session.connect()?;
    session.place()?;
    let launches: Vec<_> = plan
        .groups
        .iter()
        .enumerate()
        .map(|(number, group)| session.prepare(number, group))
        .collect::<Result<_>>()?;
    for (stream, function, config, params) in &launches {
        match session.machine.launch(*stream, function, config, params) {
            Ok(()) => session.launched.push(function.clone()),
            // The machine has reported it. What was launched before may wait for this one: leave it.
            Err(Error::InvalidLaunch(_)) => return Ok(session.abandon(seed)),
            Err(error) => return Err(refused(error)),
        }
    }
    session.finish(seed)
}

struct Session<'a> {
    plan: &'a Plan<'a>,
    machine: Machine,
    modules: BTreeMap<u32, Module>,
    streams: BTreeMap<(u32, u32), Stream>,
    addresses: Vec<u64>,
    launched: Vec<Function>,
}

impl Session<'_> {
    /// Lets every device reach every other.
    fn connect(&self) -> Result<()> {
        let devices = self.machine.device_count();
        for device in 0..devices {
            for peer in (0..devices).filter(|&peer| peer != device) {
                self.machine.enable_peer(device, peer).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Allocates all buffers, then fills them, as some hold addresses of others.
    fn place(&mut self) -> Result<()> {
        for placed in &self.plan.buffers {
            let size = placed.contents.size() as u64;
            let address = self.machine.alloc(placed.device, size).map_err(refused)?;
            self.addresses.push(address);
        }
        for (placed, &address) in self.plan.buffers.iter().zip(&self.addresses) {
            let written = match &placed.contents {
                Contents::Unwritten(_) => Ok(()),
                Contents::Bytes(bytes) => self.machine.write(address, bytes),
                Contents::Pointers(pointers) => {
                    let mut bytes = Vec::new();
                    for pointer in pointers {
                        let address = self.address(pointer).map_err(Failure::Usage)?;
                        bytes.extend(address.to_le_bytes());
                    }
                    self.machine.write(address, &bytes)
                }
            };
            written.map_err(refused)?;
        }
        Ok(())
    }

    fn address(&self, pointer: &Pointer) -> std::result::Result<u64, String> {
        let index = self.plan.find(&pointer.name)?;
        Ok(self.addresses[index].wrapping_add_signed(pointer.offset))
    }

    fn module(&mut self, device: u32) -> Result<Module> {
        if let Some(module) = self.modules.get(&device) {
            return Ok(module.clone());
        }
        let module = self.machine.load(device, self.plan.text).map_err(refused)?;
        self.modules.insert(device, module.clone());
        Ok(module)
    }

    fn stream(&mut self, device: u32, number: u32) -> Result<Stream> {
        if number == 0 {
            return self.machine.default_stream(device).map_err(refused);
        }
        if let Some(&stream) = self.streams.get(&(device, number)) {
            return Ok(stream);
        }
        // Independent of the default stream too: that is what a second stream is asked for.
        let flags = StreamFlags {
            non_blocking: true,
            ..StreamFlags::default()
        };
        let stream = self.machine.stream(device, flags).map_err(refused)?;
        self.streams.insert((device, number), stream);
        Ok(stream)
    }

    fn prepare(
        &mut self,
        number: usize,
        group: &Group,
    ) -> Result<(Stream, Function, LaunchConfig, Vec<u8>)> {
        let usage = |text: String| match self.plan.groups.len() {
            1 => Failure::Usage(text),
            _ => Failure::Usage(format!("launch {}: {text}", number + 1)),
        };
        let module = self.module(group.device)?;
        let function = find_entry(group, &module).map_err(&usage)?;
        let params = self.params(group, &function).map_err(&usage)?;
        // A program asks before it takes more than 48 KiB, or large clusters. What the device has not
        // got is refused here, and again by the launch, which reports it.
        let _ = function.set_max_dynamic_shared(group.shared);
        let _ = function.allow_non_portable_cluster(true);
        let config = LaunchConfig {
            cluster: group.cluster,
            dynamic_shared: group.shared,
            cooperative: group.cooperative,
            ..LaunchConfig::new(group.grid, group.block)
        };
        Ok((
            self.stream(group.device, group.stream)?,
            function,
            config,
            params,
        ))
    }

    /// The parameter block.
    fn params(&self, group: &Group, function: &Function) -> std::result::Result<Vec<u8>, String> {
        let params = function.params();
        if params.len() != group.args.len() {
            let wanted: Vec<String> = params
                .iter()
                .map(|param| format!("{} ({})", param.name, param.ty))
                .collect();
            return Err(format!(
                "{} takes {} arguments, {} are given; its parameters are {}",
                function.name(),
                params.len(),
                group.args.len(),
                wanted.join(", ")
            ));
        }
        let mut block = Vec::new();
        for (param, arg) in params.iter().zip(&group.args) {
            let bytes = arg
                .bytes(param, &|pointer| self.address(pointer))
                .map_err(|problem| format!("argument for {}: {problem}", param.name))?;
            block.resize(param.offset as usize, 0);
            block.extend(bytes);
        }
        Ok(block)
    }

    fn abandon(&self, seed: u64) -> Outcome {
        Outcome {
            seed,
            reports: self.machine.take_reports(),
            launches: Vec::new(),
            traces: Vec::new(),
            buffers: vec![None; self.addresses.len()],
        }
    }

    fn finish(self, seed: u64) -> Result<Outcome> {
        let machine = &self.machine;
        for device in 0..machine.device_count() {
            match machine.synchronize_device(device) {
                Ok(()) | Err(Error::Faulted(_)) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        let mut launches = machine.take_launches();
        launches.sort_by_key(|record| record.launch);
        let traces = machine
            .take_trace()
            .into_iter()
            .map(|(launch, lines)| self.trace(launch, &lines))
            .collect();
        let mut buffers = Vec::new();
        for (placed, &address) in self.plan.buffers.iter().zip(&self.addresses) {
            let mut bytes = vec![0; placed.contents.size()];
            buffers.push(match machine.read(address, &mut bytes) {
                Ok(()) => Some(bytes),
                Err(Error::Faulted(_)) => None,
                Err(error) => return Err(refused(error)),
            });
        }
        Ok(Outcome {
            seed,
            reports: machine.take_reports(),
            launches,
            traces,
            buffers,
        })
    }

    fn trace(&self, launch: u32, lines: &[TraceLine]) -> Trace {
        let program = self.launched.get(launch as usize).map(Function::program);
        let steps = lines.iter().map(|line| {
            let inst = program.and_then(|program| program.insts.get(line.pc as usize));
            Step {
                block: line.block,
                warp: line.warp,
                lanes: line.lanes,
                line: inst.map_or(0, |inst| inst.line),
                text: inst.map_or(String::new(), |inst| inst.text.to_string()),
            }
        });
        Trace {
            launch,
            steps: steps.collect(),
        }
    }
}

fn find_entry(group: &Group, module: &Module) -> std::result::Result<Function, String> {
    if let Some(name) = &group.entry {
        return module.function(name).map_err(|error| error.to_string());
    }
    let functions = module.functions();
    match &functions[..] {
        [only] => Ok(only.clone()),
        [] => Err("the file has no kernel".to_owned()),
        many => {
            let names: Vec<&str> = many.iter().map(Function::name).collect();
            Err(format!(
                "--entry is missing; the file has {}",
                names.join(", ")
            ))
        }
    }
}

/// An error of the library as one of the command.
fn refused(error: Error) -> Failure {
    Failure::Usage(match error {
        Error::Syntax(error) => super::quoted(error.line, &error.message, &error.text),
        Error::Load(error) => super::quoted(error.line, &error.message, &error.text),
        Error::WrongArch { .. } => format!("{error}; see --arch"),
        other => other.to_string(),
    })
}
