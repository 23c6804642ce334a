// Votes, matches, reductions and exchanges of a warp, also of part of one.
//
//   warp_votes: for each warp of 32 keys, by lane:
//     out[0]  ballot of odd keys          out[1]  1 if all are odd
//     out[2]  1 if any is odd             out[3]  1 if all are odd or all even
//     out[4]  mask of equal keys          out[5]  mask if all are equal, else 0
//     out[6]  sum                         out[7]  unsigned minimum
//     out[8]  unsigned maximum            out[9]  and
//     out[10] or                          out[11] xor
//     out[12] key of lane (l + 1) % 32    out[13] key of lane l / 8 * 8 + 7
//     out[14] signed minimum              out[15] signed maximum
//   warp_divergent: lanes take ways of different length, and parts of a warp cooperate:
//     even lanes: out[i] = sum of the even lanes' keys; odd lanes: out[i] = the number of steps of
//     the Collatz sequence from the key (0 for key 0, at most 1000)
//   warp_exchange: rotates the keys through shared memory twice: out[i] = key of lane (l + 5) % 32
//     plus key of lane (l + 10) % 32
//
// Geometry: grid any, block a multiple of 32, n a multiple of 32; a warp per 32 keys; dynamic
//   shared memory 4 bytes a thread for `warp_exchange`, none else.
// Parameters: keys [n] u32, out [16, n] u32 for `warp_votes`, else [n] u32; n.
// Synchronisation: `warp_exchange` has a __syncwarp between a write of a word and its read by
//   another lane, and between that read and the next write.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

inline namespace warp_ops_parts {
constexpr u32 ALL_LANES = 0xffffffff;
constexpr u32 EVEN_LANES = 0x55555555;
}  // namespace warp_ops_parts

extern "C" __global__ void warp_votes(const u32* __restrict__ keys, u32* __restrict__ out, u32 n) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;  // whole warps
    }
    const u32 lane = threadIdx.x % 32;
    const u32 key = keys[i];
    const bool odd = key % 2 != 0;
    int all_equal;
    const u32 equal_mask = __match_all_sync(ALL_LANES, key, &all_equal);

    // One per line of the table above.
    u32 r[16];
    r[0] = __ballot_sync(ALL_LANES, odd);
    r[1] = __all_sync(ALL_LANES, odd) != 0;
    r[2] = __any_sync(ALL_LANES, odd) != 0;
    r[3] = __uni_sync(ALL_LANES, odd) != 0;
    r[4] = __match_any_sync(ALL_LANES, key);
    r[5] = all_equal ? equal_mask : 0;
    r[6] = __reduce_add_sync(ALL_LANES, key);
    r[7] = __reduce_min_sync(ALL_LANES, key);
    r[8] = __reduce_max_sync(ALL_LANES, key);
    r[9] = __reduce_and_sync(ALL_LANES, key);
    r[10] = __reduce_or_sync(ALL_LANES, key);
    r[11] = __reduce_xor_sync(ALL_LANES, key);
    r[12] = __shfl_sync(ALL_LANES, key, (lane + 1) % 32);
    r[13] = __shfl_sync(ALL_LANES, key, 7, 8);
    r[14] = __reduce_min_sync(ALL_LANES, static_cast<int>(key));
    r[15] = __reduce_max_sync(ALL_LANES, static_cast<int>(key));
#pragma unroll
    for (u32 j = 0; j < 16; ++j) {
        out[u64(j) * n + i] = r[j];
    }
}

extern "C" __global__ void warp_divergent(const u32* __restrict__ keys, u32* __restrict__ out,
                                          u32 n) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    const u32 key = keys[i];
    u32 result;
    if (threadIdx.x % 2 == 0) {
        result = __reduce_add_sync(EVEN_LANES, key);
    } else {
        u32 v = key;
        result = 0;
        while (v > 1 && result < 1000) {
            v = v % 2 == 0 ? v / 2 : 3 * v + 1;
            ++result;
        }
    }
    __syncwarp();
    out[i] = result;
}

extern "C" __global__ void warp_exchange(const u32* __restrict__ keys, u32* __restrict__ out,
                                         u32 n) {
    extern __shared__ u32 words[];
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    const u32 lane = threadIdx.x % 32;
    u32* mine = words + threadIdx.x - lane;
    u32 v = keys[i];
    u32 sum = 0;
    for (int round = 0; round < 2; ++round) {
        mine[lane] = v;
        __syncwarp();
        v = mine[(lane + 5) % 32];
        sum += v;
        __syncwarp();
    }
    out[i] = sum;
}
