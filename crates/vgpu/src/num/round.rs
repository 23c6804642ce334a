//! Rounding modes, and the last step of directed f32 rounding.

/// Nearest, ties to even (`.rn`), as a const parameter.
pub const RN: u8 = 0;
/// Towards zero (`.rz`), as a const parameter.
pub const RZ: u8 = 1;
/// Towards negative infinity (`.rm`), as a const parameter.
pub const RM: u8 = 2;
/// Towards positive infinity (`.rp`), as a const parameter.
pub const RP: u8 = 3;

/// A rounding mode. `.rni`, `.rzi`, `.rmi` and `.rpi` are the same modes at integer precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Round {
    /// Nearest, ties to even: `.rn`, `.rni`.
    Nearest,
    /// Nearest, ties away from zero: `.rna`.
    NearestAway,
    /// Towards zero: `.rz`, `.rzi`.
    Zero,
    /// Towards negative infinity: `.rm`, `.rmi`.
    Down,
    /// Towards positive infinity: `.rp`, `.rpi`.
    Up,
}

impl Round {
    /// The mode of a const parameter: [`RN`], [`RZ`], [`RM`] or [`RP`].
    #[inline(always)]
    pub const fn of(mode: u8) -> Self {
        match mode {
            RZ => Self::Zero,
            RM => Self::Down,
            RP => Self::Up,
            _ => Self::Nearest,
        }
    }
}

/// Whether `high + low` is less or greater than `rounded`, as a number of that sign.
///
/// `high` is the f64 nearest to the exact value `high + low`, and `rounded` the f32 nearest to
/// `high`. If `high` and `rounded` differ, they differ by more than `low` can make up for.
#[inline(always)]
fn excess(high: f64, low: f64, rounded: f32) -> f64 {
    let gap = high - f64::from(rounded);
    if gap == 0.0 { low } else { gap }
}

/// The f32 next to `bits` towards the sign of `excess`; `bits` itself for zero or NaN.
#[inline(always)]
fn nudge(bits: u32, excess: f64) -> u32 {
    let up = u32::from(excess > 0.0);
    let down = u32::from(excess < 0.0);
    let towards = up.wrapping_sub(down);
    // Bits grow away from zero.
    bits.wrapping_add(if bits >> 31 == 0 {
        towards
    } else {
        towards.wrapping_neg()
    })
}

/// `high + low` rounded once to f32 in the directed mode `M`, where `high` is the f64 nearest to
/// the sum. A zero keeps the sign of `high`; NaN and infinity stay.
#[inline(always)]
pub(super) fn directed<const M: u8>(high: f64, low: f64) -> u32 {
    let rounded = high as f32;
    let excess = excess(high, low, rounded);
    let inwards = if high < 0.0 {
        excess > 0.0
    } else {
        excess < 0.0
    };
    let wanted = match M {
        RZ => inwards,
        RM => excess < 0.0,
        _ => excess > 0.0,
    };
    nudge(rounded.to_bits(), if wanted { excess } else { 0.0 })
}

/// `high + low` rounded to f32 so that a second rounding to at most 22 bits is right: an inexact
/// value becomes the neighbour with an odd last bit ("round to odd").
#[inline(always)]
pub(super) fn odd(high: f64, low: f64) -> f32 {
    let rounded = high as f32;
    let even = rounded.to_bits() & 1 == 0;
    let excess = excess(high, low, rounded);
    f32::from_bits(nudge(rounded.to_bits(), if even { excess } else { 0.0 }))
}

/// `a + b` as the nearest f64 and the rest, exactly; the rest is NaN if the sum is not finite.
#[inline(always)]
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}
