//! A kernel ready to run: its text resolved into instructions that know their registers.
//!
//! Decoding happens once a module is loaded on a device. Each PTX instruction becomes one [`Inst`]:
//! a closure over register slots, with what the runner needs to know about it beside it. Device
//! functions are inlined, so a kernel is one flat list.

mod assemble;
mod builder;
mod pressure;
mod scope;
mod special;
pub mod survey;

use std::fmt;
use std::sync::Arc;

use crate::exec::Handler;
use crate::lane::Row;
use crate::ptx::ast::Directives;
use crate::report::SourceLine;

pub use assemble::assemble;
pub use builder::{Address, Builder, Home};
pub use scope::{Globals, Symbol};
pub use special::Special;

/// A register or constant that is read: first row, and rows that a value of it takes.
///
/// The top bit of `slot` chooses the constants of the program instead of the warp's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Src {
    pub(crate) slot: u32,
    pub(crate) rows: u8,
}

impl Src {
    pub(crate) const CONSTANT: u32 = 1 << 31;

    /// Whether it is an immediate.
    pub fn is_constant(self) -> bool {
        self.slot & Self::CONSTANT != 0
    }
}

/// A register that is written, or `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dst {
    /// `None` for the sink `_`.
    pub(crate) slot: Option<u32>,
    pub(crate) rows: u8,
}

impl Dst {
    /// The same register, to be read: what it holds before it is written.
    pub(crate) fn as_src(self) -> Option<Src> {
        let rows = self.rows;
        self.slot.map(|slot| Src { slot, rows })
    }
}

/// A predicate that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pred {
    /// A predicate register, possibly negated.
    Register {
        /// Index.
        index: u32,
        /// `!p`
        negated: bool,
    },
    /// A constant.
    Constant(bool),
}

/// A predicate that is written, or `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredDst(pub(crate) Option<u32>);

/// Instruction classes of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Integer, logic, moves, conversions between integers.
    Integer,
    /// f32, f16 and bf16 arithmetic.
    Float,
    /// f64 arithmetic.
    Double,
    /// Conversions with a floating-point side.
    Convert,
    /// Approximate functions.
    Special,
    /// Comparisons and selections.
    Compare,
    /// Branches, calls, exits.
    Control,
    /// Loads.
    Load,
    /// Stores.
    Store,
    /// Atomics and reductions.
    Atomic,
    /// Shuffles, votes, match, redux.
    Warp,
    /// Barriers, fences, waits.
    Barrier,
    /// Asynchronous copies.
    Async,
    /// mma, wgmma, ldmatrix, stmatrix.
    Matrix,
}

impl Class {
    /// All classes, in the order of tables.
    pub const ALL: [Self; 14] = [
        Self::Integer,
        Self::Float,
        Self::Double,
        Self::Convert,
        Self::Special,
        Self::Compare,
        Self::Control,
        Self::Load,
        Self::Store,
        Self::Atomic,
        Self::Warp,
        Self::Barrier,
        Self::Async,
        Self::Matrix,
    ];
}

/// How definedness goes through an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definedness {
    /// A result is defined where every operand is.
    Propagate,
    /// The handler sets it itself (loads, selections).
    Own,
}

/// One decoded instruction.
pub struct Inst {
    /// Executes it for the lanes of a mask.
    pub run: Handler,
    /// `@p` / `@!p`.
    pub guard: Option<(u32, bool)>,
    /// Class of the counters.
    pub class: Class,
    /// Label id of a direct branch.
    pub target: Option<u32>,
    /// Whether it is a `wgmma` instruction, which may name registers that are in flight.
    pub is_wgmma: bool,
    /// Registers whose definedness goes into the results.
    pub reads: Box<[Src]>,
    /// Predicates likewise.
    pub pred_reads: Box<[u32]>,
    /// Registers that must be defined (addresses, stored values, masks).
    pub strict: Box<[Src]>,
    /// Registers written.
    pub writes: Box<[Dst]>,
    /// Predicates written.
    pub pred_writes: Box<[u32]>,
    /// See [`Definedness`].
    pub definedness: Definedness,
    /// Line of the PTX text.
    pub line: u32,
    /// The instruction as text.
    pub text: Box<str>,
    /// Source line from `.loc`.
    pub source: Option<SourceLine>,
}

impl fmt::Debug for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

/// A parameter of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryParam {
    /// Name in the PTX text.
    pub name: String,
    /// Byte offset in the parameter block.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
    /// Its type as text (`u64`, `f32`, `b8[16]`), for command lines and messages.
    pub ty: String,
}

/// What a kernel does across blocks, found in its text: decides how the blocks may be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Uses atomics or strong accesses on memory that other blocks see: blocks must be interleaved.
    /// Reductions of integers whose result does not depend on their order are no such talk.
    pub talks_across_blocks: bool,
    /// Uses `griddepcontrol`.
    pub depends_on_grids: bool,
    /// Uses warpgroup instructions.
    pub uses_wgmma: bool,
}

/// An entry, decoded for one device.
pub struct Program {
    /// Name of the entry.
    pub name: Arc<str>,
    /// Instructions; the last one is an `exit`.
    pub insts: Vec<Inst>,
    /// Instruction index of each label id.
    pub labels: Vec<u32>,
    /// Immediates, one lane value broadcast per slot.
    pub constants: Vec<Row>,
    /// Rows of registers of a warp.
    pub rows: u32,
    /// Predicates of a warp.
    pub preds: u32,
    /// Special registers to fill when a warp starts: which, and its first row.
    pub specials: Vec<(Special, u32)>,
    /// Bytes of static shared memory (from [`crate::machine::SHARED_BASE`] on).
    pub static_shared: u32,
    /// Alignment the dynamic shared memory wants; it starts at the aligned end of the static one.
    pub dynamic_align: u32,
    /// Bytes of local memory a thread.
    pub local_bytes: u32,
    /// Parameters.
    pub params: Vec<EntryParam>,
    /// Bytes of the parameter block.
    pub param_bytes: u32,
    /// `.maxntid` and the like.
    pub directives: Directives,
    /// 32-bit registers a thread, declared and live at once at most: an estimate for the occupancy.
    pub registers_per_thread: u32,
    /// See [`Habits`].
    pub habits: Habits,
}

/// Why a module cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}\n  {text}")]
pub struct LoadError {
    /// Line of the PTX text, from 1; 0 when the module as a whole is meant.
    pub line: u32,
    /// The line's text.
    pub text: String,
    /// What is wrong, and what would be right.
    pub message: String,
}
