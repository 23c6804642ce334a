// A copy by bulk copies, global to shared to global, with a change in between.
//
//   dst[i] = src[i] ^ flip      (32-bit words)
//
// Geometry: grid any, block 128, static shared memory only. Chunks of 2048 bytes, two slots; blocks
//   stride over the chunks.
// Parameters: src [4 * pieces] u32 and dst likewise, 16-byte aligned and apart; pieces u32 (of 16
//   bytes), flip u32.
// Synchronisation: `full[s]`: the bytes of a load are there. fence.proxy.async by every thread that
//   wrote a slot, then a barrier, before thread 0 stores it. .wait_group.read before a slot is
//   loaded again, .wait_group before the block ends.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

inline namespace bulk_copy_parts {

constexpr u32 THREADS = 128;
constexpr u32 SLOTS = 2;
constexpr u32 CHUNK_PIECES = 128;

__device__ __forceinline__ u32 chunk_bytes(u32 chunk, u32 pieces) {
    return min(CHUNK_PIECES, pieces - chunk * CHUNK_PIECES) * sizeof(uint4);
}

}  // namespace bulk_copy_parts

extern "C" __global__ void __launch_bounds__(THREADS)
    bulk_copy(const uint4* src, uint4* dst, u32 pieces, u32 flip) {
    __shared__ __align__(16) uint4 slots[SLOTS][CHUNK_PIECES];
    __shared__ u64 full[SLOTS];

    if (threadIdx.x == 0) {
        for (u32 s = 0; s < SLOTS; ++s) {
            ptx::mbarrier_init(&full[s], 1);
        }
        ptx::fence_proxy_async_shared();
    }
    __syncthreads();

    const u32 chunks = (pieces + CHUNK_PIECES - 1) / CHUNK_PIECES;
    const auto load = [&](u32 chunk, u32 slot) {
        const u32 bytes = chunk_bytes(chunk, pieces);
        ptx::mbarrier_arrive_expect_tx(&full[slot], bytes);
        ptx::cp_async_bulk_load(slots[slot], src + u64(chunk) * CHUNK_PIECES, bytes, &full[slot]);
    };

    if (threadIdx.x == 0 && blockIdx.x < chunks) {
        load(blockIdx.x, 0);
    }
    u32 slot = 0;
    u32 parity = 0;
    for (u32 chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        if (threadIdx.x == 0 && chunk + gridDim.x < chunks) {
            ptx::cp_async_bulk_wait_group_read<0>();
            load(chunk + gridDim.x, slot ^ 1);
        }
        while (!ptx::mbarrier_try_wait(&full[slot], parity)) {
        }

        const u32 bytes = chunk_bytes(chunk, pieces);
        if (threadIdx.x * sizeof(uint4) < bytes) {
            uint4& piece = slots[slot][threadIdx.x];
            piece.x ^= flip;
            piece.y ^= flip;
            piece.z ^= flip;
            piece.w ^= flip;
        }
        ptx::fence_proxy_async_shared();
        __syncthreads();

        if (threadIdx.x == 0) {
            ptx::cp_async_bulk_store(dst + u64(chunk) * CHUNK_PIECES, slots[slot], bytes);
            ptx::cp_async_bulk_commit_group();
        }
        parity ^= slot;
        slot ^= 1;
    }
    if (threadIdx.x == 0) {
        ptx::cp_async_bulk_wait_group<0>();
    }
}
