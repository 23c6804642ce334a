// Row sums by clusters of four blocks, in three ways of bringing the blocks' parts together.
//
//   out[r] = sum_c in[r, c]
//
//   cluster_sum_dsmem:         rank 0 reads the parts in its peers' shared memory
//   cluster_sum_remote_arrive: the peers store into rank 0's shared memory, arrive at its mbarrier
//   cluster_sum_st_async:      the peers send by st.async, which completes bytes of that mbarrier
//
// Every order of summation is fixed: per thread, per warp, per block, per cluster.
//
// Geometry: grid any multiple of 4, cluster (4, 1, 1) from the kernel's attribute, block 128,
//   static shared memory only; clusters stride over the rows.
// Parameters: in [rows, cols] f32, out [rows] f32, rows, cols.
// Synchronisation: dsmem: a cluster barrier between writing and reading the parts. The other two:
//   the mbarrier's phase, one a row; its initialisation is published by a fence and a cluster
//   barrier. In all three a cluster barrier at the end of a row frees the parts for the next one,
//   and after the last keeps the blocks until nobody needs their shared memory.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

inline namespace cluster_reduce_parts {

constexpr u32 CLUSTER = 4;
constexpr u32 THREADS = 128;

// This block's part of a row's sum, in thread 0.
__device__ __forceinline__ float block_part(const float* __restrict__ in, u32 row, u32 cols,
                                            float (&warp_sums)[THREADS / 32]) {
    const float* values = in + u64(row) * cols;
    float sum = 0.0f;
    for (u32 c = ptx::cluster_ctarank() * THREADS + threadIdx.x; c < cols; c += CLUSTER * THREADS) {
        sum += values[c];
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        sum += __shfl_down_sync(0xffffffff, sum, offset);
    }
    if (threadIdx.x % 32 == 0) {
        warp_sums[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    return (warp_sums[0] + warp_sums[1]) + (warp_sums[2] + warp_sums[3]);
}

__device__ __forceinline__ void cluster_sync() {
    ptx::cluster_arrive_release();
    ptx::cluster_wait_acquire();
}

__device__ __forceinline__ void init_for_cluster(u64* bar, u32 arrivals) {
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(bar, arrivals);
        ptx::fence_mbarrier_init();
    }
    __syncwarp();
    cluster_sync();
}

__device__ __forceinline__ float sum_of_parts(const float (&parts)[CLUSTER]) {
    return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

}  // namespace cluster_reduce_parts

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
    cluster_sum_dsmem(const float* __restrict__ in, float* __restrict__ out, u32 rows, u32 cols) {
    __shared__ float warp_sums[THREADS / 32];
    __shared__ float part;

    for (u32 row = ptx::clusterid_x(); row < rows; row += ptx::nclusterid_x()) {
        const float sum = block_part(in, row, cols, warp_sums);
        if (threadIdx.x == 0) {
            part = sum;
        }
        __syncwarp();
        cluster_sync();
        if (ptx::cluster_ctarank() == 0 && threadIdx.x == 0) {
            float parts[CLUSTER];
#pragma unroll
            for (u32 rank = 0; rank < CLUSTER; ++rank) {
                parts[rank] = ptx::ld_shared_cluster_f32(ptx::mapa(&part, rank));
            }
            out[row] = sum_of_parts(parts);
        }
        __syncwarp();
        cluster_sync();
    }
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
    cluster_sum_remote_arrive(const float* __restrict__ in, float* __restrict__ out, u32 rows,
                              u32 cols) {
    __shared__ float warp_sums[THREADS / 32];
    __shared__ float parts[CLUSTER];
    __shared__ u64 arrived;

    const u32 rank = ptx::cluster_ctarank();
    init_for_cluster(&arrived, CLUSTER);

    u32 parity = 0;
    for (u32 row = ptx::clusterid_x(); row < rows; row += ptx::nclusterid_x()) {
        const float sum = block_part(in, row, cols, warp_sums);
        if (threadIdx.x == 0) {
            ptx::st_shared_cluster_f32(ptx::mapa(&parts[rank], 0), sum);
            ptx::mbarrier_arrive_release_cluster(ptx::mapa(&arrived, 0));
            if (rank == 0) {
                while (!ptx::mbarrier_try_wait_cluster(&arrived, parity)) {
                }
                out[row] = sum_of_parts(parts);
            }
        }
        parity ^= 1;
        __syncwarp();
        cluster_sync();
    }
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
    cluster_sum_st_async(const float* __restrict__ in, float* __restrict__ out, u32 rows,
                         u32 cols) {
    __shared__ float warp_sums[THREADS / 32];
    __shared__ float parts[CLUSTER];
    __shared__ u64 arrived;

    const u32 rank = ptx::cluster_ctarank();
    init_for_cluster(&arrived, 1);

    u32 parity = 0;
    for (u32 row = ptx::clusterid_x(); row < rows; row += ptx::nclusterid_x()) {
        const float sum = block_part(in, row, cols, warp_sums);
        if (threadIdx.x == 0) {
            // A peer's bytes may come before they are expected: the phase stays open until the
            // arrival here, and the count of bytes may be negative until then.
            if (rank == 0) {
                ptx::mbarrier_arrive_expect_tx(&arrived, CLUSTER * sizeof(float));
            }
            ptx::st_async_f32(ptx::mapa(&parts[rank], 0), sum, ptx::mapa(&arrived, 0));
            if (rank == 0) {
                while (!ptx::mbarrier_try_wait_cluster(&arrived, parity)) {
                }
                out[row] = sum_of_parts(parts);
            }
        }
        parity ^= 1;
        __syncwarp();
        cluster_sync();
    }
}
