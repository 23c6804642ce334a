//! What tests of the instructions share: a kernel from PTX text, launched on bare memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::counters::Counters;
use crate::machine::{Arch, Checks, Grid, GridRun, Launches, RunContext, SliceEnd};
use crate::memory::{Allocation, Memory, Owner};
use crate::program::{Globals, LoadError, Program, Symbol, assemble};
use crate::ptx::ast::{Space, Statement, Variable};
use crate::race::{Clock, Config, Detector};
use crate::report::Report;

/// A launch: change the fields that a test is about.
#[derive(Clone)]
pub(crate) struct Launch<'m> {
    pub memory: &'m Memory,
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    pub cluster: [u32; 3],
    pub dynamic_shared: u32,
    pub checks: Checks,
    pub seed: u64,
    pub arch: Arch,
    /// Blocks that are resident together at most.
    pub resident: u64,
    /// Warp instructions at most.
    pub budget: u64,
}

/// How a launch ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub reports: Vec<Report>,
    pub counters: Counters,
    /// What ended it early.
    pub fault: Option<Report>,
}

impl<'m> Launch<'m> {
    /// One warp, every check, `sm_90a`.
    pub fn new(memory: &'m Memory) -> Self {
        Self {
            memory,
            blocks: [1; 3],
            threads: [32, 1, 1],
            cluster: [1; 3],
            dynamic_shared: 0,
            checks: Checks::default(),
            seed: 1,
            arch: Arch::SM_90A,
            resident: 64,
            budget: 10_000_000,
        }
    }

    /// Runs `entry` of a module to its end. Panics when the text cannot be loaded.
    pub fn run(&self, ptx: &str, entry: &str, params: &[u8]) -> Outcome {
        let program = load(ptx, entry, self.memory).unwrap_or_else(|error| panic!("{error}"));
        self.run_program(program, params)
    }

    /// Runs a program that [`load`] made.
    pub fn run_program(&self, program: Arc<Program>, params: &[u8]) -> Outcome {
        assert_eq!(
            params.len(),
            program.param_bytes as usize,
            "bytes of parameters"
        );
        let grid = Grid {
            device: 0,
            launch: 1,
            first_uid: 0,
            seed: self.seed,
            arch: self.arch,
            blocks: self.blocks,
            threads: self.threads,
            cluster: self.cluster,
            explicit_cluster: self.cluster != [1; 3],
            dynamic_shared: self.dynamic_shared,
            params: params.into(),
            dependency: Arc::new(AtomicBool::new(true)),
            dependency_clock: Arc::default(),
            dependents: Arc::new(AtomicBool::new(false)),
        };
        let launches: Launches = HashMap::from([(1, (Arc::clone(&program), grid.clone()))]);
        let mut detector = self.checks.races.then(|| Detector::new(Config::default()));
        let mut run = GridRun::new(program, grid, Clock::default(), self.resident, 1);
        let mut reports = Vec::new();
        let fault = loop {
            let end = run.slice(&mut RunContext {
                memory: self.memory.snapshot(),
                checks: self.checks,
                race: detector.as_mut(),
                reports: &mut reports,
                threads: 1,
                budget: self.budget,
                trace: None,
                launches: &launches,
            });
            match end {
                SliceEnd::Progress => {}
                SliceEnd::Done => break None,
                SliceEnd::Fault(fault) => break Some(fault.0),
                SliceEnd::Blocked => panic!("the grid waits for another grid"),
            }
        };
        Outcome {
            reports,
            counters: run.counters,
            fault,
        }
    }
}

/// Runs blocks and threads along x to the end; panics on a fault.
pub(crate) fn run(
    ptx: &str,
    entry: &str,
    blocks: u32,
    threads: u32,
    params: &[u8],
    memory: &Memory,
    checks: Checks,
) -> (Vec<Report>, Counters) {
    let outcome = along_x(blocks, threads, memory, checks).run(ptx, entry, params);
    if let Some(fault) = outcome.fault {
        panic!("{fault}");
    }
    (outcome.reports, outcome.counters)
}

fn along_x(blocks: u32, threads: u32, memory: &Memory, checks: Checks) -> Launch<'_> {
    Launch {
        blocks: [blocks, 1, 1],
        threads: [threads, 1, 1],
        checks,
        ..Launch::new(memory)
    }
}

/// Why a module cannot be loaded; panics when it can.
pub(crate) fn load_error(ptx: &str, entry: &str) -> LoadError {
    match load(ptx, entry, &Memory::new(1, false)) {
        Ok(_) => panic!("the module loads"),
        Err(error) => error,
    }
}

/// An entry of a module, its variables placed in `memory`. Panics on a syntax error.
pub(crate) fn load(ptx: &str, entry: &str, memory: &Memory) -> Result<Arc<Program>, LoadError> {
    let module = crate::ptx::parse(ptx).unwrap_or_else(|error| panic!("{error}"));
    let function = module
        .functions
        .iter()
        .find(|function| function.is_entry && function.name == entry)
        .unwrap_or_else(|| panic!("there is no entry {entry}"));
    let mut variables: Vec<&Variable> = module.variables.iter().collect();
    for function in &module.functions {
        lift(function.body.as_deref().unwrap_or_default(), &mut variables);
    }
    let mut globals = Globals::default();
    let mut placed = Vec::new();
    for variable in variables {
        let symbol: fn(u64) -> Symbol = match variable.space {
            Space::Global => Symbol::Global,
            Space::Const => Symbol::Const,
            Space::Shared => {
                globals.shared.push(variable.clone());
                continue;
            }
            _ => continue,
        };
        let read_only = variable.space == Space::Const;
        let allocation = memory
            .allocate(Owner::Module(0), variable.bytes(), read_only)
            .expect("memory for a variable");
        globals
            .symbols
            .insert(variable.name.clone(), symbol(allocation.base()));
        placed.push((variable, allocation));
    }
    for (variable, allocation) in placed {
        allocation.write(0, &initial(variable, &globals));
    }
    assemble(&module, ptx, function, &globals).map(Arc::new)
}

fn lift<'m>(statements: &'m [Statement], all: &mut Vec<&'m Variable>) {
    for statement in statements {
        match statement {
            Statement::Variable(variable)
                if matches!(variable.space, Space::Global | Space::Const) =>
            {
                all.push(variable);
            }
            Statement::Block(inner) => lift(inner, all),
            _ => {}
        }
    }
}

fn initial(variable: &Variable, globals: &Globals) -> Vec<u8> {
    let mut bytes = vec![0; variable.bytes() as usize];
    if let Some(init) = &variable.init {
        bytes[..init.bytes.len()].copy_from_slice(&init.bytes);
        for (offset, name, addend, _) in &init.addresses {
            let Some(Symbol::Global(base) | Symbol::Const(base)) = globals.symbols.get(name) else {
                panic!("{name} is not a variable in global memory");
            };
            let address = base.wrapping_add_signed(*addend).to_le_bytes();
            bytes[*offset as usize..][..8].copy_from_slice(&address);
        }
    }
    bytes
}

/// A parameter block of 64-bit values, such as addresses.
pub(crate) fn params(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Device memory that holds `data`.
pub(crate) fn buffer<T: bytemuck::Pod>(memory: &Memory, data: &[T]) -> Arc<Allocation> {
    let bytes: &[u8] = bytemuck::cast_slice(data);
    let allocation = empty(memory, bytes.len() as u64);
    allocation.write(0, bytes);
    allocation
}

/// Device memory that nobody has written.
pub(crate) fn empty(memory: &Memory, bytes: u64) -> Arc<Allocation> {
    memory
        .allocate(Owner::Device(0), bytes, false)
        .expect("device memory")
}

/// What an allocation holds.
pub(crate) fn contents<T: bytemuck::Pod>(allocation: &Allocation) -> Vec<T> {
    let mut bytes = vec![0; allocation.bytes() as usize];
    allocation.read(0, &mut bytes);
    bytes
        .chunks_exact(size_of::<T>())
        .map(bytemuck::pod_read_unaligned)
        .collect()
}
