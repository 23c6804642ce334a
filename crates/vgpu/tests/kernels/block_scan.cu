// Inclusive prefix sum of each segment of a list, a block per segment.
//
//   out[i] = in[first of the segment] + ... + in[i]   (modulo 2^32)
//   totals[s] = the sum of segment s
//
// Geometry: grid = ceil(n / segment_len) blocks; block a multiple of 32, at most 1024; static
//   shared memory only.
// Parameters: in [n] u32, out [n] u32, totals [grid] u32, n, segment_len.
// Synchronisation: `warp_totals` is written by each warp, read and rewritten by warp 0, read by
//   all, and written again in the next tile: a __syncthreads between each two of these.

#include "ptx.cuh"

using ptx::u32;

inline namespace block_scan_parts {

constexpr u32 ALL_LANES = 0xffffffff;

__device__ __forceinline__ u32 warp_inclusive_scan(u32 v) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 offset = 1; offset < 32; offset *= 2) {
        const u32 below = __shfl_up_sync(ALL_LANES, v, offset);
        v += lane >= offset ? below : 0;
    }
    return v;
}

}  // namespace block_scan_parts

extern "C" __global__ void block_scan_u32(const u32* __restrict__ in, u32* __restrict__ out,
                                          u32* __restrict__ totals, u32 n, u32 segment_len) {
    __shared__ u32 warp_totals[32];

    const u32 lane = threadIdx.x % 32;
    const u32 warp = threadIdx.x / 32;
    const u32 num_warps = blockDim.x / 32;
    const u32 begin = blockIdx.x * segment_len;
    const u32 end = min(n, begin + segment_len);

    u32 carry = 0;
    for (u32 tile = begin; tile < end; tile += blockDim.x) {
        const u32 i = tile + threadIdx.x;
        const u32 in_warp = warp_inclusive_scan(i < end ? in[i] : 0);
        if (lane == 31) {
            warp_totals[warp] = in_warp;
        }
        __syncthreads();
        if (warp == 0) {
            const u32 total = lane < num_warps ? warp_totals[lane] : 0;
            warp_totals[lane] = warp_inclusive_scan(total);
        }
        __syncthreads();
        const u32 before = warp == 0 ? 0 : warp_totals[warp - 1];
        if (i < end) {
            out[i] = carry + before + in_warp;
        }
        carry += warp_totals[num_warps - 1];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        totals[blockIdx.x] = carry;
    }
}
