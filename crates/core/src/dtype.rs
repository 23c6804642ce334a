//! Element types of activations and weights.

use std::fmt;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::math::vectorized;

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
    /// [`Element::to_f32`] of a slice, vectorised. Panics if the lengths differ.
    #[inline]
    fn widen(from: &[Self], to: &mut [f32]) {
        assert_eq!(from.len(), to.len(), "one f32 an element");
        vectorized(
            #[inline(always)]
            || {
                for (t, f) in to.iter_mut().zip(from) {
                    *t = f.to_f32();
                }
            },
        );
    }
    /// [`Element::from_f32`] of a slice, vectorised. Panics if the lengths differ.
    #[inline]
    fn narrow(from: &[f32], to: &mut [Self]) {
        assert_eq!(from.len(), to.len(), "one element an f32");
        vectorized(
            #[inline(always)]
            || {
                for (t, &f) in to.iter_mut().zip(from) {
                    *t = Self::from_f32(f);
                }
            },
        );
    }
    /// The slice itself where the type is f32, so that widening can be skipped.
    #[inline(always)]
    fn as_f32(_slice: &[Self]) -> Option<&[f32]> {
        None
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
    #[inline]
    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    #[inline]
    fn narrow(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    #[inline(always)]
    fn as_f32(slice: &[Self]) -> Option<&[f32]> {
        Some(slice)
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    const NAN: Self = f16::NAN;
    // Both directions without branches and without asking for the machine's instruction each time,
    // so that loops over them vectorise; NaNs keep their sign and upper bits and become quiet, as
    // the instruction makes them.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        // The exponent is 112 too small; multiplying by 2^112 also normalises subnormals.
        let finite = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
        let quiet = if bits & 0x3ff == 0 { 0 } else { 0x40_0000 };
        let special = magnitude | 0x7f80_0000 | quiet;
        let magnitude = if bits & 0x7c00 == 0x7c00 {
            special
        } else {
            finite
        };
        f32::from_bits(magnitude | (bits & 0x8000) << 16)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        // Exponent less 112, half a unit added (ties to even), truncated; a carry into the exponent
        // is right, and beyond the largest number gives infinity.
        let rounded = magnitude.wrapping_add(0xc800_0fff + ((magnitude >> 13) & 1)) >> 13;
        // The spacing of f32 around 0.5 is that of f16's subnormals: the addition rounds.
        let subnormal = (f32::from_bits(magnitude) + 0.5)
            .to_bits()
            .wrapping_sub(0x3f00_0000);
        let small = if magnitude < 0x3880_0000 {
            subnormal
        } else {
            rounded
        };
        let finite = if magnitude < 0x4780_0000 {
            small
        } else {
            0x7c00
        };
        let quiet = 0x7e00 | (magnitude >> 13) & 0x3ff;
        let magnitude = if magnitude > 0x7f80_0000 {
            quiet
        } else {
            finite
        };
        f16::from_bits((magnitude | (bits >> 16) & 0x8000) as u16)
    }
    // The library's slices use the conversion instruction, where there is one.
    #[inline]
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
    #[inline]
    fn narrow(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
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
    fn f16_conversion_agrees_with_half_on_every_boundary() {
        for bits in 0..=u16::MAX {
            let exact = f16::from_bits(bits);
            let (ours, theirs) = (Element::to_f32(exact), exact.to_f32());
            assert_eq!(ours.to_bits(), theirs.to_bits(), "widening {bits:04x}");
        }
        // Every pattern of the 16 upper bits, with lower bits on both sides of each tie.
        for high in 0..=u16::MAX {
            for low in [
                0u32, 1, 0xfff, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0xefff, 0xffff,
            ] {
                let value = f32::from_bits(u32::from(high) << 16 | low);
                let (ours, theirs) = (<f16 as Element>::from_f32(value), f16::from_f32(value));
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{high:04x} {low:04x}");
            }
        }
    }

    /// Slices convert to the bits that single elements convert to, whatever their length.
    fn slices_agree<T: Element>() {
        let odd = f32::from_bits(0x7fa0_1234);
        let values: Vec<f32> = (0..4099u32)
            .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)))
            .chain([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, odd])
            .collect();
        for len in [0, 1, 7, 33, values.len()] {
            let mut narrow = vec![T::default(); len];
            T::narrow(&values[..len], &mut narrow);
            let mut wide = vec![1.0; len];
            T::widen(&narrow, &mut wide);
            for i in 0..len {
                let one = T::from_f32(values[i]);
                assert_eq!(
                    bytemuck::bytes_of(&narrow[i]),
                    bytemuck::bytes_of(&one),
                    "{} of {:08x}",
                    T::DTYPE,
                    values[i].to_bits()
                );
                assert_eq!(wide[i].to_bits(), one.to_f32().to_bits());
            }
            assert_eq!(T::as_f32(&narrow).is_some(), T::DTYPE == DType::F32);
        }
    }

    #[test]
    fn slices_convert_as_elements_do() {
        slices_agree::<f32>();
        slices_agree::<f16>();
        slices_agree::<bf16>();
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
