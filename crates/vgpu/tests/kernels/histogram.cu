// How often each key occurs. Keys at or above the number of bins are left out.
//
//   counts[b] += number of i with keys[i] == b
//
// Geometry: grid any, block a multiple of 32. `histogram_shared`: bins * 4 bytes of dynamic shared
//   memory. `histogram_match`: none.
// Parameters: keys [n] u32, counts [bins] u32 (zeroed by the caller), n, bins.
// Synchronisation: `histogram_shared` has a barrier between clearing, counting and flushing the
//   block's own bins. `histogram_match` keeps whole warps in the loop, because every lane takes
//   part in the match; the lowest lane of each group adds for all of it. The adds into `counts` are
//   relaxed: nothing is published by them.

#include "ptx.cuh"

using ptx::u32;

extern "C" __global__ void histogram_shared(const u32* __restrict__ keys, u32* counts, u32 n,
                                            u32 bins) {
    extern __shared__ u32 block_counts[];

    for (u32 b = threadIdx.x; b < bins; b += blockDim.x) {
        block_counts[b] = 0;
    }
    __syncthreads();
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        const u32 key = keys[i];
        if (key < bins) {
            atomicAdd(&block_counts[key], 1);
        }
    }
    __syncthreads();
    for (u32 b = threadIdx.x; b < bins; b += blockDim.x) {
        if (block_counts[b] != 0) {
            ptx::red_add_relaxed_gpu(&counts[b], block_counts[b]);
        }
    }
}

extern "C" __global__ void histogram_match(const u32* __restrict__ keys, u32* counts, u32 n,
                                           u32 bins) {
    constexpr u32 ALL_LANES = 0xffffffff;
    constexpr u32 NO_KEY = 0xffffffff;

    const u32 lane = threadIdx.x % 32;
    const u32 step = gridDim.x * blockDim.x;
    for (u32 first = blockIdx.x * blockDim.x + threadIdx.x - lane; first < n; first += step) {
        const u32 i = first + lane;
        const u32 key = i < n ? keys[i] : NO_KEY;
        const u32 same = __match_any_sync(ALL_LANES, key);
        if (key < bins && lane == __ffs(same) - 1) {
            ptx::red_add_relaxed_gpu(&counts[key], __popc(same));
        }
    }
}
