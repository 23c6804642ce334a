//! `mov` with its packing forms, and the selections `selp` and `slct`.

use super::map::vectorise;
use super::modifiers::{BITS, Decoded, INTEGERS, type_of};
use super::{Core, Flow, Handler, map1, map2, map4};
use crate::lane::{LANES, Value};
use crate::num::f32 as single;
use crate::program::{Builder, Class, Definedness, Dst, LoadError, Src};
use crate::ptx::ast::{Operand, Type};

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    match b.opcode() {
        "mov" => mov(b),
        "selp" => selp(b),
        _ => slct(b),
    }
}

fn mov(b: &mut Builder<'_, '_>) -> Decoded {
    let ty = b.ty()?;
    let known = matches!(ty, Type::Pred | Type::B128 | Type::F32 | Type::F64)
        || BITS.contains(&ty)
        || INTEGERS.contains(&ty);
    if !known {
        return Err(b.error("mov has no such type"));
    }
    if ty == Type::Pred {
        let d = b.pred_dst()?;
        let a = b.pred()?;
        return Ok(Box::new(move |core, mask| {
            core.set_pred(d, core.pred(a), mask);
            Ok(Flow::Next)
        }));
    }
    let to = b.elements()?;
    let from = b.elements()?;
    match (&*to, &*from) {
        ([d], [a]) => {
            let d = b.dst_of(d, ty, false)?;
            let a = b.src_of(a, ty, false)?;
            Ok(match ty.bytes() {
                2 => map1::<u16, u16>(d, a, |a| a),
                4 => map1::<u32, u32>(d, a, |a| a),
                8 => map1::<u64, u64>(d, a, |a| a),
                _ => map1::<u128, u128>(d, a, |a| a),
            })
        }
        ([d], items) => pack(b, ty, d, items),
        (items, [a]) => unpack(b, ty, items, a),
        _ => Err(b.error("mov packs one vector or unpacks one")),
    }
}

/// The type of a part when a `ty` is made of `count`, or an error: only bit types are taken apart.
fn part(b: &Builder<'_, '_>, ty: Type, count: usize) -> Result<Type, LoadError> {
    match (ty, count) {
        (Type::B16, 2) | (Type::B32, 4) => Ok(Type::B8),
        (Type::B32, 2) | (Type::B64, 4) => Ok(Type::B16),
        (Type::B64, 2) => Ok(Type::B32),
        (Type::B128, 2) => Ok(Type::B64),
        _ => Err(b.error(format!("a {ty:?} does not consist of {count} parts"))),
    }
}

fn pack(b: &mut Builder<'_, '_>, ty: Type, to: &Operand, items: &[Operand]) -> Decoded {
    let part = part(b, ty, items.len())?;
    let d = b.dst_of(to, ty, false)?;
    let s = items
        .iter()
        .map(|item| b.src_of(item, part, false))
        .collect::<Result<Vec<Src>, LoadError>>()?;
    Ok(match (ty, &*s) {
        (Type::B16, &[x, y]) => {
            map2::<u8, u8, u16>(d, [x, y], |x, y| u16::from(y) << 8 | u16::from(x))
        }
        (Type::B32, &[x, y]) => {
            map2::<u16, u16, u32>(d, [x, y], |x, y| u32::from(y) << 16 | u32::from(x))
        }
        (Type::B64, &[x, y]) => {
            map2::<u32, u32, u64>(d, [x, y], |x, y| u64::from(y) << 32 | u64::from(x))
        }
        (Type::B32, &[x, y, z, w]) => map4::<u8, u8, u32>(d, [x, y, z, w], |x, y, z, w| {
            u32::from_le_bytes([x, y, z, w])
        }),
        (Type::B64, &[x, y, z, w]) => map4::<u16, u16, u64>(d, [x, y, z, w], |x, y, z, w| {
            u64::from(w) << 48 | u64::from(z) << 32 | u64::from(y) << 16 | u64::from(x)
        }),
        (_, &[x, y]) => {
            map2::<u64, u64, u128>(d, [x, y], |x, y| u128::from(y) << 64 | u128::from(x))
        }
        _ => return Err(b.error("mov packs two or four parts")),
    })
}

fn unpack(b: &mut Builder<'_, '_>, ty: Type, items: &[Operand], from: &Operand) -> Decoded {
    let part = part(b, ty, items.len())?;
    let to = items
        .iter()
        .map(|item| b.dst_of(item, part, false))
        .collect::<Result<Vec<Dst>, LoadError>>()?;
    let a = b.src_of(from, ty, false)?;
    Ok(match (ty, part) {
        (Type::B16, _) => split::<u16, u8>(to, a, |a, index| (a >> (8 * index)) as u8),
        (Type::B32, Type::B8) => split::<u32, u8>(to, a, |a, index| (a >> (8 * index)) as u8),
        (Type::B32, _) => split::<u32, u16>(to, a, |a, index| (a >> (16 * index)) as u16),
        (Type::B64, Type::B16) => split::<u64, u16>(to, a, |a, index| (a >> (16 * index)) as u16),
        (Type::B64, _) => split::<u64, u32>(to, a, |a, index| (a >> (32 * index)) as u32),
        _ => split::<u128, u64>(to, a, |a, index| (a >> (64 * index)) as u64),
    })
}

fn split<A: Value, D: Value>(
    to: Vec<Dst>,
    a: Src,
    f: impl Fn(A, usize) -> D + Copy + Send + Sync + 'static,
) -> Handler {
    Box::new(move |core: &mut Core<'_>, mask| {
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<A>(a);
                for (index, d) in to.iter().enumerate() {
                    let mut out = [D::default(); LANES];
                    for lane in 0..LANES {
                        out[lane] = f(a[lane], index);
                    }
                    core.set(*d, &out, mask);
                }
            },
        );
        Ok(Flow::Next)
    })
}

/// Types of the selections.
fn selectable(b: &mut Builder<'_, '_>) -> Result<Type, LoadError> {
    let types = [&BITS[..], &INTEGERS[..], &[Type::F32, Type::F64][..]].concat();
    type_of(b, &types)
}

fn selp(b: &mut Builder<'_, '_>) -> Decoded {
    b.class = Class::Compare;
    b.definedness = Definedness::Own;
    let ty = selectable(b)?;
    let d = b.dst(ty)?;
    let s = [b.src(ty)?, b.src(ty)?];
    let p = b.pred()?;
    let chosen = move |core: &Core<'_>| {
        let known = match p {
            crate::program::Pred::Register { index, .. } => core.warp.pred_defined[index as usize],
            crate::program::Pred::Constant(_) => u32::MAX,
        };
        (core.pred(p), known)
    };
    Ok(by_bytes(ty, d, s, chosen))
}

/// `slct.d.s32` and `slct{.ftz}.d.f32`: the first source where the selector is at least zero.
fn slct(b: &mut Builder<'_, '_>) -> Decoded {
    b.class = Class::Compare;
    b.definedness = Definedness::Own;
    let ftz = b.accept("ftz");
    let ty = selectable(b)?;
    let by = type_of(
        b,
        if ftz {
            &[Type::F32]
        } else {
            &[Type::S32, Type::F32]
        },
    )?;
    let d = b.dst(ty)?;
    let s = [b.src(ty)?, b.src(ty)?];
    let c = b.src(by)?;
    let first: fn(u32) -> bool = match (by, ftz) {
        (Type::S32, _) => |c| c as i32 >= 0,
        (_, false) => single::selects_first::<false>,
        (_, true) => single::selects_first::<true>,
    };
    let chosen = move |core: &Core<'_>| {
        let values = core.get::<u32>(c);
        let bits = (0..LANES).fold(0, |all, lane| all | u32::from(first(values[lane])) << lane);
        let known = if core.env.checks.registers {
            core.defined(c)
        } else {
            u32::MAX
        };
        (bits, known)
    };
    Ok(by_bytes(ty, d, s, chosen))
}

fn by_bytes(
    ty: Type,
    d: Dst,
    s: [Src; 2],
    chosen: impl Fn(&Core<'_>) -> (u32, u32) + Send + Sync + 'static,
) -> Handler {
    match ty.bytes() {
        2 => select::<u16>(d, s, chosen),
        4 => select::<u32>(d, s, chosen),
        _ => select::<u64>(d, s, chosen),
    }
}

/// The first source in the lanes that `chosen` gives, else the second; `chosen` also says in which
/// lanes its answer is defined.
fn select<T: Value>(
    d: Dst,
    [first, second]: [Src; 2],
    chosen: impl Fn(&Core<'_>) -> (u32, u32) + Send + Sync + 'static,
) -> Handler {
    Box::new(move |core: &mut Core<'_>, mask| {
        let (bits, known) = chosen(core);
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<T>(first);
                let b = core.get::<T>(second);
                let mut out = [T::default(); LANES];
                for lane in 0..LANES {
                    out[lane] = if bits >> lane & 1 != 0 {
                        a[lane]
                    } else {
                        b[lane]
                    };
                }
                core.set(d, &out, mask);
            },
        );
        if core.env.checks.registers {
            // What is not selected may be undefined.
            let lanes = bits & core.defined(first) | !bits & core.defined(second);
            core.set_defined(d, lanes & known, mask);
        }
        Ok(Flow::Next)
    })
}
