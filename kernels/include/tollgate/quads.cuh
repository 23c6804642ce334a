// Element-wise work on matrices: a thread has four neighbouring columns of a row.
#pragma once

#include <cstdint>

namespace tollgate {

// A thread's part of a matrix of `rows` x `columns`.
struct Quad {
    uint64_t row;
    uint32_t column;
    // Columns of it that exist, 1 to 4.
    uint32_t count;
    bool inside;
};

// Threads are counted along the rows. Their number may exceed 2^32; division by the quads of a row
// is 64 bits wide only then.
__device__ __forceinline__ Quad quad_of(uint32_t rows, uint32_t columns) {
    const uint32_t quads = columns / 4 + (columns % 4 != 0 ? 1 : 0);
    const uint64_t total = static_cast<uint64_t>(rows) * quads;
    const uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    Quad q;
    q.inside = i < total;
    if (total <= 0xffffffffu) {
        q.row = static_cast<uint32_t>(i) / quads;
    } else {
        q.row = i / quads;
    }
    q.column = static_cast<uint32_t>(i - q.row * quads) * 4;
    const uint32_t left = columns - q.column;
    q.count = left < 4 ? left : 4;
    return q;
}

// Four floats of the row that starts at `row`; 0 where there is no column. `wide`: rows are aligned
// to 16 bytes, and their lengths are multiples of 4. The matrix may be the one that is written: a
// thread reads its elements before it writes them.
__device__ __forceinline__ float4 load_quad(const Quad& q, const float* row, bool wide) {
    const float* at = row + q.column;
    if (wide) {
        return *reinterpret_cast<const float4*>(at);
    }
    return make_float4(at[0], q.count > 1 ? at[1] : 0.0f, q.count > 2 ? at[2] : 0.0f,
                       q.count > 3 ? at[3] : 0.0f);
}

__device__ __forceinline__ void store_quad(const Quad& q, float* row, bool wide, float4 v) {
    float* at = row + q.column;
    if (wide) {
        *reinterpret_cast<float4*>(at) = v;
        return;
    }
    at[0] = v.x;
    if (q.count > 1) {
        at[1] = v.y;
    }
    if (q.count > 2) {
        at[2] = v.z;
    }
    if (q.count > 3) {
        at[3] = v.w;
    }
}

}  // namespace tollgate
