// What happens to a finished tile: a walk over its units of 16 bytes of output.
#pragma once

#include <cstdint>

#include "tollgate/gemm/element.cuh"
#include "tollgate/gemm/groups.cuh"
#include "tollgate/gemm/tile.cuh"

namespace tollgate::tile {

// UNIT values of a line in shared memory, by a walk over units that is `width` columns wide. Eight
// lanes that are 32 bytes apart would meet in the same banks: half of them read their second half
// first. Where a walk is only four units wide, the other four lanes are on the next line, whose
// banks are others already.
template <uint32_t UNIT>
__device__ __forceinline__ void read_unit(const float* line, uint32_t width, float (&v)[UNIT]) {
    if constexpr (UNIT == WIDE_UNIT) {
        const float4 four = *reinterpret_cast<const float4*>(line);
        v[0] = four.x;
        v[1] = four.y;
        v[2] = four.z;
        v[3] = four.w;
    } else {
        const bool swap = width > 4 * UNIT && lane_id() & 4;
        const float4 one = *reinterpret_cast<const float4*>(line + 4 * swap);
        const float4 two = *reinterpret_cast<const float4*>(line + 4 * !swap);
        const float4 low = swap ? two : one;
        const float4 high = swap ? one : two;
        v[0] = low.x;
        v[1] = low.y;
        v[2] = low.z;
        v[3] = low.w;
        v[4] = high.x;
        v[5] = high.y;
        v[6] = high.z;
        v[7] = high.w;
    }
}

// A finished unit of such a walk: the result and its bias, if there is one.
template <uint32_t UNIT>
__device__ __forceinline__ void finished_unit(const Shared& shared, uint32_t row, uint32_t col,
                                              uint32_t width, bool biased, float (&v)[UNIT]) {
    read_unit(&shared.results[row][col], width, v);
    if (biased) {
        float bias[UNIT];
        read_unit(&shared.bias[col], width, bias);
#pragma unroll
        for (uint32_t i = 0; i < UNIT; ++i) {
            v[i] = __fadd_rn(v[i], bias[i]);
        }
    }
}

// Calls `each(row, col, count)` for the units of the first `rows` rows and `width` columns of a tile
// that begins at column `col`: `count` of a unit's columns are below `cols`.
template <uint32_t UNIT, class Each>
__device__ __forceinline__ void each_unit(uint32_t rows, uint32_t width, uint32_t col,
                                          uint32_t cols, Each each) {
    const uint32_t units = width / UNIT;
#pragma unroll 1
    for (uint32_t u = threadIdx.x; u < rows * units; u += THREADS) {
        const uint32_t w = u % units * UNIT;
        if (col + w < cols) {
            each(u / units, w, min(UNIT, cols - col - w));
        }
    }
}

// Brings the bias of a tile's columns into shared memory: column w has element `index(w)`, if
// `there(w)`. `multiply` makes it visible.
template <class Index, class There>
__device__ __forceinline__ void load_bias(Shared& shared, const void* bias, ElementType type,
                                          Index index, There there) {
    const uint32_t w = threadIdx.x;
    if (bias != nullptr && w < COLS) {
        shared.bias[w] = there(w) ? load_element(bias, index(w), type) : 0.0f;
    }
}

template <uint32_t UNIT>
__device__ __forceinline__ void store_units(const Shared& shared, const RowRange& rows,
                                            uint32_t col, uint32_t cols, bool biased,
                                            const Result& d) {
    const auto store = [&](uint32_t row, uint32_t w, uint32_t count) {
        float v[UNIT];
        finished_unit(shared, row, w, COLS, biased, v);
        const uint64_t index = (rows.first + row) * d.stride + col + w;
        store_unit<UNIT>(d.data, index, count, d.vector, narrow(v, d.type));
    };
    each_unit<UNIT>(rows.count, COLS, col, cols, store);
}

// D = round(results + bias) for the rows of a tile and its columns from `col`, of `cols` in all.
__device__ __forceinline__ void store_tile(const Shared& shared, const RowRange& rows, uint32_t col,
                                           uint32_t cols, bool biased, const Result& d) {
    if (d.type == ElementType::F32) {
        store_units<WIDE_UNIT>(shared, rows, col, cols, biased, d);
    } else {
        store_units<NARROW_UNIT>(shared, rows, col, cols, biased, d);
    }
}

}  // namespace tollgate::tile
