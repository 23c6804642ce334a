//! The bytes of a bulk copy: where they come from, where they go.

use super::super::mbarrier::Origin;
use super::super::{Env, Problem};
use crate::layout::tma::reduce::Reduction;
use crate::layout::tma::{BYTES, TensorElement, TensorMap};
use crate::race::{AgentId, Kind as AccessKind, Proxy, RangeAccess, Scope, Space};
use crate::report::{Kind, Report};

fn report(env: &Env<'_>, origin: Origin, kind: Kind, message: String) -> Report {
    let block = env.cluster.blocks[origin.rank].index;
    let action = env.program.insts[origin.pc as usize].action();
    let site = env.site(origin.pc, block, origin.warp, origin.lane, action);
    env.report(kind, message, site)
}

/// A memory; addresses in shared memory are offsets in that of the block with the rank.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    Global,
    Shared(usize),
}

/// Bytes that lie together on both sides.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    /// `None`: outside the tensor, filled.
    pub from: Option<u64>,
    pub to: u64,
    pub len: u32,
}

/// What a copy moves, and in which runs it lies on both sides: `(start, bytes)`.
pub(super) struct Plan {
    pieces: Vec<Piece>,
    sources: Vec<(u64, u64)>,
    destinations: Vec<(u64, u64)>,
    /// For the fill and conversions of a tensor load.
    map: Option<TensorMap>,
    /// Address of the tensor map where it is in memory that kernels may write.
    map_address: Option<u64>,
}

impl Plan {
    /// Of one piece.
    pub(super) fn linear(piece: Piece) -> Self {
        Self::new(vec![piece], None, None)
    }

    pub(super) fn new(
        pieces: Vec<Piece>,
        map: Option<TensorMap>,
        map_address: Option<u64>,
    ) -> Self {
        let sources = pieces
            .iter()
            .filter_map(|piece| Some((piece.from?, u64::from(piece.len))));
        let destinations = pieces.iter().map(|piece| (piece.to, u64::from(piece.len)));
        Self {
            sources: runs(sources),
            destinations: runs(destinations),
            pieces,
            map,
            map_address,
        }
    }

    /// Bytes that are read.
    pub(super) fn source_bytes(&self) -> u64 {
        self.sources.iter().map(|run| run.1).sum()
    }

    /// Bytes that are written.
    pub(super) fn destination_bytes(&self) -> u64 {
        self.destinations.iter().map(|run| run.1).sum()
    }

    pub(super) fn source_sectors(&self) -> u64 {
        sectors(&self.sources)
    }

    pub(super) fn destination_sectors(&self) -> u64 {
        sectors(&self.destinations)
    }
}

/// Joins what touches.
fn runs(parts: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut rising = true;
    for (start, bytes) in parts {
        match runs.last_mut() {
            Some(last) if last.0 + last.1 == start => last.1 += bytes,
            last => {
                rising &= last.is_none_or(|last| last.0 + last.1 < start);
                runs.push((start, bytes));
            }
        }
    }
    if !rising {
        runs.sort_unstable();
        let mut kept = 0;
        for index in 1..runs.len() {
            let (start, bytes) = runs[index];
            let last = &mut runs[kept];
            if start <= last.0 + last.1 {
                last.1 = last.1.max(start + bytes - last.0);
            } else {
                kept += 1;
                runs[kept] = (start, bytes);
            }
        }
        runs.truncate(kept + 1);
    }
    runs
}

/// Sectors of 32 bytes that runs in rising order touch.
fn sectors(runs: &[(u64, u64)]) -> u64 {
    let mut count = 0;
    let mut next = 0;
    for &(start, bytes) in runs {
        let (first, end) = ((start >> 5).max(next), (start + bytes).div_ceil(32));
        count += end.saturating_sub(first);
        next = next.max(end);
    }
    count
}

/// Bytes on the way, and which of them nobody ever wrote (empty: none).
pub(super) struct Cargo {
    bytes: Vec<u8>,
    unwritten: Vec<bool>,
}

/// A copy from a memory to a memory.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub from: Memory,
    pub to: Memory,
}

impl Route {
    /// Checks that both sides exist.
    ///
    /// # Errors
    /// The first address that may not be used, and how many bytes are meant there.
    pub(super) fn check(&self, env: &Env<'_>, plan: &Plan) -> Result<(), (u64, Problem)> {
        for &(start, bytes) in &plan.sources {
            match self.from {
                Memory::Global => env.global_range(start, bytes).map(|_| ()),
                Memory::Shared(rank) => env.shared_range(rank, start, bytes),
            }
            .map_err(|problem| (bytes, problem))?;
        }
        for &(start, bytes) in &plan.destinations {
            match self.to {
                Memory::Global => env.writable_range(start, bytes).map(|_| ()),
                Memory::Shared(rank) => env.shared_range(rank, start, bytes),
            }
            .map_err(|problem| (bytes, problem))?;
        }
        Ok(())
    }

    /// Tells the race detector what `agent` reads.
    pub(super) fn announce_reads(&self, env: &mut Env<'_>, plan: &Plan, agent: AgentId, pc: u32) {
        announce(env, self.from, &plan.sources, agent, pc, Touch::Read);
        let (Some(race), Some(address)) = (&mut env.race, plan.map_address) else {
            return;
        };
        let range = RangeAccess {
            space: Space::Global,
            kind: AccessKind::Read,
            proxy: Proxy::Tensormap,
            address,
            bytes: BYTES as u64,
            inst: pc,
        };
        if let Some(conflict) = race.agent_access(agent, &range) {
            env.note_conflict(conflict);
        }
    }

    /// Tells the race detector what `agent` writes; with a reduction, in steps of an element.
    pub(super) fn announce_writes(
        &self,
        env: &mut Env<'_>,
        plan: &Plan,
        agent: AgentId,
        pc: u32,
        update: Option<Update>,
    ) {
        let touch = update.map_or(Touch::Write, |update| Touch::Update(update.element.bytes()));
        announce(env, self.to, &plan.destinations, agent, pc, touch);
    }

    /// Reads the source.
    pub(super) fn read(&self, env: &mut Env<'_>, plan: &Plan, origin: Origin) -> Cargo {
        if let Memory::Shared(rank) = self.from {
            still_there(env, rank, origin, "source");
        }
        let total: usize = plan.pieces.iter().map(|piece| piece.len as usize).sum();
        let mut cargo = Cargo {
            bytes: vec![0; total],
            unwritten: Vec::new(),
        };
        let fill = plan.map.as_ref().map_or([0; 16], TensorMap::fill);
        let mut at = 0;
        let mut pieces = plan.pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            let mut len = piece.len as usize;
            let Some(from) = piece.from else {
                let place = &mut cargo.bytes[at..at + len];
                // Elements divide 16 bytes and begin at multiples of themselves.
                for (byte, value) in place.iter_mut().zip(fill.iter().cycle()) {
                    *byte = *value;
                }
                at += len;
                continue;
            };
            while let Some(next) = pieces.next_if(|next| next.from == Some(from + len as u64)) {
                len += next.len as usize;
            }
            let place = &mut cargo.bytes[at..at + len];
            let written = match self.from {
                Memory::Global => env.read_global(from, place),
                Memory::Shared(rank) => env.read_shared(rank, from as u32, place),
            };
            if !written {
                cargo.unwritten.resize(total, false);
                for (byte, mark) in (from..).zip(&mut cargo.unwritten[at..at + len]) {
                    *mark = !self.from.is_written(env, byte);
                }
            }
            at += len;
        }
        if let Some(map) = &plan.map {
            map.convert(&mut cargo.bytes);
        }
        cargo
    }

    /// Writes the destination, or combines the cargo with it.
    pub(super) fn write(
        &self,
        env: &mut Env<'_>,
        plan: &Plan,
        origin: Origin,
        cargo: Cargo,
        update: Option<Update>,
    ) {
        if let Memory::Shared(rank) = self.to {
            still_there(env, rank, origin, "destination");
        }
        // What goes to global memory, or is computed with, must have been written; what only moves
        // into shared memory stays unwritten there.
        let missing = cargo.unwritten.iter().filter(|missing| **missing).count();
        if missing > 0 && (self.to == Memory::Global || update.is_some()) {
            unwritten(env, origin, missing, "source");
        }
        let mut at = 0;
        let mut target = Vec::new();
        let mut target_missing = 0;
        for piece in &plan.pieces {
            let len = piece.len as usize;
            let mut bytes = &cargo.bytes[at..at + len];
            if let Some(update) = update {
                target.resize(len, 0);
                let written = match self.to {
                    Memory::Global => env.read_global(piece.to, &mut target),
                    Memory::Shared(rank) => env.read_shared(rank, piece.to as u32, &mut target),
                };
                target_missing += if written { 0 } else { len };
                // The type was checked when the instruction was decoded or its map was read.
                let done = update.operation.apply(update.element, &mut target, bytes);
                debug_assert!(done.is_ok());
                bytes = &target;
            }
            match self.to {
                Memory::Global => env.write_global(piece.to, bytes),
                Memory::Shared(rank) => {
                    env.write_shared(rank, piece.to as u32, bytes);
                    if missing > 0 && update.is_none() {
                        let shared = &mut env.cluster.blocks[rank].shared;
                        let marks = &cargo.unwritten[at..at + len];
                        for (byte, _) in (piece.to..).zip(marks).filter(|(_, missing)| **missing) {
                            shared.mark_written(byte as u32, 1, false);
                        }
                    }
                }
            }
            at += len;
        }
        if target_missing > 0 {
            unwritten(env, origin, target_missing, "target");
        }
    }
}

/// A reduction.
#[derive(Clone, Copy)]
pub(super) struct Update {
    pub operation: Reduction,
    pub element: TensorElement,
}

impl Memory {
    fn is_written(self, env: &Env<'_>, address: u64) -> bool {
        match self {
            Self::Global => env.read_global(address, &mut [0]),
            Self::Shared(rank) => env.cluster.blocks[rank]
                .shared
                .is_written(address as u32, 1),
        }
    }
}

/// What an operation does to its runs.
enum Touch {
    Read,
    Write,
    /// Updates elements of so many bytes.
    Update(u32),
}

fn announce(
    env: &mut Env<'_>,
    memory: Memory,
    runs: &[(u64, u64)],
    agent: AgentId,
    pc: u32,
    touch: Touch,
) {
    let space = match memory {
        Memory::Global => Space::Global,
        Memory::Shared(rank) => Space::Shared(env.cluster.blocks[rank].uid),
    };
    let kind = match touch {
        Touch::Read => AccessKind::Read,
        Touch::Write => AccessKind::Write,
        Touch::Update(_) => AccessKind::Rmw,
    };
    let range = RangeAccess {
        space,
        kind,
        proxy: Proxy::Async,
        address: 0,
        bytes: 0,
        inst: pc,
    };
    let Some(race) = &mut env.race else { return };
    let conflict = match touch {
        // Each element is updated in one relaxed step of gpu scope.
        Touch::Update(unit) => race.agent_updates(agent, &range, runs, Scope::Gpu, unit),
        _ => race.agent_accesses(agent, &range, runs),
    };
    if let Some(conflict) = conflict {
        env.note_conflict(conflict);
    }
}

/// Shared memory goes with its block; on the machine others may have it by now.
fn still_there(env: &mut Env<'_>, rank: usize, origin: Origin, side: &str) {
    let block = &env.cluster.blocks[rank];
    if block.live_threads > 0 || !env.checks.barriers {
        return;
    }
    let [x, y, z] = block.index;
    let message = format!(
        "all threads of block ({x},{y},{z}) had exited before this copy was done with its {side} in \
         the block's shared memory"
    );
    let report = report(env, origin, Kind::AsyncHazard, message);
    env.note(report);
}

fn unwritten(env: &mut Env<'_>, origin: Origin, bytes: usize, side: &str) {
    if env.checks.memory_init {
        let message = format!("{bytes} bytes of its {side} were never written");
        let report = report(env, origin, Kind::UninitialisedRead, message);
        env.note(report);
    }
}
