// Elements of a type that is known at run time, sixteen bytes at a time. A unit is 4 elements of
// f32 or 8 of f16 or bf16; the type is the same for a whole tensor, so that no branch on it divides
// a warp.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "tollgate/ptx/memory.cuh"

namespace tollgate {

enum class ElementType : uint32_t { F32 = 0, F16 = 1, BF16 = 2 };

// Elements of 16 bytes.
inline constexpr uint32_t WIDE_UNIT = 4;
inline constexpr uint32_t NARROW_UNIT = 8;

// A matrix that is read; element (r, c) is r * stride + c elements from `data`.
struct Operand {
    const void* data;
    uint64_t stride;
    ElementType type;
    // Whether every row starts at a multiple of 16 bytes.
    bool vector;
};

// The same, written.
struct Result {
    void* data;
    uint64_t stride;
    ElementType type;
    bool vector;
};

__device__ __forceinline__ float widen_half(uint16_t bits, ElementType type) {
    return type == ElementType::F16 ? __half2float(__ushort_as_half(bits))
                                    : __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

__device__ __forceinline__ uint16_t narrow_half(float value, ElementType type) {
    return type == ElementType::F16 ? __half_as_ushort(__float2half_rn(value))
                                    : __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

// One element.
__device__ __forceinline__ float load_element(const void* data, uint64_t index, ElementType type) {
    if (type == ElementType::F32) {
        return static_cast<const float*>(data)[index];
    }
    return widen_half(static_cast<const uint16_t*>(data)[index], type);
}

// Sixteen bytes as elements.
template <uint32_t UNIT>
__device__ __forceinline__ void widen(uint4 raw, ElementType type, float (&v)[UNIT]) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        if constexpr (UNIT == WIDE_UNIT) {
            v[i] = __uint_as_float(words[i]);
        } else {
            v[2 * i] = widen_half(static_cast<uint16_t>(words[i]), type);
            v[2 * i + 1] = widen_half(static_cast<uint16_t>(words[i] >> 16), type);
        }
    }
}

// Elements rounded to nearest even, as sixteen bytes.
template <uint32_t UNIT>
__device__ __forceinline__ uint4 narrow(const float (&v)[UNIT], ElementType type) {
    uint32_t words[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        if constexpr (UNIT == WIDE_UNIT) {
            words[i] = __float_as_uint(v[i]);
        } else {
            words[i] = static_cast<uint32_t>(narrow_half(v[2 * i], type)) |
                       static_cast<uint32_t>(narrow_half(v[2 * i + 1], type)) << 16;
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// The unit at an index, a multiple of UNIT where `vector`. Only the first `count` elements are
// there to be read; the others are 0.
template <uint32_t UNIT>
__device__ __forceinline__ uint4 load_unit(const void* data, uint64_t index, uint32_t count,
                                           bool vector) {
    if constexpr (UNIT == WIDE_UNIT) {
        const uint32_t* at = static_cast<const uint32_t*>(data) + index;
        if (vector && count >= UNIT) {
            return ptx::ld_global_nc_v4(at);
        }
        uint32_t words[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            words[i] = i < count ? at[i] : 0;
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    } else {
        const uint16_t* at = static_cast<const uint16_t*>(data) + index;
        if (vector && count >= UNIT) {
            return ptx::ld_global_nc_v4(at);
        }
        uint32_t words[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t low = 2 * i < count ? at[2 * i] : 0;
            const uint32_t high = 2 * i + 1 < count ? at[2 * i + 1] : 0;
            words[i] = low | high << 16;
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    }
}

// Writes the first `count` elements of a unit to an index, a multiple of UNIT where `vector`.
template <uint32_t UNIT>
__device__ __forceinline__ void store_unit(void* data, uint64_t index, uint32_t count, bool vector,
                                           uint4 raw) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    if constexpr (UNIT == WIDE_UNIT) {
        uint32_t* at = static_cast<uint32_t*>(data) + index;
        if (vector && count >= UNIT) {
            ptx::st_global_v4(at, raw);
            return;
        }
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            if (i < count) {
                at[i] = words[i];
            }
        }
    } else {
        uint16_t* at = static_cast<uint16_t*>(data) + index;
        if (vector && count >= UNIT) {
            ptx::st_global_v4(at, raw);
            return;
        }
#pragma unroll
        for (uint32_t i = 0; i < UNIT; ++i) {
            if (i < count) {
                at[i] = static_cast<uint16_t>(words[i / 2] >> 16 * (i % 2));
            }
        }
    }
}

}  // namespace tollgate
