// Which group a block works on, from offsets that only the device knows.
#pragma once

#include <cstdint>

#include "tollgate/ptx/atomic.cuh"
#include "tollgate/status.cuh"
#include "tollgate/warp.cuh"

namespace tollgate {

// Rows of one group.
struct RowRange {
    uint32_t expert;
    uint32_t first;
    // Rows of it; 0: there is nothing to do.
    uint32_t count;
};

// Where the first warp leaves what it found.
struct GroupSlot {
    uint32_t expert;
    uint32_t first;
    uint32_t count;
    uint32_t good;
};

// Whether entry e of the offsets begins a group that lies within `rows`.
__device__ __forceinline__ bool good_group(const int32_t* offsets, uint32_t e, uint32_t rows) {
    const int32_t from = offsets[e];
    const int32_t to = offsets[e + 1];
    return from >= 0 && from <= to && static_cast<uint32_t>(to) <= rows && (e > 0 || from == 0);
}

// Offsets are good when they ascend from 0 to at most `rows`. Every block looks at all of them, so
// that bad ones change nothing at all in memory; the first block reports them.
__device__ __forceinline__ bool report_bad_offsets(bool good, StatusBlock* status) {
    if (!good && blockIdx.x == 0) {
        ptx::red_global_or_u32(&status->faults, fault::EXPERT_OFFSETS);
    }
    return good;
}

// Tile `wanted` of all groups' tiles of ROWS rows, groups in order; count 0 if there are fewer
// tiles or the offsets are bad. The whole block takes part.
template <uint32_t ROWS>
__device__ __forceinline__ RowRange find_tile(const int32_t* offsets, uint32_t experts,
                                              uint32_t rows, uint32_t wanted, StatusBlock* status,
                                              GroupSlot& slot) {
    if (warp_id() == 0) {
        const uint32_t lane = lane_id();
        if (lane == 0) {
            slot = {0, 0, 0, 0};
        }
        __syncwarp();
        bool good = experts > 0 || offsets[0] == 0;
        uint32_t before = 0;
        for (uint32_t base = 0; base < experts; base += WARP) {
            const uint32_t e = base + lane;
            const bool there = e < experts;
            const bool valid = there && good_group(offsets, e, rows);
            good = good && (valid || !there);
            const uint32_t from = valid ? offsets[e] : 0;
            const uint32_t length = valid ? offsets[e + 1] - from : 0;
            const uint32_t tiles = (length + ROWS - 1) / ROWS;
            const uint32_t sum = warp_inclusive_sum(tiles);
            const uint32_t tile = wanted - (before + sum - tiles);
            // Wraps around for tiles of earlier groups.
            if (tile < tiles) {
                slot.expert = e;
                slot.first = from + tile * ROWS;
                slot.count = min(ROWS, length - tile * ROWS);
            }
            before += ptx::shfl_idx_u32(ptx::ALL_LANES, sum, WARP - 1);
        }
        const bool all = ptx::ballot(ptx::ALL_LANES, good) == ptx::ALL_LANES;
        if (lane == 0) {
            slot.good = report_bad_offsets(all, status);
        }
    }
    __syncthreads();
    return {slot.expert, slot.first, slot.good ? slot.count : 0};
}

// All rows of group `expert`. False if the offsets are bad. The whole block takes part.
__device__ __forceinline__ bool find_group(const int32_t* offsets, uint32_t experts, uint32_t rows,
                                           uint32_t expert, StatusBlock* status, GroupSlot& slot,
                                           RowRange& group) {
    if (warp_id() == 0) {
        bool good = true;
        for (uint32_t e = lane_id(); e < experts; e += WARP) {
            good = good && good_group(offsets, e, rows);
        }
        const bool all = ptx::ballot(ptx::ALL_LANES, good) == ptx::ALL_LANES;
        if (lane_id() == 0) {
            slot.first = offsets[expert];
            slot.count = offsets[expert + 1] - slot.first;
            slot.good = report_bad_offsets(all, status);
        }
    }
    __syncthreads();
    group = {expert, slot.first, slot.count};
    return slot.good;
}

}  // namespace tollgate
