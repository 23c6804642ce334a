// dgrad of the experts' second map and the derivative of the activation, in one pass:
// dact = dy * W_down[e] stays in f32, dpre = round(dact * act'(pre)); in the gated form
// round(dact * up * act'(gate)) for the gate's part and round(dact * act(gate)) for the other.
// dy [A, H], W_down [E, H, I], pre and dpre [A, N1]; N1 = I, or 2I: gate, then up.
//
// Blocks and grid as in m_grouped_transposed.
#include "tollgate/abi/gemm.h"
#include "tollgate/activation.cuh"
#include "tollgate/gemm/finish.cuh"
#include "tollgate/gemm/groups.cuh"
#include "tollgate/gemm/load.cuh"

using namespace tollgate;

namespace tollgate {

template <uint32_t UNIT>
__device__ __forceinline__ void load_pre(const ExpertsDownBackwardParams& p, uint64_t index,
                                         uint32_t count, float (&v)[UNIT]) {
    widen(load_unit<UNIT>(p.pre, index, count, p.pre_vector),
          static_cast<ElementType>(p.element_type), v);
}

template <uint32_t UNIT>
__device__ __forceinline__ void store_dpre(const ExpertsDownBackwardParams& p, uint64_t index,
                                           uint32_t count, const float (&v)[UNIT]) {
    store_unit<UNIT>(p.dpre, index, count, p.dpre_vector,
                     narrow(v, static_cast<ElementType>(p.element_type)));
}

template <uint32_t UNIT>
__device__ __forceinline__ void finish(const ExpertsDownBackwardParams& p,
                                       const tile::Shared& shared, const RowRange& rows,
                                       uint32_t col) {
    const Activation activation = static_cast<Activation>(p.activation);
    tile::each_unit<UNIT>(
        rows.count, tile::COLS, col, p.intermediate, [&](uint32_t row, uint32_t w, uint32_t count) {
            const uint64_t r = rows.first + row;
            const uint64_t from = r * p.pre_stride + col + w;
            const uint64_t to = r * p.dpre_stride + col + w;
            float dact[UNIT];
            tile::read_unit(&shared.results[row][w], tile::COLS, dact);
            float gate[UNIT];
            load_pre(p, from, count, gate);
            // Without a gate the other factor is 1, which changes no bit.
            float up[UNIT];
#pragma unroll
            for (uint32_t i = 0; i < UNIT; ++i) {
                up[i] = 1.0f;
            }
            if (p.gated) {
                load_pre(p, from + p.intermediate, count, up);
            }
            float dgate[UNIT];
            float dup[UNIT];
            with_activation(activation, [&](auto tag) {
#pragma unroll
                for (uint32_t i = 0; i < UNIT; ++i) {
                    dup[i] = __fmul_rn(dact[i], activate(tag.VALUE, gate[i]));
                    dgate[i] = __fmul_rn(__fmul_rn(dact[i], up[i]),
                                         activation_derivative(tag.VALUE, gate[i]));
                }
            });
            if (p.gated) {
                store_dpre(p, to + p.intermediate, count, dup);
            }
            store_dpre(p, to, count, dgate);
        });
}

}  // namespace tollgate

extern "C" __global__ void __launch_bounds__(tile::THREADS, 2)
    tg_experts_down_backward(const __grid_constant__ ExpertsDownBackwardParams p) {
    __shared__ tile::Shared shared;
    __shared__ GroupSlot slot;

    const RowRange rows = find_tile<tile::ROWS>(p.offsets, p.experts, p.rows,
                                                blockIdx.x % p.row_tiles, p.status, slot);
    if (rows.count == 0) {
        return;
    }
    const uint32_t col = blockIdx.x / p.row_tiles * tile::COLS;
    const ElementType type = static_cast<ElementType>(p.element_type);

    const Operand dy{p.dy, p.dy_stride, type, p.dy_vector != 0};
    const Operand down{p.down, p.intermediate, type, p.down_vector != 0};
    // Lines behind the end repeat the last one: what they give is not stored.
    const auto row_of = [&](uint32_t w) -> uint64_t {
        return rows.first + min(w, rows.count - 1);
    };
    const uint64_t matrix = static_cast<uint64_t>(rows.expert) * p.hidden;
    tile::multiply(shared, p.hidden, rows.count,
                   [&](tile::Operands& to, uint32_t first, uint32_t count) {
                       tile::load_terms_adjacent(to.left, dy, row_of, rows.count, first, count);
                       tile::load_columns_adjacent(to.right, down, matrix + first, count, col,
                                                   p.intermediate);
                   });

    if (type == ElementType::F32) {
        finish<WIDE_UNIT>(p, shared, rows, col);
    } else {
        finish<NARROW_UNIT>(p, shared, rows, col);
    }
}
