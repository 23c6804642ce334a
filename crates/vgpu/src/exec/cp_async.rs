//! `cp.async`, the copies that are not bulk: from global to shared memory, a few bytes a thread.
//!
//! A copy's bytes are read and written long after its instruction: when its lanes wait for it, or at
//! some turn before that which the seed chooses. Whoever looks too early sees the old bytes under one
//! schedule and the new ones under another.

use super::mbarrier::{self, Origin};
use super::memory::Shape;
use super::modifiers::needs_target;
use super::{Core, Env, Fault, Flow, Handler, Place};
use crate::counters::Traffic;
use crate::lane::{LANES, lanes};
use crate::program::{Address, Builder, Class, LoadError, Pred, Src};
use crate::ptx::ast::{Operand, Space, Type};
use crate::race::{Access, CopyTicket, Kind as AccessKind, Order, Proxy, Scope, ScopedClock};
use crate::report::Kind;

/// Bytes of a copy at most.
const MOST: usize = 16;

/// What a warp copies.
#[derive(Default)]
pub struct Copies {
    /// Copies whose bytes have not moved, oldest first.
    under_way: Vec<Copy>,
    /// Closed groups that some lane has not waited for.
    closed: Vec<Closed>,
    /// How many groups each lane has closed.
    groups: [u32; LANES],
    /// Copies issued so far.
    issued: u64,
    /// The last one, as the race detector knows it.
    ticket: CopyTicket,
}

/// One instruction's copies.
struct Copy {
    /// Its number.
    number: u64,
    pc: u32,
    /// Lanes whose bytes have not moved.
    left: u32,
    /// The group that it belongs to, lane by lane.
    group: [u32; LANES],
    from: [u64; LANES],
    to: [u32; LANES],
    /// Bytes to read; the rest of `bytes` is zero.
    read: [u8; LANES],
    bytes: u8,
}

/// A group of the same number in these lanes.
struct Closed {
    lanes: u32,
    group: u32,
    ticket: CopyTicket,
}

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Async;
    b.expect("async")?;
    match b.take() {
        Some("ca") => copy(b, false),
        Some("cg") => copy(b, true),
        Some("commit_group") => Ok(Box::new(|core, exec| {
            commit(core, exec);
            Ok(Flow::Next)
        })),
        Some("wait_group") => {
            let open = b.immediate()?;
            let Ok(open) = u32::try_from(open) else {
                return Err(b.error(format!(
                    "{open} groups may stay open: not a number of groups"
                )));
            };
            b.class = Class::Barrier;
            Ok(Box::new(move |core, exec| {
                wait_group(core, exec, open);
                Ok(Flow::Next)
            }))
        }
        Some("wait_all") => {
            b.class = Class::Barrier;
            Ok(Box::new(|core, exec| {
                commit(core, exec);
                wait_group(core, exec, 0);
                Ok(Flow::Next)
            }))
        }
        Some("mbarrier") => arrive(b),
        _ => Err(b.error("a form of cp.async expected")),
    }
}

fn copy(b: &mut Builder<'_, '_>, past_l1: bool) -> Result<Handler, LoadError> {
    needs_target(b, 80, "cp.async")?;
    if b.accept_any(&["shared", "shared::cta"]).is_none() {
        return Err(b.error("cp.async copies to .shared"));
    }
    b.expect("global")?;
    // A policy of the cache and a size to prefetch: hints.
    let policy = b.accept("L2::cache_hint");
    b.accept_any(&["L2::64B", "L2::128B", "L2::256B"]);
    let to = b.address()?;
    let from = b.address()?;
    let bytes = b.immediate()?;
    if !matches!((past_l1, bytes), (_, 16) | (false, 4 | 8)) {
        let sizes = if past_l1 { "16" } else { "4, 8 or 16" };
        return Err(b.error(format!("a copy of {bytes} bytes: {sizes} are possible")));
    }
    let mut size = None;
    let mut ignore = None;
    if b.operands_left() > usize::from(policy) {
        if b.peek_operand().is_some_and(|operand| b.is_pred(operand)) {
            ignore = Some(b.pred()?);
        } else {
            let src = b.src(Type::U32)?;
            b.must_be_defined(src);
            size = Some(src);
        }
    }
    if policy {
        b.src(Type::B64)?;
    }
    let call = Call {
        to,
        from,
        bytes: bytes as u8,
        size,
        ignore,
    };
    Ok(Box::new(move |core, exec| {
        call.issue(core, exec)?;
        Ok(Flow::Next)
    }))
}

/// A decoded copy.
struct Call {
    to: Address,
    from: Address,
    bytes: u8,
    /// Bytes to read.
    size: Option<Src>,
    /// Lanes that read nothing.
    ignore: Option<Pred>,
}

impl Call {
    fn issue(&self, core: &mut Core<'_>, exec: u32) -> Result<(), Box<Fault>> {
        let bytes = u32::from(self.bytes);
        let from = core.addresses(&self.from);
        let to = core.addresses(&self.to);
        let sizes = self
            .size
            .map_or([bytes; LANES], |size| core.get::<u32>(size));
        let ignored = self.ignore.map_or(0, |ignore| core.pred(ignore));
        let copies = &mut core.warp.asynchronous.copies;
        copies.issued += 1;
        let mut copy = Copy {
            number: copies.issued,
            pc: core.pc,
            left: exec,
            group: copies.groups,
            from,
            to: [0; LANES],
            read: [0; LANES],
            bytes: self.bytes,
        };
        let mut reads = 0;
        for lane in lanes(exec) {
            let size = if ignored >> lane & 1 != 0 {
                0
            } else {
                sizes[lane]
            };
            if size > bytes {
                let message = format!("{size} bytes to read in a copy of {bytes}");
                return Err(core.fault(Kind::Undefined, lane, message));
            }
            if let Place::Shared { offset, .. } =
                core.resolve(Space::Shared, lane, to[lane], bytes.into())?
            {
                copy.to[lane] = offset;
            }
            if size != 0 {
                self.check_source(core, lane, from[lane], size)?;
                copy.read[lane] = size as u8;
                reads |= 1 << lane;
            }
        }
        count(core, &copy, reads);
        track(core, &copy, exec, reads);
        core.warp.asynchronous.copies.under_way.push(copy);
        Ok(())
    }

    fn check_source(
        &self,
        core: &Core<'_>,
        lane: usize,
        address: u64,
        size: u32,
    ) -> Result<(), Box<Fault>> {
        if !address.is_multiple_of(self.bytes.into()) {
            let message = format!(
                "address {address:#x} is not a multiple of the copy's {} bytes",
                self.bytes
            );
            return Err(core.fault(Kind::Misaligned, lane, message));
        }
        match core.env.global_range(address, size.into()) {
            Ok(_) => Ok(()),
            Err(problem) => Err(core.address_fault(lane, size.into(), &problem)),
        }
    }
}

fn count(core: &mut Core<'_>, copy: &Copy, reads: u32) {
    if reads == 0 {
        return;
    }
    let mut traffic = Traffic::default();
    traffic.global(&copy.from, reads, copy.bytes.into(), Shape::Scattered);
    let counters = &mut *core.env.counters;
    counters.async_read_sectors += traffic.sectors;
    counters.async_read_bytes += copy.read.iter().map(|&bytes| u64::from(bytes)).sum::<u64>();
}

/// Tells the race detector what a copy will read and write.
fn track(core: &mut Core<'_>, copy: &Copy, exec: u32, reads: u32) {
    let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) else {
        return;
    };
    let ticket = race.copy(id);
    core.warp.asynchronous.copies.ticket = ticket;
    let to = copy.to.map(u64::from);
    let uid = core.env.cluster.blocks[core.block].uid;
    let access = |kind, space, addresses, lanes, bytes: u8| Access {
        space,
        kind,
        order: Order::Weak,
        scope: Scope::Cta,
        proxy: Proxy::Generic,
        lanes,
        addresses,
        bytes: bytes.into(),
        unit: 1,
        inst: copy.pc,
    };
    let mut found = Vec::new();
    let mut left = reads;
    while left != 0 {
        // Lanes that read the same number of bytes, nearly always all of them.
        let bytes = copy.read[left.trailing_zeros() as usize];
        let same = lanes(left).filter(|&lane| copy.read[lane] == bytes);
        let same = same.fold(0, |same, lane| same | 1 << lane);
        left &= !same;
        let space = crate::race::Space::Global;
        let read = access(AccessKind::Read, space, &copy.from, same, bytes);
        found.extend(race.copy_access(id, ticket, &read));
    }
    let space = crate::race::Space::Shared(uid);
    let write = access(AccessKind::Write, space, &to, exec, copy.bytes);
    found.extend(race.copy_access(id, ticket, &write));
    for conflict in found {
        core.env.note_conflict(conflict);
    }
}

/// Moves the bytes of some lanes.
fn deliver(env: &mut Env<'_>, rank: usize, warp: u32, copy: &mut Copy, these: u32) {
    let these = these & copy.left;
    copy.left &= !these;
    let mut unwritten = 0;
    for lane in lanes(these) {
        let mut bytes = [0; MOST];
        let read = usize::from(copy.read[lane]);
        if read != 0 && !env.read_global(copy.from[lane], &mut bytes[..read]) {
            unwritten |= 1 << lane;
        }
        env.write_shared(rank, copy.to[lane], &bytes[..copy.bytes.into()]);
    }
    if unwritten != 0 && env.checks.memory_init {
        let lane = lanes(unwritten).next().unwrap_or(0);
        let message = format!(
            "the copy reads {} bytes at {:#x} that were not all written",
            copy.read[lane], copy.from[lane]
        );
        let block = env.cluster.blocks[rank].index;
        let action = env.program.insts[copy.pc as usize].action();
        let site = env.site(copy.pc, block, warp, lane, action);
        let report = env.report(Kind::UninitialisedRead, message, site);
        env.note(report);
    }
}

/// Moves the bytes of those copies of a warp, which is not at work, that were issued up to `last`.
fn deliver_up_to(env: &mut Env<'_>, rank: usize, warp: u32, last: u64, these: u32) {
    let place = warp as usize;
    let Some(state) = env.cluster.blocks[rank].warps[place].as_deref_mut() else {
        return;
    };
    let mut under_way = std::mem::take(&mut state.asynchronous.copies.under_way);
    for copy in under_way.iter_mut().take_while(|copy| copy.number <= last) {
        deliver(env, rank, warp, copy, these);
    }
    under_way.retain(|copy| copy.left != 0);
    if let Some(state) = env.cluster.blocks[rank].warps[place].as_deref_mut() {
        state.asynchronous.copies.under_way = under_way;
    }
}

fn commit(core: &mut Core<'_>, exec: u32) {
    let (rank, warp) = (core.block, core.warp.index);
    let copies = &mut core.warp.asynchronous.copies;
    let mut left = exec;
    while left != 0 {
        let group = copies.groups[left.trailing_zeros() as usize];
        let same = lanes(left).filter(|&lane| copies.groups[lane] == group);
        let same = same.fold(0, |same, lane| same | 1 << lane);
        left &= !same;
        copies.closed.push(Closed {
            lanes: same,
            group,
            ticket: copies.ticket,
        });
        lanes(same).for_each(|lane| copies.groups[lane] += 1);
    }
    // Half of the groups arrive before they are waited for.
    if !copies.under_way.is_empty() && core.env.cluster.rng.below(2) == 0 {
        let last = copies.issued;
        core.env.cluster.defer(Box::new(move |env| {
            deliver_up_to(env, rank, warp, last, exec);
            Ok(())
        }));
    }
}

/// All groups but the last `open` ones arrive.
fn wait_group(core: &mut Core<'_>, exec: u32, open: u32) {
    let (rank, warp) = (core.block, core.warp.index);
    let env = &mut core.env;
    let copies = &mut core.warp.asynchronous.copies;
    let limits = copies.groups.map(|groups| groups.saturating_sub(open));
    for copy in &mut copies.under_way {
        let due = lanes(exec & copy.left).filter(|&lane| copy.group[lane] < limits[lane]);
        let due = due.fold(0, |due, lane| due | 1 << lane);
        if due != 0 {
            deliver(env, rank, warp, copy, due);
        }
    }
    copies.under_way.retain(|copy| copy.left != 0);
    for closed in &mut copies.closed {
        let due = lanes(exec & closed.lanes).filter(|&lane| closed.group < limits[lane]);
        let due = due.fold(0, |due, lane| due | 1 << lane);
        closed.lanes &= !due;
        if due != 0
            && let (Some(race), Some(id)) = (&mut env.race, core.warp.race)
        {
            race.copy_wait(id, due, closed.ticket);
        }
    }
    copies.closed.retain(|closed| closed.lanes != 0);
}

/// `cp.async.mbarrier.arrive`: an arrival when all earlier copies of the thread are there.
fn arrive(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.expect("arrive")?;
    let no_increment = b.accept("noinc");
    let space = match b.accept_any(&["shared", "shared::cta"]) {
        Some(_) => Space::Shared,
        None => Space::Generic,
    };
    b.expect("b64")?;
    if let Some(Operand::Sink) = b.peek_operand() {
        return Err(b.error("an address expected"));
    }
    let address = b.address()?;
    Ok(Box::new(move |core, exec| {
        let addresses = core.addresses(&address);
        let last = core.warp.asynchronous.copies.issued;
        let ticket = core.warp.asynchronous.copies.ticket;
        let (rank, warp) = (core.block, core.warp.index);
        let mut arrivals = Vec::new();
        for lane in lanes(exec) {
            let place = mbarrier::object(core, space, lane, addresses[lane], false)?;
            let origin = Origin::of(core, lane);
            if !no_increment {
                mbarrier::add_pending(&mut core.env, place, origin)?;
            }
            let mut clock = ScopedClock::default();
            if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) {
                race.copy_release(id, 1 << lane, ticket, Scope::Cta, &mut clock);
            }
            arrivals.push((place, clock, origin));
        }
        core.env.cluster.defer(Box::new(move |env| {
            deliver_up_to(env, rank, warp, last, exec);
            for (place, clock, origin) in arrivals {
                mbarrier::arrive_async(env, place, &clock, origin)?;
            }
            Ok(())
        }));
        Ok(Flow::Next)
    }))
}
