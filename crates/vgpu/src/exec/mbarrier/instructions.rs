//! The instructions `mbarrier.*`.

use super::word::{MOST, Word};
use super::{BYTES, Change, Object, Origin, Place, apply, describe, fault, find, note, store};
use crate::exec::{self, Core, Fault, Flow, Handler};
use crate::lane::{LANES, lanes};
use crate::machine::Wait;
use crate::program::{Address, Builder, Class, Dst, LoadError, PredDst, Src};
use crate::ptx::ast::{Space, Type};
use crate::race::{Access, Kind as AccessKind, Order, Proxy, Scope, Space as RaceSpace};
use crate::report::Kind;

/// Of how many waits in vain one gives up instead of being suspended.
const IMPATIENCE: u64 = 8;

pub(in crate::exec) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Barrier;
    match b.take() {
        Some("init") => init(b),
        Some("inval") => inval(b),
        Some("expect_tx") => transactions(b, true),
        Some("complete_tx") => transactions(b, false),
        Some("arrive") => arrive(b, false),
        Some("arrive_drop") => arrive(b, true),
        Some("test_wait") => wait(b, false),
        Some("try_wait") => wait(b, true),
        Some("pending_count") => pending_count(b),
        _ => Err(b.error("an operation of mbarrier expected")),
    }
}

/// `.shared`, `.shared::cta`, `.shared::cluster`, or none for a generic address.
fn space(b: &mut Builder<'_, '_>) -> Space {
    match b.accept_any(&["shared", "shared::cta", "shared::cluster"]) {
        Some(2) => Space::SharedCluster,
        Some(_) => Space::Shared,
        None => Space::Generic,
    }
}

/// `.b64 [addr]`
fn object_operand(b: &mut Builder<'_, '_>) -> Result<Address, LoadError> {
    b.expect("b64")?;
    b.address()
}

fn needs_sm_90(b: &Builder<'_, '_>, what: &str) -> Result<(), LoadError> {
    if b.target_sm() < 90 {
        return Err(b.error(format!("{what} needs sm_90")));
    }
    Ok(())
}

/// How an operation orders memory.
#[derive(Clone, Copy)]
struct Ordering {
    /// Whether it releases or acquires.
    orders: bool,
    scope: Scope,
}

/// `{.sem}{.scope}`; `strong` is the word for the ordering form, which is the default.
fn ordering(b: &mut Builder<'_, '_>, strong: &str) -> Ordering {
    let relaxed = b.accept_any(&[strong, "relaxed"]) == Some(1);
    let scope = match b.accept_any(&["cta", "cluster"]) {
        Some(0) => Scope::Cta,
        _ => Scope::Cluster,
    };
    Ordering {
        orders: !relaxed,
        scope,
    }
}

/// The mbarrier that a lane's address names. `remote` admits those of other blocks of the cluster.
///
/// # Errors
/// The address is out of bounds, misaligned, or not shared memory.
pub(in crate::exec) fn object(
    core: &Core<'_>,
    space: Space,
    lane: usize,
    address: u64,
    remote: bool,
) -> Result<Place, Box<Fault>> {
    match core.resolve(space, lane, address, BYTES.into())? {
        exec::Place::Shared { rank, offset } if remote || rank == core.block => {
            Ok(Place { rank, offset })
        }
        exec::Place::Shared { rank, .. } => {
            let message =
                format!("an mbarrier of rank {rank}, where one of the own block is needed");
            Err(core.fault(Kind::BarrierObject, lane, message))
        }
        _ => {
            let message =
                format!("the address {address:#x} of an mbarrier is not in shared memory");
            Err(core.fault(Kind::BarrierObject, lane, message))
        }
    }
}

/// Calls `f` with each object that lanes of `exec` name, and these lanes.
fn each(
    core: &mut Core<'_>,
    exec: u32,
    (space, address): (Space, &Address),
    mut f: impl FnMut(&mut Core<'_>, Place, u32) -> Result<(), Box<Fault>>,
) -> Result<(), Box<Fault>> {
    let addresses = core.addresses(address);
    let mut left = exec;
    while left != 0 {
        let lane = left.trailing_zeros() as usize;
        let same = lanes(left).filter(|&other| addresses[other] == addresses[lane]);
        let group = same.fold(0, |group, lane| group | 1 << lane);
        left &= !group;
        let place = object(
            core,
            space,
            lane,
            addresses[lane],
            space == Space::SharedCluster,
        )?;
        f(core, place, group)?;
    }
    Ok(())
}

/// Tells the race detector that lanes touched an object.
///
/// Its beginning and its end are plain writes, and everything between only reads: operations on an
/// object go together whatever their proxy, but all of them need to see that it is there.
fn track(core: &mut Core<'_>, place: Place, group: u32, kind: AccessKind, order: Order) {
    if core.env.race.is_none() {
        return;
    }
    let access = Access {
        space: RaceSpace::Shared(core.env.cluster.blocks[place.rank].uid),
        kind,
        order,
        // An object is coherent in all of the cluster, whatever scope its memory effects have.
        scope: Scope::Cluster,
        proxy: Proxy::Generic,
        lanes: group,
        addresses: &[place.offset.into(); LANES],
        bytes: BYTES,
        unit: BYTES,
        inst: core.pc,
    };
    core.track(&access);
}

fn first(group: u32) -> usize {
    group.trailing_zeros() as usize
}

fn init(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let space = space(b);
    let address = object_operand(b)?;
    let count = b.src(Type::B32)?;
    b.must_be_defined(count);
    Ok(Box::new(move |core, exec| {
        let counts = core.get::<u32>(count);
        each(core, exec, (space, &address), |core, place, group| {
            track(core, place, group, AccessKind::Write, Order::Weak);
            for lane in lanes(group) {
                let origin = Origin::of(core, lane);
                let count = counts[lane];
                if count == 0 || count > MOST {
                    let message = format!("an mbarrier for {count} arrivals: 1 to {MOST} are");
                    return Err(fault(&core.env, Kind::BarrierObject, message, origin));
                }
                let block = core.block();
                let old = block.mbarriers.objects.insert(place.offset, Object::new(0));
                let word = Word {
                    pending: count,
                    expected: count,
                    tx: 0,
                    phase: 0,
                };
                store(&mut core.env, place, word);
                core.block().shared.mark_written(place.offset, BYTES, true);
                if old.is_some() {
                    let message = format!(
                        "the mbarrier at shared+{} is initialised again without mbarrier.inval",
                        place.offset
                    );
                    note(&mut core.env, Kind::BarrierObject, message, origin);
                }
            }
            Ok(())
        })?;
        Ok(Flow::Next)
    }))
}

fn inval(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let space = space(b);
    let address = object_operand(b)?;
    Ok(Box::new(move |core, exec| {
        each(core, exec, (space, &address), |core, place, group| {
            track(core, place, group, AccessKind::Write, Order::Weak);
            let origin = Origin::of(core, first(group));
            let waiting = find(&mut core.env, place, origin)?.waiting;
            if waiting != 0 {
                let message = format!(
                    "inval while {waiting} threads wait: {}",
                    describe(core.env.cluster, place)
                );
                note(&mut core.env, Kind::BarrierObject, message, origin);
            }
            core.block().mbarriers.objects.remove(&place.offset);
            // What is left there is nothing that anyone may read.
            core.block().shared.mark_written(place.offset, BYTES, false);
            Ok(())
        })?;
        Ok(Flow::Next)
    }))
}

fn transactions(b: &mut Builder<'_, '_>, expects: bool) -> Result<Handler, LoadError> {
    needs_sm_90(b, "a transaction count")?;
    b.accept("relaxed");
    b.accept_any(&["cta", "cluster"]);
    let space = space(b);
    let address = object_operand(b)?;
    let bytes = b.src(Type::B32)?;
    b.must_be_defined(bytes);
    Ok(Box::new(move |core, exec| {
        let bytes = core.get::<u32>(bytes);
        each(core, exec, (space, &address), |core, place, group| {
            track(core, place, group, AccessKind::Read, Order::Relaxed);
            for lane in lanes(group) {
                let mut change = Change::default();
                *(if expects {
                    &mut change.expect
                } else {
                    &mut change.complete
                }) = bytes[lane];
                let origin = Origin::of(core, lane);
                apply(&mut core.env, place, change, origin)?;
            }
            Ok(())
        })?;
        Ok(Flow::Next)
    }))
}

fn arrive(b: &mut Builder<'_, '_>, drop: bool) -> Result<Handler, LoadError> {
    let form = b.accept_any(&["expect_tx", "noComplete"]);
    let (expects, no_complete) = (form == Some(0), form == Some(1));
    if expects {
        needs_sm_90(b, "a transaction count")?;
    }
    let ordering = ordering(b, "release");
    let space = space(b);
    b.expect("b64")?;
    let state = b.dst(Type::B64)?;
    if space == Space::SharedCluster && state.slot.is_some() {
        return Err(b.error("an arrival at .shared::cluster gives no state: `_` is needed"));
    }
    let address = b.address()?;
    let operand = if b.operands_left() > 0 {
        let operand = b.src(Type::B32)?;
        b.must_be_defined(operand);
        Some(operand)
    } else if expects || no_complete {
        return Err(b.error("the last operand, a number, is missing"));
    } else {
        None
    };
    Ok(Box::new(move |core, exec| {
        core.env.counters.barrier_arrivals += 1;
        let numbers = operand.map_or([1; LANES], |operand| core.get::<u32>(operand));
        let mut states = [0_u64; LANES];
        each(core, exec, (space, &address), |core, place, group| {
            track(core, place, group, AccessKind::Read, Order::Relaxed);
            let origin = Origin::of(core, first(group));
            find(&mut core.env, place, origin)?;
            if ordering.orders
                && let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race)
            {
                // The object is there: it was found above.
                let block = &mut core.env.cluster.blocks[place.rank];
                if let Some(object) = block.mbarriers.objects.get_mut(&place.offset) {
                    race.release_scoped(id, group, ordering.scope, &mut object.clock);
                }
            }
            for lane in lanes(group) {
                let number = numbers[lane];
                if !expects && (number == 0 || number > MOST) {
                    let message = format!("{number} arrivals at once: 1 to {MOST} may");
                    return Err(core.fault(Kind::BarrierObject, lane, message));
                }
                let change = Change {
                    expect: if expects { number } else { 0 },
                    arrive: if expects { 1 } else { number },
                    drop,
                    no_complete,
                    ..Change::default()
                };
                let origin = Origin::of(core, lane);
                states[lane] = apply(&mut core.env, place, change, origin)?;
            }
            Ok(())
        })?;
        core.set(state, &states, exec);
        Ok(Flow::Next)
    }))
}

/// A decoded wait.
struct Waiting {
    space: Space,
    address: Address,
    done: PredDst,
    /// The state or the parity.
    phase: Src,
    parity: bool,
    ordering: Ordering,
    /// Whether it may be suspended.
    suspends: bool,
}

fn wait(b: &mut Builder<'_, '_>, suspends: bool) -> Result<Handler, LoadError> {
    if suspends {
        needs_sm_90(b, "mbarrier.try_wait")?;
    }
    let parity = b.accept("parity");
    let ordering = ordering(b, "acquire");
    let space = space(b);
    if space == Space::SharedCluster {
        return Err(b.error("threads can only wait at an mbarrier of their own block"));
    }
    b.expect("b64")?;
    let done = b.pred_dst()?;
    let address = b.address()?;
    let phase = b.src(if parity { Type::B32 } else { Type::B64 })?;
    b.must_be_defined(phase);
    if suspends && b.operands_left() > 0 {
        // How long to wait at most is a hint; here chance decides, or that nothing else can run.
        b.src(Type::U32)?;
    }
    let call = Waiting {
        space,
        address,
        done,
        phase,
        parity,
        ordering,
        suspends,
    };
    Ok(Box::new(move |core, exec| call.run(core, exec)))
}

impl Waiting {
    fn run(&self, core: &mut Core<'_>, exec: u32) -> Result<Flow, Box<Fault>> {
        let phases = core.get::<u64>(self.phase);
        let parked = core.warp.asynchronous.parked & exec;
        core.warp.asynchronous.parked &= !exec;
        let gave_up = core.warp.asynchronous.gave_up & exec;
        core.warp.asynchronous.gave_up &= !exec;
        let mut passed = 0;
        let mut open = Vec::new();
        each(
            core,
            exec,
            (self.space, &self.address),
            |core, place, group| {
                track(core, place, group, AccessKind::Read, Order::Relaxed);
                let origin = Origin::of(core, first(group));
                let object = find(&mut core.env, place, origin)?;
                object.waiting -= (parked & group).count_ones().min(object.waiting);
                let current = object.phase;
                let mut done = 0;
                for lane in lanes(group) {
                    let ahead = self.ahead(core, lane, current, phases[lane]);
                    done |= u32::from(ahead) << lane;
                }
                let block = &mut core.env.cluster.blocks[place.rank];
                if let Some(object) = block.mbarriers.objects.get_mut(&place.offset) {
                    object.asked |= done != group;
                    if self.ordering.orders
                        && done != 0
                        && let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race)
                    {
                        race.acquire_scoped(id, done, self.ordering.scope, &object.completed);
                    }
                }
                passed |= done;
                if done != group {
                    open.push((place, current, group & !done));
                }
                Ok(())
            },
        )?;
        if self.suspends && passed == 0 && gave_up == 0 && !(parked == 0 && impatient(core)) {
            return Ok(Flow::Retry(park(core, exec, open)));
        }
        core.set_pred(self.done, passed, exec);
        Ok(if self.suspends || passed == exec {
            Flow::Next
        } else {
            Flow::Yield
        })
    }

    /// Whether the phase that a lane asks for is over.
    fn ahead(&self, core: &mut Core<'_>, lane: usize, current: u64, asked: u64) -> bool {
        if self.parity {
            if asked > 1 {
                let message = format!("phase parity {asked}: 0 and 1 are");
                let origin = Origin::of(core, lane);
                note(&mut core.env, Kind::BarrierObject, message, origin);
            }
            return current & 1 != asked & 1;
        }
        let behind = (current as u32).wrapping_sub(Word::unpack(asked).phase) & 7;
        if behind > 1 {
            let message = format!(
                "the state is not of the current phase, {current}, nor of the one before it"
            );
            let origin = Origin::of(core, lane);
            note(&mut core.env, Kind::BarrierObject, message, origin);
        }
        behind != 0
    }
}

/// Whether the hardware's time limit ends this wait at once. It may at any time, and who does not look
/// at the result of a wait is found only when that happens.
fn impatient(core: &mut Core<'_>) -> bool {
    core.env.cluster.rng.below(IMPATIENCE) == 0
}

/// Lanes wait until a phase of one of these objects is over, or until the hardware would give up.
fn park(core: &mut Core<'_>, exec: u32, open: Vec<(Place, u64, u32)>) -> Wait {
    core.warp.asynchronous.parked |= exec;
    core.env.counters.barrier_waits += 1;
    for &(place, _, group) in &open {
        let block = &mut core.env.cluster.blocks[place.rank];
        if let Some(object) = block.mbarriers.objects.get_mut(&place.offset) {
            object.waiting += group.count_ones();
        }
    }
    let shown = open.first().map(|&(place, ..)| place);
    Wait::For {
        reason: Box::new(move |cluster| match shown {
            Some(place) => describe(cluster, place),
            None => "mbarrier".to_owned(),
        }),
        ready: Box::new(move |cluster| {
            open.iter().any(|&(place, phase, _)| {
                cluster.blocks[place.rank]
                    .mbarriers
                    .has_passed(place.offset, phase)
            })
        }),
        gives_up: true,
    }
}

fn pending_count(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.expect("b64")?;
    let d: Dst = b.dst(Type::B32)?;
    let state = b.src(Type::B64)?;
    Ok(exec::map1(d, state, |state: u64| {
        Word::unpack(state).pending
    }))
}
