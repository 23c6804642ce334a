// What a whole warp computes together. All lanes take part, and all get the result.
#pragma once

#include <cstdint>

#include "tollgate/ptx/warp.cuh"

namespace tollgate {

inline constexpr uint32_t WARP = 32;

__device__ __forceinline__ uint32_t lane_id() { return threadIdx.x % WARP; }
__device__ __forceinline__ uint32_t warp_id() { return threadIdx.x / WARP; }

// Sum over the lanes as a tree: the upper half is added to the lower, 16, 8, 4, 2 and 1 at a time.
// Addition is commutative: every lane has the bits of that tree.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (uint32_t lanes = WARP / 2; lanes > 0; lanes /= 2) {
        value = __fadd_rn(value, ptx::shfl_bfly_f32(ptx::ALL_LANES, value, lanes));
    }
    return value;
}

__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
    for (uint32_t lanes = WARP / 2; lanes > 0; lanes /= 2) {
        const uint64_t bits = __double_as_longlong(value);
        const uint64_t low = ptx::shfl_bfly_u32(ptx::ALL_LANES, static_cast<uint32_t>(bits), lanes);
        const uint64_t high =
            ptx::shfl_bfly_u32(ptx::ALL_LANES, static_cast<uint32_t>(bits >> 32), lanes);
        value = __dadd_rn(value, __longlong_as_double(low | high << 32));
    }
    return value;
}

// Maximum over the lanes; a NaN in any lane may or may not win.
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (uint32_t lanes = WARP / 2; lanes > 0; lanes /= 2) {
        value = fmaxf(value, ptx::shfl_bfly_f32(ptx::ALL_LANES, value, lanes));
    }
    return value;
}

// Inclusive prefix sum over the lanes, modulo 2^32.
__device__ __forceinline__ uint32_t warp_inclusive_sum(uint32_t value) {
#pragma unroll
    for (uint32_t below = 1; below < WARP; below *= 2) {
        const uint32_t other = ptx::shfl_up_u32(ptx::ALL_LANES, value, below);
        value += lane_id() >= below ? other : 0;
    }
    return value;
}

}  // namespace tollgate
