//! How the history of a word takes in one more access.
//!
//! Most words need two records: the latest write and the latest read. A word that several warps
//! read refers to a *set* of reads; sets are shared by all words with the same readers, and the
//! step from one set to the next is looked up, not computed. What does not fit (several writers of
//! one word, atomics of many warps) is kept in full as a *crowd*.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::observer::{Observer, Verdict, bits};
use super::shadow::{Cell, Rec, WORDS};
use super::types::Scope;

/// An odd number whose multiples have well mixed high bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A quick hash for keys that are a few words.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, x: u64) {
        self.0 = (self.0.rotate_left(23) ^ x).wrapping_mul(GOLDEN);
    }

    fn write_u32(&mut self, x: u32) {
        self.write_u64(x as u64);
    }

    fn write_usize(&mut self, x: usize) {
        self.write_u64(x as u64);
    }
}

type Quick<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// All sets of reads. The lanes of a set are counted from that of the record which refers to it, so
/// that reads of a tile by several warps, lane by lane, are one set and not one for each lane.
#[derive(Debug)]
struct Sets {
    list: Vec<Option<Box<[Rec]>>>,
    free: Vec<u32>,
    ids: Quick<Box<[Rec]>, u32>,
    /// From a set (or a single read), by one more read, to a set.
    steps: Quick<(Rec, Rec), Rec>,
    /// Some recent steps.
    recent: Box<[(Rec, Rec, Rec); RECENT]>,
}

const RECENT: usize = 256;

fn recent_slot(from: Rec, new: Rec) -> usize {
    let mix =
        (from.when ^ from.when >> 32 ^ new.when.rotate_left(20) ^ from.what).wrapping_mul(GOLDEN);
    (mix >> 56) as usize
}

impl Default for Sets {
    fn default() -> Self {
        Sets {
            list: Vec::new(),
            free: Vec::new(),
            ids: Quick::default(),
            steps: Quick::default(),
            recent: Box::new([Default::default(); RECENT]),
        }
    }
}

impl Sets {
    fn members(&self, of: Rec) -> impl Iterator<Item = Rec> + '_ {
        let single = (of.set_id().is_none() && !of.is_none()).then_some(of);
        let set = of.set_id().and_then(|id| self.list.get(id as usize));
        let set = set.and_then(|s| s.as_deref()).unwrap_or(&[]);
        set.iter().map(move |r| r.turned(of.base())).chain(single)
    }

    /// The set `from` (or a single read) with one more read.
    fn add(&mut self, from: Rec, new: Rec, obs: &mut Observer) -> Rec {
        // Which lane it is makes no difference, only how the lanes of the reads differ.
        let base = from.base();
        let (from, new) = (from.turned(32 - base), new.turned(32 - base));
        let slot = recent_slot(from, new);
        let recent = &self.recent[slot];
        if (recent.0, recent.1) == (from, new) {
            return recent.2.turned(base);
        }
        let to = match self.steps.get(&(from, new)) {
            Some(&to) => to,
            None => self.step(from, new, base, obs),
        };
        self.recent[slot] = (from, new, to);
        to.turned(base)
    }

    /// As [`add`](Self::add), of records that are `base` further on than these.
    fn step(&mut self, from: Rec, new: Rec, base: u32, obs: &mut Observer) -> Rec {
        let mut members: Vec<Rec> = Vec::new();
        let mut new_merged = new;
        for old in self.members(from) {
            if old.when == new.when && old.on(0) == new.on(0) {
                new_merged = new_merged.on(new_merged.bytes() | old.bytes());
            } else if !obs.replaces_everywhere(new.turned(base), old.turned(base)) {
                members.push(old);
            }
        }
        members.push(new_merged);
        let to = match members[..] {
            [one] => one,
            _ => {
                members.sort_unstable_by_key(|r| (r.when, r.what));
                Rec::of_set(self.intern(members.into()))
            }
        };
        self.steps.insert((from, new), to);
        to
    }

    fn intern(&mut self, members: Box<[Rec]>) -> u32 {
        if let Some(&id) = self.ids.get(&members) {
            return id;
        }
        let id = match self.free.pop() {
            Some(id) => {
                self.list[id as usize] = Some(members.clone());
                id
            }
            None => {
                self.list.push(Some(members.clone()));
                self.list.len() as u32 - 1
            }
        };
        self.ids.insert(members, id);
        id
    }
}

/// One record of a crowd: its lane map is not used, the lanes are listed.
#[derive(Clone, Copy, Debug)]
struct Entry {
    rec: Rec,
    lanes: u32,
}

/// The history of a word, in full.
#[derive(Debug, Default)]
struct Crowd {
    /// Strong accesses that all go together: same size and scope, within one instance of the scope
    /// (the second number).
    class: Option<(u64, u32)>,
    /// Those, by actor.
    peers: Vec<Entry>,
    /// Everything else.
    rest: Vec<Entry>,
}

/// What the cells of the shadow refer to.
#[derive(Debug, Default)]
pub(super) struct Histories {
    sets: Sets,
    crowds: Vec<Crowd>,
    free: Vec<u32>,
}

impl Histories {
    /// How much is held: sets of reads, and steps between them.
    pub(super) fn held(&self) -> usize {
        self.sets.ids.len().max(self.sets.steps.len() / 4)
    }

    /// The access `new` reaches every word of a run whose words all have the history `cell`. `false`:
    /// the outcome depends on the word, and nothing has changed.
    #[inline]
    pub(super) fn step(&mut self, cell: &mut Cell, new: Rec, obs: &mut Observer) -> bool {
        let before = *cell;
        let slot = (before.other.when.wrapping_mul(GOLDEN) >> 62) as usize;
        let (from, by, to) = &obs.steps[slot];
        if *from == before && *by == new {
            *cell = *to;
            return true;
        }
        let same = Self::touch_quickly(cell, new, obs) || self.touch(cell, new, None, obs);
        if same {
            obs.steps[slot] = (before, new, *cell);
        }
        same
    }

    /// The access `rec` reaches the bytes `from..end` of the line at `base`, which has these words.
    pub(super) fn words(
        &mut self,
        words: &mut [Cell; WORDS],
        base: u64,
        from: u64,
        end: u64,
        rec: Rec,
        obs: &mut Observer,
    ) {
        let (first, last) = ((from - base) / 4, (end - 1 - base) / 4);
        for w in first..=last {
            let address = base + 4 * w;
            let mut bytes = 15u64;
            if address < from {
                bytes &= 15 << (from - address);
            }
            if end - address < 4 {
                bytes &= 15 >> (4 - (end - address));
            }
            let (word, new) = (&mut words[w as usize], rec.on(bytes));
            if !self.step(word, new, obs) {
                self.touch(word, new, Some(address), obs);
            }
        }
    }

    /// The frequent cases of [`touch`](Self::touch): weak accesses to words whose earlier accesses
    /// are known, as far as they matter. `false`: not one of them, and nothing has changed.
    #[inline]
    pub(super) fn touch_quickly(cell: &mut Cell, new: Rec, obs: &Observer) -> bool {
        let (write, other) = (cell.write, cell.other);
        if new.is_strong() || !write.is_none() && !obs.surely_knows(write) {
            return false;
        }
        let replaces = other.is_none() || other.bytes() != 0 && obs.surely_knows(other);
        if new.writes() {
            if replaces && new.bytes() == 15 {
                *cell = Cell {
                    write: new,
                    other: Rec::default(),
                };
                return true;
            }
        } else if other == new {
            return true;
        } else if other.is_none()
            || replaces && !other.writes() && other.bytes() & !new.bytes() == 0
        {
            cell.other = new;
            return true;
        }
        false
    }

    /// The access `new` reaches a word with history `cell`. With an `address`, that word; without
    /// one, every word of a line whose words all have this history: `false` then says that the
    /// outcome depends on the word, and that nothing has changed.
    pub(super) fn touch(
        &mut self,
        cell: &mut Cell,
        new: Rec,
        address: Option<u64>,
        obs: &mut Observer,
    ) -> bool {
        if let Some(id) = cell.write.crowd_id() {
            let Some(address) = address else { return false };
            if self.crowds[id as usize].touch(new, address, obs) {
                self.free_crowd(id);
                *cell = Cell {
                    write: new,
                    other: Rec::default(),
                };
            }
            return true;
        }
        let (write, other) = (cell.write, cell.other);
        let about_write = match obs.verdict(write, new, address) {
            Some(v) => v,
            None => return false,
        };
        if !new.writes() {
            if other == new {
                return true;
            }
            if other.is_none() {
                cell.other = new;
                return true;
            }
            if !other.writes() {
                let single = other.set_id().is_none();
                let replaced = single
                    && obs.stands_for(new, other)
                    && obs.verdict(other, new, address) == Some(Verdict::Known);
                cell.other = if replaced {
                    new
                } else {
                    self.sets.add(other, new, obs)
                };
                return true;
            }
            if obs.verdict(other, new, address).is_none() {
                return false;
            }
        } else {
            if write.when == new.when && write.on(0) == new.on(0) && other.is_none() {
                cell.write = write.on(write.bytes() | new.bytes());
                return true;
            }
            let keeps = |obs: &Observer, v: Verdict, old: Rec| match v {
                Verdict::Fault => false,
                Verdict::Known => !obs.stands_for(new, old),
                Verdict::Fine => true,
            };
            let mut keep_other = false;
            for old in self.sets.members(other) {
                match obs.verdict(old, new, address) {
                    Some(v) => keep_other |= keeps(obs, v, old),
                    None => return false,
                }
            }
            let keep_write = !write.is_none() && keeps(obs, about_write, write);
            match (keep_write, keep_other) {
                (false, false) => {
                    *cell = Cell {
                        write: new,
                        other: Rec::default(),
                    }
                }
                (false, true) => cell.write = new,
                (true, false) => {
                    *cell = Cell {
                        write: new,
                        other: write,
                    }
                }
                (true, true) => {}
            }
            if !(keep_write && keep_other) {
                return true;
            }
        }
        let Some(address) = address else { return false };
        let mut crowd = Crowd::default();
        for old in self.sets.members(write).chain(self.sets.members(other)) {
            crowd.take_in(old, address, obs);
        }
        // The conflicts are already known; what conflicts is dropped now.
        let single = crowd.touch(new, address, obs);
        *cell = if single {
            Cell {
                write: new,
                other: Rec::default(),
            }
        } else {
            let id = match self.free.pop() {
                Some(id) => {
                    self.crowds[id as usize] = crowd;
                    id
                }
                None => {
                    self.crowds.push(crowd);
                    self.crowds.len() as u32 - 1
                }
            };
            Cell {
                write: Rec::of_crowd(id),
                other: Rec::default(),
            }
        };
        true
    }

    /// A cell that referred to this crowd is gone.
    pub(super) fn free_crowd(&mut self, id: u32) {
        self.crowds[id as usize] = Crowd::default();
        self.free.push(id);
    }

    /// Finds the actors that are still referred to, and drops the sets that are not. `visit` shows
    /// every cell of the shadow.
    pub(super) fn collect(
        &mut self,
        visit: impl FnOnce(&mut dyn FnMut(&Cell)),
        mut uses: impl FnMut(u32),
    ) {
        let mut live = vec![false; self.sets.list.len()];
        visit(&mut |cell| {
            for rec in [cell.write, cell.other] {
                if let Some(id) = rec.set_id() {
                    live[id as usize] = true;
                } else if rec.crowd_id().is_none() && !rec.is_none() {
                    uses(rec.actor());
                }
            }
        });
        for entry in self
            .crowds
            .iter()
            .flat_map(|c| c.peers.iter().chain(&c.rest))
        {
            uses(entry.rec.actor());
        }
        self.sets.ids.retain(|_, id| live[*id as usize]);
        for (id, set) in self.sets.list.iter_mut().enumerate() {
            match set {
                Some(members) if live[id] => members.iter().for_each(|r| uses(r.actor())),
                Some(_) => {
                    self.sets.free.push(id as u32);
                    *set = None;
                }
                None => {}
            }
        }
        self.sets.steps = Quick::default();
        *self.sets.recent = [Default::default(); RECENT];
    }
}

impl Crowd {
    /// The class of a strong record of a thread of the observer's block, cluster or device.
    fn class_of(rec: Rec, obs: &Observer) -> Option<(u64, u32)> {
        let instance = match rec.scope() {
            Scope::Cta => obs.info.block,
            Scope::Cluster => obs.info.cluster,
            Scope::Gpu => obs.info.device,
            Scope::Sys => 0,
        };
        rec.is_strong().then_some((rec.class(), instance))
    }

    /// The parts of an access to one word: which lanes touched which bytes.
    fn parts(rec: Rec, address: u64, exist: u32) -> impl Iterator<Item = Entry> {
        let splits = rec.map().splits_words();
        let whole = (!splits).then(|| (rec.bytes(), rec.map().lanes(address, exist)));
        let bytes = bits(if splits { rec.bytes() as u32 } else { 0 })
            .map(move |b| (1u64 << b, rec.map().lanes(address + b as u64, exist)));
        whole
            .into_iter()
            .chain(bytes)
            .map(move |(bytes, lanes)| Entry {
                rec: rec.on(bytes).mapped(super::shadow::LaneMap::NONE),
                lanes,
            })
    }

    /// Puts in a record of a word that was kept in brief.
    fn take_in(&mut self, rec: Rec, address: u64, obs: &Observer) {
        for part in Self::parts(rec, address, obs.exist(rec)) {
            add(&mut self.rest, part);
        }
    }

    /// One more access. Says whether it is a write that stands for all that came before.
    fn touch(&mut self, new: Rec, address: u64, obs: &mut Observer) -> bool {
        let exist = obs.exist(new);
        for part in Self::parts(new, address, exist) {
            self.touch_part(part, address, obs);
        }
        let alone =
            |e: &Entry| e.rec.when | 0xff == new.when | 0xff && e.rec.on(0).what == new.on(0).what;
        new.writes()
            && new.bytes() == 15
            && !new.is_strong()
            && self.peers.is_empty()
            && self.rest.iter().all(alone)
    }

    fn touch_part(&mut self, new: Entry, address: u64, obs: &mut Observer) {
        let class = Self::class_of(new.rec, obs);
        let mut keep = |old: &mut Entry| {
            let common = old.rec.bytes() & new.rec.bytes();
            if common == 0 {
                return true;
            }
            if obs.knows_all_of(old.rec) {
                return !obs.stands_for(new.rec, old.rec);
            }
            match obs.judge(old.rec, old.lanes, new.lanes, address, common) {
                Verdict::Fault => false,
                Verdict::Known => !obs.stands_for(new.rec, old.rec),
                Verdict::Fine => true,
            }
        };
        self.rest.retain_mut(&mut keep);
        if class.is_none() || class != self.class {
            self.peers.retain_mut(&mut keep);
        }
        if class.is_none() {
            add(&mut self.rest, new);
            return;
        }
        if self.peers.is_empty() {
            self.class = class;
        } else if self.class != class {
            add(&mut self.rest, new);
            return;
        }
        // Of the same actor, the lanes' earlier accesses are ordered before the new one.
        let actor = new.rec.actor();
        let from = self.peers.partition_point(|e| e.rec.actor() < actor);
        let mut to = from;
        while to < self.peers.len() && self.peers[to].rec.actor() == actor {
            let old = &mut self.peers[to];
            if old.rec == new.rec {
                old.lanes |= new.lanes;
                return;
            }
            if new.rec.stands_for(old.rec) {
                old.lanes &= !new.lanes;
                if old.lanes == 0 {
                    self.peers.remove(to);
                    continue;
                }
            }
            to += 1;
        }
        self.peers.insert(to, new);
    }
}

/// Adds a record, or its lanes to an equal one.
fn add(list: &mut Vec<Entry>, new: Entry) {
    match list.iter_mut().find(|e| e.rec == new.rec) {
        Some(e) => e.lanes |= new.lanes,
        None => list.push(new),
    }
}
