//! What the arithmetic families share: modifiers that occur in many of them, and their refusals.

use super::Handler;
use crate::num::{RM, RN, RP, RZ};
use crate::program::{Builder, LoadError, Src};
use crate::ptx::ast::Type;

/// The kind of numbers that an instruction works on. Opcodes like `add` exist for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    Integer,
    /// f16, bf16 and pairs of them.
    Half,
    /// f32 and f64.
    Float,
}

impl Domain {
    /// By the last type of the opcode; integers if there is none.
    pub(super) fn of(b: &Builder<'_, '_>) -> Self {
        let last = b.words().iter().rev().find_map(|word| Type::parse(word));
        match last {
            Some(Type::F16 | Type::F16x2 | Type::BF16 | Type::BF16x2) => Self::Half,
            Some(Type::F32 | Type::F64 | Type::F32x2) => Self::Float,
            _ => Self::Integer,
        }
    }
}

/// The integer types of arithmetic.
pub(super) const INTEGERS: [Type; 6] = [
    Type::U16,
    Type::U32,
    Type::U64,
    Type::S16,
    Type::S32,
    Type::S64,
];

/// Types without a meaning of their bits.
pub(super) const BITS: [Type; 3] = [Type::B16, Type::B32, Type::B64];

/// A type's name in PTX.
pub(super) fn name(ty: Type) -> String {
    format!(".{ty:?}").to_lowercase()
}

/// Takes a type that must be one of `allowed`.
pub(super) fn type_of(b: &mut Builder<'_, '_>, allowed: &[Type]) -> Result<Type, LoadError> {
    let ty = b.ty()?;
    if allowed.contains(&ty) {
        return Ok(ty);
    }
    let list: Vec<String> = allowed.iter().map(|&ty| name(ty)).collect();
    Err(b.error(format!(
        "{} is not a type of this form of {}; its types are {}",
        name(ty),
        b.opcode(),
        list.join(", ")
    )))
}

/// Refuses what PTX does not have.
pub(super) fn refuse(b: &Builder<'_, '_>, condition: bool, message: &str) -> Result<(), LoadError> {
    if condition {
        return Err(b.error(message));
    }
    Ok(())
}

/// Refuses an instruction that the module's target does not have yet.
pub(super) fn needs_target(b: &Builder<'_, '_>, sm: u32, what: &str) -> Result<(), LoadError> {
    let target = b.target_sm();
    if target >= sm {
        return Ok(());
    }
    Err(b.error(format!(
        "{what} needs target sm_{sm}; this module says sm_{target}"
    )))
}

/// Takes `.rn`, `.rz`, `.rm` or `.rp`.
pub(super) fn rounding(b: &mut Builder<'_, '_>) -> Option<u8> {
    let modes = [RN, RZ, RM, RP];
    b.accept_any(&["rn", "rz", "rm", "rp"])
        .map(|index| modes[index])
}

/// As [`rounding`], where PTX has no default.
pub(super) fn must_round(b: &mut Builder<'_, '_>) -> Result<u8, LoadError> {
    rounding(b).ok_or_else(|| {
        let found = b
            .peek()
            .map_or("nothing".to_owned(), |word| format!(".{word}"));
        b.error(format!(
            "a rounding mode (.rn, .rz, .rm, .rp) expected, {found} found"
        ))
    })
}

/// Takes `N` sources of one type.
pub(super) fn sources<const N: usize>(
    b: &mut Builder<'_, '_>,
    ty: Type,
) -> Result<[Src; N], LoadError> {
    let mut all = [Src { slot: 0, rows: 0 }; N];
    for src in &mut all {
        *src = b.src(ty)?;
    }
    Ok(all)
}

/// `.and`, `.or` and `.xor` between a result and a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BoolOp {
    And,
    Or,
    Xor,
}

impl BoolOp {
    /// Takes the modifier if it is next.
    pub(super) fn accept(b: &mut Builder<'_, '_>) -> Option<Self> {
        let all = [Self::And, Self::Or, Self::Xor];
        b.accept_any(&["and", "or", "xor"]).map(|index| all[index])
    }

    /// All lanes at once.
    #[inline(always)]
    pub(super) fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Self::And => a & b,
            Self::Or => a | b,
            Self::Xor => a ^ b,
        }
    }
}

/// A decoded instruction, or why not.
pub(super) type Decoded = Result<Handler, LoadError>;
