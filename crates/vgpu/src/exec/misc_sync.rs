//! Dependent grids, sleep, register pools, and stores that tell an mbarrier when they arrive.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::mbarrier::{self, Origin};
use super::modifiers::needs_target;
use super::{Core, Env, Fault, Flow, Handler, Place};
use crate::lane::{LANES, lanes};
use crate::machine::Wait;
use crate::program::{Address, Builder, Class, LoadError, Src};
use crate::ptx::ast::{Space, Type};
use crate::race::{Kind as AccessKind, Proxy, RangeAccess, Scope, ScopedClock, Space as RaceSpace};
use crate::report::Kind;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Barrier;
    match b.opcode() {
        "griddepcontrol" => dependent_grids(b),
        "nanosleep" => sleep(b),
        "setmaxnreg" => register_count(b),
        "st" => {
            b.class = Class::Async;
            store(b)
        }
        _ => {
            b.class = Class::Async;
            reduce(b)
        }
    }
}

fn dependent_grids(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    needs_target(b, 90, "griddepcontrol")?;
    b.habits().depends_on_grids = true;
    match b.take() {
        Some("launch_dependents") => Ok(Box::new(|core, _| {
            core.block().released_dependents = true;
            Ok(Flow::Next)
        })),
        Some("wait") => Ok(Box::new(|core, exec| {
            if core.env.grid.dependency.load(Ordering::Acquire) {
                if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race)
                    && let Some(clock) = core.env.grid.dependency_clock.get()
                {
                    race.acquire(id, exec, clock);
                }
                return Ok(Flow::Next);
            }
            let dependency = Arc::clone(&core.env.grid.dependency);
            Ok(Flow::Retry(Wait::For {
                reason: Box::new(|_| "the grids before this one are not complete".to_owned()),
                ready: Box::new(move |_| dependency.load(Ordering::Acquire)),
                gives_up: false,
            }))
        })),
        _ => Err(b.error("an action of griddepcontrol expected: .launch_dependents or .wait")),
    }
}

fn sleep(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.expect("u32")?;
    let time = b.src(Type::U32)?;
    b.must_be_defined(time);
    Ok(Box::new(move |core, exec| {
        // A sleep may last from nothing to twice as long; one nanosecond is one cycle here.
        let time = core.get::<u32>(time)[exec.trailing_zeros() as usize];
        core.env.cluster.slept += u64::from(time);
        Ok(Flow::Yield)
    }))
}

/// `setmaxnreg`: what one warp gives back, another may take.
fn register_count(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    needs_target(b, 90, "setmaxnreg")?;
    let more = b
        .accept_any(&["dec", "inc"])
        .ok_or_else(|| b.error(".inc or .dec expected"))?
        == 1;
    b.expect("sync")?;
    b.expect("aligned")?;
    b.expect("u32")?;
    let count = b.immediate()?;
    if !(24..=256).contains(&count) || count % 8 != 0 {
        return Err(b.error(format!(
            "{count} registers: a multiple of 8 from 24 to 256 is needed"
        )));
    }
    let count = count as u32;
    Ok(Box::new(move |core, exec| {
        if core.live() & !exec != 0 {
            return Ok(Flow::Converge(core.live()));
        }
        Ok(set_registers(core, exec, count, more))
    }))
}

/// Registers a thread that a kernel of warps with different needs is launched with: as many as its
/// bounds allow, which is what `setmaxnreg` asks of the compiler.
fn launched_with(env: &Env<'_>) -> u32 {
    let directives = &env.program.directives;
    directives.max_registers.unwrap_or_else(|| {
        let blocks = directives.min_blocks_per_sm.unwrap_or(1).max(1);
        let threads = env.grid.block_threads().next_multiple_of(128);
        (env.grid.arch.registers_per_sm / blocks / threads).min(256) / 8 * 8
    })
}

fn set_registers(core: &mut Core<'_>, exec: u32, count: u32, more: bool) -> Flow {
    let rank = core.block;
    let now = match core.warp.registers {
        0 => launched_with(&core.env),
        registers => registers,
    };
    if more == (count < now) && count != now {
        if core.env.checks.barriers {
            let word = if more { "inc" } else { "dec" };
            let message = format!("setmaxnreg.{word} to {count} from {now} registers");
            let lane = exec.trailing_zeros() as usize;
            core.note(core.report(Kind::Undefined, lane, message));
        }
        return Flow::Next;
    }
    let threads = LANES as u32;
    if more {
        let wanted = (count - now) * threads;
        if wanted > core.block().free_registers {
            return Flow::Retry(Wait::For {
                reason: Box::new(move |cluster| {
                    let free = cluster.blocks[rank].free_registers;
                    format!("setmaxnreg: {wanted} registers wanted, {free} are in the block's pool")
                }),
                ready: Box::new(move |cluster| cluster.blocks[rank].free_registers >= wanted),
                gives_up: false,
            });
        }
        core.block().free_registers -= wanted;
    } else {
        core.block().free_registers += (now - count) * threads;
    }
    core.warp.registers = count;
    Flow::Next
}

/// `.shared::cluster` or a generic address.
fn space(b: &mut Builder<'_, '_>) -> Space {
    if b.accept("shared::cluster") {
        Space::SharedCluster
    } else {
        Space::Generic
    }
}

/// What an asynchronous store does to its word: the word, the operand.
type Update = fn(u64, u64) -> u64;

fn store(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    needs_target(b, 90, "st.async")?;
    b.expect("async")?;
    b.accept("weak");
    let space = space(b);
    b.expect("mbarrier::complete_tx::bytes")?;
    let count = match b.accept_any(&["v2", "v4"]) {
        Some(0) => 2,
        Some(_) => 4,
        None => 1,
    };
    let ty = b.ty()?;
    if !matches!(ty.bytes(), 4 | 8) {
        return Err(b.error("st.async stores words of 32 or 64 bits"));
    }
    let to = b.address()?;
    let values = b.vector_src(ty, false)?;
    if values.len() != count {
        return Err(b.error(format!("{} values where {count} are stored", values.len())));
    }
    finish(b, space, to, values, ty, None)
}

fn reduce(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    needs_target(b, 90, "red.async")?;
    b.expect("async")?;
    b.expect("relaxed")?;
    b.expect("cluster")?;
    let space = space(b);
    b.expect("mbarrier::complete_tx::bytes")?;
    let op = b.take().unwrap_or("");
    let ty = b.ty()?;
    let update: Update = match (op, ty) {
        ("inc", Type::U32) => |old, limit| if old >= limit { 0 } else { old + 1 },
        ("dec", Type::U32) => |old, limit| {
            if old == 0 || old > limit {
                limit
            } else {
                old - 1
            }
        },
        ("min", Type::U32) => |old, new| old.min(new),
        ("max", Type::U32) => |old, new| old.max(new),
        ("min", Type::S32) => |old, new| (old as i32).min(new as i32) as u64,
        ("max", Type::S32) => |old, new| (old as i32).max(new as i32) as u64,
        ("and", Type::B32) => |old, new| old & new,
        ("or", Type::B32) => |old, new| old | new,
        ("xor", Type::B32) => |old, new| old ^ new,
        ("add", Type::U32 | Type::S32 | Type::U64) => u64::wrapping_add,
        _ => return Err(b.error(format!("red.async.{op} of this type is not in PTX"))),
    };
    let to = b.address()?;
    let value = b.src(ty)?;
    finish(b, space, to, vec![value], ty, Some(update))
}

/// One lane's words on their way.
struct Message {
    rank: usize,
    offset: u32,
    values: [u64; 4],
    barrier: mbarrier::Place,
    clock: ScopedClock,
    origin: Origin,
}

fn finish(
    b: &mut Builder<'_, '_>,
    space: Space,
    to: Address,
    values: Vec<Src>,
    ty: Type,
    update: Option<Update>,
) -> Result<Handler, LoadError> {
    values.iter().for_each(|&value| b.must_be_defined(value));
    let barrier = b.address()?;
    let word = ty.bytes() as u32;
    Ok(Box::new(move |core, exec| {
        let (to, barriers) = (core.addresses(&to), core.addresses(&barrier));
        let mut words = [[0; LANES]; 4];
        for (words, &value) in words.iter_mut().zip(&values) {
            *words = core.get::<u64>(value);
        }
        let bytes = word * values.len() as u32;
        let mut messages = Vec::new();
        for lane in lanes(exec) {
            let Place::Shared { rank, offset } =
                core.resolve(space, lane, to[lane], bytes.into())?
            else {
                let message = format!("address {:#x} is not in shared memory", to[lane]);
                return Err(core.fault(Kind::OutOfBounds, lane, message));
            };
            let barrier = mbarrier::object(core, space, lane, barriers[lane], true)?;
            if barrier.rank != rank {
                let message = format!(
                    "the word is in the block of rank {rank}, its mbarrier in that of rank {}",
                    barrier.rank
                );
                return Err(core.fault(Kind::BarrierObject, lane, message));
            }
            let clock = track(core, lane, (rank, offset), bytes, update.is_some());
            messages.push(Message {
                rank,
                offset,
                values: words.map(|words| words[lane]),
                barrier,
                clock,
                origin: Origin::of(core, lane),
            });
        }
        let (own, count) = (core.block, values.len());
        let remote = messages
            .iter()
            .filter(|message| message.rank != own)
            .count() as u64;
        core.env.counters.distributed_shared_bytes += remote * u64::from(bytes);
        core.env.cluster.defer(Box::new(move |env| {
            for message in messages {
                deliver(env, &message, word, count, update)?;
            }
            Ok(())
        }));
        Ok(Flow::Next)
    }))
}

/// Tells the race detector of a lane's store, an operation of its own; returns what its completion
/// publishes.
fn track(
    core: &mut Core<'_>,
    lane: usize,
    (rank, offset): (usize, u32),
    bytes: u32,
    reduces: bool,
) -> ScopedClock {
    let mut clock = ScopedClock::default();
    let uid = core.env.cluster.blocks[rank].uid;
    let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) else {
        return clock;
    };
    let agent = race.spawn(id, 1 << lane, core.pc);
    // Reductions of several lanes to one word do not conflict with each other; the detector knows
    // no strong access of an operation, so only their reading is told.
    let kind = if reduces {
        AccessKind::Read
    } else {
        AccessKind::Write
    };
    let range = RangeAccess {
        space: RaceSpace::Shared(uid),
        kind,
        proxy: Proxy::Generic,
        address: offset.into(),
        bytes: bytes.into(),
        inst: core.pc,
    };
    let conflict = race.agent_access(agent, &range);
    race.agent_release_scoped(agent, Scope::Cluster, &mut clock);
    race.agent_end(agent);
    if let Some(conflict) = conflict {
        core.env.note_conflict(conflict);
    }
    clock
}

fn deliver(
    env: &mut Env<'_>,
    message: &Message,
    word: u32,
    count: usize,
    update: Option<Update>,
) -> Result<(), Box<Fault>> {
    let shared = &mut env.cluster.blocks[message.rank].shared;
    for (index, &value) in message.values[..count].iter().enumerate() {
        let at = message.offset + index as u32 * word;
        let new = match update {
            Some(update) => update(shared.load(at, word), value),
            None => value,
        };
        shared.store(at, word, new);
        shared.mark_written(at, word, true);
    }
    let bytes = word * count as u32;
    mbarrier::complete_tx(env, message.barrier, bytes, &message.clock, message.origin)
}
