//! Element types of activations and weights.

use std::fmt;

use half::{bf16, f16};

crate::named::named_enum! {
    /// The element type of activations and expert weights. Router logits, probabilities and
    /// routing weights are f32 whatever this is.
    #[allow(missing_docs)]
    pub enum DType("dtype") {
        F32 = "f32",
        F16 = "f16",
        Bf16 = "bf16",
    }
}

impl DType {
    /// Bytes per element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Half the distance from 1 to the next representable number: the largest relative error of
    /// one rounding to nearest.
    pub const fn unit_roundoff(self) -> f64 {
        match self {
            Self::F32 => 1.0 / (1u64 << 24) as f64,
            Self::F16 => 1.0 / (1u64 << 11) as f64,
            Self::Bf16 => 1.0 / (1u64 << 8) as f64,
        }
    }

    /// The smallest positive normal number: below it roundings are absolute, not relative.
    pub fn min_positive_normal(self) -> f64 {
        match self {
            Self::F32 => f64::from(f32::MIN_POSITIVE),
            Self::F16 => f16::MIN_POSITIVE.to_f64(),
            Self::Bf16 => bf16::MIN_POSITIVE.to_f64(),
        }
    }
}

/// A number type that activations and expert weights may have.
///
/// Arithmetic never happens in this type: values widen to f32 (exactly), are computed with, and
/// are rounded once, to nearest even, when they are stored.
pub trait Element:
    bytemuck::Pod + PartialEq + fmt::Debug + Default + Send + Sync + 'static
{
    /// The type's runtime name.
    const DTYPE: DType;
    /// A quiet NaN, for poisoning buffers in tests.
    const NAN: Self;
    /// Exact widening.
    fn to_f32(self) -> f32;
    /// Rounding to nearest even; overflow becomes infinity.
    fn from_f32(value: f32) -> Self;
    /// Exact widening to the type of the reference.
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self.to_f32())
    }
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    const NAN: Self = f32::NAN;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    const NAN: Self = f16::NAN;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
    const NAN: Self = bf16::NAN;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        // Branch-free so that loops over it vectorise: add half a unit (ties to even), truncate;
        // a NaN keeps its sign and becomes quiet.
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        bf16::from_bits(if value.is_nan() {
            quiet as u16
        } else {
            rounded as u16
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounding_agrees_with_half_on_every_boundary() {
        for high in 0..=u16::MAX {
            for low in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(u32::from(high) << 16 | low);
                let ours = <bf16 as Element>::from_f32(value);
                let theirs = bf16::from_f32(value);
                if value.is_nan() {
                    assert!(
                        ours.is_nan() && theirs.is_nan(),
                        "{value:?} {high:04x} {low:04x}"
                    );
                } else {
                    assert_eq!(ours.to_bits(), theirs.to_bits(), "{high:04x} {low:04x}");
                }
            }
            let exact = bf16::from_bits(high);
            assert!(
                exact.is_nan() || Element::to_f32(exact) == exact.to_f32(),
                "widening {high:04x}"
            );
        }
    }

    #[test]
    fn names_round_trip_and_errors_list_the_choices() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>(), Ok(*dtype));
        }
        let error = "fp8".parse::<DType>().unwrap_err().to_string();
        assert_eq!(error, "unknown dtype 'fp8', expected one of f32, f16, bf16");
    }
}
