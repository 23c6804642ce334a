// Row-wise softmax and its backward pass.
//
//   logits [T, E] -> probs [T, E], lse [T];   probs, dprobs [T, E] -> dlogits [T, E]
//
// Up to 1024 columns a warp has a row, which waits in shared memory; longer rows are a block's and
// are read again for every sum.

#include <cstdint>

#include "tollgate/abi/gating.h"
#include "tollgate/gating/team.cuh"

namespace tollgate::gate {

// Warps of a block of the warp forms, each with a row of its own.
inline constexpr uint32_t ROWS = 8;
// Warps of a block of the block forms, all with one row.
inline constexpr uint32_t TEAM_WARPS = 8;
// The longest row of a warp.
inline constexpr uint32_t MOST_COLUMNS = 1024;

// What the row is: see log_sum_exp.
template <uint32_t WARPS>
__device__ __forceinline__ float checked_total(const Team<WARPS>& team, float total, bool faulty) {
    if (team.any(faulty)) {
        return nan_f32();
    }
    return total >= 1.0f ? total : FULLY_MASKED;
}

// A probability from e^(z - largest).
__device__ __forceinline__ float probability(float power, float total, float reciprocal) {
    return is_nan(total) ? total : (total == FULLY_MASKED ? 0.0f : __fmul_rn(power, reciprocal));
}

extern "C" __global__ void __launch_bounds__(256)
    tg_softmax_warp(const __grid_constant__ SoftmaxParams p) {
    __shared__ __align__(16) float rows[ROWS][MOST_COLUMNS];
    __shared__ TeamScratch scratch;
    const uint32_t token = blockIdx.x * ROWS + warp_id();
    if (token >= p.num_tokens) {
        return;
    }
    const Team<1> team = {scratch};
    float* row = rows[warp_id()];
    const Loaded seen = load_row(team, row, p.logits + token * p.logits_stride, p.num_experts,
                                 p.vector_rows != 0);
    const float largest = team.max(seen.largest);
    float total = exponentials(team, row, row, largest, p.num_experts);
    total = checked_total(team, total, seen.faulty);
    const float reciprocal = __fdiv_rn(1.0f, total);
    team.each(p.num_experts,
              [&](uint32_t e) { row[e] = probability(row[e], total, reciprocal); });
    store_row(team, p.probs + token * p.probs_stride, row, p.num_experts, p.vector_rows != 0);
    if (lane_id() == 0) {
        p.lse[token] = log_sum_exp(largest, total);
    }
}

extern "C" __global__ void __launch_bounds__(256, 2)
    tg_softmax_block(const __grid_constant__ SoftmaxParams p) {
    __shared__ TeamScratch scratch;
    const Team<TEAM_WARPS> team = {scratch};
    const uint64_t token = blockIdx.x;
    const float* logits = p.logits + token * p.logits_stride;
    float* probs = p.probs + token * p.probs_stride;
    float largest = -infinity_f32();
    bool faulty = false;
    team.each(p.num_experts, [&](uint32_t e) {
        const float z = ptx::ld_global_nc_f32(logits + e);
        largest = fmaxf(largest, z);
        faulty = faulty || is_nan(z) || z == infinity_f32();
    });
    largest = team.max(largest);
    const auto power = [&](uint32_t e) {
        return exp_of_nonpositive(__fsub_rn(ptx::ld_global_nc_f32(logits + e), largest));
    };
    float total = 0.0f;
    team.each(p.num_experts, [&](uint32_t e) { total = __fadd_rn(total, power(e)); });
    total = checked_total(team, team.sum(total), faulty);
    const float reciprocal = __fdiv_rn(1.0f, total);
    team.each(p.num_experts,
              [&](uint32_t e) { probs[e] = probability(power(e), total, reciprocal); });
    if (threadIdx.x == 0) {
        p.lse[token] = log_sum_exp(largest, total);
    }
}

// dz_j = p_j (dp_j - sum_e p_e dp_e)
extern "C" __global__ void __launch_bounds__(128)
    tg_softmax_backward_warp(const __grid_constant__ SoftmaxBackwardParams p) {
    constexpr uint32_t BACKWARD_ROWS = ROWS / 2;
    __shared__ __align__(16) float rows[BACKWARD_ROWS][2][MOST_COLUMNS];
    __shared__ TeamScratch scratch;
    const uint32_t token = blockIdx.x * BACKWARD_ROWS + warp_id();
    if (token >= p.num_tokens) {
        return;
    }
    const Team<1> team = {scratch};
    const bool vector = p.vector_rows != 0;
    float* probs = rows[warp_id()][0];
    float* dprobs = rows[warp_id()][1];
    load_row(team, probs, p.probs + token * p.probs_stride, p.num_experts, vector);
    load_row(team, dprobs, p.dprobs + token * p.dprobs_stride, p.num_experts, vector);
    float mean = 0.0f;
    team.each(p.num_experts,
              [&](uint32_t e) { mean = __fmaf_rn(probs[e], dprobs[e], mean); });
    mean = team.sum(mean);
    team.each(p.num_experts, [&](uint32_t e) {
        probs[e] = __fmul_rn(probs[e], __fsub_rn(dprobs[e], mean));
    });
    store_row(team, p.dlogits + token * p.dlogits_stride, probs, p.num_experts, vector);
}

extern "C" __global__ void __launch_bounds__(256, 2)
    tg_softmax_backward_block(const __grid_constant__ SoftmaxBackwardParams p) {
    __shared__ TeamScratch scratch;
    const Team<TEAM_WARPS> team = {scratch};
    const uint64_t token = blockIdx.x;
    const float* probs = p.probs + token * p.probs_stride;
    const float* dprobs = p.dprobs + token * p.dprobs_stride;
    float* dlogits = p.dlogits + token * p.dlogits_stride;
    float mean = 0.0f;
    team.each(p.num_experts,
              [&](uint32_t e) { mean = __fmaf_rn(probs[e], dprobs[e], mean); });
    mean = team.sum(mean);
    team.each(p.num_experts, [&](uint32_t e) {
        dlogits[e] = __fmul_rn(probs[e], __fsub_rn(dprobs[e], mean));
    });
}

}  // namespace tollgate::gate
