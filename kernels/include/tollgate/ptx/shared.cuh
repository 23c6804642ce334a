// Stores to shared memory whose width matters: one instruction, one function.
#pragma once

#include <cstdint>

namespace tollgate::ptx {

// 16 bytes at once. Left to the compiler, such a store is sometimes taken apart, and then lanes
// whose pieces follow each other ask the same banks.
__device__ __forceinline__ void st_shared_v4(void* at, float a, float b, float c, float d) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(at));
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(shared), "f"(a), "f"(b), "f"(c), "f"(d)
                 : "memory");
}

}  // namespace tollgate::ptx
