// Philox4x32-10: random words as a function of seed and position alone.
//
// Words 4 i .. 4 i + 3 are Philox of a counter and the key `seed`: words 0, 1 of the counter are
// the low and high half of offset + i, words 2, 3 those of `subsequence`.
//
//   philox_u32:    out[4 i + j] = word j
//   philox_f32:    out[4 i + j] = (word j >> 8) * 2^-24, in [0, 1)
//   philox_normal: out[4 i + 0, 1] = Box-Muller of words 0, 1: r cos(a), r sin(a) with
//                  r = sqrt(-2 ln u), u = ((word 0 >> 8) + 1) * 2^-24 in (0, 1],
//                  a = 2 pi * (word 1 >> 8) * 2^-24; the same of words 2, 3. Fast approximations.
//
// Geometry: grid any, block any, no shared memory; threads stride over the groups of four.
// Parameters: out [4 groups] u32 or f32, 16-byte aligned; groups u32, seed u64, subsequence u64,
//   offset u64.
// Synchronisation: none.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

inline namespace philox_parts {

__device__ __forceinline__ uint4 philox4x32_10(uint4 counter, uint2 key) {
    constexpr u32 MULTIPLIER_0 = 0xD2511F53;
    constexpr u32 MULTIPLIER_1 = 0xCD9E8D57;
    constexpr u32 WEYL_0 = 0x9E3779B9;
    constexpr u32 WEYL_1 = 0xBB67AE85;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u32 hi0 = __umulhi(MULTIPLIER_0, counter.x);
        const u32 lo0 = MULTIPLIER_0 * counter.x;
        const u32 hi1 = __umulhi(MULTIPLIER_1, counter.z);
        const u32 lo1 = MULTIPLIER_1 * counter.z;
        counter = make_uint4(hi1 ^ counter.y ^ key.x, lo1, hi0 ^ counter.w ^ key.y, lo0);
        key.x += WEYL_0;
        key.y += WEYL_1;
    }
    return counter;
}

__device__ __forceinline__ uint4 words_of(u32 group, u64 seed, u64 subsequence, u64 offset) {
    const u64 position = offset + group;
    return philox4x32_10(make_uint4(u32(position), u32(position >> 32), u32(subsequence),
                                    u32(subsequence >> 32)),
                         make_uint2(u32(seed), u32(seed >> 32)));
}

constexpr float ULP = 0x1p-24f;

__device__ __forceinline__ float2 box_muller(u32 a, u32 b) {
    constexpr float TWO_PI = 6.283185307179586f;
    const float u = float((a >> 8) + 1) * ULP;
    const float angle = TWO_PI * (float(b >> 8) * ULP);
    // Near u = 1 the error of the fast logarithm exceeds its value and may turn its sign.
    const float radius = __fsqrt_rn(fmaxf(-2.0f * __logf(u), 0.0f));
    return make_float2(radius * __cosf(angle), radius * __sinf(angle));
}

}  // namespace philox_parts

extern "C" __global__ void philox_u32(uint4* __restrict__ out, u32 groups, u64 seed,
                                      u64 subsequence, u64 offset) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < groups; i += gridDim.x * blockDim.x) {
        out[i] = words_of(i, seed, subsequence, offset);
    }
}

extern "C" __global__ void philox_f32(float4* __restrict__ out, u32 groups, u64 seed,
                                      u64 subsequence, u64 offset) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < groups; i += gridDim.x * blockDim.x) {
        const uint4 w = words_of(i, seed, subsequence, offset);
        out[i] = make_float4(float(w.x >> 8) * ULP, float(w.y >> 8) * ULP, float(w.z >> 8) * ULP,
                             float(w.w >> 8) * ULP);
    }
}

extern "C" __global__ void philox_normal(float4* __restrict__ out, u32 groups, u64 seed,
                                         u64 subsequence, u64 offset) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < groups; i += gridDim.x * blockDim.x) {
        const uint4 w = words_of(i, seed, subsequence, offset);
        const float2 a = box_muller(w.x, w.y);
        const float2 b = box_muller(w.z, w.w);
        out[i] = make_float4(a.x, a.y, b.x, b.y);
    }
}
