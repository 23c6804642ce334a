//! Bitwise logic, on predicates too, shifts and permutations of bytes.

use super::bits::wraps;
use super::map::vectorise;
use super::modifiers::{BITS, BoolOp, Decoded, INTEGERS, refuse, sources, type_of};
use super::{Core, Flow, map1, map2, map3};
use crate::lane::LANES;
use crate::num::int::w32::{self, PrmtMode};
use crate::num::int::{w16, w64};
use crate::program::{Builder, PredDst, Src};
use crate::ptx::ast::{Operand, Type};

/// A function for a type without sign, by its width.
macro_rules! by_width {
    ($map:ident, $d:expr, $sources:expr, $ty:expr, $f16:expr, $f32:expr, $f64:expr) => {
        match $ty.bytes() {
            2 => $map($d, $sources, $f16),
            4 => $map($d, $sources, $f32),
            _ => $map($d, $sources, $f64),
        }
    };
}

const LOGICAL: [Type; 4] = [Type::Pred, Type::B16, Type::B32, Type::B64];

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    match b.opcode() {
        "and" => binary(b, BoolOp::And),
        "or" => binary(b, BoolOp::Or),
        "xor" => binary(b, BoolOp::Xor),
        "not" => not(b),
        "cnot" => {
            let ty = type_of(b, &BITS)?;
            let (d, a) = (b.dst(ty)?, b.src(ty)?);
            Ok(by_width!(map1, d, a, ty, w16::cnot, w32::cnot, w64::cnot))
        }
        "lop3" => lop3(b),
        "shl" => {
            let ty = type_of(b, &BITS)?;
            let d = b.dst(ty)?;
            let s = [b.src(ty)?, b.src(Type::U32)?];
            Ok(by_width!(map2, d, s, ty, w16::shl, w32::shl, w64::shl))
        }
        "shr" => shr(b),
        "shf" => funnel(b),
        _ => prmt(b),
    }
}

fn binary(b: &mut Builder<'_, '_>, op: BoolOp) -> Decoded {
    let ty = type_of(b, &LOGICAL)?;
    if ty == Type::Pred {
        let d = b.pred_dst()?;
        let [x, y] = [b.pred()?, b.pred()?];
        return Ok(Box::new(move |core, mask| {
            let bits = op.apply(core.pred(x), core.pred(y));
            core.set_pred(d, bits, mask);
            Ok(Flow::Next)
        }));
    }
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    // Sixteen bits sit zero-extended in words: the word's operation serves them.
    Ok(match (op, ty) {
        (BoolOp::And, Type::B64) => map2(d, s, |a: u64, b: u64| a & b),
        (BoolOp::Or, Type::B64) => map2(d, s, |a: u64, b: u64| a | b),
        (BoolOp::Xor, Type::B64) => map2(d, s, |a: u64, b: u64| a ^ b),
        (BoolOp::And, Type::B32) => map2(d, s, |a: u32, b: u32| a & b),
        (BoolOp::Or, Type::B32) => map2(d, s, |a: u32, b: u32| a | b),
        (BoolOp::Xor, Type::B32) => map2(d, s, |a: u32, b: u32| a ^ b),
        (BoolOp::And, _) => map2(d, s, |a: u16, b: u16| a & b),
        (BoolOp::Or, _) => map2(d, s, |a: u16, b: u16| a | b),
        (BoolOp::Xor, _) => map2(d, s, |a: u16, b: u16| a ^ b),
    })
}

fn not(b: &mut Builder<'_, '_>) -> Decoded {
    let ty = type_of(b, &LOGICAL)?;
    if ty == Type::Pred {
        let d = b.pred_dst()?;
        let a = b.pred()?;
        return Ok(Box::new(move |core, mask| {
            core.set_pred(d, !core.pred(a), mask);
            Ok(Flow::Next)
        }));
    }
    let (d, a) = (b.dst(ty)?, b.src(ty)?);
    Ok(by_width!(
        map1,
        d,
        a,
        ty,
        |a: u16| !a,
        |a: u32| !a,
        |a: u64| !a
    ))
}

/// `lop3.b32 d, a, b, c, table`, and with `.or` or `.and` also `d|p, a, b, c, table, q`.
fn lop3(b: &mut Builder<'_, '_>) -> Decoded {
    let op = BoolOp::accept(b);
    refuse(b, op == Some(BoolOp::Xor), "lop3 has .or and .and only")?;
    type_of(b, &[Type::B32])?;
    let (d, p) = match (op, b.operand()?) {
        (Some(_), Operand::Pair(d, p)) => (b.dst_of(d, Type::B32, false)?, b.pred_dst_of(p)?),
        (Some(_), _) => return Err(b.error("lop3 with .or or .and writes d|p")),
        (None, d) => (b.dst_of(d, Type::B32, false)?, PredDst(None)),
    };
    let s: [Src; 3] = sources(b, Type::B32)?;
    let table = b.immediate()?;
    refuse(
        b,
        !(0..=255).contains(&table),
        "the table of lop3 is a constant from 0 to 255",
    )?;
    let table = table as u8;
    let Some(op) = op else {
        return Ok(map3(d, s, move |a, b, c| w32::lop3(a, b, c, table)));
    };
    let q = b.pred()?;
    let [x, y, z] = s;
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        let mut bits = 0;
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let (x, y, z) = (core.get::<u32>(x), core.get::<u32>(y), core.get::<u32>(z));
                let mut out = [0_u32; LANES];
                for lane in 0..LANES {
                    out[lane] = w32::lop3(x[lane], y[lane], z[lane], table);
                    bits |= u32::from(out[lane] != 0) << lane;
                }
                core.set(d, &out, mask);
            },
        );
        let bits = op.apply(bits, core.pred(q));
        core.set_pred(p, bits, mask);
        Ok(Flow::Next)
    }))
}

fn shr(b: &mut Builder<'_, '_>) -> Decoded {
    let types = [BITS.as_slice(), INTEGERS.as_slice()].concat();
    let ty = type_of(b, &types)?;
    let d = b.dst(ty)?;
    let s = [b.src(ty)?, b.src(Type::U32)?];
    Ok(if ty.is_signed() {
        by_width!(map2, d, s, ty, w16::shr_s, w32::shr_s, w64::shr_s)
    } else {
        by_width!(map2, d, s, ty, w16::shr_u, w32::shr_u, w64::shr_u)
    })
}

fn funnel(b: &mut Builder<'_, '_>) -> Decoded {
    let right = match b.accept_any(&["l", "r"]) {
        Some(index) => index == 1,
        None => return Err(b.error("shf needs .l or .r")),
    };
    let wraps = wraps(b)?;
    type_of(b, &[Type::B32])?;
    let d = b.dst(Type::B32)?;
    let s = sources(b, Type::B32)?;
    Ok(match (right, wraps) {
        (false, false) => map3(d, s, w32::shf_l_clamp),
        (false, true) => map3(d, s, w32::shf_l_wrap),
        (true, false) => map3(d, s, w32::shf_r_clamp),
        (true, true) => map3(d, s, w32::shf_r_wrap),
    })
}

fn prmt(b: &mut Builder<'_, '_>) -> Decoded {
    // The mode stands behind the type; ptxas takes it before the type as well.
    let early = prmt_mode(b);
    type_of(b, &[Type::B32])?;
    let mode = early.or_else(|| prmt_mode(b));
    let d = b.dst(Type::B32)?;
    let s = sources(b, Type::B32)?;
    Ok(match mode {
        None => map3(d, s, w32::prmt),
        Some(mode) => map3(d, s, move |a, b, c| w32::prmt_mode(mode, a, b, c)),
    })
}

fn prmt_mode(b: &mut Builder<'_, '_>) -> Option<PrmtMode> {
    let modes = [
        PrmtMode::F4e,
        PrmtMode::B4e,
        PrmtMode::Rc8,
        PrmtMode::Ecl,
        PrmtMode::Ecr,
        PrmtMode::Rc16,
    ];
    b.accept_any(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"])
        .map(|index| modes[index])
}
