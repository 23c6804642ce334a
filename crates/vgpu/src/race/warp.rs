//! What the lanes of a warp know.
//!
//! A warp has one time for all its lanes, which moves on whenever one of them makes something
//! known. Lanes that know the same are one *group*; in step, a warp is a single group. What a lane
//! itself did it always knows; that is not stored.

use super::clock::{Clock, Row};
use super::location::ScopedClock;
use super::types::{Scope, WarpInfo};

/// What is known of one actor, and the part of it that asynchronous proxies see.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pair {
    pub(super) all: Row,
    pub(super) proxied: Row,
}

impl Pair {
    fn join(&mut self, other: &Pair) {
        self.all.join(&other.all);
        self.proxied.join(&other.proxied);
    }

    fn join_from(&mut self, clock: &Clock, actor: u32) {
        if let Some(row) = clock.all.row(actor) {
            self.all.join(row);
        }
        if let Some(row) = clock.proxied.row(actor) {
            self.proxied.join(row);
        }
    }

    fn covers_from(&self, clock: &Clock, actor: u32) -> bool {
        clock.all.row(actor).is_none_or(|r| self.all.covers(r))
            && clock
                .proxied
                .row(actor)
                .is_none_or(|r| self.proxied.covers(r))
    }
}

/// What one or several lanes know.
#[derive(Clone, Debug, Default)]
pub(super) struct Know {
    pub(super) clock: Clock,
    /// Of the own warp.
    pub(super) own: Pair,
    /// Of the own warp's `cp.async`.
    pub(super) copies: Pair,
}

impl Know {
    pub(super) fn join(&mut self, other: &Know) {
        self.clock.join(&other.clock);
        self.own.join(&other.own);
        self.copies.join(&other.copies);
    }

    fn same(&self, other: &Know) -> bool {
        self.clock.same(&other.clock) && self.own == other.own && self.copies == other.copies
    }
}

/// Lanes that know the same.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) mask: u32,
    pub(super) know: Know,
}

/// The `cp.async` of a warp, as an actor whose time counts instructions.
#[derive(Clone, Debug)]
pub(super) struct Copies {
    pub(super) actor: u32,
    /// The number of the latest instruction.
    pub(super) issued: u32,
    /// Up to which each lane has waited for its own, and which part of it was fenced.
    pub(super) known: [u32; 32],
    pub(super) fenced: [u32; 32],
}

/// A fence that turns later strong writes of its lanes into releases.
#[derive(Clone, Debug)]
struct Fence {
    mask: u32,
    scope: Scope,
    time: u32,
    know: Know,
    copies: Option<Box<Copies>>,
}

/// A warp that has begun and not ended.
#[derive(Clone, Debug)]
pub(super) struct Warp {
    pub(super) info: WarpInfo,
    pub(super) actor: u32,
    /// Lanes that exist under the number `actor`.
    pub(super) lanes: u32,
    pub(super) time: u32,
    pub(super) groups: Vec<Group>,
    /// Up to which time each lane's own writes are behind a proxy fence.
    fenced: [u32; 32],
    /// Whether `fenced`, or a wait for copies, has news that a warp sync must hand round.
    news: bool,
    pub(super) copies: Option<Box<Copies>>,
    fences: Vec<Fence>,
    /// What relaxed loads have seen, for a fence to come.
    pending: Vec<(u32, ScopedClock)>,
    /// Actors of operations by instruction, and how many operations each has.
    pub(super) operations: Vec<(u32, u32, u32)>,
    /// Earlier numbers of this warp, and what lanes knew that have left.
    pub(super) former: Vec<u32>,
    pub(super) left: Clock,
}

impl Warp {
    pub(super) fn new(info: WarpInfo, actor: u32, start: &Clock) -> Self {
        let know = Know {
            clock: start.clone(),
            ..Know::default()
        };
        Warp {
            info,
            actor,
            lanes: info.lanes,
            time: 1,
            groups: vec![Group {
                mask: info.lanes,
                know,
            }],
            fenced: [0; 32],
            news: false,
            copies: None,
            fences: Vec::new(),
            pending: Vec::new(),
            operations: Vec::new(),
            former: Vec::new(),
            left: Clock::default(),
        }
    }

    /// The group of a lane; of a lane that does not exist, any.
    pub(super) fn group_of(&self, lane: u32) -> &Group {
        self.groups
            .iter()
            .find(|g| g.mask & (1 << lane) != 0)
            .unwrap_or(&self.groups[0])
    }

    /// What `lanes` of a group know, with what they themselves did.
    fn raised(&self, know: &Know, lanes: u32, time: u32, copies: Option<&Copies>) -> Know {
        let mut know = know.clone();
        know.own.all.raise(lanes, self.lanes, time);
        know.own
            .proxied
            .raise_each(lanes, self.lanes, |l| self.fenced[l].min(time));
        if let Some(c) = copies {
            know.copies
                .all
                .raise_each(lanes, self.info.lanes, |l| c.known[l]);
            know.copies
                .proxied
                .raise_each(lanes, self.info.lanes, |l| c.fenced[l]);
        }
        know
    }

    /// What `lanes` know together, themselves included.
    pub(super) fn know_of(&self, lanes: u32) -> Know {
        let mut joined: Option<Know> = None;
        for g in self.groups.iter().filter(|g| g.mask & lanes != 0) {
            let know = self.raised(&g.know, g.mask & lanes, self.time, self.copies.as_deref());
            match &mut joined {
                Some(j) => j.join(&know),
                None => joined = Some(know),
            }
        }
        joined.unwrap_or_default()
    }

    /// Adds to `clock` what `know` says.
    pub(super) fn publish(&self, know: &Know, clock: &mut Clock) {
        clock.join(&know.clock);
        clock.all.join_row(self.actor, &know.own.all);
        clock.proxied.join_row(self.actor, &know.own.proxied);
        if let Some(c) = &self.copies {
            clock.all.join_row(c.actor, &know.copies.all);
            clock.proxied.join_row(c.actor, &know.copies.proxied);
        }
    }

    /// What a release by `lanes` makes known. The caller moves the time on.
    pub(super) fn released(&self, lanes: u32) -> Clock {
        let mut clock = Clock::default();
        for g in self.groups.iter().filter(|g| g.mask & lanes != 0) {
            let know = self.raised(&g.know, g.mask & lanes, self.time, self.copies.as_deref());
            self.publish(&know, &mut clock);
        }
        clock
    }

    /// What a release by `lanes` adds to a clock. The caller moves the time on.
    pub(super) fn release_into(&self, lanes: u32, clock: &mut Clock) {
        for g in self.groups.iter().filter(|g| g.mask & lanes != 0) {
            let know = self.raised(&g.know, g.mask & lanes, self.time, self.copies.as_deref());
            self.publish(&know, clock);
        }
    }

    /// From now on the lanes do things that were not known before.
    pub(super) fn tick(&mut self) {
        self.time += 1;
    }

    /// Makes every group lie inside or outside `lanes`.
    fn split(&mut self, lanes: u32) {
        for i in 0..self.groups.len() {
            let inside = self.groups[i].mask & lanes;
            if inside != 0 && inside != self.groups[i].mask {
                let know = self.groups[i].know.clone();
                self.groups[i].mask &= !lanes;
                self.groups.push(Group { mask: inside, know });
            }
        }
    }

    /// Makes one group of groups that know the same.
    fn merge(&mut self) {
        let mut i = 0;
        while i + 1 < self.groups.len() {
            let mut j = i + 1;
            while j < self.groups.len() {
                if self.groups[i].know.same(&self.groups[j].know) {
                    let gone = self.groups.swap_remove(j);
                    self.groups[i].mask |= gone.mask;
                } else {
                    j += 1;
                }
            }
            i += 1;
        }
    }

    /// `lanes` learn what `clock` says.
    pub(super) fn acquire(&mut self, lanes: u32, clock: &Clock) {
        let copies = self.copies.as_ref().map(|c| c.actor);
        let covered = |g: &Group| {
            g.know.clock.covers(clock)
                && g.know.own.covers_from(clock, self.actor)
                && copies.is_none_or(|c| g.know.copies.covers_from(clock, c))
        };
        if self
            .groups
            .iter()
            .all(|g| g.mask & lanes == 0 || covered(g))
        {
            return;
        }
        self.split(lanes);
        let actor = self.actor;
        for g in self.groups.iter_mut().filter(|g| g.mask & lanes != 0) {
            g.know.own.join_from(clock, actor);
            if let Some(c) = copies {
                g.know.copies.join_from(clock, c);
            }
            g.know.clock.join(clock);
        }
        if self.groups.len() > 1 {
            self.merge();
        }
    }

    /// `bar.warp.sync`: each of `lanes` learns what any of them knows.
    pub(super) fn sync(&mut self, lanes: u32) {
        let lanes = lanes & self.lanes;
        if let [group] = &mut self.groups[..]
            && lanes == self.lanes
            && !self.news
        {
            group.know.own.all = Row::Floor(self.time);
        } else {
            let know = self.know_of(lanes);
            self.split(lanes);
            self.groups.retain(|g| g.mask & lanes == 0);
            self.groups.push(Group { mask: lanes, know });
            if lanes == self.lanes {
                self.news = false;
            } else {
                self.merge();
            }
        }
        self.tick();
    }

    /// `fence.proxy.async`: what `lanes` know becomes visible to asynchronous proxies.
    pub(super) fn proxy_fence(&mut self, lanes: u32) {
        self.split(lanes);
        for g in self.groups.iter_mut().filter(|g| g.mask & lanes != 0) {
            g.know.clock.proxied = g.know.clock.all.clone();
            g.know.own.proxied = g.know.own.all.clone();
            g.know.copies.proxied = g.know.copies.all.clone();
        }
        self.merge();
        for l in (0..32).filter(|l| lanes & (1 << l) != 0) {
            self.fenced[l] = self.time;
            if let Some(c) = &mut self.copies {
                c.fenced[l] = c.known[l];
            }
        }
        self.news = true;
        self.tick();
    }

    /// `lanes` have waited for their own copies, up to `ticket`.
    pub(super) fn wait_copies(&mut self, lanes: u32, ticket: u32) {
        if let Some(c) = &mut self.copies {
            for l in (0..32).filter(|l| lanes & (1 << l) != 0) {
                c.known[l] = c.known[l].max(ticket.min(c.issued));
            }
            self.news = true;
        }
    }

    /// A fence: what earlier relaxed loads saw is acquired, and later strong writes release.
    pub(super) fn fence(&mut self, lanes: u32, scope: Scope) {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            for (mask, seen) in pending {
                if mask & lanes == 0 {
                    self.pending.push((mask, seen));
                    continue;
                }
                let info = self.info;
                seen.visible(&info, scope, |clock| self.acquire(mask & lanes, clock));
                // A wider fence may yet come; what only it would see is kept.
                let keep = if seen.reaches_past(scope) {
                    mask
                } else {
                    mask & !lanes
                };
                if keep != 0 {
                    self.pending.push((keep, seen));
                }
            }
        }
        for f in self.fences.iter_mut().filter(|f| f.scope <= scope) {
            f.mask &= !lanes;
        }
        self.fences.retain(|f| f.mask != 0);
        for g in &self.groups {
            if g.mask & lanes != 0 {
                self.fences.push(Fence {
                    mask: g.mask & lanes,
                    scope,
                    time: self.time,
                    know: g.know.clone(),
                    copies: self.copies.clone(),
                });
            }
        }
        self.tick();
    }

    /// Whether strong writes of some lane release by virtue of earlier fences.
    pub(super) fn has_fences(&self) -> bool {
        !self.fences.is_empty()
    }

    /// What a strong write of `lane` makes known by virtue of earlier fences.
    pub(super) fn fenced_release(&self, lane: u32, mut add: impl FnMut(Scope, &Clock)) {
        for f in self.fences.iter().filter(|f| f.mask & (1 << lane) != 0) {
            let know = self.raised(&f.know, 1 << lane, f.time, f.copies.as_deref());
            let mut clock = Clock::default();
            self.publish(&know, &mut clock);
            add(f.scope, &clock);
        }
    }

    /// A relaxed load of `lane` saw this; a fence may acquire it.
    pub(super) fn saw(&mut self, lane: u32, seen: &ScopedClock) {
        match self.pending.iter_mut().find(|p| p.0 == 1 << lane) {
            Some(p) => p.1.join(seen),
            None => self.pending.push((1 << lane, seen.clone())),
        }
    }

    /// Gives the lanes that stay a new number, under which only they exist. Whatever was known of
    /// the old number stays known.
    pub(super) fn renumber(&mut self, actor: u32, stay: u32) {
        let gone = self.lanes & !stay;
        if gone != 0 {
            self.left.join(&self.released(gone));
        }
        let mut groups = Vec::new();
        for lane in (0..32).filter(|l| self.lanes & stay & (1 << l) != 0) {
            let mut clock = Clock::default();
            let know = self.know_of(1 << lane);
            self.publish(&know, &mut clock);
            groups.push(Group {
                mask: 1 << lane,
                know: Know {
                    clock,
                    own: Pair::default(),
                    copies: know.copies,
                },
            });
        }
        // Fences keep what they knew; their own part moves into the clock.
        let mut fences = Vec::new();
        for f in &self.fences {
            for lane in (0..32).filter(|l| f.mask & stay & (1 << l) != 0) {
                let know = self.raised(&f.know, 1 << lane, f.time, f.copies.as_deref());
                let mut clock = Clock::default();
                self.publish(&know, &mut clock);
                fences.push(Fence {
                    mask: 1 << lane,
                    time: 0,
                    know: Know {
                        clock,
                        own: Pair::default(),
                        copies: know.copies,
                    },
                    ..f.clone()
                });
            }
        }
        self.fences = fences;
        self.former.push(self.actor);
        self.actor = actor;
        self.lanes &= stay;
        self.groups = groups;
        self.fenced = [0; 32];
        self.time = 1;
        self.news = true;
    }
}
