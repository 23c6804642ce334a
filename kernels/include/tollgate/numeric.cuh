// Elementary functions in f32 as chains of fused multiply-adds: the same constants in the same order
// as the CPU's, so that a number has the same bits wherever it is computed. No approximate
// instruction is used: their last bits are the hardware's secret.
#pragma once

#include <cstdint>

#include "tollgate/ptx/select.cuh"

namespace tollgate {

namespace detail {

// Adding 1.5 * 2^23 to a small number rounds it to an integer, which then sits in the low bits.
inline constexpr float ROUND = 12582912.0f;
// Below this, e^x is no normal number and counts as 0.
inline constexpr float EXP_LOWEST = -87.3f;

// The two factors of e^x = 2^n * e^r with |r| <= ln2/2, for -87.5 <= x <= 89: n + ROUND, and e^r.
struct ExpFactors {
    float shifted;
    float power;
};

__device__ __forceinline__ ExpFactors exp_factors(float x) {
    const float shifted = __fmaf_rn(x, 1.44269504088896340736f, ROUND);
    const float n = __fsub_rn(shifted, ROUND);
    // ln2 in two parts so that r keeps all its bits.
    const float r = __fmaf_rn(n, 2.1219444e-4f, __fmaf_rn(n, -0.6933594f, x));
    float p = 1.3835801e-3f;
    p = __fmaf_rn(p, r, 8.375645e-3f);
    p = __fmaf_rn(p, r, 4.166829e-2f);
    p = __fmaf_rn(p, r, 1.666641e-1f);
    p = __fmaf_rn(p, r, 4.999999e-1f);
    p = __fmaf_rn(p, r, 1.0f);
    p = __fmaf_rn(p, r, 1.0f);
    return {shifted, p};
}

__device__ __forceinline__ float power_of_two(int k) {
    return __uint_as_float(static_cast<uint32_t>(k + 127) << 23);
}

}  // namespace detail

__device__ __forceinline__ bool is_nan(float x) { return x != x; }
inline constexpr uint32_t NAN_BITS = 0x7fc00000u;
__device__ __forceinline__ float nan_f32() { return __uint_as_float(NAN_BITS); }
__device__ __forceinline__ float infinity_f32() { return __uint_as_float(0x7f800000u); }

// e^x; relative error below 2^-22.6 where the result is a normal number, else 0. NaN stays NaN.
__device__ __forceinline__ float exp(float x) {
    float clamped = x < -87.5f ? -87.5f : x;
    clamped = clamped > 89.0f ? 89.0f : clamped;
    const detail::ExpFactors f = detail::exp_factors(clamped);
    // 2^n in two factors: n = 128 alone would overflow the exponent.
    const int n = static_cast<int>(__float_as_uint(f.shifted) - __float_as_uint(detail::ROUND));
    const int half = n >> 1;
    float result = __fmul_rn(__fmul_rn(f.power, detail::power_of_two(half)),
                             detail::power_of_two(n - half));
    result = x < detail::EXP_LOWEST ? 0.0f : result;
    return is_nan(x) ? x : result;
}

// exp of a number that is not positive, or NaN: the same bits with less care.
__device__ __forceinline__ float exp_of_nonpositive(float x) {
    // What the factors are of an x below is replaced in the end.
    const detail::ExpFactors f = detail::exp_factors(x);
    // The low bits of ROUND are 0: what is shifted out of the word is its exponent.
    const float scale = __uint_as_float((__float_as_uint(f.shifted) << 23) + (127u << 23));
    return ptx::zero_if_less(x, detail::EXP_LOWEST, __fmul_rn(f.power, scale));
}

// 1 / (1 + e^-x).
__device__ __forceinline__ float sigmoid(float x) {
    return __fdiv_rn(1.0f, __fadd_rn(1.0f, exp(-x)));
}

// The error function; absolute error below 2^-22.5.
__device__ __forceinline__ float erf(float x) {
    const float a = fabsf(x);
    // |x| < 1: x * P(x^2).
    const float u = __fmul_rn(a, a);
    float s = 7.853854e-5f;
    s = __fmaf_rn(s, u, -8.010191e-4f);
    s = __fmaf_rn(s, u, 5.1883274e-3f);
    s = __fmaf_rn(s, u, -2.6853812e-2f);
    s = __fmaf_rn(s, u, 1.1283585e-1f);
    s = __fmaf_rn(s, u, -3.7612626e-1f);
    s = __fmaf_rn(s, u, 1.12837916709551257390f);
    const float small = __fmul_rn(s, a);
    // |x| >= 1: 1 - e^-Q(x), where Q = -ln erfc; from 4.05 on the result is 1.
    const float b = a > 4.05f ? 4.05f : a;
    float q = 2.1686758e-5f;
    q = __fmaf_rn(q, b, -4.4133524e-4f);
    q = __fmaf_rn(q, b, 4.204556e-3f);
    q = __fmaf_rn(q, b, -2.520824e-2f);
    q = __fmaf_rn(q, b, 1.0841855e-1f);
    q = __fmaf_rn(q, b, 6.332199e-1f);
    q = __fmaf_rn(q, b, 1.1295784f);
    q = __fmaf_rn(q, b, -1.8803674e-4f);
    const float large = __fsub_rn(1.0f, exp(-q));
    const float magnitude = a < 1.0f ? small : large;
    return is_nan(x) ? x : copysignf(magnitude, x);
}

// A u32 whose order is that of f32: larger numbers have larger keys, 0 and -0 the same. Not for NaN.
__device__ __forceinline__ uint32_t order_key(float x) {
    const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));
    const uint32_t turn = static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u;
    return bits ^ turn;
}

}  // namespace tollgate
