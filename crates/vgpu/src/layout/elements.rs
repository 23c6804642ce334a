//! The element types of matrix operands.

use std::fmt;

/// The type of the elements of a matrix operand, as its PTX modifier names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// `.f16`
    F16,
    /// `.bf16`
    Bf16,
    /// `.tf32`: an f32 of which the low 13 bits do not count.
    Tf32,
    /// `.f32`
    F32,
    /// `.f64`
    F64,
    /// `.e4m3`
    E4m3,
    /// `.e5m2`
    E5m2,
    /// `.s8`
    S8,
    /// `.u8`
    U8,
    /// `.s4`
    S4,
    /// `.u4`
    U4,
    /// `.s32`
    S32,
}

impl Element {
    /// Every type.
    pub const ALL: [Element; 12] = [
        Element::F16,
        Element::Bf16,
        Element::Tf32,
        Element::F32,
        Element::F64,
        Element::E4m3,
        Element::E5m2,
        Element::S8,
        Element::U8,
        Element::S4,
        Element::U4,
        Element::S32,
    ];

    /// Bits an element takes in a register or in memory.
    pub const fn bits(self) -> u32 {
        match self {
            Element::F64 => 64,
            Element::Tf32 | Element::F32 | Element::S32 => 32,
            Element::F16 | Element::Bf16 => 16,
            Element::E4m3 | Element::E5m2 | Element::S8 | Element::U8 => 8,
            Element::S4 | Element::U4 => 4,
        }
    }

    /// Elements in one register of the operand; the register is 64 bits wide for `.f64`, else 32.
    pub const fn per_register(self) -> u32 {
        if self.bits() >= 32 {
            1
        } else {
            32 / self.bits()
        }
    }

    /// Is this `.e4m3` or `.e5m2`?
    pub const fn is_fp8(self) -> bool {
        matches!(self, Element::E4m3 | Element::E5m2)
    }

    /// Is this one of the integer multiplicands, `.s8`, `.u8`, `.s4`, `.u4`?
    pub const fn is_small_int(self) -> bool {
        matches!(self, Element::S8 | Element::U8 | Element::S4 | Element::U4)
    }

    /// The bits of element `sub` of a 32-bit register, counted from the low end (`sub` is taken
    /// modulo [`Element::per_register`]). Not for `.f64`, whose registers are wider: low half.
    #[inline]
    pub const fn extract(self, register: u32, sub: u32) -> u32 {
        let bits = self.bits();
        if bits >= 32 {
            register
        } else {
            (register >> (sub.wrapping_mul(bits) & 31)) & ((1 << bits) - 1)
        }
    }

    /// The value of an integer multiplicand from its bits: sign-extended for `.s8` and `.s4`,
    /// zero-extended for `.u8` and `.u4`; the bits themselves for other types.
    #[inline]
    pub const fn integer(self, bits: u32) -> i32 {
        match self {
            Element::S8 => bits as u8 as i8 as i32,
            Element::U8 => bits as u8 as i32,
            Element::S4 => ((bits << 28) as i32) >> 28,
            Element::U4 => (bits & 15) as i32,
            _ => bits as i32,
        }
    }

    /// The PTX modifier without its dot.
    pub const fn name(self) -> &'static str {
        match self {
            Element::F16 => "f16",
            Element::Bf16 => "bf16",
            Element::Tf32 => "tf32",
            Element::F32 => "f32",
            Element::F64 => "f64",
            Element::E4m3 => "e4m3",
            Element::E5m2 => "e5m2",
            Element::S8 => "s8",
            Element::U8 => "u8",
            Element::S4 => "s4",
            Element::U4 => "u4",
            Element::S32 => "s32",
        }
    }

    /// The type whose PTX modifier, without its dot, is `name`.
    pub fn from_name(name: &str) -> Option<Element> {
        Element::ALL.into_iter().find(|e| e.name() == name)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}", self.name())
    }
}

/// The value a `.tf32` operand has in a multiplication: sign, exponent and the 10 high bits of the
/// fraction. The ISA leaves the low 13 bits of an unconverted f32 undefined; they are dropped here,
/// as on the known hardware.
#[inline]
pub const fn tf32(bits: u32) -> f32 {
    f32::from_bits(bits & 0xffff_e000)
}
