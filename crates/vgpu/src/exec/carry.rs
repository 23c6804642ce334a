//! Sums of more than a word: `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc` and `madc`. Each lane has
//! a carry flag, which nothing but these reads or writes.

use super::map::vectorise;
use super::modifiers::{Decoded, sources, type_of};
use super::{Core, Flow, Handler};
use crate::lane::{LANES, Value};
use crate::num::int::{w32, w64};
use crate::program::{Builder, Dst, Src};
use crate::ptx::ast::Type;

const TYPES: [Type; 4] = [Type::U32, Type::S32, Type::U64, Type::S64];

/// `addc`, `subc` and `madc`; the others come from `integer`, which sees their `.cc`.
pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    match b.opcode() {
        "madc" => {
            let high = match b.accept_any(&["lo", "hi"]) {
                Some(index) => index == 1,
                None => return Err(b.error("madc needs .lo or .hi")),
            };
            let sets = b.accept("cc");
            mad(b, high, true, sets)
        }
        opcode => {
            let sets = b.accept("cc");
            add(b, opcode == "subc", true, sets)
        }
    }
}

/// A sum or difference that adds the flag (`uses`) and writes it (`sets`). For differences the flag
/// is a borrow.
pub(super) fn add(b: &mut Builder<'_, '_>, subtracts: bool, uses: bool, sets: bool) -> Decoded {
    let ty = type_of(b, &TYPES)?;
    let d = b.dst(ty)?;
    let [x, y] = sources(b, ty)?;
    // The third source is not looked at.
    let s = [x, y, y];
    Ok(match (ty.bytes(), subtracts) {
        (4, false) => chain(d, s, uses, sets, |a, b, _, carry| {
            w32::add_carry(a, b, carry)
        }),
        (4, true) => chain(d, s, uses, sets, |a, b, _, carry| {
            w32::sub_borrow(a, b, carry)
        }),
        (_, false) => chain(d, s, uses, sets, |a, b, _, carry| {
            w64::add_carry(a, b, carry)
        }),
        (_, true) => chain(d, s, uses, sets, |a, b, _, carry| {
            w64::sub_borrow(a, b, carry)
        }),
    })
}

/// A multiply-add that adds the flag (`uses`) and writes it (`sets`).
pub(super) fn mad(b: &mut Builder<'_, '_>, high: bool, uses: bool, sets: bool) -> Decoded {
    let ty = type_of(b, &TYPES)?;
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    Ok(match (ty.bytes(), high, ty.is_signed()) {
        (4, false, _) => chain(d, s, uses, sets, w32::mad_lo_carry),
        (4, true, false) => chain(d, s, uses, sets, w32::mad_hi_carry_u),
        (4, true, true) => chain(d, s, uses, sets, w32::mad_hi_carry_s),
        (_, false, _) => chain(d, s, uses, sets, w64::mad_lo_carry),
        (_, true, false) => chain(d, s, uses, sets, w64::mad_hi_carry_u),
        (_, true, true) => chain(d, s, uses, sets, w64::mad_hi_carry_s),
    })
}

fn chain<T: Value>(
    d: Dst,
    [a, b, c]: [Src; 3],
    uses: bool,
    sets: bool,
    f: impl Fn(T, T, T, bool) -> (T, bool) + Copy + Send + Sync + 'static,
) -> Handler {
    Box::new(move |core: &mut Core<'_>, mask| {
        let before = if uses { core.warp.carry } else { 0 };
        let mut after = 0;
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<T>(a);
                let b = core.get::<T>(b);
                let c = core.get::<T>(c);
                let mut out = [T::default(); LANES];
                for lane in 0..LANES {
                    let (value, carry) = f(a[lane], b[lane], c[lane], before >> lane & 1 != 0);
                    out[lane] = value;
                    after |= u32::from(carry) << lane;
                }
                core.set(d, &out, mask);
            },
        );
        if sets {
            core.warp.carry = core.warp.carry & !mask | after & mask;
        }
        Ok(Flow::Next)
    })
}
