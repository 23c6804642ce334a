//! What streams do themselves: copies, fills, values, points.

use std::sync::Arc;

use super::copy::Shape3d;
use super::engine::{Engine, Place, host_report};
use super::fill::Fill;
use super::machine::{Machine, lock};
use super::value::ValueWork;
use super::work::{Mark, Work};
use crate::exec::Scene;
use crate::memory::{AddressError, Allocation, Owner, Table};
use crate::race::{self, Access, Clock, Order, Proxy, RangeAccess, Scope, WarpId};
use crate::report::{Kind, Report};

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 16;
/// Bytes that are copied in a tick of virtual time.
const BYTES_OF_A_TICK: u64 = 64;

/// What became of an operation.
pub(super) struct Outcome {
    /// What the stream knows now.
    pub(super) clock: Clock,
    /// Virtual time that it took.
    pub(super) ticks: u64,
    /// What checks found.
    pub(super) reports: Vec<Report>,
    /// Why the device failed.
    pub(super) fault: Option<Report>,
}

/// An operation at work.
struct Operation<'a> {
    engine: &'a mut Engine,
    table: Arc<Table>,
    at: &'a Place,
    actor: Option<WarpId>,
    seed: u64,
    check_init: bool,
    ticks: u64,
    reports: Vec<Report>,
}

impl Machine {
    /// Does an operation that is neither a launch nor a host function.
    pub(super) fn execute(
        &self,
        engine: &mut Engine,
        work: &Work,
        at: &Place,
        start: Clock,
        now: u64,
    ) -> Outcome {
        let touches = matches!(
            work,
            Work::Copy { .. }
                | Work::Put { .. }
                | Work::Get { .. }
                | Work::Fill(_)
                | Work::Value(_)
                | Work::Free(_)
        );
        let actor = if touches {
            engine.host_actor(at.stream, &start)
        } else {
            None
        };
        let config = self.config();
        let mut operation = Operation {
            engine,
            table: self.memory().snapshot(),
            at,
            actor,
            seed: config.seed,
            check_init: config.checks.memory_init,
            ticks: 1,
            reports: Vec::new(),
        };
        let result = match work {
            Work::Empty | Work::Kernel(_) | Work::Host(_) | Work::Wait(_) => Ok(()),
            Work::Copy { dst, src, shape } => operation.copy(*dst, *src, shape),
            Work::Put { dst, shape, bytes } => operation.put(*dst, shape, bytes),
            Work::Get { src, shape, into } => {
                operation.get(*src, shape).map(|bytes| *lock(into) = bytes)
            }
            Work::Fill(fill) => operation.fill(fill),
            Work::Value(value) => operation.value(value),
            Work::Free(ptr) => self.free_in_stream(&mut operation, *ptr),
            Work::Record(point) => {
                let clock = start.clone();
                let ticks = now + 1;
                // Only the entry sets its point, and it runs once.
                let _ = point.set(Mark { clock, ticks });
                Ok(())
            }
        };
        let Operation {
            ticks,
            reports,
            seed,
            ..
        } = operation;
        let mut clock = start;
        if let (Some(actor), Some(detector)) = (actor, &mut engine.detector) {
            // What follows in the stream sees it by every proxy, as it sees the end of a launch.
            detector.proxy_fence(actor, 1);
            detector.release(actor, 1, &mut clock);
        }
        let fault = result.err().map(|error| {
            let kind = match error {
                AddressError::Freed { .. } => Kind::UseAfterFree,
                _ => Kind::OutOfBounds,
            };
            host_report(kind, error.to_string(), at.device, seed, at.stream)
        });
        Outcome {
            clock,
            ticks,
            reports,
            fault,
        }
    }

    /// A stream frees memory: a write, for whoever still uses it.
    fn free_in_stream(&self, operation: &mut Operation<'_>, ptr: u64) -> Result<(), AddressError> {
        let index = operation.table.find(ptr, 0)?;
        let bytes = operation.table.get(index).bytes();
        operation.touch(race::Kind::Write, ptr, bytes);
        self.forget_allocation(ptr)
    }
}

impl Operation<'_> {
    /// The allocation around bytes, and their offset in it.
    fn find(table: &Table, address: u64, bytes: u64) -> Result<(&Allocation, u64), AddressError> {
        let allocation = table.get(table.find(address, bytes)?);
        Ok((allocation, address - allocation.base()))
    }

    /// Tells the race detector of bytes that the stream reads or writes.
    fn touch(&mut self, kind: race::Kind, address: u64, bytes: u64) {
        self.ticks += bytes / BYTES_OF_A_TICK;
        let (Some(actor), Some(detector)) = (self.actor, &mut self.engine.detector) else {
            return;
        };
        let range = RangeAccess {
            space: race::Space::Global,
            kind,
            proxy: Proxy::Generic,
            address,
            bytes,
            inst: 0,
        };
        let conflict = detector.access_range(actor, 0, &range);
        self.note(conflict);
    }

    fn note(&mut self, conflict: Option<Box<race::Conflict>>) {
        if let Some(conflict) = conflict {
            let scene = Scene {
                memory: &self.table,
                launches: &self.engine.launches,
                here: None,
                cluster: None,
                seed: self.seed,
            };
            let report = scene.report(&conflict);
            self.reports.push(report);
        }
    }

    fn copy(&mut self, dst: u64, src: u64, shape: &Shape3d) -> Result<(), AddressError> {
        let table = Arc::clone(&self.table);
        let mut buffer = Vec::new();
        shape.runs(|to, from, bytes| {
            let (to, from) = (dst.saturating_add(to), src.saturating_add(from));
            let (source, source_at) = Self::find(&table, from, bytes)?;
            let (target, target_at) = Self::find(&table, to, bytes)?;
            self.touch(race::Kind::Read, from, bytes);
            self.touch(race::Kind::Write, to, bytes);
            if target.owner() == Owner::Host && source.owner() != Owner::Host {
                self.must_be_written(source, source_at, bytes);
            }
            let backwards = to > from && to - from < bytes;
            let chunks = bytes.div_ceil(CHUNK as u64);
            for index in 0..chunks {
                // Overlapping copies are undefined in CUDA; here they behave like `memmove`.
                let index = if backwards { chunks - 1 - index } else { index };
                let at = index * CHUNK as u64;
                let count = (bytes - at).min(CHUNK as u64);
                buffer.resize(count as usize, 0);
                source.read(source_at + at, &mut buffer);
                let whole = source.is_written(source_at + at, count);
                let holes = if whole {
                    Vec::new()
                } else {
                    holes(source, source_at + at, count)
                };
                target.write(target_at + at, &buffer);
                for (start, count) in holes {
                    target.mark_unwritten(target_at + at + start, count);
                }
            }
            Ok(())
        })
    }

    fn put(&mut self, dst: u64, shape: &Shape3d, bytes: &[u8]) -> Result<(), AddressError> {
        let table = Arc::clone(&self.table);
        shape.runs(|to, from, count| {
            let to = dst.saturating_add(to);
            let (target, at) = Self::find(&table, to, count)?;
            self.touch(race::Kind::Write, to, count);
            target.write(at, &bytes[from as usize..(from + count) as usize]);
            Ok(())
        })
    }

    fn get(&mut self, src: u64, shape: &Shape3d) -> Result<Vec<u8>, AddressError> {
        let table = Arc::clone(&self.table);
        let mut bytes = Vec::new();
        shape.runs(|_, from, count| {
            let from = src.saturating_add(from);
            let (source, at) = Self::find(&table, from, count)?;
            self.touch(race::Kind::Read, from, count);
            self.must_be_written(source, at, count);
            let start = bytes.len();
            bytes.resize(start + count as usize, 0);
            source.read(at, &mut bytes[start..]);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// The host is where bytes that nobody wrote are no longer followed, so this is where they are told.
    fn must_be_written(&mut self, source: &Allocation, at: u64, bytes: u64) {
        if !self.check_init || source.is_written(at, bytes) {
            return;
        }
        let holes = holes(source, at, bytes);
        let missing: u64 = holes.iter().map(|&(_, count)| count).sum();
        let first = holes.first().map_or(0, |&(start, _)| start);
        let message = format!(
            "{missing} of {bytes} bytes copied to the host from offset {at} of the {}-byte allocation \
             at {:#x} were never written; the first is at offset {}",
            source.bytes(),
            source.base(),
            at + first
        );
        let (device, stream) = (self.at.device, self.at.stream);
        let kind = Kind::UninitialisedRead;
        let report = host_report(kind, message, device, self.seed, stream);
        self.reports.push(report);
    }

    fn fill(&mut self, fill: &Fill) -> Result<(), AddressError> {
        let bytes = fill.row_bytes();
        let value = fill.value.to_le_bytes();
        let pattern: Vec<u8> = value[..fill.element_bytes as usize]
            .iter()
            .copied()
            .cycle()
            .take((bytes as usize).min(CHUNK))
            .collect();
        let table = Arc::clone(&self.table);
        if fill.is_empty() {
            return Ok(());
        }
        for row in 0..fill.rows {
            let address = fill.ptr.saturating_add(row * fill.pitch);
            let (target, start) = Self::find(&table, address, bytes)?;
            self.touch(race::Kind::Write, address, bytes);
            for at in (0..bytes).step_by(CHUNK) {
                let count = (bytes - at).min(CHUNK as u64);
                target.write(start + at, &pattern[..count as usize]);
            }
        }
        Ok(())
    }

    fn value(&mut self, value: &ValueWork) -> Result<(), AddressError> {
        let table = Arc::clone(&self.table);
        let bytes = value.bits.bytes();
        let (allocation, at) = Self::find(&table, value.ptr, u64::from(bytes))?;
        let (kind, order) = match value.until {
            Some(_) => (race::Kind::Read, Order::Acquire),
            None => (race::Kind::Write, Order::Release),
        };
        if let (Some(actor), Some(detector)) = (self.actor, &mut self.engine.detector) {
            let conflict = detector.access(
                actor,
                &Access {
                    space: race::Space::Global,
                    kind,
                    order,
                    scope: Scope::Sys,
                    proxy: Proxy::Generic,
                    lanes: 1,
                    addresses: &[value.ptr; 32],
                    bytes,
                    unit: bytes,
                    inst: 0,
                },
            );
            self.note(conflict);
        }
        if value.until.is_none() {
            allocation.store(at, bytes, value.value);
            allocation.mark_written(at, u64::from(bytes));
        }
        Ok(())
    }
}

/// The runs of bytes in a range that were never written: (offset in the range, bytes).
fn holes(allocation: &Allocation, at: u64, bytes: u64) -> Vec<(u64, u64)> {
    let mut holes: Vec<(u64, u64)> = Vec::new();
    let mut offset = 0;
    while offset < bytes {
        let step = (64 - (at + offset) % 64).min(bytes - offset);
        if !allocation.is_written(at + offset, step) {
            for byte in offset..offset + step {
                if allocation.is_written(at + byte, 1) {
                    continue;
                }
                match holes.last_mut() {
                    Some((start, count)) if *start + *count == byte => *count += 1,
                    _ => holes.push((byte, 1)),
                }
            }
        }
        offset += step;
    }
    holes
}
