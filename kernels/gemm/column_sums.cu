// Bias gradients: sums[e] (+)= sum of A[m, :] over the rows m of group e, in order.
// A [M, cols], sums [E, cols] f32.
//
// A thread has one column of one expert, a warp 32 neighbours. The chain of additions is one, but
// several rows are loaded ahead of it.
#include "tollgate/abi/gemm.h"
#include "tollgate/gemm/element.cuh"
#include "tollgate/gemm/groups.cuh"
#include "tollgate/gemm/tile.cuh"

using namespace tollgate;

namespace tollgate {

// Rows in flight.
inline constexpr uint32_t AHEAD = 8;

}  // namespace tollgate

extern "C" __global__ void __launch_bounds__(tile::THREADS)
    tg_column_sums(const __grid_constant__ ColumnSumsParams p) {
    __shared__ GroupSlot slot;

    const uint32_t strips = (p.cols - 1) / tile::THREADS + 1;
    const uint32_t expert = blockIdx.x / strips;
    RowRange group;
    if (!find_group(p.offsets, p.experts, p.rows, expert, p.status, slot, group)) {
        return;
    }
    const uint32_t col = blockIdx.x % strips * tile::THREADS + threadIdx.x;
    if (col >= p.cols) {
        return;
    }
    const ElementType type = static_cast<ElementType>(p.a_type);
    float sum = 0.0f;
    uint64_t index = group.first * p.a_stride + col;
    uint32_t row = 0;
    for (; row + AHEAD <= group.count; row += AHEAD) {
        float v[AHEAD];
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; ++i) {
            v[i] = load_element(p.a, index + i * p.a_stride, type);
        }
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; ++i) {
            sum = __fadd_rn(sum, v[i]);
        }
        index += AHEAD * p.a_stride;
    }
    for (; row < group.count; ++row) {
        sum = __fadd_rn(sum, load_element(p.a, index, type));
        index += p.a_stride;
    }
    float* to = p.sums + static_cast<uint64_t>(expert) * p.cols + col;
    *to = p.accumulate ? __fadd_rn(*to, sum) : sum;
}
