// A tile of a product whose left operand is changed in registers on its way to wgmma.
//
//   D[m, n] = sum_k max(A[m, k], 0) * B[n, k]      A [64, K], B [128, K] bf16, D [64, 128] f32
//
// Geometry: grid 1, block 128 (a warpgroup), dynamic shared memory 24576 + 8 bytes.
// Parameters: maps of A (box 64 columns x 64 rows) and B (box 64 x 128), two-dimensional, bf16,
//   swizzle 128B, fill zeros; D f32 [64, 128] row-major; K u32, a multiple of 8, > 0.
// Synchronisation: one slot, so one mbarrier phase a step; all products are waited for, then a
//   barrier, before the slot is loaded again. ldmatrix reads A by the generic proxy:
//   fence.proxy.async orders these reads before the copy engine's next writes.

#include "ptx.cuh"

using ptx::TensorMap;
using ptx::u32;
using ptx::u64;
using ptx::u8;

inline namespace wgmma_registers_parts {

constexpr u32 BLOCK_M = 64;
constexpr u32 BLOCK_N = 128;
constexpr u32 BLOCK_K = 64;
constexpr u32 ROW_BYTES = BLOCK_K * 2;
constexpr u32 A_BYTES = BLOCK_M * ROW_BYTES;
constexpr u32 B_BYTES = BLOCK_N * ROW_BYTES;

// Zero where the sign bit is set, in both halves.
__device__ __forceinline__ u32 relu_bf16x2(u32 v) {
    u32 r;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(v), "r"(0));
    return r;
}

}  // namespace wgmma_registers_parts

// Not in a namespace: its symbol then has a plain name.
extern __shared__ __align__(1024) u8 shared[];

extern "C" __global__ void __launch_bounds__(128)
    wgmma_relu_registers_sm90a(const __grid_constant__ TensorMap a_map,
                               const __grid_constant__ TensorMap b_map, float* __restrict__ d,
                               u32 k) {
    u8* a_tile = shared;
    u8* b_tile = shared + A_BYTES;
    u64* full = reinterpret_cast<u64*>(shared + A_BYTES + B_BYTES);

    const u32 warp = threadIdx.x / 32;
    const u32 lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(full, 1);
        ptx::fence_proxy_async_shared();
    }
    __syncthreads();

    float acc[64];
    const u32 steps = (k + BLOCK_K - 1) / BLOCK_K;
    const u32 a_row = warp * 16 + lane % 16;
    for (u32 step = 0; step < steps; ++step) {
        if (threadIdx.x == 0) {
            ptx::mbarrier_arrive_expect_tx(full, A_BYTES + B_BYTES);
            ptx::tma_load_2d(a_tile, a_map, full, step * BLOCK_K, 0);
            ptx::tma_load_2d(b_tile, b_map, full, step * BLOCK_K, 0);
        }
        __syncwarp();
        while (!ptx::mbarrier_try_wait(full, step % 2)) {
        }

        u32 a[BLOCK_K / 16][4];
#pragma unroll
        for (u32 kk = 0; kk < BLOCK_K / 16; ++kk) {
            const u32 piece = kk * 2 + lane / 16;
            ptx::ldmatrix_x4(a[kk], a_tile + a_row * ROW_BYTES + (piece ^ (a_row % 8)) * 16);
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                a[kk][i] = relu_bf16x2(a[kk][i]);
            }
        }

        const u64 b = ptx::wgmma_descriptor_k_major_128b(b_tile);
        ptx::wgmma_fence();
#pragma unroll
        for (u32 kk = 0; kk < BLOCK_K / 16; ++kk) {
            ptx::wgmma_m64n128k16_bf16_ra(acc, a[kk], b + kk * 2, step > 0 || kk > 0);
        }
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<0>();
        ptx::keep_after_wait(acc);
        ptx::fence_proxy_async_shared();
        __syncthreads();
    }

    const u32 row = warp * 16 + lane / 4;
#pragma unroll
    for (u32 j = 0; j < BLOCK_N / 8; ++j) {
        const u32 col = j * 8 + lane % 4 * 2;
        *reinterpret_cast<float2*>(d + row * BLOCK_N + col) =
            make_float2(acc[4 * j], acc[4 * j + 1]);
        *reinterpret_cast<float2*>(d + (row + 8) * BLOCK_N + col) =
            make_float2(acc[4 * j + 2], acc[4 * j + 3]);
    }
}
