// Boxes of tensors of one to five dimensions, in and out by TMA.
//
//   tma_copy_1d .. tma_copy_5d: load the box of `src` at `box.load`, write its bytes as they lie in
//     shared memory (swizzled, filled where outside) to `dump`, xor each 32-bit word with `flip`,
//     and store the box at `box.store` of `dst`, which writes only what is inside
//   tma_reduce_add_2d: block b loads the box of `src` at (column 0, row b * box_rows) and adds it
//     to `dst` at (0, 0); the sum of the elements' type (integers: exact for any order)
//
// Geometry: tma_copy: grid 1, block 128, dynamic shared memory box_bytes rounded up to 128;
//   tma_reduce_add_2d: grid any, else the same.
// Parameters: tma_copy: maps of src and dst (same box, same swizzle), dump [box_bytes] bytes, box:
//   struct of 48 bytes (load[5] i32, store[5] i32, innermost first; box_bytes u32, flip u32).
//   tma_reduce_add_2d: maps of src and dst, box_bytes u32, box_rows u32. Boxes are multiples of 16
//   bytes.
// Synchronisation: the mbarrier's phase before the generic reads; fence.proxy.async by every thread
//   and a barrier between the generic writes and the store; .wait_group before the block ends.

#include "ptx.cuh"

using ptx::TensorMap;
using ptx::u32;
using ptx::u64;
using ptx::u8;

struct Box {
    int load[5];
    int store[5];
    u32 bytes;
    u32 flip;
};
static_assert(sizeof(Box) == 48, "the host writes this struct field by field");

// The strictest alignment that a swizzle asks for.
// Not in a namespace: its symbol then has a plain name.
extern __shared__ __align__(1024) u8 tile[];

inline namespace tma_tiles_parts {

template <int RANK>
__device__ __forceinline__ void load(const TensorMap& map, u64* bar, const int (&at)[5]) {
    if constexpr (RANK == 1) ptx::tma_load_1d(tile, map, bar, at[0]);
    if constexpr (RANK == 2) ptx::tma_load_2d(tile, map, bar, at[0], at[1]);
    if constexpr (RANK == 3) ptx::tma_load_3d(tile, map, bar, at[0], at[1], at[2]);
    if constexpr (RANK == 4) ptx::tma_load_4d(tile, map, bar, at[0], at[1], at[2], at[3]);
    if constexpr (RANK == 5) ptx::tma_load_5d(tile, map, bar, at[0], at[1], at[2], at[3], at[4]);
}

template <int RANK>
__device__ __forceinline__ void store(const TensorMap& map, const int (&at)[5]) {
    if constexpr (RANK == 1) ptx::tma_store_1d(map, tile, at[0]);
    if constexpr (RANK == 2) ptx::tma_store_2d(map, tile, at[0], at[1]);
    if constexpr (RANK == 3) ptx::tma_store_3d(map, tile, at[0], at[1], at[2]);
    if constexpr (RANK == 4) ptx::tma_store_4d(map, tile, at[0], at[1], at[2], at[3]);
    if constexpr (RANK == 5) ptx::tma_store_5d(map, tile, at[0], at[1], at[2], at[3], at[4]);
}

__device__ __forceinline__ void init_for_block(u64* bar) {
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(bar, 1);
        ptx::fence_proxy_async_shared();
    }
    __syncthreads();
}

template <int RANK>
__device__ __forceinline__ void copy_box(const TensorMap& src, const TensorMap& dst, u32* dump,
                                         const Box& box, u64* full) {
    init_for_block(full);
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect_tx(full, box.bytes);
        load<RANK>(src, full, box.load);
    }
    while (!ptx::mbarrier_try_wait(full, 0)) {
    }

    u32* words = reinterpret_cast<u32*>(tile);
    for (u32 i = threadIdx.x; i < box.bytes / 4; i += blockDim.x) {
        const u32 word = words[i];
        dump[i] = word;
        words[i] = word ^ box.flip;
    }
    ptx::fence_proxy_async_shared();
    __syncthreads();

    if (threadIdx.x == 0) {
        store<RANK>(dst, box.store);
        ptx::cp_async_bulk_commit_group();
        ptx::cp_async_bulk_wait_group<0>();
    }
}

}  // namespace tma_tiles_parts

extern "C" __global__ void tma_copy_1d(const __grid_constant__ TensorMap src,
                                       const __grid_constant__ TensorMap dst, u32* dump,
                                       const __grid_constant__ Box box) {
    __shared__ u64 full;
    copy_box<1>(src, dst, dump, box, &full);
}

extern "C" __global__ void tma_copy_2d(const __grid_constant__ TensorMap src,
                                       const __grid_constant__ TensorMap dst, u32* dump,
                                       const __grid_constant__ Box box) {
    __shared__ u64 full;
    copy_box<2>(src, dst, dump, box, &full);
}

extern "C" __global__ void tma_copy_3d(const __grid_constant__ TensorMap src,
                                       const __grid_constant__ TensorMap dst, u32* dump,
                                       const __grid_constant__ Box box) {
    __shared__ u64 full;
    copy_box<3>(src, dst, dump, box, &full);
}

extern "C" __global__ void tma_copy_4d(const __grid_constant__ TensorMap src,
                                       const __grid_constant__ TensorMap dst, u32* dump,
                                       const __grid_constant__ Box box) {
    __shared__ u64 full;
    copy_box<4>(src, dst, dump, box, &full);
}

extern "C" __global__ void tma_copy_5d(const __grid_constant__ TensorMap src,
                                       const __grid_constant__ TensorMap dst, u32* dump,
                                       const __grid_constant__ Box box) {
    __shared__ u64 full;
    copy_box<5>(src, dst, dump, box, &full);
}

extern "C" __global__ void tma_reduce_add_2d(const __grid_constant__ TensorMap src,
                                             const __grid_constant__ TensorMap dst, u32 box_bytes,
                                             u32 box_rows) {
    __shared__ u64 full;
    init_for_block(&full);
    if (threadIdx.x == 0) {
        const int row = blockIdx.x * box_rows;
        ptx::tma_prefetch_2d(src, 0, row);
        ptx::mbarrier_arrive_expect_tx(&full, box_bytes);
        ptx::tma_load_2d(tile, src, &full, 0, row);
        while (!ptx::mbarrier_try_wait(&full, 0)) {
        }
        // The copy engine wrote the tile and reads it: no other proxy comes between.
        ptx::tma_reduce_add_2d(dst, tile, 0, 0);
        ptx::cp_async_bulk_commit_group();
        ptx::cp_async_bulk_wait_group<0>();
    }
}
