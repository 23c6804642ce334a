//! Synchronisation through memory: what strong writes leave behind for strong reads.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::clock::Clock;
use super::history::Mix;
use super::types::{Kind, Order, Scope, Space, WarpInfo, includes};
use super::warp::Warp;

/// What was released at a place, told apart by who may see it.
///
/// A release and an acquire only meet if the scope of each takes in the other thread. Let `d` be
/// the narrowest scope that holds both threads; then both scopes must be at least `d`. So it is
/// enough to keep, for each block, cluster, device and for the system, the union of what was
/// released there at that scope or a wider one: an acquire at some scope takes the unions of its
/// own block, cluster, … up to that scope.
///
/// The executor keeps one in each phase of an mbarrier. A cheap value (one shared pointer).
#[derive(Clone, Debug, Default)]
pub struct ScopedClock(Option<Arc<Levels>>);

#[derive(Clone, Debug, Default)]
struct Levels {
    blocks: Vec<(u32, Clock)>,
    clusters: Vec<(u32, Clock)>,
    devices: Vec<(u32, Clock)>,
    system: Clock,
}

fn entry(list: &mut Vec<(u32, Clock)>, key: u32) -> &mut Clock {
    let at = match list.binary_search_by_key(&key, |e| e.0) {
        Ok(i) => i,
        Err(i) => {
            list.insert(i, (key, Clock::default()));
            i
        }
    };
    &mut list[at].1
}

fn find(list: &[(u32, Clock)], key: u32) -> Option<&Clock> {
    list.binary_search_by_key(&key, |e| e.0)
        .ok()
        .map(|i| &list[i].1)
}

impl ScopedClock {
    /// Whether nothing was released.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds what was released in `other`.
    pub fn join(&mut self, other: &ScopedClock) {
        let Some(theirs) = &other.0 else { return };
        let Some(mine) = &mut self.0 else {
            self.0 = Some(theirs.clone());
            return;
        };
        if Arc::ptr_eq(mine, theirs) {
            return;
        }
        let mine = Arc::make_mut(mine);
        for (key, clock) in &theirs.blocks {
            entry(&mut mine.blocks, *key).join(clock);
        }
        for (key, clock) in &theirs.clusters {
            entry(&mut mine.clusters, *key).join(clock);
        }
        for (key, clock) in &theirs.devices {
            entry(&mut mine.devices, *key).join(clock);
        }
        mine.system.join(&theirs.system);
    }

    /// A release of `clock` at `scope` by a thread of `info`.
    pub(super) fn add(&mut self, info: &WarpInfo, scope: Scope, clock: &Clock) {
        let levels = Arc::make_mut(self.0.get_or_insert_default());
        entry(&mut levels.blocks, info.block).join(clock);
        if scope >= Scope::Cluster {
            entry(&mut levels.clusters, info.cluster).join(clock);
        }
        if scope >= Scope::Gpu {
            entry(&mut levels.devices, info.device).join(clock);
        }
        if scope >= Scope::Sys {
            levels.system.join(clock);
        }
    }

    /// Calls `take` with everything that an acquire at `scope` by a thread of `info` sees.
    pub(super) fn visible(&self, info: &WarpInfo, scope: Scope, mut take: impl FnMut(&Clock)) {
        let Some(levels) = &self.0 else { return };
        // From wide to narrow: the wide ones mostly cover the narrow ones.
        if scope >= Scope::Sys {
            take(&levels.system);
        }
        if scope >= Scope::Gpu
            && let Some(c) = find(&levels.devices, info.device)
        {
            take(c);
        }
        if scope >= Scope::Cluster
            && let Some(c) = find(&levels.clusters, info.cluster)
        {
            take(c);
        }
        if let Some(c) = find(&levels.blocks, info.block) {
            take(c);
        }
    }

    /// Whether an acquire at a wider scope than `scope` could see more.
    pub(super) fn reaches_past(&self, scope: Scope) -> bool {
        self.0.as_ref().is_some_and(|l| {
            scope < Scope::Sys && !l.system.is_empty()
                || scope < Scope::Gpu && !l.devices.is_empty()
                || scope < Scope::Cluster && !l.clusters.is_empty()
        })
    }
}

/// Who wrote last, as far as that decides whether a read goes together with the write.
#[derive(Clone, Copy, Debug)]
struct Writer {
    info: WarpInfo,
    scope: Scope,
    actor: u32,
    lane: u32,
}

impl Writer {
    fn meets(&self, info: &WarpInfo, scope: Scope) -> bool {
        includes(self.scope, &self.info, info) && includes(scope, info, &self.info)
    }
}

/// A word that something was released through.
#[derive(Clone, Debug)]
struct Location {
    released: ScopedClock,
    last: Writer,
    /// Whether all that is released came from the thread that wrote last.
    of_last: bool,
    /// Number of blocks in `released` at which those that are gone are looked for.
    sweep_at: usize,
}

/// All words that hold something released.
#[derive(Debug, Default)]
pub(super) struct Locations {
    map: HashMap<(Space, u64), Location, BuildHasherDefault<Mix>>,
}

/// One lane's strong access to one scalar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strong {
    pub(super) lane: u32,
    pub(super) space: Space,
    pub(super) address: u64,
    pub(super) kind: Kind,
    pub(super) order: Order,
    pub(super) scope: Scope,
}

impl Locations {
    /// Whether nothing is released anywhere.
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    fn key(space: Space, address: u64) -> (Space, u64) {
        (space, address & !3)
    }

    /// The read half: acquires, or remembers for a fence to come.
    pub(super) fn read(&self, warp: &mut Warp, s: &Strong) {
        let Some(at) = self.map.get(&Self::key(s.space, s.address)) else {
            return;
        };
        if !at.last.meets(&warp.info, s.scope) {
            return;
        }
        if s.order.acquires() {
            let info = warp.info;
            at.released
                .visible(&info, s.scope, |clock| warp.acquire(1 << s.lane, clock));
        } else {
            warp.saw(s.lane, &at.released);
        }
    }

    /// The write half: leaves what the lane releases. Says whether the word now holds something.
    /// The caller moves the warp's time on after a release.
    pub(super) fn write(&mut self, warp: &Warp, s: &Strong, lives: impl Fn(u32) -> bool) -> bool {
        let key = Self::key(s.space, s.address);
        let me = Writer {
            info: warp.info,
            scope: s.scope,
            actor: warp.actor,
            lane: s.lane,
        };
        let before = self.map.get_mut(&key);
        let mut add = Vec::new();
        if before.is_none() && !s.order.releases() && !warp.has_fences() {
            return false;
        }
        if s.order.releases() {
            add.push((s.scope, warp.released(1 << s.lane)));
        }
        warp.fenced_release(s.lane, |scope, clock| {
            add.push((scope.min(s.scope), clock.clone()))
        });
        let mut released = ScopedClock::default();
        let (mut of_last, mut sweep_at) = (true, 64);
        if let Some(at) = before {
            let same = at.last.actor == me.actor && at.last.lane == me.lane;
            // A read-modify-write carries on what it read from; so does a thread's own strong write
            // after its release.
            let carries = match s.kind {
                Kind::Rmw => at.last.meets(&me.info, me.scope),
                _ => same && at.of_last,
            };
            if carries {
                released = std::mem::take(&mut at.released);
                of_last = same && at.of_last;
                sweep_at = at.sweep_at;
            }
        }
        for (scope, clock) in &add {
            released.add(&warp.info, *scope, clock);
        }
        let Some(levels) = &mut released.0 else {
            self.map.remove(&key);
            return false;
        };
        if levels.blocks.len() > sweep_at {
            // Blocks that are gone acquire no more.
            let levels = Arc::make_mut(levels);
            levels.blocks.retain(|e| lives(e.0));
            sweep_at = 2 * levels.blocks.len() + 64;
        }
        self.map.insert(
            key,
            Location {
                released,
                last: me,
                of_last,
                sweep_at,
            },
        );
        true
    }

    /// A weak write, or a free: whatever was released in these bytes is gone.
    pub(super) fn clear(&mut self, space: Space, from: u64, to: u64) {
        if self.map.is_empty() || from >= to {
            return;
        }
        let first = from & !3;
        if (to - first) / 4 > self.map.len() as u64 {
            self.map
                .retain(|k, _| k.0 != space || k.1 < first || k.1 >= to);
        } else {
            for word in (first..to).step_by(4) {
                self.map.remove(&(space, word));
            }
        }
    }

    /// A block has ended: its shared memory is gone.
    pub(super) fn clear_space(&mut self, space: Space) {
        self.map.retain(|k, _| k.0 != space);
    }
}
