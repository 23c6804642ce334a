//! Comparisons: `setp`, which sets predicates, and `set`, which sets registers.

use super::map::vectorise;
use super::map::{Test, test_halves, test2};
use super::modifiers::{BITS, BoolOp, Decoded, INTEGERS, needs_target, refuse, sources, type_of};
use super::{Core, Flow};
use crate::lane::{LANES, Value};
use crate::num::compare;
use crate::num::half::{self, Bf16, F16, Half};
use crate::num::{FTZ, KEEP, f32 as single, f64 as double};
use crate::program::{Builder, Class, Dst, LoadError, Pred, PredDst, Src};
use crate::ptx::ast::{Operand, Type};

const HALVES: [Type; 4] = [Type::F16, Type::F16x2, Type::BF16, Type::BF16x2];

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Decoded {
    b.class = Class::Compare;
    match b.opcode() {
        "setp" => setp(b),
        _ => set(b),
    }
}

/// The operator, and whether it was written with an unsigned name (`lo`, `ls`, `hi`, `hs`).
#[derive(Clone, Copy)]
struct Operator {
    code: u8,
    unsigned: bool,
}

fn operator(b: &mut Builder<'_, '_>) -> Result<Operator, LoadError> {
    let word = b.take().unwrap_or("");
    let (code, unsigned) = match word {
        "eq" => (compare::EQ, false),
        "ne" => (compare::NE, false),
        "lt" => (compare::LT, false),
        "le" => (compare::LE, false),
        "gt" => (compare::GT, false),
        "ge" => (compare::GE, false),
        "lo" => (compare::LT, true),
        "ls" => (compare::LE, true),
        "hi" => (compare::GT, true),
        "hs" => (compare::GE, true),
        "equ" => (compare::EQU, false),
        "neu" => (compare::NEU, false),
        "ltu" => (compare::LTU, false),
        "leu" => (compare::LEU, false),
        "gtu" => (compare::GTU, false),
        "geu" => (compare::GEU, false),
        "num" => (compare::NUM, false),
        "nan" => (compare::NAN, false),
        other => return Err(b.error(format!(".{other} is not a comparison"))),
    };
    Ok(Operator { code, unsigned })
}

/// Refuses an operator that the type does not have.
fn check(b: &Builder<'_, '_>, op: Operator, ty: Type, ftz: bool) -> Result<(), LoadError> {
    let float = matches!(ty, Type::F32 | Type::F64) || HALVES.contains(&ty);
    let unsigned = matches!(ty, Type::U16 | Type::U32 | Type::U64);
    refuse(
        b,
        BITS.contains(&ty) && op.code > compare::NE,
        "bits can be compared with .eq and .ne only",
    )?;
    refuse(
        b,
        op.unsigned && !unsigned,
        ".lo, .ls, .hi and .hs are for unsigned types",
    )?;
    refuse(
        b,
        op.code > compare::GE && !float,
        "unordered comparisons are for floating point",
    )?;
    refuse(
        b,
        ftz && !matches!(ty, Type::F32 | Type::F16 | Type::F16x2),
        ".ftz is for f32 and f16",
    )?;
    if matches!(ty, Type::BF16 | Type::BF16x2) {
        needs_target(b, 90, "a comparison of bf16")?;
    }
    Ok(())
}

/// `.and`, `.or`, `.xor` with a predicate, applied to both results.
#[derive(Clone, Copy)]
struct Combine(Option<(BoolOp, Pred)>);

impl Combine {
    fn take(b: &mut Builder<'_, '_>, op: Option<BoolOp>) -> Result<Self, LoadError> {
        Ok(Self(match op {
            Some(op) => Some((op, b.pred()?)),
            None => None,
        }))
    }

    #[inline(always)]
    fn apply(self, core: &Core<'_>, (first, second): (u32, u32)) -> (u32, u32) {
        match self.0 {
            None => (first, second),
            Some((op, pred)) => {
                let other = core.pred(pred);
                (op.apply(first, other), op.apply(second, other))
            }
        }
    }
}

fn setp(b: &mut Builder<'_, '_>) -> Decoded {
    let op = operator(b)?;
    let boolean = BoolOp::accept(b);
    let ftz = b.accept("ftz");
    let types = [
        &BITS[..],
        &INTEGERS[..],
        &[Type::F32, Type::F64][..],
        &HALVES[..],
    ];
    let ty = type_of(b, &types.concat())?;
    check(b, op, ty, ftz)?;
    let (p, q) = match b.operand()? {
        Operand::Pair(p, q) => {
            let lone = matches!(ty, Type::F16 | Type::BF16);
            refuse(
                b,
                lone && **q != Operand::Sink,
                "a comparison of f16 or bf16 writes one predicate",
            )?;
            (b.pred_dst_of(p)?, b.pred_dst_of(q)?)
        }
        p => {
            let pair = matches!(ty, Type::F16x2 | Type::BF16x2);
            refuse(b, pair, "a comparison of pairs writes p|q")?;
            (b.pred_dst_of(p)?, PredDst(None))
        }
    };
    let s = sources(b, ty)?;
    let combine = Combine::take(b, boolean)?;
    let test = test(ty, op.code, ftz, s);
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        let (first, second) = combine.apply(core, test(core));
        core.set_pred(p, first, mask);
        core.set_pred(q, second, mask);
        Ok(Flow::Next)
    }))
}

/// What `set` writes for true.
#[derive(Clone, Copy)]
enum Truth {
    Word(u32),
    /// Both halves of a pair on their own.
    Halves(u16),
}

fn set(b: &mut Builder<'_, '_>) -> Decoded {
    let op = operator(b)?;
    let boolean = BoolOp::accept(b);
    let ftz = b.accept("ftz");
    let results = [
        Type::U32,
        Type::S32,
        Type::F32,
        Type::U16,
        Type::S16,
        Type::F16,
        Type::F16x2,
        Type::BF16,
        Type::BF16x2,
    ];
    let result = type_of(b, &results)?;
    let types = [
        &BITS[..],
        &INTEGERS[..],
        &[Type::F32, Type::F64][..],
        &HALVES[..],
    ];
    let ty = type_of(b, &types.concat())?;
    check(b, op, ty, ftz)?;
    if matches!(result, Type::BF16 | Type::BF16x2) {
        needs_target(b, 90, "a result of bf16")?;
        refuse(b, ftz, "a result of bf16 excludes .ftz")?;
    }
    let truth = truth(b, result, ty)?;
    let d = b.dst(result)?;
    let s = sources(b, ty)?;
    let combine = Combine::take(b, boolean)?;
    let test = test(ty, op.code, ftz, s);
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        let bits = combine.apply(core, test(core));
        match truth {
            Truth::Word(value) => spread(core, d, mask, |lane| {
                if bits.0 >> lane & 1 != 0 { value } else { 0 }
            }),
            Truth::Halves(value) => spread(core, d, mask, |lane| {
                let half = |bits: u32| if bits >> lane & 1 != 0 { value } else { 0 };
                u32::from(half(bits.1)) << 16 | u32::from(half(bits.0))
            }),
        }
        Ok(Flow::Next)
    }))
}

fn spread(core: &mut Core<'_>, d: Dst, mask: u32, f: impl Fn(usize) -> u32) {
    let arch = core.arch;
    vectorise(
        arch,
        #[inline(always)]
        || {
            let mut out = [0_u32; LANES];
            for lane in 0..LANES {
                out[lane] = f(lane);
            }
            core.set(d, &out, mask);
        },
    );
}

/// One for floating-point results, all ones for integers.
fn truth(b: &Builder<'_, '_>, result: Type, ty: Type) -> Result<Truth, LoadError> {
    let pair = matches!(ty, Type::F16x2 | Type::BF16x2);
    let legal = match result {
        Type::F16x2 | Type::BF16x2 => result == ty,
        Type::U16 | Type::S16 => matches!(ty, Type::F16 | Type::BF16),
        Type::F16 => !HALVES.contains(&ty) || ty == Type::F16,
        Type::BF16 => !pair,
        Type::F32 => !HALVES.contains(&ty),
        _ => true,
    };
    refuse(b, !legal, "set has no such pair of types")?;
    Ok(match (result, pair) {
        (Type::F32, _) => Truth::Word(1.0_f32.to_bits()),
        (Type::F16, _) => Truth::Word(u32::from(F16::ONE)),
        (Type::BF16, _) => Truth::Word(u32::from(Bf16::ONE)),
        (Type::F16x2, _) => Truth::Halves(F16::ONE),
        (Type::BF16x2, _) => Truth::Halves(Bf16::ONE),
        (Type::U16 | Type::S16, _) => Truth::Word(0xffff),
        (_, true) => Truth::Halves(0xffff),
        (_, false) => Truth::Word(u32::MAX),
    })
}

/// The comparison, with the operator chosen outside the loop over the lanes.
fn test(ty: Type, code: u8, ftz: bool, s: [Src; 2]) -> Test {
    match ty {
        Type::B16 | Type::U16 => ordered::<u16>(code, s),
        Type::B32 | Type::U32 => ordered::<u32>(code, s),
        Type::B64 | Type::U64 => ordered::<u64>(code, s),
        Type::S16 => ordered::<i16>(code, s),
        Type::S32 => ordered::<i32>(code, s),
        Type::S64 => ordered::<i64>(code, s),
        Type::F32 if ftz => singles::<FTZ>(code, s),
        Type::F32 => singles::<KEEP>(code, s),
        Type::F64 => doubles(code, s),
        Type::F16 if ftz => test2(s, halves::<F16, FTZ>(code)),
        Type::F16 => test2(s, halves::<F16, KEEP>(code)),
        Type::F16x2 if ftz => test_halves(s, halves::<F16, FTZ>(code)),
        Type::F16x2 => test_halves(s, halves::<F16, KEEP>(code)),
        Type::BF16 => test2(s, halves::<Bf16, KEEP>(code)),
        _ => test_halves(s, halves::<Bf16, KEEP>(code)),
    }
}

/// Integers: the six operators without the unordered ones.
fn ordered<T: Value + PartialOrd>(code: u8, s: [Src; 2]) -> Test {
    match code {
        compare::EQ => test2(s, |a: T, b: T| a == b),
        compare::NE => test2(s, |a: T, b: T| a != b),
        compare::LT => test2(s, |a: T, b: T| a < b),
        compare::LE => test2(s, |a: T, b: T| a <= b),
        compare::GT => test2(s, |a: T, b: T| a > b),
        _ => test2(s, |a: T, b: T| a >= b),
    }
}

/// All fourteen operators of a function over one.
macro_rules! every_operator {
    ($code:expr, $op:ident => $body:expr) => {
        match $code {
            0 => {
                const $op: u8 = 0;
                $body
            }
            1 => {
                const $op: u8 = 1;
                $body
            }
            2 => {
                const $op: u8 = 2;
                $body
            }
            3 => {
                const $op: u8 = 3;
                $body
            }
            4 => {
                const $op: u8 = 4;
                $body
            }
            5 => {
                const $op: u8 = 5;
                $body
            }
            6 => {
                const $op: u8 = 6;
                $body
            }
            7 => {
                const $op: u8 = 7;
                $body
            }
            8 => {
                const $op: u8 = 8;
                $body
            }
            9 => {
                const $op: u8 = 9;
                $body
            }
            10 => {
                const $op: u8 = 10;
                $body
            }
            11 => {
                const $op: u8 = 11;
                $body
            }
            12 => {
                const $op: u8 = 12;
                $body
            }
            _ => {
                const $op: u8 = 13;
                $body
            }
        }
    };
}

fn singles<const FLUSH: bool>(code: u8, s: [Src; 2]) -> Test {
    every_operator!(code, OP => test2(s, single::compare::<OP, FLUSH>))
}

fn doubles(code: u8, s: [Src; 2]) -> Test {
    every_operator!(code, OP => test2(s, double::compare::<OP>))
}

/// Not inlined into the loop: there are many, and they are rare.
fn halves<H: Half, const FLUSH: bool>(code: u8) -> fn(u16, u16) -> bool {
    every_operator!(code, OP => half::compare::<H, OP, FLUSH>)
}
