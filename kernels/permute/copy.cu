// permute: every token's row to its places among the rows of the experts; and zeros to the rows
// that belong to no token.
//
// x [T, H] -> rows [R, H], bit by bit, in pieces of 16 bytes, or 8, 4, 2 where alignments or H
// allow no more: H stands for the pieces of a row here, and a line is 32 pieces.
//
// tg_copy_rows_*: a warp takes a token, or some lines of it where there are few tokens. It reads
// them once, up to LINES at a time, and writes them to each of the token's rows (token_offsets
// [T+1], row_of_assignment [A]). So x is read once however many experts a token has, where the loop
// over rows would read it k times; and warps are independent: nothing is shared, nothing waits. The
// loads of x depend on no index and are under way while the offsets and then the rows are fetched.
//
// tg_zero_rows_*: a warp looks at 32 rows at a time and writes those that token_of_row [R] says
// belong to no token.

#include "tollgate/abi/permute.h"
#include "tollgate/rows.cuh"

namespace tollgate {

inline constexpr uint32_t THREADS = 256;
// Lines that a lane holds at a time, one piece of each: 64 bytes a thread are under way.
inline constexpr uint32_t LINES = 4;

static_assert(THREADS % WARP == 0);

template <typename Piece>
__device__ __forceinline__ void copy_rows(const CopyRowsParams& p) {
    Task task;
    if (!warp_task(task, p.num_tokens, ceil_div(p.pieces, WARP), p.lines_per_warp)) {
        return;
    }
    const Piece* from = reinterpret_cast<const Piece*>(static_cast<const char*>(p.x) +
                                                       task.token * p.x_stride);
    Assignments of_token = {0, 0};
    for (uint64_t line = task.first_line; line < task.end_line; line += LINES) {
        const uint64_t first = line * WARP + lane_id();
        const uint64_t end_of_task = task.end_line * WARP;
        const uint64_t end = end_of_task < p.pieces ? end_of_task : p.pieces;
        Piece pieces[LINES];
#pragma unroll
        for (uint32_t i = 0; i < LINES; ++i) {
            if (first + i * WARP < end) {
                load_streaming(pieces[i], from + first + i * WARP);
            }
        }
        if (line == task.first_line) {
            of_token = assignments_of(p.token_offsets, task.token, p.max_assignments, p.status);
        }
        for (uint32_t start = of_token.start; start < of_token.end; start += WARP) {
            // The rows of 32 assignments, one a lane.
            uint32_t mine = NO_ROW;
            if (start + lane_id() < of_token.end) {
                mine = row_of(p.row_of_assignment, start + lane_id(), p.max_rows, p.status);
            }
            const uint32_t left = of_token.end - start;
            for (uint32_t i = 0; i < (left < WARP ? left : WARP); ++i) {
                const uint32_t row = ptx::shfl_idx_u32(ptx::ALL_LANES, mine, i);
                if (row == NO_ROW) {
                    continue;
                }
                Piece* to = reinterpret_cast<Piece*>(static_cast<char*>(p.rows) +
                                                     row * p.rows_stride);
#pragma unroll
                for (uint32_t j = 0; j < LINES; ++j) {
                    if (first + j * WARP < end) {
                        store_streaming(to + first + j * WARP, pieces[j]);
                    }
                }
            }
        }
    }
}

template <typename Piece>
__device__ __forceinline__ void zero_rows(const ZeroRowsParams& p) {
    Task task;
    const uint32_t groups = static_cast<uint32_t>(ceil_div(p.max_rows, WARP));
    if (!warp_task(task, groups, ceil_div(p.pieces, WARP), p.lines_per_warp)) {
        return;
    }
    // A bad end is no more than a bound here.
    const uint32_t rows_end =
        p.rows_end == nullptr ? p.max_rows : ptx::ld_global_nc_u32(p.rows_end);
    const uint32_t end = rows_end < p.max_rows ? rows_end : p.max_rows;
    const uint32_t first_row = task.token * WARP;
    const uint64_t row = static_cast<uint64_t>(first_row) + lane_id();
    bool free = false;
    if (row < end) {
        free = static_cast<int32_t>(ptx::ld_global_nc_u32(p.token_of_row + row)) < 0;
    }
    for (uint32_t lanes = ptx::ballot(ptx::ALL_LANES, free); lanes != 0; lanes &= lanes - 1) {
        const uint64_t at = static_cast<uint64_t>(first_row) + __ffs(lanes) - 1;
        Piece* to = reinterpret_cast<Piece*>(static_cast<char*>(p.rows) + at * p.rows_stride);
        for (uint64_t line = task.first_line; line < task.end_line; ++line) {
            if (line * WARP + lane_id() < p.pieces) {
                store_streaming(to + line * WARP + lane_id(), Piece{});
            }
        }
    }
}

}  // namespace tollgate

#define TG_COPY_ROWS(bytes, Piece)                                                             \
    extern "C" __global__ void __launch_bounds__(tollgate::THREADS)                            \
        tg_copy_rows_##bytes##b(const __grid_constant__ tollgate::CopyRowsParams p) {          \
        tollgate::copy_rows<Piece>(p);                                                         \
    }                                                                                          \
    extern "C" __global__ void __launch_bounds__(tollgate::THREADS)                            \
        tg_zero_rows_##bytes##b(const __grid_constant__ tollgate::ZeroRowsParams p) {          \
        tollgate::zero_rows<Piece>(p);                                                         \
    }

TG_COPY_ROWS(16, uint4)
TG_COPY_ROWS(8, uint2)
TG_COPY_ROWS(4, uint32_t)
TG_COPY_ROWS(2, uint16_t)
