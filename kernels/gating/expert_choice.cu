// Expert choice (Zhou et al., 2022): every expert takes the best of its column. T tokens, E
// experts, scores [T, E]; W = ceil(E / 32) words of bits a token.
//
// A lane has an expert: 32 columns side by side are read in whole lines, token after token, and
// need no transposition. tg_quota_resolve finds the merit at which each column's quota ends, digit
// by digit; ties go by token.

#include <cstdint>

#include "tollgate/abi/selection.h"
#include "tollgate/block.cuh"
#include "tollgate/numeric.cuh"
#include "tollgate/ptx/atomic.cuh"
#include "tollgate/quota.cuh"

namespace tollgate {

inline constexpr uint32_t THREADS = 256;
inline constexpr uint32_t WARPS = THREADS / WARP;
// Tokens of a block of tg_choice_count.
inline constexpr uint32_t COUNT_TOKENS = 1024;
// Tokens of a block of whoever leaves blocks of tokens, at most.
inline constexpr uint32_t MAX_BLOCK_TOKENS = 1024;

// ---- merits ----

struct Claim {
    uint32_t merit;
    bool valid;
};

// The merit of a token in a column. A faulty row is in column 0 only and before all; a masked place
// is behind one whose probability underflowed. Scores are not negative: the order of their bits is
// theirs.
__device__ __forceinline__ Claim claim_of(const ChoiceParams& p, uint32_t token, uint32_t expert) {
    const float score = p.scores[static_cast<uint64_t>(token) * p.num_experts + expert];
    if (is_nan(score)) {
        return {0xffffffffu, expert == 0};
    }
    if (score == 0.0f) {
        const float z = p.logits[token * p.logits_stride + expert];
        return {z == -infinity_f32() ? 0u : 1u, true};
    }
    return {__float_as_uint(score) + 1, true};
}

// The 32 experts of a block and its part of the tokens.
struct Tile {
    uint32_t expert;
    bool inside;
    uint32_t first;
    uint32_t end;
};

__device__ __forceinline__ Tile tile_of(const ChoiceParams& p, uint32_t tokens) {
    const uint32_t expert = blockIdx.x % p.words * WARP + lane_id();
    const uint32_t first = blockIdx.x / p.words * tokens;
    const uint32_t left = p.num_tokens - first;
    return {expert, expert < p.num_experts, first, first + (left < tokens ? left : tokens)};
}

// ---- digits ----

// Counts a digit of the merits whose digits above it are the threshold's. histogram [256, E].
extern "C" __global__ void __launch_bounds__(256)
    tg_choice_count(const __grid_constant__ ChoiceParams p) {
    // A lane has a bank of its own.
    __shared__ uint32_t counts[DIGITS][WARP];
    const Tile tile = tile_of(p, COUNT_TOKENS);
    for (uint32_t d = warp_id(); d < DIGITS; d += WARPS) {
        counts[d][lane_id()] = 0;
    }
    __syncthreads();
    Quota quota = {0, 0};
    if (tile.inside && !p.first) {
        quota = {p.threshold[tile.expert], p.remaining[tile.expert]};
    }
    if (tile.inside && quota.in_order()) {
#pragma unroll 4
        for (uint32_t token = tile.first + warp_id(); token < tile.end; token += WARPS) {
            const Claim claim = claim_of(p, token, tile.expert);
            const uint64_t above = static_cast<uint64_t>(claim.merit) >> (p.shift + 8);
            if (claim.valid && (p.first || above == quota.threshold)) {
                atomicAdd(&counts[claim.merit >> p.shift & (DIGITS - 1)][lane_id()], 1u);
            }
        }
    }
    __syncthreads();
    for (uint32_t d = warp_id(); d < DIGITS; d += WARPS) {
        const uint32_t count = counts[d][lane_id()];
        if (tile.inside && count > 0) {
            ptx::red_global_add_u32(p.histogram + static_cast<uint64_t>(d) * p.num_experts + tile.expert, count);
        }
    }
}

// ---- who is taken ----

// A warp's part of a block's tokens: neighbours, in order.
struct Part {
    uint32_t first;
    uint32_t end;
};

__device__ __forceinline__ Part part_of(const Tile& tile, uint32_t tokens) {
    const uint32_t each = (tokens + WARPS - 1) / WARPS;
    const uint32_t first = tile.first + warp_id() * each;
    const uint32_t end = first + each < tile.end ? first + each : tile.end;
    return {first, end};
}

// Ties of this lane's column in the warp's part.
__device__ __forceinline__ uint32_t count_ties(const ChoiceParams& p, const Tile& tile,
                                               const Part& part, const Quota& quota) {
    uint32_t ties = 0;
    if (tile.inside && quota.in_order()) {
        for (uint32_t token = part.first; token < part.end; ++token) {
            const Claim claim = claim_of(p, token, tile.expert);
            ties += claim.valid && quota.tied(claim.merit) ? 1 : 0;
        }
    }
    return ties;
}

__device__ __forceinline__ Quota quota_of(const ChoiceParams& p, const Tile& tile) {
    if (!tile.inside) {
        return {0xffffffffu, ALL_TIES};
    }
    return {p.threshold[tile.expert], p.remaining[tile.expert]};
}

// tie_counts [B, E], where order decides.
extern "C" __global__ void __launch_bounds__(256)
    tg_choice_ties(const __grid_constant__ ChoiceParams p) {
    __shared__ uint32_t of_warps[WARPS][WARP];
    const Tile tile = tile_of(p, p.tokens_per_block);
    const Quota quota = quota_of(p, tile);
    // The same answer in every warp: all have the same experts.
    if (ptx::ballot(ptx::ALL_LANES, quota.in_order()) == 0) {
        return;
    }
    of_warps[warp_id()][lane_id()] =
        count_ties(p, tile, part_of(tile, p.tokens_per_block), quota);
    __syncthreads();
    if (warp_id() == 0 && tile.inside) {
        uint32_t sum = 0;
        for (uint32_t w = 0; w < WARPS; ++w) {
            sum += of_warps[w][lane_id()];
        }
        const uint64_t row = blockIdx.x / p.words;
        p.tie_counts[row * p.num_experts + tile.expert] = sum;
    }
}

// Bits of the experts that take a token, masks [T, W], and the histograms of the blocks. tie_counts
// are prefix sums now; block_histogram may be the same memory.
extern "C" __global__ void __launch_bounds__(256)
    tg_choice_select(const __grid_constant__ ChoiceParams p) {
    __shared__ uint32_t of_warps[WARPS][WARP];
    __shared__ uint32_t run_of_warps[WARPS][WARP];
    const Tile tile = tile_of(p, p.tokens_per_block);
    const Part part = part_of(tile, p.tokens_per_block);
    const Quota quota = quota_of(p, tile);
    const uint32_t block = blockIdx.x / p.words;
    const uint64_t place = static_cast<uint64_t>(block) * p.num_experts + tile.expert;
    uint32_t rank = 0;
    if (ptx::ballot(ptx::ALL_LANES, quota.in_order()) != 0) {
        of_warps[warp_id()][lane_id()] = count_ties(p, tile, part, quota);
        rank = quota.in_order() ? p.tie_counts[place] : 0;
        __syncthreads();
        for (uint32_t w = 0; w < warp_id(); ++w) {
            rank += of_warps[w][lane_id()];
        }
        __syncthreads();
    }
    // On a dropped step another decision runs; this one still counts as the gate's own.
    const bool dropped = p.dropped != nullptr && *p.dropped != 0;
    uint32_t taken_here = 0;
    uint32_t runs_here = 0;
    for (uint32_t token = part.first; token < part.end; ++token) {
        bool taken = false;
        if (tile.inside) {
            const Claim claim = claim_of(p, token, tile.expert);
            const bool tied = claim.valid && quota.tied(claim.merit);
            taken = claim.valid && (quota.above(claim.merit) || (tied && rank < quota.remaining));
            rank += tied ? 1 : 0;
        }
        const uint32_t mask = ptx::ballot(ptx::ALL_LANES, taken);
        if (lane_id() == 0) {
            p.masks[static_cast<uint64_t>(token) * p.words + blockIdx.x % p.words] = mask;
        }
        taken_here += taken ? 1 : 0;
        if (dropped) {
            runs_here += p.local_experts[token] == static_cast<int32_t>(tile.expert) ? 1 : 0;
        }
    }
    of_warps[warp_id()][lane_id()] = taken_here;
    run_of_warps[warp_id()][lane_id()] = dropped ? runs_here : taken_here;
    __syncthreads();
    if (warp_id() == 0 && tile.inside) {
        uint32_t taken = 0;
        uint32_t runs = 0;
        for (uint32_t w = 0; w < WARPS; ++w) {
            taken += of_warps[w][lane_id()];
            runs += run_of_warps[w][lane_id()];
        }
        p.block_histogram[place] = static_cast<int32_t>(runs);
        if (p.load_histogram != nullptr && !p.load_singles) {
            p.load_histogram[place] = static_cast<int32_t>(taken);
        }
    }
}

// ---- rows ----

// Experts of a token by its bits; in all lanes. `only` is one of them.
struct RowCount {
    uint32_t count;
    uint32_t only;
};

__device__ __forceinline__ RowCount count_row(const ChoiceParams& p, uint32_t token) {
    const uint32_t* row = p.masks + static_cast<uint64_t>(token) * p.words;
    RowCount result = {0, 0};
    for (uint32_t w = lane_id(); w < p.words; w += WARP) {
        const uint32_t mask = row[w];
        if (mask != 0) {
            result.count += __popc(mask);
            result.only = w * WARP + __ffs(mask) - 1;
        }
    }
    result.count = ptx::redux_add_u32(ptx::ALL_LANES, result.count);
    result.only = ptx::redux_max_u32(ptx::ALL_LANES, result.only);
    return result;
}

// How many assignments a token has, dropped step or not.
__device__ __forceinline__ uint32_t runs_of(const ChoiceParams& p, uint32_t token,
                                            const RowCount& own, bool dropped) {
    return dropped ? (p.local_experts[token] >= 0 ? 1 : 0) : own.count;
}

// block_counts [B], and where single experts are the load its histogram [B, E].
extern "C" __global__ void __launch_bounds__(256)
    tg_choice_rows(const __grid_constant__ ChoiceParams p) {
    __shared__ BlockScratch scratch;
    const uint32_t first = blockIdx.x * p.tokens_per_block;
    const uint32_t left = p.num_tokens - first;
    const uint32_t tokens = left < p.tokens_per_block ? left : p.tokens_per_block;
    const bool dropped = p.dropped != nullptr && *p.dropped != 0;
    int32_t* load = nullptr;
    if (p.load_histogram != nullptr && p.load_singles) {
        load = p.load_histogram + static_cast<uint64_t>(blockIdx.x) * p.num_experts;
        for (uint32_t e = threadIdx.x; e < p.num_experts; e += THREADS) {
            load[e] = 0;
        }
        __syncthreads();
    }
    uint32_t runs = 0;
    for (uint32_t t = warp_id(); t < tokens; t += WARPS) {
        const RowCount own = count_row(p, first + t);
        if (lane_id() == 0) {
            runs += runs_of(p, first + t, own, dropped);
            if (load != nullptr && own.count == 1) {
                atomicAdd(load + own.only, 1);
            }
        }
    }
    runs = block_sum<THREADS>(runs, scratch);
    if (threadIdx.x == 0) {
        p.block_counts[blockIdx.x] = static_cast<int32_t>(runs);
    }
}

// Scores to weights: renormalised over the token's experts or not, and scaled. The sum has 16
// partial sums, by position, that are added as a tree.
__device__ __forceinline__ void write_weights(const ChoiceParams& p, float* weights,
                                              uint32_t count) {
    constexpr uint32_t LANES = 16;
    float of = 1.0f;
    if (p.selected) {
        float sum = 0.0f;
        for (uint32_t i = lane_id(); lane_id() < LANES && i < count; i += LANES) {
            sum = __fadd_rn(sum, weights[i]);
        }
#pragma unroll
        for (uint32_t width = LANES / 2; width > 0; width /= 2) {
            sum = __fadd_rn(sum, ptx::shfl_bfly_f32(ptx::ALL_LANES, sum, width));
        }
        of = __uint_as_float(ptx::shfl_idx_u32(ptx::ALL_LANES, __float_as_uint(sum), 0));
        __syncwarp();
    }
    for (uint32_t i = lane_id(); i < count; i += WARP) {
        const float share = of == 0.0f ? 0.0f : __fdiv_rn(weights[i], of);
        weights[i] = __fmul_rn(share, p.weight_scale);
    }
}

// The experts of a token, ascending, and their weights, from `at` on.
__device__ __forceinline__ void write_row(const ChoiceParams& p, uint32_t token, uint32_t at) {
    const uint32_t* row = p.masks + static_cast<uint64_t>(token) * p.words;
    const float* scores = p.scores + static_cast<uint64_t>(token) * p.num_experts;
    uint32_t to = at;
    for (uint32_t start = 0; start < p.words; start += WARP) {
        const uint32_t w = start + lane_id();
        const uint32_t mine = w < p.words ? row[w] : 0;
        uint32_t waiting = ptx::ballot(ptx::ALL_LANES, mine != 0);
        while (waiting != 0) {
            const uint32_t from = __ffs(waiting) - 1;
            waiting &= waiting - 1;
            const uint32_t mask = ptx::shfl_idx_u32(ptx::ALL_LANES, mine, from);
            if ((mask >> lane_id() & 1) != 0) {
                const uint32_t expert = (start + from) * WARP + lane_id();
                const uint32_t place = to + __popc(mask & ptx::lanes_below());
                p.expert_indices[place] = static_cast<int32_t>(expert);
                p.routing_weights[place] = scores[expert];
            }
            to += __popc(mask);
        }
    }
    __syncwarp();
    write_weights(p, p.routing_weights + at, to - at);
}

// token_offsets [T], expert_indices and routing_weights.
extern "C" __global__ void __launch_bounds__(256)
    tg_choice_write(const __grid_constant__ ChoiceParams p) {
    __shared__ BlockScratch scratch;
    __shared__ uint32_t offsets[MAX_BLOCK_TOKENS];
    const uint32_t first = blockIdx.x * p.tokens_per_block;
    const uint32_t left = p.num_tokens - first;
    const uint32_t tokens = left < p.tokens_per_block ? left : p.tokens_per_block;
    const bool dropped = p.dropped != nullptr && *p.dropped != 0;
    uint32_t at = 0;
    if (p.reduced) {
        at = static_cast<uint32_t>(p.block_counts[blockIdx.x]);
    } else {
        for (uint32_t b = threadIdx.x; b < blockIdx.x; b += THREADS) {
            at += static_cast<uint32_t>(p.block_counts[b]);
        }
        at = block_sum<THREADS>(at, scratch);
    }
    for (uint32_t t = warp_id(); t < tokens; t += WARPS) {
        const uint32_t runs = runs_of(p, first + t, count_row(p, first + t), dropped);
        if (lane_id() == 0) {
            offsets[t] = runs;
        }
    }
    __syncthreads();
    for (uint32_t start = 0; start < tokens; start += THREADS) {
        const uint32_t t = start + threadIdx.x;
        const Ranked rank = block_exclusive_sum<THREADS>(t < tokens ? offsets[t] : 0, scratch);
        if (t < tokens) {
            offsets[t] = at + rank.before;
            p.token_offsets[first + t] = static_cast<int32_t>(at + rank.before);
        }
        at += rank.total;
    }
    __syncthreads();
    for (uint32_t t = warp_id(); t < tokens; t += WARPS) {
        const uint32_t token = first + t;
        if (!dropped) {
            write_row(p, token, offsets[t]);
        } else if (lane_id() == 0 && p.local_experts[token] >= 0) {
            p.expert_indices[offsets[t]] = p.local_experts[token];
            p.routing_weights[offsets[t]] = p.local_weights[token];
        }
    }
}

}  // namespace tollgate
