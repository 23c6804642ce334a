//! Barriers of a block (`bar`, `barrier`) and of a cluster (`barrier.cluster`).
//!
//! A barrier of a block counts threads. Whoever arrives last ends the generation on behalf of
//! everyone: it hands the waiting lanes their result and what the others published, so that nothing
//! is left to do when they go on, however late that is.

use super::{Core, Env, Fault, Flow, Handler};
use crate::lane::{LANES, lanes};
use crate::machine::{Arrival, Barrier, Gives, Wait, Waiter};
use crate::program::{Builder, Class, LoadError, Pred, Src};
use crate::ptx::ast::{Operand, Type};
use crate::report::Kind;

/// Number of barriers of a block.
const BARRIERS: u32 = 16;
/// Stands for "all threads of the block".
const ALL: u32 = u32::MAX;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Barrier;
    let always_aligned = b.opcode() == "bar";
    if always_aligned && b.accept("warp") {
        return super::warp_ops::warp_barrier(b);
    }
    if !always_aligned && b.accept("cluster") {
        return cluster(b);
    }
    b.accept("cta");
    let action = b.take().unwrap_or("");
    let reduction = match action {
        "sync" | "arrive" => None,
        "red" => Some(b.accept_any(&["popc", "and", "or"]).ok_or_else(|| {
            b.error("an operation of the reduction expected: .popc, .and or .or")
        })?),
        _ => return Err(b.error("an action of the barrier expected: .sync, .arrive or .red")),
    };
    let aligned = b.accept("aligned") || always_aligned;
    let gives = match reduction {
        None => Gives::Nothing,
        Some(0) => {
            b.expect("u32")?;
            Gives::Count(b.dst(Type::U32)?)
        }
        Some(op) => {
            b.expect("pred")?;
            let p = b.pred_dst()?;
            if op == 1 {
                Gives::All(p)
            } else {
                Gives::Any(p)
            }
        }
    };
    if let Some(Operand::Int(id)) = b.peek_operand()
        && !(0..BARRIERS.into()).contains(id)
    {
        return Err(b.error(format!("barrier {id} of {BARRIERS}")));
    }
    let id = b.src(Type::U32)?;
    b.must_be_defined(id);
    let counts = b.operands_left() > usize::from(reduction.is_some());
    let count = if counts {
        if let Some(Operand::Int(count)) = b.peek_operand()
            && let Some(problem) = bad_count(*count as u32)
        {
            return Err(b.error(problem));
        }
        let count = b.src(Type::U32)?;
        b.must_be_defined(count);
        Some(count)
    } else if action == "arrive" {
        return Err(b.error("an arrival needs the number of threads"));
    } else {
        None
    };
    let vote = if reduction.is_some() {
        Some(b.pred()?)
    } else {
        None
    };
    let call = Call {
        waits: action != "arrive",
        aligned,
        gives,
        id,
        count,
        vote,
    };
    Ok(Box::new(move |core, exec| call.run(core, exec)))
}

fn bad_count(count: u32) -> Option<String> {
    (count == 0 || !count.is_multiple_of(LANES as u32))
        .then(|| format!("{count} threads at a barrier: a multiple of 32, not 0, is needed"))
}

/// A decoded barrier instruction.
struct Call {
    waits: bool,
    aligned: bool,
    gives: Gives,
    id: Src,
    count: Option<Src>,
    vote: Option<Pred>,
}

impl Call {
    fn run(&self, core: &mut Core<'_>, exec: u32) -> Result<Flow, Box<Fault>> {
        if self.aligned && core.live() & !exec != 0 {
            return Ok(Flow::Converge(core.live()));
        }
        let ids = core.get::<u32>(self.id);
        let counts = self.count.map(|count| core.get::<u32>(count));
        let named = |lane: usize| (ids[lane], counts.map_or(ALL, |counts| counts[lane]));
        let first = exec.trailing_zeros() as usize;
        let (id, count) = named(first);
        let same = lanes(exec).filter(|&lane| named(lane) == (id, count));
        let same = same.fold(0, |same, lane| same | 1 << lane);
        if id >= BARRIERS {
            let message = format!("barrier {id} of {BARRIERS}");
            return Err(core.fault(Kind::Undefined, first, message));
        }
        if count != ALL
            && let Some(problem) = bad_count(count)
        {
            return Err(core.fault(Kind::DivergentBarrier, first, problem));
        }
        if self.aligned && same != exec && core.env.checks.barriers {
            let other = (exec & !same).trailing_zeros() as usize;
            let message = format!(
                "lanes of one warp at different barriers: lane {first} names barrier {id}, lane \
                 {other} barrier {}, or they name different numbers of threads",
                ids[other]
            );
            core.note(core.report(Kind::DivergentBarrier, first, message));
        }
        let flow = self.arrive(core, id, count, same);
        // Lanes at another barrier arrive at that one next.
        Ok(if same == exec {
            flow
        } else {
            Flow::Only(same, Box::new(flow))
        })
    }

    fn arrive(&self, core: &mut Core<'_>, id: u32, count: u32, exec: u32) -> Flow {
        core.env.counters.barrier_arrivals += 1;
        let (rank, warp, pc) = (core.block, core.warp.index, core.pc);
        let votes = self.vote.map_or(0, |vote| core.pred(vote));
        let live = core.live();
        let full = core.env.grid.block_threads().next_multiple_of(LANES as u32);
        let here = Arrival {
            pc,
            warp,
            lane: exec.trailing_zeros() as usize,
            reduces: self.vote.is_some(),
        };
        let barrier = &mut core.env.cluster.blocks[rank].barriers[id as usize];
        let before = barrier.first.filter(|_| barrier.expected != 0);
        if before.is_none() {
            barrier.first = Some(here);
            barrier.expected = count;
        }
        let expected = barrier.expected;
        if expected == ALL {
            barrier.arrived += exec.count_ones();
        } else {
            barrier.arrived += barrier.count(warp, exec, !live);
        }
        barrier.votes[0] += (votes & exec).count_ones();
        barrier.votes[1] += (!votes & exec).count_ones();
        if self.waits {
            let (lanes, gives) = (exec, self.gives);
            barrier.waiters.push(Waiter { warp, lanes, gives });
        }
        if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) {
            race.release(id, exec, &mut barrier.clock);
        }
        let (arrived, generation) = (barrier.arrived, barrier.generation);
        if let Some(before) = before
            && core.env.checks.barriers
        {
            // A number that stands for the whole block is as good as none.
            let norm = |count| if count == ALL { full } else { count };
            if norm(count) != norm(expected) {
                let words = |count| match count {
                    ALL => "all threads of the block".to_owned(),
                    count => format!("{count} threads"),
                };
                let message = format!(
                    "barrier {id} for {}, and for {}",
                    words(count),
                    words(expected)
                );
                mismatch(core, here, before, message);
            } else if here.reduces != before.reduces {
                let message = format!("barrier {id} with a reduction, and without one");
                mismatch(core, here, before, message);
            }
        }
        if expected != ALL && arrived > expected && core.env.checks.barriers {
            let message = format!("{arrived} arrivals at barrier {id}, which expects {expected}");
            core.note(core.report(Kind::OverArrival, here.lane, message));
        }
        if complete_if_due(core, id as usize) || !self.waits {
            return Flow::Next;
        }
        let id = id as usize;
        Flow::Block(Wait::For {
            reason: Box::new(move |cluster| {
                let block = &cluster.blocks[rank];
                let barrier = &block.barriers[id];
                let expected = match barrier.expected {
                    ALL => block.live_threads,
                    expected => expected,
                };
                format!(
                    "barrier {id}: {} of {expected} threads have arrived",
                    barrier.arrived
                )
            }),
            ready: Box::new(move |cluster| {
                cluster.blocks[rank].barriers[id].generation != generation
            }),
            gives_up: false,
        })
    }
}

#[cold]
fn mismatch(core: &mut Core<'_>, here: Arrival, before: Arrival, message: String) {
    let mut report = core.report(Kind::DivergentBarrier, here.lane, message);
    let inst = &core.env.program.insts[before.pc as usize];
    let block = core.env.cluster.blocks[core.block].index;
    let other = core
        .env
        .site(before.pc, block, before.warp, before.lane, inst.action());
    report.other = Some(other);
    core.note(report);
}

impl Barrier {
    /// Threads that an arrival of `exec` adds where threads are counted. The lanes of a warp that are
    /// `gone` count with the first one that arrives.
    fn count(&mut self, warp: u32, exec: u32, gone: u32) -> u32 {
        let index = warp as usize;
        if self.counted.len() <= index {
            self.counted.resize(index + 1, 0);
        }
        let added = exec.count_ones() + (gone & !exec & !self.counted[index]).count_ones();
        self.counted[index] |= exec | gone;
        added
    }
}

/// Ends a barrier's generation if all have arrived; says whether it did.
fn complete_if_due(core: &mut Core<'_>, id: usize) -> bool {
    let block = core.block();
    let live = block.live_threads;
    let barrier = &mut block.barriers[id];
    let due = match barrier.expected {
        0 => false,
        ALL => barrier.arrived >= live,
        expected => barrier.arrived >= expected,
    };
    if !due {
        return false;
    }
    let clock = std::mem::take(&mut barrier.clock);
    let waiters = std::mem::take(&mut barrier.waiters);
    let [yes, no] = barrier.votes;
    barrier.counted.clear();
    barrier.generation += 1;
    (barrier.arrived, barrier.expected) = (0, 0);
    (barrier.votes, barrier.first) = ([0; 2], None);
    for waiter in &waiters {
        if waiter.gives != Gives::Nothing {
            give(core, waiter, [yes, no]);
        }
        let race_id = if waiter.warp == core.warp.index {
            core.warp.race
        } else {
            let warps = &core.env.cluster.blocks[core.block].warps;
            warps[waiter.warp as usize]
                .as_ref()
                .and_then(|warp| warp.race)
        };
        if let (Some(race), Some(race_id)) = (&mut core.env.race, race_id) {
            race.acquire(race_id, waiter.lanes, &clock);
        }
    }
    // The next generation's list need not be allocated anew.
    let barrier = &mut core.block().barriers[id];
    barrier.waiters = waiters;
    barrier.waiters.clear();
    true
}

/// Writes a reduction's result where a waiter wants it.
fn give(core: &mut Core<'_>, waiter: &Waiter, [yes, no]: [u32; 2]) {
    let own = waiter.warp == core.warp.index;
    let rank = core.block;
    let warp = if own {
        &mut *core.warp
    } else {
        match core.env.cluster.blocks[rank].warps[waiter.warp as usize].as_deref_mut() {
            Some(warp) => warp,
            None => return,
        }
    };
    let mask = waiter.lanes;
    let mut put = |index: Option<u32>, holds: bool| {
        if let Some(index) = index {
            let place = &mut warp.preds[index as usize];
            *place = *place & !mask | if holds { mask } else { 0 };
        }
    };
    match waiter.gives {
        Gives::Nothing => {}
        Gives::All(p) => put(p.0, no == 0),
        Gives::Any(p) => put(p.0, yes != 0),
        Gives::Count(d) => {
            if let Some(slot) = d.slot {
                lanes(mask).for_each(|lane| warp.regs[slot as usize].0[lane] = yes);
            }
        }
    }
}

/// Threads have exited: barriers do not wait for them any more.
pub(super) fn leave(core: &mut Core<'_>, exited: u32) {
    let warp = core.warp.index;
    for id in 0..BARRIERS as usize {
        let barrier = &mut core.block().barriers[id];
        if barrier.expected == 0 {
            continue;
        }
        if barrier.expected != ALL
            && barrier
                .counted
                .get(warp as usize)
                .is_some_and(|counted| *counted != 0)
        {
            barrier.arrived += barrier.count(warp, 0, exited);
        }
        complete_if_due(core, id);
    }
    if core.env.cluster.barrier.arrived != 0 {
        let current = (core.env.cluster.barrier.generation & 1) as usize;
        let gone = core.warp.cluster_arrivals[current] & exited;
        core.env.cluster.barrier.arrived -= gone.count_ones();
        core.warp.cluster_arrivals = core.warp.cluster_arrivals.map(|lanes| lanes & !exited);
        complete_cluster(&mut core.env);
    }
}

fn cluster(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    match b.take() {
        Some("arrive") => {
            let relaxed = b.accept_any(&["release", "relaxed"]) == Some(1);
            let aligned = b.accept("aligned");
            Ok(Box::new(move |core, exec| {
                if aligned && core.live() & !exec != 0 {
                    return Ok(Flow::Converge(core.live()));
                }
                cluster_arrive(core, exec, relaxed);
                Ok(Flow::Next)
            }))
        }
        Some("wait") => {
            b.accept("acquire");
            let aligned = b.accept("aligned");
            Ok(Box::new(move |core, exec| {
                if aligned && core.live() & !exec != 0 {
                    return Ok(Flow::Converge(core.live()));
                }
                Ok(cluster_wait(core, exec))
            }))
        }
        _ => Err(b.error("an action of the cluster's barrier expected: .arrive or .wait")),
    }
}

fn cluster_arrive(core: &mut Core<'_>, exec: u32, relaxed: bool) {
    core.env.counters.barrier_arrivals += 1;
    let [even, odd] = core.warp.cluster_arrivals;
    let again = (even | odd) & exec;
    if again != 0 && core.env.checks.barriers {
        let lane = again.trailing_zeros() as usize;
        let message = "a second arrival at the cluster's barrier without a wait between them";
        core.note(core.report(Kind::OverArrival, lane, message));
    }
    let barrier = &mut core.env.cluster.barrier;
    let fresh = exec & !again;
    core.warp.cluster_arrivals[(barrier.generation & 1) as usize] |= fresh;
    barrier.arrived += fresh.count_ones();
    if !relaxed && let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) {
        race.release(id, exec, &mut barrier.clock);
    }
    complete_cluster(&mut core.env);
}

fn complete_cluster(env: &mut Env<'_>) {
    let live: u32 = env
        .cluster
        .blocks
        .iter()
        .map(|block| block.live_threads)
        .sum();
    let barrier = &mut env.cluster.barrier;
    if barrier.arrived != 0 && barrier.arrived >= live {
        barrier.arrived = 0;
        barrier.generation += 1;
        barrier.completed_clock = std::mem::take(&mut barrier.clock);
    }
}

fn cluster_wait(core: &mut Core<'_>, exec: u32) -> Flow {
    let [even, odd] = core.warp.cluster_arrivals;
    let missing = exec & !(even | odd);
    if missing != 0 && core.env.checks.barriers {
        let lane = missing.trailing_zeros() as usize;
        let message = "a wait at the cluster's barrier by a thread that has not arrived";
        core.note(core.report(Kind::DivergentBarrier, lane, message));
    }
    // A lane that has not arrived again cannot be more than one generation behind.
    let generation = core.env.cluster.barrier.generation;
    let current = (generation & 1) as usize;
    let early = exec & core.warp.cluster_arrivals[current];
    let done = exec & !early;
    if done == 0 {
        return Flow::Retry(Wait::For {
            reason: Box::new(|cluster| {
                let live: u32 = cluster.blocks.iter().map(|block| block.live_threads).sum();
                let arrived = cluster.barrier.arrived;
                format!("the cluster's barrier: {arrived} of {live} threads have arrived")
            }),
            ready: Box::new(move |cluster| cluster.barrier.generation != generation),
            gives_up: false,
        });
    }
    core.warp.cluster_arrivals[1 - current] &= !done;
    if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) {
        race.acquire(id, done, &core.env.cluster.barrier.completed_clock);
    }
    if early == 0 {
        Flow::Next
    } else {
        Flow::Only(done, Box::new(Flow::Next))
    }
}
