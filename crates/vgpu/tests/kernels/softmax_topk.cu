// Softmax over the experts of a token and its k largest, a warp per row.
//
//   probs[t, e]  = exp(logits[t, e] - max_t) / sum_e exp(logits[t, e] - max_t)
//   topk_idx[t]  = the k experts of the largest logits, descending; equal logits: lower index first
//   topk_w[t, j] = probs[t, topk_idx[t, j]]
//
// Geometry: grid any, block a multiple of 32, no shared memory; warps stride over the rows.
// Parameters: logits [T, E] f32 finite, probs [T, E] f32, topk_w [T, k] f32, topk_idx [T, k] u32,
//   T, E, k with 1 <= k <= min(8, E); E <= 128 for `softmax_topk_e128`, <= 1024 for `_e1024`.
// Synchronisation: shuffles only. All 32 lanes stay converged: the row index is uniform in a warp.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

inline namespace softmax_topk_parts {

constexpr float LOG2_E = 1.4426950408889634f;
constexpr u32 ALL_LANES = 0xffffffff;

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, offset));
    }
    return v;
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        v += __shfl_xor_sync(ALL_LANES, v, offset);
    }
    return v;
}

// Lane l holds experts l, l + 32, ..., so that loads and stores of a warp are contiguous.
template <int VALUES>
__device__ __forceinline__ void softmax_topk_rows(const float* __restrict__ logits,
                                                  float* __restrict__ probs,
                                                  float* __restrict__ topk_w,
                                                  u32* __restrict__ topk_idx, u32 tokens,
                                                  u32 experts, u32 k) {
    const u32 lane = threadIdx.x % 32;
    const u32 warps = gridDim.x * (blockDim.x / 32);
    for (u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < tokens; row += warps) {
        const float* in = logits + u64(row) * experts;
        float* out = probs + u64(row) * experts;

        float logit[VALUES];
        float row_max = -INFINITY;
#pragma unroll
        for (int i = 0; i < VALUES; ++i) {
            const u32 e = i * 32 + lane;
            logit[i] = e < experts ? in[e] : -INFINITY;
            row_max = fmaxf(row_max, logit[i]);
        }
        row_max = warp_max(row_max);

        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < VALUES; ++i) {
            // Absent experts hold -inf and add exp2(-inf) = 0.
            sum += exp2f((logit[i] - row_max) * LOG2_E);
        }
        sum = warp_sum(sum);
        const float inv_sum = 1.0f / sum;

#pragma unroll
        for (int i = 0; i < VALUES; ++i) {
            const u32 e = i * 32 + lane;
            if (e < experts) {
                out[e] = exp2f((logit[i] - row_max) * LOG2_E) * inv_sum;
            }
        }

        for (u32 j = 0; j < k; ++j) {
            float best = -INFINITY;
            u32 best_e = 0xffffffff;
#pragma unroll
            for (int i = 0; i < VALUES; ++i) {
                // Ascending e: on equality the earlier one stays.
                if (logit[i] > best) {
                    best = logit[i];
                    best_e = i * 32 + lane;
                }
            }
#pragma unroll
            for (int offset = 16; offset > 0; offset /= 2) {
                const float other = __shfl_xor_sync(ALL_LANES, best, offset);
                const u32 other_e = __shfl_xor_sync(ALL_LANES, best_e, offset);
                if (other > best || (other == best && other_e < best_e)) {
                    best = other;
                    best_e = other_e;
                }
            }
#pragma unroll
            for (int i = 0; i < VALUES; ++i) {
                if (i * 32 + lane == best_e) {
                    logit[i] = -INFINITY;
                }
            }
            if (lane == 0) {
                topk_w[u64(row) * k + j] = exp2f((best - row_max) * LOG2_E) * inv_sum;
                topk_idx[u64(row) * k + j] = best_e;
            }
        }
    }
}

}  // namespace softmax_topk_parts

extern "C" __global__ void softmax_topk_e128(const float* logits, float* probs, float* topk_w,
                                             u32* topk_idx, u32 tokens, u32 experts, u32 k) {
    softmax_topk_rows<4>(logits, probs, topk_w, topk_idx, tokens, experts, k);
}

extern "C" __global__ void softmax_topk_e1024(const float* logits, float* probs, float* topk_w,
                                              u32* topk_idx, u32 tokens, u32 experts, u32 k) {
    softmax_topk_rows<32>(logits, probs, topk_w, topk_idx, tokens, experts, k);
}
