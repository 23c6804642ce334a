// One tile of a product, [ROWS, COLS], by fused multiply-adds in f32.
//
// A sum is cut into the fewest equal blocks of at most CHAIN terms, by its length alone. A block is
// one chain of fused multiply-adds from 0 over ascending terms, and the blocks are added in order.
// So an element's bits depend on its row and its column and on nothing else, and they are the
// CPU's.
#pragma once

#include <cstdint>

#include "tollgate/warp.cuh"

namespace tollgate::tile {

inline constexpr uint32_t THREADS = 256;
inline constexpr uint32_t ROWS = 128;
inline constexpr uint32_t COLS = 64;
// Terms in shared memory at a time.
inline constexpr uint32_t DEPTH = 32;
// Elements of a thread.
inline constexpr uint32_t THREAD_ROWS = 8;
inline constexpr uint32_t THREAD_COLS = 4;
// Rows of a warp: a warp whose rows are all behind the group's end computes nothing, and loads
// none.
inline constexpr uint32_t WARP_ROWS = 16;
// The longest chain.
inline constexpr uint32_t CHAIN = 384;
// Elements behind each line in shared memory. With a pitch of 4 modulo 8 words, the lanes that
// store one column of a transposed tile go to 32 different banks; and lines stay aligned to 16
// bytes.
inline constexpr uint32_t PAD = 4;

static_assert(ROWS * COLS == THREADS * THREAD_ROWS * THREAD_COLS);
static_assert(ROWS == WARP_ROWS * (THREADS / WARP));

// [DEPTH, WIDTH]: one line a term.
template <uint32_t WIDTH>
struct Side {
    float at[DEPTH][WIDTH + PAD];
};

struct Operands {
    Side<ROWS> left;
    Side<COLS> right;
};

struct Shared {
    union {
        Operands operands;
        // [ROWS, COLS], once the sums are finished.
        float results[ROWS][COLS + PAD];
    };
    // [COLS]
    float bias[COLS];
};

// Terms of a chain in a sum of `depth`.
__device__ __forceinline__ uint32_t chain_length(uint32_t depth) {
    const uint32_t chains = max((depth + CHAIN - 1) / CHAIN, 1u);
    return max((depth + chains - 1) / chains, 1u);
}

// What a thread has of the result.
struct Sums {
    float chain[THREAD_ROWS][THREAD_COLS];
    float total[THREAD_ROWS][THREAD_COLS];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (uint32_t i = 0; i < THREAD_ROWS; ++i) {
#pragma unroll
            for (uint32_t j = 0; j < THREAD_COLS; ++j) {
                chain[i][j] = 0.0f;
                // -0 + x is x, whatever x.
                total[i][j] = -0.0f;
            }
        }
    }

    __device__ __forceinline__ void end_chain() {
#pragma unroll
        for (uint32_t i = 0; i < THREAD_ROWS; ++i) {
#pragma unroll
            for (uint32_t j = 0; j < THREAD_COLS; ++j) {
                total[i][j] = __fadd_rn(total[i][j], chain[i][j]);
                chain[i][j] = 0.0f;
            }
        }
    }

    // One term: line k of both sides.
    __device__ __forceinline__ void add(const Operands& from, uint32_t k, uint32_t row,
                                        uint32_t col) {
        float left[THREAD_ROWS];
#pragma unroll
        for (uint32_t i = 0; i < THREAD_ROWS; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(&from.left.at[k][row + i]);
            left[i] = four.x;
            left[i + 1] = four.y;
            left[i + 2] = four.z;
            left[i + 3] = four.w;
        }
        const float4 four = *reinterpret_cast<const float4*>(&from.right.at[k][col]);
        const float right[THREAD_COLS] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (uint32_t i = 0; i < THREAD_ROWS; ++i) {
#pragma unroll
            for (uint32_t j = 0; j < THREAD_COLS; ++j) {
                chain[i][j] = __fmaf_rn(left[i], right[j], chain[i][j]);
            }
        }
    }
};

// Computes the tile into `shared.results`: `load(operands, first, count)` brings terms
// first..first+count into shared memory, by all threads; lines behind `count` are not read, nor
// rows behind the last WARP_ROWS that `rows` reaches into. The whole block takes part; on return
// the results (and what was written to `shared.bias` before) may be read.
template <class Load>
__device__ __forceinline__ void multiply(Shared& shared, uint32_t depth, uint32_t rows, Load load) {
    const uint32_t row = warp_id() * WARP_ROWS + lane_id() / WARP_ROWS * THREAD_ROWS;
    const uint32_t col = lane_id() % WARP_ROWS * THREAD_COLS;
    const bool active = warp_id() * WARP_ROWS < rows;
    const uint32_t chain = chain_length(depth);
    uint32_t chain_end = chain;
    Sums sums;
    sums.clear();
    for (uint32_t first = 0; first < depth; first += DEPTH) {
        const uint32_t count = min(DEPTH, depth - first);
        load(shared.operands, first, count);
        __syncthreads();
        if (active && count == DEPTH && first + DEPTH <= chain_end) {
#pragma unroll 16
            for (uint32_t k = 0; k < DEPTH; ++k) {
                sums.add(shared.operands, k, row, col);
            }
        } else if (active) {
#pragma unroll 1
            for (uint32_t k = 0; k < count; ++k) {
                if (first + k == chain_end) {
                    sums.end_chain();
                    chain_end += chain;
                }
                sums.add(shared.operands, k, row, col);
            }
        }
        __syncthreads();
    }
    if (active) {
        sums.end_chain();
#pragma unroll
        for (uint32_t i = 0; i < THREAD_ROWS; ++i) {
            *reinterpret_cast<float4*>(&shared.results[row + i][col]) =
                make_float4(sums.total[i][0], sums.total[i][1], sums.total[i][2], sums.total[i][3]);
        }
    }
    __syncthreads();
}

}  // namespace tollgate::tile
