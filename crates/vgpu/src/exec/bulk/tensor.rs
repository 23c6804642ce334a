//! Bulk copies of a box of a tensor.

use std::sync::Arc;

use super::super::{Core, Fault, Flow, Handler, Place};
use super::copy::{Memory, Piece, Plan, Route, Update};
use super::start::destinations;
use super::{cache_hint, cache_policy, cta_mask, space};
use crate::lane::{LANES, lanes};
use crate::layout::tma::reduce::Reduction;
use crate::layout::tma::{self, SHARED_ALIGNMENT, TensorMap, TmaError};
use crate::program::{Address, Builder, LoadError, Src};
use crate::ptx::ast::Space;
use crate::report::Kind;

/// What the address of a tensor map is a multiple of.
const MAP_ALIGNMENT: u64 = 64;

/// `[map, {x, y, …}]`
struct Corner {
    map: Address,
    coordinates: Vec<Src>,
}

pub(super) fn copy(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let rank = rank(b)?;
    let to = space(b)?;
    if to == Space::Global {
        b.expect("shared::cta")?;
        tile(b)?;
        return store(b, rank, None);
    }
    b.expect("global")?;
    tile(b)?;
    b.expect("mbarrier::complete_tx::bytes")?;
    let multicast = to == Space::SharedCluster && b.accept("multicast::cluster");
    if b.peek().is_some_and(|word| word.starts_with("cta_group")) {
        return Err(b.error(".cta_group needs sm_100 or higher: not supported"));
    }
    let hint = cache_hint(b);
    let what = Load {
        space: to,
        to: b.address()?,
        corner: corner(b, rank)?,
        barrier: b.address()?,
        mask: cta_mask(b, multicast)?,
    };
    cache_policy(b, hint)?;
    Ok(Box::new(move |core, mask| {
        let to = core.addresses(&what.to);
        let corners = what.corner.read(core);
        for lane in lanes(mask) {
            what.start(core, lane, to[lane], &corners)?;
        }
        Ok(Flow::Next)
    }))
}

pub(super) fn reduce(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let rank = rank(b)?;
    b.expect("global")?;
    b.expect("shared::cta")?;
    let operation = b.take().unwrap_or("").to_owned();
    let Some(operation) = Reduction::ALL.into_iter().find(|op| op.name() == operation) else {
        return Err(b.error(format!(
            "a reduction like .add expected, .{operation} found"
        )));
    };
    tile(b)?;
    // Blocks meet in the elements that they add to.
    b.habits().talks_across_blocks = true;
    store(b, rank, Some(operation))
}

pub(super) fn prefetch(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let rank = rank(b)?;
    b.expect("L2")?;
    b.expect("global")?;
    tile(b)?;
    let hint = cache_hint(b);
    let corner = corner(b, rank)?;
    cache_policy(b, hint)?;
    Ok(Box::new(move |core, mask| {
        let corners = corner.read(core);
        for lane in lanes(mask) {
            corners.map(core, lane)?;
        }
        Ok(Flow::Next)
    }))
}

fn rank(b: &mut Builder<'_, '_>) -> Result<usize, LoadError> {
    match b.accept_any(&["1d", "2d", "3d", "4d", "5d"]) {
        Some(index) => Ok(index + 1),
        None => Err(b.unknown_word()),
    }
}

/// Takes `.tile`, which may be left out; other modes are refused.
fn tile(b: &mut Builder<'_, '_>) -> Result<(), LoadError> {
    b.accept("tile");
    match b.peek() {
        Some(word) if word.starts_with("im2col") => Err(b.error(format!(
            ".{word}: only tiled tensor maps are supported, not im2col"
        ))),
        Some(word) if word.starts_with("tile::") => {
            Err(b.error(format!(".{word} needs sm_100 or higher: not supported")))
        }
        _ => Ok(()),
    }
}

fn corner(b: &mut Builder<'_, '_>, rank: usize) -> Result<Corner, LoadError> {
    let (map, coordinates) = b.tensor_address()?;
    if coordinates.len() != rank {
        let have = coordinates.len();
        return Err(b.error(format!(
            "{have} coordinates for a copy of {rank} dimensions"
        )));
    }
    Ok(Corner { map, coordinates })
}

fn store(
    b: &mut Builder<'_, '_>,
    rank: usize,
    operation: Option<Reduction>,
) -> Result<Handler, LoadError> {
    b.expect("bulk_group")?;
    let hint = cache_hint(b);
    let corner = corner(b, rank)?;
    let from = b.address()?;
    cache_policy(b, hint)?;
    Ok(Box::new(move |core, mask| {
        let from = core.addresses(&from);
        let corners = corner.read(core);
        for lane in lanes(mask) {
            let (map, map_address) = corners.map(core, lane)?;
            let update = operation.map(|operation| Update {
                operation,
                element: map.element,
            });
            if let Some(update) = update
                && !update.operation.exists(map.element)
            {
                let error = TmaError::Reduction {
                    operation: update.operation.name(),
                    element: map.element,
                };
                return Err(core.fault(Kind::Descriptor, lane, error.to_string()));
            }
            let alignment = u64::from(SHARED_ALIGNMENT);
            let bytes = map.shared_bytes();
            let (_, offset) =
                core.bulk_shared(Space::Shared, lane, from[lane], bytes, alignment)?;
            let mut pieces = Vec::new();
            corners.walk(core, lane, &map, offset, |piece| {
                // Outside the tensor nothing is written.
                if let Some(to) = piece.global {
                    pieces.push(Piece {
                        from: Some(u64::from(piece.shared)),
                        to,
                        len: piece.len,
                    });
                }
            })?;
            core.start_store(lane, Plan::new(pieces, None, map_address), update)?;
        }
        Ok(Flow::Next)
    }))
}

/// `cp.async.bulk.tensor` into shared memory.
struct Load {
    space: Space,
    to: Address,
    corner: Corner,
    barrier: Address,
    mask: Option<Src>,
}

impl Load {
    fn start(
        &self,
        core: &mut Core<'_>,
        lane: usize,
        to: u64,
        corners: &Corners,
    ) -> Result<(), Box<Fault>> {
        let (map, map_address) = corners.map(core, lane)?;
        let alignment = u64::from(SHARED_ALIGNMENT);
        let (named, offset) =
            core.bulk_shared(self.space, lane, to, map.shared_bytes(), alignment)?;
        let barrier = core.bulk_barrier(self.space, lane, &self.barrier, named, map.box_bytes())?;
        let mut pieces = Vec::new();
        corners.walk(core, lane, &map, offset, |piece| {
            pieces.push(Piece {
                from: piece.global,
                to: u64::from(piece.shared),
                len: piece.len,
            });
        })?;
        let plan = Arc::new(Plan::new(pieces, Some(map), map_address));
        core.env.counters.async_read_bytes += plan.source_bytes();
        core.env.counters.async_read_sectors += plan.source_sectors();
        let mask = self.mask.map(|src| core.get::<u16>(src)[lane]);
        for rank in destinations(core, lane, named, mask)? {
            let route = Route {
                from: Memory::Global,
                to: Memory::Shared(rank),
            };
            core.start_load(lane, route, &plan, barrier.of_rank(rank), None)?;
        }
        Ok(())
    }
}

/// The corners of all lanes, at run time.
struct Corners {
    maps: [u64; LANES],
    coordinates: Vec<[i32; LANES]>,
}

impl Corner {
    fn read(&self, core: &Core<'_>) -> Corners {
        Corners {
            maps: core.addresses(&self.map),
            coordinates: self.coordinates.iter().map(|src| core.get(*src)).collect(),
        }
    }
}

impl Corners {
    /// Reads a lane's tensor map, by a generic address: a kernel parameter, constant or global memory.
    /// Also returns the address where kernels may write there.
    fn map(&self, core: &Core<'_>, lane: usize) -> Result<(TensorMap, Option<u64>), Box<Fault>> {
        let address = self.maps[lane];
        let bytes = tma::BYTES as u64;
        let place = core
            .env
            .place(Space::Generic, core.block, address, bytes)
            .map_err(|problem| core.address_fault(lane, bytes, &problem))?;
        core.bulk_alignment(lane, "tensor map address", address, MAP_ALIGNMENT)?;
        let mut map = [0; tma::BYTES];
        let mut writable = None;
        match place {
            Place::Param { offset } => {
                let params = &core.env.grid.params;
                map.copy_from_slice(&params[offset as usize..][..tma::BYTES]);
            }
            Place::Global { allocation, .. } => {
                core.env.read_global(address, &mut map);
                let read_only = core.env.memory.get(allocation).is_read_only();
                writable = (!read_only).then_some(address);
            }
            Place::Shared { .. } | Place::Local { .. } => {
                let message = format!(
                    "tensor map at {address:#x}: it must be a kernel parameter or in constant or \
                     global memory"
                );
                return Err(core.fault(Kind::Descriptor, lane, message));
            }
        }
        let refuse = |core: &Core<'_>, error: TmaError| {
            let message = format!("tensor map at {address:#x}: {error}");
            core.fault(Kind::Descriptor, lane, message)
        };
        let map = TensorMap::decode(&map).map_err(|error| refuse(core, error))?;
        if map.rank as usize != self.coordinates.len() {
            let error = TmaError::Coordinates {
                have: self.coordinates.len(),
                rank: map.rank,
            };
            return Err(refuse(core, error));
        }
        Ok((map, writable))
    }

    fn walk(
        &self,
        core: &Core<'_>,
        lane: usize,
        map: &TensorMap,
        shared: u32,
        visit: impl FnMut(tma::Piece),
    ) -> Result<(), Box<Fault>> {
        let mut at = [0; tma::MAX_RANK];
        for (at, values) in at.iter_mut().zip(&self.coordinates) {
            *at = values[lane];
        }
        map.walk(&at[..self.coordinates.len()], shared, visit)
            .map_err(|error| core.fault(Kind::Descriptor, lane, error.to_string()))
    }
}
