// m-grouped product: D[m, :] = round(A[m, :] * B[e]^T + bias[e]) for the rows m of group e.
// A [M, depth], B [E, cols, depth], bias [E, cols], D [M, cols].
//
// A block computes one tile of one group. The grid has ceil(bound/ROWS) + E tiles of rows for each
// strip of columns; surplus blocks find nothing and leave. Blocks of one strip follow each other,
// so that they share its part of B in L2.
#include "tollgate/abi/gemm.h"
#include "tollgate/gemm/finish.cuh"
#include "tollgate/gemm/groups.cuh"
#include "tollgate/gemm/load.cuh"

using namespace tollgate;

extern "C" __global__ void __launch_bounds__(tile::THREADS, 2)
    tg_m_grouped(const __grid_constant__ MGroupedParams p) {
    __shared__ tile::Shared shared;
    __shared__ GroupSlot slot;

    const RowRange rows = find_tile<tile::ROWS>(p.offsets, p.experts, p.rows,
                                                blockIdx.x % p.row_tiles, p.status, slot);
    if (rows.count == 0) {
        return;
    }
    const uint32_t col = blockIdx.x / p.row_tiles * tile::COLS;

    tile::load_bias(
        shared, p.bias, static_cast<ElementType>(p.b_type),
        [&](uint32_t w) { return static_cast<uint64_t>(rows.expert) * p.cols + col + w; },
        [&](uint32_t w) { return col + w < p.cols; });
    const Operand a{p.a, p.a_stride, static_cast<ElementType>(p.a_type), p.a_vector != 0};
    const Operand b{p.b, p.depth, static_cast<ElementType>(p.b_type), p.b_vector != 0};
    // Lines behind the end repeat the last one: what they give is not stored.
    const auto row_of = [&](uint32_t w) -> uint64_t {
        return rows.first + min(w, rows.count - 1);
    };
    const auto col_of = [&](uint32_t w) -> uint64_t {
        return static_cast<uint64_t>(rows.expert) * p.cols + min(col + w, p.cols - 1);
    };
    tile::multiply(shared, p.depth, rows.count,
                   [&](tile::Operands& to, uint32_t first, uint32_t count) {
                       tile::load_terms_adjacent(to.left, a, row_of, rows.count, first, count);
                       tile::load_terms_adjacent(to.right, b, col_of, tile::COLS, first, count);
                   });

    const Result d{p.d, p.d_stride, static_cast<ElementType>(p.d_type), p.d_vector != 0};
    tile::store_tile(shared, rows, col, p.cols, p.bias != nullptr, d);
}
