// Loads and stores of the widths that ptx/memory.cuh does not have: one instruction, one function.
// The loads are of data that no kernel writes meanwhile and that is read once, the stores of data
// that is not read again soon.
#pragma once

#include <cstdint>

namespace tollgate::ptx {

__device__ __forceinline__ uint2 ld_global_nc_streaming_v2(const void* at) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "l"(at));
    return v;
}

__device__ __forceinline__ uint32_t ld_global_nc_streaming_u32(const void* at) {
    uint32_t v;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(at));
    return v;
}

__device__ __forceinline__ uint16_t ld_global_nc_streaming_u16(const void* at) {
    uint16_t v;
    asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(v) : "l"(at));
    return v;
}

__device__ __forceinline__ void st_global_streaming_v2(void* at, uint2 v) {
    asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};" : : "l"(at), "r"(v.x), "r"(v.y) : "memory");
}

__device__ __forceinline__ void st_global_streaming_u32(void* at, uint32_t v) {
    asm volatile("st.global.cs.u32 [%0], %1;" : : "l"(at), "r"(v) : "memory");
}

__device__ __forceinline__ void st_global_streaming_u16(void* at, uint16_t v) {
    asm volatile("st.global.cs.u16 [%0], %1;" : : "l"(at), "h"(v) : "memory");
}

}  // namespace tollgate::ptx
