// Multiplicative jitter of the router's input (Switch Transformer): x U(1 +- amount), and the same
// factors once more on the way back. A thread has four columns of a row [T, H]: one draw.

#include <cstdint>

#include "tollgate/abi/selection.h"
#include "tollgate/numeric_f64.cuh"
#include "tollgate/philox.cuh"
#include "tollgate/quads.cuh"
#include "tollgate/rows.cuh"

namespace tollgate {

// 1 + amount (2 u - 1), rounded to f32. 2 u - 1 is exact.
__device__ __forceinline__ float factor(uint32_t word, double amount) {
    const double centred = __fma_rn(2.0, uniform_f64(word), -1.0);
    return __double2float_rn(__dadd_rn(1.0, __dmul_rn(amount, centred)));
}

// Four elements of the row that starts at `row`, as f32; 0 where there is no column.
template <typename T>
__device__ __forceinline__ float4 load_elements(const Quad& q, const void* row, bool wide) {
    if constexpr (sizeof(T) == 4) {
        return load_quad(q, static_cast<const float*>(row), wide);
    } else {
        const uint16_t* at = static_cast<const uint16_t*>(row) + q.column;
        float v[4] = {};
        if (wide) {
            const uint2 words = ptx::ld_global_nc_streaming_v2(at);
            Words<T>::widen(words.x, v);
            Words<T>::widen(words.y, v + 2);
        } else {
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                v[i] = i < q.count ? Words<T>::widen_one(at[i]) : 0.0f;
            }
        }
        return make_float4(v[0], v[1], v[2], v[3]);
    }
}

template <typename T>
__device__ __forceinline__ void jitter(const JitterParams& p) {
    __shared__ StepBlock step;
    if (threadIdx.x == 0) {
        step = *p.step;
    }
    __syncthreads();
    const Quad q = quad_of(p.num_tokens, p.hidden);
    if (!q.inside) {
        return;
    }
    const uint32_t token = step.first_token + static_cast<uint32_t>(q.row);
    const uint4 words = step_words(step, token, DrawStream::Jitter, q.column / 4);
    const char* row = static_cast<const char*>(p.x) + q.row * p.x_stride * sizeof(T);
    const float4 x = load_elements<T>(q, row, p.wide != 0);
    const float4 y = make_float4(__fmul_rn(x.x, factor(words.x, p.amount)),
                                 __fmul_rn(x.y, factor(words.y, p.amount)),
                                 __fmul_rn(x.z, factor(words.z, p.amount)),
                                 __fmul_rn(x.w, factor(words.w, p.amount)));
    store_quad(q, p.out + q.row * p.out_stride, p.wide != 0, y);
}

extern "C" __global__ void __launch_bounds__(256)
    tg_jitter_f32(const __grid_constant__ JitterParams p) {
    jitter<float>(p);
}

extern "C" __global__ void __launch_bounds__(256)
    tg_jitter_f16(const __grid_constant__ JitterParams p) {
    jitter<__half>(p);
}

extern "C" __global__ void __launch_bounds__(256)
    tg_jitter_bf16(const __grid_constant__ JitterParams p) {
    jitter<__nv_bfloat16>(p);
}

}  // namespace tollgate
