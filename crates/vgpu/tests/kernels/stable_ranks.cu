// The position of each assignment among those of its expert, in order of appearance, a block per
// list. The result does not depend on scheduling: no atomics.
//
//   rank_of[l, a]  = number of a' < a with expert_of[l, a'] == expert_of[l, a]
//   counts[l, e]   = number of a with expert_of[l, a] == e
//   An expert at or above E is no expert: rank 0xffffffff, counted nowhere.
//
// Geometry: grid = lists; block a multiple of 32, at most 1024; dynamic shared memory
//   (1 + block / 32) * E * 4 bytes.
// Parameters: expert_of [lists, A] u32, rank_of [lists, A] u32, counts [lists, E] u32, A, E.
// Synchronisation: in each chunk the warps write their own row of `warp_counts`, all read all rows,
//   then thread e folds column e into `running` and clears it: barriers between the three.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

extern "C" __global__ void stable_ranks(const u32* __restrict__ expert_of,
                                        u32* __restrict__ rank_of, u32* __restrict__ counts,
                                        u32 assignments, u32 experts) {
    constexpr u32 ALL_LANES = 0xffffffff;
    constexpr u32 NO_EXPERT = 0xffffffff;

    extern __shared__ u32 shared[];
    u32* running = shared;                // [E]: assignments of the chunks before
    u32* warp_counts = shared + experts;  // [warps, E]: those of each warp in this chunk

    const u32 warp = threadIdx.x / 32;
    const u32 num_warps = blockDim.x / 32;
    expert_of += u64(blockIdx.x) * assignments;
    rank_of += u64(blockIdx.x) * assignments;
    counts += u64(blockIdx.x) * experts;

    for (u32 i = threadIdx.x; i < (1 + num_warps) * experts; i += blockDim.x) {
        shared[i] = 0;
    }
    __syncthreads();

    for (u32 chunk = 0; chunk < assignments; chunk += blockDim.x) {
        const u32 a = chunk + threadIdx.x;
        u32 e = a < assignments ? expert_of[a] : NO_EXPERT;
        if (e >= experts) {
            e = NO_EXPERT;
        }

        const u32 same = __match_any_sync(ALL_LANES, e);
        const u32 before_in_warp = __popc(same & ptx::lanemask_lt());
        if (e != NO_EXPERT && before_in_warp == 0) {
            warp_counts[warp * experts + e] = __popc(same);
        }
        __syncthreads();

        if (a < assignments) {
            u32 rank = NO_EXPERT;
            if (e != NO_EXPERT) {
                rank = running[e] + before_in_warp;
                for (u32 w = 0; w < warp; ++w) {
                    rank += warp_counts[w * experts + e];
                }
            }
            rank_of[a] = rank;
        }
        __syncthreads();

        for (u32 c = threadIdx.x; c < experts; c += blockDim.x) {
            u32 in_chunk = 0;
            for (u32 w = 0; w < num_warps; ++w) {
                in_chunk += warp_counts[w * experts + c];
                warp_counts[w * experts + c] = 0;
            }
            running[c] += in_chunk;
        }
        __syncthreads();
    }

    for (u32 c = threadIdx.x; c < experts; c += blockDim.x) {
        counts[c] = running[c];
    }
}
