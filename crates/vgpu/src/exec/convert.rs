//! `cvt`: integers and floating point of every width, packed pairs, and `cvt.pack`.

use super::modifiers::{Decoded, name, needs_target, refuse, sources, type_of};
use super::{Handler, map1, map2, map3};
use crate::num::convert::{self, CvtOptions, Kind, Rounding, converter};
use crate::num::half::{Bf16, F16, Half};
use crate::num::pack::{self, PackOptions};
use crate::num::{FTZ, KEEP, RM, RN, RP, RZ, Round};
use crate::program::{Builder, Class, Dst, LoadError, Src};
use crate::ptx::ast::Type;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    if b.accept("pack") {
        return pack_integers(b);
    }
    let options = options(b)?;
    let (to, from) = (b.ty()?, b.ty()?);
    let packed = |ty| matches!(ty, Type::F16x2 | Type::BF16x2 | Type::E4M3x2 | Type::E5M2x2);
    if packed(to) || packed(from) {
        b.class = Class::Convert;
        return pair(b, to, from, options);
    }
    scalar(b, to, from, options)
}

fn options(b: &mut Builder<'_, '_>) -> Result<CvtOptions, LoadError> {
    let rounding = match b.peek().unwrap_or("") {
        "rn" => Some(Rounding::Float(Round::Nearest)),
        "rna" => Some(Rounding::Float(Round::NearestAway)),
        "rz" => Some(Rounding::Float(Round::Zero)),
        "rm" => Some(Rounding::Float(Round::Down)),
        "rp" => Some(Rounding::Float(Round::Up)),
        "rni" => Some(Rounding::Integer(Round::Nearest)),
        "rzi" => Some(Rounding::Integer(Round::Zero)),
        "rmi" => Some(Rounding::Integer(Round::Down)),
        "rpi" => Some(Rounding::Integer(Round::Up)),
        _ => None,
    };
    if rounding.is_some() {
        b.take();
    }
    let mut options = CvtOptions {
        rounding,
        ..CvtOptions::default()
    };
    loop {
        let flag = match b.peek().unwrap_or("") {
            "ftz" => &mut options.ftz,
            "sat" => &mut options.sat,
            "relu" => &mut options.relu,
            "satfinite" => &mut options.satfinite,
            _ => return Ok(options),
        };
        if *flag {
            return Err(b.unknown_word());
        }
        *flag = true;
        b.take();
    }
}

fn kind(ty: Type) -> Option<Kind> {
    Some(match ty {
        Type::U8 => Kind::U8,
        Type::U16 => Kind::U16,
        Type::U32 => Kind::U32,
        Type::U64 => Kind::U64,
        Type::S8 => Kind::S8,
        Type::S16 => Kind::S16,
        Type::S32 => Kind::S32,
        Type::S64 => Kind::S64,
        Type::F16 => Kind::F16,
        Type::BF16 => Kind::Bf16,
        Type::F32 => Kind::F32,
        Type::F64 => Kind::F64,
        Type::TF32 => Kind::Tf32,
        _ => return None,
    })
}

fn is_float(ty: Type) -> bool {
    matches!(
        ty,
        Type::F16 | Type::BF16 | Type::F32 | Type::F64 | Type::TF32
    )
}

fn scalar(b: &mut Builder<'_, '_>, to: Type, from: Type, options: CvtOptions) -> Decoded {
    let conversion = kind(to)
        .zip(kind(from))
        .and_then(|(to, from)| converter(to, from, options));
    let Some(conversion) = conversion else {
        return Err(b.error(format!(
            "there is no conversion from {} to {} with these modifiers",
            name(from),
            name(to)
        )));
    };
    check_target(b, to, from, options)?;
    if is_float(to) || is_float(from) {
        b.class = Class::Convert;
    }
    // All but bf16 may sit in wider registers; results are extended to them.
    let operand = b.operand()?;
    let d = b.dst_of(operand, to, to != Type::BF16)?;
    let width = b.register_bytes(operand).unwrap_or(to.bytes());
    let operand = b.operand()?;
    let a = b.src_of(operand, from, from != Type::BF16)?;
    let plain = CvtOptions {
        rounding: None,
        ftz: false,
        ..options
    } == CvtOptions::default();
    let quick = if is_float(to) || is_float(from) {
        let fits = width == to.bytes();
        if plain && fits {
            float(d, a, to, from, options)
        } else {
            None
        }
    } else if plain {
        integer(d, a, to, from, width)
    } else {
        None
    };
    Ok(quick.unwrap_or_else(|| {
        let keep = u64::MAX >> (64 - 8 * width.min(8));
        map1::<u64, u64>(d, a, move |a| conversion.apply(a) & keep)
    }))
}

fn check_target(
    b: &Builder<'_, '_>,
    to: Type,
    from: Type,
    options: CvtOptions,
) -> Result<(), LoadError> {
    let brain = to == Type::BF16 || from == Type::BF16;
    let byte = |ty| matches!(ty, Type::U8 | Type::S8);
    refuse(
        b,
        brain && (byte(to) || byte(from)),
        "there is no conversion between bf16 and 8-bit integers",
    )?;
    let early = from == Type::F32 || (to == Type::F32 && !options.ftz);
    if brain && !early {
        let what = format!("cvt from {} to {}", name(from), name(to));
        return needs_target(b, 90, &what);
    }
    if to == Type::TF32 {
        let away = options.rounding == Some(Rounding::Float(Round::NearestAway));
        if !away {
            if options.satfinite {
                needs_target(b, 100, ".satfinite with .rn and .rz to .tf32")?;
            }
            return needs_target(b, 90, ".rn and .rz to .tf32");
        }
    }
    Ok(())
}

/// Between integers without `.sat`: the narrower of both types, extended to the register. `None`
/// where two extensions follow each other.
fn integer(d: Dst, a: Src, to: Type, from: Type, width: usize) -> Option<Handler> {
    /// From one type to the register's width; a signed type extends its sign.
    macro_rules! extend {
        ($from:ty) => {
            match width {
                1 => map1::<$from, u8>(d, a, |a| a as u8),
                2 => map1::<$from, u16>(d, a, |a| a as u16),
                4 => map1::<$from, u32>(d, a, |a| a as u32),
                _ => map1::<$from, u64>(d, a, |a| a as u64),
            }
        };
    }
    let widens = to.bytes() > from.bytes();
    if widens && from.is_signed() && !to.is_signed() && width > to.bytes() {
        return None;
    }
    Some(match if widens { from } else { to } {
        Type::U8 => extend!(u8),
        Type::U16 => extend!(u16),
        Type::U32 => extend!(u32),
        Type::U64 => extend!(u64),
        Type::S8 => extend!(i8),
        Type::S16 => extend!(i16),
        Type::S32 => extend!(i32),
        Type::S64 => extend!(i64),
        _ => return None,
    })
}

/// The conversions of inner loops, whose lanes become vector code.
fn float(d: Dst, a: Src, to: Type, from: Type, options: CvtOptions) -> Option<Handler> {
    /// A conversion to an integer in the mode that the instruction names.
    macro_rules! integral {
        ($name:ident, $ftz:expr) => {
            match options.rounding {
                Some(Rounding::Integer(Round::Nearest)) => map1(d, a, convert::$name::<RN, $ftz>),
                Some(Rounding::Integer(Round::Zero)) => map1(d, a, convert::$name::<RZ, $ftz>),
                Some(Rounding::Integer(Round::Down)) => map1(d, a, convert::$name::<RM, $ftz>),
                Some(Rounding::Integer(Round::Up)) => map1(d, a, convert::$name::<RP, $ftz>),
                _ => return None,
            }
        };
        ($name:ident) => {
            match options.rounding {
                Some(Rounding::Integer(Round::Nearest)) => map1(d, a, convert::$name::<RN>),
                Some(Rounding::Integer(Round::Zero)) => map1(d, a, convert::$name::<RZ>),
                Some(Rounding::Integer(Round::Down)) => map1(d, a, convert::$name::<RM>),
                Some(Rounding::Integer(Round::Up)) => map1(d, a, convert::$name::<RP>),
                _ => return None,
            }
        };
    }
    let nearest = options.rounding == Some(Rounding::Float(Round::Nearest));
    let exact = options.rounding.is_none();
    Some(match (to, from, options.ftz) {
        (Type::F32, Type::S32, KEEP) if nearest => map1(d, a, convert::f32_from_s32),
        (Type::F32, Type::U32, KEEP) if nearest => map1(d, a, convert::f32_from_u32),
        (Type::F32, Type::S64, KEEP) if nearest => map1(d, a, convert::f32_from_s64),
        (Type::F32, Type::U64, KEEP) if nearest => map1(d, a, convert::f32_from_u64),
        (Type::F64, Type::S32, KEEP) if nearest => map1(d, a, convert::f64_from_s32),
        (Type::F64, Type::U32, KEEP) if nearest => map1(d, a, convert::f64_from_u32),
        (Type::F64, Type::F32, KEEP) if exact => map1(d, a, convert::f64_from_f32::<KEEP>),
        (Type::F64, Type::F32, FTZ) if exact => map1(d, a, convert::f64_from_f32::<FTZ>),
        (Type::F32, Type::F64, KEEP) if nearest => map1(d, a, convert::f32_from_f64::<KEEP>),
        (Type::F32, Type::F64, FTZ) if nearest => map1(d, a, convert::f32_from_f64::<FTZ>),
        (Type::F32, Type::F16, KEEP) if exact => map1(d, a, F16::widen),
        (Type::F32, Type::BF16, KEEP) if exact => map1(d, a, Bf16::widen),
        (Type::F16, Type::F32, KEEP) if nearest => map1(d, a, F16::narrow),
        (Type::BF16, Type::F32, KEEP) if nearest => map1(d, a, Bf16::narrow),
        (Type::S32, Type::F32, KEEP) => integral!(s32_from_f32, KEEP),
        (Type::S32, Type::F32, FTZ) => integral!(s32_from_f32, FTZ),
        (Type::U32, Type::F32, KEEP) => integral!(u32_from_f32, KEEP),
        (Type::U32, Type::F32, FTZ) => integral!(u32_from_f32, FTZ),
        (Type::S64, Type::F32, KEEP) => integral!(s64_from_f32, KEEP),
        (Type::U64, Type::F32, KEEP) => integral!(u64_from_f32, KEEP),
        (Type::F32, Type::F32, KEEP) => integral!(f32_integral, KEEP),
        (Type::F32, Type::F32, FTZ) => integral!(f32_integral, FTZ),
        (Type::S32, Type::F64, KEEP) => integral!(s32_from_f64),
        (Type::U32, Type::F64, KEEP) => integral!(u32_from_f64),
        _ => return None,
    })
}

/// To and from pairs.
fn pair(b: &mut Builder<'_, '_>, to: Type, from: Type, options: CvtOptions) -> Decoded {
    let CvtOptions {
        rounding,
        ftz,
        sat,
        relu,
        satfinite,
    } = options;
    let towards_zero = match rounding {
        Some(Rounding::Float(Round::Nearest)) => false,
        Some(Rounding::Float(Round::Zero)) => true,
        _ => return Err(b.error("a conversion of pairs needs .rn or .rz")),
    };
    refuse(
        b,
        ftz || sat,
        "a conversion of pairs has no .ftz and no .sat",
    )?;
    let eight = |ty| matches!(ty, Type::E4M3x2 | Type::E5M2x2);
    if eight(to) || eight(from) {
        needs_target(b, 89, "fp8")?;
        refuse(b, towards_zero, "fp8 rounds to nearest only")?;
        refuse(
            b,
            satfinite != eight(to),
            ".satfinite is needed towards fp8 and for that only",
        )?;
    }
    let d = if eight(to) {
        b.dst(to)?
    } else {
        b.dst_wide(to)?
    };
    match (to, from) {
        (Type::F16x2, Type::F32) => {
            let s = sources(b, from)?;
            let options = PackOptions { relu, satfinite };
            Ok(halves::<F16>(d, s, towards_zero, options))
        }
        (Type::BF16x2, Type::F32) => {
            let s = sources(b, from)?;
            let options = PackOptions { relu, satfinite };
            Ok(halves::<Bf16>(d, s, towards_zero, options))
        }
        (Type::E4M3x2 | Type::E5M2x2, Type::F32) => {
            let s = sources(b, from)?;
            Ok(match (to, relu) {
                (Type::E4M3x2, false) => map2(d, s, pack::e4m3x2_from_f32::<false>),
                (Type::E4M3x2, true) => map2(d, s, pack::e4m3x2_from_f32::<true>),
                (_, false) => map2(d, s, pack::e5m2x2_from_f32::<false>),
                (_, true) => map2(d, s, pack::e5m2x2_from_f32::<true>),
            })
        }
        (Type::E4M3x2 | Type::E5M2x2, Type::F16x2) => {
            let a = b.src(from)?;
            Ok(match (to, relu) {
                (Type::E4M3x2, false) => map1(d, a, pack::e4m3x2_from_f16x2::<false>),
                (Type::E4M3x2, true) => map1(d, a, pack::e4m3x2_from_f16x2::<true>),
                (_, false) => map1(d, a, pack::e5m2x2_from_f16x2::<false>),
                (_, true) => map1(d, a, pack::e5m2x2_from_f16x2::<true>),
            })
        }
        (Type::F16x2, Type::E4M3x2 | Type::E5M2x2) => {
            let a = b.src(from)?;
            Ok(match (from, relu) {
                (Type::E4M3x2, false) => map1(d, a, pack::f16x2_from_e4m3x2::<false>),
                (Type::E4M3x2, true) => map1(d, a, pack::f16x2_from_e4m3x2::<true>),
                (_, false) => map1(d, a, pack::f16x2_from_e5m2x2::<false>),
                (_, true) => map1(d, a, pack::f16x2_from_e5m2x2::<true>),
            })
        }
        _ => Err(b.error(format!(
            "there is no conversion from {} to {}",
            name(from),
            name(to)
        ))),
    }
}

fn halves<H: Half + 'static>(
    d: Dst,
    s: [Src; 2],
    towards_zero: bool,
    options: PackOptions,
) -> Handler {
    if towards_zero {
        return map2(d, s, move |a, b| {
            pack::half2_from_f32::<H, RZ>(a, b, options)
        });
    }
    if options == PackOptions::default() {
        return map2(d, s, |a, b| {
            pack::half2_from_f32::<H, RN>(a, b, PackOptions::default())
        });
    }
    map2(d, s, move |a, b| {
        pack::half2_from_f32::<H, RN>(a, b, options)
    })
}

/// `cvt.pack.sat`: two clamped integers, above them what `c` had.
fn pack_integers(b: &mut Builder<'_, '_>) -> Decoded {
    b.expect("sat")?;
    let word = b.take().unwrap_or("");
    type_of(b, &[Type::S32])?;
    if matches!(word, "u16" | "s16") {
        let d = b.dst(Type::B32)?;
        let s = sources(b, Type::S32)?;
        return Ok(match word {
            "u16" => map2(d, s, pack::pack_s32::<false>),
            _ => map2(d, s, pack::pack_s32::<true>),
        });
    }
    type_of(b, &[Type::B32])?;
    let d = b.dst(Type::B32)?;
    let [x, y] = sources(b, Type::S32)?;
    let s = [x, y, b.src(Type::B32)?];
    Ok(match word {
        "u2" => map3(d, s, pack::pack_s32_below::<false, 2>),
        "s2" => map3(d, s, pack::pack_s32_below::<true, 2>),
        "u4" => map3(d, s, pack::pack_s32_below::<false, 4>),
        "s4" => map3(d, s, pack::pack_s32_below::<true, 4>),
        "u8" => map3(d, s, pack::pack_s32_below::<false, 8>),
        "s8" => map3(d, s, pack::pack_s32_below::<true, 8>),
        other => return Err(b.error(format!("cvt.pack has no .{other}"))),
    })
}
