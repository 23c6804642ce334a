// k-grouped wgrad: W[e] (+)= sum of A[m, :]^T * X[m, :] over the rows m of group e, in order.
// A [M, n], X [M, k], W [E, n, k] f32.
//
// A block computes one tile [n, k] of one expert's matrix and walks all rows of the group. Empty
// groups are sums without terms: they write zeros, or add nothing.
#include "tollgate/abi/gemm.h"
#include "tollgate/gemm/finish.cuh"
#include "tollgate/gemm/groups.cuh"
#include "tollgate/gemm/load.cuh"

using namespace tollgate;

namespace tollgate {

// The unit of W that is added to. Not through the read-only path: this kernel writes W.
__device__ __forceinline__ void load_before(const float* at, uint32_t count, bool vector,
                                            float (&v)[WIDE_UNIT]) {
    if (vector && count >= WIDE_UNIT) {
        const float4 four = *reinterpret_cast<const float4*>(at);
        v[0] = four.x;
        v[1] = four.y;
        v[2] = four.z;
        v[3] = four.w;
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < WIDE_UNIT; ++i) {
        v[i] = i < count ? at[i] : 0.0f;
    }
}

}  // namespace tollgate

extern "C" __global__ void __launch_bounds__(tile::THREADS, 2)
    tg_k_grouped(const __grid_constant__ KGroupedParams p) {
    __shared__ tile::Shared shared;
    __shared__ GroupSlot slot;

    const uint32_t n_tiles = (p.n - 1) / tile::ROWS + 1;
    const uint32_t k_tiles = (p.k - 1) / tile::COLS + 1;
    const uint32_t n_first = blockIdx.x % n_tiles * tile::ROWS;
    const uint32_t k_first = blockIdx.x / n_tiles % k_tiles * tile::COLS;
    const uint32_t expert = blockIdx.x / n_tiles / k_tiles;
    RowRange group;
    if (!find_group(p.offsets, p.experts, p.rows, expert, p.status, slot, group)) {
        return;
    }

    const Operand a{p.a, p.a_stride, static_cast<ElementType>(p.a_type), p.a_vector != 0};
    const Operand x{p.x, p.x_stride, static_cast<ElementType>(p.x_type), p.x_vector != 0};
    const uint32_t n_count = min(tile::ROWS, p.n - n_first);
    tile::multiply(shared, group.count, n_count,
                   [&](tile::Operands& to, uint32_t first, uint32_t count) {
                       const uint64_t row = group.first + first;
                       tile::load_columns_adjacent(to.left, a, row, count, n_first, p.n);
                       tile::load_columns_adjacent(to.right, x, row, count, k_first, p.k);
                   });

    const uint64_t matrix = static_cast<uint64_t>(expert) * p.n + n_first;
    tile::each_unit<WIDE_UNIT>(
        n_count, tile::COLS, k_first, p.k, [&](uint32_t row, uint32_t w, uint32_t count) {
            float v[WIDE_UNIT];
            tile::read_unit(&shared.results[row][w], tile::COLS, v);
            const uint64_t index = (matrix + row) * p.k + k_first + w;
            if (p.accumulate) {
                float before[WIDE_UNIT];
                load_before(p.w + index, count, p.w_vector, before);
#pragma unroll
                for (uint32_t i = 0; i < WIDE_UNIT; ++i) {
                    v[i] = __fadd_rn(before[i], v[i]);
                }
            }
            store_unit<WIDE_UNIT>(p.w, index, count, p.w_vector, narrow(v, ElementType::F32));
        });
}
