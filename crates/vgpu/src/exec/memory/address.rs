//! Conversions and questions of addresses: `cvta`, `isspacep`, `mapa`, `getctarank`.

use crate::exec::space::locate;
use crate::exec::{Core, Flow, Handler, Target, map1};
use crate::lane::{LANES, lanes};
use crate::machine::{CLUSTER_SHIFT, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::program::{Builder, Dst, LoadError, Src};
use crate::ptx::ast::{Space, Type};
use crate::report::Kind;

/// What the conversion of an address to a space that it is not in gives: no address of any space, nor
/// are its low 32 bits one.
const NOWHERE: u64 = 0xffff_ffff_0000_0000;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    match b.opcode() {
        "cvta" => convert(b),
        "isspacep" => is_space(b),
        "mapa" => map_to_rank(b),
        _ => rank_of(b),
    }
}

/// Takes a space; `.param` of a device function is its memory.
fn take_space(b: &mut Builder<'_, '_>) -> Result<Space, LoadError> {
    let space = match b.peek() {
        Some("global") => Space::Global,
        Some("const") => Space::Const,
        Some("local") => Space::Local,
        Some("shared" | "shared::cta") => Space::Shared,
        Some("shared::cluster") => Space::SharedCluster,
        Some("param") if b.return_label().is_some() => Space::Local,
        Some("param" | "param::entry") => Space::Param,
        _ => return Err(b.unknown_word()),
    };
    b.take();
    Ok(space)
}

/// Takes `.u64`, the only size of addresses in modules of 64 bits.
fn take_u64(b: &mut Builder<'_, '_>) -> Result<(), LoadError> {
    b.expect("u64")
}

/// Start of a space's window of generic addresses; `None` where the two kinds of address are one.
fn window(space: Space) -> Option<u64> {
    match space {
        Space::Shared | Space::SharedCluster => Some(SHARED_WINDOW),
        Space::Local => Some(LOCAL_WINDOW),
        Space::Param => Some(PARAM_WINDOW),
        _ => None,
    }
}

fn convert(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let to = b.accept("to");
    let space = take_space(b)?;
    take_u64(b)?;
    let d = b.dst(Type::U64)?;
    let a = b.src(Type::U64)?;
    Ok(match window(space) {
        None => map1(d, a, |address: u64| address),
        Some(start) if to => map1(d, a, move |address: u64| {
            let inside = address.wrapping_sub(start);
            if inside < WINDOW_BYTES {
                inside
            } else {
                NOWHERE
            }
        }),
        Some(start) => map1(d, a, move |address: u64| {
            start + (address & (WINDOW_BYTES - 1))
        }),
    })
}

fn is_space(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let space = take_space(b)?;
    let p = b.pred_dst()?;
    let a = b.src(Type::U64)?;
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        let addresses = core.get::<u64>(a);
        let bits = lanes(mask)
            .filter(|&lane| belongs(core, space, addresses[lane]))
            .fold(0, |all, lane| all | 1 << lane);
        core.set_pred(p, bits, mask);
        Ok(Flow::Next)
    }))
}

/// Whether a generic address is one of `space`.
fn belongs(core: &Core<'_>, space: Space, address: u64) -> bool {
    let (target, _) = locate(Space::Generic, core.block, address);
    match (space, target) {
        (Space::Global | Space::Const, Target::Global) => {
            let constant = core
                .env
                .memory
                .find(address, 1)
                .is_ok_and(|index| core.env.memory.get(index).is_read_only());
            constant == (space == Space::Const)
        }
        (Space::Shared, Target::Shared(rank)) => rank == core.block,
        (Space::SharedCluster, Target::Shared(rank)) => rank < core.env.cluster.blocks.len(),
        (Space::Local, Target::Local) | (Space::Param, Target::Param) => true,
        _ => false,
    }
}

/// Whether an instruction on addresses of clusters speaks of generic ones, and their size.
fn cluster_words(b: &mut Builder<'_, '_>) -> Result<(bool, Type), LoadError> {
    let generic = !b.accept("shared::cluster");
    match b.accept_any(&["u32", "u64"]) {
        Some(0) => Ok((generic, Type::U32)),
        Some(_) => Ok((generic, Type::U64)),
        None => Err(b.unknown_word()),
    }
}

fn map_to_rank(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let (generic, ty) = cluster_words(b)?;
    let d = b.dst(ty)?;
    let a = b.src(ty)?;
    let rank = b.src(Type::U32)?;
    b.must_be_defined(rank);
    if generic && ty == Type::U32 {
        return Err(
            b.error("generic addresses have 64 bits: mapa.u64, or mapa.shared::cluster.u32")
        );
    }
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        map_lanes(core, mask, generic, d, [a, rank]);
        Ok(Flow::Next)
    }))
}

fn map_lanes(core: &mut Core<'_>, mask: u32, generic: bool, d: Dst, [a, rank]: [Src; 2]) {
    let addresses = core.get::<u64>(a);
    let ranks = core.get::<u32>(rank);
    let size = core.env.cluster.blocks.len() as u32;
    if let Some(lane) = lanes(mask).find(|&lane| ranks[lane] >= size) {
        let message = format!("rank {} in a cluster of {size} blocks", ranks[lane]);
        let report = core.report(Kind::OutOfBounds, lane, message);
        core.note(report);
    }
    let mut out = [0_u64; LANES];
    for lane in 0..LANES {
        // A name gives its offset, also where a generic address is asked for.
        let inside = if addresses[lane] < WINDOW_BYTES {
            addresses[lane]
        } else {
            addresses[lane].wrapping_sub(SHARED_WINDOW)
        };
        let offset = inside & ((1 << CLUSTER_SHIFT) - 1);
        let window = if generic { SHARED_WINDOW } else { 0 };
        let named = (u64::from(ranks[lane]) + 1) << CLUSTER_SHIFT;
        out[lane] = if inside < WINDOW_BYTES && named < WINDOW_BYTES {
            window + (named | offset)
        } else {
            NOWHERE
        };
    }
    core.set(d, &out, mask);
}

fn rank_of(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let (generic, ty) = cluster_words(b)?;
    let d = b.dst(Type::U32)?;
    let a = b.src(ty)?;
    let space = if generic {
        Space::Generic
    } else {
        Space::SharedCluster
    };
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        let addresses = core.get::<u64>(a);
        let own = core.block;
        // Of what is not shared memory the rank is undefined.
        let ranks = addresses.map(|address| match locate(space, own, address) {
            (Target::Shared(rank), _) => rank as u32,
            _ => u32::MAX,
        });
        core.set(d, &ranks, mask);
        Ok(Flow::Next)
    }))
}
