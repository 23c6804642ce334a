// m-grouped dgrad: D[m, :] = round(A[m, :] * B[e]) for the rows m of group e.
// A [M, depth], B [E, depth, cols], D [M, cols].
//
// Blocks and grid as in m_grouped; only B lies the other way.
#include "tollgate/abi/gemm.h"
#include "tollgate/gemm/finish.cuh"
#include "tollgate/gemm/groups.cuh"
#include "tollgate/gemm/load.cuh"

using namespace tollgate;

extern "C" __global__ void __launch_bounds__(tile::THREADS, 2)
    tg_m_grouped_transposed(const __grid_constant__ MGroupedParams p) {
    __shared__ tile::Shared shared;
    __shared__ GroupSlot slot;

    const RowRange rows = find_tile<tile::ROWS>(p.offsets, p.experts, p.rows,
                                                blockIdx.x % p.row_tiles, p.status, slot);
    if (rows.count == 0) {
        return;
    }
    const uint32_t col = blockIdx.x / p.row_tiles * tile::COLS;

    const Operand a{p.a, p.a_stride, static_cast<ElementType>(p.a_type), p.a_vector != 0};
    const Operand b{p.b, p.cols, static_cast<ElementType>(p.b_type), p.b_vector != 0};
    // Lines behind the end repeat the last one: what they give is not stored.
    const auto row_of = [&](uint32_t w) -> uint64_t {
        return rows.first + min(w, rows.count - 1);
    };
    const uint64_t matrix = static_cast<uint64_t>(rows.expert) * p.depth;
    tile::multiply(shared, p.depth, rows.count,
                   [&](tile::Operands& to, uint32_t first, uint32_t count) {
                       tile::load_terms_adjacent(to.left, a, row_of, rows.count, first, count);
                       tile::load_columns_adjacent(to.right, b, matrix + first, count, col, p.cols);
                   });

    const Result d{p.d, p.d_stride, static_cast<ElementType>(p.d_type), p.d_vector != 0};
    tile::store_tile(shared, rows, col, p.cols, false, d);
}
