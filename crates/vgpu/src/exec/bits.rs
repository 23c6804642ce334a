//! Counts, searches and fields of bits, and the dot products of bytes.

use super::modifiers::{Decoded, sources, type_of};
use super::{map1, map2, map3, map4};
use crate::num::int::{w32, w64};
use crate::program::Builder;
use crate::ptx::ast::Type;

const UNTYPED: [Type; 2] = [Type::B32, Type::B64];
const TYPED: [Type; 4] = [Type::U32, Type::U64, Type::S32, Type::S64];
const WORDS: [Type; 2] = [Type::U32, Type::S32];

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    match b.opcode() {
        "popc" | "clz" | "brev" => count(b),
        "bfind" => find(b),
        "fns" => {
            type_of(b, &[Type::B32])?;
            let d = b.dst(Type::B32)?;
            let s = [b.src(Type::B32)?, b.src(Type::B32)?, b.src(Type::S32)?];
            Ok(map3(d, s, w32::fns))
        }
        "bfe" => extract(b),
        "bfi" => {
            let ty = type_of(b, &UNTYPED)?;
            let d = b.dst(ty)?;
            let [x, y] = sources(b, ty)?;
            let [start, length] = sources(b, Type::U32)?;
            let s = [x, y, start, length];
            Ok(match ty {
                Type::B32 => map4(d, s, w32::bfi),
                _ => map4(d, s, w64::bfi),
            })
        }
        "bmsk" => {
            let wraps = wraps(b)?;
            type_of(b, &[Type::B32])?;
            let d = b.dst(Type::B32)?;
            let s = sources(b, Type::U32)?;
            Ok(if wraps {
                map2(d, s, w32::bmsk_wrap)
            } else {
                map2(d, s, w32::bmsk_clamp)
            })
        }
        "szext" => {
            let wraps = wraps(b)?;
            let ty = type_of(b, &WORDS)?;
            let d = b.dst(ty)?;
            let s = [b.src(ty)?, b.src(Type::U32)?];
            Ok(match (wraps, ty.is_signed()) {
                (true, true) => map2(d, s, w32::szext_wrap_s),
                (true, false) => map2(d, s, w32::szext_wrap_u),
                (false, true) => map2(d, s, w32::szext_clamp_s),
                (false, false) => map2(d, s, w32::szext_clamp_u),
            })
        }
        _ => dot(b),
    }
}

/// `.wrap` (true) or `.clamp`.
pub(super) fn wraps(b: &mut Builder<'_, '_>) -> Result<bool, crate::program::LoadError> {
    match b.accept_any(&["clamp", "wrap"]) {
        Some(index) => Ok(index == 1),
        None => Err(b.error(".clamp or .wrap expected")),
    }
}

fn count(b: &mut Builder<'_, '_>) -> Decoded {
    let ty = type_of(b, &UNTYPED)?;
    let reverses = b.opcode() == "brev";
    let d = b.dst(if reverses { ty } else { Type::U32 })?;
    let a = b.src(ty)?;
    Ok(match (b.opcode(), ty) {
        ("brev", Type::B32) => map1(d, a, w32::brev),
        ("brev", _) => map1(d, a, w64::brev),
        ("popc", Type::B32) => map1(d, a, w32::popc),
        ("popc", _) => map1(d, a, w64::popc),
        (_, Type::B32) => map1(d, a, w32::clz),
        (_, _) => map1(d, a, w64::clz),
    })
}

fn find(b: &mut Builder<'_, '_>) -> Decoded {
    let shift = b.accept("shiftamt");
    let ty = type_of(b, &TYPED)?;
    let d = b.dst(Type::U32)?;
    let a = b.src(ty)?;
    Ok(match (ty, shift) {
        (Type::U32, false) => map1(d, a, w32::bfind_u),
        (Type::U32, true) => map1(d, a, w32::bfind_shift_u),
        (Type::S32, false) => map1(d, a, w32::bfind_s),
        (Type::S32, true) => map1(d, a, w32::bfind_shift_s),
        (Type::U64, false) => map1(d, a, w64::bfind_u),
        (Type::U64, true) => map1(d, a, w64::bfind_shift_u),
        (_, false) => map1(d, a, w64::bfind_s),
        (_, true) => map1(d, a, w64::bfind_shift_s),
    })
}

fn extract(b: &mut Builder<'_, '_>) -> Decoded {
    let ty = type_of(b, &TYPED)?;
    let d = b.dst(ty)?;
    let s = [b.src(ty)?, b.src(Type::U32)?, b.src(Type::U32)?];
    Ok(match ty {
        Type::U32 => map3(d, s, w32::bfe_u),
        Type::S32 => map3(d, s, w32::bfe_s),
        Type::U64 => map3(d, s, w64::bfe_u),
        _ => map3(d, s, w64::bfe_s),
    })
}

/// `dp4a` and `dp2a`.
fn dot(b: &mut Builder<'_, '_>) -> Decoded {
    let halves = match b.opcode() {
        "dp2a" => match b.accept_any(&["lo", "hi"]) {
            Some(index) => Some(index == 1),
            None => return Err(b.error("dp2a needs .lo or .hi")),
        },
        _ => None,
    };
    let first = type_of(b, &WORDS)?;
    let second = type_of(b, &WORDS)?;
    // The sum is signed if a factor is; its bits are the same.
    let d = b.dst(Type::B32)?;
    let s = sources(b, Type::B32)?;
    Ok(match (halves, first.is_signed(), second.is_signed()) {
        (None, false, false) => map3(d, s, w32::dp4a::<false, false>),
        (None, false, true) => map3(d, s, w32::dp4a::<false, true>),
        (None, true, false) => map3(d, s, w32::dp4a::<true, false>),
        (None, true, true) => map3(d, s, w32::dp4a::<true, true>),
        (Some(false), false, false) => map3(d, s, w32::dp2a::<false, false, false>),
        (Some(false), false, true) => map3(d, s, w32::dp2a::<false, true, false>),
        (Some(false), true, false) => map3(d, s, w32::dp2a::<true, false, false>),
        (Some(false), true, true) => map3(d, s, w32::dp2a::<true, true, false>),
        (Some(true), false, false) => map3(d, s, w32::dp2a::<false, false, true>),
        (Some(true), false, true) => map3(d, s, w32::dp2a::<false, true, true>),
        (Some(true), true, false) => map3(d, s, w32::dp2a::<true, false, true>),
        (Some(true), true, true) => map3(d, s, w32::dp2a::<true, true, true>),
    })
}
