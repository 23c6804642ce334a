//! An exact, slow model of the same rules: each thread knows a set of accesses, one by one. No
//! epochs, no groups of lanes, no shadow cells, nothing that is ever replaced or merged.

use super::super::*;

/// A set of accesses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set(Vec<u64>);

impl Set {
    pub fn add(&mut self, id: usize) {
        if self.0.len() <= id / 64 {
            self.0.resize(id / 64 + 1, 0);
        }
        self.0[id / 64] |= 1 << (id % 64);
    }

    pub fn has(&self, id: usize) -> bool {
        self.0.get(id / 64).is_some_and(|w| w >> (id % 64) & 1 != 0)
    }

    pub fn join(&mut self, other: &Set) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }
}

#[derive(Clone, Debug, Default)]
pub struct Know {
    pub all: Set,
    pub proxied: Set,
}

impl Know {
    pub fn join(&mut self, other: &Know) {
        self.all.join(&other.all);
        self.proxied.join(&other.proxied);
    }
}

#[derive(Clone, Debug)]
pub struct Release {
    pub know: Know,
    pub info: WarpInfo,
    pub scope: Scope,
}

fn includes(scope: Scope, a: &WarpInfo, b: &WarpInfo) -> bool {
    match scope {
        Scope::Cta => a.block == b.block,
        Scope::Cluster => a.cluster == b.cluster,
        Scope::Gpu => a.device == b.device,
        Scope::Sys => true,
    }
}

fn mutual(a: &WarpInfo, sa: Scope, b: &WarpInfo, sb: Scope) -> bool {
    includes(sa, a, b) && includes(sb, b, a)
}

pub fn take(from: &[Release], info: &WarpInfo, scope: Scope, into: &mut Know) {
    for r in from {
        if mutual(&r.info, r.scope, info, scope) {
            into.join(&r.know);
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Lane {
    pub know: Know,
    fences: Vec<(Scope, Know)>,
    pending: Vec<Vec<Release>>,
}

#[derive(Clone, Debug)]
pub struct Warp {
    pub info: WarpInfo,
    pub lanes: Vec<Lane>,
    /// Lane, ticket, access.
    copies: Vec<(u32, u32, usize)>,
    pub tickets: u32,
    did: Set,
    /// What lanes knew that have left.
    pub left: Know,
}

#[derive(Clone, Debug)]
pub struct Agent {
    pub info: WarpInfo,
    pub know: Know,
    did: Set,
}

#[derive(Clone, Debug)]
struct Past {
    space: Space,
    from: u64,
    to: u64,
    kind: Kind,
    strong: Option<Scope>,
    unit: u32,
    proxy: Proxy,
    info: WarpInfo,
    /// The warp, if a lane did it.
    thread: Option<usize>,
}

#[derive(Clone, Debug)]
struct Location {
    releases: Vec<Release>,
    last: (usize, u32, WarpInfo, Scope),
    of_last: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub warps: Vec<Warp>,
    pub agents: Vec<Agent>,
    past: Vec<Past>,
    /// Bytes of which everything before some access is forgotten.
    forgotten: Vec<(usize, Space, u64, u64)>,
    places: Vec<((Space, u64), Location)>,
}

impl Model {
    pub fn begin(&mut self, info: WarpInfo, start: &Know) -> usize {
        let lane = Lane {
            know: start.clone(),
            ..Lane::default()
        };
        self.warps.push(Warp {
            info,
            lanes: vec![lane; 32],
            copies: Vec::new(),
            tickets: 0,
            did: Set::default(),
            left: Know::default(),
        });
        self.warps.len() - 1
    }

    pub fn end(&self, w: usize) -> Know {
        let warp = &self.warps[w];
        let mut know = self.union(w, warp.info.lanes);
        know.join(&warp.left);
        know.all.join(&warp.did);
        know.proxied.join(&warp.did);
        know
    }

    pub fn union(&self, w: usize, lanes: u32) -> Know {
        let mut know = Know::default();
        for l in (0..32).filter(|l| lanes >> l & 1 != 0) {
            know.join(&self.warps[w].lanes[l].know);
        }
        know
    }

    pub fn acquire(&mut self, w: usize, lanes: u32, know: &Know) {
        for l in (0..32).filter(|l| lanes >> l & 1 != 0) {
            self.warps[w].lanes[l].know.join(know);
        }
    }

    pub fn proxy_fence(&mut self, w: usize, lanes: u32) {
        for l in (0..32).filter(|l| lanes >> l & 1 != 0) {
            let know = &mut self.warps[w].lanes[l].know;
            know.proxied = know.all.clone();
        }
    }

    pub fn fence(&mut self, w: usize, lanes: u32, scope: Scope) {
        let info = self.warps[w].info;
        for l in (0..32).filter(|l| lanes >> l & 1 != 0) {
            let lane = &mut self.warps[w].lanes[l];
            for seen in &lane.pending {
                take(seen, &info, scope, &mut lane.know);
            }
            let know = lane.know.clone();
            lane.fences.push((scope, know));
        }
    }

    pub fn copy_ids(&self, w: usize, lanes: u32, ticket: u32) -> Set {
        let mut set = Set::default();
        for c in &self.warps[w].copies {
            if lanes >> c.0 & 1 != 0 && c.1 <= ticket {
                set.add(c.2);
            }
        }
        set
    }

    pub fn copy_wait(&mut self, w: usize, lanes: u32, ticket: u32) {
        for l in (0..32).filter(|l| lanes >> l & 1 != 0) {
            let set = self.copy_ids(w, 1 << l, ticket);
            self.warps[w].lanes[l].know.all.join(&set);
        }
    }

    pub fn spawn(&mut self, w: usize, lanes: u32) -> usize {
        let know = self.union(w, lanes);
        self.agents.push(Agent {
            info: self.warps[w].info,
            know,
            did: Set::default(),
        });
        self.agents.len() - 1
    }

    pub fn agent_release(&self, a: usize) -> Know {
        let mut know = self.agents[a].know.clone();
        know.all.join(&self.agents[a].did);
        know.proxied.join(&self.agents[a].did);
        know
    }

    pub fn forget(&mut self, space: Space, from: u64, to: u64) {
        self.forgotten.push((self.past.len(), space, from, to));
        self.clear(space, from, to);
    }

    fn clear(&mut self, space: Space, from: u64, to: u64) {
        self.places
            .retain(|(k, _)| k.0 != space || k.1 + 4 <= from || k.1 >= to);
    }

    fn remembers(&self, id: usize, space: Space, byte: u64) -> bool {
        !self
            .forgotten
            .iter()
            .any(|f| id < f.0 && f.1 == space && f.2 <= byte && byte < f.3)
    }

    /// The conflicts of `new` with all that came before, for one who knows `know`.
    fn conflicts(&self, new: &Past, know: &Know, me: usize, mine: &Set) -> Vec<ConflictKind> {
        let mut found = Vec::new();
        for (id, old) in self.past.iter().enumerate() {
            let meets = old.space == new.space
                && (old.from.max(new.from)..old.to.min(new.to))
                    .any(|b| self.remembers(id, new.space, b));
            let harmless = old.kind == Kind::Read && new.kind == Kind::Read;
            if id == me || !meets || harmless || mine.has(id) {
                continue;
            }
            let generic_write = old.kind != Kind::Read && old.proxy == Proxy::Generic;
            if know.all.has(id) {
                if new.proxy != Proxy::Generic && generic_write && !know.proxied.has(id) {
                    found.push(ConflictKind::MissingProxyFence);
                }
                continue;
            }
            if let (Some(a), Some(b)) = (old.strong, new.strong)
                && old.unit == new.unit
            {
                if !mutual(&old.info, a, &new.info, b) {
                    found.push(ConflictKind::InsufficientScope);
                }
                continue;
            }
            found.push(if new.thread.is_some() && old.thread == new.thread {
                ConflictKind::IntraWarp
            } else {
                ConflictKind::Race
            });
        }
        found
    }

    pub fn access(&mut self, w: usize, a: &Access) -> Vec<ConflictKind> {
        let info = self.warps[w].info;
        let strong = (a.order != Order::Weak).then_some(a.scope);
        let lanes: Vec<u32> = (0..32).filter(|l| a.lanes >> l & 1 != 0).collect();
        let first = self.past.len();
        for &l in &lanes {
            let from = a.addresses[l as usize];
            let id = self.past.len();
            self.past.push(Past {
                space: a.space,
                from,
                to: from + a.bytes as u64,
                kind: a.kind,
                strong,
                unit: a.unit,
                proxy: Proxy::Generic,
                info,
                thread: Some(w),
            });
            self.warps[w].lanes[l as usize].know.all.add(id);
            self.warps[w].did.add(id);
        }
        if strong.is_some() {
            for &l in &lanes {
                for at in (0..a.bytes).step_by(a.unit as usize) {
                    let key = (a.space, (a.addresses[l as usize] + at as u64) & !3);
                    self.strong(w, l, key, a);
                }
            }
        } else if a.kind != Kind::Read {
            for &l in &lanes {
                let from = a.addresses[l as usize];
                self.clear(a.space, from & !3, from + a.bytes as u64);
            }
        }
        let mut found = Vec::new();
        for (i, &l) in lanes.iter().enumerate() {
            // Lanes of one instruction meet in their order.
            let mut seen = self.clone();
            seen.past.truncate(first + i + 1);
            let know = &self.warps[w].lanes[l as usize].know;
            found.extend(seen.conflicts(&seen.past[first + i], know, first + i, &Set::default()));
        }
        found
    }

    fn strong(&mut self, w: usize, l: u32, key: (Space, u64), a: &Access) {
        let warp = &mut self.warps[w];
        let info = warp.info;
        let lane = &mut warp.lanes[l as usize];
        let at = self.places.iter().position(|p| p.0 == key);
        if let Some(i) = at
            && a.kind != Kind::Write
        {
            let place = &self.places[i].1;
            if mutual(&place.last.2, place.last.3, &info, a.scope) {
                if a.order.acquires() {
                    take(&place.releases, &info, a.scope, &mut lane.know);
                } else {
                    lane.pending.push(place.releases.clone());
                }
            }
        }
        if a.kind == Kind::Read {
            return;
        }
        let old = at.map(|i| self.places.swap_remove(i).1);
        let mut releases = Vec::new();
        let mut of_last = true;
        if let Some(old) = old {
            let same = (old.last.0, old.last.1) == (w, l);
            let carries = match a.kind {
                Kind::Rmw => mutual(&old.last.2, old.last.3, &info, a.scope),
                _ => same && old.of_last,
            };
            if carries {
                releases = old.releases;
                of_last = same && old.of_last;
            }
        }
        if a.order.releases() {
            releases.push(Release {
                know: lane.know.clone(),
                info,
                scope: a.scope,
            });
        }
        for (scope, know) in &lane.fences {
            releases.push(Release {
                know: know.clone(),
                info,
                scope: a.scope.min(*scope),
            });
        }
        if !releases.is_empty() {
            self.places.push((
                key,
                Location {
                    releases,
                    last: (w, l, info, a.scope),
                    of_last,
                },
            ));
        }
    }

    pub fn copy_access(&mut self, w: usize, ticket: u32, a: &Access) -> Vec<ConflictKind> {
        let mut found = Vec::new();
        let info = self.warps[w].info;
        for l in (0..32u32).filter(|l| a.lanes >> l & 1 != 0) {
            let from = a.addresses[l as usize];
            let new = Past {
                space: a.space,
                from,
                to: from + a.bytes as u64,
                kind: a.kind,
                strong: None,
                unit: 1,
                proxy: Proxy::Generic,
                info,
                thread: None,
            };
            if a.kind != Kind::Read {
                self.clear(a.space, from & !3, new.to);
            }
            let mut mine = Set::default();
            for c in &self.warps[w].copies {
                if c.0 == l && c.1 == ticket {
                    mine.add(c.2);
                }
            }
            let know = &self.warps[w].lanes[l as usize].know;
            found.extend(self.conflicts(&new, know, usize::MAX, &mine));
            let id = self.past.len();
            self.past.push(new);
            self.warps[w].copies.push((l, ticket, id));
        }
        found
    }

    pub fn agent_access(&mut self, a: usize, r: &RangeAccess) -> Vec<ConflictKind> {
        let agent = &self.agents[a];
        let new = Past {
            space: r.space,
            from: r.address,
            to: r.address + r.bytes,
            kind: r.kind,
            strong: None,
            unit: 1,
            proxy: r.proxy,
            info: agent.info,
            thread: None,
        };
        let found = self.conflicts(&new, &agent.know, usize::MAX, &agent.did);
        if r.kind != Kind::Read {
            self.clear(r.space, new.from & !3, new.to);
        }
        let id = self.past.len();
        self.past.push(new);
        self.agents[a].did.add(id);
        found
    }
}
