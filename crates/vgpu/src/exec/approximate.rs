//! Reciprocals and roots, rounded or approximate, and the functions that are approximate only.

use super::float::{double_rounded, float_type, single_rounded};
use super::half::Format;
use super::modifiers::{Decoded, needs_target, refuse, rounding};
use super::{Handler, map1};
use crate::num::half::{self, Bf16, F16};
use crate::num::int::x2;
use crate::num::{FTZ, KEEP, RM, RN, RP, RZ, approx, f32 as single, f64 as double};
use crate::program::{Builder, Class, LoadError};
use crate::ptx::ast::Type;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    b.class = Class::Special;
    match b.opcode() {
        "rcp" | "sqrt" => root(b),
        "rsqrt" => rsqrt(b),
        "ex2" | "tanh" => {
            b.expect("approx")?;
            let ftz = b.accept("ftz");
            match b.peek() {
                Some("f32") => of_single(b, ftz),
                _ => of_half(b, ftz),
            }
        }
        _ => {
            b.expect("approx")?;
            let ftz = b.accept("ftz");
            of_single(b, ftz)
        }
    }
}

/// `ex2`, `lg2`, `sin`, `cos` and `tanh` of f32.
fn of_single(b: &mut Builder<'_, '_>, ftz: bool) -> Decoded {
    super::modifiers::type_of(b, &[Type::F32])?;
    let (d, a) = (b.dst(Type::F32)?, b.src(Type::F32)?);
    refuse(b, b.opcode() == "tanh" && ftz, "tanh has no .ftz")?;
    Ok(match (b.opcode(), ftz) {
        ("ex2", KEEP) => map1(d, a, approx::ex2::<KEEP>),
        ("ex2", FTZ) => map1(d, a, approx::ex2::<FTZ>),
        ("lg2", KEEP) => map1(d, a, approx::lg2::<KEEP>),
        ("lg2", FTZ) => map1(d, a, approx::lg2::<FTZ>),
        ("sin", KEEP) => map1(d, a, approx::sin::<KEEP>),
        ("sin", FTZ) => map1(d, a, approx::sin::<FTZ>),
        ("cos", KEEP) => map1(d, a, approx::cos::<KEEP>),
        ("cos", FTZ) => map1(d, a, approx::cos::<FTZ>),
        _ => map1(d, a, approx::tanh),
    })
}

/// `ex2` and `tanh` of f16 and bf16: `.ftz` belongs to `ex2` of bf16 and to nothing else.
fn of_half(b: &mut Builder<'_, '_>, ftz: bool) -> Decoded {
    let Format { ty, brain, pair } = Format::take(b)?;
    let exponential = b.opcode() == "ex2";
    let flushes = exponential && brain;
    refuse(b, ftz && !flushes, ".ftz is for ex2 of f32 and bf16")?;
    refuse(b, !ftz && flushes, "ex2 of bf16 needs .ftz")?;
    if brain {
        needs_target(b, 90, "an approximate function of bf16")?;
    }
    let (d, a) = (b.dst(ty)?, b.src(ty)?);
    let f: fn(u16) -> u16 = match (exponential, brain) {
        (true, false) => half::ex2::<F16, KEEP>,
        (true, true) => half::ex2::<Bf16, FTZ>,
        (false, false) => half::tanh::<F16>,
        (false, true) => half::tanh::<Bf16>,
    };
    Ok(if pair {
        map1(
            d,
            a,
            #[inline(always)]
            move |a| x2::map(a, f),
        )
    } else {
        map1(d, a, f)
    })
}

/// `rcp` and `sqrt`.
fn root(b: &mut Builder<'_, '_>) -> Decoded {
    let approximate = b.accept("approx");
    let reciprocal = b.opcode() == "rcp";
    let round = if approximate { RN } else { mode(b)? };
    let ftz = b.accept("ftz");
    // f64 has an approximate reciprocal only, with .ftz and nothing without it.
    let double_approximation = approximate && reciprocal && ftz;
    let ty = float_type(b, (ftz || approximate) && !double_approximation, false)?;
    let (d, a) = (b.dst(ty)?, b.src(ty)?);
    if ty == Type::F64 {
        let f: fn(u64) -> u64 = match (approximate, reciprocal) {
            (true, _) => approx::rcp_f64,
            (false, true) => double_rounded!(round, rcp),
            (false, false) => double_rounded!(round, sqrt),
        };
        return Ok(map1(d, a, f));
    }
    let rounded = |f: fn(u32) -> u32| -> Handler { map1(d, a, f) };
    Ok(match (approximate, reciprocal, ftz) {
        (true, true, KEEP) => map1(d, a, approx::rcp::<KEEP>),
        (true, true, FTZ) => map1(d, a, approx::rcp::<FTZ>),
        (true, false, KEEP) => map1(d, a, approx::sqrt::<KEEP>),
        (true, false, FTZ) => map1(d, a, approx::sqrt::<FTZ>),
        (false, true, _) => rounded(single_rounded!(round, ftz, rcp)),
        (false, false, _) => rounded(single_rounded!(round, ftz, sqrt)),
    })
}

fn mode(b: &mut Builder<'_, '_>) -> Result<u8, LoadError> {
    rounding(b).ok_or_else(|| b.error(".approx or a rounding mode expected"))
}

fn rsqrt(b: &mut Builder<'_, '_>) -> Decoded {
    b.expect("approx")?;
    let ftz = b.accept("ftz");
    let ty = float_type(b, false, false)?;
    let (d, a) = (b.dst(ty)?, b.src(ty)?);
    Ok(match (ty, ftz) {
        (Type::F32, KEEP) => map1(d, a, approx::rsqrt::<KEEP>),
        (Type::F32, FTZ) => map1(d, a, approx::rsqrt::<FTZ>),
        (_, KEEP) => map1(d, a, approx::rsqrt_f64),
        (_, FTZ) => map1(d, a, approx::rsqrt_ftz_f64),
    })
}
