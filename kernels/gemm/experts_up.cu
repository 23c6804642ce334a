// The experts' first map with its activation, in one pass: pre = round(x * W_up[e]^T + b_up[e]) and
// act = round(act(pre)), or round(act(gate) * up) in the gated form; the activation takes the
// stored value, where backward will differentiate. x [A, H], W_up [E, N1, H], b_up [E, N1], pre [A,
// N1], act [A, I]; N1 = I, or 2I: gate, then up.
//
// Blocks and grid as in m_grouped. In the gated form the left half of a tile's columns are rows of
// the gate's part of W_up and the right half the same rows of the other part, so that both values
// of an element of act meet in one block.
#include "tollgate/abi/gemm.h"
#include "tollgate/activation.cuh"
#include "tollgate/gemm/finish.cuh"
#include "tollgate/gemm/groups.cuh"
#include "tollgate/gemm/load.cuh"

using namespace tollgate;

namespace tollgate {

// Columns of a part in a tile of the gated form.
inline constexpr uint32_t HALF = tile::COLS / 2;

// Rounds and stores one unit of pre; `v` becomes what was stored.
template <uint32_t UNIT>
__device__ __forceinline__ void store_pre(const ExpertsUpParams& p, uint64_t index, uint32_t count,
                                          float (&v)[UNIT]) {
    const ElementType type = static_cast<ElementType>(p.element_type);
    const uint4 raw = narrow(v, type);
    store_unit<UNIT>(p.pre, index, count, p.pre_vector, raw);
    widen(raw, type, v);
}

template <uint32_t UNIT>
__device__ __forceinline__ void finish(const ExpertsUpParams& p, const tile::Shared& shared,
                                       const RowRange& rows, uint32_t col) {
    const Activation activation = static_cast<Activation>(p.activation);
    const bool biased = p.up_bias != nullptr;
    const uint32_t width = p.gated ? HALF : tile::COLS;
    const auto each = [&](uint32_t row, uint32_t w, uint32_t count) {
        const uint64_t r = rows.first + row;
        const uint64_t index = r * p.pre_stride + col + w;
        float gate[UNIT];
        tile::finished_unit(shared, row, w, width, biased, gate);
        store_pre(p, index, count, gate);
        // Without a gate the other factor is 1, which changes no bit.
        float up[UNIT];
#pragma unroll
        for (uint32_t i = 0; i < UNIT; ++i) {
            up[i] = 1.0f;
        }
        if (p.gated) {
            tile::finished_unit(shared, row, HALF + w, width, biased, up);
            store_pre(p, index + p.intermediate, count, up);
        }
        with_activation(activation, [&](auto tag) {
#pragma unroll
            for (uint32_t i = 0; i < UNIT; ++i) {
                up[i] = __fmul_rn(activate(tag.VALUE, gate[i]), up[i]);
            }
        });
        store_unit<UNIT>(p.act, r * p.act_stride + col + w, count, p.act_vector,
                         narrow(up, static_cast<ElementType>(p.element_type)));
    };
    tile::each_unit<UNIT>(rows.count, width, col, p.intermediate, each);
}

}  // namespace tollgate

extern "C" __global__ void __launch_bounds__(tile::THREADS, 2)
    tg_experts_up(const __grid_constant__ ExpertsUpParams p) {
    __shared__ tile::Shared shared;
    __shared__ GroupSlot slot;

    const RowRange rows = find_tile<tile::ROWS>(p.offsets, p.experts, p.rows,
                                                blockIdx.x % p.row_tiles, p.status, slot);
    if (rows.count == 0) {
        return;
    }
    const uint32_t width = p.gated ? HALF : tile::COLS;
    const uint32_t col = blockIdx.x / p.row_tiles * width;
    const ElementType type = static_cast<ElementType>(p.element_type);

    // Row of W_up that column w of the tile comes from, within the expert; behind the end of a part
    // the last of it, whose results are not stored.
    const uint64_t matrix = static_cast<uint64_t>(rows.expert) * p.intermediate * (p.gated ? 2 : 1);
    const auto up_row = [&](uint32_t w) -> uint64_t {
        const uint32_t part = w / width;
        const uint32_t within = min(col + w % width, p.intermediate - 1);
        return matrix + static_cast<uint64_t>(part) * p.intermediate + within;
    };
    tile::load_bias(shared, p.up_bias, type, up_row, [](uint32_t) { return true; });
    const Operand x{p.x, p.x_stride, type, p.x_vector != 0};
    const Operand up{p.up, p.hidden, type, p.up_vector != 0};
    const auto row_of = [&](uint32_t w) -> uint64_t {
        return rows.first + min(w, rows.count - 1);
    };
    tile::multiply(shared, p.hidden, rows.count,
                   [&](tile::Operands& to, uint32_t first, uint32_t count) {
                       tile::load_terms_adjacent(to.left, x, row_of, rows.count, first, count);
                       tile::load_terms_adjacent(to.right, up, up_row, tile::COLS, first, count);
                   });

    if (type == ElementType::F32) {
        finish<WIDE_UNIT>(p, shared, rows, col);
    } else {
        finish<NARROW_UNIT>(p, shared, rows, col);
    }
}
