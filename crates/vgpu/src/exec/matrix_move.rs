//! `ldmatrix`, `stmatrix` and `movmatrix`: matrices of 8 × 8 halves between shared memory and the
//! registers of a warp.

use super::matrix::whole_warp;
use super::space::locate;
use super::{Core, Fault, Flow, Handler, Target};
use crate::counters::Traffic;
use crate::lane::LANES;
use crate::layout::ldmatrix::{ROW_BYTES, SIDE, load, place, store, transpose};
use crate::layout::legality::{check_ldmatrix, check_stmatrix};
use crate::program::{Address, Builder, Class, Definedness, Dst, LoadError, Src};
use crate::ptx::ast::{Space, Type};
use crate::race::{self, Access, Order, Proxy, Scope};
use crate::report::Kind;

/// Rows of a matrix in memory.
const ROWS: usize = SIDE as usize;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Matrix;
    b.expect("sync")?;
    b.expect("aligned")?;
    let shape = b.take().unwrap_or("").to_owned();
    if b.opcode() == "movmatrix" {
        return moving(b, &shape);
    }
    let count = b.take().unwrap_or("").to_owned();
    let Some(count) = count.strip_prefix('x').and_then(|n| n.parse().ok()) else {
        return Err(b.error(format!("a count like .x4 expected, .{count} found")));
    };
    let trans = b.accept("trans");
    let space = match b.accept_any(&["shared", "shared::cta"]) {
        Some(_) => Space::Shared,
        None => Space::Generic,
    };
    let element = b.take().unwrap_or("").to_owned();
    let sm = b.target_sm();
    let legal = if b.opcode() == "ldmatrix" {
        check_ldmatrix(&shape, count, &element)
    } else {
        check_stmatrix(&shape, count, &element, sm)
    };
    legal.map_err(|illegal| b.error(illegal.to_string()))?;
    let need = |b: &Builder<'_, '_>, have: usize| {
        if have == count as usize {
            return Ok(());
        }
        Err(b.error(format!("{have} registers for {count} matrices")))
    };
    if b.opcode() == "ldmatrix" {
        let dst = b.vector_dst(Type::B32, false)?;
        need(b, dst.len())?;
        let address = b.address()?;
        b.definedness = Definedness::Own;
        let what = Move {
            address,
            space,
            trans,
        };
        Ok(Box::new(move |core, mask| {
            if let Some(wait) = whole_warp(core, mask)? {
                return Ok(wait);
            }
            what.load(core, &dst)?;
            Ok(Flow::Next)
        }))
    } else {
        let address = b.address()?;
        let src = b.vector_src(Type::B32, false)?;
        need(b, src.len())?;
        let what = Move {
            address,
            space,
            trans,
        };
        Ok(Box::new(move |core, mask| {
            if let Some(wait) = whole_warp(core, mask)? {
                return Ok(wait);
            }
            what.store(core, &src)?;
            Ok(Flow::Next)
        }))
    }
}

fn moving(b: &mut Builder<'_, '_>, shape: &str) -> Result<Handler, LoadError> {
    b.expect("trans")?;
    b.expect("b16")?;
    if shape != "m8n8" {
        return Err(b.error(format!("movmatrix: .{shape} is not a shape; .m8n8 is")));
    }
    let dst = b.dst(Type::B32)?;
    let src = b.src(Type::B32)?;
    b.definedness = Definedness::Own;
    Ok(Box::new(move |core, mask| {
        if let Some(wait) = whole_warp(core, mask)? {
            return Ok(wait);
        }
        let values = transpose(&core.get(src));
        core.set(dst, &values, mask);
        // An element comes from another lane, so one unset lane spoils its column.
        let defined = if core.defined(src) == u32::MAX {
            u32::MAX
        } else {
            let mut marks = [0; LANES];
            for (lane, mark) in marks.iter_mut().enumerate() {
                *mark = u32::from(core.defined(src) >> lane & 1 == 0) * u32::MAX;
            }
            let spoilt = transpose(&marks);
            (0..LANES)
                .filter(|&lane| spoilt[lane] == 0)
                .fold(0, |mask, lane| mask | 1 << lane)
        };
        core.set_defined(dst, defined, mask);
        Ok(Flow::Next)
    }))
}

/// What `ldmatrix` and `stmatrix` have in common.
struct Move {
    address: Address,
    space: Space,
    trans: bool,
}

impl Move {
    /// Offsets in the block's shared memory of the rows of `count` matrices, checked.
    #[inline(always)]
    fn rows(&self, core: &Core<'_>, count: usize) -> Result<[u32; LANES], Box<Fault>> {
        let addresses = core.addresses(&self.address);
        let shared = &core.env.cluster.blocks[core.block].shared;
        let mut rows = [0; LANES];
        for (lane, row) in rows.iter_mut().enumerate().take(count * ROWS) {
            let (target, offset) = locate(self.space, core.block, addresses[lane]);
            let fits = target == Target::Shared(core.block)
                && shared.holds(offset, u64::from(ROW_BYTES))
                && offset.is_multiple_of(u64::from(ROW_BYTES));
            if !fits {
                return Err(self.bad_address(core, lane, addresses[lane]));
            }
            *row = offset as u32;
        }
        Ok(rows)
    }

    #[cold]
    fn bad_address(&self, core: &Core<'_>, lane: usize, address: u64) -> Box<Fault> {
        match core.resolve(self.space, lane, address, u64::from(ROW_BYTES)) {
            Err(fault) => fault,
            Ok(place) => {
                let message = format!(
                    "address {address:#x} of a matrix row must be in the block's own shared memory, \
                     but is {place:?}"
                );
                core.fault(Kind::OutOfBounds, lane, message)
            }
        }
    }

    fn load(&self, core: &mut Core<'_>, dst: &[Dst]) -> Result<(), Box<Fault>> {
        let rows = self.rows(core, dst.len())?;
        let check = core.env.checks.memory_init;
        for (dst, rows) in dst.iter().zip(rows.chunks_exact(ROWS)) {
            let shared = &core.env.cluster.blocks[core.block].shared;
            let mut matrix = [[0_u16; ROWS]; ROWS];
            let mut unwritten = None;
            for (number, (row, offset)) in matrix.iter_mut().zip(rows).enumerate() {
                let bytes = shared.bytes(*offset, ROW_BYTES);
                for (half, pair) in row.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *half = u16::from_le_bytes(*pair);
                }
                if check && !shared.is_written(*offset, ROW_BYTES) {
                    unwritten = Some((number, *offset));
                }
            }
            core.set(*dst, &load(&matrix, self.trans), u32::MAX);
            core.set_defined(*dst, u32::MAX, u32::MAX);
            if let Some((row, offset)) = unwritten {
                let message = format!(
                    "the matrix row at shared address {offset:#x} was never wholly written"
                );
                let report = core.report(Kind::UninitialisedRead, row, message);
                core.note(report);
            }
        }
        self.account(core, &rows[..dst.len() * ROWS], race::Kind::Read);
        Ok(())
    }

    fn store(&self, core: &mut Core<'_>, src: &[Src]) -> Result<(), Box<Fault>> {
        let rows = self.rows(core, src.len())?;
        self.account(core, &rows[..src.len() * ROWS], race::Kind::Write);
        for (src, rows) in src.iter().zip(rows.chunks_exact(ROWS)) {
            let matrix = store(&core.get(*src), self.trans);
            let shared = &mut core.block().shared;
            for (row, offset) in matrix.iter().zip(rows) {
                let bytes = row.map(u16::to_le_bytes);
                shared.write(*offset, bytes.as_flattened());
            }
        }
        Ok(())
    }

    /// Counts the passes over the banks and tells the race detector.
    fn account(&self, core: &mut Core<'_>, rows: &[u32], kind: race::Kind) {
        let counters = &mut *core.env.counters;
        let traffic = match kind {
            race::Kind::Read => &mut counters.shared_read,
            _ => &mut counters.shared_write,
        };
        traffic.matrices(rows);
        if core.env.race.is_none() {
            return;
        }
        // A row is not touched by the lane that gives its address but by those that hold its elements.
        let (parts, bytes) = if self.trans { (2, 2) } else { (1, 4) };
        let space = race::Space::Shared(core.block().uid);
        for rows in rows.chunks_exact(ROWS) {
            for part in 0..parts {
                let addresses = std::array::from_fn(|lane| {
                    let (row, column) = place(lane as u32, part, self.trans);
                    u64::from(rows[row as usize] + 2 * column)
                });
                core.track(&Access {
                    space,
                    kind,
                    order: Order::Weak,
                    scope: Scope::Cta,
                    proxy: Proxy::Generic,
                    lanes: u32::MAX,
                    addresses: &addresses,
                    bytes,
                    unit: bytes,
                    inst: core.pc,
                });
            }
        }
    }
}

impl Traffic {
    /// Matrices whose 16-byte rows lie at these offsets. One pass over the banks moves a matrix unless
    /// different rows of it lie in the same banks.
    fn matrices(&mut self, rows: &[u32]) {
        self.instructions += 1;
        self.requested_bytes += rows.len() as u64 * u64::from(ROW_BYTES);
        for rows in rows.chunks_exact(ROWS) {
            let mut passes = [0_u8; ROWS];
            for (index, row) in rows.iter().enumerate() {
                // The same row twice is read once.
                if !rows[..index].contains(row) {
                    passes[(row / ROW_BYTES) as usize % ROWS] += 1;
                }
            }
            let most = u64::from(passes.into_iter().max().unwrap_or(1));
            self.wavefronts += most;
            self.conflicts += most - 1;
        }
    }
}

#[cfg(test)]
mod tests;
