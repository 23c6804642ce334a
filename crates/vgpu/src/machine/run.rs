//! A grid at work: clusters come in, their warps take turns in an order that the seed decides, and go.
//!
//! Blocks that never talk to other blocks run one cluster after the other, on as many threads as the
//! machine has; each cluster's schedule depends on the seed and its number only, so the result does
//! not depend on the threads. Blocks that do talk (atomics, strong accesses) are resident together up
//! to what the device holds, and take turns on one thread.

#![allow(
    clippy::vec_box,
    reason = "warps and clusters are large and change hands often"
)]

use std::collections::HashMap;
use std::iter::Chain;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::block::Block;
use super::checks::Checks;
use super::cluster::Cluster;
use super::grid::Grid;
use super::rng::Rng;
use super::stuck::{deadlock, livelock};
use super::turn::{TurnEnd, turn};
use super::warp::{Wait, Warp};
use crate::counters::Counters;
use crate::exec::{Core, Env, Fault};
use crate::lane::LANES;
use crate::memory::Table;
use crate::program::Program;
use crate::race::{Clock, Detector, WarpInfo};
use crate::report::Report;
use crate::vector::Vector;

/// Executed instructions, for `--trace`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TraceLine {
    /// Block in the grid, x fastest.
    pub block: u64,
    /// Warp in the block.
    pub warp: u32,
    /// Lanes that executed it.
    pub lanes: u32,
    /// Instruction index in the program.
    pub pc: u32,
}

/// Collects what a run executes, up to a limit.
#[derive(Debug)]
pub struct Trace {
    /// The lines.
    pub lines: Vec<TraceLine>,
    /// Lines at most.
    pub limit: usize,
    first_block: u64,
}

impl Trace {
    /// A trace of at most `limit` lines.
    pub fn new(limit: usize) -> Self {
        Self {
            lines: Vec::new(),
            limit,
            first_block: 0,
        }
    }

    pub(super) fn start_at(&mut self, block: u64) {
        self.first_block = block;
    }

    pub(super) fn step(&mut self, warp: &Warp, block: usize, pc: u32, lanes: u32) {
        if self.lines.len() < self.limit {
            let block = self.first_block + block as u64;
            self.lines.push(TraceLine {
                block,
                warp: warp.index,
                lanes,
                pc,
            });
        }
    }
}

/// What a slice of a run may use of the machine.
pub struct RunContext<'m> {
    /// Device memory as it is now.
    pub memory: Arc<Table>,
    /// Checks.
    pub checks: Checks,
    /// The machine's race detector, when that check is on.
    pub race: Option<&'m mut Detector>,
    /// What checks find.
    pub reports: &'m mut Vec<Report>,
    /// Threads of this CPU that independent blocks may use.
    pub threads: usize,
    /// Warp instructions of the launch at most.
    pub budget: u64,
    /// What is executed, if somebody wants to know.
    pub trace: Option<&'m mut Trace>,
    /// Every launch that may occur in a report about this one.
    pub launches: &'m Launches,
}

/// Launches by number, for reports that name an access of another launch.
pub type Launches = HashMap<u32, (Arc<Program>, Grid)>;

/// How a slice ended.
#[derive(Debug)]
pub enum SliceEnd {
    /// The grid is complete.
    Done,
    /// It can go on.
    Progress,
    /// Everything in it waits for something outside: another grid.
    Blocked,
    /// A fault ended it.
    Fault(Box<Fault>),
}

/// A grid that runs.
pub struct GridRun {
    /// The kernel.
    pub program: Arc<Program>,
    /// The launch.
    pub grid: Grid,
    /// What it did so far.
    pub counters: Counters,
    /// What it knows when it starts: the stream's order.
    pub start: Clock,
    /// What it publishes when it is complete.
    pub end: Clock,
    waiting: Waiting,
    resident: Vec<Box<Cluster>>,
    max_resident: usize,
    rng: Rng,
    spare: Vec<Box<Warp>>,
    spent: u64,
    started: bool,
}

/// Clusters in the order in which they come in.
type Waiting = Chain<Range<u64>, Range<u64>>;

/// Clusters that run before their results are put together.
const PORTION: usize = 4096;
/// Turns of a cluster in a slice.
const SLICE_TURNS: u32 = 16;
/// Of how many lengths, each twice the one before, slices are whose blocks talk to each other.
const SLICE_LENGTHS: u64 = 5;

impl GridRun {
    /// A grid about to start. `resident_blocks` is what the device holds at once; `first_uid` names its
    /// blocks in the race detector: as many uids as the grid has blocks, twice (blocks and clusters).
    pub fn new(
        program: Arc<Program>,
        mut grid: Grid,
        start: Clock,
        resident_blocks: u64,
        first_uid: u32,
    ) -> Self {
        grid.first_uid = first_uid;
        let mut rng = Rng::new(grid.seed, u64::MAX);
        let total = grid.total_clusters();
        // A rotation, not a shuffle: cheap for any size, and neighbours stay together in caches.
        let first = if total == 0 { 0 } else { rng.below(total) };
        let waiting = (first..total).chain(0..first);
        let per_cluster = u64::from(grid.cluster_blocks());
        Self {
            program,
            grid,
            counters: Counters::default(),
            start,
            end: Clock::default(),
            waiting,
            resident: Vec::new(),
            max_resident: (resident_blocks / per_cluster).max(1) as usize,
            rng,
            spare: Vec::new(),
            spent: 0,
            started: false,
        }
    }

    /// Runs a part of the grid.
    pub fn slice(&mut self, context: &mut RunContext<'_>) -> SliceEnd {
        if !self.started {
            self.started = true;
            let independent =
                !self.program.habits.talks_across_blocks && !self.program.habits.depends_on_grids;
            if independent && context.race.is_none() && context.trace.is_none() {
                return self.run_independent(context);
            }
        }
        // Blocks that do not talk need not be resident together.
        let want = if self.program.habits.talks_across_blocks {
            self.max_resident
        } else {
            1
        };
        while self.resident.len() < want
            && let Some(id) = self.waiting.next()
        {
            let cluster = self.admit(id, context);
            self.resident.push(cluster);
        }
        if self.resident.is_empty() {
            return self.complete(context);
        }
        let index = self.rng.below(self.resident.len() as u64) as usize;
        let mut cluster = self.resident.swap_remove(index);
        // What blocks say to each other may depend on a few instructions, so short slices are needed
        // beside those that are quick.
        let turns = match self.program.habits.talks_across_blocks {
            true => 1 << self.rng.below(SLICE_LENGTHS),
            false => SLICE_TURNS,
        };
        let result = self.run_cluster(&mut cluster, context, turns);
        if self.program.habits.depends_on_grids {
            self.release_dependents(&cluster);
        }
        match result {
            Ok(ClusterEnd::Done) => {
                self.retire(*cluster, context);
                if self.resident.is_empty() && self.waiting.clone().next().is_none() {
                    return self.complete(context);
                }
                SliceEnd::Progress
            }
            Ok(ClusterEnd::Progress) => {
                self.resident.push(cluster);
                if self.spent > context.budget {
                    return SliceEnd::Fault(self.livelock(context));
                }
                SliceEnd::Progress
            }
            Ok(ClusterEnd::Stuck) => {
                cluster.idle_rounds += 1;
                self.resident.push(cluster);
                let all_stuck = self.resident.iter().all(|cluster| cluster.idle_rounds > 0);
                if !all_stuck {
                    SliceEnd::Progress
                } else if self.program.habits.depends_on_grids && self.waits_for_grid() {
                    self.resident
                        .iter_mut()
                        .for_each(|cluster| cluster.idle_rounds = 0);
                    SliceEnd::Blocked
                } else {
                    SliceEnd::Fault(self.deadlock())
                }
            }
            Err(fault) => {
                self.resident.push(cluster);
                SliceEnd::Fault(fault)
            }
        }
    }

    /// Dependent grids may start when every block has said so or is done.
    fn release_dependents(&self, current: &Cluster) {
        let mut here = self
            .resident
            .iter()
            .map(|cluster| &**cluster)
            .chain([current]);
        let all_here = self.waiting.clone().next().is_none();
        let says = |block: &Block| block.released_dependents || block.live_threads == 0;
        if all_here && here.all(|cluster| cluster.blocks.iter().all(says)) {
            self.grid.dependents.store(true, Ordering::Release);
        }
    }

    fn waits_for_grid(&self) -> bool {
        !self.grid.dependency.load(Ordering::Acquire)
    }

    fn complete(&mut self, context: &mut RunContext<'_>) -> SliceEnd {
        self.grid.dependents.store(true, Ordering::Release);
        if let Some(race) = &mut context.race {
            race.end_launch(self.grid.launch, &mut self.end);
        }
        SliceEnd::Done
    }

    /// Every cluster by itself, in parallel.
    fn run_independent(&mut self, context: &mut RunContext<'_>) -> SliceEnd {
        let first_fault = AtomicU64::new(u64::MAX);
        let spent = AtomicU64::new(0);
        let (grid, program) = (&self.grid, &*self.program);
        let launches = context.launches;
        let (checks, budget) = (context.checks, context.budget);
        let memory = &context.memory;
        let run = |spare: &mut Vec<Box<Warp>>, id: u64| -> Option<Part> {
            // Later clusters of a grid that already failed would only cost time.
            if id > first_fault.load(Ordering::Relaxed) {
                return None;
            }
            let mut part = Part {
                id,
                ..Part::default()
            };
            let mut inner = RunContext {
                memory: Arc::clone(memory),
                checks,
                race: None,
                reports: &mut part.reports,
                threads: 1,
                budget,
                trace: None,
                launches,
            };
            let mut cluster = Box::new(grid.make_cluster(id, program, checks, spare));
            let mut counters = Counters {
                blocks: cluster.blocks.len() as u64,
                ..Counters::default()
            };
            loop {
                let before = cluster.cycles;
                let end = run_turns(
                    &mut cluster,
                    program,
                    grid,
                    &mut counters,
                    &mut inner,
                    SLICE_TURNS,
                );
                let total = spent.fetch_add(cluster.cycles - before, Ordering::Relaxed);
                let fault = match end {
                    Ok(ClusterEnd::Done) => None,
                    Ok(ClusterEnd::Progress) if total > budget => {
                        Some(livelock(&[&cluster], program, grid, budget))
                    }
                    Ok(ClusterEnd::Progress) => continue,
                    Ok(ClusterEnd::Stuck) => Some(deadlock(&[&cluster], program, grid)),
                    Err(fault) => Some(fault),
                };
                if fault.is_some() {
                    first_fault.fetch_min(id, Ordering::Relaxed);
                }
                part.fault = fault;
                part.counters = counters;
                recycle(&mut cluster, spare);
                return Some(part);
            }
        };
        // Portions, so that what the clusters of a large grid did is summed up before it is much.
        let mut spare = Vec::new();
        loop {
            let order: Vec<u64> = self.waiting.by_ref().take(PORTION).collect();
            if order.is_empty() {
                break;
            }
            let mut parts: Vec<Part> = if context.threads > 1 && order.len() > 1 {
                order
                    .par_iter()
                    .map_init(Vec::new, |spare, &id| run(spare, id))
                    .flatten()
                    .collect()
            } else {
                order.iter().filter_map(|&id| run(&mut spare, id)).collect()
            };
            parts.sort_by_key(|part| part.id);
            for part in parts {
                self.counters.add(&part.counters);
                note_all(context.reports, part.reports);
                if let Some(fault) = part.fault {
                    return SliceEnd::Fault(fault);
                }
            }
            if spent.load(Ordering::Relaxed) > budget {
                return SliceEnd::Fault(livelock(&[], program, grid, budget));
            }
        }
        self.complete(context)
    }

    fn admit(&mut self, id: u64, context: &mut RunContext<'_>) -> Box<Cluster> {
        let mut cluster =
            self.grid
                .make_cluster(id, &self.program, context.checks, &mut self.spare);
        self.counters.blocks += cluster.blocks.len() as u64;
        let blocks = self.grid.cluster_blocks();
        let Some(race) = &mut context.race else {
            return Box::new(cluster);
        };
        for (rank, block) in cluster.blocks.iter_mut().enumerate() {
            block.uid = self.grid.first_uid + id as u32 * blocks + rank as u32;
            race.begin_block(block.uid, u64::from(block.shared.end()));
            for warp in block.warps.iter_mut().flatten() {
                let info = WarpInfo {
                    launch: self.grid.launch,
                    device: self.grid.device,
                    cluster: self.grid.first_uid + id as u32,
                    block: block.uid,
                    warp: warp.index,
                    lanes: warp.live,
                };
                warp.race = Some(race.begin_warp(info, &self.start));
            }
        }
        Box::new(cluster)
    }

    fn retire(&mut self, mut cluster: Cluster, context: &mut RunContext<'_>) {
        self.forget_cluster(&mut cluster, context.race.as_deref_mut());
        recycle(&mut cluster, &mut self.spare);
    }

    /// The race detector learns that warps have ended, and lets go of their blocks.
    fn forget_cluster(&mut self, cluster: &mut Cluster, race: Option<&mut Detector>) {
        let Some(race) = race else { return };
        for block in &mut cluster.blocks {
            for warp in block.warps.iter_mut().flatten() {
                if let Some(id) = warp.race.take() {
                    race.end_warp(id, &mut self.end);
                }
            }
            race.end_block(block.uid);
        }
    }

    /// Ends a grid that will not run again, complete or not: the race detector lets go of its warps.
    pub fn abandon(&mut self, mut race: Option<&mut Detector>) {
        for mut cluster in std::mem::take(&mut self.resident) {
            self.forget_cluster(&mut cluster, race.as_deref_mut());
        }
        if let Some(race) = race {
            race.end_launch(self.grid.launch, &mut self.end);
        }
    }

    fn run_cluster(
        &mut self,
        cluster: &mut Cluster,
        context: &mut RunContext<'_>,
        turns: u32,
    ) -> Result<ClusterEnd, Box<Fault>> {
        let before = cluster.cycles;
        let end = run_turns(
            cluster,
            &self.program,
            &self.grid,
            &mut self.counters,
            context,
            turns,
        );
        self.spent += cluster.cycles - before;
        if !matches!(end, Ok(ClusterEnd::Stuck)) {
            // Whatever ran may have let the others go on.
            cluster.idle_rounds = 0;
            self.resident
                .iter_mut()
                .for_each(|other| other.idle_rounds = 0);
        }
        end
    }

    fn livelock(&self, context: &RunContext<'_>) -> Box<Fault> {
        let all: Vec<&Cluster> = self.resident.iter().map(|cluster| &**cluster).collect();
        livelock(&all, &self.program, &self.grid, context.budget)
    }

    /// The report of a grid whose threads all wait: for each other, or for a grid that cannot end.
    pub fn deadlock(&self) -> Box<Fault> {
        let all: Vec<&Cluster> = self.resident.iter().map(|cluster| &**cluster).collect();
        deadlock(&all, &self.program, &self.grid)
    }
}

/// What one independent cluster did.
#[derive(Default)]
struct Part {
    id: u64,
    counters: Counters,
    reports: Vec<Report>,
    fault: Option<Box<Fault>>,
}

fn note_all(into: &mut Vec<Report>, reports: Vec<Report>) {
    for report in reports {
        let known = into.iter().any(|old| {
            old.kind == report.kind
                && old.kernel == report.kernel
                && old.site.ptx_line == report.site.ptx_line
        });
        if !known {
            into.push(report);
        }
    }
}

fn recycle(cluster: &mut Cluster, spare: &mut Vec<Box<Warp>>) {
    for block in &mut cluster.blocks {
        spare.extend(block.warps.drain(..).flatten());
    }
}

#[derive(Debug)]
enum ClusterEnd {
    Done,
    Progress,
    Stuck,
}

/// Gives warps of a cluster their turns.
fn run_turns(
    cluster: &mut Cluster,
    program: &Program,
    grid: &Grid,
    counters: &mut Counters,
    context: &mut RunContext<'_>,
    turns: u32,
) -> Result<ClusterEnd, Box<Fault>> {
    let arch = Vector::new();
    let mut futile = 0;
    for _ in 0..turns {
        cluster.turn += 1;
        if cluster.has_pending() {
            deliver(cluster, program, grid, counters, context, arch, false)?;
        }
        let Some((block, slot)) = next_warp(cluster) else {
            let finished = cluster.blocks.iter().all(|block| block.live_threads == 0);
            if cluster.has_pending() {
                // Nobody can run: time passes until the next operation is through.
                deliver(cluster, program, grid, counters, context, arch, true)?;
                continue;
            }
            if finished {
                return Ok(ClusterEnd::Done);
            }
            if futile < 2 && wake_impatient(cluster) {
                futile += 1;
                continue;
            }
            return Ok(ClusterEnd::Stuck);
        };
        let Some(mut warp) = cluster.blocks[block].warps[slot].take() else {
            continue;
        };
        let mut quantum = 1 + cluster.rng.below(cluster.quantum);
        let granted = quantum;
        let now = cluster.cycles + cluster.slept;
        let first_block = cluster.blocks[0].linear;
        let mut core = Core {
            env: Env {
                program,
                grid,
                memory: Arc::clone(&context.memory),
                arch,
                checks: context.checks,
                race: context.race.as_deref_mut(),
                counters,
                reports: context.reports,
                now,
                trace: context.trace.as_deref_mut(),
                launches: context.launches,
                cluster,
            },
            warp: &mut warp,
            block,
            pc: 0,
            split: 0,
            scatter: [0; LANES],
            arch,
        };
        if let Some(trace) = &mut core.env.trace {
            trace.start_at(first_block);
        }
        let end = turn(&mut core, &mut quantum);
        cluster.cycles += granted - quantum;
        let end = match end {
            Ok(end) => end,
            Err(fault) => {
                cluster.blocks[block].warps[slot] = Some(warp);
                return Err(fault);
            }
        };
        cluster.blocks[block].warps[slot] = Some(warp);
        if end == TurnEnd::Waiting {
            counters.barrier_waits += 1;
        }
    }
    Ok(ClusterEnd::Progress)
}

fn deliver(
    cluster: &mut Cluster,
    program: &Program,
    grid: &Grid,
    counters: &mut Counters,
    context: &mut RunContext<'_>,
    arch: Vector,
    hurry: bool,
) -> Result<(), Box<Fault>> {
    let mut hurry = hurry;
    while let Some(run) = cluster.take_due(hurry) {
        hurry = false;
        let now = cluster.cycles + cluster.slept;
        run(&mut Env {
            program,
            grid,
            memory: Arc::clone(&context.memory),
            arch,
            checks: context.checks,
            race: context.race.as_deref_mut(),
            counters,
            reports: context.reports,
            now,
            trace: None,
            launches: context.launches,
            cluster,
        })?;
    }
    Ok(())
}

/// A warp that can run, looked for from a random place on.
fn next_warp(cluster: &mut Cluster) -> Option<(usize, usize)> {
    let per_block = cluster.blocks[0].warps.len();
    let total = cluster.blocks.len() * per_block;
    let start = cluster.rng.below(total as u64) as usize;
    (0..total)
        .map(|step| (start + step) % total)
        .find_map(|place| {
            let (block, slot) = (place / per_block, place % per_block);
            let warp = cluster.blocks[block].warps[slot].as_ref()?;
            (!warp.splits.is_empty() && warp.can_run(cluster)).then_some((block, slot))
        })
}

/// Ends the waits that the hardware would give up; says whether there was one.
fn wake_impatient(cluster: &mut Cluster) -> bool {
    let mut any = false;
    for warp in cluster
        .blocks
        .iter_mut()
        .flat_map(|block| block.warps.iter_mut().flatten())
    {
        for split in &mut warp.splits {
            if matches!(split.wait, Some(Wait::For { gives_up: true, .. })) {
                split.wait = None;
                warp.asynchronous.gave_up |= split.mask;
                any = true;
            }
        }
    }
    any
}
