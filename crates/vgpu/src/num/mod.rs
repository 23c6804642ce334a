//! The scalar arithmetic of PTX: pure functions from register bits to register bits.
//!
//! Every function takes and returns the bits that a register holds, in the unsigned integer of
//! the register's width (`u16`, `u32`, `u64`), whatever the instruction's type; predicates are
//! `bool`. Modifiers that change every lane alike are const parameters, so that a loop over the 32
//! lanes of a warp compiles to straight vector code:
//!
//! ```text
//! for lane in 0..32 { d[lane] = num::f32::add::<RN, FTZ>(a[lane], b[lane]) }
//! ```
//!
//! `.sat` and `.relu` are functions of their own ([`f32::sat`], [`half::relu`]) applied to the
//! result, as the ISA defines them.
//!
//! # What is exact and what is not
//!
//! | functions | contract |
//! | --- | --- |
//! | [`int`] | bits as the ISA defines them |
//! | [`mod@f32`], [`mod@f64`]: add, mul, fma, div, sqrt, rcp | IEEE 754, all four roundings |
//! | [`half`]: add, mul, fma of f16 and bf16 | one rounding to nearest even |
//! | min, max, compare, testp, copysign | bits as the ISA defines them |
//! | [`convert`], [`fp8`], [`tf32`] | one correct rounding |
//! | [`approx`] | within the ISA's bound, the same bits on every machine |
//!
//! The approximate functions are usually closer to the true value than a GPU's: a program that
//! relies on the GPU's very bits is outside the ISA.
//!
//! # NaN
//!
//! An f32 result that is NaN is [`f32::NAN`] and an f16 or bf16 one is [`half::NAN`], as the ISA's
//! canonical NaN; payloads are not kept (for f32 the ISA leaves the bits open). For f64 the ISA
//! keeps payloads but not which operand's: here the first NaN operand, quieted, else
//! [`f64::NAN`]. `abs`, `neg` and `copysign` of a NaN, which the ISA leaves open, act on the sign
//! bit alone.
//!
//! # Subnormals
//!
//! `FTZ` replaces subnormal inputs and results by zero of the same sign, where the instruction
//! has `.ftz`. A result counts as subnormal by its rounded value.

pub mod approx;
pub mod compare;
pub mod convert;
pub mod f32;
pub mod f64;
pub mod fp8;
pub mod half;
pub mod int;
pub mod pack;
pub mod round;
mod soft;
#[cfg(test)]
mod tests;
pub mod tf32;

pub use round::{RM, RN, RP, RZ, Round};

/// The value of a `FTZ` parameter for instructions with `.ftz`.
pub const FTZ: bool = true;

/// The value of a `FTZ` parameter for instructions without `.ftz`.
pub const KEEP: bool = false;
