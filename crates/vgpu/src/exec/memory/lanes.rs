//! The lanes of one access, sorted by the memory they go to and checked.
//!
//! Handlers see [`Group`]s: lanes whose bytes lie in one allocation, one block's shared memory, or the
//! like, in bounds and aligned. Nearly always there is one group, and its addresses run on from lane
//! to lane; everything here is made to find that out quickly.

use std::sync::atomic::AtomicUsize;

use crate::exec::space::locate;
use crate::exec::{Core, Fault, Place, Problem, Target};
use crate::lane::{LANES, lanes};
use crate::machine::{CLUSTER_SHIFT, WINDOW_BYTES};
use crate::machine::{LOCAL_START, LOCAL_WINDOW, PARAM_WINDOW, SHARED_BASE, SHARED_WINDOW};
use crate::ptx::ast::Space;
use crate::race::{self, Access, Kind, Order, Proxy, Scope};
use crate::report;

/// What an instruction does to memory: the same for all lanes.
#[derive(Debug)]
pub(in crate::exec) struct Use {
    /// The space of its addresses.
    pub space: Space,
    /// Reads, writes, or both at once.
    pub kind: Kind,
    /// `.sem`
    pub order: Order,
    /// `.scope`
    pub scope: Scope,
    /// Bytes a lane, a power of two.
    pub bytes: u32,
    /// Bytes of an element of the vector.
    pub unit: u32,
    /// The allocation it went to the last time.
    pub hint: AtomicUsize,
}

/// How the addresses of a group lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::exec) enum Shape {
    /// The lanes are neighbours, and so are their bytes.
    Run,
    /// All lanes access the same bytes.
    Same,
    /// Anything else.
    Scattered,
}

/// Memory that the lanes of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::exec) enum Region {
    /// The allocation with this index.
    Allocation(usize),
    /// Shared memory of the block with this rank.
    Shared(usize),
    /// Each lane's local memory.
    Local,
    /// The parameter block.
    Param,
}

/// Lanes whose bytes lie in one region.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) struct Group<'a> {
    pub region: Region,
    pub lanes: u32,
    pub shape: Shape,
    addresses: &'a [u64; LANES],
    /// Address at which the region begins; offsets count from it.
    base: u64,
}

impl Group<'_> {
    /// Offset of a lane's first byte in the region.
    #[inline(always)]
    pub fn offset(&self, lane: usize) -> u64 {
        self.addresses[lane].wrapping_sub(self.base)
    }

    /// The first lane.
    #[inline(always)]
    pub fn first(&self) -> usize {
        first_of(self.lanes)
    }
}

/// Finds how the addresses of `mask` lie.
#[inline(always)]
fn shape_of(addresses: &[u64; LANES], mask: u32, bytes: u32) -> Shape {
    let step = u64::from(bytes);
    let origin = addresses[first_of(mask)];
    // Loops over all lanes become vector code; which one it is to be, the second lane tells.
    if mask == u32::MAX && addresses[1] != origin {
        let differs = (0..LANES).fold(0, |bits, lane| {
            bits | (addresses[lane] ^ origin.wrapping_add(lane as u64 * step))
        });
        return if differs == 0 {
            Shape::Run
        } else {
            Shape::Scattered
        };
    }
    if mask == u32::MAX {
        let differs = addresses
            .iter()
            .fold(0, |bits, address| bits | (address ^ origin));
        return if differs == 0 {
            Shape::Same
        } else {
            Shape::Scattered
        };
    }
    let first = first_of(mask);
    let (mut same, mut run) = (true, (mask >> first) & (mask >> first).wrapping_add(1) == 0);
    for lane in lanes(mask) {
        same &= addresses[lane] == origin;
        run &= addresses[lane] == origin.wrapping_add((lane - first) as u64 * step);
    }
    match (same, run) {
        (true, _) => Shape::Same,
        (_, true) => Shape::Run,
        _ => Shape::Scattered,
    }
}

/// Whether every lane of `mask` has `bytes` aligned bytes within `size` bytes from `start` on.
#[inline(always)]
fn fit(
    addresses: &[u64; LANES],
    mask: u32,
    shape: Shape,
    bytes: u32,
    [start, size]: [u64; 2],
) -> bool {
    let Some(room) = size.checked_sub(u64::from(bytes)) else {
        return false;
    };
    let low = u64::from(bytes - 1);
    let one =
        |lane: usize| addresses[lane] & low == 0 && addresses[lane].wrapping_sub(start) <= room;
    match shape {
        Shape::Same => one(first_of(mask)),
        // What is between two lanes that fit, fits.
        Shape::Run => one(first_of(mask)) && one(last_of(mask)),
        Shape::Scattered if mask == u32::MAX => (0..LANES).fold(true, |all, lane| all & one(lane)),
        Shape::Scattered => lanes(mask).all(one),
    }
}

#[inline(always)]
fn first_of(mask: u32) -> usize {
    mask.trailing_zeros() as usize & (LANES - 1)
}

#[inline(always)]
fn last_of(mask: u32) -> usize {
    (31 - mask.leading_zeros() as usize) & (LANES - 1)
}

/// Sorts, checks, counts and tracks the lanes of an access, then hands them on group by group.
///
/// # Errors
/// A fault about the first lane whose bytes are out of bounds, freed, misaligned or not writable, and
/// whatever `act` returns.
#[inline(always)]
pub(in crate::exec) fn each_group(
    core: &mut Core<'_>,
    usage: &Use,
    addresses: &[u64; LANES],
    mask: u32,
    mut act: impl FnMut(&mut Core<'_>, &Group<'_>) -> Result<(), Box<Fault>>,
) -> Result<(), Box<Fault>> {
    let own = core.block;
    let target = match usage.space {
        Space::Global | Space::Const => Some(Target::Global),
        Space::Local | Space::Reg => Some(Target::Local),
        Space::Param => Some(Target::Param),
        Space::Shared | Space::SharedCluster => {
            let inside = |address: u64| address >> CLUSTER_SHIFT == 0;
            all(addresses, mask, inside).then_some(Target::Shared(own))
        }
        Space::Generic => {
            const FIRST: u64 = SHARED_WINDOW;
            const SPAN: u64 = PARAM_WINDOW + WINDOW_BYTES - FIRST;
            const { assert!(SHARED_WINDOW < LOCAL_WINDOW && LOCAL_WINDOW < PARAM_WINDOW) };
            let outside = |address: u64| address.wrapping_sub(FIRST) >= SPAN;
            all(addresses, mask, outside).then_some(Target::Global)
        }
    };
    if let Some(target) = target {
        return within(core, usage, target, addresses, mask, &mut act);
    }
    let mut targets = [Target::Global; LANES];
    let mut inside = [0; LANES];
    for lane in lanes(mask) {
        (targets[lane], inside[lane]) = locate(usage.space, own, addresses[lane]);
        // The error that only the address as it was written can tell: another block's memory.
        if usage.space == Space::Shared && targets[lane] != Target::Shared(own) {
            core.resolve(usage.space, lane, addresses[lane], u64::from(usage.bytes))?;
        }
    }
    let mut left = mask;
    while left != 0 {
        let target = targets[left.trailing_zeros() as usize];
        let same = lanes(left)
            .filter(|&lane| targets[lane] == target)
            .fold(0, |all, lane| all | 1 << lane);
        within(core, usage, target, &inside, same, &mut act)?;
        left &= !same;
    }
    Ok(())
}

/// Whether something holds for the addresses of all lanes.
#[inline(always)]
fn all(addresses: &[u64; LANES], mask: u32, holds: impl Fn(u64) -> bool) -> bool {
    if mask == u32::MAX {
        addresses
            .iter()
            .fold(true, |all, &address| all & holds(address))
    } else {
        lanes(mask).all(|lane| holds(addresses[lane]))
    }
}

/// The lanes of one target.
#[inline(always)]
fn within(
    core: &mut Core<'_>,
    usage: &Use,
    target: Target,
    addresses: &[u64; LANES],
    mask: u32,
    act: &mut impl FnMut(&mut Core<'_>, &Group<'_>) -> Result<(), Box<Fault>>,
) -> Result<(), Box<Fault>> {
    let first = addresses[first_of(mask)];
    let found = match target {
        Target::Global => core
            .env
            .memory
            .find_again(first, u64::from(usage.bytes), &usage.hint)
            .ok()
            .map(|index| {
                let allocation = core.env.memory.get(index);
                let region = Region::Allocation(index);
                (region, allocation.base(), allocation.bytes())
            }),
        Target::Shared(rank) => {
            // Where there is no such block, or no more, the check of each lane says so.
            let block = core.env.cluster.blocks.get(rank);
            let block = block.filter(|block| block.live_threads > 0);
            block.map(|block| {
                let size = block.shared.end() - SHARED_BASE;
                (
                    Region::Shared(rank),
                    u64::from(SHARED_BASE),
                    u64::from(size),
                )
            })
        }
        Target::Local => Some((
            Region::Local,
            u64::from(LOCAL_START),
            u64::from(core.env.program.local_bytes),
        )),
        Target::Param => Some((Region::Param, 0, core.env.grid.params.len() as u64)),
    };
    let Some((region, start, size)) = found else {
        return unusual(core, usage, target, addresses, mask, act);
    };
    let shape = shape_of(addresses, mask, usage.bytes);
    // Constant memory is told apart here, where the allocation is at hand.
    let allowed = match region {
        Region::Allocation(index) => {
            let read_only = core.env.memory.get(index).is_read_only();
            match usage.kind {
                Kind::Read => read_only || usage.space != Space::Const,
                Kind::Write | Kind::Rmw => !read_only,
            }
        }
        Region::Param => usage.kind == Kind::Read,
        Region::Shared(_) | Region::Local => true,
    };
    if !(allowed && fit(addresses, mask, shape, usage.bytes, [start, size])) {
        return unusual(core, usage, target, addresses, mask, act);
    }
    account(core, usage, target, addresses, mask, shape);
    let base = match region {
        Region::Allocation(_) => start,
        Region::Shared(_) | Region::Local | Region::Param => 0,
    };
    act(
        core,
        &Group {
            region,
            lanes: mask,
            shape,
            addresses,
            base,
        },
    )
}

/// Lanes that are wrong, or in several allocations.
#[cold]
#[inline(never)]
fn unusual(
    core: &mut Core<'_>,
    usage: &Use,
    target: Target,
    addresses: &[u64; LANES],
    mask: u32,
    act: &mut impl FnMut(&mut Core<'_>, &Group<'_>) -> Result<(), Box<Fault>>,
) -> Result<(), Box<Fault>> {
    let mut allocations = [0; LANES];
    for lane in lanes(mask) {
        if let Some(index) = check_lane(core, usage, target, lane, addresses[lane])? {
            allocations[lane] = index;
        }
    }
    account(core, usage, target, addresses, mask, Shape::Scattered);
    let mut left = mask;
    while left != 0 {
        let index = allocations[left.trailing_zeros() as usize];
        let same = lanes(left)
            .filter(|&lane| allocations[lane] == index)
            .fold(0, |all, lane| all | 1 << lane);
        let (region, base) = match target {
            Target::Global => {
                let base = core.env.memory.get(index).base();
                (Region::Allocation(index), base)
            }
            Target::Shared(rank) => (Region::Shared(rank), 0),
            Target::Local => (Region::Local, 0),
            Target::Param => (Region::Param, 0),
        };
        let group = Group {
            region,
            lanes: same,
            shape: Shape::Scattered,
            addresses,
            base,
        };
        act(core, &group)?;
        left &= !same;
    }
    Ok(())
}

/// Checks one lane; returns the index of its allocation in global memory.
fn check_lane(
    core: &Core<'_>,
    usage: &Use,
    target: Target,
    lane: usize,
    address: u64,
) -> Result<Option<usize>, Box<Fault>> {
    let bytes = u64::from(usage.bytes);
    let env = &core.env;
    let checked = env
        .place_in(target, address, bytes)
        .and_then(|place| env.aligned(place, address, bytes))
        .and_then(|place| match place {
            Place::Global { allocation, .. } => {
                let constant = env.memory.get(allocation).is_read_only();
                match usage.kind {
                    Kind::Write | Kind::Rmw if constant => Err(Problem::read_only(address)),
                    Kind::Read if usage.space == Space::Const && !constant => {
                        Err(Problem::not_constant(address))
                    }
                    _ => Ok(Some(allocation)),
                }
            }
            Place::Param { .. } if usage.kind != Kind::Read => Err(Problem::read_only(address)),
            _ => Ok(None),
        });
    checked.map_err(|problem| core.address_fault(lane, bytes, &problem))
}

/// Counts an access and tells the race detector.
#[inline(always)]
fn account(
    core: &mut Core<'_>,
    usage: &Use,
    target: Target,
    addresses: &[u64; LANES],
    mask: u32,
    shape: Shape,
) {
    let counters = &mut *core.env.counters;
    let (kind, bytes) = (usage.kind, usage.bytes);
    let space = match target {
        Target::Global if usage.space == Space::Const => {
            counters.constant_read.plain(mask, bytes);
            return;
        }
        Target::Global => {
            let traffic = match kind {
                Kind::Read => &mut counters.global_read,
                Kind::Write => &mut counters.global_write,
                Kind::Rmw => &mut counters.global_atomic,
            };
            traffic.global(addresses, mask, bytes, shape);
            race::Space::Global
        }
        Target::Shared(rank) => {
            let traffic = match kind {
                Kind::Read => &mut counters.shared_read,
                Kind::Write => &mut counters.shared_write,
                Kind::Rmw => &mut counters.shared_atomic,
            };
            traffic.shared(addresses, mask, bytes, shape, kind == Kind::Rmw);
            if rank != core.block {
                counters.distributed_shared_bytes +=
                    u64::from(mask.count_ones()) * u64::from(bytes);
            }
            if core.env.checks.barriers {
                spare_barriers(core, rank, addresses, mask, bytes, shape);
            }
            race::Space::Shared(core.env.cluster.blocks[rank].uid)
        }
        Target::Local => {
            let traffic = match kind {
                Kind::Read => &mut counters.local_read,
                Kind::Write | Kind::Rmw => &mut counters.local_write,
            };
            traffic.plain(mask, bytes);
            return;
        }
        Target::Param => {
            counters.constant_read.plain(mask, bytes);
            return;
        }
    };
    if core.env.race.is_some() {
        let inst = core.pc;
        core.track(&Access {
            space,
            kind,
            order: usage.order,
            scope: usage.scope,
            proxy: Proxy::Generic,
            lanes: mask,
            addresses,
            bytes,
            unit: usage.unit,
            inst,
        });
    }
}

/// Reports lanes that touch an mbarrier as if it were data.
#[inline]
fn spare_barriers(
    core: &mut Core<'_>,
    rank: usize,
    addresses: &[u64; LANES],
    mask: u32,
    bytes: u32,
    shape: Shape,
) {
    let mbarriers = &core.env.cluster.blocks[rank].mbarriers;
    let touched = |lane: usize, bytes| mbarriers.overlaps(addresses[lane] as u32, bytes);
    let first = mask.trailing_zeros() as usize & (LANES - 1);
    let any = match shape {
        Shape::Run => touched(first, mask.count_ones() * bytes).is_some(),
        Shape::Same => touched(first, bytes).is_some(),
        Shape::Scattered => lanes(mask).any(|lane| touched(lane, bytes).is_some()),
    };
    if !any {
        return;
    }
    let found = lanes(mask).find_map(|lane| Some((lane, touched(lane, bytes)?)));
    if let Some((lane, at)) = found {
        let message = format!(
            "lane {lane} accesses {bytes} bytes at shared address {:#x}, which belong to the \
             mbarrier at {at:#x}",
            addresses[lane]
        );
        let report = core.report(report::Kind::BarrierObject, lane, message);
        core.note(report);
    }
}
