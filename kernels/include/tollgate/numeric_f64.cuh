// Elementary functions in f64, where results are rounded to f32 in the end: random normals,
// softplus, the consistency loss. Power series and exact reductions; no library, so that every
// device computes the same bits. Errors are a few units of 2^-53.
#pragma once

#include <cstdint>

namespace tollgate {

namespace detail {

// 2 artanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...) for |s| <= 0.172. s^2 <= 0.0295: the first term left
// out is below 2^-57.
__device__ __forceinline__ double twice_artanh(double s) {
    const double u = __dmul_rn(s, s);
    double p = 1.0 / 21.0;
    p = __fma_rn(p, u, 1.0 / 19.0);
    p = __fma_rn(p, u, 1.0 / 17.0);
    p = __fma_rn(p, u, 1.0 / 15.0);
    p = __fma_rn(p, u, 1.0 / 13.0);
    p = __fma_rn(p, u, 1.0 / 11.0);
    p = __fma_rn(p, u, 1.0 / 9.0);
    p = __fma_rn(p, u, 1.0 / 7.0);
    p = __fma_rn(p, u, 1.0 / 5.0);
    p = __fma_rn(p, u, 1.0 / 3.0);
    // 2 s + 2 s u p: the first term is exact.
    const double twice = __dadd_rn(s, s);
    return __fma_rn(__dmul_rn(twice, u), p, twice);
}

inline constexpr double LN2 = 0.693147180559945309417;

}  // namespace detail

// ln x of a positive normal number: x = m * 2^k with m between sqrt(1/2) and sqrt(2), and
// ln m = 2 artanh((m - 1) / (m + 1)).
__device__ __forceinline__ double ln_f64(double x) {
    const uint64_t SQRT_HALF = 0x3fe6a09e667f3bcdull;
    const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(x));
    const int64_t k = static_cast<int64_t>(bits - SQRT_HALF) >> 52;
    const double m = __longlong_as_double(
        static_cast<long long>(bits - (static_cast<uint64_t>(k) << 52)));
    const double s = __ddiv_rn(__dsub_rn(m, 1.0), __dadd_rn(m, 1.0));
    return __fma_rn(static_cast<double>(static_cast<int32_t>(k)), detail::LN2,
                    detail::twice_artanh(s));
}

// ln(1 + y) for 0 <= y <= 1, or NaN. Beyond sqrt(2) - 1 by way of (1 + y) / 2.
__device__ __forceinline__ double ln_1p_f64(double y) {
    const bool large = y > 0.41421356237309504880;
    const double numerator = large ? __dsub_rn(y, 1.0) : y;
    const double denominator = __dadd_rn(y, large ? 3.0 : 2.0);
    const double rest = detail::twice_artanh(__ddiv_rn(numerator, denominator));
    return __dadd_rn(large ? detail::LN2 : 0.0, rest);
}

// e^x for x <= 0, or NaN; 0 below -700, where f32 has long had no numbers.
__device__ __forceinline__ double exp_of_nonpositive_f64(double x) {
    // Adding 1.5 * 2^52 rounds to an integer, which then sits in the low bits.
    const double ROUND = 6755399441055744.0;
    const double clamped = x < -700.0 ? -700.0 : x;
    const double shifted = __fma_rn(clamped, 1.44269504088896340736, ROUND);
    const double n = __dsub_rn(shifted, ROUND);
    // ln2 in two parts, the first of few bits, so that n times it is exact.
    double r = __fma_rn(n, -6.93147180369123816490e-01, clamped);
    r = __fma_rn(n, -1.90821492927058770002e-10, r);
    // |r| <= ln2/2: the first term left out, r^14/14!, is below 2^-57.
    double p = 1.0 / 6227020800.0;
    p = __fma_rn(p, r, 1.0 / 479001600.0);
    p = __fma_rn(p, r, 1.0 / 39916800.0);
    p = __fma_rn(p, r, 1.0 / 3628800.0);
    p = __fma_rn(p, r, 1.0 / 362880.0);
    p = __fma_rn(p, r, 1.0 / 40320.0);
    p = __fma_rn(p, r, 1.0 / 5040.0);
    p = __fma_rn(p, r, 1.0 / 720.0);
    p = __fma_rn(p, r, 1.0 / 120.0);
    p = __fma_rn(p, r, 1.0 / 24.0);
    p = __fma_rn(p, r, 1.0 / 6.0);
    p = __fma_rn(p, r, 0.5);
    p = __fma_rn(p, r, 1.0);
    p = __fma_rn(p, r, 1.0);
    const uint64_t power = static_cast<uint64_t>(__double_as_longlong(shifted)) << 52;
    const double scale = __longlong_as_double(static_cast<long long>(power + (1023ull << 52)));
    return x < -700.0 ? 0.0 : __dmul_rn(p, scale);
}

// ln(1 + e^x); NaN of NaN.
__device__ __forceinline__ double softplus_f64(double x) {
    return __dadd_rn(x > 0.0 ? x : 0.0, ln_1p_f64(exp_of_nonpositive_f64(-fabs(x))));
}

// cos x for 0 <= x <= 2 pi: x less the nearest multiple of pi/2, exactly, then a power series.
__device__ __forceinline__ double cos_f64(double x) {
    const int32_t quarter = __double2int_rn(__dmul_rn(x, 0.636619772367581343076));
    const double q = quarter;
    // pi/2 in two parts. Near a multiple the first difference is exact.
    double r = __fma_rn(q, -1.57079632679489655800, x);
    r = __fma_rn(q, -6.12323399573676603587e-17, r);
    const double u = __dmul_rn(r, r);
    // |r| <= pi/4: the first terms left out are below 2^-58.
    double sine = 1.0 / 355687428096000.0;
    sine = __fma_rn(sine, u, -1.0 / 1307674368000.0);
    sine = __fma_rn(sine, u, 1.0 / 6227020800.0);
    sine = __fma_rn(sine, u, -1.0 / 39916800.0);
    sine = __fma_rn(sine, u, 1.0 / 362880.0);
    sine = __fma_rn(sine, u, -1.0 / 5040.0);
    sine = __fma_rn(sine, u, 1.0 / 120.0);
    sine = __fma_rn(sine, u, -1.0 / 6.0);
    sine = __fma_rn(__dmul_rn(sine, u), r, r);
    double cosine = 1.0 / 20922789888000.0;
    cosine = __fma_rn(cosine, u, -1.0 / 87178291200.0);
    cosine = __fma_rn(cosine, u, 1.0 / 479001600.0);
    cosine = __fma_rn(cosine, u, -1.0 / 3628800.0);
    cosine = __fma_rn(cosine, u, 1.0 / 40320.0);
    cosine = __fma_rn(cosine, u, -1.0 / 720.0);
    cosine = __fma_rn(cosine, u, 1.0 / 24.0);
    cosine = __fma_rn(cosine, u, -0.5);
    cosine = __fma_rn(cosine, u, 1.0);
    // Quarters 0 to 4: cos, -sin, -cos, sin, cos.
    const double value = quarter % 2 == 0 ? cosine : sine;
    return quarter == 1 || quarter == 2 ? -value : value;
}

// A uniform number in (0, 1) from a word: the middle of its 2^-32 step. Exact.
__device__ __forceinline__ double uniform_f64(uint32_t word) {
    // 2^52 + word has the word in its low bits: cheaper than a conversion.
    const double shifted = __hiloint2double(0x43300000, static_cast<int>(word));
    return __dmul_rn(__dsub_rn(shifted, 4503599627370495.5), 1.0 / 4294967296.0);
}

// A standard normal number from two words (Box and Muller).
__device__ __forceinline__ double normal_f64(uint32_t word0, uint32_t word1) {
    const double radius = __dsqrt_rn(__dmul_rn(-2.0, ln_f64(uniform_f64(word0))));
    return __dmul_rn(radius, cos_f64(__dmul_rn(6.28318530717958647693, uniform_f64(word1))));
}

}  // namespace tollgate
