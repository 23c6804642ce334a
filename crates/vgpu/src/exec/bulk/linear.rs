//! Bulk copies of a run of bytes.

use std::sync::Arc;

use super::super::{Core, Fault, Flow, Handler};
use super::copy::{Memory, Piece, Plan, Route, Update};
use super::start::{ALIGNMENT, destinations};
use super::{cache_hint, cache_policy, cta_mask, size, space};
use crate::lane::lanes;
use crate::layout::tma::TensorElement;
use crate::layout::tma::reduce::Reduction;
use crate::program::{Address, Builder, LoadError, Src};
use crate::ptx::ast::Space;

/// What an instruction names.
struct Linear {
    to: (Space, Address),
    from: (Space, Address),
    size: Src,
    /// Of a copy into shared memory; a store has none.
    barrier: Option<Address>,
    mask: Option<Src>,
    update: Option<Update>,
}

pub(super) fn copy(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let [to, from] = spaces(b)?;
    let load = completion(b, to)?;
    let multicast = to == Space::SharedCluster && from == Space::Global;
    let multicast = multicast && b.accept("multicast::cluster");
    // Copies between blocks take no hint.
    let hint = (to == Space::Global || from == Space::Global) && cache_hint(b);
    if b.peek() == Some("cp_mask") {
        return Err(b.error("cp.async.bulk with .cp_mask needs sm_100 or higher: not supported"));
    }
    operands(b, [to, from], load, multicast, hint, None)
}

pub(super) fn reduce(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let [to, from] = spaces(b)?;
    if from != Space::Shared || to == Space::Shared {
        return Err(
            b.error("cp.reduce.async.bulk goes from .shared::cta to .shared::cluster or .global")
        );
    }
    let load = completion(b, to)?;
    let hint = !load && cache_hint(b);
    let operation = b.take().unwrap_or("").to_owned();
    let Some(operation) = Reduction::ALL.into_iter().find(|op| op.name() == operation) else {
        return Err(b.error(format!(
            "a reduction like .add expected, .{operation} found"
        )));
    };
    let rounds = b.accept("noftz");
    let ty = b.take().unwrap_or("").to_owned();
    let Some(element) = element(operation, rounds, &ty, load) else {
        let noftz = if rounds { ".noftz" } else { "" };
        let name = operation.name();
        return Err(b.error(format!(
            "cp.reduce.async.bulk has no .{name}{noftz}.{ty} here"
        )));
    };
    if !load {
        // Blocks meet in the elements that they add to.
        b.habits().talks_across_blocks = true;
    }
    let update = Update { operation, element };
    operands(b, [to, from], load, false, hint, Some(update))
}

pub(super) fn prefetch(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.expect("L2")?;
    b.expect("global")?;
    let hint = cache_hint(b);
    let address = b.address()?;
    let size = size(b)?;
    cache_policy(b, hint)?;
    Ok(Box::new(move |core, mask| {
        let addresses = core.addresses(&address);
        let sizes = core.get::<u32>(size);
        for lane in lanes(mask) {
            let (address, bytes) = (addresses[lane], u64::from(sizes[lane]));
            core.bulk_alignment(lane, "global address", address, ALIGNMENT)?;
            core.bulk_alignment(lane, "size", bytes, ALIGNMENT)?;
            let found = core.env.global_range(address, bytes);
            found.map_err(|problem| core.address_fault(lane, bytes, &problem))?;
        }
        Ok(Flow::Next)
    }))
}

fn spaces(b: &mut Builder<'_, '_>) -> Result<[Space; 2], LoadError> {
    let spaces = [space(b)?, space(b)?];
    match spaces {
        [Space::SharedCluster, Space::Global | Space::Shared]
        | [Space::Shared, Space::Global]
        | [Space::Global, Space::Shared] => Ok(spaces),
        _ => Err(b.error("no bulk copy goes from that memory to that one")),
    }
}

/// Takes the way in which the copy completes; true: on an mbarrier.
fn completion(b: &mut Builder<'_, '_>, to: Space) -> Result<bool, LoadError> {
    let load = to != Space::Global;
    b.expect(if load {
        "mbarrier::complete_tx::bytes"
    } else {
        "bulk_group"
    })?;
    Ok(load)
}

/// The element type of a reduction; `None` where there is no such one.
fn element(operation: Reduction, noftz: bool, ty: &str, shared: bool) -> Option<TensorElement> {
    use Reduction as R;
    use TensorElement as T;
    let bits = matches!(operation, R::And | R::Or | R::Xor);
    let (element, in_shared) = match ty {
        "b32" if bits => (T::U32, true),
        "b64" if bits => (T::U64, false),
        "u32" if !bits => (T::U32, true),
        "s32" if !bits => (T::S32, true),
        "u64" if !bits => (T::U64, operation == R::Add),
        "s64" if operation != R::Add && !bits => (T::S64, false),
        "f16" => (T::F16, false),
        "bf16" => (T::Bf16, false),
        "f32" => (T::F32, false),
        "f64" => (T::F64, false),
        _ => return None,
    };
    // Only additions of halves could flush, and say that they do not.
    let halves = operation == R::Add && matches!(element, T::F16 | T::Bf16);
    (operation.exists(element) && noftz == halves && (in_shared || !shared)).then_some(element)
}

fn operands(
    b: &mut Builder<'_, '_>,
    [to, from]: [Space; 2],
    load: bool,
    multicast: bool,
    hint: bool,
    update: Option<Update>,
) -> Result<Handler, LoadError> {
    let what = Linear {
        to: (to, b.address()?),
        from: (from, b.address()?),
        size: size(b)?,
        barrier: if load { Some(b.address()?) } else { None },
        mask: cta_mask(b, multicast)?,
        update,
    };
    cache_policy(b, hint)?;
    Ok(Box::new(move |core, mask| {
        let sizes = core.get::<u32>(what.size);
        let to = core.addresses(&what.to.1);
        let from = core.addresses(&what.from.1);
        for lane in lanes(mask) {
            what.start(core, lane, [to[lane], from[lane]], u64::from(sizes[lane]))?;
        }
        Ok(Flow::Next)
    }))
}

impl Linear {
    fn start(
        &self,
        core: &mut Core<'_>,
        lane: usize,
        [to, from]: [u64; 2],
        bytes: u64,
    ) -> Result<(), Box<Fault>> {
        core.bulk_alignment(lane, "size", bytes, ALIGNMENT)?;
        let side = |core: &Core<'_>, space, address| -> Result<_, Box<Fault>> {
            if space == Space::Global {
                core.bulk_alignment(lane, "global address", address, ALIGNMENT)?;
                return Ok((Memory::Global, address));
            }
            let (rank, offset) = core.bulk_shared(space, lane, address, bytes, ALIGNMENT)?;
            Ok((Memory::Shared(rank), u64::from(offset)))
        };
        let (from_memory, from) = side(core, self.from.0, from)?;
        let (to_memory, to) = side(core, self.to.0, to)?;
        let piece = Piece {
            from: Some(from),
            to,
            len: bytes as u32,
        };
        let plan = Plan::linear(piece);
        let (Some(barrier), Memory::Shared(named)) = (&self.barrier, to_memory) else {
            return core.start_store(lane, plan, self.update);
        };
        let barrier = core.bulk_barrier(self.to.0, lane, barrier, named, bytes)?;
        let mask = self.mask.map(|src| core.get::<u16>(src)[lane]);
        if from_memory == Memory::Global {
            core.env.counters.async_read_bytes += plan.source_bytes();
            core.env.counters.async_read_sectors += plan.source_sectors();
        }
        let plan = Arc::new(plan);
        for rank in destinations(core, lane, named, mask)? {
            let route = Route {
                from: from_memory,
                to: Memory::Shared(rank),
            };
            core.start_load(lane, route, &plan, barrier.of_rank(rank), self.update)?;
        }
        Ok(())
    }
}
