//! The reductions of `cp.reduce.async.bulk` and `cp.reduce.async.bulk.tensor`
//! (PTX ISA 9.7.9.25.4.2 and 9.7.9.25.5.3).
//!
//! Each element of global memory becomes `element op source`. The tensor form takes its type from
//! the map. Additions of `.f16` and `.bf16` round to nearest even and keep subnormals (`.noftz`);
//! those of `.f32` and `.f64` round to nearest even. The minimum or maximum of a number and a NaN
//! is the number.

use super::{TensorElement, TmaError};
use half::{bf16, f16};

/// NaN of `.f16` and `.bf16` results.
const CANONICAL_NAN: u16 = 0x7fff;

/// The operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// `.add`
    Add,
    /// `.min`
    Min,
    /// `.max`
    Max,
    /// `.inc`: `old >= source ? 0 : old + 1`
    Inc,
    /// `.dec`: `old == 0 || old > source ? source : old - 1`
    Dec,
    /// `.and`
    And,
    /// `.or`
    Or,
    /// `.xor`
    Xor,
}

impl Reduction {
    /// Every operation.
    pub const ALL: [Reduction; 8] = [
        Reduction::Add,
        Reduction::Min,
        Reduction::Max,
        Reduction::Inc,
        Reduction::Dec,
        Reduction::And,
        Reduction::Or,
        Reduction::Xor,
    ];

    /// The PTX modifier without its dot.
    pub const fn name(self) -> &'static str {
        match self {
            Reduction::Add => "add",
            Reduction::Min => "min",
            Reduction::Max => "max",
            Reduction::Inc => "inc",
            Reduction::Dec => "dec",
            Reduction::And => "and",
            Reduction::Or => "or",
            Reduction::Xor => "xor",
        }
    }

    /// Does the operation exist for the type?
    pub const fn exists(self, element: TensorElement) -> bool {
        use TensorElement as T;
        match self {
            Reduction::Add => !matches!(element, T::U8 | T::U16),
            Reduction::Min | Reduction::Max => matches!(
                element,
                T::U32 | T::S32 | T::U64 | T::S64 | T::F16 | T::Bf16
            ),
            Reduction::Inc | Reduction::Dec => matches!(element, T::U32),
            Reduction::And | Reduction::Or | Reduction::Xor => {
                matches!(element, T::U32 | T::S32 | T::U64 | T::S64)
            }
        }
    }

    /// Combines `source` into `target`, element by element; both are as long as the shorter.
    ///
    /// # Errors
    /// When the operation does not exist for the type; `target` is then unchanged.
    pub fn apply(
        self,
        element: TensorElement,
        target: &mut [u8],
        source: &[u8],
    ) -> Result<(), TmaError> {
        use TensorElement as T;
        if !self.exists(element) {
            return Err(TmaError::Reduction {
                operation: self.name(),
                element,
            });
        }
        match element {
            T::U8 | T::U16 => {}
            T::U32 => each(target, source, |a, b| {
                let (a, b) = (u32::from_le_bytes(a), u32::from_le_bytes(b));
                (self.unsigned(a.into(), b.into()) as u32).to_le_bytes()
            }),
            T::S32 => each(target, source, |a, b| {
                let (a, b) = (i32::from_le_bytes(a), i32::from_le_bytes(b));
                (self.signed(a.into(), b.into()) as i32).to_le_bytes()
            }),
            T::U64 => each(target, source, |a, b| {
                self.unsigned(u64::from_le_bytes(a), u64::from_le_bytes(b))
                    .to_le_bytes()
            }),
            T::S64 => each(target, source, |a, b| {
                self.signed(i64::from_le_bytes(a), i64::from_le_bytes(b))
                    .to_le_bytes()
            }),
            // f32 has more than twice the precision of either type, so that the sum rounded to it
            // and then to the type is the correctly rounded sum.
            T::F16 => each(target, source, |a, b| {
                let (a, b) = (
                    f16::from_le_bytes(a).to_f32(),
                    f16::from_le_bytes(b).to_f32(),
                );
                let result = self.float(a, b);
                let nan = f16::from_bits(CANONICAL_NAN);
                (if result.is_nan() {
                    nan
                } else {
                    f16::from_f32(result)
                })
                .to_le_bytes()
            }),
            T::Bf16 => each(target, source, |a, b| {
                let (a, b) = (
                    bf16::from_le_bytes(a).to_f32(),
                    bf16::from_le_bytes(b).to_f32(),
                );
                let result = self.float(a, b);
                let nan = bf16::from_bits(CANONICAL_NAN);
                (if result.is_nan() {
                    nan
                } else {
                    bf16::from_f32(result)
                })
                .to_le_bytes()
            }),
            T::F32 | T::F32Ftz | T::Tf32 | T::Tf32Ftz => each(target, source, |a, b| {
                (f32::from_le_bytes(a) + f32::from_le_bytes(b)).to_le_bytes()
            }),
            T::F64 => each(target, source, |a, b| {
                (f64::from_le_bytes(a) + f64::from_le_bytes(b)).to_le_bytes()
            }),
        }
        Ok(())
    }
}

impl Reduction {
    /// On `.u32` (widened) and `.u64`.
    fn unsigned(self, old: u64, source: u64) -> u64 {
        match self {
            Reduction::Add => old.wrapping_add(source),
            Reduction::Min => old.min(source),
            Reduction::Max => old.max(source),
            Reduction::Inc if old >= source => 0,
            Reduction::Inc => old + 1,
            Reduction::Dec if old == 0 || old > source => source,
            Reduction::Dec => old - 1,
            Reduction::And => old & source,
            Reduction::Or => old | source,
            Reduction::Xor => old ^ source,
        }
    }

    /// On `.s32` (widened) and `.s64`; `.inc` and `.dec` do not exist for them.
    fn signed(self, old: i64, source: i64) -> i64 {
        match self {
            Reduction::Min => old.min(source),
            Reduction::Max => old.max(source),
            _ => self.unsigned(old as u64, source as u64) as i64,
        }
    }

    /// On the values of `.f16` and `.bf16`; only `.add`, `.min` and `.max` exist for them.
    fn float(self, old: f32, source: f32) -> f32 {
        let smaller = |a: f32, b: f32| {
            if a.is_nan() {
                b
            } else if b.is_nan() || a < b || (a == b && a.is_sign_negative()) {
                a
            } else {
                b
            }
        };
        match self {
            Reduction::Min => smaller(old, source),
            Reduction::Max => -smaller(-old, -source),
            _ => old + source,
        }
    }
}

/// Applies `f` to each pair of elements of `N` bytes.
fn each<const N: usize>(target: &mut [u8], source: &[u8], f: impl Fn([u8; N], [u8; N]) -> [u8; N]) {
    let pairs = target
        .as_chunks_mut::<N>()
        .0
        .iter_mut()
        .zip(source.as_chunks::<N>().0);
    for (t, &s) in pairs {
        *t = f(*t, s);
    }
}
