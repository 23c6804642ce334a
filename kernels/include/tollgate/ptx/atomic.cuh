// Updates of global memory whose old value nobody asks for: one instruction, one function. Integer
// updates of these kinds may happen in any order; the result is the same.
#pragma once

#include <cstdint>

namespace tollgate::ptx {

__device__ __forceinline__ void red_global_or_u32(uint32_t* at, uint32_t bits) {
    asm volatile("red.global.or.b32 [%0], %1;" : : "l"(at), "r"(bits) : "memory");
}

__device__ __forceinline__ void red_global_add_u32(uint32_t* at, uint32_t value) {
    asm volatile("red.global.add.u32 [%0], %1;" : : "l"(at), "r"(value) : "memory");
}

__device__ __forceinline__ void red_global_min_u32(uint32_t* at, uint32_t value) {
    asm volatile("red.global.min.u32 [%0], %1;" : : "l"(at), "r"(value) : "memory");
}

}  // namespace tollgate::ptx
