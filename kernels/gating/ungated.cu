// Routers without a gate: hash routing by a table, stochastic experts, ensemble. The draws of
// single tokens are in draw.ptx. T tokens, E experts.

#include <cstdint>

#include "tollgate/abi/selection.h"
#include "tollgate/numeric.cuh"
#include "tollgate/philox.cuh"
#include "tollgate/status.cuh"
#include "tollgate/warp.cuh"

namespace tollgate {

inline constexpr uint32_t THREADS = 256;
// Tokens of a block of tg_count_experts.
inline constexpr uint32_t COUNT_TOKENS = 1024;
// Up to so many experts are counted in shared memory.
inline constexpr uint32_t SHARED_EXPERTS = 4096;

// An expert, or where an index was bad expert 0 with a weight that shows it.
__device__ __forceinline__ void write_token(const UngatedParams& p, uint32_t token, int32_t expert,
                                            bool bad) {
    p.expert_indices[token] = bad ? 0 : expert;
    p.routing_weights[token] = bad ? nan_f32() : p.weight;
}

// The expert of a token id by the table [V].
extern "C" __global__ void __launch_bounds__(256)
    tg_hash_lookup(const __grid_constant__ UngatedParams p) {
    const uint32_t token = blockIdx.x * THREADS + threadIdx.x;
    if (token >= p.num_tokens) {
        return;
    }
    // A negative id is a large one.
    const uint32_t id = static_cast<uint32_t>(p.token_ids[token]);
    if (id >= p.vocabulary) {
        raise_bad_index(p.status, fault::TOKEN_ID, token);
        write_token(p, token, 0, true);
        return;
    }
    const int32_t expert = p.hash_table[id];
    const bool bad = static_cast<uint32_t>(expert) >= p.num_experts;
    if (bad) {
        raise_bad_index(p.status, fault::EXPERT_INDEX, id);
    }
    write_token(p, token, expert, bad);
}

// An expert a sequence, drawn with the index of its first token. A token finds its sequence by
// bisection of sequence_offsets [S+1].
extern "C" __global__ void __launch_bounds__(256)
    tg_draw_sentences(const __grid_constant__ UngatedParams p) {
    const uint32_t token = blockIdx.x * THREADS + threadIdx.x;
    if (token >= p.num_tokens) {
        return;
    }
    const int32_t at = static_cast<int32_t>(token);
    // The last sequence that starts at or before the token; what the offsets are is not believed.
    uint32_t low = 0;
    uint32_t high = p.num_sequences;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        (p.sequence_offsets[middle] <= at ? low : high) = middle;
    }
    bool bad = p.num_sequences == 0;
    uint32_t start = 0;
    if (!bad) {
        start = static_cast<uint32_t>(p.sequence_offsets[low]);
        bad = start > token || p.sequence_offsets[low + 1] <= at;
    }
    if (bad) {
        raise_bad_index(p.status, fault::TOKEN_OFFSETS, token);
    }
    const StepBlock step = *p.step;
    const uint32_t word = step_words(step, step.first_token + start, DrawStream::Stochastic, 0).x;
    write_token(p, token, static_cast<int32_t>(below(word, p.num_experts)), bad);
}

// Tables that are known beforehand: one expert drawn for the whole batch (k = 1), or every expert
// for every token (k = E). Four assignments a thread.
template <bool ENSEMBLE>
__device__ __forceinline__ void spread(const UngatedParams& p) {
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    const uint32_t k = ENSEMBLE ? p.num_experts : 1;
    uint32_t drawn = 0;
    if (!ENSEMBLE) {
        const uint32_t word = step_words(*p.step, 0, DrawStream::Stochastic, 0).x;
        drawn = below(word, p.num_experts);
    }
    const uint32_t assignments = p.num_tokens * k;
    const uint64_t first = static_cast<uint64_t>(i) * 4;
    const uint64_t both = reinterpret_cast<uint64_t>(p.expert_indices) |
                          reinterpret_cast<uint64_t>(p.routing_weights);
    if (first < assignments) {
        int32_t experts[4];
        uint32_t expert = ENSEMBLE ? static_cast<uint32_t>(first) % k : drawn;
#pragma unroll
        for (int32_t& e : experts) {
            e = static_cast<int32_t>(expert);
            expert = ENSEMBLE ? (expert + 1 == k ? 0 : expert + 1) : drawn;
        }
        if (first + 4 <= assignments && both % 16 == 0) {
            *reinterpret_cast<int4*>(p.expert_indices + first) =
                make_int4(experts[0], experts[1], experts[2], experts[3]);
            *reinterpret_cast<float4*>(p.routing_weights + first) =
                make_float4(p.weight, p.weight, p.weight, p.weight);
        } else {
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) {
                if (first + j < assignments) {
                    p.expert_indices[first + j] = experts[j];
                    p.routing_weights[first + j] = p.weight;
                }
            }
        }
    }
    if (i <= p.num_tokens) {
        p.token_offsets[i] = static_cast<int32_t>(i * k);
    }
    if (i <= p.num_experts) {
        const uint32_t before = ENSEMBLE ? i * p.num_tokens : (i > drawn ? p.num_tokens : 0);
        p.expert_offsets[i] = static_cast<int32_t>(before);
    }
}

extern "C" __global__ void __launch_bounds__(256)
    tg_draw_batch(const __grid_constant__ UngatedParams p) {
    spread<false>(p);
}

extern "C" __global__ void __launch_bounds__(256)
    tg_ensemble(const __grid_constant__ UngatedParams p) {
    spread<true>(p);
}

// Counts and histograms of blocks of tokens with one expert each. Lanes that hold the same expert
// are counted at once.
extern "C" __global__ void __launch_bounds__(256)
    tg_count_experts(const __grid_constant__ CountParams p) {
    __shared__ int32_t shared[SHARED_EXPERTS];
    const uint32_t first = blockIdx.x * COUNT_TOKENS;
    const uint32_t left = p.num_tokens - first;
    const uint32_t tokens = left < COUNT_TOKENS ? left : COUNT_TOKENS;
    int32_t* row = p.block_histogram + static_cast<uint64_t>(blockIdx.x) * p.num_experts;
    const bool in_shared = p.num_experts <= SHARED_EXPERTS;
    int32_t* counts = in_shared ? shared : row;
    for (uint32_t e = threadIdx.x; e < p.num_experts; e += THREADS) {
        counts[e] = 0;
    }
    __syncthreads();
    for (uint32_t start = 0; start < tokens; start += THREADS) {
        const uint32_t i = start + threadIdx.x;
        const bool inside = i < tokens;
        const uint32_t expert = inside ? static_cast<uint32_t>(p.expert_indices[first + i]) : ~0u;
        const uint32_t same = ptx::match_any_u32(ptx::ALL_LANES, expert);
        if (inside && (same & ptx::lanes_below()) == 0) {
            atomicAdd(&counts[expert], __popc(same));
        }
    }
    __syncthreads();
    if (in_shared) {
        for (uint32_t e = threadIdx.x; e < p.num_experts; e += THREADS) {
            row[e] = shared[e];
        }
    }
    if (threadIdx.x == 0) {
        p.block_counts[blockIdx.x] = static_cast<int32_t>(tokens);
    }
}

}  // namespace tollgate
