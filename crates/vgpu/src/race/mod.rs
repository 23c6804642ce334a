//! Which accesses to memory does the program order, and which only the luck of the schedule?
//!
//! The executor runs warps one instruction at a time, so every run looks sequentially consistent.
//! This module is told of each access and of everything that synchronises, and decides by the PTX
//! memory consistency model whether two accesses that touch the same bytes, one of them writing,
//! are ordered by *causality*. If not, they are reported, whatever values this run happened to see.
//! It knows nothing of PTX as a language, nor of the executor: [`Detector`] is the whole interface.
//!
//! # The model
//!
//! **Threads.** A thread is a lane. What it did before is ordered before what it does next. Lanes
//! of a warp are ordered with each other only by [`warp_sync`](Detector::warp_sync)
//! (`bar.warp.sync`) or something stronger; shuffles, votes and matrix loads order nothing, even
//! though they wait.
//!
//! **Objects.** Whatever makes threads wait for each other holds a [`Clock`]: arriving
//! [releases](Detector::release) into it, leaving [acquires](Detector::acquire) from it. A thread
//! releases what it did and what it knows, no other lane's part. Where both sides name a scope (an
//! mbarrier) the object holds a [`ScopedClock`], in which a release meets an acquire only if the
//! scope of each takes in the other thread.
//!
//! **Memory.** A strong write that releases leaves a scoped clock at its address; strong reads that
//! acquire take it. Fences make releases of the strong writes that follow them and acquires of the
//! strong reads that precede them, at the narrower of the two scopes. A read-modify-write carries
//! on what it read; another strong write replaces it, unless it is the releasing thread's own; a
//! weak write clears it.
//!
//! **Conflicts.** Two accesses that are not ordered conflict unless both read, or both are strong,
//! on the same scalar, with scopes that take in each other's thread.
//!
//! **Asynchronous operations.** An operation is an actor of its own ([`spawn`](Detector::spawn)):
//! it begins with what the issuing lanes know, and is ordered with nothing that happens later until
//! somebody acquires the clock that its completion went into. Operations complete in any order.
//! `cp.async` is different: each lane's copies complete in order and are waited for by that lane
//! ([`copy`](Detector::copy), [`copy_wait`](Detector::copy_wait)).
//!
//! **Proxies.** All knowledge has a second component: the part that is behind a proxy fence. An
//! access by an asynchronous proxy that follows a generic *write* in causality, but does not have
//! it in that part, is reported as a missing proxy fence. Releases and acquires carry both parts;
//! [`proxy_fence`](Detector::proxy_fence) promotes everything that its lanes know. Completed
//! asynchronous writes are visible to all proxies, and generic reads may be overwritten without a
//! fence.
//!
//! # How it is kept
//!
//! | file | idea |
//! |---|---|
//! | `types` | what the executor says, what is reported |
//! | `clock` | vector clocks: what is known of whom |
//! | `actors` | numbers for all that acts, never used twice |
//! | `warp` | lanes that know the same form groups |
//! | `location` | scoped clocks, synchronisation through memory |
//! | `agent` | operations that finish in any order |
//! | `shadow` | records, cells, lines |
//! | `history` | how a word's history takes in an access |
//! | `observer` | the verdict about an earlier access |
//! | `memory` | from lanes to words |
//! | `detector` | the interface |
//!
//! A record packs actor, time, lane map and attributes in 16 bytes. The *lane map* says how the
//! lane follows from the address, so that all words of a coalesced access have equal records, 64
//! bytes (or 16, the row of a matrix load) with one history are stored once, and a full warp's
//! access is one or two comparisons. Reads of a word by several warps are a set, which is shared by
//! all words that the same instructions read, whichever lanes of theirs.
//!
//! A record is dropped only when a later one *stands for* it: whatever is still to come and would
//! conflict with the old one conflicts with the new one. The latest write and the latest read
//! mostly do; where they do not (several readers, atomics of several warps, a weak write behind a
//! strong one) everything needed is kept. So, up to the first conflict, what is reported does not
//! depend on what was forgotten; `tests/random` holds the detector to that, against a model that
//! forgets nothing.
//!
//! # What is approximated
//!
//! Reported although the ISA allows it:
//! - Order by `fence.sc` alone (two of them synchronise in the order in which they happen to run).
//!   To take that order from the schedule would hide most missing flags, since `__threadfence()` is
//!   such a fence. Programs that need it (Dekker) do their data accesses under it at their own risk
//!   of a report.
//! - A thread's relaxed store to an address to which it released earlier, with others' strong
//!   stores in between, does not renew that release; nor does a strong read with a later acquire of
//!   the same address acquire what the first read saw.
//! - Several lanes of one instruction that weakly write the same bytes, even the same value.
//!
//! Not reported although the ISA does not promise order:
//! - Whether a read saw the releasing write is decided by this schedule: another may read an older
//!   value, and race. Other seeds find those.
//! - A program whose strong accesses alone make it wrong has no race, and gets no report.
//! - One proxy part serves all asynchronous proxies, both directions of a proxy fence, and all
//!   state spaces; the tensor map proxy is not told apart from the copies that use it.
//! - A `cp.async.mbarrier.arrive` publishes what its lanes know when it executes, which may be more
//!   than they knew when they copied.
//! - An operation whose part on one proxy conflicts hides nothing of its own, but its own earlier
//!   accesses stand for those before them: operations use one proxy for the bytes they share.
//! - After a conflict the older access is dropped, so that one mistake is not reported many times;
//!   of several conflicts of one access the first is returned.
//! - The second word of an 8-byte flag does not by itself clear what was released through the flag.
//!
//! A warp's end and a launch's end order everything for every proxy. The executor reports accesses
//! that are within an allocation; it checks bounds first.

#![deny(unsafe_code)]

mod actors;
mod agent;
mod clock;
mod detector;
mod history;
mod location;
mod memory;
mod observer;
mod shadow;
mod types;
mod warp;

pub use agent::AgentId;
pub use clock::Clock;
pub use detector::{CopyTicket, Detector, WarpId};
pub use location::ScopedClock;
pub use types::{
    Access, Config, Conflict, ConflictKind, FenceKind, Kind, Order, Party, Proxy, RangeAccess,
    Scope, Space, WarpInfo, Who,
};

#[cfg(test)]
mod tests;
