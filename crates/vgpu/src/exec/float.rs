//! f32 and f64 arithmetic that is exact up to one rounding. Reciprocals, roots and the approximate
//! functions are in `approximate`.

use super::map::test1;
use super::modifiers::{Decoded, must_round, refuse, rounding, sources, type_of};
use super::{Flow, Handler, map1, map2, map3};
use crate::num::{FTZ, KEEP, RM, RN, RP, RZ, approx, f32 as single, f64 as double};
use crate::program::{Builder, Class, Dst, LoadError, Src};
use crate::ptx::ast::Type;

/// A single-precision function in a rounding mode, flushing or not.
macro_rules! single_rounded {
    ($round:expr, $ftz:expr, $name:ident) => {
        match ($round, $ftz) {
            (RN, KEEP) => single::$name::<RN, KEEP>,
            (RN, FTZ) => single::$name::<RN, FTZ>,
            (RZ, KEEP) => single::$name::<RZ, KEEP>,
            (RZ, FTZ) => single::$name::<RZ, FTZ>,
            (RM, KEEP) => single::$name::<RM, KEEP>,
            (RM, FTZ) => single::$name::<RM, FTZ>,
            (_, KEEP) => single::$name::<RP, KEEP>,
            (_, FTZ) => single::$name::<RP, FTZ>,
        }
    };
}
pub(super) use single_rounded;

/// A double-precision function in a rounding mode.
macro_rules! double_rounded {
    ($round:expr, $name:ident) => {
        match $round {
            RN => double::$name::<RN>,
            RZ => double::$name::<RZ>,
            RM => double::$name::<RM>,
            _ => double::$name::<RP>,
        }
    };
}
pub(super) use double_rounded;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    b.class = Class::Float;
    if b.words().iter().any(|word| word == "f32x2") {
        return Err(b.error(".f32x2 needs target sm_100; sm_80 to sm_90a are supported"));
    }
    match b.opcode() {
        "add" | "sub" | "mul" => binary(b),
        "fma" | "mad" => fused(b),
        "div" => divide(b),
        "abs" | "neg" => sign(b),
        "min" | "max" => extreme(b),
        "copysign" => {
            let ty = float_type(b, false, false)?;
            let d = b.dst(ty)?;
            let s = sources(b, ty)?;
            Ok(match ty {
                Type::F32 => map2(d, s, single::copysign),
                _ => map2(d, s, double::copysign),
            })
        }
        _ => testp(b),
    }
}

/// Takes `.f32` or `.f64`; the latter excludes `.ftz` and `.sat`.
pub(super) fn float_type(b: &mut Builder<'_, '_>, ftz: bool, sat: bool) -> Result<Type, LoadError> {
    let ty = type_of(b, &[Type::F32, Type::F64])?;
    if ty == Type::F64 {
        b.class = Class::Double;
        refuse(b, ftz || sat, ".f64 has no .ftz and no .sat here")?;
    }
    Ok(ty)
}

fn binary(b: &mut Builder<'_, '_>) -> Decoded {
    let round = rounding(b).unwrap_or(RN);
    let ftz = b.accept("ftz");
    let sat = b.accept("sat");
    let opcode = b.opcode();
    let ty = float_type(b, ftz, sat)?;
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    if ty == Type::F64 {
        // Nearest is what kernels use; the other modes need not be inlined.
        let f: fn(u64, u64) -> u64 = match (opcode, round) {
            ("add", RN) => return Ok(map2(d, s, double::add::<RN>)),
            ("sub", RN) => return Ok(map2(d, s, double::sub::<RN>)),
            ("mul", RN) => return Ok(map2(d, s, double::mul::<RN>)),
            ("add", _) => double_rounded!(round, add),
            ("sub", _) => double_rounded!(round, sub),
            _ => double_rounded!(round, mul),
        };
        return Ok(map2(d, s, f));
    }
    let f: fn(u32, u32) -> u32 = match (opcode, round, ftz) {
        ("add", RN, KEEP) if !sat => return Ok(map2(d, s, single::add::<RN, KEEP>)),
        ("add", RN, FTZ) if !sat => return Ok(map2(d, s, single::add::<RN, FTZ>)),
        ("sub", RN, KEEP) if !sat => return Ok(map2(d, s, single::sub::<RN, KEEP>)),
        ("sub", RN, FTZ) if !sat => return Ok(map2(d, s, single::sub::<RN, FTZ>)),
        ("mul", RN, KEEP) if !sat => return Ok(map2(d, s, single::mul::<RN, KEEP>)),
        ("mul", RN, FTZ) if !sat => return Ok(map2(d, s, single::mul::<RN, FTZ>)),
        ("add", ..) => single_rounded!(round, ftz, add),
        ("sub", ..) => single_rounded!(round, ftz, sub),
        _ => single_rounded!(round, ftz, mul),
    };
    Ok(if sat {
        map2(d, s, move |a, b| single::sat(f(a, b)))
    } else {
        map2(d, s, f)
    })
}

/// `fma`, and `mad`, which is the same from sm_20 on.
fn fused(b: &mut Builder<'_, '_>) -> Decoded {
    let round = must_round(b)?;
    let ftz = b.accept("ftz");
    let sat = b.accept("sat");
    let ty = float_type(b, ftz, sat)?;
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    if ty == Type::F64 {
        if round == RN {
            return Ok(map3(d, s, double::fma::<RN>));
        }
        let f: fn(u64, u64, u64) -> u64 = double_rounded!(round, fma);
        return Ok(map3(d, s, f));
    }
    match (round, ftz, sat) {
        (RN, KEEP, false) => return Ok(map3(d, s, single::fma::<RN, KEEP>)),
        (RN, FTZ, false) => return Ok(map3(d, s, single::fma::<RN, FTZ>)),
        _ => {}
    }
    let f: fn(u32, u32, u32) -> u32 = single_rounded!(round, ftz, fma);
    Ok(if sat {
        map3(d, s, move |a, b, c| single::sat(f(a, b, c)))
    } else {
        map3(d, s, f)
    })
}

fn divide(b: &mut Builder<'_, '_>) -> Decoded {
    let approximate = b.accept_any(&["approx", "full"]);
    let round = match approximate {
        Some(_) => RN,
        None => must_round(b)?,
    };
    let ftz = b.accept("ftz");
    let ty = float_type(b, ftz || approximate.is_some(), false)?;
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    if ty == Type::F64 {
        let f: fn(u64, u64) -> u64 = double_rounded!(round, div);
        return Ok(map2(d, s, f));
    }
    Ok(match (approximate, round, ftz) {
        (Some(0), _, KEEP) => map2(d, s, approx::div_approx::<KEEP>),
        (Some(0), _, FTZ) => map2(d, s, approx::div_approx::<FTZ>),
        (Some(_), _, KEEP) => map2(d, s, approx::div_full::<KEEP>),
        (Some(_), _, FTZ) => map2(d, s, approx::div_full::<FTZ>),
        (None, RN, KEEP) => map2(d, s, single::div::<RN, KEEP>),
        _ => {
            let f: fn(u32, u32) -> u32 = single_rounded!(round, ftz, div);
            map2(d, s, f)
        }
    })
}

/// `abs` and `neg`.
fn sign(b: &mut Builder<'_, '_>) -> Decoded {
    let ftz = b.accept("ftz");
    let negates = b.opcode() == "neg";
    let ty = float_type(b, ftz, false)?;
    let (d, a) = (b.dst(ty)?, b.src(ty)?);
    Ok(match (negates, ty, ftz) {
        (false, Type::F32, KEEP) => map1(d, a, single::abs::<KEEP>),
        (false, Type::F32, FTZ) => map1(d, a, single::abs::<FTZ>),
        (true, Type::F32, KEEP) => map1(d, a, single::neg::<KEEP>),
        (true, Type::F32, FTZ) => map1(d, a, single::neg::<FTZ>),
        (false, ..) => map1(d, a, double::abs),
        (true, ..) => map1(d, a, double::neg),
    })
}

/// `min` and `max`: `{.ftz}{.NaN}{.xorsign.abs}.f32`, `.f64`.
fn extreme(b: &mut Builder<'_, '_>) -> Decoded {
    let max = b.opcode() == "max";
    let ftz = b.accept("ftz");
    let nan = b.accept("NaN");
    let xorsign = b.accept("xorsign");
    if xorsign {
        b.expect("abs")?;
        super::modifiers::needs_target(b, 86, ".xorsign.abs")?;
    }
    let ty = float_type(b, ftz || nan || xorsign, false)?;
    let d = b.dst(ty)?;
    let s = sources(b, ty)?;
    Ok(match (ty, max, xorsign) {
        (Type::F64, false, _) => map2(d, s, double::min),
        (Type::F64, true, _) => map2(d, s, double::max),
        (_, false, false) => match (ftz, nan) {
            (KEEP, false) => map2(d, s, single::min::<KEEP, false>),
            (KEEP, true) => map2(d, s, single::min::<KEEP, true>),
            (FTZ, false) => map2(d, s, single::min::<FTZ, false>),
            (FTZ, true) => map2(d, s, single::min::<FTZ, true>),
        },
        (_, true, false) => match (ftz, nan) {
            (KEEP, false) => map2(d, s, single::max::<KEEP, false>),
            (KEEP, true) => map2(d, s, single::max::<KEEP, true>),
            (FTZ, false) => map2(d, s, single::max::<FTZ, false>),
            (FTZ, true) => map2(d, s, single::max::<FTZ, true>),
        },
        (_, _, true) => with_sign_product(d, s, max, ftz, nan),
    })
}

/// `.xorsign.abs`.
fn with_sign_product(d: Dst, s: [Src; 2], max: bool, ftz: bool, nan: bool) -> Handler {
    let f: fn(u32, u32) -> u32 = match (max, ftz, nan) {
        (false, KEEP, false) => single::min::<KEEP, false>,
        (false, KEEP, true) => single::min::<KEEP, true>,
        (false, FTZ, false) => single::min::<FTZ, false>,
        (false, FTZ, true) => single::min::<FTZ, true>,
        (true, KEEP, false) => single::max::<KEEP, false>,
        (true, KEEP, true) => single::max::<KEEP, true>,
        (true, FTZ, false) => single::max::<FTZ, false>,
        (true, FTZ, true) => single::max::<FTZ, true>,
    };
    map2(d, s, move |a, b| single::xorsign_abs(f, a, b))
}

fn testp(b: &mut Builder<'_, '_>) -> Decoded {
    b.class = Class::Compare;
    let property = b.take().unwrap_or("");
    let of_single: fn(u32) -> bool = match property {
        "finite" => single::is_finite,
        "infinite" => single::is_infinite,
        "number" => |a| !single::is_nan(a),
        "notanumber" => single::is_nan,
        "normal" => single::is_normal,
        "subnormal" => single::is_subnormal,
        other => return Err(b.error(format!("testp has no property .{other}"))),
    };
    let of_double: fn(u64) -> bool = match property {
        "finite" => double::is_finite,
        "infinite" => double::is_infinite,
        "number" => |a| !double::is_nan(a),
        "notanumber" => double::is_nan,
        "normal" => double::is_normal,
        _ => double::is_subnormal,
    };
    let ty = type_of(b, &[Type::F32, Type::F64])?;
    let p = b.pred_dst()?;
    let a = b.src(ty)?;
    let test = match ty {
        Type::F32 => test1(a, of_single),
        _ => test1(a, of_double),
    };
    Ok(Box::new(move |core, mask| {
        let (bits, _) = test(core);
        core.set_pred(p, bits, mask);
        Ok(Flow::Next)
    }))
}
