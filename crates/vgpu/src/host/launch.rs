//! Launches, and everything that can be wrong with one.

use std::sync::Arc;

use super::engine::host_report;
use super::machine::Machine;
use super::occupancy::{Occupancy, PORTABLE_CLUSTER, occupancy, product, registers};
use super::work::Work;
use super::{Error, Function, Result, Stream};
use crate::machine::{Rng, THREADS_PER_BLOCK};
use crate::report::Kind;

/// Blocks of a grid along each axis at most.
const GRID_LIMITS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Threads of a block along each axis at most.
const BLOCK_LIMITS: [u32; 3] = [1024, 1024, 64];
/// Blocks of a grid at most that the race detector has names for.
const RACE_CHECKED_BLOCKS: u64 = 1 << 30;
const AXES: [char; 3] = ['x', 'y', 'z'];

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; `None` as the function's attributes and directives say.
    pub cluster: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Whether all blocks are to be resident at once.
    pub cooperative: bool,
    /// Whether it may start before the launch in front of it in the stream is complete, as soon as that
    /// one says `griddepcontrol.launch_dependents`.
    pub programmatic_dependent: bool,
    /// Seed of its schedule; `None`: from the machine's seed and the launch's number.
    pub seed: Option<u64>,
}

impl LaunchConfig {
    /// A plain launch.
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self {
            grid,
            block,
            ..Self::default()
        }
    }
}

/// A launch that was found possible.
pub(super) struct KernelWork {
    pub(super) function: Function,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) cluster: [u32; 3],
    pub(super) explicit_cluster: bool,
    pub(super) dynamic_shared: u32,
    pub(super) programmatic_dependent: bool,
    pub(super) seed: Option<u64>,
    pub(super) params: Arc<[u8]>,
    pub(super) registers: u32,
    pub(super) occupancy: Occupancy,
    /// Blocks that the device holds at once.
    pub(super) resident_blocks: u64,
}

impl KernelWork {
    /// Seed of the schedule of launch number `launch`.
    pub(super) fn seed_of(&self, launch: u32, machine_seed: u64) -> u64 {
        self.seed
            .unwrap_or_else(|| Rng::new(machine_seed, u64::from(launch)).next())
    }
}

fn refuse<T>(message: String) -> Result<T> {
    Err(Error::InvalidLaunch(message))
}

/// Checks a launch against the device, the kernel's directives and attributes. Without `params` they
/// are not looked at, for questions about occupancy.
pub(super) fn validate(
    function: &Function,
    config: &LaunchConfig,
    params: Option<&[u8]>,
) -> Result<KernelWork> {
    let arch = function.arch();
    let program = function.program();
    let attributes = function.attributes();
    for axis in 0..3 {
        let (blocks, threads, name) = (config.grid[axis], config.block[axis], AXES[axis]);
        if !(1..=GRID_LIMITS[axis]).contains(&blocks) {
            return refuse(format!(
                "the grid has {blocks} blocks along {name}; 1 to {} are possible",
                GRID_LIMITS[axis]
            ));
        }
        if !(1..=BLOCK_LIMITS[axis]).contains(&threads) {
            return refuse(format!(
                "the block has {threads} threads along {name}; 1 to {} are possible",
                BLOCK_LIMITS[axis]
            ));
        }
    }
    let threads = product(config.block);
    if threads > u64::from(THREADS_PER_BLOCK) {
        return refuse(format!(
            "the block has {threads} threads; {THREADS_PER_BLOCK} at most are possible"
        ));
    }
    let threads = threads as u32;
    check_directives(function, config.block, threads)?;
    if config.dynamic_shared > attributes.max_dynamic_shared {
        let optin = arch
            .shared_per_block_optin
            .saturating_sub(attributes.static_shared);
        return refuse(format!(
            "{} bytes of dynamic shared memory; the function allows {} (set_max_dynamic_shared \
             allows up to {optin})",
            config.dynamic_shared, attributes.max_dynamic_shared
        ));
    }
    if let Some(params) = params
        && params.len() != program.param_bytes as usize
    {
        return refuse(format!(
            "{} bytes of parameters; {} takes {}",
            params.len(),
            function.name(),
            program.param_bytes
        ));
    }
    let (cluster, explicit_cluster) = find_cluster(function, config)?;
    let occupancy = occupancy(program, arch, threads, config.dynamic_shared);
    if let Some(declared) = program.directives.max_registers
        && occupancy.blocks_per_sm == 0
    {
        return refuse(format!(
            "{threads} threads of {declared} registers do not fit the {} registers of an SM",
            arch.registers_per_sm
        ));
    }
    let resident_blocks = u64::from(occupancy.blocks_per_sm) * u64::from(arch.multiprocessors);
    let blocks = product(config.grid);
    if config.cooperative && blocks > resident_blocks {
        return refuse(format!(
            "a cooperative grid of {blocks} blocks; the device holds {resident_blocks} at once \
             ({} on each of {} SMs, limited by {})",
            occupancy.blocks_per_sm,
            arch.multiprocessors,
            occupancy.limited_by.in_words()
        ));
    }
    Ok(KernelWork {
        function: function.clone(),
        grid: config.grid,
        block: config.block,
        cluster,
        explicit_cluster,
        dynamic_shared: config.dynamic_shared,
        programmatic_dependent: config.programmatic_dependent,
        seed: config.seed,
        params: params.unwrap_or_default().into(),
        registers: registers(program, arch, threads),
        occupancy,
        resident_blocks,
    })
}

impl super::Limit {
    fn in_words(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Blocks => "blocks",
            Self::Registers => "registers",
            Self::SharedMemory => "shared memory",
        }
    }
}

/// `.reqntid`, `.maxntid`.
fn check_directives(function: &Function, block: [u32; 3], threads: u32) -> Result<()> {
    let directives = &function.program().directives;
    let [x, y, z] = block;
    if let Some(required) = directives.required_threads
        && required != block
    {
        let [rx, ry, rz] = required;
        return refuse(format!(
            "a block of {x}x{y}x{z} threads; {} requires {rx}x{ry}x{rz} (.reqntid)",
            function.name()
        ));
    }
    if let Some(most) = directives.max_threads.map(product)
        && u64::from(threads) > most
    {
        return refuse(format!(
            "the block has {threads} threads; {} allows {most} (.maxntid)",
            function.name()
        ));
    }
    Ok(())
}

/// The cluster of a launch, and whether anybody named one.
fn find_cluster(function: &Function, config: &LaunchConfig) -> Result<([u32; 3], bool)> {
    let arch = function.arch();
    let attributes = function.attributes();
    let directives = &function.program().directives;
    if let (Some(given), Some(required)) = (config.cluster, directives.required_cluster)
        && given != required
    {
        return refuse(format!(
            "a cluster of {given:?} blocks; {} requires {required:?} (.reqnctapercluster)",
            function.name()
        ));
    }
    let Some(cluster) = config.cluster.or(attributes.cluster) else {
        if attributes.cluster_must_be_set {
            return refuse(format!(
                "{} needs a cluster size (.explicitcluster)",
                function.name()
            ));
        }
        return Ok(([1; 3], false));
    };
    let size = product(cluster);
    if arch.cluster_blocks == 0 {
        return refuse(format!("a cluster; {} has no clusters", arch.name));
    }
    let opted_in = attributes.non_portable_cluster;
    let most = if opted_in {
        arch.cluster_blocks
    } else {
        arch.cluster_blocks.min(PORTABLE_CLUSTER)
    };
    if size == 0 || size > u64::from(most) {
        return refuse(format!(
            "a cluster of {size} blocks; 1 to {most} are possible ({})",
            if opted_in {
                "with non-portable sizes"
            } else {
                "more with allow_non_portable_cluster"
            }
        ));
    }
    if let Some(rank) = directives.max_cluster_rank
        && size > u64::from(rank)
    {
        return refuse(format!(
            "a cluster of {size} blocks; {} allows {rank} (.maxclusterrank)",
            function.name()
        ));
    }
    for axis in 0..3 {
        let (blocks, per) = (config.grid[axis], cluster[axis]);
        if !blocks.is_multiple_of(per) {
            return refuse(format!(
                "a grid of {blocks} blocks along {} is not divided by clusters of {per}",
                AXES[axis]
            ));
        }
    }
    Ok((cluster, true))
}

impl Machine {
    /// Launches a kernel in a stream. `params` is its parameter block, laid out as
    /// [`Function::params`] says.
    ///
    /// # Errors
    /// A launch that the device cannot take, which is reported as well; a module of another device or
    /// machine; a fault of the device.
    pub fn launch(
        &self,
        stream: Stream,
        function: &Function,
        config: &LaunchConfig,
        params: &[u8],
    ) -> Result<()> {
        let work = self.prepare(stream.device, function, config, params)?;
        self.enqueue(stream, Work::Kernel(Arc::new(work)))?;
        Ok(())
    }

    /// Checks a launch on a device, and reports what is wrong with it.
    pub(super) fn prepare(
        &self,
        device: u32,
        function: &Function,
        config: &LaunchConfig,
        params: &[u8],
    ) -> Result<KernelWork> {
        self.owns(function)?;
        self.shared.queues().healthy(device)?;
        let result = if function.device() == device {
            validate(function, config, Some(params)).and_then(|work| self.check_size(work))
        } else {
            refuse(format!(
                "{} was loaded on device {}, the stream is of device {device}",
                function.name(),
                function.device()
            ))
        };
        if let Err(Error::InvalidLaunch(message)) = &result {
            let seed = self.config().seed;
            let mut report = host_report(Kind::Launch, message.clone(), device, seed, 0);
            report.kernel = function.name().to_owned();
            report.site.action = format!("launch of {}", function.name());
            self.shared.tell(&[report]);
        }
        result
    }

    fn check_size(&self, work: KernelWork) -> Result<KernelWork> {
        let blocks = product(work.grid);
        if self.config().checks.races && blocks > RACE_CHECKED_BLOCKS {
            return refuse(format!(
                "{blocks} blocks; {RACE_CHECKED_BLOCKS} at most can be checked for races"
            ));
        }
        Ok(work)
    }
}
