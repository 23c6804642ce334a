// From blocks of tokens to the routing table, and the losses along the way.
//
// Whoever selected left for every block of tokens: the number of assignments, a histogram over the
// experts, the assignments themselves (in slots of k_max a token, expert -1 in unused ones), and
// for the losses sums in f64. B blocks of tokens_per_block tokens, T tokens, E experts.
//
// tg_finish: block 0 writes expert_offsets [E+1], block 1 the losses, the others token_offsets
// [T+1] of 1024 tokens each and move their assignments together. Where there are many blocks,
// tg_finish_reduce has summed over them before; otherwise tg_finish does so as it goes.

#include <cstdint>

#include "tollgate/abi/selection.h"
#include "tollgate/block.cuh"
#include "tollgate/coin.cuh"

namespace tollgate {

inline constexpr uint32_t THREADS = 1024;
// Tokens of a block of tg_finish.
inline constexpr uint32_t FINISH_TOKENS = 1024;
// Experts of a block of tg_finish_reduce: one a lane.
inline constexpr uint32_t REDUCE_EXPERTS = WARP;

// ---- sums over the blocks of tokens ----

// The sum of column `column` of `rows` x `columns` values, over the rows first, first + step, ...
template <typename Sum, typename Value>
__device__ __forceinline__ Sum column_sum(const Value* values, uint32_t rows, uint32_t columns,
                                          uint32_t column, uint32_t first, uint32_t step) {
    Sum sum = 0;
    const Value* at = values + static_cast<uint64_t>(first) * columns + column;
    const uint64_t stride = static_cast<uint64_t>(step) * columns;
#pragma unroll 8
    for (uint32_t row = first; row < rows; row += step) {
        sum += *at;
        at += stride;
    }
    return sum;
}

// Threads that share a column of a tile: a tile is as wide as E, up to the whole block.
struct Tile {
    uint32_t width;
    uint32_t column;
    uint32_t group;
    uint32_t groups;
};

__device__ __forceinline__ Tile tile_of(uint32_t columns) {
    uint32_t width = WARP;
    while (width < THREADS && width < columns) {
        width *= 2;
    }
    return {width, threadIdx.x % width, threadIdx.x / width, THREADS / width};
}

// The sums of the columns tile.column + start of all rows, in the threads of group 0. The groups'
// sums are added in order.
template <typename Sum, typename Value>
__device__ __forceinline__ Sum tile_sum(const Value* values, uint32_t rows, uint32_t columns,
                                        uint32_t start, const Tile& tile, Sum* partial) {
    const uint32_t column = start + tile.column;
    Sum sum = 0;
    if (column < columns) {
        sum = column_sum<Sum>(values, rows, columns, column, tile.group, tile.groups);
    }
    if (tile.groups == 1) {
        return sum;
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (tile.group == 0) {
        for (uint32_t group = 1; group < tile.groups; ++group) {
            sum += partial[group * tile.width + tile.column];
        }
    }
    __syncthreads();
    return sum;
}

// The columns of one tile of tg_finish_reduce, summed into `sums`.
template <typename Sum, typename Value>
__device__ __forceinline__ void reduce_tile(const Value* values, Sum* sums, uint32_t rows,
                                            uint32_t columns, uint32_t tile, Sum* partial) {
    const uint32_t column = tile * REDUCE_EXPERTS + lane_id();
    Sum sum = 0;
    if (column < columns) {
        sum = column_sum<Sum>(values, rows, columns, column, warp_id(), THREADS / WARP);
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (warp_id() == 0 && column < columns) {
        for (uint32_t warp = 1; warp < THREADS / WARP; ++warp) {
            sum += partial[warp * WARP + lane_id()];
        }
        sums[column] = sum;
    }
}

// Counts [B+1] to their exclusive prefix sums, in place.
__device__ __forceinline__ void scan_counts(int32_t* counts, uint32_t blocks,
                                            BlockScratch& scratch) {
    uint32_t total = 0;
    for (uint64_t start = 0; start < blocks; start += THREADS) {
        const uint64_t i = start + threadIdx.x;
        const uint32_t count = i < blocks ? counts[i] : 0;
        const Ranked at = block_exclusive_sum<THREADS>(count, scratch);
        if (i < blocks) {
            counts[i] = static_cast<int32_t>(total + at.before);
        }
        total += at.total;
    }
    if (threadIdx.x == 0) {
        counts[blocks] = static_cast<int32_t>(total);
    }
}

// ---- tokens ----

// Moves the used slots of first..end to `at` and on, in their order, and writes their tokens'
// offsets. `experts` may be expert_indices itself: nothing moves up, and what is written over was
// read before.
__device__ __forceinline__ void move_together(const FinishParams& p, const int32_t* experts,
                                              const float* weights, uint32_t first, uint32_t end,
                                              uint32_t at, BlockScratch& scratch) {
    for (uint32_t start = first; start < end; start += THREADS) {
        const uint32_t i = start + threadIdx.x;
        const int32_t expert = i < end ? experts[i] : -1;
        const bool used = expert >= 0;
        const float weight = used ? weights[i] : 0.0f;
        const Ranked rank = block_rank<THREADS>(used, scratch);
        const uint32_t to = at + rank.before;
        if (used) {
            p.expert_indices[to] = expert;
            p.routing_weights[to] = weight;
        }
        if (i < end && i % p.k_max == 0) {
            p.token_offsets[i / p.k_max] = static_cast<int32_t>(to);
        }
        at += rank.total;
        // Before the next round reads what this one may have written beyond.
        __syncthreads();
    }
}

// The assignments of all tokens, and of those before block `before` of tokens.
__device__ __forceinline__ Ranked assignments(const FinishParams& p, uint32_t before,
                                              BlockScratch& scratch) {
    if (p.reduced) {
        const uint32_t b = before < p.num_blocks ? before : p.num_blocks;
        return {static_cast<uint32_t>(p.block_counts[b]),
                static_cast<uint32_t>(p.block_counts[p.num_blocks])};
    }
    uint32_t of_those_before = 0;
    uint32_t of_the_rest = 0;
    for (uint32_t b = threadIdx.x; b < p.num_blocks; b += THREADS) {
        const uint32_t count = p.block_counts[b];
        (b < before ? of_those_before : of_the_rest) += count;
    }
    of_those_before = block_sum<THREADS>(of_those_before, scratch);
    return {of_those_before, of_those_before + block_sum<THREADS>(of_the_rest, scratch)};
}

__device__ __forceinline__ void finish_tokens(const FinishParams& p, uint32_t block,
                                              BlockScratch& scratch) {
    const uint32_t first = block * FINISH_TOKENS;
    const uint32_t end = p.num_tokens - first < FINISH_TOKENS ? p.num_tokens
                                                              : first + FINISH_TOKENS;
    const uint32_t before = block * (FINISH_TOKENS / p.tokens_per_block);
    const Ranked count = assignments(p, before, scratch);
    if (p.slot_experts != nullptr) {
        move_together(p, p.slot_experts, p.slot_weights, first * p.k_max, end * p.k_max,
                      count.before, scratch);
        return;
    }
    // Assignments that stand where they belong, or none at all; otherwise block 0 moves them.
    const uint32_t token = first + threadIdx.x;
    const bool full = count.total == p.num_tokens * p.k_max;
    if (token < end && (full || count.total == 0)) {
        p.token_offsets[token] = full ? static_cast<int32_t>(token * p.k_max) : 0;
    }
}

// ---- experts ----

__device__ __forceinline__ void finish_experts(const FinishParams& p, uint32_t* partial,
                                               BlockScratch& scratch) {
    const int32_t* histogram = p.reduced ? p.expert_counts : p.block_histogram;
    const uint32_t rows = p.reduced ? 1 : p.num_blocks;
    const Tile tile = tile_of(p.num_experts);
    uint32_t total = 0;
    for (uint32_t start = 0; start < p.num_experts; start += tile.width) {
        const uint32_t count =
            tile_sum<uint32_t>(histogram, rows, p.num_experts, start, tile, partial);
        const bool mine = tile.group == 0 && start + tile.column < p.num_experts;
        const Ranked at = block_exclusive_sum<THREADS>(mine ? count : 0, scratch);
        if (mine) {
            p.expert_offsets[start + tile.column] = static_cast<int32_t>(total + at.before);
        }
        total += at.total;
    }
    if (threadIdx.x == 0) {
        p.expert_offsets[p.num_experts] = static_cast<int32_t>(total);
        p.token_offsets[p.num_tokens] = static_cast<int32_t>(total);
    }
    // Rare: assignments stand at t * k_max, and a token has fewer. One block moves them all,
    // because they move within one array.
    const uint32_t slots = p.num_tokens * p.k_max;
    if (!p.in_place && p.slot_experts == nullptr && total != slots && total != 0) {
        move_together(p, p.expert_indices, p.routing_weights, 0, slots, 0, scratch);
    }
}

// ---- losses ----

// Fills load [E] and returns sum_e f_e * (the sum of e's shares).
__device__ __forceinline__ double load_times_shares(const FinishParams& p, double* partial,
                                                    BlockScratch& scratch) {
    const int32_t* counts = p.reduced ? p.load_counts : p.load_histogram;
    const uint32_t rows = p.reduced ? 1 : p.num_blocks;
    const Tile tile = tile_of(p.num_experts);
    uint32_t mine = 0;
    double dot = 0.0;
    for (uint32_t start = 0; start < p.num_experts; start += tile.width) {
        const uint32_t count = tile_sum<uint32_t>(counts, rows, p.num_experts, start, tile,
                                                  reinterpret_cast<uint32_t*>(partial));
        const double share =
            p.reduced
                ? tile_sum<double>(p.shares, rows, p.num_experts, start, tile, partial)
                : tile_sum<double>(p.block_shares, rows, p.num_experts, start, tile, partial);
        if (tile.group == 0 && start + tile.column < p.num_experts) {
            p.load[start + tile.column] = count;
            mine += count;
            dot = __fma_rn(static_cast<double>(count), share, dot);
        }
    }
    const uint32_t total = block_sum<THREADS>(mine, scratch);
    const double of = total > 0 ? total : 1;
    for (uint32_t start = 0; start < p.num_experts; start += tile.width) {
        if (tile.group == 0 && start + tile.column < p.num_experts) {
            p.load[start + tile.column] /= of;
        }
    }
    return block_sum<THREADS>(dot, scratch) / of;
}

__device__ __forceinline__ void finish_losses(const FinishParams& p, double* partial,
                                              BlockScratch& scratch) {
    if (p.losses == nullptr) {
        return;
    }
    double balance = 0.0;
    if (p.load != nullptr) {
        balance = p.balance_factor * load_times_shares(p, partial, scratch);
    }
    double z = 0.0;
    if (p.block_squares != nullptr) {
        for (uint32_t b = threadIdx.x; b < p.num_blocks; b += THREADS) {
            z += p.block_squares[b];
        }
        z = p.z_factor * block_sum<THREADS>(z, scratch);
    }
    if (threadIdx.x == 0) {
        const bool silent =
            p.step != nullptr && coin_falls(*p.step, p.silent_below, p.coin_per_step != 0);
        p.losses[0] = silent ? 0.0 : balance;
        p.losses[1] = silent ? 0.0 : z;
    }
}

// ---- kernels ----

extern "C" __global__ void __launch_bounds__(1024)
    tg_finish_reduce(const __grid_constant__ FinishParams p) {
    __shared__ double partial[THREADS];
    __shared__ BlockScratch scratch;
    const uint32_t tiles = (p.num_experts + REDUCE_EXPERTS - 1) / REDUCE_EXPERTS;
    if (blockIdx.x == gridDim.x - 1) {
        scan_counts(p.block_counts, p.num_blocks, scratch);
        return;
    }
    const uint32_t tile = blockIdx.x % tiles;
    switch (blockIdx.x / tiles) {
        case 0:
            reduce_tile(p.block_histogram, reinterpret_cast<uint32_t*>(p.expert_counts),
                        p.num_blocks, p.num_experts, tile, reinterpret_cast<uint32_t*>(partial));
            break;
        case 1:
            if (p.load != nullptr) {
                reduce_tile(p.load_histogram, reinterpret_cast<uint32_t*>(p.load_counts),
                            p.num_blocks, p.num_experts, tile,
                            reinterpret_cast<uint32_t*>(partial));
            }
            break;
        default:
            if (p.load != nullptr) {
                reduce_tile(p.block_shares, p.shares, p.num_blocks, p.num_experts, tile, partial);
            }
    }
}

extern "C" __global__ void __launch_bounds__(1024)
    tg_finish(const __grid_constant__ FinishParams p) {
    __shared__ double partial[THREADS];
    __shared__ BlockScratch scratch;
    switch (blockIdx.x) {
        case 0:
            finish_experts(p, reinterpret_cast<uint32_t*>(partial), scratch);
            break;
        case 1:
            finish_losses(p, partial, scratch);
            break;
        default:
            finish_tokens(p, blockIdx.x - 2, scratch);
    }
}

}  // namespace tollgate
