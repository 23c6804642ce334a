//! The wait for `wgmma`: the products are formed, and their accumulators go back to the registers.

use std::sync::Arc;

use pulp::NullaryFnOnce;

use super::super::fragments::round_f16;
use super::super::matrix::whole_warp;
use super::super::{Core, Env, Fault, Flow};
use super::operands::Dense;
use super::{ALL_WARPS, Form, Operation, ROWS, WARPS};
use crate::layout::elements::Element;
use crate::layout::kernels::{Size, mma_f32, mma_s32, mma_s32_satfinite};
use crate::machine::{Cluster, Shared, Wait};
use crate::race::Clock;

/// `wgmma.wait_group`: until at most `leave` groups are under way.
pub(super) fn wait_group(core: &mut Core<'_>, mask: u32, leave: usize) -> Result<Flow, Box<Fault>> {
    if let Some(wait) = whole_warp(core, mask)? {
        return Ok(wait);
    }
    let group = core.warp.index as usize / WARPS;
    let member = core.warp.index as usize % WARPS;
    let groups = &core.warp.asynchronous.wgmma.groups;
    let Some(last) = groups.len().checked_sub(leave + 1) else {
        return Ok(Flow::Next);
    };
    let until = groups[last];
    let rank = core.block;
    let ready = move |cluster: &Cluster| {
        cluster.blocks[rank]
            .warpgroups
            .get(group)
            .is_none_or(|state| {
                let count = until.saturating_sub(state.first) as usize;
                let mut operations = state.queue.iter().take(count);
                operations.all(|operation| operation.issued == ALL_WARPS)
            })
    };
    if !ready(core.env.cluster) {
        return Ok(Flow::Retry(Wait::For {
            reason: Box::new(|_| "wgmma.wait_group: a warp of its warpgroup has not issued".into()),
            ready: Box::new(ready),
            gives_up: false,
        }));
    }
    core.warp.asynchronous.wgmma.groups.drain(..=last);
    if core.block().warpgroups.len() > group {
        complete(&mut core.env, rank, group, until);
        land(core, group, member, until);
    }
    Ok(Flow::Next)
}

/// Executes the operations of a warpgroup up to number `until`.
fn complete(env: &mut Env<'_>, rank: usize, group: usize, until: u64) {
    let block = &mut env.cluster.blocks[rank];
    let state = &mut block.warpgroups[group];
    let count = until.saturating_sub(state.first) as usize;
    let operations = state.queue.iter_mut().take(count);
    for operation in operations.filter(|operation| !operation.executed) {
        operation.executed = true;
        env.arch.dispatch(Product {
            operation,
            tiles: &mut state.tiles,
            shared: &block.shared,
        });
        operation.left = Default::default();
        if let Some(race) = &mut env.race {
            for agent in operation.agents.iter_mut().filter_map(Option::take) {
                race.agent_release_alone(agent, &mut operation.clock);
                race.agent_end(agent);
            }
        }
    }
}

/// `D += A·B` for the four warps, to be compiled for the vector extensions of this CPU.
struct Product<'a> {
    operation: &'a Operation,
    tiles: &'a mut [Vec<(Arc<Form>, Dense)>; WARPS],
    shared: &'a Shared,
}

impl NullaryFnOnce for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        product(self.operation, self.tiles, self.shared);
    }
}

#[inline(always)]
fn product(operation: &Operation, tiles: &mut [Vec<(Arc<Form>, Dense)>; WARPS], shared: &Shared) {
    let what = &*operation.what;
    let (_, n, k) = what.form.shape();
    let size = Size {
        m: ROWS,
        n: n as usize,
        k: k as usize,
    };
    let right = Dense::of_chunks(what, &operation.chunks[1], 1, shared);
    let left = operation
        .operands
        .left
        .map(|_| Dense::of_chunks(what, &operation.chunks[0], 0, shared));
    for (member, tiles) in tiles.iter_mut().enumerate() {
        let Some((_, tile)) = tiles
            .iter_mut()
            .find(|(other, _)| other.same_accumulator(what))
        else {
            continue;
        };
        // In shared memory A is whole; in registers it is each warp's own.
        let part = |len: usize| match left {
            Some(_) => member * len..(member + 1) * len,
            None => 0..len,
        };
        let Some(left) = left.as_ref().or(operation.left[member].as_ref()) else {
            continue;
        };
        let part = part(size.m * size.k);
        // The slices have the sizes of the form, so the product cannot refuse them.
        let done = match (tile, left, &right) {
            (Dense::Float(tile), Dense::Float(left), Dense::Float(right)) => {
                if !operation.operands.accumulate {
                    tile.fill(0.0);
                }
                let done = mma_f32(size, &left[part], right, tile);
                if what.form.d() == Element::F16 {
                    tile.iter_mut().for_each(|value| *value = round_f16(*value));
                }
                done
            }
            (Dense::Integer(tile), Dense::Integer(left), Dense::Integer(right)) => {
                if !operation.operands.accumulate {
                    tile.fill(0);
                }
                if what.satfinite {
                    mma_s32_satfinite(size, &left[part], right, tile)
                } else {
                    mma_s32(size, &left[part], right, tile)
                }
            }
            _ => Ok(()),
        };
        debug_assert!(done.is_ok());
    }
}

/// Gives a warp the accumulators that no later operation of its own changes.
fn land(core: &mut Core<'_>, group: usize, member: usize, until: u64) {
    let bit = 1 << member;
    let mut clock = Clock::default();
    let mut flying: Vec<Arc<Form>> = Vec::new();
    let state = &mut core.block().warpgroups[group];
    for operation in state.before(until) {
        if operation.passed & bit == 0 {
            operation.passed |= bit;
            clock.join(&operation.clock);
        }
    }
    while state
        .queue
        .front()
        .is_some_and(|operation| operation.passed == ALL_WARPS)
    {
        state.queue.pop_front();
        state.first += 1;
    }
    for operation in &state.queue {
        if operation.issued & bit != 0 && operation.passed & bit == 0 {
            flying.push(Arc::clone(&operation.what));
        }
    }
    let stays = |form: &Form| flying.iter().any(|other| other.same_accumulator(form));
    let (stay, arrived) = std::mem::take(&mut state.tiles[member])
        .into_iter()
        .partition::<Vec<_>, _>(|(form, _)| stays(form));
    state.tiles[member] = stay;
    for (form, tile) in &arrived {
        tile.land(core, form);
    }
    let state = &mut core.warp.asynchronous.wgmma;
    state.in_flight.fill(false);
    state.any_in_flight = !flying.is_empty();
    for slot in flying.iter().flat_map(|form| form.slots()) {
        state.in_flight[slot as usize] = true;
    }
    if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) {
        race.acquire(id, u32::MAX, &clock);
    }
}
