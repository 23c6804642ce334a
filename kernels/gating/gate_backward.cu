// The gate's backward pass: from the gradient of the combine weights and from both losses to the
// logits.
//
//   logits [T, E], decisions of the forward pass, dweights [A] -> dlogits [T, E]
//
// With softmax scores all three are multiples of p: dz_j = p_j (f_j - avg + s), where s gathers
// what a row has in common, and the chosen experts add their own part. Scores are computed anew
// from the logits: they are read once, the gradient is written once. tg_gate_backward_warp gives
// every row to a warp, tg_gate_backward_block to a block, for long rows.

#include <cstdint>

#include "tollgate/abi/gating.h"
#include "tollgate/gating/options.cuh"
#include "tollgate/gating/row.cuh"
#include "tollgate/gating/team.cuh"

namespace tollgate::gate {

// Warps of a block of tg_gate_backward_warp, each with a row of its own.
inline constexpr uint32_t ROWS = 4;
// Tokens of such a block.
inline constexpr uint32_t TOKENS_PER_BLOCK = 16;
// Warps of a block of tg_gate_backward_block, all with one row.
inline constexpr uint32_t TEAM_WARPS = 8;

__device__ __forceinline__ uint32_t padded(uint32_t words) { return (words + 3) / 4 * 4; }

// Shared memory of a team, E places each.
struct Memory {
    float* z;   // logits
    float* p;   // scores
    float* dz;  // gradient of the logits
};

__device__ __forceinline__ Memory lay_memory(uint32_t experts, float*& at) {
    const Memory memory = {at, at + padded(experts), at + 2 * padded(experts)};
    at += 3 * padded(experts);
    return memory;
}

// How a token's weights came from its scores.
enum class Origin {
    Scores,      // each is the score of an expert
    Shares,      // shares of the sum over the chosen
    Top2,        // shares of the best and the runner-up
    LocalShare,  // share of the sum over the local experts
    Constant,    // nothing that depends on the logits
};

__device__ __forceinline__ Origin origin_of(const GateBackwardParams& p, bool dropped) {
    if (!dropped) {
        return p.weights == weights::PROB       ? Origin::Scores
               : p.weights == weights::SELECTED ? Origin::Shares
                                                : Origin::Top2;
    }
    if (p.drop_experts || p.local_weight == local_weight::ONE) {
        return Origin::Constant;
    }
    return p.local_weight == local_weight::SHARE ? Origin::LocalShare : Origin::Scores;
}

// The assignments of a token and their gradients.
struct Chosen {
    const GateBackwardParams& p;
    uint32_t first;
    uint32_t count;
    // Whose score the weight is, where that is not the expert itself; -1.
    int32_t source;

    __device__ __forceinline__ uint32_t expert(uint32_t r) const {
        const int32_t e = source >= 0 ? source : p.expert_indices[first + r];
        // An index out of range is no expert of the gate's: 0 keeps it harmless.
        return static_cast<uint32_t>(e) < p.num_experts ? e : 0;
    }

    // The gradient of the weight, with its scale.
    __device__ __forceinline__ float gradient(uint32_t r) const {
        int64_t at = first + r;
        if (p.positions != nullptr) {
            at = p.positions[at];
        }
        const bool ran = at >= 0 && at < p.max_assignments;
        return ran ? __fmul_rn(p.weight_scale, p.dweights[at]) : 0.0f;
    }
};

__device__ __forceinline__ Chosen chosen_of(const GateBackwardParams& p, uint32_t token,
                                            bool dropped) {
    const auto bounded = [&p](int32_t offset) {
        return min(static_cast<uint32_t>(max(offset, 0)), p.max_assignments);
    };
    const uint32_t first = bounded(p.token_offsets[token]);
    const uint32_t end = bounded(p.token_offsets[token + 1]);
    const bool original = dropped && p.local_weight == local_weight::ORIGINAL;
    return {p, first, end > first ? end - first : 0, original ? p.first_choice[token] : -1};
}

// By what the slope of a share of scores exceeds that of a share of exponentials.
__device__ __forceinline__ float slope_of_share(const GateBackwardParams& p, float score) {
    return p.sigmoid ? __fsub_rn(1.0f, score) : 1.0f;
}

// dz of both losses, and of `mean`, the sum of the weights' gradients times the scores that they
// are. `load(e)` is beta * f_e.
template <uint32_t WARPS, typename Load>
__device__ __forceinline__ void losses(const Team<WARPS>& team, const GateBackwardParams& p,
                                       const Memory& m, float of_z, float mean, float total,
                                       float largest, bool balance, Load load) {
    const uint32_t experts = p.num_experts;
    if (p.sigmoid) {
        // The z-loss goes through a softmax that is not the scores.
        const float factor = of_z == 0.0f ? 0.0f : __fdiv_rn(of_z, total);
        float sum = 0.0f;
        float dot = 0.0f;
        team.each(experts, [&](uint32_t e) {
            const float power = exp_of_nonpositive(__fsub_rn(m.z[e], largest));
            m.dz[e] = factor == 0.0f ? 0.0f : __fmul_rn(power, factor);
            sum = __fadd_rn(sum, m.p[e]);
        });
        sum = team.sum(sum);
        if (!balance || !(sum > 0.0f)) {
            return;
        }
        const float reciprocal = __fdiv_rn(1.0f, sum);
        team.each(experts, [&](uint32_t e) {
            // In this order: a product of two small scores would be no normal number.
            dot = __fmaf_rn(load(e), __fmul_rn(m.p[e], reciprocal), dot);
        });
        const float average = team.sum(dot);
        team.each(experts, [&](uint32_t e) {
            const float share = __fmul_rn(m.p[e], reciprocal);
            const float slope = __fmul_rn(__fsub_rn(load(e), average), __fsub_rn(1.0f, m.p[e]));
            m.dz[e] = __fmaf_rn(share, slope, m.dz[e]);
        });
        return;
    }
    float average = 0.0f;
    if (balance) {
        team.each(experts,
                  [&](uint32_t e) { average = __fmaf_rn(load(e), m.p[e], average); });
        average = team.sum(average);
    }
    const float common = __fsub_rn(of_z, mean);
    team.each(experts, [&](uint32_t e) {
        const float above = balance ? __fsub_rn(load(e), average) : 0.0f;
        m.dz[e] = __fmul_rn(m.p[e], __fadd_rn(above, common));
    });
}

// dz of the chosen experts' own part. All of m is visible to the team.
template <uint32_t WARPS>
__device__ __forceinline__ void own_parts(const Team<WARPS>& team, const GateBackwardParams& p,
                                          const Memory& m, const Chosen& chosen, Origin origin,
                                          uint32_t token) {
    constexpr uint32_t SIZE = Team<WARPS>::SIZE;
    switch (origin) {
        case Origin::Scores:
            // Experts of a token are distinct; a source stands for one assignment.
            for (uint32_t r = team.rank(); r < chosen.count; r += SIZE) {
                const uint32_t e = chosen.expert(r);
                const float score = m.p[e];
                const float slope = p.sigmoid ? __fmul_rn(score, __fsub_rn(1.0f, score)) : score;
                m.dz[e] = __fmaf_rn(slope, chosen.gradient(r), m.dz[e]);
            }
            break;
        case Origin::Shares: {
            float total = 0.0f;
            for (uint32_t r = team.rank(); r < chosen.count; r += SIZE) {
                total = __fadd_rn(total, m.p[chosen.expert(r)]);
            }
            total = team.sum(total);
            float mean = 0.0f;
            for (uint32_t r = team.rank(); r < chosen.count; r += SIZE) {
                const float weight = share(m.p[chosen.expert(r)], total);
                mean = __fmaf_rn(weight, chosen.gradient(r), mean);
            }
            mean = team.sum(mean);
            for (uint32_t r = team.rank(); r < chosen.count; r += SIZE) {
                const uint32_t e = chosen.expert(r);
                const float score = m.p[e];
                const float weight = share(score, total);
                const float step = __fmul_rn(weight, __fsub_rn(chosen.gradient(r), mean));
                m.dz[e] = __fmaf_rn(step, slope_of_share(p, score), m.dz[e]);
            }
            break;
        }
        case Origin::Top2: {
            const int32_t second = p.runner_up[token];
            if (team.rank() != 0 || second < 0 || second >= static_cast<int32_t>(p.num_experts)) {
                break;
            }
            const uint32_t first = p.first_choice[token];
            // An expert that was not taken has no gradient.
            float of_first = 0.0f;
            float of_second = 0.0f;
            for (uint32_t r = 0; r < chosen.count; ++r) {
                const uint32_t e = chosen.expert(r);
                of_first = e == first ? chosen.gradient(r) : of_first;
                of_second = e == static_cast<uint32_t>(second) ? chosen.gradient(r) : of_second;
            }
            const float total = __fadd_rn(m.p[first], m.p[second]);
            const float product = __fmul_rn(share(m.p[first], total), share(m.p[second], total));
            const float step = __fmul_rn(product, __fsub_rn(of_first, of_second));
            m.dz[first] = __fadd_rn(m.dz[first], step);
            m.dz[second] = __fsub_rn(m.dz[second], step);
            break;
        }
        case Origin::LocalShare: {
            if (chosen.count == 0) {
                break;
            }
            const uint32_t start = p.local_start;
            const uint32_t end = min(start + p.local_count, p.num_experts);
            const auto each_local = [&](auto work) {
                team.each(end, [&](uint32_t e) {
                    if (e >= start) {
                        work(e);
                    }
                });
            };
            float largest = -infinity_f32();
            each_local([&](uint32_t e) { largest = fmaxf(largest, m.z[e]); });
            largest = team.max(largest);
            const auto part = [&](uint32_t e) {
                return p.sigmoid ? m.p[e] : exp_of_nonpositive(__fsub_rn(m.z[e], largest));
            };
            float total = 0.0f;
            each_local([&](uint32_t e) { total = __fadd_rn(total, part(e)); });
            total = team.sum(total);
            if (!(total > 0.0f)) {
                break;
            }
            const uint32_t expert = chosen.expert(0);
            const float gradient = chosen.gradient(0);
            const bool inside = expert >= start && expert < end;
            const float mean = inside ? __fmul_rn(share(part(expert), total), gradient) : 0.0f;
            each_local([&](uint32_t e) {
                const float own = e == expert ? gradient : 0.0f;
                const float step = __fmul_rn(share(part(e), total), __fsub_rn(own, mean));
                m.dz[e] = __fmaf_rn(step, slope_of_share(p, m.p[e]), m.dz[e]);
            });
            break;
        }
        case Origin::Constant:
            break;
    }
}

template <uint32_t WARPS, typename Load>
__device__ __forceinline__ void row_backward(const Team<WARPS>& team, const GateBackwardParams& p,
                                             const Memory& m, uint32_t token, bool dropped,
                                             Load load) {
    const uint32_t experts = p.num_experts;
    const float lse = p.lse[token];
    const float* row = p.logits + token * p.logits_stride;
    const Loaded seen = load_row(team, m.z, row, experts, p.vector_logits != 0);
    if (is_nan(lse)) {
        team.each(experts, [&](uint32_t e) { m.dz[e] = nan_f32(); });
    } else {
        // ---- scores ----
        const float largest = team.max(seen.largest);
        const bool masked = lse == -infinity_f32();
        float total = exponentials(team, m.p, m.z, largest, experts);
        const float reciprocal = masked ? 0.0f : __fdiv_rn(1.0f, total);
        team.each(experts, [&](uint32_t e) {
            const float score =
                p.sigmoid ? sigmoid_score(m.z[e]) : __fmul_rn(m.p[e], reciprocal);
            m.p[e] = masked ? 0.0f : score;
        });
        team.sync();

        // ---- what all places share ----
        const Origin origin = origin_of(p, dropped);
        const Chosen chosen = chosen_of(p, token, dropped);
        const bool silent = dropped && p.drop_losses;
        float mean = 0.0f;
        if (origin == Origin::Scores && !p.sigmoid) {
            for (uint32_t r = team.rank(); r < chosen.count; r += Team<WARPS>::SIZE) {
                mean = __fmaf_rn(m.p[chosen.expert(r)], chosen.gradient(r), mean);
            }
            mean = team.sum(mean);
        }
        // A fully masked row has no part in the z-loss.
        const float of_z = masked || silent ? 0.0f : __fmul_rn(p.z_factor, lse);
        const bool balance = p.load != nullptr && !silent;
        losses(team, p, m, of_z, mean, total, largest, balance, load);
        team.sync();
        own_parts(team, p, m, chosen, origin, token);
        team.sync();
    }
    float* out = p.dlogits + token * p.dlogits_stride;
    store_row(team, out, m.dz, experts, p.vector_dlogits != 0);
    // Before the next row overwrites this one.
    team.sync();
}

__device__ __forceinline__ bool was_dropped(const GateBackwardParams& p) {
    return p.dropped != nullptr && *p.dropped != 0;
}

extern "C" __global__ void __launch_bounds__(128)
    tg_gate_backward_warp(const __grid_constant__ GateBackwardParams p) {
    extern __shared__ __align__(16) float dynamic[];
    __shared__ TeamScratch scratch;
    // beta * f_e, [E].
    float* load = dynamic;
    float* at = dynamic + padded(p.num_experts);
    Memory memory;
    for (uint32_t row = 0; row <= warp_id(); ++row) {
        memory = lay_memory(p.num_experts, at);
    }
    if (p.load != nullptr) {
        for (uint32_t e = threadIdx.x; e < p.num_experts; e += ROWS * WARP) {
            load[e] = static_cast<float>(p.balance_factor * p.load[e]);
        }
    }
    __syncthreads();
    const Team<1> team = {scratch};
    const bool dropped = was_dropped(p);
    const uint32_t first = blockIdx.x * TOKENS_PER_BLOCK;
    for (uint32_t t = warp_id(); t < TOKENS_PER_BLOCK && first + t < p.num_tokens; t += ROWS) {
        row_backward(team, p, memory, first + t, dropped, [load](uint32_t e) { return load[e]; });
    }
}

extern "C" __global__ void __launch_bounds__(256, 2)
    tg_gate_backward_block(const __grid_constant__ GateBackwardParams p) {
    extern __shared__ __align__(16) float dynamic[];
    __shared__ TeamScratch scratch;
    float* at = dynamic;
    const Memory memory = lay_memory(p.num_experts, at);
    const Team<TEAM_WARPS> team = {scratch};
    row_backward(team, p, memory, blockIdx.x, was_dropped(p), [&p](uint32_t e) {
        return static_cast<float>(p.balance_factor * p.load[e]);
    });
}

// positions[kept[a]] = a for every assignment of the table; what was dropped was filled with -1.
extern "C" __global__ void __launch_bounds__(256)
    tg_gate_positions(const __grid_constant__ GatePositionsParams p) {
    const uint32_t assignments = p.token_offsets[p.num_tokens];
    const uint32_t a = blockIdx.x * 256 + threadIdx.x;
    if (a < assignments && a < p.max_assignments) {
        const uint32_t position = p.kept[a];
        if (position < p.max_assignments) {
            p.positions[position] = static_cast<int32_t>(a);
        }
    }
}

}  // namespace tollgate::gate
