//! The one who makes an access, asked about earlier accesses.

use super::actors::{Actors, Role};
use super::clock::Row;
use super::shadow::{Cell, LaneMap, Rec};
use super::types::{ConflictKind, Proxy, Scope, WarpInfo, includes};
use super::warp::{Know, Pair, Warp};

/// How an earlier access stands to the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It comes before.
    Known,
    /// It does not, but the two may go together: both read, or both are strong.
    Fine,
    /// They conflict.
    Fault,
}

/// The first conflict that an access met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) kind: ConflictKind,
    pub(super) old: Rec,
    pub(super) old_lane: u32,
    pub(super) lane: u32,
    pub(super) address: u64,
    pub(super) bytes: u32,
}

/// On whose behalf an access is made.
pub(super) enum Side<'a> {
    /// By lanes of a warp.
    Lanes(&'a Warp),
    /// By the `cp.async` of lanes of a warp.
    Copies(&'a Warp),
    /// By one asynchronous operation of a warp: what it knows, and the warp's actors.
    Operation {
        know: &'a Know,
        warp: u32,
        copies: Option<u32>,
    },
}

/// The one who makes an access.
pub(super) struct Observer<'a> {
    pub(super) rec: Rec,
    pub(super) info: &'a WarpInfo,
    pub(super) actors: &'a Actors,
    pub(super) fault: Option<Fault>,
    side: Side<'a>,
    /// What all lanes of the access know, if they know the same.
    shared: Option<&'a Know>,
    /// Whether all lanes of the warp know the same.
    in_step: bool,
    /// Up to which time all lanes know all of an actor, by the low bits of its number.
    floors: [(u32, u32); 8],
    /// Verdicts about earlier events that are the same for every word, or that are not.
    verdicts: [(Rec, Option<Verdict>); 4],
    /// What the access made of some histories, whatever the word: neighbours mostly have the same.
    pub(super) steps: [(Cell, Rec, Cell); 4],
}

impl<'a> Observer<'a> {
    pub(super) fn new(
        rec: Rec,
        lanes: u32,
        info: &'a WarpInfo,
        side: Side<'a>,
        actors: &'a Actors,
    ) -> Self {
        let (shared, in_step) = match &side {
            Side::Lanes(w) | Side::Copies(w) => {
                let whole = w.groups.iter().find(|g| g.mask & lanes == lanes);
                (whole.map(|g| &g.know), w.groups.len() == 1)
            }
            Side::Operation { know, .. } => (Some(*know), true),
        };
        Observer {
            rec,
            info,
            actors,
            fault: None,
            side,
            shared,
            in_step,
            floors: [(0, 0); 8],
            verdicts: [(Rec::default(), None); 4],
            steps: Default::default(),
        }
    }

    /// What is known of a record's actor: by the pair of the own warp, or by the clock.
    fn pair(&self, know: &'a Know, actor: u32) -> Option<&'a Pair> {
        let (warp, copies) = match &self.side {
            Side::Lanes(w) | Side::Copies(w) => (w.actor, w.copies.as_ref().map(|c| c.actor)),
            Side::Operation { warp, copies, .. } => (*warp, *copies),
        };
        if actor == warp {
            Some(&know.own)
        } else if Some(actor) == copies {
            Some(&know.copies)
        } else {
            None
        }
    }

    /// Whether a write needs a proxy fence to be seen by this access.
    fn needs_fence(&self, old: Rec) -> bool {
        self.rec.proxy() != Proxy::Generic
            && old.writes()
            && old.proxy() == Proxy::Generic
            && (old.actor(), old.time()) != (self.rec.actor(), self.rec.time())
    }

    /// Whether two strong accesses go together.
    fn strong_together(&self, old: Rec) -> Result<(), ConflictKind> {
        let new = self.rec;
        if !old.is_strong()
            || !new.is_strong()
            || old.unit() != new.unit()
            || old.proxy() != new.proxy()
        {
            return Err(ConflictKind::Race);
        }
        if old.scope() == Scope::Sys && new.scope() == Scope::Sys {
            return Ok(());
        }
        let Some(actor) = self.actors.get(old.actor()) else {
            return Err(ConflictKind::Race);
        };
        if includes(old.scope(), &actor.info, self.info)
            && includes(new.scope(), self.info, &actor.info)
        {
            Ok(())
        } else {
            Err(ConflictKind::InsufficientScope)
        }
    }

    /// Whether each word was accessed by the lane that accesses it now.
    fn same_lanes(&self, old: Rec) -> bool {
        old.actor() == self.rec.actor()
            && old.map() == self.rec.map()
            && (matches!(self.side, Side::Lanes(_)) || old.time() == self.rec.time())
            // Of accesses by all lanes at once, only those of the same lane are in order.
            && (old.map() != LaneMap::ALL || self.uniform_rest(old, false).is_some())
    }

    /// The verdict about `old` if it is the same for every word and lane.
    fn uniform(&mut self, old: Rec) -> Option<Verdict> {
        let event = old.event();
        let slot = (old.actor() ^ old.actor() >> 2) as usize & 3;
        if self.verdicts[slot].0 != event {
            self.verdicts[slot] = (event, self.find_uniform(old));
        }
        self.verdicts[slot].1
    }

    fn find_uniform(&mut self, old: Rec) -> Option<Verdict> {
        let know = self.shared?;
        self.note_floor(know, old.actor());
        let (actor, time) = (old.actor(), old.time());
        let (known, unseen) = match self.pair(know, actor) {
            Some(p) => {
                let known = p.all.knows_all(time);
                (
                    known,
                    known && self.needs_fence(old) && !p.proxied.knows_all(time),
                )
            }
            None => {
                let known = know.clock.all.knows_all(actor, time);
                let unseen = known && self.needs_fence(old);
                (known, unseen && !know.clock.proxied.knows_all(actor, time))
            }
        };
        if unseen {
            None
        } else {
            self.uniform_rest(old, known)
        }
    }

    fn note_floor(&mut self, know: &'a Know, actor: u32) {
        let (mut floor, proxied) = match self.pair(know, actor) {
            Some(p) => (p.all.floor(), &p.proxied),
            None if self.rec.proxy() == Proxy::Generic => {
                (know.clock.all.floor(actor), &Row::Floor(0))
            }
            None => {
                let clock = &know.clock;
                (
                    clock.all.floor(actor).min(clock.proxied.floor(actor)),
                    &Row::Floor(u32::MAX),
                )
            }
        };
        if self.rec.proxy() != Proxy::Generic {
            floor = floor.min(proxied.floor());
        }
        self.floors[actor as usize & 7] = (actor, floor);
    }

    /// Whether all lanes know all that this record's actor did up to then.
    pub(super) fn knows_all_of(&mut self, old: Rec) -> bool {
        if self.floors[old.actor() as usize & 7].0 != old.actor()
            && let Some(know) = self.shared
        {
            self.note_floor(know, old.actor());
        }
        self.surely_knows(old)
    }

    /// A quick yes: what was asked about this actor before settles it.
    #[inline]
    pub(super) fn surely_knows(&self, old: Rec) -> bool {
        let (actor, floor) = self.floors[old.actor() as usize & 7];
        actor == old.actor() && old.time() <= floor
    }

    fn uniform_rest(&self, old: Rec, known: bool) -> Option<Verdict> {
        if known {
            Some(Verdict::Known)
        } else if !old.writes() && !self.rec.writes() || self.strong_together(old).is_ok() {
            Some(Verdict::Fine)
        } else {
            None
        }
    }

    /// Whether `lane` knows what `old_lane` of the record's actor did then.
    fn knows(&self, lane: u32, old: Rec, old_lane: u32) -> bool {
        let (actor, time) = (old.actor(), old.time());
        let know = match &self.side {
            Side::Lanes(w) | Side::Copies(w) => {
                if old_lane == lane {
                    let copy = matches!(self.side, Side::Copies(_));
                    if actor == w.actor
                        || copy && actor == self.rec.actor() && time == self.rec.time()
                    {
                        return true;
                    }
                    if let Some(c) = &w.copies
                        && actor == c.actor
                        && time <= c.known[lane as usize & 31]
                    {
                        return true;
                    }
                }
                &w.group_of(lane).know
            }
            Side::Operation { know, .. } => {
                if actor == self.rec.actor() && time == self.rec.time() {
                    return true;
                }
                know
            }
        };
        match self.pair(know, actor) {
            Some(p) => p.all.knows(old_lane, time),
            None => know.clock.all.knows(actor, old_lane, time),
        }
    }

    /// Whether the write of `old_lane`, which is known, is visible to this operation's proxy.
    fn sees(&self, old: Rec, old_lane: u32) -> bool {
        let Side::Operation { know, .. } = &self.side else {
            return true;
        };
        match self.pair(know, old.actor()) {
            Some(p) => p.proxied.knows(old_lane, old.time()),
            None => know.clock.proxied.knows(old.actor(), old_lane, old.time()),
        }
    }

    /// The verdict about what `old_lanes` did, for `lanes`, on `bytes` of the word at `address`.
    pub(super) fn judge(
        &mut self,
        old: Rec,
        old_lanes: u32,
        lanes: u32,
        address: u64,
        bytes: u64,
    ) -> Verdict {
        let mut unknown = None;
        let mut unseen = None;
        'pairs: for lane in bits(lanes) {
            for old_lane in bits(old_lanes) {
                if !self.knows(lane, old, old_lane) {
                    unknown = Some((lane, old_lane));
                    break 'pairs;
                }
                if self.needs_fence(old) && !self.sees(old, old_lane) {
                    unseen = Some((lane, old_lane));
                }
            }
        }
        let (kind, pair) = match (unknown, unseen) {
            (None, None) => return Verdict::Known,
            (None, Some(pair)) => (ConflictKind::MissingProxyFence, pair),
            (Some(pair), _) => {
                if !old.writes() && !self.rec.writes() {
                    return Verdict::Fine;
                }
                match self.strong_together(old) {
                    Ok(()) => return Verdict::Fine,
                    Err(ConflictKind::Race) if self.in_own_warp(old) => {
                        (ConflictKind::IntraWarp, pair)
                    }
                    Err(kind) => (kind, pair),
                }
            }
        };
        if self.fault.is_none() {
            let first = bytes.trailing_zeros();
            self.fault = Some(Fault {
                kind,
                old,
                old_lane: pair.1,
                lane: pair.0,
                address: address + first as u64,
                bytes: 64 - bytes.leading_zeros() - first,
            });
        }
        Verdict::Fault
    }

    fn in_own_warp(&self, old: Rec) -> bool {
        matches!(self.side, Side::Lanes(_))
            && self.actors.get(old.actor()).is_some_and(|a| {
                a.role == Role::Warp
                    && a.info.block == self.info.block
                    && a.info.warp == self.info.warp
            })
    }

    /// The lanes of a record's actor that exist.
    pub(super) fn exist(&self, rec: Rec) -> u32 {
        self.actors.get(rec.actor()).map_or(1, |a| a.info.lanes)
    }

    /// The verdict about `old`, for the access `new` (this one, on some bytes) to the word at
    /// `address`; or, without an address, for any word: `None` if that depends on the word.
    pub(super) fn verdict(&mut self, old: Rec, new: Rec, address: Option<u64>) -> Option<Verdict> {
        let common = old.bytes() & new.bytes();
        if common == 0 {
            return Some(Verdict::Fine);
        }
        if self.surely_knows(old) {
            return Some(Verdict::Known);
        }
        if self.same_lanes(old) {
            return Some(Verdict::Known);
        }
        if let Some(v) = self.uniform(old) {
            return Some(v);
        }
        let address = address?;
        if !old.map().splits_words() && !new.map().splits_words() {
            let old_lanes = old.map().lanes(address, self.exist(old));
            let lanes = new.map().lanes(address, self.exist(new));
            return Some(self.judge(old, old_lanes, lanes, address, common));
        }
        let mut worst = Verdict::Known;
        for byte in bits(common as u32) {
            let at = address + byte as u64;
            let old_lanes = old.map().lanes(at, self.exist(old));
            let lanes = new.map().lanes(at, self.exist(new));
            match self.judge(old, old_lanes, lanes, address, 1 << byte) {
                Verdict::Known => {}
                Verdict::Fine => worst = Verdict::Fine,
                Verdict::Fault => return Some(Verdict::Fault),
            }
        }
        Some(worst)
    }

    /// Whether `old`, once it is known to be ordered before the new access, need not be kept.
    pub(super) fn stands_for(&self, new: Rec, old: Rec) -> bool {
        // What a narrower scope takes in depends on the block.
        new.stands_for(old)
            && (!new.is_strong()
                || new.actor() == old.actor()
                || self
                    .actors
                    .get(old.actor())
                    .is_some_and(|a| a.info.block == self.info.block))
    }

    /// Whether the new read makes `old` superfluous in every set of reads that holds it, whatever
    /// the word.
    pub(super) fn replaces_everywhere(&mut self, new: Rec, old: Rec) -> bool {
        self.in_step
            && self.stands_for(new, old)
            && (self.same_lanes(old) || self.uniform(old) == Some(Verdict::Known))
    }
}

/// The positions of the bits that are set.
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let at = mask.trailing_zeros();
            mask &= mask - 1;
            at
        })
    })
}
