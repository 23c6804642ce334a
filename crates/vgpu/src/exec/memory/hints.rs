//! Hints about caches. Nothing is cached here, so they change nothing; their addresses are checked
//! where the hardware would, too.

use super::qualifiers::space_of;
use crate::exec::{Core, Flow, Handler, Place};
use crate::lane::{LANES, lanes};
use crate::program::{Address, Builder, LoadError};
use crate::ptx::ast::{Space, Type};
use crate::race::{self, Proxy, RangeAccess};
use crate::report;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    match b.opcode() {
        "prefetch" | "prefetchu" => prefetch(b),
        "applypriority" => {
            let space = global_or_generic(b);
            b.expect("L2::evict_normal")?;
            line(b, space)?;
            Ok(nothing())
        }
        "discard" => discard(b),
        _ => create_policy(b),
    }
}

fn nothing() -> Handler {
    Box::new(|_, _| Ok(Flow::Next))
}

fn global_or_generic(b: &mut Builder<'_, '_>) -> Space {
    if b.accept("global") {
        Space::Global
    } else {
        Space::Generic
    }
}

/// A prefetch of an address that is not mapped does nothing, by definition; of what is, too.
fn prefetch(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let space = match b.accept_any(&["global", "local", "const", "param"]) {
        Some(0) => Space::Global,
        Some(1) => Space::Local,
        Some(2) => Space::Const,
        Some(_) => Space::Param,
        None => Space::Generic,
    };
    let levels: &[&str] = match (b.opcode(), space) {
        ("prefetchu", Space::Generic) => &["L1"],
        ("prefetchu", _) => &[],
        (_, Space::Global) => &["L1", "L2", "L2::evict_last", "L2::evict_normal"],
        (_, Space::Local) => &["L1", "L2"],
        (_, Space::Generic) => &["L1", "L2", "tensormap"],
        _ => &["tensormap"],
    };
    if b.accept_any(levels).is_none() {
        return Err(b.unknown_word());
    }
    let address = b.address()?;
    space_of(b, space, &address)?;
    Ok(nothing())
}

/// An address and the size 128, the only one there is.
fn line(b: &mut Builder<'_, '_>, space: Space) -> Result<(Address, Space), LoadError> {
    let address = b.address()?;
    let space = space_of(b, space, &address)?;
    if b.immediate()? != 128 {
        return Err(b.error("the size must be 128"));
    }
    Ok((address, space))
}

/// `discard.L2`: its bytes become undefined, which is what is modelled: a write that leaves them as if
/// never written.
fn discard(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    const BYTES: u64 = 128;
    let space = global_or_generic(b);
    b.expect("L2")?;
    let (address, space) = line(b, space)?;
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        let addresses = core.addresses(&address);
        for lane in lanes(mask) {
            let at = addresses[lane];
            let Place::Global { allocation, offset } =
                core.resolve_write(space, lane, at, BYTES)?
            else {
                let message = format!("address {at:#x} is not in global memory");
                return Err(core.fault(report::Kind::OutOfBounds, lane, message));
            };
            core.env
                .memory
                .get(allocation)
                .mark_unwritten(offset, BYTES);
            let range = RangeAccess {
                space: race::Space::Global,
                kind: race::Kind::Write,
                proxy: Proxy::Generic,
                address: at,
                bytes: BYTES,
                inst: core.pc,
            };
            if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race)
                && let Some(conflict) = race.access_range(id, lane as u32, &range)
            {
                core.env.note_conflict(conflict);
            }
        }
        Ok(Flow::Next)
    }))
}

/// `createpolicy`: an opaque value; a mark tells it from an address or a count in a trace.
fn create_policy(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    const PRIMARY: [&str; 4] = [
        "L2::evict_last",
        "L2::evict_normal",
        "L2::evict_first",
        "L2::evict_unchanged",
    ];
    const SECONDARY: [&str; 2] = ["L2::evict_first", "L2::evict_unchanged"];
    let policy = 0x1000_0000_0000_0000_u64;
    let d = match b.accept_any(&["fractional", "range", "cvt"]) {
        Some(0) => {
            let first = b.accept_any(&PRIMARY).ok_or_else(|| b.unknown_word())?;
            let second = b.accept_any(&SECONDARY).unwrap_or(0);
            b.expect("b64")?;
            let d = b.dst(Type::B64)?;
            if b.operands_left() > 0 {
                let fraction = b.src(Type::F32)?;
                b.must_be_defined(fraction);
            }
            (d, policy | (first as u64) << 4 | second as u64)
        }
        Some(1) => {
            global_or_generic(b);
            let first = b.accept_any(&PRIMARY).ok_or_else(|| b.unknown_word())?;
            let second = b.accept_any(&SECONDARY).unwrap_or(0);
            b.expect("b64")?;
            let d = b.dst(Type::B64)?;
            b.address()?;
            for _ in 0..2 {
                let size = b.src(Type::U32)?;
                b.must_be_defined(size);
            }
            (d, policy | 0x100 | (first as u64) << 4 | second as u64)
        }
        Some(_) => {
            b.expect("L2")?;
            b.expect("b64")?;
            let d = b.dst(Type::B64)?;
            let property = b.src(Type::B64)?;
            b.must_be_defined(property);
            (d, policy | 0x200)
        }
        None => return Err(b.unknown_word()),
    };
    let (d, value) = d;
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        core.set(d, &[value; LANES], mask);
        Ok(Flow::Next)
    }))
}
