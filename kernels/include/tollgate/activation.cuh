// The experts' non-linearities and their derivatives in f32: the operations of the CPU in the same
// order. Infinities and NaN follow plain arithmetic: a NaN stays NaN, and 0 * inf is NaN.
#pragma once

#include <cstdint>

#include "tollgate/numeric.cuh"

namespace tollgate {

enum class Activation : uint32_t { Relu = 0, Gelu = 1, GeluTanh = 2, Silu = 3 };

namespace detail {

inline constexpr float FRAC_1_SQRT_2 = 0.70710678118654752440f;
inline constexpr float INV_SQRT_2PI = 0.3989423f;
// 2 * sqrt(2/pi), and the cubic coefficient of the tanh form.
inline constexpr float TANH_SCALE = static_cast<float>(2.0 * 0.7978845608028654);
inline constexpr float TANH_CUBIC = static_cast<float>(0.044715);

// (1 + erf(v / sqrt 2)) without its factor 1/2.
__device__ __forceinline__ float twice_normal_cdf(float v) {
    return __fadd_rn(1.0f, erf(__fmul_rn(v, FRAC_1_SQRT_2)));
}

// 2u with u the argument of tanh: (1 + tanh u)/2 = sigmoid(2u), which keeps the relative precision
// that 1 + tanh loses on the negative side.
__device__ __forceinline__ float twice_tanh_argument(float v) {
    const float cubic = __fmul_rn(TANH_SCALE * TANH_CUBIC, v);
    return __fmul_rn(v, __fmaf_rn(cubic, v, TANH_SCALE));
}

}  // namespace detail

// Calls `body` with the activation as a constant: one question a call, none an element.
template <Activation ACTIVATION>
struct ActivationTag {
    static constexpr Activation VALUE = ACTIVATION;
};

template <class Body>
__device__ __forceinline__ void with_activation(Activation activation, Body body) {
    switch (activation) {
        case Activation::Relu:
            body(ActivationTag<Activation::Relu>{});
            break;
        case Activation::Gelu:
            body(ActivationTag<Activation::Gelu>{});
            break;
        case Activation::GeluTanh:
            body(ActivationTag<Activation::GeluTanh>{});
            break;
        default:
            body(ActivationTag<Activation::Silu>{});
            break;
    }
}

// act(v).
__device__ __forceinline__ float activate(Activation activation, float v) {
    switch (activation) {
        case Activation::Relu:
            // A NaN, which is not <= 0, passes.
            return v <= 0.0f ? 0.0f : v;
        case Activation::Gelu:
            return __fmul_rn(__fmul_rn(0.5f, v), detail::twice_normal_cdf(v));
        case Activation::GeluTanh:
            return __fmul_rn(v, sigmoid(detail::twice_tanh_argument(v)));
        default:
            return __fmul_rn(v, sigmoid(v));
    }
}

// act'(v).
__device__ __forceinline__ float activation_derivative(Activation activation, float v) {
    switch (activation) {
        case Activation::Relu: {
            const float positive = is_nan(v) ? v : 1.0f;
            return v <= 0.0f ? 0.0f : positive;
        }
        case Activation::Gelu: {
            // Phi(v) + v * phi(v)
            const float cdf = __fmul_rn(0.5f, detail::twice_normal_cdf(v));
            const float density = exp(__fmul_rn(__fmul_rn(-0.5f, v), v));
            return __fmaf_rn(__fmul_rn(v, detail::INV_SQRT_2PI), density, cdf);
        }
        case Activation::GeluTanh: {
            // s + v * s * (1-s) * (2u)'. Beyond 1e6 either way s * (1-s) is 0; the clamp keeps the
            // square from overflowing to 0 * inf.
            float w = v > 1e6f ? 1e6f : v;
            w = w < -1e6f ? -1e6f : w;
            const float cubic = 3.0f * detail::TANH_SCALE * detail::TANH_CUBIC;
            const float slope = __fmaf_rn(__fmul_rn(cubic, w), w, detail::TANH_SCALE);
            const float s = sigmoid(detail::twice_tanh_argument(v));
            const float product = __fmul_rn(s, __fsub_rn(1.0f, s));
            return __fmaf_rn(__fmul_rn(v, product), slope, s);
        }
        default: {
            // s * (1 + v * (1-s))
            const float s = sigmoid(v);
            return __fmul_rn(s, __fmaf_rn(v, __fsub_rn(1.0f, s), 1.0f));
        }
    }
}

}  // namespace tollgate
