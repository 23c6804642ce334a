// What one token takes: from a scored row to its experts and weights.
#pragma once

#include <cstdint>

#include "tollgate/abi/gating.h"
#include "tollgate/gating/options.cuh"
#include "tollgate/gating/row.cuh"
#include "tollgate/philox.cuh"

namespace tollgate::gate {

// The best and the second best of a row, the second only where it is not masked.
struct BestTwo {
    uint32_t first;
    uint32_t second;
    bool has_second;
    float first_z;
    float second_z;
    float first_p;
    float second_p;  // 0 without a second
};

// What the gate decided for a token.
struct Decision {
    uint32_t first;
    int32_t second;  // -1 without one
    uint32_t taken;  // slots that are used, from the front
};

// The second expert's share of both, p_j / (p_i + p_j), of a difference z_i - z_j that is not
// negative.
__device__ __forceinline__ double share_of_second(double difference) {
    const float rounded = static_cast<float>(-difference);
    const double rest = -difference - static_cast<double>(rounded);
    const double ratio = static_cast<double>(exp_of_nonpositive(rounded)) * (1.0 + rest);
    return ratio / (1.0 + ratio);
}

// Whether a token takes its second expert too, by a rule that may leave it out.
__device__ __forceinline__ bool takes_second(const GateParams& p, const BestTwo& best,
                                             uint32_t token) {
    if (!best.has_second) {
        return false;
    }
    const double difference =
        static_cast<double>(best.first_z) - static_cast<double>(best.second_z);
    const auto draw = [&](DrawStream stream) {
        return step_words(*p.step, p.step->first_token + token, stream, 0).x;
    };
    switch (p.rule) {
        case rule::GAP_SOFTMAX:
            return __fsub_rn(best.first_p, best.second_p) <= static_cast<float>(p.rule_limit);
        case rule::GAP_LOGITS:
            return difference <= p.rule_limit;
        case rule::FORCED:
            return draw(DrawStream::ForcedShare) >= p.forced_below;
        case rule::THRESHOLD:
            return share_of_second(difference) > p.rule_limit;
        case rule::RANDOM:
            return happens(draw(DrawStream::SecondExpert),
                           share_of_second(difference) / p.rule_limit);
        default:
            return true;
    }
}

// The gate's own decision about a row that is not faulty, in `experts` and `weights` [slots]. All
// threads of the team call it and may read what it wrote.
template <uint32_t WARPS>
__device__ __forceinline__ Decision decide(const Team<WARPS>& team, const GateParams& p,
                                           const RowMemory& memory, uint32_t token,
                                           int32_t* experts, float* weights) {
    // ---- rank ----
    team.sync();
    const uint32_t group_size = p.groups == 0 ? 0 : p.num_experts / p.groups;
    if (p.groups != 0) {
        keep_groups(team, memory, p);
    }
    team.each(p.num_experts, [&](uint32_t e) {
        const bool open = p.groups == 0 || memory.kept[e / group_size] != 0;
        memory.keys[e] = open ? order_key(rank_value(memory, p.bias, e)) : NO_KEY;
    });
    BestTwo best = {0, 0, false, 0.0f, 0.0f, 0.0f, 0.0f};
    take_best(team, memory.keys, p.num_experts, p.k, [&](uint32_t r, const Place& place) {
        if (r == 0) {
            best.first = place.expert;
        } else if (r == 1) {
            best.second = place.expert;
            best.has_second = memory.z[place.expert] != -infinity_f32();
        }
        if (team.rank() == 0 && r < p.slots) {
            experts[r] = static_cast<int32_t>(place.expert);
            weights[r] = memory.p[place.expert];
        }
    });
    best.first_z = memory.z[best.first];
    best.first_p = memory.p[best.first];
    best.second_z = best.has_second ? memory.z[best.second] : -infinity_f32();
    best.second_p = best.has_second ? memory.p[best.second] : 0.0f;
    Decision made = {best.first, best.has_second ? static_cast<int32_t>(best.second) : -1, 0};
    if (p.rule == rule::COLUMNS) {
        return made;
    }

    // ---- take ----
    made.taken = p.slots;
    if (p.rule != rule::FIXED) {
        made.taken = takes_second(p, best, token) ? 2 : 1;
    }
    team.sync();

    // ---- weigh ----
    float of = 1.0f;
    if (p.weights == weights::TOP2) {
        of = __fadd_rn(best.first_p, best.second_p);
    } else if (p.weights == weights::SELECTED) {
        float sum = 0.0f;
        for (uint32_t r = team.rank(); r < made.taken; r += Team<WARPS>::SIZE) {
            sum = __fadd_rn(sum, weights[r]);
        }
        of = team.sum(sum);
    }
    for (uint32_t r = team.rank(); r < p.slots; r += Team<WARPS>::SIZE) {
        const bool taken = r < made.taken;
        if (taken) {
            // Dividing by 1 would change nothing.
            const float weight = p.weights == weights::PROB ? weights[r] : share(weights[r], of);
            weights[r] = __fmul_rn(weight, p.weight_scale);
        } else {
            experts[r] = -1;
            weights[r] = 0.0f;
        }
    }
    return made;
}

// An expert and its weight.
struct Assignment {
    int32_t expert;
    float weight;
};

// What runs on a Gate-Drop step instead (Liu et al., ICML 2022), for a row that is not faulty.
template <uint32_t WARPS>
__device__ __forceinline__ Assignment stay_local(const Team<WARPS>& team, const GateParams& p,
                                                 const RowMemory& memory, uint32_t first_choice,
                                                 uint32_t token) {
    const uint32_t start = p.local_start;
    const uint32_t end = start + p.local_count;
    const auto each_local = [&](auto work) {
        team.each(end, [&](uint32_t e) {
            if (e >= start) {
                work(e);
            }
        });
    };
    uint32_t expert;
    if (p.local_choice == local_choice::MODULO) {
        expert = start + first_choice % p.local_count;
    } else if (p.local_choice == local_choice::UNIFORM) {
        const uint32_t word =
            step_words(*p.step, p.step->first_token + token, DrawStream::LocalChoice, 0).x;
        expert = start + below(word, p.local_count);
    } else {
        Place mine = {NO_KEY, ~0u};
        each_local([&](uint32_t e) {
            const Place here = {order_key(rank_value(memory, p.bias, e)), e};
            mine = here.before(mine) ? here : mine;
        });
        expert = team.best(mine).expert;
    }

    float weight = 1.0f;
    if (p.local_weight == local_weight::SCORE) {
        weight = memory.p[expert];
    } else if (p.local_weight == local_weight::ORIGINAL) {
        weight = memory.p[first_choice];
    } else if (p.local_weight == local_weight::SHARE) {
        float part = memory.p[expert];
        float total = 0.0f;
        if (p.sigmoid) {
            each_local([&](uint32_t e) { total = __fadd_rn(total, memory.p[e]); });
        } else {
            float largest = -infinity_f32();
            each_local([&](uint32_t e) { largest = fmaxf(largest, memory.z[e]); });
            largest = team.max(largest);
            const auto exponential = [&](uint32_t e) {
                return exp_of_nonpositive(__fsub_rn(memory.z[e], largest));
            };
            each_local([&](uint32_t e) { total = __fadd_rn(total, exponential(e)); });
            part = exponential(expert);
        }
        total = team.sum(total);
        // NaN where all are masked.
        weight = total > 0.0f ? share(part, total) : 0.0f;
    }
    return {static_cast<int32_t>(expert), __fmul_rn(weight, p.weight_scale)};
}

}  // namespace tollgate::gate
