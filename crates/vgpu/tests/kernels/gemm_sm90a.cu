// GEMM on the tensor cores of sm_90: TMA loads, a ring of mbarriers, wgmma, TMA stores.
//
//   D[m, n] = sum_k A[m, k] * B[n, k]      A [M, K], B [N, K], D [M, N] bf16, f32 sums
//
//   gemm_nt_sm90a:          a block a tile of 128 x 128
//   gemm_nt_cluster2_sm90a: clusters of two blocks with tiles above each other; each loads half of
//                           their common tile of B and multicasts it to both
//
// M is any, N and K are multiples of 8, K > 0. TMA reads what is outside as zeros and does not
// write it.
//
// Geometry: grid any (a multiple of 2 for clusters; blocks stride over the tiles), block 384,
//   dynamic shared memory SHARED_BYTES = 163904.
// Parameters: maps of A (box 64 columns x 128 rows), B (box 64 x 128, for clusters 64 x 64) and D
//   (box 64 x 64), all two-dimensional, bf16, swizzle 128B, fill zeros; M, N, K u32.
// Synchronisation: `full[s]` completes when the producer has arrived and the bytes of the stage are
//   there; `empty[s]` when every consumer warp (of both blocks) is done with the products that read
//   it. The ring goes on from tile to tile; a fresh barrier counts as having completed a phase of
//   parity 1, so the first round of the producer does not wait. In the epilogue fence.proxy.async
//   comes between the writes of a staging tile and its TMA store, and .wait_group.read between that
//   store and the next writes. The last cluster barrier keeps a block's shared memory until its
//   peer has sent its arrivals.

#include "ptx.cuh"

using ptx::TensorMap;
using ptx::u16;
using ptx::u32;
using ptx::u64;
using ptx::u8;

// Not in a namespace: its symbol then has a plain name.
extern __shared__ __align__(1024) u8 shared[];

inline namespace gemm_sm90_parts {

// ---- Shape of the work --------------------------------------------------------------------------

constexpr u32 BLOCK_M = 128;
constexpr u32 BLOCK_N = 128;
constexpr u32 BLOCK_K = 64;  // 128 bytes: the width of the swizzle
constexpr u32 STAGES = 4;
constexpr u32 WARPGROUP = 128;
constexpr u32 CONSUMERS = 2;  // warpgroups, 64 rows each
constexpr u32 THREADS = (1 + CONSUMERS) * WARPGROUP;
constexpr u32 CONSUMER_WARPS = CONSUMERS * WARPGROUP / 32;

// ---- Shared-memory map --------------------------------------------------------------------------

constexpr u32 ROW_BYTES = BLOCK_K * 2;
constexpr u32 A_BYTES = BLOCK_M * ROW_BYTES;
constexpr u32 B_BYTES = BLOCK_N * ROW_BYTES;
constexpr u32 STAGE_BYTES = A_BYTES + B_BYTES;
constexpr u32 D_BOX_BYTES = 64 * ROW_BYTES;  // 64 x 64, two a consumer
constexpr u32 D_OFFSET = STAGES * STAGE_BYTES;
constexpr u32 BARRIER_OFFSET = D_OFFSET + CONSUMERS * 2 * D_BOX_BYTES;
constexpr u32 SHARED_BYTES = BARRIER_OFFSET + 2 * STAGES * sizeof(u64);
static_assert(SHARED_BYTES == 163904, "README.md tells this number");

struct Ring {
    u64* full;
    u64* empty;

    __device__ __forceinline__ Ring()
        : full(reinterpret_cast<u64*>(shared + BARRIER_OFFSET)), empty(full + STAGES) {}
};

__device__ __forceinline__ u8* a_of(u32 stage) { return shared + stage * STAGE_BYTES; }
__device__ __forceinline__ u8* b_of(u32 stage) { return a_of(stage) + A_BYTES; }

// ---- Tiles --------------------------------------------------------------------------------------

// The tiles of this block: of the cluster's, which are above each other, the one of its rank.
template <u32 CLUSTER>
struct Tiles {
    u32 tiles_n;
    u32 count;
    u32 rank;

    __device__ __forceinline__ Tiles(u32 m, u32 n)
        : tiles_n((n + BLOCK_N - 1) / BLOCK_N),
          count((m + CLUSTER * BLOCK_M - 1) / (CLUSTER * BLOCK_M) * tiles_n),
          rank(CLUSTER == 1 ? 0 : ptx::cluster_ctarank()) {}

    __device__ __forceinline__ u32 first() const { return blockIdx.x / CLUSTER; }
    __device__ __forceinline__ u32 step() const { return gridDim.x / CLUSTER; }
    __device__ __forceinline__ int row(u32 i) const {
        return (i / tiles_n * CLUSTER + rank) * BLOCK_M;
    }
    __device__ __forceinline__ int col(u32 i) const { return i % tiles_n * BLOCK_N; }
};

// ---- Producer: one thread -----------------------------------------------------------------------

template <u32 CLUSTER>
__device__ __forceinline__ void produce(const TensorMap& a_map, const TensorMap& b_map,
                                        const Tiles<CLUSTER>& tiles, u32 steps) {
    const Ring ring;
    u32 stage = 0;
    u32 parity = 0;
    for (u32 i = tiles.first(); i < tiles.count; i += tiles.step()) {
        for (u32 step = 0; step < steps; ++step) {
            const int k = step * BLOCK_K;
            if constexpr (CLUSTER == 1) {
                while (!ptx::mbarrier_try_wait(&ring.empty[stage], parity ^ 1)) {
                }
            } else {
                while (!ptx::mbarrier_try_wait_cluster(&ring.empty[stage], parity ^ 1)) {
                }
            }
            ptx::mbarrier_arrive_expect_tx(&ring.full[stage], STAGE_BYTES);
            ptx::tma_load_2d(a_of(stage), a_map, &ring.full[stage], k, tiles.row(i));
            if constexpr (CLUSTER == 1) {
                ptx::tma_load_2d(b_of(stage), b_map, &ring.full[stage], k, tiles.col(i));
            } else {
                constexpr u32 SHARE = BLOCK_N / CLUSTER;
                ptx::tma_load_2d_multicast(b_of(stage) + tiles.rank * SHARE * ROW_BYTES, b_map,
                                           &ring.full[stage], (1 << CLUSTER) - 1, k,
                                           tiles.col(i) + tiles.rank * SHARE);
            }
            if (++stage == STAGES) {
                stage = 0;
                parity ^= 1;
            }
        }
    }
}

// ---- Consumer: a warpgroup ----------------------------------------------------------------------

// One arrival a warp and block of the cluster. The wait for the products is warp-wide, so it holds
// for the lane that arrives.
template <u32 CLUSTER>
__device__ __forceinline__ void release_stage(const Ring& ring, u32 stage) {
    const u32 lane = threadIdx.x % 32;
    if constexpr (CLUSTER == 1) {
        if (lane == 0) {
            ptx::mbarrier_arrive(&ring.empty[stage]);
        }
    } else {
        if (lane < CLUSTER) {
            ptx::mbarrier_arrive_release_cluster(ptx::mapa(&ring.empty[stage], lane));
        }
    }
    __syncwarp();
}

// The tile's sums as bf16 to shared memory, in the layout of TMA's 128-byte swizzle, and out.
__device__ __forceinline__ void store_tile(const TensorMap& d_map, u32 consumer, int row, int col,
                                           const float (&acc)[64]) {
    const u32 thread = threadIdx.x % WARPGROUP;
    const u32 lane = thread % 32;
    const u32 barrier = 1 + consumer;
    u8* staging = shared + D_OFFSET + consumer * 2 * D_BOX_BYTES;

    if (thread == 0) {
        ptx::cp_async_bulk_wait_group_read<0>();
    }
    ptx::bar_sync(barrier, WARPGROUP);

    // Matrices of a step: upper and lower 8 rows of 8 columns, then of the next 8.
    const u32 staging_row = thread / 32 * 16 + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
    for (u32 j = 0; j < BLOCK_N / 16; ++j) {
        const u32 piece = j % 4 * 2 + lane / 16;
        u8* at = staging + j / 4 * D_BOX_BYTES + staging_row * ROW_BYTES +
                 (piece ^ (staging_row % 8)) * 16;
        ptx::stmatrix_x4(at, ptx::cvt_rn_bf16x2(acc[8 * j + 0], acc[8 * j + 1]),
                         ptx::cvt_rn_bf16x2(acc[8 * j + 2], acc[8 * j + 3]),
                         ptx::cvt_rn_bf16x2(acc[8 * j + 4], acc[8 * j + 5]),
                         ptx::cvt_rn_bf16x2(acc[8 * j + 6], acc[8 * j + 7]));
    }
    ptx::fence_proxy_async_shared();
    ptx::bar_sync(barrier, WARPGROUP);

    if (thread == 0) {
        ptx::tma_store_2d(d_map, staging, col, row);
        ptx::tma_store_2d(d_map, staging + D_BOX_BYTES, col + 64, row);
        ptx::cp_async_bulk_commit_group();
    }
}

template <u32 CLUSTER>
__device__ __forceinline__ void consume(const TensorMap& d_map, const Tiles<CLUSTER>& tiles,
                                        u32 steps) {
    const Ring ring;
    const u32 consumer = threadIdx.x / WARPGROUP - 1;
    u32 stage = 0;
    u32 parity = 0;
    for (u32 i = tiles.first(); i < tiles.count; i += tiles.step()) {
        float acc[64];
        for (u32 step = 0; step < steps; ++step) {
            while (!ptx::mbarrier_try_wait(&ring.full[stage], parity)) {
            }
            const u64 a =
                ptx::wgmma_descriptor_k_major_128b(a_of(stage) + consumer * 64 * ROW_BYTES);
            const u64 b = ptx::wgmma_descriptor_k_major_128b(b_of(stage));
            ptx::wgmma_fence();
#pragma unroll
            for (u32 kk = 0; kk < BLOCK_K / 16; ++kk) {
                // 16 elements are 32 bytes, 2 units of the descriptor's address.
                ptx::wgmma_m64n128k16_bf16(acc, a + kk * 2, b + kk * 2, step > 0 || kk > 0);
            }
            ptx::wgmma_commit_group();
            // One group stays under way; with it done, the stage before is read.
            if (step > 0) {
                ptx::wgmma_wait_group<1>();
                release_stage<CLUSTER>(ring, (stage + STAGES - 1) % STAGES);
            }
            if (++stage == STAGES) {
                stage = 0;
                parity ^= 1;
            }
        }
        ptx::wgmma_wait_group<0>();
        ptx::keep_after_wait(acc);
        release_stage<CLUSTER>(ring, (stage + STAGES - 1) % STAGES);
        store_tile(d_map, consumer, tiles.row(i) + consumer * 64, tiles.col(i), acc);
    }
    if (threadIdx.x % WARPGROUP == 0) {
        ptx::cp_async_bulk_wait_group<0>();
    }
}

template <u32 CLUSTER>
__device__ __forceinline__ void gemm_nt(const TensorMap& a_map, const TensorMap& b_map,
                                        const TensorMap& d_map, u32 m, u32 n, u32 k) {
    const Tiles<CLUSTER> tiles(m, n);
    const u32 steps = (k + BLOCK_K - 1) / BLOCK_K;

    if (threadIdx.x == 0) {
        const Ring ring;
        for (u32 s = 0; s < STAGES; ++s) {
            ptx::mbarrier_init(&ring.full[s], 1);
            ptx::mbarrier_init(&ring.empty[s], CLUSTER * CONSUMER_WARPS);
        }
        ptx::fence_mbarrier_init();
        ptx::prefetch_tensormap(a_map);
        ptx::prefetch_tensormap(b_map);
        ptx::prefetch_tensormap(d_map);
    }
    if constexpr (CLUSTER == 1) {
        __syncthreads();
    } else {
        __syncwarp();
        ptx::cluster_arrive_release();
        ptx::cluster_wait_acquire();
    }

    // 65,536 registers: 128 threads of 40 and 256 of 232.
    if (threadIdx.x < WARPGROUP) {
        ptx::setmaxnreg_dec<40>();
        if (threadIdx.x < 32 && ptx::elect_one()) {
            produce<CLUSTER>(a_map, b_map, tiles, steps);
        }
    } else {
        ptx::setmaxnreg_inc<232>();
        consume<CLUSTER>(d_map, tiles, steps);
    }

    if constexpr (CLUSTER > 1) {
        __syncwarp();
        ptx::cluster_arrive_release();
        ptx::cluster_wait_acquire();
    }
}

}  // namespace gemm_sm90_parts

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gemm_nt_sm90a(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map,
                  const __grid_constant__ TensorMap d_map, u32 m, u32 n, u32 k) {
    gemm_nt<1>(a_map, b_map, d_map, m, n, k);
}

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(THREADS, 1)
    gemm_nt_cluster2_sm90a(const __grid_constant__ TensorMap a_map,
                           const __grid_constant__ TensorMap b_map,
                           const __grid_constant__ TensorMap d_map, u32 m, u32 n, u32 k) {
    gemm_nt<2>(a_map, b_map, d_map, m, n, k);
}
