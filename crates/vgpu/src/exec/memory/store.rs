//! `st`.

use std::sync::atomic::AtomicUsize;

use super::data::{Scalar, write};
use super::lanes::{Region, Use, each_group};
use super::qualifiers::{Opcode, elements, parse, space_of, take_policy};
use crate::exec::{Core, Flow, Handler};
use crate::lane::LANES;
use crate::program::{Address, Builder, Class, LoadError, Src};
use crate::ptx::ast::Space;
use crate::race::{Kind, Order};

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Store;
    let q = parse(b, Opcode::St)?;
    let address = b.address()?;
    let space = space_of(b, q.space, &address)?;
    if matches!(space, Space::Const | Space::Param) {
        return Err(b.error("constants and parameters of an entry cannot be written"));
    }
    let items = elements(b, q.vector)?;
    let mut from = Vec::with_capacity(items.len());
    for item in &items {
        let src = b.src_of(item, q.ty, true)?;
        if space == Space::Global {
            b.must_be_defined(src);
        }
        from.push(src);
    }
    take_policy(b, q.policy)?;
    if q.order != Order::Weak && !matches!(space, Space::Shared | Space::Local) {
        b.habits().talks_across_blocks = true;
    }
    let usage = Use {
        space,
        kind: Kind::Write,
        order: q.order,
        scope: q.scope,
        bytes: (q.vector * q.ty.bytes()) as u32,
        unit: q.ty.bytes() as u32,
        hint: AtomicUsize::default(),
    };
    Ok(match (q.ty.bytes(), q.vector) {
        (1, 1) => handler::<u8, 1>(usage, address, &from),
        (1, 2) => handler::<u8, 2>(usage, address, &from),
        (1, _) => handler::<u8, 4>(usage, address, &from),
        (2, 1) => handler::<u16, 1>(usage, address, &from),
        (2, 2) => handler::<u16, 2>(usage, address, &from),
        (2, _) => handler::<u16, 4>(usage, address, &from),
        (4, 1) => handler::<u32, 1>(usage, address, &from),
        (4, 2) => handler::<u32, 2>(usage, address, &from),
        (4, _) => handler::<u32, 4>(usage, address, &from),
        (8, 1) => handler::<u64, 1>(usage, address, &from),
        (8, _) => handler::<u64, 2>(usage, address, &from),
        _ => handler::<u128, 1>(usage, address, &from),
    })
}

fn handler<E: Scalar, const V: usize>(usage: Use, address: Address, from: &[Src]) -> Handler {
    let from: [Src; V] = std::array::from_fn(|v| from[v]);
    Box::new(move |core: &mut Core<'_>, mask| {
        let addresses = core.addresses(&address);
        let values = from.map(|src| core.get::<E>(src));
        let defined = if core.env.checks.registers {
            from.map(|src| core.defined(src))
        } else {
            [u32::MAX; V]
        };
        each_group(core, &usage, &addresses, mask, |core, group| {
            let reaches_global = matches!(group.region, Region::Allocation(_));
            if reaches_global && usage.space != Space::Global {
                let missing = group.lanes & !defined.iter().fold(u32::MAX, |all, d| all & d);
                if missing != 0 {
                    complain(core, missing);
                }
            }
            write(core, group, &values, &defined);
            Ok(())
        })?;
        Ok(Flow::Next)
    })
}

/// A generic store of an undefined register turned out to go to global memory.
#[cold]
fn complain(core: &mut Core<'_>, missing: u32) {
    let lane = missing.trailing_zeros() as usize & (LANES - 1);
    let message = format!(
        "a value stored to global memory was never set in {} of the lanes",
        missing.count_ones()
    );
    let report = core.report(crate::report::Kind::UninitialisedRegister, lane, message);
    core.note(report);
}
