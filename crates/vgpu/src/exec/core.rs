//! What a handler works on: a warp in a block in a cluster of a grid, and the memory around it.

use std::sync::Arc;

use crate::vector::Vector;

use crate::counters::Counters;
use crate::lane::{LANES, Value, each};
use crate::machine::{Block, Checks, Cluster, Grid, Launches, Trace, Wait, Warp};
use crate::memory::Table;
use crate::program::{Address, Dst, Inst, Pred, PredDst, Program, Special, Src};
use crate::race::Detector;
use crate::report::{Kind, Report, Site};

/// What becomes of the lanes that executed an instruction.
#[derive(Debug)]
pub enum Flow {
    /// They go on behind it.
    Next,
    /// They go on behind it, but other warps may run first: polls and sleeps say this.
    Yield,
    /// They go to a label (its id).
    Jump(u32),
    /// Each lane goes to its own label id, in [`Core::scatter`].
    Scatter,
    /// They are done.
    Exit,
    /// They wait until the lanes of this mask are at the same instruction, then execute it together.
    Converge(u32),
    /// They wait, then go on behind it.
    Block(Wait),
    /// They wait, then execute it again.
    Retry(Wait),
    /// What is said holds for these lanes; the others have not executed it yet.
    Only(u32, Box<Flow>),
}

/// An error that ends the launch: the report is its whole content.
#[derive(Clone, Debug)]
pub struct Fault(pub Report);

/// Everything around a warp. Deliveries of asynchronous operations see this much.
pub struct Env<'m> {
    /// The kernel.
    pub program: &'m Program,
    /// The launch.
    pub grid: &'m Grid,
    /// The blocks that run together.
    pub cluster: &'m mut Cluster,
    /// Device memory as it was allocated when this slice of the run began.
    pub memory: Arc<Table>,
    /// The vector extensions of this CPU.
    pub arch: Vector,
    /// Which checks are on.
    pub checks: Checks,
    /// The race detector, when that check is on.
    pub race: Option<&'m mut Detector>,
    /// What is counted.
    pub counters: &'m mut Counters,
    /// What checks found; the launch goes on.
    pub reports: &'m mut Vec<Report>,
    /// Virtual time in cycles: grows with the instructions of this device.
    pub now: u64,
    /// Where executed instructions are written down, if they are.
    pub trace: Option<&'m mut Trace>,
    /// Launches by number, to name the other side of a conflict.
    pub launches: &'m Launches,
}

/// A warp at work.
pub struct Core<'m> {
    /// Around it.
    pub env: Env<'m>,
    /// The warp.
    pub warp: &'m mut Warp,
    /// Its block's rank in the cluster.
    pub block: usize,
    /// Index of the instruction.
    pub pc: u32,
    /// All lanes that are at `pc`, also those whose guard is false.
    pub split: u32,
    /// Label ids of [`Flow::Scatter`].
    pub scatter: [u32; LANES],
    /// The same as `env.arch`, close at hand.
    pub arch: Vector,
}

impl Core<'_> {
    /// Reads a register or constant. A register of another size than the value is cut or
    /// zero-extended.
    #[inline(always)]
    pub fn get<T: Value>(&self, src: Src) -> [T; LANES] {
        let rows = if src.slot & Src::CONSTANT == 0 {
            &self.warp.regs[src.slot as usize..]
        } else {
            &self.env.program.constants[(src.slot & !Src::CONSTANT) as usize..]
        };
        if usize::from(src.rows) == T::ROWS {
            return T::load(rows);
        }
        convert(rows, src.rows)
    }

    /// Writes the lanes of `mask`. A value smaller than the register is zero-extended.
    #[inline(always)]
    pub fn set<T: Value>(&mut self, dst: Dst, values: &[T; LANES], mask: u32) {
        let Some(slot) = dst.slot else { return };
        let rows = &mut self.warp.regs[slot as usize..];
        if usize::from(dst.rows) == T::ROWS {
            T::store(rows, values, mask);
        } else {
            match dst.rows {
                1 => u32::store(rows, &each(values, |value| value.to_bits64() as u32), mask),
                2 => u64::store(rows, &each(values, Value::to_bits64), mask),
                _ => u128::store(
                    rows,
                    &each(values, |value| u128::from(value.to_bits64())),
                    mask,
                ),
            }
        }
    }

    /// The lanes in which a predicate holds.
    #[inline(always)]
    pub fn pred(&self, pred: Pred) -> u32 {
        match pred {
            Pred::Register { index, negated } => {
                let bits = self.warp.preds[index as usize];
                if negated { !bits } else { bits }
            }
            Pred::Constant(true) => u32::MAX,
            Pred::Constant(false) => 0,
        }
    }

    /// Writes a predicate in the lanes of `mask`.
    #[inline(always)]
    pub fn set_pred(&mut self, dst: PredDst, bits: u32, mask: u32) {
        if let Some(index) = dst.0 {
            let place = &mut self.warp.preds[index as usize];
            *place = *place & !mask | bits & mask;
        }
    }

    /// The lanes in which a register (or constant) was set.
    pub fn defined(&self, src: Src) -> u32 {
        if src.is_constant() {
            u32::MAX
        } else {
            self.warp.defined[src.slot as usize]
        }
    }

    /// Says in which lanes of `mask` a register now has a defined value (for handlers that own their
    /// definedness).
    pub fn set_defined(&mut self, dst: Dst, lanes: u32, mask: u32) {
        if let Some(slot) = dst.slot {
            let place = &mut self.warp.defined[slot as usize];
            *place = *place & !mask | lanes & mask;
        }
    }

    /// Addresses of all lanes; a 32-bit base wraps at 32 bits.
    #[inline(always)]
    pub fn addresses(&self, address: &Address) -> [u64; LANES] {
        if address.base.rows == 2 {
            each(&self.get::<u64>(address.base), |base| {
                base.wrapping_add_signed(address.offset)
            })
        } else {
            each(&self.get::<u32>(address.base), |base| {
                u64::from(base.wrapping_add(address.offset as u32))
            })
        }
    }

    /// The block of this warp.
    #[inline(always)]
    pub fn block(&mut self) -> &mut Block {
        &mut self.env.cluster.blocks[self.block]
    }

    /// The instruction.
    pub fn inst(&self) -> &Inst {
        &self.env.program.insts[self.pc as usize]
    }

    /// Lanes of the warp that have not exited.
    pub fn live(&self) -> u32 {
        self.warp.live
    }

    /// Where a lane is, and what it does there.
    pub fn site(&self, lane: usize, action: impl Into<String>) -> Site {
        let block = &self.env.cluster.blocks[self.block];
        self.env
            .site(self.pc, block.index, self.warp.index, lane, action)
    }

    /// A report about a lane at this instruction.
    pub fn report(&self, kind: Kind, lane: usize, message: impl Into<String>) -> Report {
        self.env
            .report(kind, message, self.site(lane, self.inst().action()))
    }

    /// Notes a report; the launch goes on.
    pub fn note(&mut self, report: Report) {
        self.env.note(report);
    }

    /// A report that ends the launch.
    pub fn fault(&self, kind: Kind, lane: usize, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault(self.report(kind, lane, message)))
    }

    /// Lanes of this warp are done.
    pub(crate) fn exit_lanes(&mut self, lanes: u32) {
        let block = self.block;
        self.env.cluster.blocks[block].live_threads -= lanes.count_ones();
        super::barrier::leave(self, lanes);
        if self.block().live_threads == 0 {
            super::mbarrier::leave(self);
        }
        if let (Some(race), Some(id)) = (&mut self.env.race, self.warp.race) {
            race.exit_lanes(id, lanes);
        }
    }

    /// Fills a special register whose value moves.
    pub(crate) fn refresh_special(&mut self, special: Special, slot: u32) {
        let now = self.env.now;
        let rows = &mut self.warp.regs[slot as usize..];
        match special {
            Special::Clock64 | Special::Globaltimer => u64::store(rows, &[now; LANES], u32::MAX),
            Special::ClockHi | Special::GlobaltimerHi => {
                u32::store(rows, &[(now >> 32) as u32; LANES], u32::MAX);
            }
            _ => u32::store(rows, &[now as u32; LANES], u32::MAX),
        }
    }
}

#[inline(always)]
fn convert<T: Value>(rows: &[crate::lane::Row], have: u8) -> [T; LANES] {
    match have {
        1 => each(&u32::load(rows), |bits| T::from_bits64(u64::from(bits))),
        2 => each(&u64::load(rows), T::from_bits64),
        _ => each(&u128::load(rows), |bits| T::from_bits64(bits as u64)),
    }
}

impl Env<'_> {
    /// Where a thread is.
    pub fn site(
        &self,
        pc: u32,
        block: [u32; 3],
        warp: u32,
        lane: usize,
        action: impl Into<String>,
    ) -> Site {
        let inst = &self.program.insts[pc as usize];
        Site {
            action: action.into(),
            block: Some(block),
            thread: Some(self.grid.thread_index(warp * LANES as u32 + lane as u32)),
            ptx_line: inst.line,
            ptx: inst.text.to_string(),
            source: inst.source.clone(),
        }
    }

    /// A report about a place.
    pub fn report(&self, kind: Kind, message: impl Into<String>, site: Site) -> Report {
        Report {
            kind,
            message: message.into(),
            kernel: self.program.name.to_string(),
            device: self.grid.device,
            site,
            other: None,
            seed: self.grid.seed,
        }
    }

    /// Notes a report unless the same place said the same before, or there are many already.
    pub fn note(&mut self, report: Report) {
        const MANY: usize = 256;
        let known = self.reports.iter().any(|old| {
            old.kind == report.kind
                && old.kernel == report.kernel
                && old.site.ptx_line == report.site.ptx_line
                && old.other.as_ref().map(|site| site.ptx_line)
                    == report.other.as_ref().map(|site| site.ptx_line)
        });
        if !known && self.reports.len() < MANY {
            self.reports.push(report);
        }
    }
}

impl Inst {
    /// What it does, in a word, for reports.
    pub fn action(&self) -> String {
        let opcode = self
            .text
            .split_once(' ')
            .map_or(&*self.text, |(first, rest)| {
                // A guard stands before the opcode.
                if first.starts_with('@') {
                    rest.split(' ').next().unwrap_or(rest)
                } else {
                    first
                }
            });
        opcode.trim_end_matches(';').to_owned()
    }
}
