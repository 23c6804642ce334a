//! The bytes of a group of lanes: in, out, and whether anybody wrote them.

use bytemuck::Pod;

use super::lanes::{Group, Region, Shape};
use crate::exec::Core;
use crate::lane::{LANES, Value, lanes};
use crate::machine::{all_bits, mark_bits};
use crate::memory::Allocation;
use crate::report::Kind;

/// An element of an access: an unsigned integer of its size.
pub(in crate::exec) trait Scalar: Value + Pod {
    /// Loads from a checked, aligned offset.
    fn fetch(allocation: &Allocation, offset: u64) -> Self;
    /// Stores to a checked, aligned offset; does not mark it written.
    fn put(self, allocation: &Allocation, offset: u64);
    /// As a signed number, to 64 bits.
    fn sign_extend(self) -> u64;
}

macro_rules! scalar {
    ($type:ty, $signed:ty, $load:ident, $store:ident) => {
        impl Scalar for $type {
            #[inline(always)]
            fn fetch(allocation: &Allocation, offset: u64) -> Self {
                allocation.$load(offset)
            }

            #[inline(always)]
            fn put(self, allocation: &Allocation, offset: u64) {
                allocation.$store(offset, self);
            }

            #[inline(always)]
            fn sign_extend(self) -> u64 {
                self as $signed as i64 as u64
            }
        }
    };
}

scalar!(u8, i8, load8, store8);
scalar!(u16, i16, load16, store16);
scalar!(u32, i32, load32, store32);
scalar!(u64, i64, load64, store64);

/// Two halves: whoever runs beside this warp runs on another thread only where nothing is shared.
impl Scalar for u128 {
    fn fetch(allocation: &Allocation, offset: u64) -> Self {
        u128::from(allocation.load64(offset)) | u128::from(allocation.load64(offset + 8)) << 64
    }

    fn put(self, allocation: &Allocation, offset: u64) {
        allocation.store64(offset, self as u64);
        allocation.store64(offset + 8, (self >> 64) as u64);
    }

    fn sign_extend(self) -> u64 {
        self as u64
    }
}

/// What the lanes of an instruction load or store: element after element, 32 lanes each.
pub(super) type Values<E, const V: usize> = [[E; LANES]; V];

/// Reads the lanes of a group.
#[inline(always)]
pub(super) fn read<E: Scalar, const V: usize>(
    core: &Core<'_>,
    group: &Group<'_>,
    out: &mut Values<E, V>,
) {
    match group.region {
        Region::Allocation(index) => {
            let allocation = core.env.memory.get(index);
            let bulk = |offset, bytes: &mut [u8]| allocation.read(offset, bytes);
            let one = |_, offset| E::fetch(allocation, offset);
            read_from(group, out, bulk, one);
        }
        Region::Shared(rank) => {
            let shared = &core.env.cluster.blocks[rank].shared;
            read_slice(group, out, shared.bytes(0, shared.end()));
        }
        Region::Param => read_slice(group, out, &core.env.grid.params),
        Region::Local => {
            for lane in lanes(group.lanes) {
                let at = core.local_start(lane) + group.offset(lane) as usize;
                for (v, row) in out.iter_mut().enumerate() {
                    row[lane] = element(&core.warp.local, at + v * size_of::<E>());
                }
            }
        }
    }
}

#[inline(always)]
fn element<E: Scalar>(data: &[u8], at: usize) -> E {
    bytemuck::pod_read_unaligned(&data[at..at + size_of::<E>()])
}

#[inline(always)]
fn read_slice<E: Scalar, const V: usize>(group: &Group<'_>, out: &mut Values<E, V>, data: &[u8]) {
    read_from(
        group,
        out,
        |offset, bytes| bytes.copy_from_slice(&data[offset as usize..][..bytes.len()]),
        |_, offset| element(data, offset as usize),
    );
}

/// Reads from memory that `bulk` copies a run from and `one` an element.
#[inline(always)]
fn read_from<E: Scalar, const V: usize>(
    group: &Group<'_>,
    out: &mut Values<E, V>,
    bulk: impl Fn(u64, &mut [u8]),
    one: impl Fn(usize, u64) -> E,
) {
    let size = size_of::<E>();
    let first = group.first();
    match group.shape {
        Shape::Run => {
            let (start, count) = (first * V, group.lanes.count_ones() as usize * V);
            if let [row] = &mut out[..] {
                // Nothing between the elements.
                bulk(
                    group.offset(first),
                    bytemuck::cast_slice_mut(&mut row[start..start + count]),
                );
                return;
            }
            let mut elements = [[E::default(); V]; LANES];
            let flat = elements.as_flattened_mut();
            bulk(
                group.offset(first),
                bytemuck::cast_slice_mut(&mut flat[start..start + count]),
            );
            for (v, row) in out.iter_mut().enumerate() {
                for lane in 0..LANES {
                    row[lane] = elements[lane][v];
                }
            }
        }
        Shape::Same => {
            for (v, row) in out.iter_mut().enumerate() {
                *row = [one(first, group.offset(first) + (v * size) as u64); LANES];
            }
        }
        Shape::Scattered => {
            for lane in lanes(group.lanes) {
                let offset = group.offset(lane);
                for (v, row) in out.iter_mut().enumerate() {
                    row[lane] = one(lane, offset + (v * size) as u64);
                }
            }
        }
    }
}

/// Writes the lanes of a group, the highest lane last, and marks what was written: bytes of lanes that
/// `defined` leaves out, element by element, as never written, except in global memory (there an
/// undefined value was reported).
#[inline(always)]
pub(super) fn write<E: Scalar, const V: usize>(
    core: &mut Core<'_>,
    group: &Group<'_>,
    values: &Values<E, V>,
    defined: &[u32; V],
) {
    let size = size_of::<E>();
    match group.region {
        Region::Allocation(index) => {
            let allocation = core.env.memory.get(index);
            if group.shape == Shape::Run {
                run(group, values, |offset, bytes| {
                    allocation.write(offset, bytes)
                });
                return;
            }
            for lane in lanes(group.lanes) {
                let offset = group.offset(lane);
                for (v, row) in values.iter().enumerate() {
                    row[lane].put(allocation, offset + (v * size) as u64);
                }
                allocation.mark_written(offset, (V * size) as u64);
            }
        }
        Region::Shared(rank) => {
            let shared = &mut core.env.cluster.blocks[rank].shared;
            if group.shape == Shape::Run && defined.iter().all(|&d| group.lanes & !d == 0) {
                run(group, values, |offset, bytes| {
                    shared.write(offset as u32, bytes)
                });
                return;
            }
            for lane in lanes(group.lanes) {
                for (v, row) in values.iter().enumerate() {
                    let offset = group.offset(lane) as u32 + (v * size) as u32;
                    shared.write(offset, bytemuck::bytes_of(&row[lane]));
                    if defined[v] >> lane & 1 == 0 {
                        shared.mark_written(offset, size as u32, false);
                    }
                }
            }
        }
        Region::Local => {
            for lane in lanes(group.lanes) {
                let start = core.local_start(lane) + group.offset(lane) as usize;
                let warp = &mut *core.warp;
                for (v, row) in values.iter().enumerate() {
                    let at = start + v * size;
                    warp.local[at..at + size].copy_from_slice(bytemuck::bytes_of(&row[lane]));
                    if !warp.local_written.is_empty() {
                        let written = defined[v] >> lane & 1 != 0;
                        mark_bits(&mut warp.local_written, at as u32, size as u32, written);
                    }
                }
            }
        }
        // Never writable: see the check of the lanes.
        Region::Param => {}
    }
}

/// The bytes of neighbouring lanes, put one behind the other.
#[inline(always)]
fn run<E: Scalar, const V: usize>(
    group: &Group<'_>,
    values: &Values<E, V>,
    mut put: impl FnMut(u64, &[u8]),
) {
    let first = group.first();
    let (start, count) = (first * V, group.lanes.count_ones() as usize * V);
    if let [row] = &values[..] {
        put(
            group.offset(first),
            bytemuck::cast_slice(&row[start..start + count]),
        );
        return;
    }
    let mut elements = [[E::default(); V]; LANES];
    for (v, row) in values.iter().enumerate() {
        for lane in 0..LANES {
            elements[lane][v] = row[lane];
        }
    }
    let flat = elements.as_flattened();
    put(
        group.offset(first),
        bytemuck::cast_slice(&flat[start..start + count]),
    );
}

/// Reports lanes that read bytes which nobody wrote.
#[inline(always)]
pub(in crate::exec) fn check_written(core: &mut Core<'_>, group: &Group<'_>, bytes: u32) {
    if !core.env.checks.memory_init {
        return;
    }
    let missing = unwritten(core, group, bytes);
    if missing != 0 {
        complain(core, group, bytes, missing);
    }
}

#[inline]
fn unwritten(core: &Core<'_>, group: &Group<'_>, bytes: u32) -> u32 {
    let first = group.first();
    let by_lane = |written: &dyn Fn(usize) -> bool| {
        lanes(group.lanes)
            .filter(|&lane| !written(lane))
            .fold(0, |all, lane| all | 1 << lane)
    };
    // Bytes that one look answers for.
    let whole = match group.shape {
        Shape::Run => Some(group.lanes.count_ones() * bytes),
        Shape::Same => Some(bytes),
        Shape::Scattered => None,
    };
    match group.region {
        Region::Allocation(index) => {
            let allocation = core.env.memory.get(index);
            let at = group.offset(first);
            if whole.is_some_and(|whole| allocation.is_written(at, u64::from(whole))) {
                return 0;
            }
            by_lane(&|lane| allocation.is_written(group.offset(lane), u64::from(bytes)))
        }
        Region::Shared(rank) => {
            let shared = &core.env.cluster.blocks[rank].shared;
            let at = group.offset(first) as u32;
            if whole.is_some_and(|whole| shared.is_written(at, whole)) {
                return 0;
            }
            by_lane(&|lane| shared.is_written(group.offset(lane) as u32, bytes))
        }
        Region::Local => by_lane(&|lane| {
            let at = core.local_start(lane) + group.offset(lane) as usize;
            all_bits(&core.warp.local_written, at as u32, bytes)
        }),
        Region::Param => 0,
    }
}

#[cold]
fn complain(core: &mut Core<'_>, group: &Group<'_>, bytes: u32, missing: u32) {
    let lane = missing.trailing_zeros() as usize;
    let offset = group.offset(lane);
    let place = match group.region {
        Region::Allocation(index) => {
            let allocation = core.env.memory.get(index);
            format!(
                "{:#x} (offset {offset} of the {}-byte allocation at {:#x})",
                allocation.base() + offset,
                allocation.bytes(),
                allocation.base()
            )
        }
        Region::Shared(rank) if rank == core.block => format!("shared address {offset:#x}"),
        Region::Shared(rank) => format!("shared address {offset:#x} of the block of rank {rank}"),
        Region::Local => format!("local address {offset:#x}"),
        Region::Param => format!("offset {offset} of the parameters"),
    };
    let message = format!(
        "lane {lane} reads {bytes} bytes at {place} that were not all written ({} of the lanes do \
         so)",
        missing.count_ones()
    );
    let report = core.report(Kind::UninitialisedRead, lane, message);
    core.note(report);
}
