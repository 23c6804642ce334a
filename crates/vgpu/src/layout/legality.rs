//! Which tensor instructions exist, and why another one does not.
//!
//! `mma` from 9.7.14.5.14, `wgmma` from 9.7.15.2 and 9.7.15.5.2, the matrix loads and stores from
//! 9.7.14.5.15 – 9.7.14.5.17. Targets are given as numbers, 80 for `sm_80`. What the ISA defines
//! but this machine does not run (`.m8n8k4` with `.f16`, `.b1`, sparse, block-scaled) is refused
//! in words, like what does not exist.

use super::elements::Element;

/// An instruction that is refused. The text names what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Illegal(String);

impl Illegal {
    pub(super) fn new(text: impl Into<String>) -> Illegal {
        Illegal(text.into())
    }
}

fn refuse<T>(text: impl Into<String>) -> Result<T, Illegal> {
    Err(Illegal::new(text))
}

/// A legal shape and choice of types of `mma.sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MmaForm {
    shape: (u32, u32, u32),
    types: [Element; 4],
}

impl MmaForm {
    /// Checks `mma.sync.aligned.mMnNkK.row.col.d.a.b.c` for target `sm`.
    ///
    /// # Errors
    /// When the shape does not exist for the types, the types do not go together, the target is
    /// too old, or the form is one that this machine does not run.
    pub fn new(
        shape: (u32, u32, u32),
        d: Element,
        a: Element,
        b: Element,
        c: Element,
        sm: u32,
    ) -> Result<MmaForm, Illegal> {
        let (m, n, k) = shape;
        let name = format!("mma.m{m}n{n}k{k}");
        if shape == (8, 8, 4) && a == Element::F16 {
            return refuse(format!(
                "{name} with .f16 is not supported: four products by quarter-warps, made for sm_70"
            ));
        }
        let shapes = mma_shapes(a);
        if shapes.is_empty() {
            return refuse(format!("{a} is not a multiplicand type of mma"));
        }
        if !shapes.iter().any(|s| s.0 == shape) {
            let known: Vec<String> = shapes
                .iter()
                .map(|((m, n, k), _)| format!(".m{m}n{n}k{k}"))
                .collect();
            return refuse(format!(
                "{name} does not exist for multiplicands of type {a}; the shapes are {}",
                known.join(", ")
            ));
        }
        let mixes = (a.is_fp8() && b.is_fp8())
            || (a.is_small_int() && b.is_small_int() && a.bits() == b.bits());
        if a != b && !mixes {
            return refuse(format!(
                "{name}: types {a} and {b} of A and B do not go together"
            ));
        }
        if c != d {
            return refuse(format!(
                "{name}: C is {c} but D is {d}; they must be the same"
            ));
        }
        if !accumulators(a).contains(&d) {
            return refuse(format!(
                "{name}: the accumulator is {d}, but for {a} it must be {}",
                list(accumulators(a))
            ));
        }
        let needs = shapes
            .iter()
            .find(|s| s.0 == shape)
            .map_or(80, |(_, needs)| *needs);
        if sm < needs {
            return refuse(format!(
                "{name} with {a} needs sm_{needs} or higher; the target is sm_{sm}"
            ));
        }
        Ok(MmaForm {
            shape,
            types: [d, a, b, c],
        })
    }

    /// Every legal form for target `sm`.
    pub fn all(sm: u32) -> Vec<MmaForm> {
        let mut forms = Vec::new();
        for a in Element::ALL {
            for b in Element::ALL {
                for &(shape, _) in mma_shapes(a) {
                    for &d in accumulators(a) {
                        forms.extend(MmaForm::new(shape, d, a, b, d, sm));
                    }
                }
            }
        }
        forms
    }

    /// M, N and K.
    pub const fn shape(&self) -> (u32, u32, u32) {
        self.shape
    }

    /// Type of D.
    pub const fn d(&self) -> Element {
        self.types[0]
    }

    /// Type of A.
    pub const fn a(&self) -> Element {
        self.types[1]
    }

    /// Type of B.
    pub const fn b(&self) -> Element {
        self.types[2]
    }

    /// Type of C.
    pub const fn c(&self) -> Element {
        self.types[3]
    }
}

/// The shapes of `mma` by the type of A, each with the first target that has it.
fn mma_shapes(a: Element) -> &'static [((u32, u32, u32), u32)] {
    match a {
        Element::F16 | Element::Bf16 => &[((16, 8, 8), 80), ((16, 8, 16), 80)],
        Element::Tf32 => &[((16, 8, 4), 80), ((16, 8, 8), 80)],
        Element::F64 => &[
            ((8, 8, 4), 80),
            ((16, 8, 4), 90),
            ((16, 8, 8), 90),
            ((16, 8, 16), 90),
        ],
        Element::E4m3 | Element::E5m2 => &[((16, 8, 16), 89), ((16, 8, 32), 89)],
        Element::S8 | Element::U8 => &[((8, 8, 16), 75), ((16, 8, 16), 80), ((16, 8, 32), 80)],
        Element::S4 | Element::U4 => &[((8, 8, 32), 75), ((16, 8, 32), 80), ((16, 8, 64), 80)],
        Element::F32 | Element::S32 => &[],
    }
}

/// The accumulator types by the type of A, for `mma` and `wgmma` alike.
fn accumulators(a: Element) -> &'static [Element] {
    match a {
        Element::F16 | Element::E4m3 | Element::E5m2 => &[Element::F16, Element::F32],
        Element::Bf16 | Element::Tf32 => &[Element::F32],
        Element::F64 => &[Element::F64],
        Element::S8 | Element::U8 | Element::S4 | Element::U4 => &[Element::S32],
        Element::F32 | Element::S32 => &[],
    }
}

fn list(types: &[Element]) -> String {
    let names: Vec<String> = types.iter().map(Element::to_string).collect();
    names.join(" or ")
}

/// A legal shape and choice of types of `wgmma.mma_async`. M is 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WgmmaForm {
    n: u32,
    types: [Element; 3],
}

impl WgmmaForm {
    /// Checks `wgmma.mma_async.sync.aligned.mMnNkK.d.a.b` for target `sm`; `arch_specific` says
    /// whether the target has the suffix `a`, which `wgmma` needs.
    ///
    /// # Errors
    /// When the shape does not exist for the types, the types do not go together, or the target is
    /// not `sm_90a`.
    pub fn new(
        shape: (u32, u32, u32),
        d: Element,
        a: Element,
        b: Element,
        sm: u32,
        arch_specific: bool,
    ) -> Result<WgmmaForm, Illegal> {
        let (m, n, k) = shape;
        let name = format!("wgmma.m{m}n{n}k{k}");
        if sm != 90 || !arch_specific {
            let suffix = if arch_specific { "a" } else { "" };
            return refuse(format!(
                "{name} needs the target sm_90a; the target is sm_{sm}{suffix}"
            ));
        }
        let Some(needed) = wgmma_k(a) else {
            return refuse(format!("{a} is not a multiplicand type of wgmma"));
        };
        if m != 64 {
            return refuse(format!("{name}: M is {m}, must be 64"));
        }
        if k != needed {
            return refuse(format!("{name}: K is {k}, must be {needed} for {a}"));
        }
        if n % 8 != 0 || !(8..=256).contains(&n) {
            return refuse(format!(
                "{name}: N is {n}, must be a multiple of 8 from 8 to 256"
            ));
        }
        if a.is_small_int() && n > 32 && n % 16 != 0 {
            return refuse(format!(
                "{name}: N is {n}, but above 32 it must be a multiple of 16 for {a}"
            ));
        }
        let mixes = (a.is_fp8() && b.is_fp8()) || (a.is_small_int() && b.is_small_int());
        if a != b && (!mixes || a.bits() != b.bits()) {
            return refuse(format!(
                "{name}: types {a} and {b} of A and B do not go together"
            ));
        }
        if !accumulators(a).contains(&d) {
            return refuse(format!(
                "{name}: the accumulator is {d}, but for {a} it must be {}",
                list(accumulators(a))
            ));
        }
        Ok(WgmmaForm {
            n,
            types: [d, a, b],
        })
    }

    /// Checks a transposed (MN-major) operand in shared memory: only `.f16` and `.bf16` have one.
    ///
    /// # Errors
    /// When the element type has only the K-major layout.
    pub fn check_transpose(&self) -> Result<(), Illegal> {
        match self.a() {
            Element::F16 | Element::Bf16 => Ok(()),
            other => refuse(format!(
                "wgmma with {other} takes no transposed operand: imm-trans-a and imm-trans-b \
                 exist for .f16 and .bf16 only"
            )),
        }
    }

    /// M, N and K.
    pub fn shape(&self) -> (u32, u32, u32) {
        (64, self.n, 256 / self.a().bits())
    }

    /// Type of D.
    pub const fn d(&self) -> Element {
        self.types[0]
    }

    /// Type of A.
    pub const fn a(&self) -> Element {
        self.types[1]
    }

    /// Type of B.
    pub const fn b(&self) -> Element {
        self.types[2]
    }
}

/// K of `wgmma` by the type of A: always 32 bytes.
fn wgmma_k(a: Element) -> Option<u32> {
    match a {
        Element::F16 | Element::Bf16 => Some(16),
        Element::Tf32 => Some(8),
        Element::E4m3 | Element::E5m2 | Element::S8 | Element::U8 => Some(32),
        _ => None,
    }
}

/// Checks the shape and type of `ldmatrix`: `.m8n8` of `.b16`, 1, 2 or 4 matrices.
///
/// # Errors
/// When the shape, the count or the type is not one of those; the narrow types and the shapes
/// `.m16n16` and `.m8n16` begin with `sm_100a`.
pub fn check_ldmatrix(shape: &str, count: u32, element: &str) -> Result<(), Illegal> {
    check_matrix_move("ldmatrix", shape, count, element)
}

/// Checks the shape and type of `stmatrix`, as [`check_ldmatrix`], and its target: `sm_90`.
///
/// # Errors
/// As [`check_ldmatrix`], and for a target before `sm_90`.
pub fn check_stmatrix(shape: &str, count: u32, element: &str, sm: u32) -> Result<(), Illegal> {
    check_matrix_move("stmatrix", shape, count, element)?;
    if sm < 90 {
        return refuse(format!(
            "stmatrix needs sm_90 or higher; the target is sm_{sm}"
        ));
    }
    Ok(())
}

fn check_matrix_move(name: &str, shape: &str, count: u32, element: &str) -> Result<(), Illegal> {
    match shape {
        "m8n8" => {}
        "m16n16" | "m8n16" | "m16n8" => {
            return refuse(format!(
                "{name}.{shape} needs sm_100a or higher: not supported"
            ));
        }
        other => return refuse(format!("{name}: .{other} is not a shape; .m8n8 is")),
    }
    if !matches!(count, 1 | 2 | 4) {
        return refuse(format!(
            "{name}: .x{count} is not a count; .x1, .x2 and .x4 are"
        ));
    }
    if element != "b16" {
        return refuse(format!("{name}.m8n8: the type is .{element}, must be .b16"));
    }
    Ok(())
}
