// Exchanges between the lanes of a warp: one instruction, one function.
#pragma once

#include <cstdint>

namespace tollgate::ptx {

inline constexpr uint32_t ALL_LANES = 0xffffffffu;

// The mask of the lanes in `mask` that hold the same value.
__device__ __forceinline__ uint32_t match_any_u32(uint32_t mask, uint32_t value) {
    uint32_t same;
    asm volatile("match.any.sync.b32 %0, %1, %2;" : "=r"(same) : "r"(value), "r"(mask));
    return same;
}

// The largest value of the lanes in `mask`, in all of them.
__device__ __forceinline__ uint32_t redux_max_u32(uint32_t mask, uint32_t value) {
    uint32_t largest;
    asm volatile("redux.sync.max.u32 %0, %1, %2;" : "=r"(largest) : "r"(value), "r"(mask));
    return largest;
}

// The smallest.
__device__ __forceinline__ uint32_t redux_min_u32(uint32_t mask, uint32_t value) {
    uint32_t smallest;
    asm volatile("redux.sync.min.u32 %0, %1, %2;" : "=r"(smallest) : "r"(value), "r"(mask));
    return smallest;
}

// The sum, modulo 2^32.
__device__ __forceinline__ uint32_t redux_add_u32(uint32_t mask, uint32_t value) {
    uint32_t sum;
    asm volatile("redux.sync.add.u32 %0, %1, %2;" : "=r"(sum) : "r"(value), "r"(mask));
    return sum;
}

// The mask of the lanes in `mask` whose predicate holds.
__device__ __forceinline__ uint32_t ballot(uint32_t mask, bool predicate) {
    uint32_t lanes;
    asm volatile(
        "{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %1, 0;\n\tvote.sync.ballot.b32 %0, p, %2;\n\t}"
        : "=r"(lanes)
        : "r"(static_cast<uint32_t>(predicate)), "r"(mask));
    return lanes;
}

__device__ __forceinline__ uint32_t shfl_bfly_u32(uint32_t mask, uint32_t value, uint32_t lanes) {
    uint32_t other;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, %3;"
                 : "=r"(other)
                 : "r"(value), "r"(lanes), "r"(mask));
    return other;
}

__device__ __forceinline__ float shfl_bfly_f32(uint32_t mask, float value, uint32_t lanes) {
    return __uint_as_float(shfl_bfly_u32(mask, __float_as_uint(value), lanes));
}

// The value of lane `from`.
__device__ __forceinline__ uint32_t shfl_idx_u32(uint32_t mask, uint32_t value, uint32_t from) {
    uint32_t other;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, %3;"
                 : "=r"(other)
                 : "r"(value), "r"(from), "r"(mask));
    return other;
}

// The value of the lane `below` lanes lower; its own where there is none.
__device__ __forceinline__ uint32_t shfl_up_u32(uint32_t mask, uint32_t value, uint32_t below) {
    uint32_t other;
    asm volatile("shfl.sync.up.b32 %0, %1, %2, 0, %3;"
                 : "=r"(other)
                 : "r"(value), "r"(below), "r"(mask));
    return other;
}

// The mask of the lanes below this one.
__device__ __forceinline__ uint32_t lanes_below() {
    uint32_t mask;
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(mask));
    return mask;
}

}  // namespace tollgate::ptx
