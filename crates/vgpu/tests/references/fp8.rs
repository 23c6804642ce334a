//! The 8-bit floating-point formats, by their definition (OCP 8-bit Floating Point Specification).

/// A format: sign, exponent, mantissa.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fp8 {
    /// 4 bits of exponent with bias 7, 3 of mantissa; no infinities, one NaN a sign.
    E4m3,
    /// 5 bits of exponent with bias 15, 2 of mantissa; infinities and NaNs as in f16.
    E5m2,
}

impl Fp8 {
    /// The code of the largest finite value.
    fn max_code(self) -> u8 {
        match self {
            Fp8::E4m3 => 0x7e,
            Fp8::E5m2 => 0x7b,
        }
    }

    /// The largest finite value.
    pub fn max(self) -> f32 {
        fp8_to_f32(self, self.max_code())
    }
}

/// The value of a code; exact.
pub fn fp8_to_f32(format: Fp8, code: u8) -> f32 {
    let (mantissa_bits, bias) = match format {
        Fp8::E4m3 => (3, 7),
        Fp8::E5m2 => (2, 15),
    };
    let magnitude = code & 0x7f;
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    if magnitude > format.max_code() {
        return match format {
            Fp8::E5m2 if magnitude == 0x7c => sign * f32::INFINITY,
            _ => f32::NAN,
        };
    }
    let exponent = i32::from(magnitude >> mantissa_bits);
    let fraction = f32::from(magnitude & ((1 << mantissa_bits) - 1));
    let one = f32::from(1u8 << mantissa_bits);
    let value = match exponent {
        0 => fraction * 2f32.powi(1 - bias),
        _ => (one + fraction) * 2f32.powi(exponent - bias),
    };
    sign * value / one
}

/// The code nearest to a value, of two the even one; beyond the range the largest finite one. NaN
/// gives 0x7f.
pub fn fp8_from_f32(format: Fp8, value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let target = f64::from(value.abs());
    let distance = |code: u8| (f64::from(fp8_to_f32(format, code)) - target).abs();
    // Codes ascend with their values. The minimum by (distance, odd) is the nearest, then even one;
    // an infinite target is equally far from all, and beyond the largest.
    let max_code = format.max_code();
    if target >= f64::from(format.max()) {
        return sign | max_code;
    }
    let nearest = (0..=max_code)
        .min_by(|&a, &b| {
            distance(a)
                .total_cmp(&distance(b))
                .then((a % 2).cmp(&(b % 2)))
        })
        .expect("there are codes");
    sign | nearest
}

/// `quantize_*` of a row: its codes and its scale, bit for bit.
pub fn quantize_row(format: Fp8, row: &[f32]) -> (Vec<u8>, f32) {
    let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = match largest / format.max() {
        0.0 => 1.0,
        scale => scale,
    };
    let codes = row
        .iter()
        .map(|v| fp8_from_f32(format, v / scale))
        .collect();
    (codes, scale)
}
