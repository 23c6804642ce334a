//! The words in which the executor describes accesses, and in which conflicts are reported.

/// A state space with its own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Global memory: unified addresses, over all devices and the host.
    Global,
    /// The shared memory of the block with this uid; addresses count from 0 in that block.
    Shared(u32),
}

/// What an access does to its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Reads and writes in one atomic step (`atom`, `red`).
    Rmw,
}

/// The `.sem` qualifier. Everything but `Weak` is a *strong* operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// No qualifier, or `.weak`.
    Weak,
    /// `.relaxed`; `.volatile` is `Relaxed` at [`Scope::Sys`].
    Relaxed,
    /// `.acquire`.
    Acquire,
    /// `.release`.
    Release,
    /// `.acq_rel`.
    AcqRel,
}

impl Order {
    /// Whether the operation acquires.
    pub fn acquires(self) -> bool {
        matches!(self, Order::Acquire | Order::AcqRel)
    }

    /// Whether the operation releases.
    pub fn releases(self) -> bool {
        matches!(self, Order::Release | Order::AcqRel)
    }
}

/// The `.scope` qualifier of a strong operation, from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The threads of one block.
    Cta,
    /// The threads of one cluster.
    Cluster,
    /// The threads of one device.
    Gpu,
    /// All threads, on every device and the host.
    Sys,
}

/// The proxy, that is the path to memory, by which an access is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// Ordinary loads, stores, atomics, and `cp.async` that is not bulk.
    Generic,
    /// Bulk and tensor copies, and the shared memory operands of `wgmma`.
    Async,
    /// Reads of a tensor map by a tensor copy.
    Tensormap,
}

/// `.sem` of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FenceKind {
    /// `fence.acq_rel`.
    AcqRel,
    /// `fence.sc`, `membar`. See "What is approximated" in the module's documentation.
    Sc,
}

/// Who a warp is. The uids are dense numbers that the executor never gives twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WarpInfo {
    /// The launch.
    pub launch: u32,
    /// The device it runs on.
    pub device: u32,
    /// The cluster, unique over all launches. A block without a cluster is a cluster of its own.
    pub cluster: u32,
    /// The block, unique over all launches.
    pub block: u32,
    /// Index of the warp in its block.
    pub warp: u32,
    /// The lanes that exist, one bit each.
    pub lanes: u32,
}

/// Whether `scope`, named by a thread of `a`, takes in the threads of `b`.
pub(super) fn includes(scope: Scope, a: &WarpInfo, b: &WarpInfo) -> bool {
    match scope {
        Scope::Cta => a.block == b.block,
        Scope::Cluster => a.cluster == b.cluster,
        Scope::Gpu => a.device == b.device,
        Scope::Sys => true,
    }
}

/// One instruction of one warp that touches memory: up to 32 lanes, the same number of bytes each.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Where.
    pub space: Space,
    /// What.
    pub kind: Kind,
    /// `.sem`.
    pub order: Order,
    /// `.scope`; of no meaning for weak accesses.
    pub scope: Scope,
    /// The proxy. Lanes access by the generic one; the others are for asynchronous operations.
    pub proxy: Proxy,
    /// The lanes that take part, one bit each.
    pub lanes: u32,
    /// The first byte of each lane; lanes that do not take part are ignored.
    pub addresses: &'a [u64; 32],
    /// Bytes a lane, from 1 to 32 (over a vector: the whole of it).
    pub bytes: u32,
    /// Bytes of one scalar of the vector, a power of two that divides `bytes`. Two strong accesses
    /// only go together when they cover the same scalar.
    pub unit: u32,
    /// The instruction, opaque to the detector.
    pub inst: u32,
}

/// A run of bytes touched by one lane, by an asynchronous operation or by the host.
#[derive(Clone, Copy, Debug)]
pub struct RangeAccess {
    /// Where.
    pub space: Space,
    /// What.
    pub kind: Kind,
    /// The proxy.
    pub proxy: Proxy,
    /// The first byte.
    pub address: u64,
    /// How many bytes; 0 touches nothing.
    pub bytes: u64,
    /// The instruction, opaque to the detector.
    pub inst: u32,
}

/// What is wrong between two accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConflictKind {
    /// Two accesses to the same bytes, one of which writes, are not ordered, and are not both
    /// strong (or are strong on different scalars).
    Race,
    /// Both accesses are strong, but a scope does not take in the other thread.
    InsufficientScope,
    /// Ordered, but a write by the generic proxy may not be visible to the asynchronous access that
    /// follows, for want of a proxy fence.
    MissingProxyFence,
    /// A race between lanes of one warp: a `bar.warp.sync` is missing between the accesses.
    IntraWarp,
}

/// Who made an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A thread: this lane of this warp.
    Thread {
        /// The warp.
        warp: WarpInfo,
        /// The lane.
        lane: u32,
    },
    /// An asynchronous operation of this warp.
    Async {
        /// The warp that issued it.
        warp: WarpInfo,
        /// The lane that issued it, where each lane's part is told apart (`cp.async`).
        lane: Option<u32>,
    },
    /// The host: a copy or memset in this stream.
    Host {
        /// The stream, as given to `begin_host`.
        stream: u32,
    },
}

/// One side of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// Who.
    pub who: Who,
    /// The instruction, as given with the access.
    pub inst: u32,
    /// What it did.
    pub kind: Kind,
    /// `.scope` if the access was strong.
    pub strong: Option<Scope>,
    /// By which proxy.
    pub proxy: Proxy,
}

/// Two accesses that the program does not order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What is wrong.
    pub kind: ConflictKind,
    /// The state space.
    pub space: Space,
    /// The first byte that both touch, within one word of four bytes.
    pub address: u64,
    /// How many bytes of that word, from `address` on, the two have in common (first to last).
    pub bytes: u32,
    /// The access that came first in this schedule.
    pub first: Party,
    /// The access just made.
    pub second: Party,
}

/// Settings of a detector.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many conflicts to return; the rest are only counted. Conflicts of the same kind between
    /// the same two instructions are returned once.
    pub limit: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { limit: 100 }
    }
}
