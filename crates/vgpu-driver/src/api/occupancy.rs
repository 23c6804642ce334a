//! How many blocks and clusters fit.

use std::ffi::{c_int, c_uint};

use tollgate_vgpu::machine::SHARED_PER_BLOCK;

use super::functions::find;
use super::launches::describe;
use crate::abi::{CuBlockToShared, CuFunction, CuLaunchConfig};
use crate::boundary::{In, Out, exports};
use crate::driver::driver;
use crate::failure::{Failure, Outcome, code};

exports! {
    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<c_int>, function: CuFunction,
        block: c_int, shared: usize) => max_blocks;
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: Out<c_int>, function: CuFunction,
        block: c_int, shared: usize, flags: c_uint) => max_blocks_with_flags;
    cuOccupancyMaxPotentialBlockSize(grid: Out<c_int>, block: Out<c_int>, function: CuFunction,
        shared_of: CuBlockToShared, shared: usize, limit: c_int) => max_block;
    cuOccupancyMaxPotentialBlockSizeWithFlags(grid: Out<c_int>, block: Out<c_int>,
        function: CuFunction, shared_of: CuBlockToShared, shared: usize, limit: c_int,
        flags: c_uint) => max_block_with_flags;
    cuOccupancyAvailableDynamicSMemPerBlock(shared: Out<usize>, function: CuFunction,
        blocks: c_int, block: c_int) => available_shared;
    cuOccupancyMaxPotentialClusterSize(size: Out<c_int>, function: CuFunction,
        config: In<CuLaunchConfig>) => max_cluster;
    cuOccupancyMaxActiveClusters(clusters: Out<c_int>, function: CuFunction,
        config: In<CuLaunchConfig>) => max_clusters;
}

/// A count of threads or blocks.
fn count(value: c_int) -> Outcome<u32> {
    u32::try_from(value)
        .ok()
        .filter(|&count| count > 0)
        .ok_or_else(|| Failure::value(format!("{value} where a count is wanted")))
}

/// Bytes of dynamic shared memory; more than there can be is as bad as much more.
fn shared_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn max_blocks(blocks: Out<c_int>, function: CuFunction, block: c_int, shared: usize) -> Outcome {
    max_blocks_with_flags(blocks, function, block, shared, 0)
}

fn max_blocks_with_flags(
    blocks: Out<c_int>,
    function: CuFunction,
    block: c_int,
    shared: usize,
    flags: c_uint,
) -> Outcome {
    let driver = driver()?;
    let function = find(driver, function)?;
    if flags > 1 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    let fit = driver.machine.max_active_blocks(
        &function.function,
        count(block)?,
        shared_bytes(shared),
    )?;
    blocks.set(fit as c_int)
}

fn max_block(
    grid: Out<c_int>,
    block: Out<c_int>,
    function: CuFunction,
    shared_of: CuBlockToShared,
    shared: usize,
    limit: c_int,
) -> Outcome {
    max_block_with_flags(grid, block, function, shared_of, shared, limit, 0)
}

fn max_block_with_flags(
    grid: Out<c_int>,
    block: Out<c_int>,
    function: CuFunction,
    shared_of: CuBlockToShared,
    shared: usize,
    limit: c_int,
    flags: c_uint,
) -> Outcome {
    let driver = driver()?;
    let function = find(driver, function)?;
    if flags > 1 || limit < 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    let most = function.function.attributes().max_threads_per_block;
    let limit = if limit == 0 {
        most
    } else {
        most.min(limit as u32)
    };
    let dynamic = |threads: u32| match shared_of {
        // SAFETY: the program gave the function for this question.
        Some(shared_of) => shared_bytes(unsafe { shared_of(threads as c_int) }),
        None => shared_bytes(shared),
    };
    let machine = &driver.machine;
    let (min_grid, size) = machine.max_potential_block_size(&function.function, dynamic, limit)?;
    block.check()?;
    grid.set(min_grid as c_int)?;
    block.set(size as c_int)
}

/// The most dynamic shared memory with which `blocks` blocks still fit an SM: found by halving,
/// since more memory never lets more blocks fit.
fn available_shared(
    shared: Out<usize>,
    function: CuFunction,
    blocks: c_int,
    block: c_int,
) -> Outcome {
    let driver = driver()?;
    let function = find(driver, function)?;
    let (blocks, threads) = (count(blocks)?, count(block)?);
    let fits = |bytes: u32| -> Outcome<bool> {
        let fit = driver
            .machine
            .max_active_blocks(&function.function, threads, bytes);
        Ok(fit? >= blocks)
    };
    let allowed = function
        .function
        .attributes()
        .max_dynamic_shared
        .max(SHARED_PER_BLOCK.saturating_sub(function.function.attributes().static_shared));
    let (mut low, mut high) = (0, allowed);
    if !fits(0)? {
        return Err(Failure::value(format!(
            "{blocks} blocks of {threads} threads do not fit"
        )));
    }
    while low < high {
        let middle = high - (high - low) / 2;
        if fits(middle)? {
            low = middle
        } else {
            high = middle - 1
        }
    }
    shared.set(low as usize)
}

fn max_cluster(size: Out<c_int>, function: CuFunction, config: In<CuLaunchConfig>) -> Outcome {
    let driver = driver()?;
    let function = find(driver, function)?;
    let launch = describe(&config.get()?)?;
    size.set(
        driver
            .machine
            .max_cluster_size(&function.function, &launch.config)? as c_int,
    )
}

fn max_clusters(clusters: Out<c_int>, function: CuFunction, config: In<CuLaunchConfig>) -> Outcome {
    let driver = driver()?;
    let function = find(driver, function)?;
    let launch = describe(&config.get()?)?;
    clusters.set(
        driver
            .machine
            .max_active_clusters(&function.function, &launch.config)? as c_int,
    )
}
