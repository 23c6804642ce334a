// One row of the gate in shared memory: its scores, and who is ranked how.
#pragma once

#include <cstdint>

#include "tollgate/abi/gating.h"
#include "tollgate/gating/team.cuh"

namespace tollgate::gate {

// Shared memory of a team, E places each.
struct RowMemory {
    float* z;        // logits
    float* p;        // scores
    uint32_t* keys;  // what experts are ranked by; NO_KEY: not to be chosen
    double* merits;  // [groups]
    uint32_t* kept;  // [groups] whether experts of the group may be chosen
};

// What a row is, beside its scores.
struct RowSums {
    float largest;
    float total;   // of e^(z - largest); NaN in a faulty row, FULLY_MASKED
    float factor;  // by what scores become shares that add up to 1
    bool faulty;
};

// Scores of the row whose logits are in memory.z.
template <uint32_t WARPS>
__device__ __forceinline__ RowSums score_row(const Team<WARPS>& team, const RowMemory& memory,
                                             float largest, bool faulty, uint32_t experts,
                                             bool sigmoid) {
    RowSums row = {largest, 0.0f, 1.0f, faulty};
    row.total = exponentials(team, memory.p, memory.z, largest, experts);
    if (faulty) {
        row.total = nan_f32();
        row.factor = nan_f32();
        team.each(experts, [&](uint32_t e) { memory.p[e] = nan_f32(); });
        return row;
    }
    if (!(row.total >= 1.0f)) {
        row.total = FULLY_MASKED;
        row.factor = 0.0f;
        team.each(experts, [&](uint32_t e) { memory.p[e] = 0.0f; });
        return row;
    }
    if (sigmoid) {
        float sum = 0.0f;
        team.each(experts, [&](uint32_t e) {
            memory.p[e] = sigmoid_score(memory.z[e]);
            sum = __fadd_rn(sum, memory.p[e]);
        });
        sum = team.sum(sum);
        row.factor = sum > 0.0f ? __fdiv_rn(1.0f, sum) : 0.0f;
    } else {
        const float reciprocal = __fdiv_rn(1.0f, row.total);
        team.each(experts,
                  [&](uint32_t e) { memory.p[e] = __fmul_rn(memory.p[e], reciprocal); });
    }
    return row;
}

// What an expert is ranked by: its logit, or with a bias score plus bias.
__device__ __forceinline__ float rank_value(const RowMemory& memory, const float* bias,
                                            uint32_t expert) {
    const float z = memory.z[expert];
    return bias == nullptr || z == -infinity_f32() ? z : __fadd_rn(memory.p[expert], bias[expert]);
}

// The best place of this thread that stands behind `after`; NO_KEY where there is none.
template <uint32_t WARPS>
__device__ __forceinline__ Place next_place(const Team<WARPS>& team, const uint32_t* keys,
                                            uint32_t experts, const Place& after) {
    Place best = {NO_KEY, ~0u};
    team.each(experts, [&](uint32_t e) {
        const Place here = {keys[e], e};
        if (here.key != NO_KEY && after.before(here) && here.before(best)) {
            best = here;
        }
    });
    return best;
}

// Calls `take(r, place)` in all threads for the best k, best first. Keys are left as they are.
template <uint32_t WARPS, typename Take>
__device__ __forceinline__ void take_best(const Team<WARPS>& team, const uint32_t* keys,
                                          uint32_t experts, uint32_t k, Take take) {
    const Place before_all = {~0u, 0};
    Place mine = next_place(team, keys, experts, before_all);
    for (uint32_t r = 0; r < k; ++r) {
        const Place best = team.best(mine);
        take(r, best);
        if (mine.expert == best.expert) {
            mine = next_place(team, keys, experts, best);
        }
        if constexpr (WARPS == 1) {
            __syncwarp();
        }
    }
}

// The sum, best first, of the `places` best scores plus bias of a group, a masked expert counting
// -infinity. In f64, where no finite biases overflow.
__device__ __forceinline__ double group_merit(const RowMemory& memory, const float* bias,
                                              uint32_t start, uint32_t size, uint32_t places) {
    double merit = 0.0;
    float below = infinity_f32();
    while (places > 0) {
        // The next smaller value, and how many have it. Threads start at different places, so that
        // neighbours do not ask the same bank.
        float value = -infinity_f32();
        uint32_t count = 0;
        uint32_t i = threadIdx.x % size;
        for (uint32_t step = 0; step < size; ++step) {
            const uint32_t e = start + i;
            const float z = memory.z[e];
            const float biased = z == -infinity_f32() ? z
                                 : bias == nullptr    ? memory.p[e]
                                                      : __fadd_rn(memory.p[e], bias[e]);
            if (biased < below) {
                count = biased > value ? 1 : count + (biased == value ? 1 : 0);
                value = biased > value ? biased : value;
            }
            i = i + 1 == size ? 0 : i + 1;
        }
        if (value == -infinity_f32()) {
            return value;
        }
        for (; count > 0 && places > 0; --count, --places) {
            merit = __dadd_rn(merit, static_cast<double>(value));
        }
        below = value;
    }
    return merit;
}

// Marks the groups that may be chosen from: those of the largest merit, ties to the lower group.
template <uint32_t WARPS>
__device__ __forceinline__ void keep_groups(const Team<WARPS>& team, const RowMemory& memory,
                                            const GateParams& p) {
    const uint32_t size = p.num_experts / p.groups;
    for (uint32_t g = team.rank(); g < p.groups; g += Team<WARPS>::SIZE) {
        memory.merits[g] = group_merit(memory, p.bias, g * size, size, p.group_places);
    }
    team.sync();
    for (uint32_t g = team.rank(); g < p.groups; g += Team<WARPS>::SIZE) {
        const double merit = memory.merits[g];
        uint32_t before = 0;
        for (uint32_t other = 0; other < p.groups; ++other) {
            const double theirs = memory.merits[other];
            before += theirs > merit || (theirs == merit && other < g) ? 1 : 0;
        }
        memory.kept[g] = before < p.top_groups ? 1 : 0;
    }
    team.sync();
}

}  // namespace tollgate::gate
