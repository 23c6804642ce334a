//! Shadow memory: what is remembered of the accesses to each word.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::history::Mix;
use super::types::{Kind, Proxy, Scope, Space};

/// Bytes of a line: the unit that is stored once while all of its words have the same history.
pub(super) const LINE: u64 = 64;

/// Words of a line.
pub(super) const WORDS: usize = 16;

/// Bytes of a quarter of a line: what a lane of `ldmatrix` reads or of `cp.async` writes.
pub(super) const QUARTER: u64 = 16;

/// Quarters of a line, and also words of a quarter.
const QUARTERS: usize = 4;

/// Lines of a page of global memory (4 KiB).
const PAGE: u64 = 64;

/// Times are below this; a warp that gets there takes a new number.
pub(super) const TIMES: u32 = 1 << 24;

/// One access, as remembered. All zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rec {
    /// Actor (32 bits), time (24), lane map (8).
    pub(super) when: u64,
    /// Instruction (32 bits) and the attributes below.
    pub(super) what: u64,
}

/// In place of an actor: the record stands for a set of reads with this number.
const SET: u64 = u32::MAX as u64 - 1;

/// In place of an actor: the cell is kept in full, under this number.
const CROWD: u64 = u32::MAX as u64;

const KIND: u64 = 3 << 4;
const WRITES: u64 = 1 << 4;
const STRONG: u64 = 1 << 6;
const SCOPE: u32 = 7;
const PROXY: u32 = 9;
const UNIT: u32 = 11;

/// The attributes that decide which strong accesses go together.
const CLASS: u64 = STRONG | 3 << SCOPE | 3 << PROXY | 7 << UNIT;

/// How the lane follows from the address, so that the words of one coalesced access have equal
/// records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneMap(u8);

impl LaneMap {
    /// All lanes of the warp, each at every byte.
    pub(super) const ALL: LaneMap = LaneMap(6 << 5);
    /// An actor without lanes.
    pub(super) const NONE: LaneMap = LaneMap(7 << 5);

    /// `lane` at `address`, its neighbours in steps of `1 << shift` bytes (shift at most 5).
    pub(super) fn affine(shift: u32, address: u64, lane: u32) -> LaneMap {
        LaneMap((shift << 5) as u8 | (lane as u64).wrapping_sub(address >> shift) as u8 & 31)
    }

    /// The lanes that touched the byte at `address`; `exist` are those of the actor.
    pub(super) fn lanes(self, address: u64, exist: u32) -> u32 {
        match self.0 >> 5 {
            6 => exist,
            7 => 1,
            shift => 1 << ((address >> shift).wrapping_add(self.0 as u64 & 31) & 31),
        }
    }

    /// Whether the lane follows from the address.
    fn is_affine(self) -> bool {
        self.0 >> 5 < 6
    }

    /// Whether the bytes of a word may have come from different lanes.
    pub(super) fn splits_words(self) -> bool {
        self.0 >> 5 < 2
    }
}

/// The attributes of an access that a record holds, besides bytes and lanes.
pub(super) fn attributes(kind: Kind, strong: Option<Scope>, proxy: Proxy, unit: u32) -> u64 {
    let kind = match kind {
        Kind::Read => 0,
        Kind::Write => WRITES,
        Kind::Rmw => 3 << 4,
    };
    let strong = strong.map_or(0, |s| STRONG | (s as u64) << SCOPE);
    kind | strong | (proxy as u64) << PROXY | (unit.max(1).trailing_zeros().min(7) as u64) << UNIT
}

impl Rec {
    pub(super) fn new(actor: u32, time: u32, map: LaneMap, attributes: u64, inst: u32) -> Rec {
        Rec {
            when: (actor as u64) << 32 | (time as u64) << 8 | map.0 as u64,
            what: (inst as u64) << 32 | attributes | 15,
        }
    }

    pub(super) fn of_set(id: u32) -> Rec {
        Rec {
            when: SET << 32 | id as u64,
            what: 0,
        }
    }

    pub(super) fn of_crowd(id: u32) -> Rec {
        Rec {
            when: CROWD << 32 | id as u64,
            what: 0,
        }
    }

    pub(super) fn is_none(self) -> bool {
        self.when == 0
    }

    pub(super) fn set_id(self) -> Option<u32> {
        (self.when >> 32 == SET).then_some(self.when as u32)
    }

    pub(super) fn crowd_id(self) -> Option<u32> {
        (self.when >> 32 == CROWD).then_some(self.when as u32)
    }

    pub(super) fn actor(self) -> u32 {
        (self.when >> 32) as u32
    }

    pub(super) fn time(self) -> u32 {
        self.when as u32 >> 8
    }

    pub(super) fn map(self) -> LaneMap {
        LaneMap(self.when as u8)
    }

    /// With another lane map.
    pub(super) fn mapped(self, map: LaneMap) -> Rec {
        Rec {
            when: self.when & !0xff | map.0 as u64,
            ..self
        }
    }

    /// The lane that a read's map begins with; of a set, the one that its members count from.
    pub(super) fn base(self) -> u32 {
        match self.set_id() {
            Some(_) => (self.what >> 32) as u32,
            None if self.map().is_affine() => self.when as u32 & 31,
            None => 0,
        }
    }

    /// The same read (or set of reads) by lanes that are `by` further on. Where lanes do not follow
    /// from the address there is nothing to do.
    pub(super) fn turned(self, by: u32) -> Rec {
        let lane = (self.base().wrapping_add(by) & 31) as u64;
        match self.set_id() {
            Some(_) => Rec {
                what: lane << 32,
                ..self
            },
            None if self.map().is_affine() => Rec {
                when: self.when & !31 | lane,
                ..self
            },
            None => self,
        }
    }

    /// Without lane map, instruction and bytes.
    pub(super) fn event(self) -> Rec {
        Rec {
            when: self.when | 0xff,
            what: self.what & (u32::MAX as u64 & !15),
        }
    }

    /// The bytes of the word, one bit each.
    pub(super) fn bytes(self) -> u64 {
        self.what & 15
    }

    /// On these bytes of the word only.
    pub(super) fn on(self, bytes: u64) -> Rec {
        Rec {
            what: self.what & !15 | bytes,
            ..self
        }
    }

    pub(super) fn writes(self) -> bool {
        self.what & WRITES != 0
    }

    pub(super) fn is_strong(self) -> bool {
        self.what & STRONG != 0
    }

    pub(super) fn class(self) -> u64 {
        self.what & CLASS
    }

    pub(super) fn unit(self) -> u64 {
        self.what >> UNIT & 7
    }

    pub(super) fn kind(self) -> Kind {
        match self.what & KIND {
            0 => Kind::Read,
            WRITES => Kind::Write,
            _ => Kind::Rmw,
        }
    }

    pub(super) fn scope(self) -> Scope {
        match self.what >> SCOPE & 3 {
            0 => Scope::Cta,
            1 => Scope::Cluster,
            2 => Scope::Gpu,
            _ => Scope::Sys,
        }
    }

    pub(super) fn proxy(self) -> Proxy {
        match self.what >> PROXY & 3 {
            0 => Proxy::Generic,
            1 => Proxy::Async,
            _ => Proxy::Tensormap,
        }
    }

    pub(super) fn inst(self) -> u32 {
        (self.what >> 32) as u32
    }

    /// Whether, once this record is ordered after `old`, whatever races with `old` and is still to
    /// come races with this one too, so that `old` need not be kept. For strong records that holds
    /// within a block.
    pub(super) fn stands_for(self, old: Rec) -> bool {
        old.bytes() & !self.bytes() == 0
            && (self.writes() || !old.writes())
            && (!self.is_strong() || self.class() == old.class())
    }
}

/// What is remembered of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cell {
    /// The latest write, or the number of a crowd.
    pub(super) write: Rec,
    /// One more: a read, a set of reads, or an older write that a strong one does not stand for.
    pub(super) other: Rec,
}

/// How finely a line is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Grain {
    #[default]
    Line,
    Quarter,
    Word,
}

/// The words of 64 bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// The history of every word, unless they are told apart.
    all: Cell,
    grain: Grain,
    /// Whether something may have been released through one of the words.
    pub(super) sync: bool,
    /// The quarters and the words, once they were told apart. Kept when they no longer are: a tile
    /// that is written in whole lines and read in pieces goes back and forth.
    quarters: Option<Box<[Cell; QUARTERS]>>,
    words: Option<Box<[Cell; WORDS]>>,
}

impl Line {
    /// The history of every word, if they have the same.
    pub(super) fn whole(&mut self) -> Option<&mut Cell> {
        (self.grain == Grain::Line).then_some(&mut self.all)
    }

    /// The histories of the quarters, told apart, if within each the words have the same.
    #[inline]
    pub(super) fn quarters(&mut self) -> Option<&mut [Cell]> {
        let all = self.all;
        match self.grain {
            Grain::Word => return None,
            Grain::Quarter => {}
            Grain::Line => {
                self.grain = Grain::Quarter;
                **self.quarters.get_or_insert_default() = [all; QUARTERS];
            }
        }
        self.quarters.as_deref_mut().map(|q| &mut q[..])
    }

    /// The words, told apart.
    pub(super) fn words(&mut self) -> &mut [Cell; WORDS] {
        let words = self.words.get_or_insert_default();
        match (self.grain, &self.quarters) {
            (Grain::Word, _) => {}
            (Grain::Quarter, Some(quarters)) => {
                **words = std::array::from_fn(|w| quarters[w / QUARTERS]);
            }
            _ => **words = [self.all; WORDS],
        }
        self.grain = Grain::Word;
        words
    }

    /// Goes back to one history, or to one for each quarter, if the words allow it.
    pub(super) fn fold(&mut self) {
        let same = |cells: &[Cell]| {
            cells[0].write.crowd_id().is_none() && cells.iter().all(|c| *c == cells[0])
        };
        let cells = self.cells();
        if same(cells) {
            self.all = cells[0];
            self.grain = Grain::Line;
        } else if self.grain == Grain::Word
            && let Some(words) = &self.words
            && words.chunks_exact(QUARTERS).all(same)
        {
            let quarters = std::array::from_fn(|q| words[q * QUARTERS]);
            **self.quarters.get_or_insert_default() = quarters;
            self.grain = Grain::Quarter;
        }
    }

    /// Each history, once for words that are kept together. Never empty.
    fn cells(&self) -> &[Cell] {
        match (self.grain, &self.quarters, &self.words) {
            (Grain::Quarter, Some(quarters), _) => &quarters[..],
            (Grain::Word, _, Some(words)) => &words[..],
            _ => std::slice::from_ref(&self.all),
        }
    }
}

/// The shadow of global memory and of every live block's shared memory.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    pages: HashMap<u64, u32, BuildHasherDefault<Mix>>,
    slab: Vec<Box<[Line]>>,
    free: Vec<u32>,
    last_page: Option<(u64, u32)>,
    blocks: HashMap<u32, u32, BuildHasherDefault<Mix>>,
    shared: Vec<Box<[Line]>>,
    free_shared: Vec<u32>,
    last_block: Option<(u32, u32)>,
}

fn lines(count: u64) -> Box<[Line]> {
    vec![Line::default(); count as usize].into_boxed_slice()
}

impl Shadow {
    /// A block's shared memory of this many bytes comes to life.
    pub(super) fn add_block(&mut self, block: u32, bytes: u64) {
        let memory = lines(bytes.div_ceil(LINE));
        let slot = match self.free_shared.pop() {
            Some(s) => {
                self.shared[s as usize] = memory;
                s
            }
            None => {
                self.shared.push(memory);
                self.shared.len() as u32 - 1
            }
        };
        self.blocks.insert(block, slot);
    }

    /// A block's shared memory ends. Returns the crowds that are gone.
    pub(super) fn drop_block(&mut self, block: u32) -> Vec<u32> {
        self.last_block = None;
        let Some(slot) = self.blocks.remove(&block) else {
            return Vec::new();
        };
        let memory = std::mem::take(&mut self.shared[slot as usize]);
        self.free_shared.push(slot);
        memory.iter().flat_map(crowds).collect()
    }

    /// The line with this number (address / 64). `None` beyond a block's shared memory, or in a
    /// block that was never announced: such accesses are out of bounds, and not remembered.
    pub(super) fn line(&mut self, space: Space, number: u64) -> Option<&mut Line> {
        match space {
            Space::Global => {
                let page = number / PAGE;
                let slot = match self.last_page {
                    Some((p, slot)) if p == page => slot,
                    _ => {
                        let slot = *self.pages.entry(page).or_insert_with(|| {
                            self.free.pop().unwrap_or_else(|| {
                                self.slab.push(lines(PAGE));
                                self.slab.len() as u32 - 1
                            })
                        });
                        self.last_page = Some((page, slot));
                        slot
                    }
                };
                Some(&mut self.slab[slot as usize][(number % PAGE) as usize])
            }
            Space::Shared(block) => {
                let slot = match self.last_block {
                    Some((b, slot)) if b == block => slot,
                    _ => {
                        let slot = *self.blocks.get(&block)?;
                        self.last_block = Some((block, slot));
                        slot
                    }
                };
                self.shared[slot as usize].get_mut(number as usize)
            }
        }
    }

    /// Forgets what happened in `from..to`. Returns the crowds that are gone.
    pub(super) fn forget(&mut self, space: Space, from: u64, to: u64) -> Vec<u32> {
        let mut gone = Vec::new();
        if from >= to {
            return gone;
        }
        let clear = |first: u64, lines: &mut [Line], gone: &mut Vec<u32>| {
            for (i, line) in lines.iter_mut().enumerate() {
                let at = first + i as u64 * LINE;
                let end = at.saturating_add(LINE);
                if at >= to || end <= from {
                    continue;
                }
                if from <= at && end <= to {
                    gone.extend(crowds(line));
                    *line = Line::default();
                    continue;
                }
                for (w, cell) in line.words().iter_mut().enumerate() {
                    let word = at + 4 * w as u64;
                    if word < to && word | 3 >= from {
                        gone.extend(cell.write.crowd_id());
                        *cell = Cell::default();
                    }
                }
                line.fold();
            }
        };
        match space {
            Space::Global => {
                let bytes = PAGE * LINE;
                let (first, last) = (from / bytes, (to - 1) / bytes);
                let touched: Vec<u64> = if last - first < self.pages.len() as u64 {
                    (first..=last)
                        .filter(|p| self.pages.contains_key(p))
                        .collect()
                } else {
                    self.pages
                        .keys()
                        .copied()
                        .filter(|p| (first..=last).contains(p))
                        .collect()
                };
                for page in touched {
                    let slot = self.pages[&page];
                    clear(page * bytes, &mut self.slab[slot as usize], &mut gone);
                    if from <= page * bytes && to - page * bytes >= bytes {
                        self.pages.remove(&page);
                        self.free.push(slot);
                        self.last_page = None;
                    }
                }
            }
            Space::Shared(block) => {
                if let Some(slot) = self.blocks.get(&block) {
                    clear(0, &mut self.shared[*slot as usize], &mut gone);
                }
            }
        }
        gone
    }

    /// Calls `seen` with every cell (a line of equal words once).
    pub(super) fn visit(&self, mut seen: impl FnMut(&Cell)) {
        for line in self.slab.iter().chain(&self.shared).flat_map(|l| l.iter()) {
            line.cells().iter().for_each(&mut seen);
        }
    }
}

fn crowds(line: &Line) -> impl Iterator<Item = u32> + '_ {
    line.cells().iter().filter_map(|c| c.write.crowd_id())
}
