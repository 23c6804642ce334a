//! A cluster: blocks that run together and see each other's shared memory. A block without a cluster
//! is a cluster of one.

use super::block::Block;
use super::rng::Rng;
use crate::exec::{Env, Fault};
use crate::race::Clock;

/// Work that finishes later than the instruction that started it.
pub type Delivery = Box<dyn FnOnce(&mut Env<'_>) -> Result<(), Box<Fault>> + Send>;

/// An asynchronous operation under way.
pub struct Pending {
    /// Its name: see [`Cluster::is_pending`].
    pub ticket: u64,
    /// Turn of the cluster from which on it may be delivered.
    due: u64,
    run: Delivery,
}

/// Barrier of a cluster.
#[derive(Default)]
pub struct ClusterBarrier {
    /// How often it completed.
    pub generation: u64,
    /// Threads that have arrived.
    pub arrived: u32,
    /// What the arrivals publish.
    pub clock: Clock,
    /// What the last completed generation published.
    pub completed_clock: Clock,
}

/// A cluster.
pub struct Cluster {
    /// Number in the grid.
    pub id: u64,
    /// Its blocks by rank.
    pub blocks: Vec<Block>,
    /// Its barrier.
    pub barrier: ClusterBarrier,
    /// Asynchronous operations under way, in the order they were started.
    pending: Vec<Pending>,
    next_ticket: u64,
    /// Turns it had.
    pub turn: u64,
    /// Its part of the schedule's randomness.
    pub rng: Rng,
    /// How far ahead of its time an operation may be delivered: varies from cluster to cluster.
    pub(super) latency: u64,
    /// Instructions of a turn at most.
    pub(super) quantum: u64,
    /// Virtual cycles it ran.
    pub(super) cycles: u64,
    /// Virtual cycles its threads slept.
    pub slept: u64,
    /// Turns since anything but a poll happened, for the budget.
    pub(super) idle_rounds: u64,
}

impl Cluster {
    pub(super) fn new(id: u64, blocks: Vec<Block>, seed: u64) -> Self {
        let mut rng = Rng::new(seed, id);
        // Schedules differ in kind, not only in order: short and long turns, quick and slow copies.
        let quantum = 1 << (3 + 2 * rng.below(4));
        let latency = 1 << rng.below(7);
        Self {
            id,
            blocks,
            barrier: ClusterBarrier::default(),
            pending: Vec::new(),
            next_ticket: 0,
            turn: 0,
            rng,
            latency,
            quantum,
            cycles: 0,
            slept: 0,
            idle_rounds: 0,
        }
    }

    /// Starts an operation that is delivered at a later turn, chosen by the seed; returns its ticket.
    pub fn defer(&mut self, run: Delivery) -> u64 {
        let due = self.turn + 1 + self.rng.below(self.latency);
        self.next_ticket += 1;
        self.pending.push(Pending {
            ticket: self.next_ticket,
            due,
            run,
        });
        self.next_ticket
    }

    /// Whether an operation was not delivered yet.
    pub fn is_pending(&self, ticket: u64) -> bool {
        self.pending.iter().any(|pending| pending.ticket == ticket)
    }

    /// Whether any operation is under way.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes an operation that is due; with `hurry` the one that is due next.
    pub(super) fn take_due(&mut self, hurry: bool) -> Option<Delivery> {
        let (index, first) = self
            .pending
            .iter()
            .enumerate()
            .min_by_key(|(_, pending)| pending.due)?;
        (hurry || first.due <= self.turn).then(|| self.pending.remove(index).run)
    }
}
