// Rows to fp8 with a scale each, and back.
//
//   quantize_*:   scale[r] = max_c |x[r, c]| / MAX (1 where that is 0),
//                 q[r, c]  = fp8(x[r, c] / scale[r]), nearest even, at most ±MAX
//   dequantize_*: y[r, c]  = f32(q[r, c]) * scale[r]
//   MAX is 448 for e4m3 and 57344 for e5m2. Divisions are IEEE, so the results are bitwise defined.
//
// Geometry: grid any, block a multiple of 32; static shared memory only; blocks stride over the
//   rows.
// Parameters: quantize_*: x [rows, cols] f32 or bf16, finite; q [rows, cols] u8; scale [rows] f32;
//   rows, cols. dequantize_*: q, scale, y [rows, cols] f32, rows, cols. cols is even.
// Synchronisation: `warp_max` is written by each warp and read by all after a barrier; a second
//   barrier comes before the next row's writes.

#include "ptx.cuh"

using ptx::u16;
using ptx::u32;
using ptx::u64;

inline namespace fp8_convert_parts {

struct E4m3 {
    static constexpr float MAX = 448.0f;
    static __device__ __forceinline__ u16 pack(float lo, float hi) {
        return ptx::cvt_rn_satfinite_e4m3x2(lo, hi);
    }
    static __device__ __forceinline__ u32 halves(u16 q) { return ptx::cvt_rn_f16x2_e4m3x2(q); }
};

struct E5m2 {
    static constexpr float MAX = 57344.0f;
    static __device__ __forceinline__ u16 pack(float lo, float hi) {
        return ptx::cvt_rn_satfinite_e5m2x2(lo, hi);
    }
    static __device__ __forceinline__ u32 halves(u16 q) { return ptx::cvt_rn_f16x2_e5m2x2(q); }
};

// Two neighbours of a row as f32.
__device__ __forceinline__ float2 load_pair(const float* row, u32 pair) {
    return reinterpret_cast<const float2*>(row)[pair];
}

__device__ __forceinline__ float2 load_pair(const u16* row, u32 pair) {
    const u32 bits = reinterpret_cast<const u32*>(row)[pair];
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000));
}

__device__ __forceinline__ float f32_of_half(u16 bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}

template <class Format, class T>
__device__ __forceinline__ void quantize_rows(const T* __restrict__ x, u16* __restrict__ q,
                                              float* __restrict__ scale, u32 rows, u32 cols,
                                              float (&warp_max)[32]) {
    const u32 pairs = cols / 2;
    const u32 num_warps = blockDim.x / 32;
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        const T* in = x + u64(row) * cols;
        float largest = 0.0f;
        for (u32 i = threadIdx.x; i < pairs; i += blockDim.x) {
            const float2 v = load_pair(in, i);
            largest = fmaxf(largest, fmaxf(fabsf(v.x), fabsf(v.y)));
        }
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, offset));
        }
        if (threadIdx.x % 32 == 0) {
            warp_max[threadIdx.x / 32] = largest;
        }
        __syncthreads();
        for (u32 w = 0; w < num_warps; ++w) {
            largest = fmaxf(largest, warp_max[w]);
        }
        // Zero also where a subnormal maximum underflows.
        float s = largest / Format::MAX;
        s = s == 0.0f ? 1.0f : s;
        if (threadIdx.x == 0) {
            scale[row] = s;
        }
        for (u32 i = threadIdx.x; i < pairs; i += blockDim.x) {
            const float2 v = load_pair(in, i);
            q[u64(row) * pairs + i] = Format::pack(v.x / s, v.y / s);
        }
        __syncthreads();
    }
}

template <class Format>
__device__ __forceinline__ void dequantize_rows(const u16* __restrict__ q,
                                                const float* __restrict__ scale,
                                                float2* __restrict__ y, u32 rows, u32 cols) {
    const u32 pairs = cols / 2;
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        const float s = scale[row];
        for (u32 i = threadIdx.x; i < pairs; i += blockDim.x) {
            const u32 halves = Format::halves(q[u64(row) * pairs + i]);
            y[u64(row) * pairs + i] =
                make_float2(f32_of_half(halves & 0xffff) * s, f32_of_half(halves >> 16) * s);
        }
    }
}

}  // namespace fp8_convert_parts

extern "C" __global__ void quantize_e4m3_f32(const float* x, u16* q, float* scale, u32 rows,
                                             u32 cols) {
    __shared__ float warp_max[32];
    quantize_rows<E4m3>(x, q, scale, rows, cols, warp_max);
}

extern "C" __global__ void quantize_e4m3_bf16(const u16* x, u16* q, float* scale, u32 rows,
                                              u32 cols) {
    __shared__ float warp_max[32];
    quantize_rows<E4m3>(x, q, scale, rows, cols, warp_max);
}

extern "C" __global__ void quantize_e5m2_f32(const float* x, u16* q, float* scale, u32 rows,
                                             u32 cols) {
    __shared__ float warp_max[32];
    quantize_rows<E5m2>(x, q, scale, rows, cols, warp_max);
}

extern "C" __global__ void quantize_e5m2_bf16(const u16* x, u16* q, float* scale, u32 rows,
                                              u32 cols) {
    __shared__ float warp_max[32];
    quantize_rows<E5m2>(x, q, scale, rows, cols, warp_max);
}

extern "C" __global__ void dequantize_e4m3(const u16* q, const float* scale, float2* y, u32 rows,
                                           u32 cols) {
    dequantize_rows<E4m3>(q, scale, y, rows, cols);
}

extern "C" __global__ void dequantize_e5m2(const u16* q, const float* scale, float2* y, u32 rows,
                                           u32 cols) {
    dequantize_rows<E5m2>(q, scale, y, rows, cols);
}
