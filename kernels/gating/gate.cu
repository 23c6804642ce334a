// The gate of the routers that take the k best of a softmax, up to 1024 experts.
//
//   logits [T, E] -> slots [T, k], lse [T], first_choice [T], scores [T, E] if kept,
//   and for every block of tokens counts [1], histograms [E], sums of scores [E] and of lse^2 [1].
//
// A row is read once and stays in the registers of a group of lanes: 8 lanes up to 32 experts, 16 up
// to 64, a warp beyond. While a row is worked on the next one is on its way. What tokens leave behind
// waits in shared memory until the block is done (block_results.cuh).

#include <cstdint>

#include "tollgate/abi/gating.h"
#include "tollgate/gating/block_results.cuh"
#include "tollgate/gating/lanes.cuh"
#include "tollgate/gating/top.cuh"
#include "tollgate/status.cuh"

namespace tollgate::gate {

// From so many ranks on candidates are fewer instructions than rounds; beyond the other they are so
// many that they would not fit.
inline constexpr uint32_t FEWEST_BY_CANDIDATES = 3;
inline constexpr uint32_t MOST_BY_CANDIDATES = 16;

template <uint32_t LANES, uint32_t V, uint32_t WARPS>
__device__ __forceinline__ void gate_tokens(const GateParams& p) {
    using L = Lanes<LANES, V>;
    constexpr uint32_t THREADS = WARPS * WARP;
    // Rows that a block works on at once.
    constexpr uint32_t ROWS = WARPS * L::GROUPS;
    // With more places a lane, the next row would take the registers that this one needs.
    constexpr bool AHEAD = V <= 8;

    // ---- shared memory ----
    extern __shared__ __align__(16) uint32_t dynamic[];
    __shared__ __align__(16) uint32_t candidates[WARPS][2 * WARP];
    uint32_t* memory = dynamic;
    const BlockResults results = BlockResults::lay(p, false, memory);
    float* columns = reinterpret_cast<float*>(memory);  // [WARPS, PLACES]

    const uint32_t first = blockIdx.x * p.tokens_per_block;
    const uint32_t tokens =
        p.num_tokens - first < p.tokens_per_block ? p.num_tokens - first : p.tokens_per_block;
    for (uint32_t e = threadIdx.x; e < p.num_experts; e += THREADS) {
        results.counts[e] = 0;
        results.load[e] = 0;
    }

    // ---- rows ----
    const bool vector = p.vector_rows != 0;
    const auto row = [&](uint32_t t) {
        return p.logits + static_cast<uint64_t>(first + t) * p.logits_stride;
    };
    float shares[V];
#pragma unroll
    for (uint32_t j = 0; j < V; ++j) {
        shares[j] = 0.0f;
    }
    float ahead[V];
    uint32_t t = warp_id() * L::GROUPS + L::group();
    if constexpr (AHEAD) {
        L::load(ahead, row(t), t < tokens, p.num_experts, vector);
    }
    // The same number of turns for all groups of a warp.
    for (uint32_t base = warp_id() * L::GROUPS; base < tokens; base += ROWS, t += ROWS) {
        const bool is_row = t < tokens;
        float z[V];
        if constexpr (AHEAD) {
#pragma unroll
            for (uint32_t j = 0; j < V; ++j) {
                z[j] = ahead[j];
            }
            if (base + ROWS < tokens) {
                L::load(ahead, row(t + ROWS), t + ROWS < tokens, p.num_experts, vector);
            }
        } else {
            L::load(z, row(t), is_row, p.num_experts, vector);
        }

        // ---- selection: logits wait where weights will be ----
        int32_t* slot_experts = results.slot_experts + t * p.k;
        float* slot_weights = results.slot_weights + t * p.k;
        const auto take = [&](uint32_t r, const Choice& best) {
            slot_experts[r] = static_cast<int32_t>(best.expert);
            slot_weights[r] = key_value(best.key);
        };
        uint32_t keys[V];
        keys_of<LANES, V>(keys, z, p.num_experts);
        Choice chosen = {NO_KEY, 0};
        bool done = false;
        if constexpr (LANES == WARP) {
            if (p.k >= FEWEST_BY_CANDIDATES && p.k <= MOST_BY_CANDIDATES) {
                done = top_by_candidates<V>(keys, p.k, candidates[warp_id()], take);
            }
        }
        if (!done) {
            top_by_rounds<LANES, V>(keys, p.k, [&](uint32_t r, const Choice& best) {
                if (is_row && L::lane() == 0) {
                    take(r, best);
                }
            });
        }
        __syncwarp();
        if (is_row) {
            chosen.expert = static_cast<uint32_t>(slot_experts[0]);
        }
        const float largest = is_row ? slot_weights[0] : -infinity_f32();

        // ---- scores ----
        const bool marked = is_row && p.row_faults != nullptr && p.row_faults[first + t] != 0;
        bool faulty = false;
        bool masked = false;
        float factor;
        {
            float total = L::exponentials(z, largest);
            factor = __fdiv_rn(1.0f, total);
            if (ptx::ballot(ptx::ALL_LANES, marked || !(total >= 1.0f)) != 0) {
                // Rare: logits again, e^(z - largest) has lost what was wrong with them.
                float again[V];
                L::load(again, row(t), is_row, p.num_experts, vector);
                bool bad = marked;
#pragma unroll
                for (uint32_t j = 0; j < V; ++j) {
                    bad = bad || is_nan(again[j]) || again[j] == infinity_f32();
                }
                faulty = L::any(bad);
                masked = !faulty && !(total >= 1.0f);
                if (masked) {
                    total = FULLY_MASKED;
                    factor = 0.0f;
#pragma unroll
                    for (uint32_t j = 0; j < V; ++j) {
                        z[j] = 0.0f;
                    }
                } else if (faulty) {
                    total = nan_f32();
                    factor = nan_f32();
                }
            }
            if (is_row && L::lane() == 0) {
                results.largest[t] = largest;
                results.total[t] = total;
                results.first_choice[t] = faulty ? 0 : static_cast<int32_t>(chosen.expert);
                if (faulty) {
                    raise_faulty_row(p.status, first + t);
                }
            }
        }
#pragma unroll
        for (uint32_t j = 0; j < V; ++j) {
            shares[j] = __fmaf_rn(z[j], factor, shares[j]);
        }
        if (p.scores != nullptr && is_row) {
#pragma unroll
            for (uint32_t j = 0; j < V; ++j) {
                z[j] = __fmul_rn(z[j], factor);
            }
            L::store(p.scores + static_cast<uint64_t>(first + t) * p.num_experts, z,
                     p.num_experts, p.num_experts % 4 == 0);
        }

        // ---- weights ----
        __syncwarp();
        const auto score = [&](uint32_t r) {
            const float e = exp_of_nonpositive(__fsub_rn(slot_weights[r], largest));
            return masked ? 0.0f : __fmul_rn(e, factor);
        };
        float of = 1.0f;
        if (p.weights != weights::PROB) {
            float sum = 0.0f;
            for (uint32_t r = L::lane(); r < p.k && is_row; r += LANES) {
                sum = __fadd_rn(sum, score(r));
            }
            of = L::sum(sum);
        }
        for (uint32_t r = L::lane(); r < p.k && is_row; r += LANES) {
            float weight = score(r);
            if (p.weights != weights::PROB) {
                weight = share(weight, of);
            }
            slot_weights[r] = __fmul_rn(weight, p.weight_scale);
            if (faulty) {
                slot_experts[r] = r == 0 ? 0 : -1;
                slot_weights[r] = r == 0 ? nan_f32() : 0.0f;
            }
        }
    }

    // ---- sums of the scores ----
    if (p.block_shares != nullptr) {
#pragma unroll
        for (uint32_t lanes = LANES; lanes < WARP; lanes *= 2) {
#pragma unroll
            for (uint32_t j = 0; j < V; ++j) {
                shares[j] =
                    __fadd_rn(shares[j], ptx::shfl_bfly_f32(ptx::ALL_LANES, shares[j], lanes));
            }
        }
        if (L::group() == 0) {
#pragma unroll
            for (uint32_t j = 0; j < V; j += 4) {
                *reinterpret_cast<float4*>(columns + warp_id() * L::PLACES + L::expert(j)) =
                    make_float4(shares[j], shares[j + 1], shares[j + 2], shares[j + 3]);
            }
        }
    }
    __syncthreads();
    if (p.block_shares != nullptr) {
        for (uint32_t e = threadIdx.x; e < p.num_experts; e += THREADS) {
            float sum = 0.0f;
#pragma unroll
            for (uint32_t warp = 0; warp < WARPS; ++warp) {
                sum = __fadd_rn(sum, columns[warp * L::PLACES + e]);
            }
            p.block_shares[static_cast<uint64_t>(blockIdx.x) * p.num_experts + e] = sum;
        }
    }
    write_block<THREADS>(p, results, first, tokens, false);
}

#define TOLLGATE_GATE(NAME, LANES, V, WARPS)                                         \
    extern "C" __global__ void __launch_bounds__(WARPS * 32)                         \
        NAME(const __grid_constant__ GateParams p) {                                 \
        gate_tokens<LANES, V, WARPS>(p);                                             \
    }

TOLLGATE_GATE(tg_gate_e32, 8, 4, 16)
TOLLGATE_GATE(tg_gate_e64, 16, 4, 16)
TOLLGATE_GATE(tg_gate_e128, 32, 4, 16)
TOLLGATE_GATE(tg_gate_e256, 32, 8, 16)
TOLLGATE_GATE(tg_gate_e512, 32, 16, 8)
TOLLGATE_GATE(tg_gate_e1024, 32, 32, 8)

}  // namespace tollgate::gate
