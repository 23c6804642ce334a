//! The detector: warps, accesses, and what is reported.

use std::collections::{HashMap, HashSet};

use super::actors::{Actor, Actors, HOST, Role};
use super::agent::Agent;
use super::clock::Clock;
use super::location::ScopedClock;
use super::memory::Memory;
use super::observer::{Fault, Observer, Side};
use super::shadow::{LaneMap, Rec, TIMES, attributes};
use super::types::{
    Access, Config, Conflict, FenceKind, Order, Party, Proxy, RangeAccess, Scope, Space, WarpInfo,
    Who,
};
use super::warp::{Copies, Warp};

/// A warp that has begun and not ended, or a host stream. Used again after the warp's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WarpId(pub(super) u32);

/// A `cp.async` instruction of a warp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyTicket(pub(super) u32);

/// Sets of reads and chunks of actors are looked through when there are more than this, and more
/// than twice those that were still needed the last time.
const COLLECT_AT: usize = 1 << 15;

/// Finds accesses that the program does not order. See the [module](super).
///
/// No method panics. An id that is not live is ignored; an access by it does nothing.
#[derive(Debug)]
pub struct Detector {
    pub(super) config: Config,
    pub(super) actors: Actors,
    pub(super) warps: Vec<Option<Box<Warp>>>,
    free_warps: Vec<u32>,
    pub(super) agents: Vec<Option<Agent>>,
    pub(super) free_agents: Vec<u32>,
    /// How many warps of each block live.
    blocks: HashMap<u32, u32>,
    pub(super) memory: Memory,
    reported: HashSet<(super::ConflictKind, u32, u32)>,
    num_conflicts: u64,
    collect_at: (usize, usize),
}

impl Detector {
    /// A detector that knows of no access.
    pub fn new(config: Config) -> Self {
        Detector {
            config,
            actors: Actors::new(),
            warps: Vec::new(),
            free_warps: Vec::new(),
            agents: Vec::new(),
            free_agents: Vec::new(),
            blocks: HashMap::new(),
            memory: Memory::default(),
            reported: HashSet::new(),
            num_conflicts: 0,
            collect_at: (COLLECT_AT, COLLECT_AT),
        }
    }

    /// How many accesses were in conflict, those that were not returned included.
    pub fn num_conflicts(&self) -> u64 {
        self.num_conflicts
    }

    /// Conflicts that were returned are returned again when they happen again, and as many as the
    /// limit says: instructions are numbers, which mean others in another kernel.
    pub fn report_again(&mut self) {
        self.reported.clear();
    }

    // Warps.

    /// A warp begins, ordered after what `start` knows (the launch's clock: what the stream had
    /// done).
    pub fn begin_warp(&mut self, info: WarpInfo, start: &Clock) -> WarpId {
        self.collect();
        *self.blocks.entry(info.block).or_default() += 1;
        let actor = self.actors.add(
            info.launch,
            Actor {
                info,
                role: Role::Warp,
            },
        );
        self.add_warp(Warp::new(info, actor, start))
    }

    /// A host stream (or the host itself), as something that makes accesses. It acts by lane 0, and
    /// is ordered only by what the executor acquires and releases for it. Begin it once, not for
    /// each operation.
    pub fn begin_host(&mut self, stream: u32, start: &Clock) -> WarpId {
        let none = u32::MAX;
        let info = WarpInfo {
            launch: stream,
            device: none,
            cluster: none,
            block: none,
            warp: 0,
            lanes: 1,
        };
        let actor = self.actors.add(
            HOST,
            Actor {
                info,
                role: Role::Host,
            },
        );
        self.add_warp(Warp::new(info, actor, start))
    }

    fn add_warp(&mut self, warp: Warp) -> WarpId {
        let warp = Some(Box::new(warp));
        WarpId(match self.free_warps.pop() {
            Some(slot) => {
                self.warps[slot as usize] = warp;
                slot
            }
            None => {
                self.warps.push(warp);
                self.warps.len() as u32 - 1
            }
        })
    }

    /// A warp ends: `end` learns all that its lanes knew and did. Its asynchronous operations are
    /// not part of that unless their completion was acquired; [`end_launch`](Self::end_launch) sees
    /// to them. Its accesses still race with later ones that are not ordered after `end`.
    pub fn end_warp(&mut self, id: WarpId, end: &mut Clock) {
        let Some(warp) = self.warps.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.free_warps.push(id.0);
        if let Some(count) = self.blocks.get_mut(&warp.info.block) {
            *count -= 1;
            if *count == 0 {
                self.blocks.remove(&warp.info.block);
            }
        }
        end.join(&warp.released(u32::MAX));
        end.join(&warp.left);
        for &actor in warp.former.iter().chain([&warp.actor]) {
            end.finish(&[(actor, actor + 1)]);
        }
        // Asynchronous operations of which all are known need no rows of their own any more either.
        let copies = warp.copies.iter().map(|c| (c.actor, c.issued));
        let operations = warp.operations.iter().map(|o| (o.1, o.2));
        for (actor, last) in copies.chain(operations) {
            if end.floor(actor) >= last {
                end.finish(&[(actor, actor + 1)]);
            }
        }
    }

    /// Lanes leave for good (`exit`); they are part of what the warp's end makes known, and no
    /// `warp_sync` counts them from now on. Optional: it keeps a warp of which only some lanes stay
    /// as quick as a full one.
    pub fn exit_lanes(&mut self, id: WarpId, lanes: u32) {
        let Some(warp) = self.warp(id) else { return };
        let stay = warp.lanes & !lanes;
        if stay != 0 && stay != warp.lanes {
            self.renumber(id, stay);
        }
    }

    /// A launch is over: `end` learns all that its warps and their asynchronous operations did.
    /// Call it after the last `end_warp`, with the clock that those were given.
    pub fn end_launch(&mut self, launch: u32, end: &mut Clock) {
        let runs = self.actors.end_launch(launch);
        end.finish(&runs);
        self.collect();
    }

    fn renumber(&mut self, id: WarpId, stay: u32) {
        if let Some(warp) = self
            .warps
            .get_mut(id.0 as usize)
            .and_then(|w| w.as_deref_mut())
        {
            let info = WarpInfo {
                lanes: stay,
                ..warp.info
            };
            let role = if warp.info.block == u32::MAX {
                Role::Host
            } else {
                Role::Warp
            };
            let launch = if role == Role::Host {
                HOST
            } else {
                info.launch
            };
            warp.renumber(self.actors.add(launch, Actor { info, role }), stay);
        }
    }

    fn warp(&mut self, id: WarpId) -> Option<&mut Warp> {
        self.warps.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// The warp's time has moved on; at the end of time it takes a new number.
    pub(super) fn ticked(&mut self, id: WarpId) {
        if let Some(warp) = self.warp(id)
            && warp.time >= TIMES - 1
        {
            let stay = warp.lanes;
            self.renumber(id, stay);
        }
    }

    // Synchronisation.

    /// `bar.warp.sync`: everything that any of `lanes` knows and did is ordered before what any of
    /// them does from now on.
    pub fn warp_sync(&mut self, id: WarpId, lanes: u32) {
        if let Some(warp) = self.warp(id) {
            warp.sync(lanes);
            self.ticked(id);
        }
    }

    /// `lanes` add to `clock` what they know and did. For objects that order all threads that use
    /// them: `bar.sync` and `barrier.cluster` arrivals, streams, events.
    pub fn release(&mut self, id: WarpId, lanes: u32, clock: &mut Clock) {
        if let Some(warp) = self.warp(id) {
            warp.release_into(lanes, clock);
            warp.tick();
            self.ticked(id);
        }
    }

    /// `lanes` learn what `clock` knows.
    pub fn acquire(&mut self, id: WarpId, lanes: u32, clock: &Clock) {
        if let Some(warp) = self.warp(id) {
            warp.acquire(lanes & warp.lanes, clock);
        }
    }

    /// As [`release`](Self::release), for an object whose users name scopes: an mbarrier arrival.
    pub fn release_scoped(&mut self, id: WarpId, lanes: u32, scope: Scope, to: &mut ScopedClock) {
        if let Some(warp) = self.warp(id) {
            let clock = warp.released(lanes);
            to.add(&warp.info, scope, &clock);
            warp.tick();
            self.ticked(id);
        }
    }

    /// As [`acquire`](Self::acquire), for an object whose users name scopes: an mbarrier wait.
    pub fn acquire_scoped(&mut self, id: WarpId, lanes: u32, scope: Scope, from: &ScopedClock) {
        if let Some(warp) = self.warp(id) {
            let (info, lanes) = (warp.info, lanes & warp.lanes);
            from.visible(&info, scope, |clock| warp.acquire(lanes, clock));
        }
    }

    /// `fence` or `membar` by `lanes`: with a later strong write it releases, with an earlier
    /// strong read it acquires.
    pub fn fence(&mut self, id: WarpId, lanes: u32, scope: Scope, kind: FenceKind) {
        // Both kinds do the same here: see "What is approximated".
        let (FenceKind::AcqRel | FenceKind::Sc) = kind;
        if let Some(warp) = self.warp(id) {
            warp.fence(lanes & warp.lanes, scope);
            self.ticked(id);
        }
    }

    /// `fence.proxy.async` (and the tensor map's) by `lanes`: the generic writes they made or know
    /// become visible to asynchronous proxies, for whoever learns of them from these lanes.
    pub fn proxy_fence(&mut self, id: WarpId, lanes: u32) {
        if let Some(warp) = self.warp(id) {
            warp.proxy_fence(lanes & warp.lanes);
            self.ticked(id);
        }
    }

    // Accesses.

    /// An instruction of a warp accesses memory. Returns the first conflict that was not returned
    /// before.
    pub fn access(&mut self, id: WarpId, access: &Access) -> Option<Box<Conflict>> {
        let warp = self.warps.get_mut(id.0 as usize)?.as_deref_mut()?;
        let lanes = access.lanes & warp.lanes;
        if lanes == 0 || access.bytes == 0 || access.bytes > 32 {
            return None;
        }
        let strong = access.order != Order::Weak;
        let mut released = false;
        if strong {
            let blocks = &self.blocks;
            let memory = &mut self.memory;
            released = memory.synchronise(warp, access, lanes, |b| blocks.contains_key(&b));
        }
        let attributes = attributes(
            access.kind,
            strong.then_some(access.scope),
            Proxy::Generic,
            access.unit,
        );
        let rec = Rec::new(warp.actor, warp.time, LaneMap::ALL, attributes, access.inst);
        let mut obs = Observer::new(rec, lanes, &warp.info, Side::Lanes(warp), &self.actors);
        self.memory.lanes(&mut obs, warp.lanes, access, lanes);
        let fault = obs.fault;
        if released {
            self.warps[id.0 as usize].as_deref_mut()?.tick();
            self.ticked(id);
        }
        self.after(fault, access.space, rec)
    }

    /// One lane of a warp, or the host, accesses a run of bytes (weakly).
    pub fn access_range(
        &mut self,
        id: WarpId,
        lane: u32,
        range: &RangeAccess,
    ) -> Option<Box<Conflict>> {
        let warp = self.warps.get(id.0 as usize)?.as_deref()?;
        let lane = lane & 31;
        let attributes = attributes(range.kind, None, Proxy::Generic, 1);
        // One lane over many words has no affine map; each line is given its own.
        let mut fault = None;
        let base = Rec::new(warp.actor, warp.time, LaneMap::NONE, attributes, range.inst);
        let end = range.address.saturating_add(range.bytes);
        if warp.lanes == 1 {
            let rec = base.mapped(LaneMap::ALL);
            let mut obs = Observer::new(rec, 1, &warp.info, Side::Lanes(warp), &self.actors);
            self.memory
                .run(&mut obs, range.space, range.address, end, rec);
            fault = obs.fault;
        } else {
            let mut at = range.address;
            while at < end {
                let next = (at | 31).saturating_add(1).min(end);
                let rec = base.mapped(LaneMap::affine(5, at, lane));
                let mut obs =
                    Observer::new(rec, 1 << lane, &warp.info, Side::Lanes(warp), &self.actors);
                self.memory.run(&mut obs, range.space, at, next, rec);
                fault = fault.or(obs.fault);
                at = next;
            }
        }
        self.after(fault, range.space, base)
    }

    // cp.async.

    /// A `cp.async` (not bulk) of a warp: its accesses are reported with the ticket, by
    /// [`copy_access`](Self::copy_access), at once, before the warp does anything else, even if the
    /// bytes move later. Tickets of a warp count up.
    pub fn copy(&mut self, id: WarpId) -> CopyTicket {
        let Some(warp) = self
            .warps
            .get_mut(id.0 as usize)
            .and_then(|w| w.as_deref_mut())
        else {
            return CopyTicket(0);
        };
        let info = warp.info;
        let actors = &mut self.actors;
        let copies = warp.copies.get_or_insert_with(|| {
            let actor = actors.add(
                info.launch,
                Actor {
                    info,
                    role: Role::Copies,
                },
            );
            Box::new(Copies {
                actor,
                issued: 0,
                known: [0; 32],
                fenced: [0; 32],
            })
        });
        // Past the end of time all copies count as one that nobody waits for.
        copies.issued = (copies.issued + 1).min(TIMES - 1);
        CopyTicket(copies.issued)
    }

    /// What the `cp.async` with this ticket reads and writes (two calls), lane by lane.
    pub fn copy_access(
        &mut self,
        id: WarpId,
        ticket: CopyTicket,
        access: &Access,
    ) -> Option<Box<Conflict>> {
        let warp = self.warps.get(id.0 as usize)?.as_deref()?;
        let copies = warp.copies.as_deref()?;
        let lanes = access.lanes & warp.lanes;
        if lanes == 0 || access.bytes == 0 || access.bytes > 32 {
            return None;
        }
        let attributes = attributes(access.kind, None, Proxy::Generic, 1);
        let rec = Rec::new(
            copies.actor,
            ticket.0,
            LaneMap::ALL,
            attributes,
            access.inst,
        );
        let mut obs = Observer::new(rec, lanes, &warp.info, Side::Copies(warp), &self.actors);
        self.memory.lanes(&mut obs, warp.info.lanes, access, lanes);
        let fault = obs.fault;
        self.after(fault, access.space, rec)
    }

    /// `cp.async.wait_group` and `wait_all`: each of `lanes` knows its own copies up to `ticket`.
    pub fn copy_wait(&mut self, id: WarpId, lanes: u32, ticket: CopyTicket) {
        if let Some(warp) = self.warp(id) {
            warp.wait_copies(lanes & warp.lanes, ticket.0);
        }
    }

    /// `cp.async.mbarrier.arrive`: adds the copies of `lanes` up to `ticket`, and what the lanes
    /// know now, to `to`. Call it when the instruction executes, with a clock that joins the
    /// mbarrier's when the copies are complete.
    pub fn copy_release(
        &mut self,
        id: WarpId,
        lanes: u32,
        ticket: CopyTicket,
        scope: Scope,
        to: &mut ScopedClock,
    ) {
        let Some(warp) = self.warp(id) else { return };
        let mut clock = warp.released(lanes);
        if let Some(c) = &warp.copies {
            let mut row = super::clock::Row::default();
            row.raise(
                lanes & warp.info.lanes,
                warp.info.lanes,
                ticket.0.min(c.issued),
            );
            clock.all.join_row(c.actor, &row);
        }
        to.add(&warp.info, scope, &clock);
        warp.tick();
        self.ticked(id);
    }

    // Memory that comes and goes.

    /// A block's shared memory, of this many bytes, comes to life with nothing accessed.
    pub fn begin_block(&mut self, block: u32, shared_bytes: u64) {
        self.end_block(block);
        self.memory.shadow.add_block(block, shared_bytes);
    }

    /// A block's shared memory is gone, and all that was known of it.
    pub fn end_block(&mut self, block: u32) {
        self.memory.locations.clear_space(Space::Shared(block));
        for id in self.memory.shadow.drop_block(block) {
            self.memory.histories.free_crowd(id);
        }
    }

    /// What happened in these bytes is forgotten: they are free, or newly allocated.
    pub fn forget(&mut self, space: Space, address: u64, bytes: u64) {
        let end = address.saturating_add(bytes);
        self.memory.locations.clear(space, address, end);
        for id in self.memory.shadow.forget(space, address, end) {
            self.memory.histories.free_crowd(id);
        }
    }

    // Asynchronous operations: see agent.rs.

    /// `runs` are `(first byte, bytes)` and stand in for those of `range`.
    pub(super) fn agent_runs(
        &mut self,
        agent: super::AgentId,
        range: &RangeAccess,
        runs: &[(u64, u64)],
        strong: Option<Scope>,
        unit: u32,
    ) -> Option<Box<Conflict>> {
        let agent = self.agents.get(agent.0 as usize)?.as_ref()?;
        let attributes = attributes(range.kind, strong, range.proxy, unit);
        let rec = Rec::new(
            agent.actor,
            agent.number,
            LaneMap::NONE,
            attributes,
            range.inst,
        );
        let side = Side::Operation {
            know: &agent.know,
            warp: agent.warp,
            copies: agent.copies,
        };
        let mut obs = Observer::new(rec, 1, &agent.info, side, &self.actors);
        for &(address, bytes) in runs {
            let end = address.saturating_add(bytes);
            self.memory.run(&mut obs, range.space, address, end, rec);
        }
        let fault = obs.fault;
        self.after(fault, range.space, rec)
    }

    // Reports.

    fn after(&mut self, fault: Option<Fault>, space: Space, new: Rec) -> Option<Box<Conflict>> {
        if self.memory.histories.held() > self.collect_at.0 {
            self.collect();
        }
        let fault = fault?;
        self.num_conflicts += 1;
        let insts = (fault.kind, fault.old.inst(), new.inst());
        if self.reported.len() >= self.config.limit || !self.reported.insert(insts) {
            return None;
        }
        Some(Box::new(Conflict {
            kind: fault.kind,
            space,
            address: fault.address,
            bytes: fault.bytes,
            first: self.party(fault.old, fault.old_lane),
            second: self.party(new, fault.lane),
        }))
    }

    fn party(&self, rec: Rec, lane: u32) -> Party {
        let unknown = WarpInfo {
            launch: 0,
            device: 0,
            cluster: 0,
            block: 0,
            warp: 0,
            lanes: 0,
        };
        let who = match self.actors.get(rec.actor()) {
            Some(Actor {
                info,
                role: Role::Warp,
            }) => Who::Thread { warp: *info, lane },
            Some(Actor {
                info,
                role: Role::Copies,
            }) => Who::Async {
                warp: *info,
                lane: Some(lane),
            },
            Some(Actor {
                info,
                role: Role::Operations,
            }) => Who::Async {
                warp: *info,
                lane: None,
            },
            Some(Actor {
                info,
                role: Role::Host,
            }) => Who::Host {
                stream: info.launch,
            },
            None => Who::Async {
                warp: unknown,
                lane: None,
            },
        };
        Party {
            who,
            inst: rec.inst(),
            kind: rec.kind(),
            strong: rec.is_strong().then(|| rec.scope()),
            proxy: rec.proxy(),
        }
    }

    /// Lets go of what no shadow cell refers to any more, when there is enough of it to be worth
    /// it.
    fn collect(&mut self) {
        let Memory {
            shadow, histories, ..
        } = &mut self.memory;
        if histories.held() <= self.collect_at.0 && self.actors.held() <= self.collect_at.1 {
            return;
        }
        let mut used = self.actors.unused();
        histories.collect(
            |seen| shadow.visit(seen),
            |actor| {
                if let Some(u) = used.get_mut(Actors::chunk_of(actor)) {
                    *u = true;
                }
            },
        );
        self.actors.collect(&used);
        self.collect_at = (
            COLLECT_AT.max(2 * histories.held()),
            COLLECT_AT.max(2 * self.actors.held()),
        );
    }
}
