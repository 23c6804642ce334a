// The limit on rows per expert: who keeps its place. A assignments in token order, E experts.
//
// Merits make both orders one: by position a first choice beats a second, by probability a larger
// weight a smaller one; equal merits go by token. tg_quota_resolve finds where the quotas end,
// digit by digit; ties are ranked in chunks of assignments, one warp each.

#include <cstdint>

#include "tollgate/abi/selection.h"
#include "tollgate/block.cuh"
#include "tollgate/numeric.cuh"
#include "tollgate/ptx/atomic.cuh"
#include "tollgate/quota.cuh"
#include "tollgate/status.cuh"

namespace tollgate {

inline constexpr uint32_t THREADS = 256;

// A, whatever the offsets say.
__device__ __forceinline__ uint32_t assignments(const CapacityParams& p) {
    const int32_t a = p.token_offsets[p.num_tokens];
    const uint32_t most = p.max_assignments;
    return a < 0 ? 0 : (static_cast<uint32_t>(a) < most ? static_cast<uint32_t>(a) : most);
}

__device__ __forceinline__ Quota quota_of(const CapacityParams& p, uint32_t expert) {
    return {p.threshold[expert], p.remaining[expert]};
}

// The expert of an assignment; E where it is none.
__device__ __forceinline__ uint32_t expert_of(const CapacityParams& p, uint32_t a) {
    const uint32_t expert = static_cast<uint32_t>(p.expert_indices[a]);
    return expert < p.num_experts ? expert : p.num_experts;
}

// ---- merits ----

// By position: the first choice has the largest merit. A thread has a token.
extern "C" __global__ void __launch_bounds__(256)
    tg_capacity_by_position(const __grid_constant__ CapacityParams p) {
    const uint32_t token = blockIdx.x * THREADS + threadIdx.x;
    if (token >= p.num_tokens) {
        return;
    }
    const uint32_t all = assignments(p);
    const uint32_t first = static_cast<uint32_t>(p.token_offsets[token]);
    const uint32_t end = static_cast<uint32_t>(p.token_offsets[token + 1]);
    if (first > end || end > all) {
        raise_bad_index(p.status, fault::TOKEN_OFFSETS, token);
        return;
    }
    for (uint32_t a = first; a < end; ++a) {
        const uint32_t choice = a - first;
        p.merits[a] = choice < p.largest_merit ? p.largest_merit - choice : 0;
    }
}

// By probability: the larger weight, a NaN before all.
extern "C" __global__ void __launch_bounds__(256)
    tg_capacity_by_probability(const __grid_constant__ CapacityParams p) {
    const uint32_t a = blockIdx.x * THREADS + threadIdx.x;
    if (a >= assignments(p)) {
        return;
    }
    const float weight = p.routing_weights[a];
    p.merits[a] = is_nan(weight) ? 0xffffffffu : order_key(weight);
}

// ---- digits ----

// Counts a digit of the merits whose digits above it are the threshold's. histogram [256, E].
extern "C" __global__ void __launch_bounds__(256)
    tg_capacity_count(const __grid_constant__ CapacityParams p) {
    const uint32_t a = blockIdx.x * THREADS + threadIdx.x;
    uint32_t place = ~0u;
    if (a < assignments(p)) {
        const uint32_t expert = expert_of(p, a);
        if (expert == p.num_experts) {
            raise_bad_index(p.status, fault::EXPERT_INDEX, a);
        } else {
            const uint32_t merit = p.merits[a];
            bool counts = true;
            if (p.first) {
                // Experts with enough room are told by an empty histogram.
                const int32_t rows = p.expert_offsets[expert + 1] - p.expert_offsets[expert];
                counts = rows < 0 || static_cast<uint32_t>(rows) > p.rows_per_expert;
            } else {
                const Quota quota = quota_of(p, expert);
                const uint64_t above = static_cast<uint64_t>(merit) >> (p.shift + 8);
                counts = quota.in_order() && above == quota.threshold;
            }
            if (counts) {
                place = (merit >> p.shift & (DIGITS - 1)) * p.num_experts + expert;
            }
        }
    }
    // Lanes with the same place are counted at once.
    const uint32_t same = ptx::match_any_u32(ptx::ALL_LANES, place);
    if (place != ~0u && (same & ptx::lanes_below()) == 0) {
        ptx::red_global_add_u32(p.histogram + place, static_cast<uint32_t>(__popc(same)));
    }
}

// ---- ties ----

// Goes through the assignments of a chunk in order, 32 at a time. `row` [E] holds for every expert
// whose ties are in order how many there were; work(a, inside, quota, merit, rank) is told the rank
// of a tie.
template <typename Work>
__device__ __forceinline__ void for_chunk(const CapacityParams& p, uint32_t chunk, uint32_t* row,
                                          Work work) {
    const uint32_t all = assignments(p);
    const uint64_t first = static_cast<uint64_t>(chunk) * p.chunk;
    for (uint64_t start = first; start < first + p.chunk && start < all; start += WARP) {
        const uint32_t a = static_cast<uint32_t>(start) + lane_id();
        const uint32_t expert = a < all ? expert_of(p, a) : p.num_experts;
        const bool inside = expert < p.num_experts;
        const uint32_t merit = inside ? p.merits[a] : 0;
        const Quota quota = inside ? quota_of(p, expert) : Quota{~0u, ALL_TIES};
        const bool tied = inside && quota.tied(merit);
        uint32_t rank = 0;
        if (ptx::ballot(ptx::ALL_LANES, tied) != 0) {
            const uint32_t same = ptx::match_any_u32(ptx::ALL_LANES, tied ? expert : ~0u);
            const uint32_t before = same & ptx::lanes_below();
            if (tied) {
                rank = row[expert] + __popc(before);
            }
            __syncwarp();
            if (tied && before == 0) {
                row[expert] += __popc(same);
            }
            __syncwarp();
        }
        work(a, inside, quota, merit, rank);
    }
}

// tie_counts [chunks, E].
extern "C" __global__ void __launch_bounds__(256)
    tg_capacity_ties(const __grid_constant__ CapacityParams p) {
    const uint32_t chunk = blockIdx.x * (THREADS / WARP) + warp_id();
    if (chunk >= p.num_chunks) {
        return;
    }
    uint32_t* row = p.tie_counts + static_cast<uint64_t>(chunk) * p.num_experts;
    for (uint32_t e = lane_id(); e < p.num_experts; e += WARP) {
        row[e] = 0;
    }
    __syncwarp();
    for_chunk(p, chunk, row, [](uint32_t, bool, const Quota&, uint32_t, uint32_t) {});
}

// Who stays: a bit an assignment, how many stay before every word of the chunk, and in the chunk.
// The rows of tie_counts, now prefix sums, go on as counters.
extern "C" __global__ void __launch_bounds__(256)
    tg_capacity_keep(const __grid_constant__ CapacityParams p) {
    const uint32_t chunk = blockIdx.x * (THREADS / WARP) + warp_id();
    if (chunk >= p.num_chunks) {
        return;
    }
    uint32_t* row = p.tie_counts + static_cast<uint64_t>(chunk) * p.num_experts;
    uint32_t kept = 0;
    for_chunk(p, chunk, row,
              [&](uint32_t a, bool inside, const Quota& quota, uint32_t merit, uint32_t rank) {
                  const bool stays = inside && (quota.above(merit) ||
                                                (quota.tied(merit) && rank < quota.remaining));
                  const uint32_t mask = ptx::ballot(ptx::ALL_LANES, stays);
                  if (lane_id() == 0) {
                      p.stays[a / WARP] = mask;
                      p.words_before[a / WARP] = kept;
                  }
                  kept += __popc(mask);
              });
    if (lane_id() == 0) {
        p.chunk_kept[chunk] = kept;
    }
}

// ---- the table ----

// Block 0: chunk_kept [chunks+1] to prefix sums. Block 1: expert_offsets of the table, since every
// expert keeps what it has or its quota.
extern "C" __global__ void __launch_bounds__(1024)
    tg_capacity_scan(const __grid_constant__ CapacityParams p) {
    __shared__ BlockScratch scratch;
    const bool chunks = blockIdx.x == 0;
    const uint32_t count = chunks ? p.num_chunks : p.num_experts;
    uint32_t total = 0;
    for (uint32_t start = 0; start < count; start += 1024) {
        const uint32_t i = start + threadIdx.x;
        uint32_t value = 0;
        if (i < count && chunks) {
            value = p.chunk_kept[i];
        } else if (i < count) {
            const int32_t rows = p.expert_offsets[i + 1] - p.expert_offsets[i];
            value = rows < 0 ? 0 : static_cast<uint32_t>(rows);
            value = value < p.rows_per_expert ? value : p.rows_per_expert;
        }
        const Ranked at = block_exclusive_sum<1024>(value, scratch);
        if (i < count && chunks) {
            p.chunk_kept[i] = total + at.before;
        } else if (i < count) {
            p.table_expert_offsets[i] = static_cast<int32_t>(total + at.before);
        }
        total += at.total;
    }
    if (threadIdx.x == 0) {
        if (chunks) {
            p.chunk_kept[count] = total;
        } else {
            p.table_expert_offsets[count] = static_cast<int32_t>(total);
        }
    }
}

// How many assignments before `a` stay.
__device__ __forceinline__ uint32_t staying_before(const CapacityParams& p, uint32_t a,
                                                   uint32_t all) {
    if (a >= all) {
        return p.chunk_kept[p.num_chunks];
    }
    const uint32_t below = (1u << a % WARP) - 1;
    return p.chunk_kept[a / p.chunk] + p.words_before[a / WARP] +
           __popc(p.stays[a / WARP] & below);
}

// Moves those who stay together, and writes where they came from; token_offsets of the table.
extern "C" __global__ void __launch_bounds__(256)
    tg_capacity_write(const __grid_constant__ CapacityParams p) {
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    const uint32_t all = assignments(p);
    if (i < all && (p.stays[i / WARP] >> i % WARP & 1) != 0) {
        const uint32_t to = staying_before(p, i, all);
        p.table_expert_indices[to] = p.expert_indices[i];
        p.table_routing_weights[to] = p.routing_weights[i];
        p.kept[to] = static_cast<int32_t>(i);
    }
    if (i <= p.num_tokens) {
        const int32_t offset = p.token_offsets[i];
        const uint32_t a = offset < 0 ? 0 : static_cast<uint32_t>(offset);
        p.table_token_offsets[i] = static_cast<int32_t>(staying_before(p, a, all));
    }
}

}  // namespace tollgate
