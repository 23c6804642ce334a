//! Elementary functions in f32, written without branches so that loops over them vectorise.
//!
//! Every operation is a fused multiply–add, a comparison or a bit operation, each exactly defined
//! by IEEE 754: the bits are the same on every machine and at every vector width.
//! [`vectorized`] runs a loop with the widest instruction set that the machine has.
//!
//! Errors were measured against f64 over all of f32's range where the result is finite; the tests
//! below hold them to the stated bounds.

use pulp::Arch;

/// Runs `work` compiled for the best instruction set of this machine (AVX-512, AVX2 with FMA, or
/// the baseline), chosen once at run time. Mark the closure and what it calls `#[inline(always)]`,
/// otherwise the compiler keeps the baseline's code.
#[inline(always)]
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// Adding 1.5·2^23 to a small number rounds it to an integer, which then sits in the low bits.
const ROUND: f32 = 12_582_912.0;

/// The two factors of e^x = 2^n · e^r with |r| ≤ ln2/2, for −87.5 ≤ x ≤ 89: n + [`ROUND`], and e^r
/// by a polynomial.
#[inline(always)]
fn exp_factors(x: f32) -> (f32, f32) {
    // ln2 in two parts so that r keeps all its bits.
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.383_580_1e-3_f32;
    p = p.mul_add(r, 8.375_645e-3);
    p = p.mul_add(r, 4.166_829e-2);
    p = p.mul_add(r, 1.666_641e-1);
    p = p.mul_add(r, 4.999_999e-1);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    (shifted, p)
}

/// Below this, e^x is no longer a normal number and the result is 0.
const EXP_LOWEST: f32 = -87.3;

/// e^x with a relative error below 2^-22.6 (1.6e-7) for results that are normal numbers; smaller
/// results become 0. NaN stays NaN, +∞ gives +∞ and −∞ gives exactly 0.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these the result is 0 or ∞; the clamp keeps n within the exponent's range.
    let clamped = if x < -87.5 { -87.5 } else { x };
    let clamped = if clamped > 89.0 { 89.0 } else { clamped };
    let (shifted, p) = exp_factors(clamped);
    // 2^n in two factors: n = 128 alone would overflow the exponent.
    let ni = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = ni >> 1;
    let scale = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    let result = p * scale(half) * scale(ni - half);
    let result = if x < EXP_LOWEST { 0.0 } else { result };
    if x.is_nan() { x } else { result }
}

/// [`exp`] of a number that is not positive, or NaN: the same bits without the care that large
/// results need.
#[inline(always)]
pub fn exp_of_nonpositive(x: f32) -> f32 {
    let clamped = if x < EXP_LOWEST { EXP_LOWEST } else { x };
    let (shifted, p) = exp_factors(clamped);
    // The low bits of ROUND are 0: what is shifted out of the word is its exponent.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < EXP_LOWEST { 0.0 } else { p * power }
}

/// 1 / (1 + e^−x), with a relative error below 2^-21.5 where the result is a normal number.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function, with an absolute error below 2^-22.5.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    // |x| < 1: x · P(x²).
    let u = a * a;
    let mut s = 7.853_854e-5_f32;
    s = s.mul_add(u, -8.010_191e-4);
    s = s.mul_add(u, 5.188_327_4e-3);
    s = s.mul_add(u, -2.685_381_2e-2);
    s = s.mul_add(u, 1.128_358_5e-1);
    s = s.mul_add(u, -3.761_262_6e-1);
    s = s.mul_add(u, std::f32::consts::FRAC_2_SQRT_PI);
    let small = s * a;
    // |x| ≥ 1: 1 − e^−Q(x), where Q = −ln erfc; from 4.05 on the result is 1.
    let b = if a > 4.05 { 4.05 } else { a };
    let mut q = 2.168_675_8e-5_f32;
    q = q.mul_add(b, -4.413_352_4e-4);
    q = q.mul_add(b, 4.204_556e-3);
    q = q.mul_add(b, -2.520_824e-2);
    q = q.mul_add(b, 1.084_185_5e-1);
    q = q.mul_add(b, 6.332_199e-1);
    q = q.mul_add(b, 1.129_578_4);
    q = q.mul_add(b, -1.880_367_4e-4);
    let large = 1.0 - exp(-q);
    let magnitude = if a < 1.0 { small } else { large };
    let signed = magnitude.copysign(x);
    if x.is_nan() { x } else { signed }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 97th f32 between the bit patterns of two positive bounds, both signs.
    fn sweep(low: f32, high: f32) -> impl Iterator<Item = f32> {
        (low.to_bits()..=high.to_bits()).step_by(97).flat_map(|b| {
            let x = f32::from_bits(b);
            [x, -x]
        })
    }

    #[test]
    fn exp_is_within_its_bound() {
        let mut worst = 0f64;
        for x in sweep(1e-8, 87.2) {
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2f64.powf(-22.6), "2^{}", worst.log2());
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!((f64::from(exp(88.7)) / f64::from(88.7f32).exp() - 1.0).abs() < 1e-6);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn exp_of_nonpositive_has_the_bits_of_exp() {
        let all = (0..=0xff80_0000u32 - 0x8000_0000)
            .step_by(1013)
            .map(|b| b | 0x8000_0000);
        for bits in all.chain([0, 0xff80_0000]) {
            let x = f32::from_bits(bits);
            let general = exp(x);
            assert_eq!(exp_of_nonpositive(x).to_bits(), general.to_bits(), "{x}");
        }
        assert!(exp_of_nonpositive(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_is_within_its_bound() {
        for x in sweep(1e-8, 87.0) {
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            let error = (f64::from(sigmoid(x)) - exact).abs() / exact;
            assert!(error < 2f64.powf(-21.5), "{x}: {error}");
        }
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
    }

    /// erf in f64 by its Maclaurin series (small arguments) or continued fraction of erfc.
    fn erf_f64(x: f64) -> f64 {
        let a = x.abs();
        if a < 3.0 {
            let (mut term, mut sum, mut n) = (a, a, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -a * a / n;
                sum += term / (2.0 * n + 1.0);
            }
            (sum * 2.0 / std::f64::consts::PI.sqrt()).copysign(x)
        } else {
            let mut f = 0.0;
            for k in (1..60).rev() {
                f = f64::from(k) / 2.0 / (a + f);
            }
            (1.0 - (-a * a).exp() / ((a + f) * std::f64::consts::PI.sqrt())).copysign(x)
        }
    }

    #[test]
    fn erf_is_within_its_bound() {
        let mut worst = 0f64;
        for x in sweep(1e-6, 6.0) {
            worst = worst.max((f64::from(erf(x)) - erf_f64(f64::from(x))).abs());
        }
        assert!(worst < 2f64.powf(-22.5), "2^{}", worst.log2());
        assert_eq!(erf(f32::INFINITY), 1.0);
        assert_eq!(erf(f32::NEG_INFINITY), -1.0);
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn vector_and_scalar_code_have_the_same_bits() {
        let xs: Vec<f32> = sweep(1e-6, 90.0).step_by(1001).collect();
        let wide: Vec<[f32; 2]> = vectorized(
            #[inline(always)]
            || {
                xs.iter()
                    .map(
                        #[inline(always)]
                        |&x| [exp(x), erf(x)],
                    )
                    .collect()
            },
        );
        for (&x, w) in xs.iter().zip(&wide) {
            assert_eq!(
                [exp(x).to_bits(), erf(x).to_bits()],
                [w[0].to_bits(), w[1].to_bits()]
            );
        }
    }
}
