//! The issue of a `wgmma.mma_async`: what is checked, and what is remembered until the wait.

use std::sync::Arc;

use super::super::matrix::whole_warp;
use super::super::{Core, Fault, Flow};
use super::operands::{Dense, chunk_addresses};
use super::{ALL_WARPS, Form, Left, Operands, Operation, WARPS, Warpgroup};
use crate::layout::descriptor::Major;
use crate::program::Src;
use crate::race::{Clock, Kind as AccessKind, Proxy, RangeAccess, Space};
use crate::report::Kind;

/// Issues the operation for one warp; the fourth one makes it whole.
pub(super) fn issue(core: &mut Core<'_>, mask: u32, what: &Arc<Form>) -> Result<Flow, Box<Fault>> {
    if let Some(wait) = whole_warp(core, mask)? {
        return Ok(wait);
    }
    let group = core.warp.index as usize / WARPS;
    let member = core.warp.index as usize % WARPS;
    let warps = core.block().warps.len();
    if warps < (group + 1) * WARPS {
        let message = format!("warpgroup {group} has fewer than four warps: the block has {warps}");
        return Err(core.fault(Kind::Undefined, 0, message));
    }
    let operands = operands(core, what)?;
    check_fence(core, what);
    let groups = &mut core.block().warpgroups;
    if groups.len() <= group {
        groups.resize_with(group + 1, Warpgroup::default);
    }
    start_tile(core, what, group, member, operands.accumulate);
    let left = match &what.left {
        Left::Registers(registers) => Some(Dense::of_registers(core, what, registers)),
        Left::Descriptor(_) => None,
    };
    fly(core, what);
    let number = core.warp.asynchronous.wgmma.issued;
    core.warp.asynchronous.wgmma.issued += 1;
    let pc = core.pc;
    let state = &core.block().warpgroups[group];
    let index = (number - state.first) as usize;
    if index == state.queue.len() {
        // Also where nothing looks for races: a descriptor that leads outside must be found here.
        let chunks = [operands.left, Some(operands.right)];
        let [left, right] = [0, 1].map(|side| match chunks[side] {
            Some(bits) => chunk_addresses(core, what, bits, side),
            None => Ok(Vec::new()),
        });
        let [left, right] = [left?, right?];
        let right_runs = match core.env.race {
            Some(_) => runs(right.clone()),
            None => Vec::new(),
        };
        let operation = Operation {
            pc,
            what: Arc::clone(what),
            issued: 0,
            passed: 0,
            operands,
            chunks: [left, right],
            right_runs,
            left: Default::default(),
            agents: Default::default(),
            clock: Clock::default(),
            executed: false,
        };
        core.block().warpgroups[group].queue.push_back(operation);
    }
    let state = &mut core.block().warpgroups[group];
    let operation = &mut state.queue[index];
    if operation.pc != pc || operation.operands != operands {
        let message = "the warps of a warpgroup execute different wgmma, or with other operands";
        return Err(core.fault(Kind::Undefined, 0, message));
    }
    operation.issued |= 1 << member;
    operation.left[member] = left;
    let whole = operation.issued == ALL_WARPS;
    announce(core, group, index);
    if whole {
        let (m, n, k) = what.form.shape();
        core.env.counters.tensor_flops += 2 * u64::from(m) * u64::from(n) * u64::from(k);
        check_written(core, group, index);
    }
    Ok(Flow::Next)
}

fn operands(core: &Core<'_>, what: &Form) -> Result<Operands, Box<Fault>> {
    let uniform = |src: Src, name: &str| {
        let values = core.get::<u64>(src);
        match values.iter().position(|value| *value != values[0]) {
            None => Ok(values[0]),
            Some(lane) => {
                let message = format!(
                    "lanes name other descriptors of {name}: {:#x}, {:#x}",
                    values[0], values[lane]
                );
                Err(core.fault(Kind::Descriptor, lane, message))
            }
        }
    };
    let scale = core.pred(what.accumulate);
    if scale != 0 && scale != u32::MAX {
        return Err(core.fault(Kind::Undefined, 0, "the lanes disagree on scale-d"));
    }
    let left = match &what.left {
        Left::Descriptor(src) => Some(uniform(*src, "A")?),
        Left::Registers(_) => None,
    };
    Ok(Operands {
        left,
        right: uniform(what.right, "B")?,
        accumulate: scale != 0,
    })
}

/// Reports registers that were written since the last `wgmma.fence`, or that there was none.
fn check_fence(core: &mut Core<'_>, what: &Form) {
    if !core.env.checks.barriers {
        return;
    }
    let state = &core.warp.asynchronous.wgmma;
    let count = what
        .slots()
        .filter(|slot| state.unfenced.get(*slot as usize) == Some(&true))
        .count();
    if state.fenced && count == 0 {
        return;
    }
    let message = if count > 0 {
        format!("{count} of its registers were written since the last wgmma.fence")
    } else {
        "there was no wgmma.fence before the first wgmma".to_owned()
    };
    let report = core.report(Kind::AsyncHazard, 0, message);
    core.note(report);
}

/// Takes the accumulator out of its registers, unless it is in motion already: then the operation goes
/// on from where the one before leaves it.
fn start_tile(core: &mut Core<'_>, what: &Arc<Form>, group: usize, member: usize, read: bool) {
    let tiles = &core.block().warpgroups[group].tiles[member];
    if tiles
        .iter()
        .any(|(other, _)| Arc::ptr_eq(other, what) || other.same_accumulator(what))
    {
        return;
    }
    if tiles
        .iter()
        .any(|(other, _)| other.dst.iter().any(|dst| what.dst.contains(dst)))
    {
        let message = "its accumulator shares registers with that of a wgmma of another form under \
                       way: a wgmma.wait_group is missing";
        let report = core.report(Kind::AsyncHazard, 0, message);
        core.note(report);
    }
    if read && core.env.checks.registers {
        let unset = what
            .dst
            .iter()
            .filter_map(|dst| dst.slot)
            .filter(|slot| core.warp.defined[*slot as usize] != u32::MAX)
            .count();
        if unset > 0 {
            let message =
                format!("{unset} accumulator registers were never set, but scale-d is true");
            let report = core.report(Kind::UninitialisedRegister, 0, message);
            core.note(report);
        }
    }
    let tile = Dense::of_accumulator(core, what);
    core.block().warpgroups[group].tiles[member].push((Arc::clone(what), tile));
}

/// Marks the registers of an operation as in flight until the wait.
fn fly(core: &mut Core<'_>, what: &Form) {
    let rows = core.env.program.rows as usize;
    let state = &mut core.warp.asynchronous.wgmma;
    state.in_flight.resize(rows, false);
    state.any_in_flight = true;
    for slot in what.slots() {
        state.in_flight[slot as usize] = true;
    }
}

/// Tells the race detector what the warp's part of the operation reads.
fn announce(core: &mut Core<'_>, group: usize, index: usize) {
    let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) else {
        return;
    };
    let member = core.warp.index as usize % WARPS;
    let block = &mut core.env.cluster.blocks[core.block];
    let operation = &mut block.warpgroups[group].queue[index];
    let agent = race.spawn(id, u32::MAX, core.pc);
    operation.agents[member] = Some(agent);
    let own = own_rows(&operation.chunks[0], operation.what.major[0], member);
    let range = RangeAccess {
        space: Space::Shared(block.uid),
        kind: AccessKind::Read,
        proxy: Proxy::Async,
        address: 0,
        bytes: 0,
        inst: core.pc,
    };
    let mut runs = runs(own);
    runs.extend_from_slice(&operation.right_runs);
    if let Some(conflict) = race.agent_accesses(agent, &range, &runs) {
        core.env.note_conflict(conflict);
    }
}

/// The chunks of A that hold the 16 rows of a warp.
fn own_rows(chunks: &[u32], major: Major, member: usize) -> Vec<u32> {
    match major {
        // Line after line, each a row.
        Major::K => {
            let part = chunks.len() / WARPS;
            chunks[member * part..(member + 1) * part].to_vec()
        }
        // Lines are columns: eight chunks of eight rows.
        Major::Mn => chunks
            .chunks_exact(2)
            .skip(member)
            .step_by(WARPS)
            .flatten()
            .copied()
            .collect(),
    }
}

/// Reports operands in shared memory that nobody ever wrote.
fn check_written(core: &mut Core<'_>, group: usize, index: usize) {
    if !core.env.checks.memory_init {
        return;
    }
    let block = core.block();
    let chunks = &block.warpgroups[group].queue[index].chunks;
    let unwritten = |address: &&u32| !block.shared.is_written(**address, 16);
    let found = [("A", &chunks[0]), ("B", &chunks[1])]
        .into_iter()
        .find_map(|(name, chunks)| Some((name, *chunks.iter().find(unwritten)?)));
    if let Some((name, address)) = found {
        let message = format!("operand {name} at shared address {address:#x} was never written");
        let report = core.report(Kind::UninitialisedRead, 0, message);
        core.note(report);
    }
}

/// Chunks as runs, so that the race detector sees few of them.
fn runs(mut chunks: Vec<u32>) -> Vec<(u64, u64)> {
    chunks.sort_unstable();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for chunk in chunks {
        let chunk = u64::from(chunk);
        match runs.last_mut() {
            Some((start, bytes)) if chunk <= *start + *bytes => *bytes = chunk + 16 - *start,
            _ => runs.push((chunk, 16)),
        }
    }
    runs
}
