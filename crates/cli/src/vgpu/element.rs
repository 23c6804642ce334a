//! Element types of buffers: their names, their bytes, their values as text.

use half::{bf16, f16};
use tollgate_vgpu::num::fp8;

/// What a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of PTX types")]
pub enum Element {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
    E4m3,
    E5m2,
}

impl Element {
    /// Every type, in the order of messages.
    pub const ALL: [Self; 14] = [
        Self::U8,
        Self::S8,
        Self::U16,
        Self::S16,
        Self::U32,
        Self::S32,
        Self::U64,
        Self::S64,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
        Self::E4m3,
        Self::E5m2,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::S8 => "s8",
            Self::U16 => "u16",
            Self::S16 => "s16",
            Self::U32 => "u32",
            Self::S32 => "s32",
            Self::U64 => "u64",
            Self::S64 => "s64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
        }
    }

    /// The type with a name; `bN` is `uN`.
    ///
    /// # Errors
    /// The names there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = match text {
            "b8" => "u8",
            "b16" => "u16",
            "b32" => "u32",
            "b64" => "u64",
            other => other,
        };
        Self::ALL
            .into_iter()
            .find(|element| element.name() == wanted)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                format!("element type '{text}' is unknown; there are {known}")
            })
    }

    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::S8 | Self::E4m3 | Self::E5m2 => 1,
            Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::S32 | Self::F32 => 4,
            Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F16 | Self::Bf16 | Self::F32 | Self::F64 | Self::E4m3 | Self::E5m2
        )
    }

    /// The bits of a value as it is written: decimal, `0x…` for whole numbers, `nan` and `inf` for
    /// real ones.
    ///
    /// # Errors
    /// Not a value of the type; says which are.
    pub fn value(self, text: &str) -> Result<u64, String> {
        if self.is_float() {
            let value = text
                .parse::<f64>()
                .map_err(|_| format!("'{text}' is no {}; write a number", self.name()))?;
            return Ok(self.from_real(value));
        }
        let bits = 8 * self.bytes() as u32;
        let signed = matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64);
        let (low, high) = if signed {
            (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1)
        } else {
            (0, (1_i128 << bits) - 1)
        };
        let value = whole(text).filter(|value| (low..=high).contains(value));
        let value = value.ok_or_else(|| {
            let name = self.name();
            format!("'{text}' is no {name}; write a whole number from {low} to {high}")
        })?;
        Ok(self.cut(value as u64))
    }

    /// The bits of the nearest value.
    pub fn from_real(self, value: f64) -> u64 {
        match self {
            Self::F16 => f16::from_f64(value).to_bits().into(),
            Self::Bf16 => bf16::from_f64(value).to_bits().into(),
            Self::F32 => (value as f32).to_bits().into(),
            Self::F64 => value.to_bits(),
            Self::E4m3 => fp8::e4m3_from_f32::<false>((value as f32).to_bits()).into(),
            Self::E5m2 => fp8::e5m2_from_f32::<false>((value as f32).to_bits()).into(),
            whole => whole.cut(value as i128 as u64),
        }
    }

    /// The low bits, as many as a value has.
    pub fn cut(self, bits: u64) -> u64 {
        match self.bytes() {
            8 => bits,
            bytes => bits & ((1 << (8 * bytes)) - 1),
        }
    }

    /// A value as text; real ones read back to the same bits.
    pub fn show(self, bits: u64) -> String {
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => bits.to_string(),
            Self::S8 => (bits as i8).to_string(),
            Self::S16 => (bits as i16).to_string(),
            Self::S32 => (bits as i32).to_string(),
            Self::S64 => (bits as i64).to_string(),
            Self::F16 => f16::from_bits(bits as u16).to_f32().to_string(),
            Self::Bf16 => bf16::from_bits(bits as u16).to_f32().to_string(),
            Self::F32 => match f32::from_bits(bits as u32) {
                value if is_long(value.into()) => format!("{value:e}"),
                value => value.to_string(),
            },
            Self::F64 => match f64::from_bits(bits) {
                value if is_long(value) => format!("{value:e}"),
                value => value.to_string(),
            },
            Self::E4m3 => f32::from_bits(fp8::e4m3_to_f32(bits as u8)).to_string(),
            Self::E5m2 => f32::from_bits(fp8::e5m2_to_f32(bits as u8)).to_string(),
        }
    }

    /// The values in some bytes, little endian; bytes that are no whole value are left out.
    pub fn bits_of(self, bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
        bytes.chunks_exact(self.bytes()).map(|chunk| {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(eight)
        })
    }
}

/// Whether plain digits of a value would be very many.
fn is_long(value: f64) -> bool {
    value != 0.0 && value.is_finite() && !(1e-6..1e16).contains(&value.abs())
}

/// A whole number, decimal or `0x…`, with a sign.
pub fn whole(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let size = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(sign * i128::from(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_both_ways() {
        for (element, text, bits) in [
            (Element::U8, "255", 255),
            (Element::S8, "-1", 255),
            (Element::U32, "0xff", 255),
            (Element::S64, "-2", u64::MAX - 1),
            (Element::F16, "1.5", 0x3e00),
            (Element::Bf16, "-2", 0xc000),
            (Element::F32, "0.1", 0x3dcc_cccd),
            (Element::F64, "1e300", 1e300_f64.to_bits()),
            (Element::E4m3, "448", 0x7e),
            (Element::E5m2, "-0.5", 0xb8),
        ] {
            assert_eq!(element.value(text), Ok(bits), "{element:?} {text}");
            let shown = element.show(bits);
            assert_eq!(element.value(&shown), Ok(bits), "{element:?} {shown}");
        }
        assert_eq!(Element::F32.show(0x0000_0001), "1e-45");
        assert_eq!(Element::F32.show(f32::NAN.to_bits().into()), "NaN");
    }

    #[test]
    fn values_out_of_range_name_the_range() {
        let error = Element::U8.value("256").unwrap_err();
        assert!(
            error.contains("'256'") && error.contains("from 0 to 255"),
            "{error}"
        );
        let error = Element::S16.value("-32769").unwrap_err();
        assert!(error.contains("-32768 to 32767"), "{error}");
        assert!(Element::U32.value("1.5").is_err() && Element::F32.value("one").is_err());
        let error = Element::parse("float").unwrap_err();
        assert!(
            error.contains("'float'") && error.contains("f32"),
            "{error}"
        );
        assert_eq!(Element::parse("b32"), Ok(Element::U32));
    }
}
