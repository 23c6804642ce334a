// The k best experts of a row in registers, best first; ties go to the lower expert.
//
// Logits are compared as keys (order_key), whose order is total but for ties; a place that no one
// may choose has NO_KEY. All of it is exact. Everything is found for all groups of a warp at once,
// without a branch that only some groups take.
#pragma once

#include <cstdint>

#include "tollgate/gating/lanes.cuh"

namespace tollgate::gate {

struct Choice {
    uint32_t key;
    uint32_t expert;
};

// The keys of a row; places beyond E get NO_KEY.
template <uint32_t LANES, uint32_t V>
__device__ __forceinline__ void keys_of(uint32_t (&keys)[V], const float (&z)[V],
                                        uint32_t experts) {
#pragma unroll
    for (uint32_t j = 0; j < V; ++j) {
        keys[j] = order_key(z[j]);
    }
    if (experts < Lanes<LANES, V>::PLACES) {
#pragma unroll
        for (uint32_t j = 0; j < V; ++j) {
            keys[j] = Lanes<LANES, V>::expert(j) < experts ? keys[j] : NO_KEY;
        }
    }
}

// The best of a row alone, which needs no keys but of the largest. Expert 0 where a NaN hides it.
template <uint32_t LANES, uint32_t V>
__device__ __forceinline__ Choice best_one(const float (&z)[V], uint32_t experts) {
    using L = Lanes<LANES, V>;
    float largest = z[0];
#pragma unroll
    for (uint32_t j = 1; j < V; ++j) {
        largest = fmaxf(largest, z[j]);
    }
    const uint32_t key = L::max(order_key(largest));
    largest = key_value(key);
    // Places beyond E are as good as a masked row's, but behind them.
    uint32_t expert = ~0u;
#pragma unroll
    for (uint32_t j = V; j-- > 0;) {
        expert = z[j] == largest ? L::expert(j) : expert;
    }
    expert = L::min(expert);
    return {key, expert < experts ? expert : 0};
}

// The best of this lane's places.
template <uint32_t LANES, uint32_t V>
__device__ __forceinline__ Choice best_place(const uint32_t (&keys)[V]) {
    uint32_t key = keys[0];
#pragma unroll
    for (uint32_t j = 1; j < V; ++j) {
        key = keys[j] > key ? keys[j] : key;
    }
    uint32_t place = V - 1;
#pragma unroll
    for (uint32_t j = V - 1; j-- > 0;) {
        place = keys[j] == key ? j : place;
    }
    return {key, Lanes<LANES, V>::expert(place)};
}

// The best of the group.
template <uint32_t LANES, uint32_t V>
__device__ __forceinline__ Choice best_of_lanes(const Choice& mine) {
    const uint32_t key = Lanes<LANES, V>::max(mine.key);
    const uint32_t expert = Lanes<LANES, V>::min(mine.key == key ? mine.expert : ~0u);
    return {key, expert};
}

// Round by round: the best of all is taken, and its lane looks for its next. `take(r, choice)` gets
// them in order. Costs k times a look at a lane's places, which pays for small k.
template <uint32_t LANES, uint32_t V, typename Take>
__device__ __forceinline__ void top_by_rounds(uint32_t (&keys)[V], uint32_t k, Take take) {
    using L = Lanes<LANES, V>;
    Choice mine = best_place<LANES, V>(keys);
#pragma unroll 1
    for (uint32_t r = 0; r < k; ++r) {
        const Choice best = best_of_lanes<LANES, V>(mine);
        take(r, best);
        if (mine.expert == best.expert && r + 1 < k) {
#pragma unroll
            for (uint32_t j = 0; j < V; ++j) {
                keys[j] = L::expert(j) == best.expert ? NO_KEY : keys[j];
            }
            mine = best_place<LANES, V>(keys);
        }
        __syncwarp();
    }
}

// Candidates first, for a whole warp a row: the k-th best of the lanes' best is a lower bound of
// what is chosen, and few places reach it. Those stand side by side in `candidates` (2 * 32 words
// of shared memory of this warp), where each lane counts by how many its own is beaten. Returns
// false, having done nothing, where they are more than 32: then ties are many. The caller has
// `take` called for the chosen by their lanes, with their rank, in no order.
template <uint32_t V, typename Take>
__device__ __forceinline__ bool top_by_candidates(const uint32_t (&keys)[V], uint32_t k,
                                                  uint32_t* candidates, Take take) {
    using L = Lanes<WARP, V>;
    uint32_t mine = keys[0];
#pragma unroll
    for (uint32_t j = 1; j < V; ++j) {
        mine = keys[j] > mine ? keys[j] : mine;
    }
    uint32_t bound = mine;
#pragma unroll 4
    for (uint32_t r = 0; r < k; ++r) {
        bound = L::max(mine);
        mine = mine == bound ? NO_KEY : mine;
    }
    bound = bound == NO_KEY ? NO_KEY + 1 : bound;
    uint32_t count = 0;
#pragma unroll
    for (uint32_t j = 0; j < V; ++j) {
        count += keys[j] >= bound ? 1 : 0;
    }
    const uint32_t up_to = warp_inclusive_sum(count);
    const uint32_t all = ptx::shfl_idx_u32(ptx::ALL_LANES, up_to, WARP - 1);
    if (all > WARP) {
        return false;
    }
    uint32_t at = up_to - count;
    candidates[lane_id()] = NO_KEY;
    __syncwarp();
#pragma unroll
    for (uint32_t j = 0; j < V; ++j) {
        if (keys[j] >= bound) {
            candidates[at] = keys[j];
            candidates[WARP + at] = L::expert(j);
            ++at;
        }
    }
    __syncwarp();
    const uint32_t key = candidates[lane_id()];
    const uint32_t expert = lane_id() < all ? candidates[WARP + lane_id()] : 0;
    uint32_t rank = 0;
#pragma unroll 1
    for (uint32_t i = 0; i < all; i += 4) {
        const uint4 other = *reinterpret_cast<const uint4*>(candidates + i);
        rank += (other.x > key) + (other.y > key) + (other.z > key) + (other.w > key);
    }
    // Equal keys have equal ranks so far.
    const uint32_t tied = ptx::match_any_u32(ptx::ALL_LANES, key);
    if (ptx::ballot(ptx::ALL_LANES, key != NO_KEY && (tied & (tied - 1)) != 0) != 0) {
#pragma unroll 1
        for (uint32_t i = 0; i < all; ++i) {
            rank += candidates[i] == key && candidates[WARP + i] < expert ? 1 : 0;
        }
    }
    if (lane_id() < all && rank < k) {
        take(rank, Choice{key, expert});
    }
    // Before the next row's candidates overwrite these.
    __syncwarp();
    return true;
}

}  // namespace tollgate::gate
