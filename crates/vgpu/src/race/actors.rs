//! The numbers of actors, and who they are.
//!
//! Numbers are handed out in chunks that belong to one launch, so that "this launch has finished"
//! is a few runs in a clock, however many warps it had. They are never used twice: an access of a
//! warp that is gone still races with whatever is not ordered after it.

use std::collections::HashMap;

use super::types::WarpInfo;

/// Log2 of the actors in a chunk.
const CHUNK: u32 = 8;

/// The largest number that is handed out; above are marks of shadow cells.
const LAST: u32 = u32::MAX - 1024;

/// What an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The lanes of a warp.
    Warp,
    /// The `cp.async` of a warp's lanes: each lane's finish in order.
    Copies,
    /// Operations that finish in any order; time counts operations.
    Operations,
    /// A host stream; `WarpInfo::launch` holds its number.
    Host,
}

/// Who an actor is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Actor {
    pub(super) info: WarpInfo,
    pub(super) role: Role,
}

#[derive(Debug, Default)]
struct Launch {
    /// The chunk that still has numbers.
    open: Option<u32>,
    /// All of its chunks, as runs of actors.
    runs: Vec<(u32, u32)>,
}

/// All actors that a shadow cell may still name.
#[derive(Debug)]
pub(super) struct Actors {
    /// By number of chunk; chunk 0 is not used, so that actor 0 means nobody.
    chunks: Vec<Option<Vec<Actor>>>,
    launches: HashMap<u32, Launch>,
    held: usize,
}

/// The launch to which host streams are counted.
pub(super) const HOST: u32 = u32::MAX;

impl Actors {
    pub(super) fn new() -> Self {
        Actors {
            chunks: vec![None],
            launches: HashMap::new(),
            held: 0,
        }
    }

    /// A new actor of `launch`.
    pub(super) fn add(&mut self, launch: u32, actor: Actor) -> u32 {
        let book = self.launches.entry(launch).or_default();
        let chunk = match book.open {
            Some(c) => c,
            None => {
                // 16 million chunks; should they ever run out, the last is filled over and over,
                // which loses reports but nothing else.
                let c = (self.chunks.len() as u32).min(LAST >> CHUNK);
                if c as usize == self.chunks.len() {
                    self.chunks.push(None);
                }
                let run = (c << CHUNK, (c + 1) << CHUNK);
                match book.runs.last_mut() {
                    Some(last) if last.1 == run.0 => last.1 = run.1,
                    _ => book.runs.push(run),
                }
                self.chunks[c as usize] = Some(Vec::with_capacity(8));
                self.held += 1;
                book.open = Some(c);
                c
            }
        };
        let list = self.chunks[chunk as usize].get_or_insert_default();
        let uid = chunk << CHUNK | list.len() as u32;
        list.push(actor);
        if list.len() == 1 << CHUNK {
            book.open = None;
        }
        uid
    }

    /// Who `uid` is.
    pub(super) fn get(&self, uid: u32) -> Option<&Actor> {
        self.chunks
            .get((uid >> CHUNK) as usize)?
            .as_ref()?
            .get((uid & ((1 << CHUNK) - 1)) as usize)
    }

    /// The launch is over: the runs of all its actors.
    pub(super) fn end_launch(&mut self, launch: u32) -> Vec<(u32, u32)> {
        self.launches
            .remove(&launch)
            .map(|b| b.runs)
            .unwrap_or_default()
    }

    /// How many chunks are held in memory.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Forgets the actors of finished launches whose chunk is not `used`.
    pub(super) fn collect(&mut self, used: &[bool]) {
        let mut running = vec![false; self.chunks.len()];
        for run in self.launches.values().flat_map(|b| &b.runs) {
            running[(run.0 >> CHUNK) as usize..(run.1 >> CHUNK) as usize].fill(true);
        }
        for (c, chunk) in self.chunks.iter_mut().enumerate() {
            if chunk.is_some() && !running[c] && !used.get(c).is_some_and(|u| *u) {
                *chunk = None;
                self.held -= 1;
            }
        }
    }

    /// A map for [`collect`](Self::collect) in which no chunk is used, and how to find a chunk.
    pub(super) fn unused(&self) -> Vec<bool> {
        vec![false; self.chunks.len()]
    }

    /// The chunk of an actor.
    pub(super) fn chunk_of(uid: u32) -> usize {
        (uid >> CHUNK) as usize
    }
}
