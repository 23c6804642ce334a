// Scores of logits, and what follows from them element by element.
#pragma once

#include <cstdint>

#include "tollgate/numeric.cuh"

namespace tollgate::gate {

// The key of a masked logit; every key of a number is larger, 0 is the key of no expert at all.
inline constexpr uint32_t MASKED_KEY = 0x007fffffu;
inline constexpr uint32_t NO_KEY = 0;

// The number whose order_key this is; +0 for both zeros.
__device__ __forceinline__ float key_value(uint32_t key) {
    const uint32_t turn = (key & 0x80000000u) != 0 ? 0x80000000u : 0xffffffffu;
    return __uint_as_float(key ^ turn);
}

// Sigmoid of a logit, never a subnormal number.
__device__ __forceinline__ float sigmoid_score(float z) {
    return z < detail::EXP_LOWEST ? 0.0f : sigmoid(z);
}

// A share of a sum; 0 where there is nothing to share.
__device__ __forceinline__ float share(float part, float of) {
    return of == 0.0f ? 0.0f : __fdiv_rn(part, of);
}

// ln of a sum of exponentials, which is at least 1: ln x = k ln 2 + 2 artanh((m-1)/(m+1)) with
// x = m 2^k, m between sqrt(1/2) and sqrt(2). In f64 with an error below 2^-36, as on the CPU.
__device__ __forceinline__ double log_of_sum(float x) {
    const int32_t bits = __float_as_int(x);
    const int32_t k = (bits - 0x3f3504f3) >> 23;
    const double m = __int_as_float(bits - (k << 23));
    const double s = __ddiv_rn(m - 1.0, m + 1.0);
    const double s2 = s * s;
    double p = 1.0 / 13.0;
    p = __fma_rn(p, s2, 1.0 / 11.0);
    p = __fma_rn(p, s2, 1.0 / 9.0);
    p = __fma_rn(p, s2, 1.0 / 7.0);
    p = __fma_rn(p, s2, 1.0 / 5.0);
    p = __fma_rn(p, s2, 1.0 / 3.0);
    p = __fma_rn(p, s2, 1.0);
    return __fma_rn(static_cast<double>(k), 0.693147180559945309417, 2.0 * s * p);
}

// What stands for the sum of a row's exponentials where it is none.
inline constexpr float FULLY_MASKED = -1.0f;

// The log-sum-exp of a row: `total` is the sum of e^(z - largest), NaN in a faulty row, or
// FULLY_MASKED.
__device__ __forceinline__ float log_sum_exp(float largest, float total) {
    if (total == FULLY_MASKED) {
        return -infinity_f32();
    }
    return is_nan(total) ? total : static_cast<float>(largest + log_of_sum(total));
}

}  // namespace tollgate::gate
