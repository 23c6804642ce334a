// Operands from global to shared memory, widened to f32.
#pragma once

#include <cstdint>

#include "tollgate/gemm/element.cuh"
#include "tollgate/gemm/tile.cuh"

namespace tollgate::tile {

// The two halves of a unit of 8 elements change places where `swap`; two lanes that would store to
// the same banks swap differently.
__device__ __forceinline__ uint4 swap_halves(uint4 raw, bool swap) {
    return swap ? make_uint4(raw.z, raw.w, raw.x, raw.y) : raw;
}

// `load_unit`, or without a question where the whole piece is known to be there and aligned.
template <bool WHOLE, uint32_t UNIT>
__device__ __forceinline__ uint4 load_piece(const Operand& from, uint64_t index, uint32_t count) {
    return WHOLE ? load_unit<UNIT>(from.data, index, UNIT, true)
                 : load_unit<UNIT>(from.data, index, count, from.vector);
}

// Terms from `index` on of column `w`: a warp's lanes have 16 columns, two lanes a sector of one.
template <bool WHOLE, uint32_t WIDTH>
__device__ __forceinline__ void transpose_wide(Side<WIDTH>& to, const Operand& from, uint64_t index,
                                               uint32_t w, uint32_t sector, uint32_t count) {
    constexpr uint32_t SECTOR = 2 * WIDE_UNIT;
    constexpr uint32_t STEP = THREADS / WARP / (WIDTH / WARP_ROWS);
    const uint32_t first = sector * SECTOR + lane_id() % 2 * WIDE_UNIT;
    index += first;
#pragma unroll
    for (uint32_t s = 0; s < DEPTH; s += STEP * SECTOR) {
        const uint32_t k = first + s;
        if (!WHOLE && k >= count) {
            continue;
        }
        float v[WIDE_UNIT];
        widen(load_piece<WHOLE, WIDE_UNIT>(from, index + s, count - k), from.type, v);
#pragma unroll
        for (uint32_t i = 0; i < WIDE_UNIT; ++i) {
            to.at[k + i][w] = v[i];
        }
    }
}

// The same of narrow types. The type is a constant where the piece is whole: no question an
// element. The odd lanes store their second half first, four lines from the even lanes' and not
// eight: those would be the same banks.
template <bool WHOLE, uint32_t WIDTH>
__device__ __forceinline__ void transpose_narrow(Side<WIDTH>& to, const Operand& from,
                                                 ElementType type, uint64_t index, uint32_t w,
                                                 uint32_t sector, uint32_t count) {
    constexpr uint32_t SECTOR = 2 * NARROW_UNIT;
    constexpr uint32_t STEP = THREADS / WARP / (WIDTH / WARP_ROWS);
    const uint32_t odd = lane_id() % 2;
    const uint32_t first = sector * SECTOR + odd * NARROW_UNIT;
    index += first;
#pragma unroll
    for (uint32_t s = 0; s < DEPTH; s += STEP * SECTOR) {
        const uint32_t k = first + s;
        if (!WHOLE && k >= count) {
            continue;
        }
        const uint4 raw = load_piece<WHOLE, NARROW_UNIT>(from, index + s, count - k);
        float v[NARROW_UNIT];
        widen(swap_halves(raw, odd), type, v);
        float(*lower)[WIDTH + PAD] = &to.at[k + 4 * odd];
        float(*upper)[WIDTH + PAD] = &to.at[k + 4 - 4 * odd];
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            lower[i][w] = v[i];
            upper[i][w] = v[4 + i];
        }
    }
}

// A side whose terms are adjacent in memory: column w of `to` is row `line(w)` of the matrix, its
// terms `first..first+count`. Of the columns, only the groups of WARP_ROWS that `used` reaches into
// are loaded; `line` must be valid for all of a group.
template <uint32_t WIDTH, class Line>
__device__ __forceinline__ void load_terms_adjacent(Side<WIDTH>& to, const Operand& from, Line line,
                                                    uint32_t used, uint32_t first, uint32_t count) {
    constexpr uint32_t GROUPS = WIDTH / WARP_ROWS;
    const uint32_t group = warp_id() % GROUPS;
    const uint32_t sector = warp_id() / GROUPS;
    if (group * WARP_ROWS >= used) {
        return;
    }
    const uint32_t w = group * WARP_ROWS + lane_id() / 2;
    const uint64_t index = line(w) * from.stride + first;
    const bool whole = from.vector && count == DEPTH;
    if (from.type == ElementType::F32) {
        if (whole) {
            transpose_wide<true>(to, from, index, w, sector, count);
        } else {
            transpose_wide<false>(to, from, index, w, sector, count);
        }
    } else if (!whole) {
        transpose_narrow<false>(to, from, from.type, index, w, sector, count);
    } else if (from.type == ElementType::F16) {
        transpose_narrow<true>(to, from, ElementType::F16, index, w, sector, count);
    } else {
        transpose_narrow<true>(to, from, ElementType::BF16, index, w, sector, count);
    }
}

// Rows of a matrix as lines of `to`; `index` is that of the first row's first column, `there` says
// how many columns there are from it on.
template <bool WHOLE, uint32_t WIDTH>
__device__ __forceinline__ void copy_wide(Side<WIDTH>& to, const Operand& from, uint64_t index,
                                          uint32_t there, uint32_t count) {
    constexpr uint32_t UNITS = WIDTH / WIDE_UNIT;
    const uint32_t line = threadIdx.x / UNITS;
    const uint32_t w = threadIdx.x % UNITS * WIDE_UNIT;
    index += line * from.stride + w;
#pragma unroll
    for (uint32_t s = 0; s < DEPTH; s += THREADS / UNITS) {
        if (!WHOLE && line + s >= count) {
            continue;
        }
        const uint4 raw = load_piece<WHOLE, WIDE_UNIT>(from, index + s * from.stride,
                                                       w < there ? there - w : 0);
        float v[WIDE_UNIT];
        widen(raw, from.type, v);
        *reinterpret_cast<float4*>(&to.at[line + s][w]) = make_float4(v[0], v[1], v[2], v[3]);
    }
}

// The same of narrow types. Lanes 32 bytes apart would meet in the same banks: half of them store
// their second half first.
template <bool WHOLE, uint32_t WIDTH>
__device__ __forceinline__ void copy_narrow(Side<WIDTH>& to, const Operand& from, ElementType type,
                                            uint64_t index, uint32_t there, uint32_t count) {
    constexpr uint32_t UNITS = WIDTH / NARROW_UNIT;
    const uint32_t line = threadIdx.x / UNITS;
    const uint32_t w = threadIdx.x % UNITS * NARROW_UNIT;
    const bool swap = lane_id() & 4;
    index += line * from.stride + w;
#pragma unroll
    for (uint32_t s = 0; s < DEPTH; s += THREADS / UNITS) {
        if (!WHOLE && line + s >= count) {
            continue;
        }
        const uint4 raw = load_piece<WHOLE, NARROW_UNIT>(from, index + s * from.stride,
                                                         w < there ? there - w : 0);
        float v[NARROW_UNIT];
        widen(swap_halves(raw, swap), type, v);
        float* at = &to.at[line + s][w];
        *reinterpret_cast<float4*>(at + 4 * swap) = make_float4(v[0], v[1], v[2], v[3]);
        *reinterpret_cast<float4*>(at + 4 * !swap) = make_float4(v[4], v[5], v[6], v[7]);
    }
}

// A side whose columns are adjacent in memory: line k of `to` is row `first + k` of the matrix,
// columns from `col`; those at or behind `cols` are 0.
template <uint32_t WIDTH>
__device__ __forceinline__ void load_columns_adjacent(Side<WIDTH>& to, const Operand& from,
                                                      uint64_t first, uint32_t count, uint32_t col,
                                                      uint32_t cols) {
    const uint64_t index = first * from.stride + col;
    const uint32_t there = cols - col;
    const bool whole = from.vector && count == DEPTH && there >= WIDTH;
    if (from.type == ElementType::F32) {
        if (whole) {
            copy_wide<true>(to, from, index, there, count);
        } else {
            copy_wide<false>(to, from, index, there, count);
        }
    } else if (!whole) {
        copy_narrow<false>(to, from, from.type, index, there, count);
    } else if (from.type == ElementType::F16) {
        copy_narrow<true>(to, from, ElementType::F16, index, there, count);
    } else {
        copy_narrow<true>(to, from, ElementType::BF16, index, there, count);
    }
}

}  // namespace tollgate::tile
