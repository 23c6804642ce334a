// The gate of the routers that take the k best of a softmax, up to 1024 experts.
//
//   logits [T, E] -> slots [T, k], lse [T], first_choice [T], scores [T, E] if kept,
//   and for every block of tokens counts [1], histograms [E], sums of scores [E] and of lse^2 [1].
//
// A row is read once and stays in the registers of a group of lanes: 8 lanes up to 32 experts, 16
// up to 64, a warp beyond. While a row is worked on the next one is on its way. What tokens leave
// behind waits in shared memory until the block is done (block_results.cuh).

#include <cstdint>

#include "tollgate/abi/gating.h"
#include "tollgate/gating/block_results.cuh"
#include "tollgate/gating/lanes.cuh"
#include "tollgate/gating/top.cuh"
#include "tollgate/ptx/shared.cuh"
#include "tollgate/status.cuh"

namespace tollgate::gate {

// From so many ranks on candidates are fewer instructions than rounds; beyond the other they are so
// many that they would not fit.
inline constexpr uint32_t FEWEST_BY_CANDIDATES = 3;
inline constexpr uint32_t MOST_BY_CANDIDATES = 16;

// The weights of all slots, from the logits that wait in their place. Slot by slot, since that
// keeps all lanes busy; called by all threads, after a barrier.
template <uint32_t THREADS>
__device__ __forceinline__ void weigh_slots(const GateParams& p, const BlockResults& r,
                                            uint32_t tokens) {
    const uint32_t slots = tokens * p.k;
    const bool shared = p.weights != weights::PROB;
    for (uint32_t i = threadIdx.x; i < slots; i += THREADS) {
        const uint32_t t = i / p.k;
        const bool is_first = i == t * p.k;
        const float total = r.total[t];
        const float power = exp_of_nonpositive(__fsub_rn(r.slot_weights[i], r.largest[t]));
        float weight = __fmul_rn(power, __fdiv_rn(1.0f, total));
        weight = total == FULLY_MASKED ? 0.0f : weight;
        if (is_nan(total)) {
            // A faulty row: exactly expert 0, with a weight that shows the fault.
            r.slot_experts[i] = is_first ? 0 : -1;
            weight = is_first ? total : 0.0f;
        }
        r.slot_weights[i] = shared ? weight : __fmul_rn(weight, p.weight_scale);
        if (is_first) {
            r.first_choice[t] = r.slot_experts[i];
        }
    }
    __syncthreads();
    if (!shared) {
        return;
    }
    float* sums = reinterpret_cast<float*>(r.runner_up);
    for (uint32_t i = threadIdx.x; i < slots; i += THREADS) {
        const uint32_t t = i / p.k;
        float sum = 0.0f;
#pragma unroll 1
        for (uint32_t q = t * p.k; q < t * p.k + p.k; ++q) {
            sum = __fadd_rn(sum, r.slot_weights[q]);
        }
        if (i == t * p.k) {
            sums[t] = sum;
        }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < slots; i += THREADS) {
        const float weight = share(r.slot_weights[i], sums[i / p.k]);
        r.slot_weights[i] = __fmul_rn(weight, p.weight_scale);
    }
    __syncthreads();
}

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
    float shares[V];
#pragma unroll
    for (uint32_t j = 0; j < V; ++j) {
        shares[j] = 0.0f;
    }
    float ahead[V];
    uint32_t t = warp_id() * L::GROUPS + L::group();
    // Where this lane's first place of row t is.
    const float* at = p.logits + static_cast<uint64_t>(first + t) * p.logits_stride + L::expert(0);
    const uint64_t step = ROWS * p.logits_stride;
    if constexpr (AHEAD) {
        L::load(ahead, at, t < tokens, p.num_experts, vector);
    }
    // The same number of turns for all groups of a warp.
    for (uint32_t base = warp_id() * L::GROUPS; base < tokens;
         base += ROWS, t += ROWS, at += step) {
        // A warp that is here has a row for each of its groups but in the last turn.
        const bool is_row = L::GROUPS == 1 || t < tokens;
        float z[V];
        if constexpr (AHEAD) {
#pragma unroll
            for (uint32_t j = 0; j < V; ++j) {
                z[j] = ahead[j];
            }
            if (base + ROWS < tokens) {
                L::load(ahead, at + step, t + ROWS < tokens, p.num_experts, vector);
            }
        } else {
            L::load(z, at, is_row, p.num_experts, vector);
        }

        // ---- selection: logits wait where weights will be ----
        int32_t* slot_experts = results.slot_experts + t * p.k;
        float* slot_weights = results.slot_weights + t * p.k;
        const auto take = [&](uint32_t r, const Choice& best) {
            slot_experts[r] = static_cast<int32_t>(best.expert);
            slot_weights[r] = key_value(best.key);
        };
        const auto take_once = [&](uint32_t r, const Choice& best) {
            if (is_row && L::lane() == 0) {
                take(r, best);
            }
        };
        if (p.k == 1) {
            take_once(0, best_one<LANES, V>(z, p.num_experts));
        } else {
            uint32_t keys[V];
            keys_of<LANES, V>(keys, z, p.num_experts);
            bool done = false;
            if constexpr (LANES == WARP) {
                if (p.k >= FEWEST_BY_CANDIDATES && p.k <= MOST_BY_CANDIDATES) {
                    done = top_by_candidates<V>(keys, p.k, candidates[warp_id()], take);
                }
            }
            if (!done) {
                top_by_rounds<LANES, V>(keys, p.k, take_once);
            }
        }
        __syncwarp();
        const float largest = is_row ? slot_weights[0] : -infinity_f32();

        // ---- scores ----
        float total = L::exponentials(z, largest);
        float factor = __fdiv_rn(1.0f, total);
        const bool marked = p.row_faults != nullptr && is_row && p.row_faults[first + t] != 0;
        if (ptx::ballot(ptx::ALL_LANES, marked || !(total >= 1.0f)) != 0) {
            // Rare: logits again, e^(z - largest) has lost what was wrong with them.
            float again[V];
            L::load(again, at, is_row, p.num_experts, vector);
            bool bad = marked;
#pragma unroll
            for (uint32_t j = 0; j < V; ++j) {
                bad = bad || is_nan(again[j]) || again[j] == infinity_f32();
            }
            const bool faulty = L::any(bad);
            if (faulty) {
                total = nan_f32();
                factor = nan_f32();
                if (is_row && L::lane() == 0) {
                    raise_faulty_row(p.status, first + t);
                }
            } else if (!(total >= 1.0f)) {
                total = FULLY_MASKED;
                factor = 0.0f;
#pragma unroll
                for (uint32_t j = 0; j < V; ++j) {
                    z[j] = 0.0f;
                }
            }
        }
        if (is_row && L::lane() == 0) {
            results.largest[t] = largest;
            results.total[t] = total;
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
                ptx::st_shared_v4(columns + warp_id() * L::PLACES + L::expert(j), shares[j],
                                  shares[j + 1], shares[j + 2], shares[j + 3]);
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
    weigh_slots<THREADS>(p, results, tokens);
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
