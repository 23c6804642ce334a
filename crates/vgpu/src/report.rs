//! What a check has to say: one type for every kind, made to lead a reader to the line.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An address outside every allocation or past the end of one.
    OutOfBounds,
    /// An address that the width of the access does not divide.
    Misaligned,
    /// Memory that was freed.
    UseAfterFree,
    /// Memory that was never freed when its device went.
    Leak,
    /// Memory that nobody wrote.
    UninitialisedRead,
    /// A register that was never set decides an address, a branch, a mask or a stored value.
    UninitialisedRegister,
    /// Conflicting accesses that nothing orders.
    Race,
    /// Conflicting accesses of lanes of one warp without a warp synchronisation between them.
    WarpRace,
    /// Strong accesses whose scope does not include the other thread.
    Scope,
    /// A write by ordinary stores that an asynchronous copy or `wgmma` reads without a proxy fence.
    ProxyFence,
    /// Threads of a warp or block that part at an aligned barrier, or arrive with different counts.
    DivergentBarrier,
    /// A lane mask that names lanes which never come, or leaves out the one that runs.
    WrongMask,
    /// More arrivals than a barrier expects.
    OverArrival,
    /// Transaction bytes that do not match what the copies bring.
    TransactionCount,
    /// A barrier object used before its initialisation, or its memory used as data.
    BarrierObject,
    /// A matrix or tensor descriptor, or an operand of an asynchronous copy, that the hardware refuses.
    Descriptor,
    /// Registers or memory of an asynchronous operation touched before its wait.
    AsyncHazard,
    /// All threads wait for each other.
    Deadlock,
    /// The step budget ended: threads run but nothing ends.
    Livelock,
    /// A launch that the device cannot take.
    Launch,
    /// `trap`, or a failed `assert`.
    Trap,
    /// Something a kernel must not do and no other kind names.
    Undefined,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfBounds => "out of bounds",
            Self::Misaligned => "misaligned access",
            Self::UseAfterFree => "use after free",
            Self::Leak => "leak",
            Self::UninitialisedRead => "read of uninitialised memory",
            Self::UninitialisedRegister => "use of an uninitialised register",
            Self::Race => "data race",
            Self::WarpRace => "data race inside a warp",
            Self::Scope => "scope too narrow",
            Self::ProxyFence => "missing proxy fence",
            Self::DivergentBarrier => "divergent barrier",
            Self::WrongMask => "wrong lane mask",
            Self::OverArrival => "too many arrivals",
            Self::TransactionCount => "wrong transaction count",
            Self::BarrierObject => "misuse of a barrier object",
            Self::Descriptor => "invalid descriptor",
            Self::AsyncHazard => "asynchronous operation not awaited",
            Self::Deadlock => "deadlock",
            Self::Livelock => "livelock",
            Self::Launch => "illegal launch",
            Self::Trap => "trap",
            Self::Undefined => "undefined behaviour",
        })
    }
}

/// A line of source, from `.loc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLine {
    /// File, as `.file` names it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

/// One access or wait: who did what, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// What was done there: `write of 4 bytes`, `waits at barrier 1`.
    pub action: String,
    /// Block, if a thread of a kernel did it.
    pub block: Option<[u32; 3]>,
    /// Thread in the block.
    pub thread: Option<[u32; 3]>,
    /// Line of the PTX text, 0 if none.
    pub ptx_line: u32,
    /// The instruction.
    pub ptx: String,
    /// Line of the source.
    pub source: Option<SourceLine>,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What went wrong.
    pub kind: Kind,
    /// In words, with the values and the bounds.
    pub message: String,
    /// Kernel, empty if none.
    pub kernel: String,
    /// Device.
    pub device: u32,
    /// Where it was noticed.
    pub site: Site,
    /// The other access of a race, or another thread's place.
    pub other: Option<Site>,
    /// Seed of the schedule, to see it again.
    pub seed: u64,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action)?;
        let triple = |[x, y, z]: [u32; 3]| format!("({x},{y},{z})");
        if let Some(block) = self.block {
            write!(f, " by block {}", triple(block))?;
            if let Some(thread) = self.thread {
                write!(f, " thread {}", triple(thread))?;
            }
        }
        if let Some(source) = &self.source {
            write!(f, "\n      at {}:{}", source.file, source.line)?;
        }
        if self.ptx_line != 0 {
            write!(f, "\n      PTX line {}: {}", self.ptx_line, self.ptx)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)?;
        if !self.kernel.is_empty() {
            write!(
                f,
                "\n  kernel {} on device {}, seed {}",
                self.kernel, self.device, self.seed
            )?;
        }
        write!(f, "\n    {}", self.site)?;
        if let Some(other) = &self.other {
            write!(f, "\n    {other}")?;
        }
        Ok(())
    }
}
