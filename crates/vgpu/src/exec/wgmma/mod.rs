//! `wgmma`: four warps multiply matrices of shared memory, asynchronously.
//!
//! A product is an operation of the warpgroup: it exists once all four warps have issued it, and it is
//! done for all four at once. Its operands in shared memory are read as late as the program permits,
//! when the first warp waits for it, so that a stage which is overwritten too early shows in the
//! values, not only in the race check.
//!
//! For the race check each warp reads all of B and its own rows of A, knowing what that warp knew when
//! it issued; a wait learns that the parts of all four warps are done. One thread that arrives on a
//! barrier after its wait therefore speaks for the warpgroup's reads, as kernels in use rely on.

mod finish;
mod issue;
mod operands;

use std::collections::VecDeque;
use std::sync::Arc;

use super::matrix::{element, parse_shape, whole_warp};
use super::{Core, Flow, Handler};
use crate::layout::descriptor::Major;
use crate::layout::elements::Element;
use crate::layout::legality::WgmmaForm;
use crate::layout::wgmma::{fragment_a, fragment_d};
use crate::program::{Builder, Class, Definedness, Dst, Inst, LoadError, Pred, Src};
use crate::ptx::ast::{Operand, Type};
use crate::race::{AgentId, Clock};
use crate::report::Kind;

use self::operands::Dense;

/// Warps of a warpgroup.
const WARPS: usize = 4;
/// A bit a warp.
const ALL_WARPS: u8 = 0b1111;
/// Rows of A and D that a warp holds.
const ROWS: usize = 16;

/// What a warpgroup has under way.
#[derive(Default)]
pub struct Warpgroup {
    /// Number of the first operation in `queue`.
    first: u64,
    queue: VecDeque<Operation>,
    /// Accumulators in motion, by warp: 16 × N values, and the form that names their registers.
    tiles: [Vec<(Arc<Form>, Dense)>; WARPS],
}

impl Warpgroup {
    /// The operations before number `until`.
    fn before(&mut self, until: u64) -> impl Iterator<Item = &mut Operation> {
        let count = until.saturating_sub(self.first) as usize;
        self.queue.iter_mut().take(count)
    }
}

/// What a warp has under way.
#[derive(Default)]
pub struct WgmmaState {
    /// Operations it issued.
    issued: u64,
    /// Operations issued when each group was committed.
    groups: VecDeque<u64>,
    /// Whether it executed a `wgmma.fence`.
    fenced: bool,
    /// Registers that an operation under way reads or writes, by slot.
    pub(crate) in_flight: Vec<bool>,
    /// Whether any is set.
    pub(crate) any_in_flight: bool,
    /// Registers written by other instructions since the last `wgmma.fence`, by slot.
    pub(crate) unfenced: Vec<bool>,
}

/// One `wgmma.mma_async` of a warpgroup.
struct Operation {
    pc: u32,
    what: Arc<Form>,
    /// The warps that have issued it, a bit each, and those whose wait has seen it.
    issued: u8,
    passed: u8,
    operands: Operands,
    /// Where the 16-byte chunks of A and B lie in shared memory.
    chunks: [Vec<u32>; 2],
    /// Where B lies, in runs `(first byte, bytes)`, for the race detector.
    right_runs: Vec<(u64, u64)>,
    /// A from registers, by warp: 16 × K.
    left: [Option<Dense>; WARPS],
    /// Each warp's part of it, in the race detector.
    agents: [Option<AgentId>; WARPS],
    /// What its completion publishes: that its operands are free.
    clock: Clock,
    executed: bool,
}

/// Descriptors and switches, in which the warps must agree.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Operands {
    left: Option<u64>,
    right: u64,
    accumulate: bool,
}

/// What an instruction says.
struct Form {
    form: WgmmaForm,
    dst: Vec<Dst>,
    left: Left,
    right: Src,
    accumulate: Pred,
    negate: [bool; 2],
    major: [Major; 2],
    satfinite: bool,
}

enum Left {
    Descriptor(Src),
    Registers(Vec<Src>),
}

impl Form {
    /// Whether two instructions mean the same accumulator, so that one can go on from the other.
    fn same_accumulator(&self, other: &Self) -> bool {
        self.dst == other.dst
            && self.form.d() == other.form.d()
            && self.form.shape().1 == other.form.shape().1
    }

    /// Registers that rest while the operation is under way.
    fn slots(&self) -> impl Iterator<Item = u32> {
        let left = match &self.left {
            Left::Registers(registers) => &registers[..],
            Left::Descriptor(_) => &[],
        };
        let read = left.iter().filter(|src| !src.is_constant());
        let written = self.dst.iter().filter_map(|dst| dst.slot);
        written.chain(read.map(|src| src.slot))
    }
}

/// Before an instruction that is no `wgmma`: registers of one under way must rest until its wait, and
/// those that others write need a fence before the next one.
pub(crate) fn watch_registers(core: &mut Core<'_>, inst: &Inst) {
    let rows = core.env.program.rows as usize;
    let state = &mut core.warp.asynchronous.wgmma;
    state.unfenced.resize(rows, false);
    let written = || inst.writes.iter().filter_map(|dst| dst.slot);
    for slot in written() {
        state.unfenced[slot as usize] = true;
    }
    if !state.any_in_flight {
        return;
    }
    let read = inst.reads.iter().chain(&inst.strict).map(|src| src.slot);
    let flies = |slot: u32| state.in_flight.get(slot as usize) == Some(&true);
    if read.chain(written()).any(flies) {
        let message = "a register of a wgmma that is not awaited yet";
        let report = core.report(Kind::AsyncHazard, 0, message);
        core.note(report);
    }
}

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Matrix;
    b.habits().uses_wgmma = true;
    let which = b.accept_any(&["fence", "commit_group", "wait_group", "mma_async"]);
    if which == Some(3) && b.accept("sp") {
        return Err(b.error("wgmma with a sparse operand is not supported"));
    }
    b.expect("sync")?;
    b.expect("aligned")?;
    match which {
        Some(0) => Ok(Box::new(|core, mask| {
            if let Some(wait) = whole_warp(core, mask)? {
                return Ok(wait);
            }
            let state = &mut core.warp.asynchronous.wgmma;
            state.unfenced.fill(false);
            state.fenced = true;
            Ok(Flow::Next)
        })),
        Some(1) => Ok(Box::new(|core, mask| {
            if let Some(wait) = whole_warp(core, mask)? {
                return Ok(wait);
            }
            let state = &mut core.warp.asynchronous.wgmma;
            state.groups.push_back(state.issued);
            Ok(Flow::Next)
        })),
        Some(2) => {
            let leave = b.immediate()?;
            let leave = usize::try_from(leave)
                .map_err(|_| b.error(format!("{leave} groups to leave; 0 at least")))?;
            Ok(Box::new(move |core, mask| {
                finish::wait_group(core, mask, leave)
            }))
        }
        Some(_) => multiply(b),
        None => Err(b.unknown_word()),
    }
}

fn multiply(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let shape = b.take().unwrap_or("");
    let Some(shape) = parse_shape(shape) else {
        return Err(b.error(format!("a shape like .m64n128k16 expected, .{shape} found")));
    };
    let [d, a, second] = [element(b)?, element(b)?, element(b)?];
    let satfinite = b.accept("satfinite");
    let form = WgmmaForm::new(shape, d, a, second, b.target_sm(), b.target_is_specific())
        .map_err(|illegal| b.error(illegal.to_string()))?;
    if satfinite && d != Element::S32 {
        return Err(b.error(".satfinite is for integer accumulators"));
    }
    let register = if d == Element::F32 {
        Type::F32
    } else {
        Type::B32
    };
    let dst = b.vector_dst(register, false)?;
    count(b, "D", dst.len(), fragment_d(form).registers())?;
    if dst.iter().any(|dst| dst.slot.is_none()) {
        return Err(b.error("an accumulator register cannot be `_`: it is read, too"));
    }
    let left = if matches!(b.peek_operand(), Some(Operand::Vector(_))) {
        let registers = b.vector_src(Type::B32, false)?;
        count(b, "A", registers.len(), fragment_a(form).registers())?;
        registers.iter().for_each(|src| b.must_be_defined(*src));
        Left::Registers(registers)
    } else {
        let descriptor = b.src(Type::B64)?;
        b.must_be_defined(descriptor);
        Left::Descriptor(descriptor)
    };
    let right = b.src(Type::B64)?;
    b.must_be_defined(right);
    let accumulate = b.pred()?;
    let mut negate = [false; 2];
    let mut major = [Major::K; 2];
    if d != Element::S32 {
        for negate in &mut negate {
            *negate = match b.immediate()? {
                1 => false,
                -1 => true,
                other => return Err(b.error(format!("imm-scale is {other}, must be 1 or -1"))),
            };
        }
        if matches!(a, Element::F16 | Element::Bf16) {
            let first = usize::from(matches!(left, Left::Registers(_)));
            for major in &mut major[first..] {
                *major = match b.immediate()? {
                    0 => Major::K,
                    1 => Major::Mn,
                    other => return Err(b.error(format!("imm-trans is {other}, must be 0 or 1"))),
                };
            }
        }
    }
    // The accumulators become defined at the wait; what was in them counts as read only with
    // scale-d, which is a run-time value.
    b.definedness = Definedness::Own;
    let what = Arc::new(Form {
        form,
        dst,
        left,
        right,
        accumulate,
        negate,
        major,
        satfinite,
    });
    Ok(Box::new(move |core, mask| issue::issue(core, mask, &what)))
}

fn count(b: &Builder<'_, '_>, name: &str, have: usize, need: u32) -> Result<(), LoadError> {
    if have == need as usize {
        return Ok(());
    }
    Err(b.error(format!(
        "{have} registers of {name} where the form has {need}"
    )))
}

#[cfg(test)]
mod tests;
