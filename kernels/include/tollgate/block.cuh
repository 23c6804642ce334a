// What a whole block computes together. All threads of the block take part, all get the result, and
// every function ends with its scratch memory free for the next call.
#pragma once

#include <cstdint>

#include "tollgate/warp.cuh"

namespace tollgate {

// Scratch memory of the functions below, for blocks of up to 1024 threads. Shared memory.
struct BlockScratch {
    double sums[WARP];
    uint32_t counts[WARP];
};

// A position among the threads of the block, and how many there are.
struct Ranked {
    uint32_t before;
    uint32_t total;
};

namespace detail {

// From every warp's total to the sum of the totals before this warp, and the block's.
template <uint32_t THREADS>
__device__ __forceinline__ Ranked across_warps(uint32_t of_warp, BlockScratch& scratch) {
    constexpr uint32_t WARPS = THREADS / WARP;
    if (lane_id() == 0) {
        scratch.counts[warp_id()] = of_warp;
    }
    __syncthreads();
    const uint32_t count = lane_id() < WARPS ? scratch.counts[lane_id()] : 0;
    const uint32_t up_to = warp_inclusive_sum(count);
    const Ranked result = {ptx::shfl_idx_u32(ptx::ALL_LANES, up_to - count, warp_id()),
                           ptx::shfl_idx_u32(ptx::ALL_LANES, up_to, WARP - 1)};
    __syncthreads();
    return result;
}

}  // namespace detail

// How many threads with a lower number have `holds`, and how many have at all.
template <uint32_t THREADS>
__device__ __forceinline__ Ranked block_rank(bool holds, BlockScratch& scratch) {
    const uint32_t lanes = ptx::ballot(ptx::ALL_LANES, holds);
    Ranked at = detail::across_warps<THREADS>(__popc(lanes), scratch);
    at.before += __popc(lanes & ptx::lanes_below());
    return at;
}

// Exclusive prefix sum over the threads, and the sum; modulo 2^32.
template <uint32_t THREADS>
__device__ __forceinline__ Ranked block_exclusive_sum(uint32_t value, BlockScratch& scratch) {
    const uint32_t up_to = warp_inclusive_sum(value);
    const uint32_t of_warp = ptx::shfl_idx_u32(ptx::ALL_LANES, up_to, WARP - 1);
    Ranked at = detail::across_warps<THREADS>(of_warp, scratch);
    at.before += up_to - value;
    return at;
}

// The sum of integers, modulo 2^32.
template <uint32_t THREADS>
__device__ __forceinline__ uint32_t block_sum(uint32_t value, BlockScratch& scratch) {
    return detail::across_warps<THREADS>(ptx::redux_add_u32(ptx::ALL_LANES, value), scratch).total;
}

// The sum in f64: every warp as a tree, then the warps as a tree.
template <uint32_t THREADS>
__device__ __forceinline__ double block_sum(double value, BlockScratch& scratch) {
    constexpr uint32_t WARPS = THREADS / WARP;
    const double of_warp = warp_sum(value);
    if (lane_id() == 0) {
        scratch.sums[warp_id()] = of_warp;
    }
    __syncthreads();
    const double sum = warp_sum(lane_id() < WARPS ? scratch.sums[lane_id()] : 0.0);
    __syncthreads();
    return sum;
}

}  // namespace tollgate
