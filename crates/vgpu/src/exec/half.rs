//! f16 and bf16 arithmetic, alone and in pairs. All of it rounds once, to nearest even.

use super::map::vectorise;
use super::modifiers::{Decoded, needs_target, refuse, rounding, sources, type_of};
use super::{Core, Flow, Handler, map1, map2};
use crate::lane::LANES;
use crate::num::half::{self, Bf16, F16, Half};
use crate::num::int::x2;
use crate::num::{FTZ, KEEP, RN};
use crate::program::{Builder, Class, Dst, LoadError, Src};
use crate::ptx::ast::Type;

const TYPES: [Type; 4] = [Type::F16, Type::F16x2, Type::BF16, Type::BF16x2];

/// A type of this family, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub ty: Type,
    pub brain: bool,
    pub pair: bool,
}

impl Format {
    fn new(ty: Type) -> Self {
        Self {
            ty,
            brain: matches!(ty, Type::BF16 | Type::BF16x2),
            pair: matches!(ty, Type::F16x2 | Type::BF16x2),
        }
    }

    pub(super) fn take(b: &mut Builder<'_, '_>) -> Result<Self, LoadError> {
        Ok(Self::new(type_of(b, &TYPES)?))
    }
}

/// Modifiers between the opcode and the type.
#[derive(Clone, Copy, Default)]
struct Modifiers {
    ftz: bool,
    sat: bool,
    relu: bool,
}

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    b.class = Class::Float;
    match b.opcode() {
        "add" | "sub" | "mul" => binary(b),
        "fma" => fused(b),
        "abs" | "neg" => sign(b),
        "min" | "max" => extreme(b),
        other => Err(b.error(format!("{other} does not exist for 16-bit floating point"))),
    }
}

/// One function for numbers alone and for both numbers of pairs.
fn unary(
    d: Dst,
    a: Src,
    pair: bool,
    f: impl Fn(u16) -> u16 + Copy + Send + Sync + 'static,
) -> Handler {
    if pair {
        map1(
            d,
            a,
            #[inline(always)]
            move |a| x2::map(a, f),
        )
    } else {
        map1(d, a, f)
    }
}

fn zip(
    d: Dst,
    s: [Src; 2],
    pair: bool,
    f: impl Fn(u16, u16) -> u16 + Copy + Send + Sync + 'static,
) -> Handler {
    if pair {
        let [a, b] = s;
        Box::new(move |core: &mut Core<'_>, mask| {
            let arch = core.arch;
            vectorise(
                arch,
                #[inline(always)]
                || {
                    let (a, b) = (core.get::<u32>(a), core.get::<u32>(b));
                    let out = halves(
                        #[inline(always)]
                        |lane, shift| f((a[lane] >> shift) as u16, (b[lane] >> shift) as u16),
                    );
                    core.set(d, &out, mask);
                },
            );
            Ok(Flow::Next)
        })
    } else {
        map2(d, s, f)
    }
}

/// Pairs from `f(lane, shift)`: first all low halves, then all high ones, in loops that become
/// vector code (both halves of a lane in one loop do not).
#[inline(always)]
fn halves(f: impl Fn(usize, u32) -> u16) -> [u32; LANES] {
    let mut out = [0_u32; LANES];
    for lane in 0..LANES {
        out[lane] = f(lane, 0).into();
    }
    for lane in 0..LANES {
        out[lane] |= u32::from(f(lane, 16)) << 16;
    }
    out
}

fn nearest(b: &mut Builder<'_, '_>, needed: bool) -> Result<(), LoadError> {
    let round = rounding(b);
    refuse(
        b,
        round.is_some_and(|round| round != RN),
        "16-bit floating point rounds to nearest only",
    )?;
    refuse(b, needed && round.is_none(), "fma needs .rn")
}

/// `{.ftz}{.sat}` for f16; bf16 has neither.
fn clamps(b: &mut Builder<'_, '_>) -> Modifiers {
    Modifiers {
        ftz: b.accept("ftz"),
        sat: b.accept("sat"),
        relu: b.accept("relu"),
    }
}

fn check(b: &Builder<'_, '_>, format: Format, modifiers: Modifiers) -> Result<(), LoadError> {
    refuse(
        b,
        format.brain && (modifiers.ftz || modifiers.sat),
        "bf16 has no .ftz and no .sat",
    )?;
    refuse(
        b,
        modifiers.sat && modifiers.relu,
        ".sat and .relu exclude each other",
    )
}

fn binary(b: &mut Builder<'_, '_>) -> Decoded {
    let opcode = b.opcode();
    nearest(b, false)?;
    let modifiers = clamps(b);
    refuse(b, modifiers.relu, ".relu is for fma")?;
    let format = Format::take(b)?;
    check(b, format, modifiers)?;
    if format.brain {
        needs_target(b, 90, "add, sub and mul of bf16")?;
    }
    let d = b.dst(format.ty)?;
    let s = sources(b, format.ty)?;
    let pair = format.pair;
    let Modifiers { ftz, sat, .. } = modifiers;
    let f: fn(u16, u16) -> u16 = match (opcode, format.brain, ftz) {
        ("add", false, KEEP) if !sat => return Ok(zip(d, s, pair, half::add::<F16, KEEP>)),
        ("sub", false, KEEP) if !sat => return Ok(zip(d, s, pair, half::sub::<F16, KEEP>)),
        ("mul", false, KEEP) if !sat => return Ok(zip(d, s, pair, half::mul::<F16, KEEP>)),
        ("add", true, _) => return Ok(zip(d, s, pair, half::add::<Bf16, KEEP>)),
        ("sub", true, _) => return Ok(zip(d, s, pair, half::sub::<Bf16, KEEP>)),
        (_, true, _) => return Ok(zip(d, s, pair, half::mul::<Bf16, KEEP>)),
        ("add", _, KEEP) => half::add::<F16, KEEP>,
        ("sub", _, KEEP) => half::sub::<F16, KEEP>,
        (_, _, KEEP) => half::mul::<F16, KEEP>,
        ("add", _, FTZ) => half::add::<F16, FTZ>,
        ("sub", _, FTZ) => half::sub::<F16, FTZ>,
        (_, _, FTZ) => half::mul::<F16, FTZ>,
    };
    Ok(if sat {
        zip(d, s, pair, move |a, b| half::sat::<F16>(f(a, b)))
    } else {
        zip(d, s, pair, f)
    })
}

fn fused(b: &mut Builder<'_, '_>) -> Decoded {
    nearest(b, true)?;
    refuse(b, b.peek() == Some("oob"), "fma.oob is not supported")?;
    let modifiers = clamps(b);
    let format = Format::take(b)?;
    check(b, format, modifiers)?;
    let d = b.dst(format.ty)?;
    let s = sources(b, format.ty)?;
    let pair = format.pair;
    Ok(match (format.brain, modifiers) {
        (true, Modifiers { relu: true, .. }) => fma::<Bf16, KEEP>(d, s, pair, half::relu::<Bf16>),
        (true, _) => fma::<Bf16, KEEP>(d, s, pair, |a| a),
        (false, Modifiers { ftz: FTZ, .. }) => match modifiers {
            Modifiers { sat: true, .. } => fma::<F16, FTZ>(d, s, pair, half::sat::<F16>),
            Modifiers { relu: true, .. } => fma::<F16, FTZ>(d, s, pair, half::relu::<F16>),
            _ => fma::<F16, FTZ>(d, s, pair, |a| a),
        },
        (false, Modifiers { sat: true, .. }) => fma::<F16, KEEP>(d, s, pair, half::sat::<F16>),
        (false, Modifiers { relu: true, .. }) => fma::<F16, KEEP>(d, s, pair, half::relu::<F16>),
        (false, _) => fma::<F16, KEEP>(d, s, pair, |a| a),
    })
}

/// `half::fma` and then `finish`, stage by stage over all lanes: as one expression it is too much
/// for the compiler to make vector code of.
fn fma<H: Half + 'static, const FLUSH: bool>(
    d: Dst,
    s: [Src; 3],
    pair: bool,
    finish: impl Fn(u16) -> u16 + Copy + Send + Sync + 'static,
) -> Handler {
    let shifts: &'static [u32] = if pair { &[0, 16] } else { &[0] };
    Box::new(move |core: &mut Core<'_>, mask| {
        let arch = core.arch;
        vectorise(
            arch,
            #[inline(always)]
            || {
                let rows = [0, 1, 2].map(|index| core.get::<u32>(s[index]));
                let mut out = [0_u32; LANES];
                for &shift in shifts {
                    let mut wide = [[0.0_f32; LANES]; 3];
                    for (wide, row) in wide.iter_mut().zip(&rows) {
                        for lane in 0..LANES {
                            let half = half::flush::<H, FLUSH>((row[lane] >> shift) as u16);
                            wide[lane] = f32::from_bits(H::widen(half));
                        }
                    }
                    let [a, b, c] = &wide;
                    let mut sums = [0.0_f32; LANES];
                    for lane in 0..LANES {
                        sums[lane] = H::fma(a[lane], b[lane], c[lane]);
                    }
                    for lane in 0..LANES {
                        let half = half::flush::<H, FLUSH>(H::narrow(sums[lane].to_bits()));
                        out[lane] |= u32::from(finish(half)) << shift;
                    }
                }
                core.set(d, &out, mask);
            },
        );
        Ok(Flow::Next)
    })
}

/// `abs` and `neg`.
fn sign(b: &mut Builder<'_, '_>) -> Decoded {
    let negates = b.opcode() == "neg";
    let ftz = b.accept("ftz");
    let format = Format::take(b)?;
    refuse(b, ftz && format.brain, "bf16 has no .ftz")?;
    let (d, a) = (b.dst(format.ty)?, b.src(format.ty)?);
    let pair = format.pair;
    // Without .ftz both formats have their sign in the same place.
    Ok(match (negates, ftz) {
        (false, KEEP) => unary(d, a, pair, half::abs::<F16, KEEP>),
        (false, FTZ) => unary(d, a, pair, half::abs::<F16, FTZ>),
        (true, KEEP) => unary(d, a, pair, half::neg::<F16, KEEP>),
        (true, FTZ) => unary(d, a, pair, half::neg::<F16, FTZ>),
    })
}

/// `min` and `max`: `{.ftz}{.NaN}{.xorsign.abs}`.
fn extreme(b: &mut Builder<'_, '_>) -> Decoded {
    let max = b.opcode() == "max";
    let ftz = b.accept("ftz");
    let nan = b.accept("NaN");
    let xorsign = b.accept("xorsign");
    if xorsign {
        b.expect("abs")?;
        needs_target(b, 86, ".xorsign.abs")?;
    }
    let format = Format::take(b)?;
    refuse(b, ftz && format.brain, "bf16 has no .ftz")?;
    let d = b.dst(format.ty)?;
    let s = sources(b, format.ty)?;
    Ok(if format.brain {
        extreme_of::<Bf16>(d, s, format.pair, [max, ftz, nan, xorsign])
    } else {
        extreme_of::<F16>(d, s, format.pair, [max, ftz, nan, xorsign])
    })
}

fn extreme_of<H: Half + 'static>(
    d: Dst,
    s: [Src; 2],
    pair: bool,
    [max, ftz, nan, xorsign]: [bool; 4],
) -> Handler {
    let f: fn(u16, u16) -> u16 = match (max, ftz, nan) {
        (false, KEEP, false) if !xorsign => {
            return zip(d, s, pair, half::min::<H, KEEP, false>);
        }
        (true, KEEP, false) if !xorsign => {
            return zip(d, s, pair, half::max::<H, KEEP, false>);
        }
        (false, KEEP, true) if !xorsign => {
            return zip(d, s, pair, half::min::<H, KEEP, true>);
        }
        (true, KEEP, true) if !xorsign => {
            return zip(d, s, pair, half::max::<H, KEEP, true>);
        }
        (false, KEEP, false) => half::min::<H, KEEP, false>,
        (false, KEEP, true) => half::min::<H, KEEP, true>,
        (false, FTZ, false) => half::min::<H, FTZ, false>,
        (false, FTZ, true) => half::min::<H, FTZ, true>,
        (true, KEEP, false) => half::max::<H, KEEP, false>,
        (true, KEEP, true) => half::max::<H, KEEP, true>,
        (true, FTZ, false) => half::max::<H, FTZ, false>,
        (true, FTZ, true) => half::max::<H, FTZ, true>,
    };
    if xorsign {
        zip(d, s, pair, move |a, b| half::xorsign_abs::<H>(f, a, b))
    } else {
        zip(d, s, pair, f)
    }
}
