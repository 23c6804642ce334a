//! The non-linearities, their derivatives, and the gated form: f32 over slices for the fast
//! implementation, f64 scalars for the reference.
//!
//! Infinities and NaN follow plain arithmetic: a NaN stays NaN, and 0·∞ is NaN.

use tollgate_core::math::{erf, exp, sigmoid, vectorized};
use tollgate_core::options::Activation;

/// √(2/π) and the cubic coefficient of the tanh form.
const TANH_SCALE: f64 = 0.797_884_560_802_865_4;
const TANH_CUBIC: f64 = 0.044_715;

/// An activation in f32, branch-free so that loops over it vectorise.
trait Function {
    /// `act(v)`.
    fn value(v: f32) -> f32;
    /// `act'(v)`.
    fn derivative(v: f32) -> f32;
}

struct Relu;
struct Gelu;
struct GeluTanh;
struct Silu;

impl Function for Relu {
    // Written so that a NaN, which is not ≤ 0, passes.
    #[inline(always)]
    fn value(v: f32) -> f32 {
        if v <= 0.0 { 0.0 } else { v }
    }
    #[inline(always)]
    fn derivative(v: f32) -> f32 {
        let positive = if v.is_nan() { v } else { 1.0 };
        if v <= 0.0 { 0.0 } else { positive }
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn value(v: f32) -> f32 {
        0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2))
    }
    // Φ(v) + v·φ(v)
    #[inline(always)]
    fn derivative(v: f32) -> f32 {
        const INV_SQRT_2PI: f32 = 0.398_942_3;
        let cdf = 0.5 * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2));
        (v * INV_SQRT_2PI).mul_add(exp(-0.5 * v * v), cdf)
    }
}

impl GeluTanh {
    /// `2u` with u the argument of tanh: (1 + tanh u)/2 = sigmoid(2u), which keeps the relative
    /// precision that 1 + tanh loses on the negative side.
    #[inline(always)]
    fn twice_argument(v: f32) -> f32 {
        const SCALE: f32 = (2.0 * TANH_SCALE) as f32;
        v * (SCALE * TANH_CUBIC as f32 * v).mul_add(v, SCALE)
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn value(v: f32) -> f32 {
        v * sigmoid(Self::twice_argument(v))
    }
    // s + v·s·(1−s)·(2u)'
    #[inline(always)]
    fn derivative(v: f32) -> f32 {
        const SCALE: f32 = (2.0 * TANH_SCALE) as f32;
        // Beyond ±1e6, s·(1−s) is 0; the clamp keeps the square from overflowing to 0·∞.
        let w = if v > 1e6 { 1e6 } else { v };
        let w = if w < -1e6 { -1e6 } else { w };
        let slope = (3.0 * SCALE * TANH_CUBIC as f32 * w).mul_add(w, SCALE);
        let s = sigmoid(Self::twice_argument(v));
        (v * (s * (1.0 - s))).mul_add(slope, s)
    }
}

impl Function for Silu {
    #[inline(always)]
    fn value(v: f32) -> f32 {
        v * sigmoid(v)
    }
    // s · (1 + v·(1−s))
    #[inline(always)]
    fn derivative(v: f32) -> f32 {
        let s = sigmoid(v);
        s * v.mul_add(1.0 - s, 1.0)
    }
}

/// Calls `$body` with the type `$F` of the activation: one match a slice, none an element.
macro_rules! with_function {
    ($activation:expr, $F:ident => $body:expr) => {
        match $activation {
            Activation::Relu => {
                type $F = Relu;
                $body
            }
            Activation::Gelu => {
                type $F = Gelu;
                $body
            }
            Activation::GeluTanh => {
                type $F = GeluTanh;
                $body
            }
            Activation::Silu => {
                type $F = Silu;
                $body
            }
        }
    };
}

/// `v = act(v)` for every element.
pub(crate) fn apply(activation: Activation, values: &mut [f32]) {
    with_function!(activation, F => vectorized(
        #[inline(always)]
        || {
            for v in values.iter_mut() {
                *v = F::value(*v);
            }
        },
    ));
}

/// `gate = act(gate) · up` for every element.
pub(crate) fn apply_gated(activation: Activation, gate: &mut [f32], up: &[f32]) {
    with_function!(activation, F => vectorized(
        #[inline(always)]
        || {
            for (g, &u) in gate.iter_mut().zip(up) {
                *g = F::value(*g) * u;
            }
        },
    ));
}

/// `pre = dact · act'(pre)` for every element.
pub(crate) fn backward(activation: Activation, pre: &mut [f32], dact: &[f32]) {
    with_function!(activation, F => vectorized(
        #[inline(always)]
        || {
            for (p, &d) in pre.iter_mut().zip(dact) {
                *p = d * F::derivative(*p);
            }
        },
    ));
}

/// `gate, up = (dact · up) · act'(gate), dact · act(gate)` for every element.
pub(crate) fn backward_gated(
    activation: Activation,
    gate: &mut [f32],
    up: &mut [f32],
    dact: &[f32],
) {
    with_function!(activation, F => vectorized(
        #[inline(always)]
        || {
            for ((g, u), &d) in gate.iter_mut().zip(up.iter_mut()).zip(dact) {
                let (dgate, dup) = (d * *u * F::derivative(*g), d * F::value(*g));
                *g = dgate;
                *u = dup;
            }
        },
    ));
}

/// `act(v)` in f64.
pub(crate) fn value_f64(activation: Activation, v: f64) -> f64 {
    match activation {
        Activation::Relu => {
            if v <= 0.0 {
                0.0
            } else {
                v
            }
        }
        Activation::Gelu => 0.5 * v * (1.0 + libm::erf(v * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => 0.5 * v * (1.0 + libm::tanh(tanh_argument(v))),
        Activation::Silu => v / (1.0 + libm::exp(-v)),
    }
}

/// `act'(v)` in f64.
pub(crate) fn derivative_f64(activation: Activation, v: f64) -> f64 {
    match activation {
        Activation::Relu => {
            if v.is_nan() {
                v
            } else if v <= 0.0 {
                0.0
            } else {
                1.0
            }
        }
        Activation::Gelu => {
            let density = libm::exp(-0.5 * v * v) / (2.0 * std::f64::consts::PI).sqrt();
            0.5 * (1.0 + libm::erf(v * std::f64::consts::FRAC_1_SQRT_2)) + v * density
        }
        Activation::GeluTanh => {
            let t = libm::tanh(tanh_argument(v));
            let slope = TANH_SCALE * (1.0 + 3.0 * TANH_CUBIC * v * v);
            0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * slope
        }
        Activation::Silu => {
            let s = 1.0 / (1.0 + libm::exp(-v));
            s * (1.0 + v * (1.0 - s))
        }
    }
}

fn tanh_argument(v: f64) -> f64 {
    TANH_SCALE * (v + TANH_CUBIC * v * v * v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep() -> Vec<f32> {
        let mut values: Vec<f32> = (-40_000..=40_000).map(|i| i as f32 * 5e-4).collect();
        for power in -40..=40 {
            values.extend([2f32.powi(power) * 1.1, -(2f32.powi(power)) * 1.3]);
        }
        values
    }

    /// Bounds, in units of u = 2^-24 times max(|v|, 1) for values and derivatives alike. The
    /// functions of `math` err by 2^-21.5 (sigmoid, relative: 5.7u), 2^-22.5 (erf, absolute: 2.9u)
    /// and 2^-22.6 (exp: 2.7u). The argument w of the tanh form's sigmoid errs by 4u·|w|, which the
    /// slope s·(1−s) ≤ 0.23/|w| turns into less than 1u; each operation on the way adds 1u. Sixteen
    /// covers the sum for values. The second term of a derivative multiplies the error of 1−s (1.5u
    /// where s is near 1) by v·slope, at most 33 before s rounds to 1 at v = 5: 64 covers it.
    #[test]
    fn f32_is_close_to_f64_everywhere() {
        let u = 2f64.powi(-24);
        for &activation in Activation::ALL {
            for v in sweep() {
                let mut value = [v];
                apply(activation, &mut value);
                let exact = value_f64(activation, f64::from(v));
                let scale = f64::from(v.abs()).max(1.0);
                let error = (f64::from(value[0]) - exact).abs();
                assert!(error <= 16.0 * u * scale, "{activation}({v}): {error:e}");
                let mut derivative = [v];
                backward(activation, &mut derivative, &[1.0]);
                let exact = derivative_f64(activation, f64::from(v));
                let error = (f64::from(derivative[0]) - exact).abs();
                assert!(error <= 64.0 * u, "{activation}'({v}): {error:e}");
            }
        }
    }

    #[test]
    fn the_tanh_form_keeps_relative_precision_on_the_negative_side() {
        for i in 0..500 {
            let v = -(i as f32) * 0.01;
            let mut value = [v];
            apply(Activation::GeluTanh, &mut value);
            // f64's own 1 + tanh cancels as well: compare with v·sigmoid(2u).
            let exact = f64::from(v) / (1.0 + (-2.0 * tanh_argument(f64::from(v))).exp());
            let error = (f64::from(value[0]) - exact).abs();
            assert!(error <= 3e-5 * exact.abs(), "{v}: {} {exact}", value[0]);
        }
    }

    #[test]
    fn derivatives_are_those_of_the_values() {
        for &activation in Activation::ALL {
            for i in -60..60 {
                // Halfway between multiples of 0.1: never at the kink of ReLU.
                let v = (f64::from(i) + 0.5) * 0.1;
                let h = 1e-5;
                let difference =
                    (value_f64(activation, v + h) - value_f64(activation, v - h)) / (2.0 * h);
                let error = (difference - derivative_f64(activation, v)).abs();
                assert!(error < 1e-8, "{activation}'({v}): {error:e}");
            }
        }
    }

    #[test]
    fn relu_at_zero_and_nan_everywhere() {
        for zero in [0.0f32, -0.0] {
            let mut d = [zero];
            backward(Activation::Relu, &mut d, &[3.0]);
            assert_eq!(d[0], 0.0);
            assert_eq!(derivative_f64(Activation::Relu, f64::from(zero)), 0.0);
        }
        for &activation in Activation::ALL {
            let (mut value, mut derivative) = ([f32::NAN], [f32::NAN]);
            apply(activation, &mut value);
            backward(activation, &mut derivative, &[1.0]);
            assert!(value[0].is_nan() && derivative[0].is_nan(), "{activation}");
            assert!(value_f64(activation, f64::NAN).is_nan());
            assert!(derivative_f64(activation, f64::NAN).is_nan());
            let mut huge = [1e20f32, -1e20];
            backward(activation, &mut huge, &[1.0, 1.0]);
            assert_eq!(huge, [1.0, 0.0], "{activation}' far out");
        }
    }

    #[test]
    fn the_gated_form_is_a_product() {
        let (gate, up, dact) = ([0.7f32, -1.2], [2.0f32, -3.0], [0.5f32, 0.25]);
        for &activation in Activation::ALL {
            let mut value = gate;
            apply(activation, &mut value);
            let mut out = gate;
            apply_gated(activation, &mut out, &up);
            let (mut dgate, mut dup) = (gate, up);
            backward_gated(activation, &mut dgate, &mut dup, &dact);
            let mut plain = gate;
            backward(activation, &mut plain, &[1.0, 1.0]);
            for i in 0..2 {
                assert_eq!(out[i], value[i] * up[i]);
                assert_eq!(dup[i], dact[i] * value[i]);
                assert_eq!(dgate[i], dact[i] * up[i] * plain[i]);
            }
        }
    }
}
