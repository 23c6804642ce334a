// Producer warps hand squares to consumer warps through two slots, by named barriers alone.
//
//   sums[b] = sum over the block's values v of v * v   (modulo 2^32)
//
// Block b owns values [b * per_block, min(n, (b + 1) * per_block)).
//
// Geometry: grid = ceil(n / per_block), block 128: warps 0, 1 produce, warps 2, 3 consume; static
//   shared memory only.
// Parameters: values [n] u32, sums [grid] u32, n, per_block.
// Synchronisation: barrier FULL + s: producers arrive, consumers wait; EMPTY + s the other way;
//   each counts all 128 threads. A last barrier among the consumers alone joins their partial sums.

#include "ptx.cuh"

using ptx::u32;

inline namespace named_barriers_parts {

constexpr u32 THREADS = 128;
constexpr u32 HALF = 64;
constexpr u32 SLOTS = 2;
// Barrier 0 is __syncthreads'.
constexpr u32 FULL = 1;
constexpr u32 EMPTY = FULL + SLOTS;
constexpr u32 CONSUMERS = EMPTY + SLOTS;

}  // namespace named_barriers_parts

extern "C" __global__ void __launch_bounds__(THREADS)
    named_barrier_sums(const u32* __restrict__ values, u32* __restrict__ sums, u32 n,
                       u32 per_block) {
    __shared__ u32 slots[SLOTS][HALF];
    __shared__ u32 partial[2];

    const u32 begin = blockIdx.x * per_block;
    const u32 end = min(n, begin + per_block);
    const u32 steps = begin < end ? (end - begin + HALF - 1) / HALF : 0;
    const u32 me = threadIdx.x % HALF;

    if (threadIdx.x < HALF) {
        for (u32 step = 0; step < steps; ++step) {
            const u32 s = step % SLOTS;
            const u32 i = begin + step * HALF + me;
            const u32 v = i < end ? values[i] : 0;
            if (step >= SLOTS) {
                ptx::bar_sync(EMPTY + s, THREADS);
            }
            slots[s][me] = v * v;
            ptx::bar_arrive(FULL + s, THREADS);
        }
    } else {
        u32 sum = 0;
        for (u32 step = 0; step < steps; ++step) {
            const u32 s = step % SLOTS;
            ptx::bar_sync(FULL + s, THREADS);
            // Not the word of the thread at the same place: the other producer warp's.
            sum += slots[s][me ^ 32];
            // The last use of a slot is not waited for; an arrival would leave the barrier open.
            if (step + SLOTS < steps) {
                ptx::bar_arrive(EMPTY + s, THREADS);
            }
        }
        sum = __reduce_add_sync(0xffffffff, sum);
        if (threadIdx.x % 32 == 0) {
            partial[me / 32] = sum;
        }
        ptx::bar_sync(CONSUMERS, HALF);
        if (me == 0) {
            sums[blockIdx.x] = partial[0] + partial[1];
        }
    }
}
