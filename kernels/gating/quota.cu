// Steps that expert choice and capacity share: from histograms of digits to the merits at which the
// experts' quotas end, and from counts of ties to ranks. E experts.

#include <cstdint>

#include "tollgate/abi/selection.h"
#include "tollgate/quota.cuh"
#include "tollgate/warp.cuh"

namespace tollgate {

// Of one digit: which value the quota ends at. histogram [256, E] is read and cleared for the next
// digit. A warp has 32 values of 32 experts.
extern "C" __global__ void __launch_bounds__(256)
    tg_quota_resolve(const __grid_constant__ QuotaParams p) {
    constexpr uint32_t WARPS = 256 / WARP;
    constexpr uint32_t VALUES = DIGITS / WARPS;
    __shared__ uint32_t of_warps[WARPS][WARP];
    const uint32_t expert = blockIdx.x * WARP + lane_id();
    const bool inside = expert < p.num_experts;
    const uint32_t low = warp_id() * VALUES;
    uint32_t* column = p.histogram + expert;
    uint32_t sum = 0;
    if (inside) {
#pragma unroll 8
        for (uint32_t i = 0; i < VALUES; ++i) {
            sum += column[static_cast<uint64_t>(low + i) * p.num_experts];
        }
    }
    of_warps[warp_id()][lane_id()] = sum;
    // Read by all before one warp writes it.
    const Quota before = {inside && !p.first ? p.threshold[expert] : 0,
                          inside && !p.first ? p.remaining[expert] : p.quota};
    __syncthreads();

    uint32_t total = 0;
    // From the largest value down: the warp whose values hold the end of the quota, and how many
    // are above them.
    uint32_t owner = WARPS;
    uint32_t above = 0;
    for (uint32_t w = WARPS; w-- > 0;) {
        const uint32_t count = of_warps[w][lane_id()];
        if (owner == WARPS) {
            if (total + count >= before.remaining) {
                owner = w;
                above = total;
            }
        }
        total += count;
    }
    // Everybody is served.
    const bool everybody = p.first && total <= p.quota;
    if (inside && everybody && warp_id() == 0) {
        p.threshold[expert] = 0;
        p.remaining[expert] = ALL_TIES;
    }
    if (inside && !everybody && (p.first || before.in_order()) && warp_id() == owner) {
        uint32_t value = low + VALUES;
        uint32_t count = 0;
        do {
            above += count;
            value -= 1;
            count = column[static_cast<uint64_t>(value) * p.num_experts];
        } while (above + count < before.remaining);
        const uint32_t remaining = before.remaining - above;
        const uint32_t found = before.threshold << 8 | value;
        // Where a digit ends a quota exactly, the digits below it need not be looked at.
        const bool exact = count == remaining;
        p.threshold[expert] = exact ? found << (8 * p.digits_left) : found;
        p.remaining[expert] = exact ? ALL_TIES : remaining;
    }
    if (inside) {
        for (uint32_t i = 0; i < VALUES; ++i) {
            column[static_cast<uint64_t>(low + i) * p.num_experts] = 0;
        }
    }
}

// tie_counts [chunks, E] to exclusive prefix sums over the chunks, for experts whose ties are in
// order. A warp has a range of the chunks of 32 experts.
extern "C" __global__ void __launch_bounds__(1024)
    tg_quota_scan(const __grid_constant__ QuotaParams p) {
    constexpr uint32_t WARPS = 1024 / WARP;
    __shared__ uint32_t of_warps[WARPS][WARP];
    const uint32_t expert = blockIdx.x * WARP + lane_id();
    const bool inside = expert < p.num_experts && p.remaining[expert] != ALL_TIES;
    const uint32_t range = (p.num_chunks + WARPS - 1) / WARPS;
    const uint64_t first = static_cast<uint64_t>(warp_id()) * range;
    const uint64_t end = first + range < p.num_chunks ? first + range : p.num_chunks;
    uint32_t* column = p.tie_counts + expert;
    uint32_t sum = 0;
    if (inside) {
#pragma unroll 8
        for (uint64_t c = first; c < end; ++c) {
            sum += column[c * p.num_experts];
        }
    }
    of_warps[warp_id()][lane_id()] = sum;
    __syncthreads();
    if (!inside) {
        return;
    }
    uint32_t before = 0;
    for (uint32_t w = 0; w < warp_id(); ++w) {
        before += of_warps[w][lane_id()];
    }
    for (uint64_t c = first; c < end; ++c) {
        const uint32_t count = column[c * p.num_experts];
        column[c * p.num_experts] = before;
        before += count;
    }
}

}  // namespace tollgate
