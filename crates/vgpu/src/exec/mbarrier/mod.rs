//! mbarriers: what they count, what completing a phase makes known, and how they are misused.
//!
//! The counts are in shared memory (see [`word`]); a table beside it remembers which places hold an
//! object, the number of the phase, and the clocks of the race detector.
//!
//! Scopes: an arrival or a wait that names its scope is taken at its word. One that names none is
//! treated as `.cluster` although PTX says `.cta`: the instructions for remote barriers are widely used
//! without a scope, and hardware orders them.

mod instructions;
mod word;

use std::collections::BTreeMap;

use self::word::{MOST, Word};
use super::{Core, Env, Fault};
use crate::machine::{Cluster, Shared};
use crate::race::ScopedClock;
use crate::report::{Kind, Report};

pub(super) use instructions::{decode, object};

/// Bytes of an object.
const BYTES: u32 = 8;

/// The thread on whose behalf something is done to an mbarrier, for reports.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Instruction index.
    pub pc: u32,
    /// Rank of the block in its cluster.
    pub rank: usize,
    /// Warp in the block.
    pub warp: u32,
    /// Lane.
    pub lane: usize,
}

impl Origin {
    /// A lane at the instruction that a warp executes.
    pub fn of(core: &Core<'_>, lane: usize) -> Self {
        Self {
            pc: core.pc,
            rank: core.block,
            warp: core.warp.index,
            lane,
        }
    }
}

/// The mbarriers of a block.
#[derive(Default)]
pub struct Mbarriers {
    objects: BTreeMap<u32, Object>,
}

/// What is known of an mbarrier beside its bits.
struct Object {
    /// How many phases are complete.
    phase: u64,
    /// What the arrivals of this phase publish.
    clock: ScopedClock,
    /// What those of the last complete phase published.
    completed: ScopedClock,
    /// Lanes that are parked until the phase is complete.
    waiting: u32,
    /// Whether somebody asked for this phase in vain.
    asked: bool,
    /// Bytes that this phase was told to expect, and that have come.
    expected_bytes: u64,
    completed_bytes: u64,
}

impl Mbarriers {
    /// The place of an object that some of these bytes belong to.
    #[inline]
    pub fn overlaps(&self, offset: u32, bytes: u32) -> Option<u32> {
        if self.objects.is_empty() {
            return None;
        }
        let end = offset.saturating_add(bytes);
        let (&at, _) = self.objects.range(..end).next_back()?;
        (at + BYTES > offset).then_some(at)
    }

    /// What an object waits for, in words: `mbarrier at shared+1040: phase 3, 1 arrival and 4096 bytes
    /// outstanding`.
    fn describe(&self, shared: &Shared, offset: u32) -> String {
        let Some(object) = self.objects.get(&offset) else {
            return format!("mbarrier at shared+{offset}, which is gone");
        };
        let word = Word::unpack(shared.load(offset, BYTES));
        let plural = if word.pending == 1 { "" } else { "s" };
        format!(
            "mbarrier at shared+{offset}: phase {}, {} arrival{plural} and {} bytes outstanding",
            object.phase, word.pending, word.tx
        )
    }

    /// Says what is wrong with the transaction bytes of a phase that somebody waits for and that
    /// nothing will complete; `None` if none is like that.
    pub fn diagnose(&self, shared: &Shared) -> Option<String> {
        self.objects.iter().find_map(|(&offset, object)| {
            let word = Word::unpack(shared.load(offset, BYTES));
            (object.asked && word.tx != 0).then(|| {
                format!(
                    "{} ({} bytes expected, {} delivered)",
                    self.describe(shared, offset),
                    object.expected_bytes,
                    object.completed_bytes
                )
            })
        })
    }

    /// Whether the phase that was current is complete.
    fn has_passed(&self, offset: u32, phase: u64) -> bool {
        self.objects
            .get(&offset)
            .is_none_or(|object| object.phase != phase)
    }
}

/// What an operation does to an object.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    /// Bytes to expect, first of all.
    expect: u32,
    /// Arrivals.
    arrive: u32,
    /// Bytes that are there.
    complete: u32,
    /// Whether the arrivals are also taken from the phases to come.
    drop: bool,
    /// Whether the phase must not end by this.
    no_complete: bool,
}

/// A place where an mbarrier should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Rank of the block.
    pub rank: usize,
    /// `shared::cta` address in it.
    pub offset: u32,
}

/// Bytes of a copy are there: `complete-tx` on behalf of an asynchronous operation. `clock` holds what
/// the operation publishes.
///
/// # Errors
/// There is no mbarrier, or its counts overflow.
pub fn complete_tx(
    env: &mut Env<'_>,
    place: Place,
    bytes: u32,
    clock: &ScopedClock,
    origin: Origin,
) -> Result<(), Box<Fault>> {
    find(env, place, origin)?.clock.join(clock);
    let change = Change {
        complete: bytes,
        ..Change::default()
    };
    apply(env, place, change, origin).map(|_| ())
}

/// An asynchronous operation arrives, once.
///
/// # Errors
/// There is no mbarrier.
pub fn arrive_async(
    env: &mut Env<'_>,
    place: Place,
    clock: &ScopedClock,
    origin: Origin,
) -> Result<(), Box<Fault>> {
    find(env, place, origin)?.clock.join(clock);
    let change = Change {
        arrive: 1,
        ..Change::default()
    };
    apply(env, place, change, origin).map(|_| ())
}

/// Adds an arrival to those that the current phase waits for.
///
/// # Errors
/// There is no mbarrier, or its count overflows.
pub fn add_pending(env: &mut Env<'_>, place: Place, origin: Origin) -> Result<(), Box<Fault>> {
    find(env, place, origin)?;
    let mut word = load(env, place);
    if word.pending == MOST {
        let message = format!("more than {MOST} pending arrivals at an mbarrier");
        return Err(fault(env, Kind::OverArrival, message, origin));
    }
    word.pending += 1;
    store(env, place, word);
    Ok(())
}

fn load(env: &Env<'_>, place: Place) -> Word {
    let shared = &env.cluster.blocks[place.rank].shared;
    Word::unpack(shared.load(place.offset, BYTES))
}

fn store(env: &mut Env<'_>, place: Place, word: Word) {
    let shared = &mut env.cluster.blocks[place.rank].shared;
    shared.store(place.offset, BYTES, word.pack());
}

fn find<'a>(
    env: &'a mut Env<'_>,
    place: Place,
    origin: Origin,
) -> Result<&'a mut Object, Box<Fault>> {
    let known = env
        .cluster
        .blocks
        .get(place.rank)
        .is_some_and(|block| block.mbarriers.objects.contains_key(&place.offset));
    if !known {
        let message = format!(
            "there is no mbarrier at shared+{}{}: mbarrier.init comes first",
            place.offset,
            if place.rank == origin.rank {
                String::new()
            } else {
                format!(" of the block of rank {}", place.rank)
            }
        );
        return Err(fault(env, Kind::BarrierObject, message, origin));
    }
    let objects = &mut env.cluster.blocks[place.rank].mbarriers.objects;
    Ok(objects
        .entry(place.offset)
        .or_insert_with(|| Object::new(0)))
}

impl Object {
    fn new(phase: u64) -> Self {
        Self {
            phase,
            clock: ScopedClock::default(),
            completed: ScopedClock::default(),
            waiting: 0,
            asked: false,
            expected_bytes: 0,
            completed_bytes: 0,
        }
    }
}

fn report(env: &Env<'_>, kind: Kind, message: String, origin: Origin) -> Report {
    let block = env.cluster.blocks[origin.rank].index;
    let action = env.program.insts[origin.pc as usize].action();
    let site = env.site(origin.pc, block, origin.warp, origin.lane, action);
    env.report(kind, message, site)
}

fn fault(env: &Env<'_>, kind: Kind, message: String, origin: Origin) -> Box<Fault> {
    Box::new(Fault(report(env, kind, message, origin)))
}

fn note(env: &mut Env<'_>, kind: Kind, message: String, origin: Origin) {
    if env.checks.barriers {
        let report = report(env, kind, message, origin);
        env.note(report);
    }
}

/// Changes an object's counts, which ends its phase when nothing is outstanding; returns its bits as
/// they were before.
fn apply(
    env: &mut Env<'_>,
    place: Place,
    change: Change,
    origin: Origin,
) -> Result<u64, Box<Fault>> {
    let object = find(env, place, origin)?;
    object.expected_bytes += u64::from(change.expect);
    object.completed_bytes += u64::from(change.complete);
    let mut word = load(env, place);
    let before = word.pack();
    let tx = i64::from(word.tx) + i64::from(change.expect) - i64::from(change.complete);
    if tx.unsigned_abs() > u64::from(MOST) {
        let message = format!("{tx} bytes outstanding at an mbarrier that counts to {MOST}");
        return Err(fault(env, Kind::TransactionCount, message, origin));
    }
    word.tx = tx as i32;
    if change.arrive > word.pending {
        let what = describe(env.cluster, place);
        let message = format!("{} arrivals at once; {what}", change.arrive);
        note(env, Kind::OverArrival, message, origin);
    }
    word.pending = word.pending.saturating_sub(change.arrive);
    if change.drop {
        word.expected = word.expected.saturating_sub(change.arrive);
    }
    store(env, place, word);
    if word.is_complete() && (change.arrive | change.complete) != 0 {
        if change.no_complete {
            let message = "an arrival with .noComplete completes the phase".to_owned();
            note(env, Kind::BarrierObject, message, origin);
        }
        end_phase(env, place, word);
    } else if word.pending == 0 && word.tx < 0 {
        let object = find(env, place, origin)?;
        let (came, expected) = (object.completed_bytes, object.expected_bytes);
        let message = format!(
            "{came} bytes came where {expected} were expected and no arrival is pending: {}",
            describe(env.cluster, place)
        );
        note(env, Kind::TransactionCount, message, origin);
    }
    Ok(before)
}

fn end_phase(env: &mut Env<'_>, place: Place, word: Word) {
    let block = &mut env.cluster.blocks[place.rank];
    if let Some(object) = block.mbarriers.objects.get_mut(&place.offset) {
        object.phase += 1;
        object.completed = std::mem::take(&mut object.clock);
        object.asked = false;
        (object.expected_bytes, object.completed_bytes) = (0, 0);
        let next = Word {
            pending: word.expected,
            phase: (object.phase & 7) as u32,
            ..word
        };
        block.shared.store(place.offset, BYTES, next.pack());
    }
}

fn describe(cluster: &Cluster, place: Place) -> String {
    let block = &cluster.blocks[place.rank];
    block.mbarriers.describe(&block.shared, place.offset)
}

/// The last thread of a block has exited: bytes that came without being expected are a mistake that
/// no wait has shown.
pub(super) fn leave(core: &mut Core<'_>) {
    let block = &core.env.cluster.blocks[core.block];
    if !core.env.checks.barriers || block.mbarriers.objects.is_empty() {
        return;
    }
    let odd = block
        .mbarriers
        .objects
        .iter()
        .find_map(|(&offset, object)| {
            let word = Word::unpack(block.shared.load(offset, BYTES));
            (word.tx < 0).then(|| {
                format!(
                    "at the end of the block {}: {} bytes came, {} were expected",
                    block.mbarriers.describe(&block.shared, offset),
                    object.completed_bytes,
                    object.expected_bytes
                )
            })
        });
    if let Some(message) = odd {
        core.note(core.report(Kind::TransactionCount, 0, message));
    }
}
