// Loads that not every lane takes part in, without a branch: one instruction, one function.
#pragma once

#include <cstdint>

namespace tollgate::ptx {

// 16 bytes that are read once, or `otherwise` four times where `wanted` is false: the address is
// not looked at then.
__device__ __forceinline__ float4 ld_global_nc_streaming_v4_if(bool wanted, const void* at,
                                                               float otherwise) {
    float4 v = make_float4(otherwise, otherwise, otherwise, otherwise);
    asm volatile(
        "{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %5, 0;\n\t"
        "@p ld.global.nc.L1::no_allocate.v4.f32 {%0, %1, %2, %3}, [%4];\n\t}"
        : "+f"(v.x), "+f"(v.y), "+f"(v.z), "+f"(v.w)
        : "l"(at), "r"(static_cast<uint32_t>(wanted)));
    return v;
}

}  // namespace tollgate::ptx
