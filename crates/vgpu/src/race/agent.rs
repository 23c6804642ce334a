//! Asynchronous operations that finish in any order.

use super::actors::{Actor, Role};
use super::clock::{Clock, Row};
use super::detector::{Detector, WarpId};
use super::location::ScopedClock;
use super::shadow::TIMES;
use super::types::{Conflict, Kind, RangeAccess, Scope, WarpInfo};
use super::warp::Know;

/// An asynchronous operation that has not ended. Used again after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentId(pub(super) u32);

/// An asynchronous operation.
///
/// Its actor is shared by all operations that one instruction of one warp issues, which are told
/// apart by number. What somebody knows of them is a set of numbers, and since most of them do
/// finish before long, mostly a prefix: it stays small over hundreds of thousands of operations,
/// whatever their order.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) info: WarpInfo,
    pub(super) know: Know,
    /// The issuing warp's actors when it was issued.
    pub(super) warp: u32,
    pub(super) copies: Option<u32>,
    pub(super) actor: u32,
    pub(super) number: u32,
}

impl Agent {
    /// What its completion makes known.
    fn released(&self) -> Clock {
        let mut clock = self.know.clock.clone();
        let mut add = |actor, pair: &super::warp::Pair| {
            clock.all.join_row(actor, &pair.all);
            clock.proxied.join_row(actor, &pair.proxied);
        };
        add(self.warp, &self.know.own);
        if let Some(copies) = self.copies {
            add(copies, &self.know.copies);
        }
        let row = Row::of_op(self.number);
        clock.all.join_row(self.actor, &row);
        clock.proxied.join_row(self.actor, &row);
        clock
    }
}

impl Detector {
    /// Instruction `inst` issues an asynchronous operation on behalf of `lanes`. It begins with
    /// what those lanes know, and is not ordered with anything that they, or other operations, do
    /// later, until somebody acquires a clock into which [`agent_release`](Self::agent_release) has
    /// put it.
    ///
    /// Parts whose completion is seen apart are operations of their own: the reads and the writes
    /// of a bulk store (`wait_group.read`), each destination of a multicast.
    pub fn spawn(&mut self, id: WarpId, lanes: u32, inst: u32) -> AgentId {
        let nobody = AgentId(u32::MAX);
        let Some(warp) = self
            .warps
            .get_mut(id.0 as usize)
            .and_then(|w| w.as_deref_mut())
        else {
            return nobody;
        };
        let info = warp.info;
        let know = warp.know_of(lanes & warp.lanes);
        let operations = match warp.operations.iter_mut().find(|o| o.0 == inst) {
            Some(o) => o,
            None => {
                let actor = self.actors.add(
                    info.launch,
                    Actor {
                        info,
                        role: Role::Operations,
                    },
                );
                warp.operations.push((inst, actor, 0));
                let last = warp.operations.len() - 1;
                &mut warp.operations[last]
            }
        };
        if operations.2 >= TIMES - 2 {
            let actor = self.actors.add(
                info.launch,
                Actor {
                    info,
                    role: Role::Operations,
                },
            );
            *operations = (inst, actor, 0);
        }
        operations.2 += 1;
        let agent = Agent {
            info,
            know,
            warp: warp.actor,
            copies: warp.copies.as_ref().map(|c| c.actor),
            actor: operations.1,
            number: operations.2,
        };
        warp.tick();
        self.ticked(id);
        AgentId(match self.free_agents.pop() {
            Some(slot) => {
                self.agents[slot as usize] = Some(agent);
                slot
            }
            None => {
                self.agents.push(Some(agent));
                self.agents.len() as u32 - 1
            }
        })
    }

    /// The operation reads or writes a run of bytes. May be reported when the operation is issued,
    /// even if the bytes move later. The instruction is `range.inst`, which need not be the one
    /// that issued it.
    pub fn agent_access(&mut self, agent: AgentId, range: &RangeAccess) -> Option<Box<Conflict>> {
        let run = [(range.address, range.bytes)];
        self.agent_runs(agent, range, &run, None, 1)
    }

    /// As [`agent_access`](Self::agent_access), to many runs `(first byte, bytes)` instead of the one
    /// in `range`: quicker than one by one, and returns the first conflict of them all.
    pub fn agent_accesses(
        &mut self,
        agent: AgentId,
        range: &RangeAccess,
        runs: &[(u64, u64)],
    ) -> Option<Box<Conflict>> {
        self.agent_runs(agent, range, runs, None, 1)
    }

    /// As [`agent_accesses`](Self::agent_accesses), by an operation that updates each scalar of `unit`
    /// bytes in one relaxed step of scope `scope`: a bulk reduction. The kind is `Kind::Rmw` whatever
    /// `range` says.
    pub fn agent_updates(
        &mut self,
        agent: AgentId,
        range: &RangeAccess,
        runs: &[(u64, u64)],
        scope: Scope,
        unit: u32,
    ) -> Option<Box<Conflict>> {
        let kind = Kind::Rmw;
        self.agent_runs(
            agent,
            &RangeAccess { kind, ..*range },
            runs,
            Some(scope),
            unit,
        )
    }

    /// The operation goes on after what `clock` knows.
    pub fn agent_acquire(&mut self, agent: AgentId, clock: &Clock) {
        if let Some(a) = self
            .agents
            .get_mut(agent.0 as usize)
            .and_then(Option::as_mut)
        {
            if let Some(row) = clock.all.row(a.warp) {
                a.know.own.all.join(row);
            }
            if let Some(row) = clock.proxied.row(a.warp) {
                a.know.own.proxied.join(row);
            }
            a.know.clock.join(clock);
        }
    }

    /// The operation is complete: `clock` learns of it, and of all that came before it was issued.
    /// May be called for several clocks.
    pub fn agent_release(&mut self, agent: AgentId, clock: &mut Clock) {
        if let Some(a) = self.agents.get(agent.0 as usize).and_then(Option::as_ref) {
            clock.join(&a.released());
        }
    }

    /// As [`agent_release`](Self::agent_release), but `clock` learns of nothing that came before the
    /// operation: for a completion that others see who do not synchronise with the issuer.
    pub fn agent_release_alone(&mut self, agent: AgentId, clock: &mut Clock) {
        if let Some(a) = self.agents.get(agent.0 as usize).and_then(Option::as_ref) {
            let row = Row::of_op(a.number);
            clock.all.join_row(a.actor, &row);
            clock.proxied.join_row(a.actor, &row);
        }
    }

    /// As [`agent_release`](Self::agent_release), to an mbarrier: `complete_tx` has
    /// [`Scope::Cluster`].
    pub fn agent_release_scoped(&mut self, agent: AgentId, scope: Scope, to: &mut ScopedClock) {
        if let Some(a) = self.agents.get(agent.0 as usize).and_then(Option::as_ref) {
            to.add(&a.info, scope, &a.released());
        }
    }

    /// The operation will not be named any more; its id may be given to another. Whoever has not
    /// acquired its completion still races with it.
    pub fn agent_end(&mut self, agent: AgentId) {
        if self
            .agents
            .get_mut(agent.0 as usize)
            .and_then(Option::take)
            .is_some()
        {
            self.free_agents.push(agent.0);
        }
    }
}
