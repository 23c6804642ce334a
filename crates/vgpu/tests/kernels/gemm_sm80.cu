// Grouped GEMM on the tensor cores of sm_80: bf16 in, f32 sums, bf16 out.
//
//   gemm_grouped_nt_sm80: D[r, n] = sum_k A[r, k] * B[e, n, k]     B [E, N, K]
//   gemm_grouped_nn_sm80: D[r, n] = sum_k A[r, k] * B[e, k, n]     B [E, K, N]
//   for the rows r of expert e: expert_offsets[e] <= r < expert_offsets[e + 1]
//
// The rows of an expert may be any number, also none; there is no padding between experts. N and K
// are multiples of 8, K > 0.
//
// Geometry: grid any (blocks stride over the output tiles, whose number only the device knows),
//   block 128, dynamic shared memory 3 * 8192 = 24576 bytes.
// Parameters: one `GroupedGemm`, by value. A [rows, K], D [rows, N], all row-major and 16-byte
//   aligned; expert_offsets [E + 1] u32, ascending.
// Synchronisation: a ring of cp.async stages. In step i a thread waits for its own copies of stage
//   i; the barrier after it makes all copies of that stage visible and says that everybody is done
//   with stage i - 1, whose slot then is filled again. A barrier after the last step frees the ring
//   for the next tile.

#include "ptx.cuh"

using ptx::u16;
using ptx::u32;
using ptx::u64;

struct GroupedGemm {
    const u16* a;               // bf16 [rows, K]
    const u16* b;               // bf16 [E, N, K] or [E, K, N]
    u16* d;                     // bf16 [rows, N]
    const u32* expert_offsets;  // [E + 1]
    u32 experts;
    u32 n;
    u32 k;
};
static_assert(sizeof(GroupedGemm) == 48, "the host writes this struct field by field");

// Not in a namespace: its symbol then has a plain name.
extern __shared__ __align__(16) u16 ring[];  // [STAGES, STAGE_ELEMS]

inline namespace gemm_sm80_parts {

// ---- Shape of the work --------------------------------------------------------------------------

constexpr u32 BLOCK_M = 64;
constexpr u32 BLOCK_N = 64;
constexpr u32 BLOCK_K = 32;
constexpr u32 STAGES = 3;
constexpr u32 THREADS = 128;  // 2 x 2 warps of 32 x 32 outputs each

constexpr u32 PIECE = 8;  // bf16 in 16 bytes
constexpr u32 A_ELEMS = BLOCK_M * BLOCK_K;
constexpr u32 B_ELEMS = BLOCK_N * BLOCK_K;
constexpr u32 STAGE_ELEMS = A_ELEMS + B_ELEMS;
static_assert(STAGES * STAGE_ELEMS * sizeof(u16) == 24576);

// ---- Shared-memory layout -----------------------------------------------------------------------

// Rows of 32 elements, 4 pieces: two rows fill the 32 banks, so the piece is permuted by the pair's
// number, and 8 rows of one column of pieces meet all banks.
__device__ __forceinline__ u32 at_k_major(u32 row, u32 piece) {
    return row * BLOCK_K + (piece ^ (row / 2 % 4)) * PIECE;
}

// Rows of 64 elements, 8 pieces: a row fills the banks.
__device__ __forceinline__ u32 at_n_major(u32 row, u32 piece) {
    return row * BLOCK_N + (piece ^ (row % 8)) * PIECE;
}

// ---- Tiles --------------------------------------------------------------------------------------

struct Tile {
    u32 expert;
    u32 row;      // first row of A and D
    u32 row_end;  // one past the expert's last
    u32 col;
};

// The `index`-th tile in the order expert, rows, columns; false past the last.
__device__ __forceinline__ bool find_tile(const GroupedGemm& p, u32 index, Tile& tile) {
    const u32 tiles_n = (p.n + BLOCK_N - 1) / BLOCK_N;
    const u32 tile_m = index / tiles_n;
    u32 first = 0;
    u32 begin = p.expert_offsets[0];
    for (u32 e = 0; e < p.experts; ++e) {
        const u32 end = p.expert_offsets[e + 1];
        const u32 tiles_m = (end - begin + BLOCK_M - 1) / BLOCK_M;
        if (tile_m < first + tiles_m) {
            tile = {e, begin + (tile_m - first) * BLOCK_M, end, index % tiles_n * BLOCK_N};
            return true;
        }
        first += tiles_m;
        begin = end;
    }
    return false;
}

// What lies outside the expert's rows, N or K is zero in shared memory and not read; its address is
// the matrix's first.
template <bool B_IS_KN>
__device__ __forceinline__ void load_stage(const GroupedGemm& p, const Tile& tile, u32 k0,
                                           u16* stage) {
    u16* a_tile = stage;
    u16* b_tile = stage + A_ELEMS;
    const u16* b = p.b + u64(tile.expert) * p.n * p.k;

    constexpr u32 A_PIECES = BLOCK_K / PIECE;
    for (u32 i = threadIdx.x; i < BLOCK_M * A_PIECES; i += THREADS) {
        const u32 row = i / A_PIECES;
        const u32 piece = i % A_PIECES;
        const u32 k = k0 + piece * PIECE;
        const bool inside = tile.row + row < tile.row_end && k < p.k;
        const u16* src = inside ? p.a + u64(tile.row + row) * p.k + k : p.a;
        ptx::cp_async_16(a_tile + at_k_major(row, piece), src, inside ? 16 : 0);
    }
    if constexpr (B_IS_KN) {
        constexpr u32 B_PIECES = BLOCK_N / PIECE;
        for (u32 i = threadIdx.x; i < BLOCK_K * B_PIECES; i += THREADS) {
            const u32 row = i / B_PIECES;
            const u32 piece = i % B_PIECES;
            const u32 n = tile.col + piece * PIECE;
            const bool inside = k0 + row < p.k && n < p.n;
            const u16* src = inside ? b + u64(k0 + row) * p.n + n : b;
            ptx::cp_async_16(b_tile + at_n_major(row, piece), src, inside ? 16 : 0);
        }
    } else {
        constexpr u32 B_PIECES = BLOCK_K / PIECE;
        for (u32 i = threadIdx.x; i < BLOCK_N * B_PIECES; i += THREADS) {
            const u32 row = i / B_PIECES;
            const u32 piece = i % B_PIECES;
            const u32 k = k0 + piece * PIECE;
            const bool inside = tile.col + row < p.n && k < p.k;
            const u16* src = inside ? b + u64(tile.col + row) * p.k + k : b;
            ptx::cp_async_16(b_tile + at_k_major(row, piece), src, inside ? 16 : 0);
        }
    }
}

// One stage: 2 steps of K = 16, in each 2 x 4 products of 16 x 8.
template <bool B_IS_KN>
__device__ __forceinline__ void multiply_stage(const u16* stage, u32 warp_m, u32 warp_n,
                                               float (&acc)[2][4][4]) {
    const u16* a_tile = stage;
    const u16* b_tile = stage + A_ELEMS;
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 kk = 0; kk < BLOCK_K / 16; ++kk) {
        u32 a[2][4];
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            // Matrices: upper and lower 8 rows of the left half of K, then of the right.
            ptx::ldmatrix_x4(a[i], a_tile + at_k_major(warp_m + i * 16 + lane % 16,
                                                       kk * 2 + lane / 16));
        }
        u32 b[2][4];
#pragma unroll
        for (u32 j = 0; j < 2; ++j) {
            // Matrices: both halves of K of the first 8 columns, then of the second.
            if constexpr (B_IS_KN) {
                ptx::ldmatrix_x4_trans(
                    b[j], b_tile + at_n_major(kk * 16 + lane % 16,
                                              (warp_n + j * 16) / PIECE + lane / 16));
            } else {
                ptx::ldmatrix_x4(b[j],
                                 b_tile + at_k_major(warp_n + j * 16 + lane / 16 * 8 + lane % 8,
                                                     kk * 2 + lane / 8 % 2));
            }
        }
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                ptx::mma_m16n8k16_bf16(acc[i][j], a[i], b[j / 2][j % 2 * 2],
                                       b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
}

// A thread holds rows lane / 4 and lane / 4 + 8, columns 2 (lane % 4) and the next, of each 16 x 8.
__device__ __forceinline__ void store_tile(const GroupedGemm& p, const Tile& tile, u32 warp_m,
                                           u32 warp_n, const float (&acc)[2][4][4]) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            const u32 row = tile.row + warp_m + i * 16 + half * 8 + lane / 4;
            if (row >= tile.row_end) {
                continue;
            }
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                const u32 col = tile.col + warp_n + j * 8 + lane % 4 * 2;
                if (col < p.n) {
                    *reinterpret_cast<u32*>(p.d + u64(row) * p.n + col) =
                        ptx::cvt_rn_bf16x2(acc[i][j][half * 2], acc[i][j][half * 2 + 1]);
                }
            }
        }
    }
}

template <bool B_IS_KN>
__device__ __forceinline__ void gemm_grouped(const GroupedGemm& p) {
    const u32 warp = threadIdx.x / 32;
    const u32 warp_m = warp / 2 * 32;
    const u32 warp_n = warp % 2 * 32;
    const u32 steps = (p.k + BLOCK_K - 1) / BLOCK_K;

    Tile tile;
    for (u32 index = blockIdx.x; find_tile(p, index, tile); index += gridDim.x) {
        float acc[2][4][4] = {};

        // A group a step, also where there is nothing to copy: the count of groups tells the stage.
        for (u32 s = 0; s < STAGES - 1; ++s) {
            if (s < steps) {
                load_stage<B_IS_KN>(p, tile, s * BLOCK_K, ring + s * STAGE_ELEMS);
            }
            ptx::cp_async_commit_group();
        }
        for (u32 step = 0; step < steps; ++step) {
            ptx::cp_async_wait_group<STAGES - 2>();
            __syncthreads();
            const u32 next = step + STAGES - 1;
            if (next < steps) {
                load_stage<B_IS_KN>(p, tile, next * BLOCK_K, ring + next % STAGES * STAGE_ELEMS);
            }
            ptx::cp_async_commit_group();
            multiply_stage<B_IS_KN>(ring + step % STAGES * STAGE_ELEMS, warp_m, warp_n, acc);
        }
        store_tile(p, tile, warp_m, warp_n, acc);
        __syncthreads();
    }
}

}  // namespace gemm_sm80_parts

extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_grouped_nt_sm80(const __grid_constant__ GroupedGemm p) {
    gemm_grouped<false>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_grouped_nn_sm80(const __grid_constant__ GroupedGemm p) {
    gemm_grouped<true>(p);
}
