// Noisy top-k (Shazeer et al., 2017): h = z + n softplus(z_noise) with normal draws n, and the way
// back. [T, E] matrices; a thread has four experts of a token.

#include <cstdint>

#include "tollgate/abi/selection.h"
#include "tollgate/numeric.cuh"
#include "tollgate/numeric_f64.cuh"
#include "tollgate/philox.cuh"
#include "tollgate/ptx/atomic.cuh"
#include "tollgate/quads.cuh"

namespace tollgate {

// n, rounded to f32 before use: the number that the backward pass multiplies with.
__device__ __forceinline__ float draw(const StepBlock& step, uint32_t token, uint32_t expert) {
    const uint4 words =
        step_words(step, step.first_token + token, DrawStream::RouterNoise, expert);
    return __double2float_rn(normal_f64(words.x, words.y));
}

__device__ __forceinline__ float add_noise(float z, float z_noise, float n) {
    const double scaled =
        __dmul_rn(static_cast<double>(n), softplus_f64(static_cast<double>(z_noise)));
    const float h = __double2float_rn(__dadd_rn(static_cast<double>(z), scaled));
    // A masked logit stays masked.
    return z == -infinity_f32() ? z : h;
}

__device__ __forceinline__ bool is_bad(float z_noise) { return !(z_noise < infinity_f32()); }

extern "C" __global__ void __launch_bounds__(256)
    tg_add_noise(const __grid_constant__ NoiseParams p) {
    __shared__ StepBlock step;
    if (threadIdx.x == 0) {
        step = *p.step;
    }
    __syncthreads();
    const Quad q = quad_of(p.num_tokens, p.num_experts);
    if (!q.inside) {
        return;
    }
    const float4 z = load_quad(q, p.logits + q.row * p.logits_stride, p.wide);
    const float4 s = load_quad(q, p.noise_logits + q.row * p.noise_logits_stride, p.wide);
    const uint32_t token = static_cast<uint32_t>(q.row);
    const float4 n = make_float4(draw(step, token, q.column), draw(step, token, q.column + 1),
                                 draw(step, token, q.column + 2), draw(step, token, q.column + 3));
    const float4 h = make_float4(add_noise(z.x, s.x, n.x), add_noise(z.y, s.y, n.y),
                                 add_noise(z.z, s.z, n.z), add_noise(z.w, s.w, n.w));
    // A sum may hide it: 0 times infinity stays out of a masked logit.
    if (is_bad(s.x) || is_bad(s.y) || is_bad(s.z) || is_bad(s.w)) {
        ptx::red_global_or_u32(p.row_faults + q.row, 1u);
    }
    store_quad(q, p.noise + q.row * p.num_experts, p.wide, n);
    store_quad(q, p.noisy_logits + q.row * p.num_experts, p.wide, h);
}

// dz_noise = dh n sigma(z_noise).
__device__ __forceinline__ float through(float dh, float n, float z_noise) {
    const float slope = z_noise < detail::EXP_LOWEST ? 0.0f : sigmoid(z_noise);
    return __fmul_rn(__fmul_rn(dh, n), slope);
}

extern "C" __global__ void __launch_bounds__(256)
    tg_noise_backward(const __grid_constant__ NoiseBackwardParams p) {
    const Quad q = quad_of(p.num_tokens, p.num_experts);
    if (!q.inside) {
        return;
    }
    const float4 dh = load_quad(q, p.dnoisy_logits + q.row * p.dnoisy_logits_stride, p.wide);
    const float4 n = load_quad(q, p.noise + q.row * p.num_experts, p.wide);
    const float4 s = load_quad(q, p.noise_logits + q.row * p.noise_logits_stride, p.wide);
    const float4 dn = make_float4(through(dh.x, n.x, s.x), through(dh.y, n.y, s.y),
                                  through(dh.z, n.z, s.z), through(dh.w, n.w, s.w));
    store_quad(q, p.dnoise_logits + q.row * p.dnoise_logits_stride, p.wide, dn);
}

}  // namespace tollgate
