// The gate of every router that has one: softmax or sigmoid, selection bias, groups, rules about
// the second expert, Gating Dropout. Softmax routers that take a fixed k have a faster form in
// gate.cu.
//
//   logits [T, E] -> slots [T, s], lse [T], first_choice [T], runner_up [T], scores [T, E] if kept,
//   and for every block of tokens counts [1], histograms [E], sums of scores [E] and of lse^2 [1].
//
// A row is read once and stays in shared memory. tg_gate_warp gives every row to a warp,
// tg_gate_block to a block, for long rows and for more than 32 slots.

#include <cstdint>

#include "tollgate/abi/gating.h"
#include "tollgate/coin.cuh"
#include "tollgate/gating/block_results.cuh"
#include "tollgate/gating/decide.cuh"
#include "tollgate/gating/row.cuh"
#include "tollgate/gating/team.cuh"
#include "tollgate/status.cuh"

namespace tollgate::gate {

// Warps of a block of tg_gate_warp, each with a row of its own.
inline constexpr uint32_t ROWS = 4;
// Warps of a block of tg_gate_block, all with one row.
inline constexpr uint32_t TEAM_WARPS = 8;

__device__ __forceinline__ uint32_t padded(uint32_t words) { return (words + 3) / 4 * 4; }

// Shared memory of one row: 3 * E words, and 3 * groups for grouped routers.
__device__ __forceinline__ RowMemory lay_row(const GateParams& p, uint32_t*& memory) {
    const auto take = [&memory](uint32_t words) {
        uint32_t* at = memory;
        memory += padded(words);
        return at;
    };
    RowMemory row;
    row.z = reinterpret_cast<float*>(take(p.num_experts));
    row.p = reinterpret_cast<float*>(take(p.num_experts));
    row.keys = take(p.num_experts);
    row.merits = reinterpret_cast<double*>(take(2 * p.groups));
    row.kept = take(p.groups);
    return row;
}

// Where the results of one token go.
struct TokenResults {
    int32_t* slot_experts;
    float* slot_weights;
    RowSums sums;
    Decision decision;
    Assignment local;
};

// Everything about one token, from its logits to its slots; `add_share(e, share)` gets the score of
// each place, from the thread that owns it.
template <uint32_t WARPS, typename AddShare>
__device__ __forceinline__ void gate_token(const Team<WARPS>& team, const GateParams& p,
                                           const RowMemory& memory, uint32_t token, bool dropped,
                                           TokenResults& out, AddShare add_share) {
    const uint32_t experts = p.num_experts;
    const float* row = p.logits + token * p.logits_stride;
    const Loaded seen = load_row(team, memory.z, row, experts, p.vector_rows != 0);
    const bool marked = p.row_faults != nullptr && p.row_faults[token] != 0;
    const bool faulty = team.any(seen.faulty || marked);
    const float largest = team.max(seen.largest);
    out.sums = score_row(team, memory, largest, faulty, experts, p.sigmoid != 0);
    if (p.block_shares != nullptr) {
        team.each(experts,
                  [&](uint32_t e) { add_share(e, __fmul_rn(memory.p[e], out.sums.factor)); });
    }
    if (p.scores != nullptr) {
        float* scores = p.scores + static_cast<uint64_t>(token) * experts;
        store_row(team, scores, memory.p, experts, experts % 4 == 0);
    }
    if (faulty) {
        // Exactly expert 0, with a weight that shows the fault.
        for (uint32_t r = team.rank(); r < p.slots; r += Team<WARPS>::SIZE) {
            out.slot_experts[r] = r == 0 ? 0 : -1;
            out.slot_weights[r] = r == 0 ? nan_f32() : 0.0f;
        }
        out.decision = {0, -1, p.slots == 0 ? 0u : 1u};
        out.local = {static_cast<int32_t>(p.local_start), nan_f32()};
        if (team.rank() == 0) {
            raise_faulty_row(p.status, token);
        }
    } else {
        out.decision = decide(team, p, memory, token, out.slot_experts, out.slot_weights);
        if (dropped && !p.drop_experts) {
            out.local = stay_local(team, p, memory, out.decision.first, token);
        }
    }
    team.sync();
}

__device__ __forceinline__ bool coin(const GateParams& p) {
    const bool dropped =
        p.drop_below != 0 && coin_falls(*p.step, p.drop_below, p.coin_per_step != 0);
    if (p.dropped != nullptr && blockIdx.x == 0 && threadIdx.x == 0) {
        *p.dropped = dropped ? 1 : 0;
    }
    return dropped;
}

// ---- a warp a row ----

extern "C" __global__ void __launch_bounds__(128)
    tg_gate_warp(const __grid_constant__ GateParams p) {
    constexpr uint32_t THREADS = ROWS * WARP;
    extern __shared__ __align__(16) uint32_t dynamic[];
    __shared__ TeamScratch scratch;
    uint32_t* at = dynamic;
    const BlockResults results = BlockResults::lay(p, true, at);
    // Sums of the scores, [ROWS, E].
    const uint32_t width = padded(p.num_experts);
    float* shares = reinterpret_cast<float*>(at);
    at += ROWS * width;
    RowMemory memory;
    for (uint32_t row = 0; row <= warp_id(); ++row) {
        memory = lay_row(p, at);
    }
    const Team<1> team = {scratch};

    const uint32_t first = blockIdx.x * p.tokens_per_block;
    const uint32_t tokens =
        p.num_tokens - first < p.tokens_per_block ? p.num_tokens - first : p.tokens_per_block;
    const bool dropped = coin(p);
    for (uint32_t e = threadIdx.x; e < p.num_experts; e += THREADS) {
        results.counts[e] = 0;
        results.load[e] = 0;
    }
    float* mine = shares + warp_id() * width;
    team.each(p.num_experts, [&](uint32_t e) { mine[e] = 0.0f; });

    for (uint32_t t = warp_id(); t < tokens; t += ROWS) {
        TokenResults out;
        out.slot_experts = results.slot_experts + t * p.slots;
        out.slot_weights = results.slot_weights + t * p.slots;
        out.local = {-1, 0.0f};
        gate_token(team, p, memory, first + t, dropped, out,
                   [&](uint32_t e, float share) { mine[e] = __fadd_rn(mine[e], share); });
        if (team.rank() == 0) {
            results.largest[t] = out.sums.largest;
            results.total[t] = out.sums.total;
            results.first_choice[t] = static_cast<int32_t>(out.decision.first);
            results.runner_up[t] = out.decision.second;
            results.local_experts[t] = out.local.expert;
            results.local_weights[t] = out.local.weight;
        }
    }
    __syncthreads();
    if (p.block_shares != nullptr) {
        for (uint32_t e = threadIdx.x; e < p.num_experts; e += THREADS) {
            float sum = 0.0f;
#pragma unroll
            for (uint32_t row = 0; row < ROWS; ++row) {
                sum = __fadd_rn(sum, shares[row * width + e]);
            }
            p.block_shares[static_cast<uint64_t>(blockIdx.x) * p.num_experts + e] = sum;
        }
    }
    write_block<THREADS>(p, results, first, tokens, dropped);
}

// ---- a block a row ----

// Counts in global memory, since a block's results need not fit beside a long row.
extern "C" __global__ void __launch_bounds__(256, 2)
    tg_gate_block(const __grid_constant__ GateParams p) {
    constexpr uint32_t THREADS = TEAM_WARPS * WARP;
    extern __shared__ __align__(16) uint32_t dynamic[];
    __shared__ TeamScratch scratch;
    uint32_t* at = dynamic;
    const RowMemory memory = lay_row(p, at);
    const Team<TEAM_WARPS> team = {scratch};

    const uint32_t first = blockIdx.x * p.tokens_per_block;
    const uint32_t tokens =
        p.num_tokens - first < p.tokens_per_block ? p.num_tokens - first : p.tokens_per_block;
    const bool dropped = coin(p);
    const uint64_t of_block = static_cast<uint64_t>(blockIdx.x) * p.num_experts;
    int32_t* counts = p.block_histogram == nullptr ? nullptr : p.block_histogram + of_block;
    int32_t* load = p.load_histogram == nullptr ? nullptr : p.load_histogram + of_block;
    float* shares = p.block_shares == nullptr ? nullptr : p.block_shares + of_block;
    for (uint32_t e = threadIdx.x; e < p.num_experts; e += THREADS) {
        if (counts != nullptr) {
            counts[e] = 0;
        }
        if (load != nullptr) {
            load[e] = 0;
        }
    }
    if (shares != nullptr) {
        team.each(p.num_experts, [&](uint32_t e) { shares[e] = 0.0f; });
    }
    __syncthreads();

    uint32_t used = 0;
    double squares = 0.0;
    for (uint32_t t = 0; t < tokens; ++t) {
        const uint32_t token = first + t;
        const uint64_t slot = static_cast<uint64_t>(token) * p.slots;
        TokenResults out;
        out.slot_experts = p.slot_experts + slot;
        out.slot_weights = p.slot_weights + slot;
        out.local = {-1, 0.0f};
        gate_token(team, p, memory, token, dropped, out,
                   [&](uint32_t e, float share) { shares[e] = __fadd_rn(shares[e], share); });
        const float lse = log_sum_exp(out.sums.largest, out.sums.total);
        const double finite = lse == -infinity_f32() ? 0.0f : lse;
        squares = __fma_rn(finite, finite, squares);
        if (threadIdx.x == 0) {
            p.lse[token] = lse;
            p.first_choice[token] = static_cast<int32_t>(out.decision.first);
            if (p.runner_up != nullptr) {
                p.runner_up[token] = out.decision.second;
            }
            if (dropped && p.local_experts != nullptr) {
                p.local_experts[token] = p.drop_experts ? -1 : out.local.expert;
                p.local_weights[token] = p.drop_experts ? 0.0f : out.local.weight;
            }
            if (load != nullptr && p.load == load::FIRST) {
                atomicAdd(&load[out.decision.first], 1);
            }
        }
        const uint32_t taken = out.decision.taken;
        const bool loads = load != nullptr && (p.load == load::ALL ||
                                               (p.load == load::SINGLE && taken == 1));
        const bool counted = counts != nullptr && !dropped;
        if (loads || counted) {
            for (uint32_t r = threadIdx.x; r < taken; r += THREADS) {
                const int32_t expert = out.slot_experts[r];
                if (loads) {
                    atomicAdd(&load[expert], 1);
                }
                if (counted) {
                    atomicAdd(&counts[expert], 1);
                }
            }
        }
        if (!dropped) {
            used += taken;
        } else if (p.slots > 0) {
            __syncthreads();
            for (uint32_t r = threadIdx.x; r < p.slots; r += THREADS) {
                const bool runs = r == 0 && !p.drop_experts;
                out.slot_experts[r] = runs ? out.local.expert : -1;
                out.slot_weights[r] = runs ? out.local.weight : 0.0f;
            }
            if (!p.drop_experts) {
                used += 1;
                if (threadIdx.x == 0) {
                    atomicAdd(&counts[out.local.expert], 1);
                }
            }
        }
    }
    if (threadIdx.x == 0) {
        if (p.block_counts != nullptr) {
            p.block_counts[blockIdx.x] = static_cast<int32_t>(used);
        }
        if (p.block_squares != nullptr) {
            p.block_squares[blockIdx.x] = squares;
        }
    }
}

}  // namespace tollgate::gate
