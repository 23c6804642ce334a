//! `ld` and `ldu`.

use std::sync::atomic::AtomicUsize;

use super::data::{Scalar, Values, check_written, read};
use super::lanes::{Use, each_group};
use super::qualifiers::{Opcode, elements, parse, space_of, take_policy};
use crate::exec::{Core, Flow, Handler};
use crate::lane::{LANES, each};
use crate::program::{Address, Builder, Class, Definedness, Dst, LoadError};
use crate::ptx::ast::{Space, Type};
use crate::race::{Kind, Order};

/// A decoded load.
struct Load<const V: usize> {
    usage: Use,
    address: Address,
    /// Where each element goes, and how wide its sign is spread: 0 for not at all.
    into: [(Dst, u8); V],
    /// Whether others may write what it reads while it waits for that.
    polls: bool,
}

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Load;
    b.definedness = Definedness::Own;
    let opcode = if b.opcode() == "ldu" {
        Opcode::Ldu
    } else {
        Opcode::Ld
    };
    let q = parse(b, opcode)?;
    let items = elements(b, q.vector)?;
    let mut into = Vec::with_capacity(items.len());
    for item in &items {
        let dst = b.dst_of(item, q.ty, true)?;
        let spread = if q.ty.is_signed() {
            b.register_type(item).map_or(0, Type::bytes)
        } else {
            0
        };
        into.push((dst, spread as u8));
    }
    let address = b.address()?;
    take_policy(b, q.policy)?;
    let space = space_of(b, q.space, &address)?;
    let polls = q.order != Order::Weak;
    if polls && !matches!(space, Space::Shared | Space::Local) {
        b.habits().talks_across_blocks = true;
    }
    let usage = Use {
        space,
        kind: Kind::Read,
        order: q.order,
        scope: q.scope,
        bytes: (q.vector * q.ty.bytes()) as u32,
        unit: q.ty.bytes() as u32,
        hint: AtomicUsize::default(),
    };
    let plan = Plan {
        usage,
        address,
        into,
        polls,
    };
    Ok(match (q.ty.bytes(), q.vector) {
        (1, 1) => plan.handler::<u8, 1>(),
        (1, 2) => plan.handler::<u8, 2>(),
        (1, _) => plan.handler::<u8, 4>(),
        (2, 1) => plan.handler::<u16, 1>(),
        (2, 2) => plan.handler::<u16, 2>(),
        (2, _) => plan.handler::<u16, 4>(),
        (4, 1) => plan.handler::<u32, 1>(),
        (4, 2) => plan.handler::<u32, 2>(),
        (4, _) => plan.handler::<u32, 4>(),
        (8, 1) => plan.handler::<u64, 1>(),
        (8, _) => plan.handler::<u64, 2>(),
        _ => plan.handler::<u128, 1>(),
    })
}

/// A load before its vector's length is known to the compiler.
struct Plan {
    usage: Use,
    address: Address,
    into: Vec<(Dst, u8)>,
    polls: bool,
}

impl Plan {
    fn handler<E: Scalar, const V: usize>(self) -> Handler {
        let load = Load::<V> {
            usage: self.usage,
            address: self.address,
            into: std::array::from_fn(|v| self.into[v]),
            polls: self.polls,
        };
        if load.polls {
            return Box::new(move |core, mask| {
                let values = load.values::<E>(core, mask)?;
                let news = load
                    .into
                    .iter()
                    .zip(&values)
                    .any(|((dst, _), row)| changes(core, *dst, row, mask));
                load.set(core, &values, mask);
                // The same as the last time: whoever asks again lets others run first.
                Ok(if news { Flow::Next } else { Flow::Yield })
            });
        }
        Box::new(move |core, mask| {
            let values = load.values::<E>(core, mask)?;
            load.set(core, &values, mask);
            Ok(Flow::Next)
        })
    }
}

impl<const V: usize> Load<V> {
    #[inline(always)]
    fn values<E: Scalar>(
        &self,
        core: &mut Core<'_>,
        mask: u32,
    ) -> Result<Values<E, V>, Box<crate::exec::Fault>> {
        let addresses = core.addresses(&self.address);
        let mut values = [[E::default(); LANES]; V];
        each_group(core, &self.usage, &addresses, mask, |core, group| {
            check_written(core, group, self.usage.bytes);
            read(core, group, &mut values);
            Ok(())
        })?;
        Ok(values)
    }

    #[inline(always)]
    fn set<E: Scalar>(&self, core: &mut Core<'_>, values: &Values<E, V>, mask: u32) {
        for ((dst, spread), row) in self.into.iter().zip(values) {
            match spread {
                0 => core.set(*dst, row, mask),
                2 => core.set(*dst, &each(row, |value| value.sign_extend() as u16), mask),
                4 => core.set(*dst, &each(row, |value| value.sign_extend() as u32), mask),
                8 => core.set(*dst, &each(row, Scalar::sign_extend), mask),
                _ => core.set(
                    *dst,
                    &each(row, |value| i128::from(value.sign_extend() as i64) as u128),
                    mask,
                ),
            }
            // What nobody wrote was reported: it counts as defined from here on.
            core.set_defined(*dst, u32::MAX, mask);
        }
    }
}

/// Whether any lane of `mask` would get another value than its register has.
pub(in crate::exec) fn changes<E: Scalar>(
    core: &Core<'_>,
    dst: Dst,
    values: &[E; LANES],
    mask: u32,
) -> bool {
    let Some(old) = dst.as_src() else {
        return false;
    };
    let old = core.get::<E>(old);
    (0..LANES)
        .any(|lane| mask >> lane & 1 != 0 && old[lane].to_bits64() != values[lane].to_bits64())
}
