// What a block of tokens leaves behind: the results of its tokens wait in shared memory, so that
// they leave it in whole sectors, and are counted on the way.
#pragma once

#include <cstdint>

#include "tollgate/abi/gating.h"
#include "tollgate/gating/options.cuh"
#include "tollgate/gating/scores.cuh"
#include "tollgate/ptx/memory.cuh"
#include "tollgate/warp.cuh"

namespace tollgate::gate {

// Shared memory of a block, n tokens with s slots each, E experts.
struct BlockResults {
    int32_t* slot_experts;   // [n, s] what the gate decided, -1 in unused slots
    float* slot_weights;     // [n, s]
    float* largest;          // [n] the largest logit
    float* total;            // [n] the sum of e^(z - largest); then lse
    int32_t* first_choice;   // [n]
    int32_t* runner_up;      // [n]; gate.cu has sums there
    int32_t* local_experts;  // [n] what runs on a dropped step
    float* local_weights;    // [n]
    uint32_t* counts;        // [E] used slots
    uint32_t* load;          // [E]

    // Lays the arrays over dynamic shared memory and returns what is behind them. The host counts
    // the same bytes: GatePlan.
    static __device__ __forceinline__ BlockResults lay(const GateParams& p, bool general,
                                                       uint32_t*& memory) {
        const uint32_t tokens = p.tokens_per_block;
        const uint32_t slots = tokens * p.slots;
        auto take = [&memory](uint32_t words) {
            uint32_t* at = memory;
            memory += (words + 3) / 4 * 4;
            return at;
        };
        BlockResults r;
        r.slot_experts = reinterpret_cast<int32_t*>(take(slots));
        r.slot_weights = reinterpret_cast<float*>(take(slots));
        r.largest = reinterpret_cast<float*>(take(tokens));
        r.total = reinterpret_cast<float*>(take(tokens));
        r.first_choice = reinterpret_cast<int32_t*>(take(tokens));
        r.runner_up = reinterpret_cast<int32_t*>(take(tokens));
        r.local_experts = reinterpret_cast<int32_t*>(take(general ? tokens : 0));
        r.local_weights = reinterpret_cast<float*>(take(general ? tokens : 0));
        r.counts = take(p.num_experts);
        r.load = take(p.num_experts);
        return r;
    }
};

// Counts an expert a lane in shared memory, -1: none. Lanes whose experts share a bank take turns.
__device__ __forceinline__ void count_experts(uint32_t* counts, int32_t expert) {
    const bool counted = expert >= 0;
    const uint32_t bank = counted ? static_cast<uint32_t>(expert) % WARP : WARP;
    const uint32_t same = ptx::match_any_u32(ptx::ALL_LANES, bank);
    const uint32_t turn = __popc(same & ptx::lanes_below());
    for (uint32_t now = 0; ptx::ballot(ptx::ALL_LANES, counted && turn >= now) != 0; ++now) {
        if (counted && turn == now) {
            atomicAdd(&counts[expert], 1u);
        }
    }
}

// Copies `words` words to `to`, 16 bytes at a time: both start at a multiple of 16 bytes.
template <uint32_t THREADS>
__device__ __forceinline__ void copy_out(void* to, const void* from, uint32_t words) {
    auto* out = static_cast<uint32_t*>(to);
    const auto* in = static_cast<const uint32_t*>(from);
    for (uint32_t i = threadIdx.x; i < words / 4; i += THREADS) {
        ptx::st_global_v4(out + 4 * i, *reinterpret_cast<const uint4*>(in + 4 * i));
    }
    const uint32_t i = words / 4 * 4 + threadIdx.x;
    if (i < words) {
        out[i] = in[i];
    }
}

// Writes what the block's tokens left in `r`, from token `first` on, and what they add up to.
// `dropped`: Gating Dropout dropped this step. Called by all threads, after a barrier.
template <uint32_t THREADS>
__device__ __forceinline__ void write_block(const GateParams& p, const BlockResults& r,
                                            uint32_t first, uint32_t tokens, bool dropped) {
    const uint32_t tid = threadIdx.x;
    const uint32_t slots = tokens * p.slots;
    for (uint32_t t = tid; t < tokens; t += THREADS) {
        const float lse = log_sum_exp(r.largest[t], r.total[t]);
        r.total[t] = lse;
        p.lse[first + t] = lse;
        p.first_choice[first + t] = r.first_choice[t];
        if (p.runner_up != nullptr) {
            p.runner_up[first + t] = r.runner_up[t];
        }
    }
    // What runs: the gate's decision, or on a dropped step the local expert or nothing.
    const auto runs = [&](uint32_t slot) -> int32_t {
        if (!dropped) {
            return r.slot_experts[slot];
        }
        return p.drop_experts || slot % p.slots != 0 ? -1 : r.local_experts[slot / p.slots];
    };
    uint32_t used = 0;
    if (p.block_histogram != nullptr) {
        for (uint32_t start = warp_id() * WARP; start < slots; start += THREADS) {
            const uint32_t i = start + lane_id();
            const int32_t expert = i < slots ? runs(i) : -1;
            used += __popc(ptx::ballot(ptx::ALL_LANES, expert >= 0));
            count_experts(r.counts, expert);
        }
    }
    if (p.load_histogram != nullptr) {
        const uint32_t counted = p.load == load::ALL ? slots : tokens;
        for (uint32_t start = warp_id() * WARP; start < counted; start += THREADS) {
            const uint32_t i = start + lane_id();
            int32_t expert = -1;
            if (i < counted) {
                if (p.load == load::FIRST) {
                    expert = r.first_choice[i];
                } else if (p.load == load::ALL) {
                    expert = r.slot_experts[i];
                } else if (p.slots > 0) {
                    const bool single = p.slots == 1 || r.slot_experts[i * p.slots + 1] < 0;
                    expert = single ? r.slot_experts[i * p.slots] : -1;
                }
            }
            count_experts(r.load, expert);
        }
    }
    __shared__ uint32_t used_of_warps[THREADS / WARP];
    if (lane_id() == 0) {
        used_of_warps[warp_id()] = used;
    }
    __syncthreads();

    const uint64_t row = static_cast<uint64_t>(blockIdx.x) * p.num_experts;
    for (uint32_t e = tid; e < p.num_experts; e += THREADS) {
        if (p.block_histogram != nullptr) {
            p.block_histogram[row + e] = static_cast<int32_t>(r.counts[e]);
        }
        if (p.load_histogram != nullptr) {
            p.load_histogram[row + e] = static_cast<int32_t>(r.load[e]);
        }
    }
    if (p.block_counts != nullptr && warp_id() == 0) {
        const uint32_t mine = lane_id() < THREADS / WARP ? used_of_warps[lane_id()] : 0;
        const uint32_t sum = ptx::redux_add_u32(ptx::ALL_LANES, mine);
        if (lane_id() == 0) {
            p.block_counts[blockIdx.x] = static_cast<int32_t>(sum);
        }
    }
    if (p.block_squares != nullptr && warp_id() == 0) {
        double squares = 0.0;
        for (uint32_t t = lane_id(); t < tokens; t += WARP) {
            const float lse = r.total[t];
            const double finite = lse == -infinity_f32() ? 0.0f : lse;
            squares = __fma_rn(finite, finite, squares);
        }
        squares = warp_sum(squares);
        if (lane_id() == 0) {
            p.block_squares[blockIdx.x] = squares;
        }
    }
    if (p.slot_experts != nullptr) {
        const uint64_t at = static_cast<uint64_t>(first) * p.slots;
        if (!dropped) {
            copy_out<THREADS>(p.slot_experts + at, r.slot_experts, slots);
            copy_out<THREADS>(p.slot_weights + at, r.slot_weights, slots);
        } else {
            for (uint32_t i = tid; i < slots; i += THREADS) {
                const int32_t expert = runs(i);
                p.slot_experts[at + i] = expert;
                p.slot_weights[at + i] = expert < 0 ? 0.0f : r.local_weights[i / p.slots];
            }
        }
    } else if (dropped && p.local_experts != nullptr) {
        for (uint32_t t = tid; t < tokens; t += THREADS) {
            p.local_experts[first + t] = p.drop_experts ? -1 : r.local_experts[t];
            p.local_weights[first + t] = p.drop_experts ? 0.0f : r.local_weights[t];
        }
    }
}

}  // namespace tollgate::gate
