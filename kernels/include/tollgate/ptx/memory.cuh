// Loads and stores of global memory with their cache policies: one instruction, one function.
#pragma once

#include <cstdint>

namespace tollgate::ptx {

// 16 bytes that no kernel writes meanwhile, through the read-only path.
__device__ __forceinline__ uint4 ld_global_nc_v4(const void* at) {
    uint4 v;
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
    return v;
}

// The same of data that is read once: it does not displace what L1 holds.
__device__ __forceinline__ uint4 ld_global_nc_streaming_v4(const void* at) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
    return v;
}

__device__ __forceinline__ uint32_t ld_global_nc_u32(const void* at) {
    uint32_t v;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(at));
    return v;
}

__device__ __forceinline__ float ld_global_nc_f32(const float* at) {
    float v;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(v) : "l"(at));
    return v;
}

__device__ __forceinline__ void st_global_v4(void* at, uint4 v) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

// 16 bytes that are not read again soon: first to leave L2.
__device__ __forceinline__ void st_global_streaming_v4(void* at, uint4 v) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

}  // namespace tollgate::ptx
