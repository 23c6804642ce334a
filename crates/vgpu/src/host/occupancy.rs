//! How many blocks of a kernel a multiprocessor (SM) holds at once.

use serde::Serialize;

use super::launch::{KernelWork, LaunchConfig, validate};
use super::machine::Machine;
use super::{Error, Function, Result};
use crate::machine::{Arch, THREADS_PER_BLOCK};
use crate::program::Program;

const WARP: u32 = 32;
/// Registers are given to warps in portions of this.
const REGISTER_PORTION: u32 = 256;
/// The parts of an SM, each of which has its share of the registers.
const SM_PARTS: u32 = 4;
/// Shared memory is given to blocks in portions of this.
const SHARED_PORTION: u32 = 128;
/// Blocks of a cluster that every device with clusters can run.
pub(super) const PORTABLE_CLUSTER: u32 = 8;

/// What keeps an SM from holding more blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Threads of an SM.
    Threads,
    /// Blocks of an SM.
    Blocks,
    /// Registers.
    Registers,
    /// Shared memory.
    SharedMemory,
}

/// How full an SM is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Occupancy {
    /// Blocks an SM holds.
    pub blocks_per_sm: u32,
    /// Their warps.
    pub warps_per_sm: u32,
    /// These warps as a share of what an SM has room for, 0 to 1.
    pub share: f64,
    /// What there is not more of.
    pub limited_by: Limit,
}

/// Registers of a thread in a block of `threads`: as declared, or estimated but within what ptxas would
/// have kept to make the declared blocks fit.
pub(super) fn registers(program: &Program, arch: Arch, threads: u32) -> u32 {
    let directives = &program.directives;
    if let Some(declared) = directives.max_registers {
        return declared;
    }
    let declared = directives.required_threads.or(directives.max_threads);
    let declared = declared
        .map(product)
        .map_or(0, |n| n.min(u64::from(u32::MAX)) as u32);
    let blocks = match declared {
        0 => 1,
        _ => directives.min_blocks_per_sm.unwrap_or(1).max(1),
    };
    let warps = threads
        .max(declared)
        .div_ceil(WARP)
        .max(1)
        .saturating_mul(blocks);
    let room = arch.registers_per_sm / warps.next_multiple_of(SM_PARTS) / REGISTER_PORTION
        * REGISTER_PORTION
        / WARP;
    program.registers_per_thread.min(room.max(16))
}

pub(super) fn product(dims: [u32; 3]) -> u64 {
    dims.iter()
        .fold(1_u64, |all, &n| all.saturating_mul(u64::from(n)))
}

/// Occupancy of a kernel; 0 blocks where not even one fits.
pub(super) fn occupancy(program: &Program, arch: Arch, threads: u32, dynamic: u32) -> Occupancy {
    let warps = threads.div_ceil(WARP).max(1);
    let per_warp = (registers(program, arch, threads) * WARP).next_multiple_of(REGISTER_PORTION);
    let warps_by_registers = arch.registers_per_sm / SM_PARTS / per_warp.max(1) * SM_PARTS;
    let shared = program
        .static_shared
        .saturating_add(dynamic)
        .saturating_add(arch.shared_reserved)
        .checked_next_multiple_of(SHARED_PORTION)
        .unwrap_or(u32::MAX);
    let limits = [
        (arch.threads_per_sm / (warps * WARP), Limit::Threads),
        (arch.blocks_per_sm, Limit::Blocks),
        (warps_by_registers / warps, Limit::Registers),
        (arch.shared_per_sm / shared.max(1), Limit::SharedMemory),
    ];
    // The first of equals: what a reader can do least about.
    let (blocks, limited_by) = limits
        .into_iter()
        .reduce(|least, other| if other.0 < least.0 { other } else { least })
        .unwrap_or((0, Limit::Blocks));
    let held = blocks * warps;
    Occupancy {
        blocks_per_sm: blocks,
        warps_per_sm: held,
        share: f64::from(held) / f64::from(arch.threads_per_sm / WARP),
        limited_by,
    }
}

impl Machine {
    /// Blocks of a kernel that an SM holds at once.
    ///
    /// # Errors
    /// A block of no threads, or of more than there can be.
    pub fn max_active_blocks(
        &self,
        function: &Function,
        block_threads: u32,
        dynamic_shared: u32,
    ) -> Result<u32> {
        if !(1..=THREADS_PER_BLOCK).contains(&block_threads) {
            return Err(Error::InvalidValue(format!(
                "blocks of {block_threads} threads; 1 to {THREADS_PER_BLOCK} are possible"
            )));
        }
        let attributes = function.attributes();
        if block_threads > attributes.max_threads_per_block
            || dynamic_shared > attributes.max_dynamic_shared
        {
            return Ok(0);
        }
        let arch = function.arch();
        Ok(occupancy(function.program(), arch, block_threads, dynamic_shared).blocks_per_sm)
    }

    /// The block size with which an SM holds the most threads, and the blocks that fill the device with
    /// it: `(blocks, threads)`. `dynamic_shared` says how much a block of so many threads needs; `limit`
    /// bounds the threads, 0 does not.
    ///
    /// # Errors
    /// A kernel of which no block fits.
    pub fn max_potential_block_size(
        &self,
        function: &Function,
        dynamic_shared: impl Fn(u32) -> u32,
        limit: u32,
    ) -> Result<(u32, u32)> {
        let most = function.attributes().max_threads_per_block;
        let most = if limit == 0 { most } else { most.min(limit) };
        let mut best = (0, 0, 0);
        let mut threads = most;
        while threads > 0 {
            let blocks = self.max_active_blocks(function, threads, dynamic_shared(threads))?;
            if blocks * threads > best.0 {
                best = (blocks * threads, blocks, threads);
            }
            threads = (threads - 1) / WARP * WARP;
        }
        match best {
            (0, ..) => Err(Error::InvalidValue(format!(
                "no block of {} fits an SM",
                function.name()
            ))),
            (_, blocks, threads) => Ok((blocks * function.arch().multiprocessors, threads)),
        }
    }

    /// Clusters of a launch that the device holds at once. Which SMs share a GPC is not modelled: any
    /// SMs can hold a cluster.
    ///
    /// # Errors
    /// A launch that is not possible.
    pub fn max_active_clusters(&self, function: &Function, config: &LaunchConfig) -> Result<u32> {
        let work = self.for_occupancy(function, config)?;
        let blocks = work.occupancy.blocks_per_sm * function.arch().multiprocessors;
        Ok(blocks / product(work.cluster).max(1) as u32)
    }

    /// Blocks of the largest cluster of a kernel with this block and shared memory.
    ///
    /// # Errors
    /// A launch that is not possible without a cluster.
    pub fn max_cluster_size(&self, function: &Function, config: &LaunchConfig) -> Result<u32> {
        let config = LaunchConfig {
            grid: [1, 1, 1],
            cluster: None,
            ..*config
        };
        let work = validate(function, &config, None)?;
        let arch = function.arch();
        let held = work.occupancy.blocks_per_sm * arch.multiprocessors;
        let most = if function.attributes().non_portable_cluster {
            arch.cluster_blocks
        } else {
            arch.cluster_blocks.min(PORTABLE_CLUSTER)
        };
        Ok(most.min(held))
    }

    fn for_occupancy(&self, function: &Function, config: &LaunchConfig) -> Result<KernelWork> {
        // The grid does not matter, and callers often leave it out.
        let cluster = config.cluster.or(function.attributes().cluster);
        let grid = cluster.unwrap_or([1; 3]);
        validate(function, &LaunchConfig { grid, ..*config }, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(registers: u32, shared: u32) -> Program {
        let text = ".version 8.0 .target sm_80 .address_size 64 .visible .entry k() { exit; }";
        let module = crate::ptx::parse(text).unwrap();
        let globals = crate::program::Globals::default();
        let mut program =
            crate::program::assemble(&module, text, &module.functions[0], &globals).unwrap();
        program.registers_per_thread = registers;
        program.static_shared = shared;
        program
    }

    // Figures of NVIDIA's occupancy calculator.
    #[test]
    fn the_scarcest_resource_limits() {
        let of = |registers, shared, threads| {
            let found = occupancy(&program(registers, shared), Arch::SM_80, threads, 0);
            (found.blocks_per_sm, found.warps_per_sm, found.limited_by)
        };
        assert_eq!(of(32, 0, 256), (8, 64, Limit::Threads));
        assert_eq!(of(32, 0, 32), (32, 32, Limit::Blocks));
        assert_eq!(of(64, 0, 256), (4, 32, Limit::Registers));
        assert_eq!(of(128, 0, 128), (4, 16, Limit::Registers));
        assert_eq!(of(32, 48 * 1024, 256), (3, 24, Limit::SharedMemory));
        // 255 registers are given as 256: 65,536 / 8,192 are 8 warps.
        assert_eq!(of(255, 0, 64), (4, 8, Limit::Registers));
    }

    #[test]
    fn an_estimate_never_keeps_a_block_from_running() {
        for threads in [1, 100, 512, 1024] {
            let found = occupancy(&program(255, 0), Arch::SM_90A, threads, 0);
            assert!(found.blocks_per_sm >= 1, "{threads} threads");
        }
        assert_eq!(registers(&program(255, 0), Arch::SM_90A, 1024), 64);
    }
}
