//! The start of a bulk copy by a lane, and what becomes of it later.

use std::sync::Arc;

use super::super::mbarrier::{self, Origin, complete_tx};
use super::super::{Core, Env, Fault, Problem};
use super::copy::{Memory, Plan, Route, Update};
use super::group::Half;
use crate::lane::LANES;
use crate::program::Address;
use crate::ptx::ast::Space;
use crate::race::{self, AgentId, Proxy, RangeAccess, Scope, ScopedClock};
use crate::report::Kind;

/// What the addresses and sizes of bulk copies are multiples of.
pub(super) const ALIGNMENT: u64 = 16;

/// The mbarrier on which a copy completes.
#[derive(Clone, Copy)]
pub(super) struct Barrier {
    pub place: mbarrier::Place,
    /// Bytes that the copy reports.
    pub bytes: u32,
}

impl Barrier {
    /// The one at the same offset of another block.
    pub(super) fn of_rank(self, rank: usize) -> Self {
        let offset = self.place.offset;
        Self {
            place: mbarrier::Place { rank, offset },
            ..self
        }
    }
}

/// Blocks that a load goes to: the one whose address it names, or those of a mask.
pub(super) fn destinations(
    core: &Core<'_>,
    lane: usize,
    named: usize,
    mask: Option<u16>,
) -> Result<Vec<usize>, Box<Fault>> {
    let Some(mask) = mask else {
        return Ok(vec![named]);
    };
    let blocks = core.env.cluster.blocks.len();
    let beyond = u32::from(mask) >> blocks.min(16);
    if mask == 0 || beyond != 0 {
        let message = format!("ctaMask {mask:#x} of a multicast in a cluster of {blocks} blocks");
        return Err(core.fault(Kind::Descriptor, lane, message));
    }
    Ok((0..blocks).filter(|rank| mask >> rank & 1 != 0).collect())
}

impl Core<'_> {
    /// A lane's address of a shared space, as rank and offset: a multiple of `alignment`, in bounds
    /// for `bytes` bytes.
    pub(super) fn bulk_shared(
        &self,
        space: Space,
        lane: usize,
        address: u64,
        bytes: u64,
        alignment: u64,
    ) -> Result<(usize, u32), Box<Fault>> {
        let (rank, offset) = self
            .env
            .shared_place(space, self.block, address as u32, bytes)
            .map_err(|problem| self.address_fault(lane, bytes, &problem))?;
        self.bulk_alignment(lane, "shared address", u64::from(offset), alignment)?;
        Ok((rank, offset))
    }

    pub(super) fn bulk_alignment(
        &self,
        lane: usize,
        what: &str,
        value: u64,
        alignment: u64,
    ) -> Result<(), Box<Fault>> {
        if value.is_multiple_of(alignment) {
            return Ok(());
        }
        let message = format!("{what} {value:#x} of a bulk copy must be a multiple of {alignment}");
        Err(self.fault(Kind::Misaligned, lane, message))
    }

    /// The mbarrier of a copy to the block of rank `destination`.
    pub(super) fn bulk_barrier(
        &self,
        space: Space,
        lane: usize,
        address: &Address,
        destination: usize,
        bytes: u64,
    ) -> Result<Barrier, Box<Fault>> {
        let address = self.addresses(address)[lane];
        let (rank, offset) = self.bulk_shared(space, lane, address, 8, 8)?;
        if rank != destination {
            let message = format!(
                "the mbarrier is in the block of rank {rank}, but the destination is in that of rank \
                 {destination}: they must be in the same"
            );
            return Err(self.fault(Kind::Descriptor, lane, message));
        }
        Ok(Barrier {
            place: mbarrier::Place { rank, offset },
            bytes: bytes as u32,
        })
    }

    fn bulk_check(&self, lane: usize, route: Route, plan: &Plan) -> Result<(), Box<Fault>> {
        route
            .check(&self.env, plan)
            .map_err(|(bytes, problem): (u64, Problem)| self.address_fault(lane, bytes, &problem))
    }

    /// A copy (or reduction) into shared memory, which completes on an mbarrier. Does not count what it
    /// reads: a multicast reads it once.
    pub(super) fn start_load(
        &mut self,
        lane: usize,
        route: Route,
        plan: &Arc<Plan>,
        barrier: Barrier,
        update: Option<Update>,
    ) -> Result<(), Box<Fault>> {
        self.bulk_check(lane, route, plan)?;
        let origin = Origin::of(self, lane);
        if route.to != Memory::Shared(self.block) {
            self.env.counters.distributed_shared_bytes += plan.destination_bytes();
        }
        let agent = self.spawn(lane);
        if let Some(agent) = agent {
            route.announce_reads(&mut self.env, plan, agent, origin.pc);
            route.announce_writes(&mut self.env, plan, agent, origin.pc, update);
            announce_barrier(&mut self.env, barrier.place, agent, origin.pc);
        }
        let plan = Arc::clone(plan);
        self.env.cluster.defer(Box::new(move |env| {
            let cargo = route.read(env, &plan, origin);
            route.write(env, &plan, origin, cargo, update);
            let mut clock = ScopedClock::default();
            if let (Some(race), Some(agent)) = (&mut env.race, agent) {
                race.agent_release_scoped(agent, Scope::Cluster, &mut clock);
                race.agent_end(agent);
            }
            complete_tx(env, barrier.place, barrier.bytes, &clock, origin)
        }));
        Ok(())
    }

    /// A copy (or reduction) from the block's shared memory to global memory, part of the lane's open
    /// bulk group.
    pub(super) fn start_store(
        &mut self,
        lane: usize,
        plan: Plan,
        update: Option<Update>,
    ) -> Result<(), Box<Fault>> {
        let route = Route {
            from: Memory::Shared(self.block),
            to: Memory::Global,
        };
        self.bulk_check(lane, route, &plan)?;
        let origin = Origin::of(self, lane);
        let counters = &mut *self.env.counters;
        counters.async_write_bytes += plan.destination_bytes();
        counters.async_write_sectors += plan.destination_sectors();
        let reader = self.spawn(lane);
        let writer = self.spawn(lane);
        if let (Some(reader), Some(writer)) = (reader, writer) {
            route.announce_reads(&mut self.env, &plan, reader, origin.pc);
            route.announce_writes(&mut self.env, &plan, writer, origin.pc, update);
        }
        let thread = origin.warp * LANES as u32 + lane as u32;
        let group = self.block().bulk.start(thread);
        self.env.cluster.defer(Box::new(move |env| {
            let cargo = route.read(env, &plan, origin);
            finish_half(env, origin.rank, thread, group, Half::Read, reader);
            env.cluster.defer(Box::new(move |env| {
                route.write(env, &plan, origin, cargo, update);
                finish_half(env, origin.rank, thread, group, Half::Write, writer);
                Ok(())
            }));
            Ok(())
        }));
        Ok(())
    }

    fn spawn(&mut self, lane: usize) -> Option<AgentId> {
        let race = self.env.race.as_deref_mut()?;
        Some(race.spawn(self.warp.race?, 1 << lane, self.pc))
    }
}

/// Tells the race detector that `agent` needs the mbarrier to be there.
fn announce_barrier(env: &mut Env<'_>, place: mbarrier::Place, agent: AgentId, pc: u32) {
    let range = RangeAccess {
        space: race::Space::Shared(env.cluster.blocks[place.rank].uid),
        kind: race::Kind::Read,
        proxy: Proxy::Async,
        address: place.offset.into(),
        bytes: 8,
        inst: pc,
    };
    if let Some(race) = &mut env.race
        && let Some(conflict) = race.agent_access(agent, &range)
    {
        env.note_conflict(conflict);
    }
}

fn finish_half(
    env: &mut Env<'_>,
    rank: usize,
    thread: u32,
    group: u64,
    half: Half,
    agent: Option<AgentId>,
) {
    let groups = &mut env.cluster.blocks[rank].bulk;
    groups.complete(thread, group, half, |clock| {
        if let (Some(race), Some(agent)) = (&mut env.race, agent) {
            race.agent_release(agent, clock);
        }
    });
    if let (Some(race), Some(agent)) = (&mut env.race, agent) {
        race.agent_end(agent);
    }
}
