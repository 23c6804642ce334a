//! Integer arithmetic of 16, 32 and 64 bits and of pairs of 16. Carries are in `carry`, fields and
//! counts of bits in `bits`.

use super::modifiers::{Decoded, INTEGERS, needs_target, refuse, sources, type_of};
use super::{carry, map1, map2, map3};
use crate::num::int::{w16, w32, w64, x2};
use crate::program::Builder;
use crate::ptx::ast::Type;

/// The function of one name in the width of the type.
macro_rules! by_width {
    ($map:ident, $d:expr, $sources:expr, $ty:expr, $name:ident) => {
        match $ty.bytes() {
            2 => $map($d, $sources, w16::$name),
            4 => $map($d, $sources, w32::$name),
            _ => $map($d, $sources, w64::$name),
        }
    };
}

/// The function for the sign and the width of the type.
macro_rules! by_sign {
    ($map:ident, $d:expr, $sources:expr, $ty:expr, $signed:ident, $unsigned:ident) => {
        if $ty.is_signed() {
            by_width!($map, $d, $sources, $ty, $signed)
        } else {
            by_width!($map, $d, $sources, $ty, $unsigned)
        }
    };
}

const SIGNED: [Type; 3] = [Type::S16, Type::S32, Type::S64];
const WORDS: [Type; 2] = [Type::U32, Type::S32];

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    match b.opcode() {
        "add" | "sub" => add(b),
        "mul" => mul(b),
        "mad" => mad(b),
        "mul24" | "mad24" => short(b),
        "div" | "rem" => divide(b),
        "sad" => {
            let ty = type_of(b, &INTEGERS)?;
            let d = b.dst(ty)?;
            let s = sources(b, ty)?;
            Ok(by_sign!(map3, d, s, ty, sad_s, sad_u))
        }
        "abs" => {
            let ty = type_of(b, &SIGNED)?;
            let (d, a) = (b.dst(ty)?, b.src(ty)?);
            Ok(by_width!(map1, d, a, ty, abs))
        }
        "neg" => {
            let ty = type_of(b, &SIGNED)?;
            let (d, a) = (b.dst(ty)?, b.src(ty)?);
            Ok(by_width!(map1, d, a, ty, neg))
        }
        "min" | "max" => extreme(b),
        _ => Err(b.unknown_word()),
    }
}

fn add(b: &mut Builder<'_, '_>) -> Decoded {
    let subtracts = b.opcode() == "sub";
    if b.accept("cc") {
        return carry::add(b, subtracts, false, true);
    }
    if b.accept("sat") {
        type_of(b, &[Type::S32])?;
        let d = b.dst(Type::S32)?;
        let s = sources(b, Type::S32)?;
        return Ok(if subtracts {
            map2(d, s, w32::sub_sat)
        } else {
            map2(d, s, w32::add_sat)
        });
    }
    let ty = b.ty()?;
    let paired = matches!(ty, Type::U16x2 | Type::S16x2);
    refuse(
        b,
        !INTEGERS.contains(&ty) && (!paired || subtracts),
        "not a type of this instruction",
    )?;
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    if paired {
        needs_target(b, 90, "addition of pairs of 16-bit integers")?;
        return Ok(map2(d, s, x2::add));
    }
    Ok(if subtracts {
        by_width!(map2, d, s, ty, sub)
    } else {
        by_width!(map2, d, s, ty, add)
    })
}

/// Which part of a product is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Low,
    High,
    Wide,
}

fn part(b: &mut Builder<'_, '_>) -> Result<Part, crate::program::LoadError> {
    match b.accept_any(&["lo", "hi", "wide"]) {
        Some(0) => Ok(Part::Low),
        Some(1) => Ok(Part::High),
        Some(_) => Ok(Part::Wide),
        None => Err(b.error("an integer product needs .lo, .hi or .wide")),
    }
}

/// The type of twice the width.
fn double(b: &Builder<'_, '_>, ty: Type) -> Result<Type, crate::program::LoadError> {
    match ty {
        Type::U16 => Ok(Type::U32),
        Type::S16 => Ok(Type::S32),
        Type::U32 => Ok(Type::U64),
        Type::S32 => Ok(Type::S64),
        _ => Err(b.error(".wide is for 16- and 32-bit factors")),
    }
}

fn mul(b: &mut Builder<'_, '_>) -> Decoded {
    let part = part(b)?;
    let ty = type_of(b, &INTEGERS)?;
    let result = if part == Part::Wide {
        double(b, ty)?
    } else {
        ty
    };
    let d = b.dst(result)?;
    let s = sources(b, ty)?;
    Ok(match (part, ty) {
        (Part::Low, _) => by_width!(map2, d, s, ty, mul_lo),
        (Part::High, _) => by_sign!(map2, d, s, ty, mul_hi_s, mul_hi_u),
        (Part::Wide, Type::U16) => map2(d, s, w16::mul_wide_u),
        (Part::Wide, Type::S16) => map2(d, s, w16::mul_wide_s),
        (Part::Wide, Type::U32) => map2(d, s, w32::mul_wide_u),
        (Part::Wide, _) => map2(d, s, w32::mul_wide_s),
    })
}

fn mad(b: &mut Builder<'_, '_>) -> Decoded {
    let part = part(b)?;
    if b.accept("cc") {
        refuse(b, part == Part::Wide, ".cc is for .lo and .hi")?;
        return carry::mad(b, part == Part::High, false, true);
    }
    if b.accept("sat") {
        refuse(b, part != Part::High, ".sat is for mad.hi.s32")?;
        type_of(b, &[Type::S32])?;
        let d = b.dst(Type::S32)?;
        let s = sources(b, Type::S32)?;
        return Ok(map3(d, s, w32::mad_hi_sat));
    }
    let ty = type_of(b, &INTEGERS)?;
    let result = if part == Part::Wide {
        double(b, ty)?
    } else {
        ty
    };
    let d = b.dst(result)?;
    let [x, y] = sources(b, ty)?;
    let s = [x, y, b.src(result)?];
    Ok(match (part, ty) {
        (Part::Low, _) => by_width!(map3, d, s, ty, mad_lo),
        (Part::High, _) => by_sign!(map3, d, s, ty, mad_hi_s, mad_hi_u),
        (Part::Wide, Type::U16) => map3(d, s, w16::mad_wide_u),
        (Part::Wide, Type::S16) => map3(d, s, w16::mad_wide_s),
        (Part::Wide, Type::U32) => map3(d, s, w32::mad_wide_u),
        (Part::Wide, _) => map3(d, s, w32::mad_wide_s),
    })
}

/// `mul24` and `mad24`.
fn short(b: &mut Builder<'_, '_>) -> Decoded {
    let adds = b.opcode() == "mad24";
    let high = match b.accept_any(&["lo", "hi"]) {
        Some(index) => index == 1,
        None => return Err(b.error(".lo or .hi expected")),
    };
    let saturates = adds && b.accept("sat");
    let ty = type_of(b, &WORDS)?;
    refuse(
        b,
        saturates && !(high && ty == Type::S32),
        ".sat is for mad24.hi.s32",
    )?;
    let d = b.dst(ty)?;
    if adds {
        let s = sources(b, ty)?;
        return Ok(match (high, ty.is_signed()) {
            (true, true) if saturates => map3(d, s, w32::mad24_hi_sat),
            (true, true) => map3(d, s, w32::mad24_hi_s),
            (true, false) => map3(d, s, w32::mad24_hi_u),
            (false, true) => map3(d, s, w32::mad24_lo_s),
            (false, false) => map3(d, s, w32::mad24_lo_u),
        });
    }
    let s = sources(b, ty)?;
    Ok(match (high, ty.is_signed()) {
        (true, true) => map2(d, s, w32::mul24_hi_s),
        (true, false) => map2(d, s, w32::mul24_hi_u),
        (false, true) => map2(d, s, w32::mul24_lo_s),
        (false, false) => map2(d, s, w32::mul24_lo_u),
    })
}

fn divide(b: &mut Builder<'_, '_>) -> Decoded {
    let remainder = b.opcode() == "rem";
    let ty = type_of(b, &INTEGERS)?;
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    Ok(if remainder {
        by_sign!(map2, d, s, ty, rem_s, rem_u)
    } else {
        by_sign!(map2, d, s, ty, div_s, div_u)
    })
}

/// `min` and `max`.
fn extreme(b: &mut Builder<'_, '_>) -> Decoded {
    let max = b.opcode() == "max";
    let relu = b.accept("relu");
    let ty = if relu {
        needs_target(b, 90, ".relu")?;
        type_of(b, &[Type::S32, Type::S16x2])?
    } else {
        let mut all = INTEGERS.to_vec();
        all.extend([Type::U16x2, Type::S16x2]);
        type_of(b, &all)?
    };
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    if matches!(ty, Type::U16x2 | Type::S16x2) {
        needs_target(b, 90, "a pair of 16-bit integers")?;
        return Ok(match (max, ty, relu) {
            (true, Type::U16x2, _) => map2(d, s, x2::max_u),
            (false, Type::U16x2, _) => map2(d, s, x2::min_u),
            (true, _, false) => map2(d, s, x2::max_s),
            (false, _, false) => map2(d, s, x2::min_s),
            (true, _, true) => map2(d, s, |a, b| x2::relu(x2::max_s(a, b))),
            (false, _, true) => map2(d, s, |a, b| x2::relu(x2::min_s(a, b))),
        });
    }
    Ok(match (max, relu) {
        (true, true) => map2(d, s, |a, b| w32::relu(w32::max_s(a, b))),
        (false, true) => map2(d, s, |a, b| w32::relu(w32::min_s(a, b))),
        (true, false) => by_sign!(map2, d, s, ty, max_s, max_u),
        (false, false) => by_sign!(map2, d, s, ty, min_s, min_u),
    })
}
