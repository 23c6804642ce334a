// unpermute and the backward of permute: a token's rows, added up.
//
// rows [R, H] -> y [T, H]: y[t] = round(addend[t] + sum over the token's assignments a, in their
// order, of w_a * rows[row_of_assignment[a]]), in f32 by fused multiply-adds, rounded once. T is
// f32, f16 or bf16.
//
// tg_weighted_sum_rows_*: w are the routing weights, there is no addend. tg_sum_rows_*: w = 1, the
// sums start from the addend [T, H] in f32 if there is one.
// *_unaligned: element by element, for rows that are not aligned to 16 bytes.
//
// A warp takes a token, or some lines of it where there are few tokens: LINES lines at a time, of
// ROWS rows at a time. Every column is one lane's, so its sum runs in the order of the table and no
// lane waits for another. LINES * ROWS loads of 16 bytes a lane are under way; a row is asked for
// as soon as its place is free. With f16 and bf16 the sums take LINES * 8 registers, which is why
// it is not more.

#include "tollgate/abi/permute.h"
#include "tollgate/rows.cuh"

namespace tollgate {

inline constexpr uint32_t THREADS = 256;
// Lines that a lane sums at a time; element by element they take more registers.
template <bool WIDE>
inline constexpr uint32_t LINES = WIDE ? 4 : 2;
// Rows whose loads are under way together.
inline constexpr uint32_t ROWS = 2;

static_assert(THREADS % WARP == 0);
static_assert(WARP % ROWS == 0);

// Loads LINES lines of the row of assignment `number` of the `count` at hand, whose rows the lanes
// hold. NO_ROW where there is none.
template <typename T, bool WIDE>
__device__ __forceinline__ uint32_t load_row(const SumRowsParams& p, uint32_t mine, uint32_t number,
                                             uint32_t count, uint64_t line, uint64_t end,
                                             Line<T, WIDE> (&lines)[LINES<WIDE>]) {
    const uint32_t row = ptx::shfl_idx_u32(ptx::ALL_LANES, mine, number);
    if (number >= count || row == NO_ROW) {
        return NO_ROW;
    }
    const T* from = static_cast<const T*>(p.rows) + row * p.rows_stride;
#pragma unroll
    for (uint32_t l = 0; l < LINES<WIDE>; ++l) {
        lines[l].load(from, line + l, end);
    }
    return row;
}

// The sums of LINES lines from `line` on; `end` is where the row ends, in columns.
template <typename T, bool WIDE, bool WEIGHTED>
__device__ __forceinline__ void sum_lines(const SumRowsParams& p, uint32_t token,
                                          Assignments of_token, uint64_t line, uint64_t end) {
    using L = Line<T, WIDE>;
    float sums[LINES<WIDE>][L::C];
    // Start: the addend, or 0.
#pragma unroll
    for (uint32_t l = 0; l < LINES<WIDE>; ++l) {
#pragma unroll
        for (uint32_t i = 0; i < L::C; ++i) {
            sums[l][i] = 0.0f;
        }
        if (!WEIGHTED && p.addend != nullptr) {
            L::load_f32(p.addend + token * p.addend_stride, line + l, end, sums[l]);
        }
    }
    // The rows, in the order of the table.
    for (uint32_t start = of_token.start; start < of_token.end; start += WARP) {
        uint32_t mine = NO_ROW;
        float my_weight = 1.0f;
        if (start + lane_id() < of_token.end) {
            mine = row_of(p.row_of_assignment, start + lane_id(), p.max_rows, p.status);
            if (WEIGHTED) {
                my_weight = ptx::ld_global_nc_f32(p.weights + start + lane_id());
            }
        }
        const uint32_t left = of_token.end - start;
        const uint32_t count = left < WARP ? left : WARP;
        uint32_t row[ROWS];
        L lines[ROWS][LINES<WIDE>];
#pragma unroll
        for (uint32_t r = 0; r < ROWS; ++r) {
            row[r] = load_row(p, mine, r, count, line, end, lines[r]);
        }
#pragma unroll 1
        for (uint32_t first = 0; first < count; first += ROWS) {
#pragma unroll
            for (uint32_t r = 0; r < ROWS; ++r) {
                const float weight = __uint_as_float(
                    ptx::shfl_idx_u32(ptx::ALL_LANES, __float_as_uint(my_weight), first + r));
                if (row[r] != NO_ROW) {
#pragma unroll
                    for (uint32_t l = 0; l < LINES<WIDE>; ++l) {
                        float values[L::C];
                        lines[r][l].widen(values);
#pragma unroll
                        for (uint32_t i = 0; i < L::C; ++i) {
                            sums[l][i] = WEIGHTED ? __fmaf_rn(weight, values[i], sums[l][i])
                                                  : __fadd_rn(values[i], sums[l][i]);
                        }
                    }
                }
                row[r] = load_row(p, mine, first + r + ROWS, count, line, end, lines[r]);
            }
        }
    }
    T* to = static_cast<T*>(p.y) + token * p.y_stride;
#pragma unroll
    for (uint32_t l = 0; l < LINES<WIDE>; ++l) {
        L out;
        out.narrow(sums[l]);
        out.store(to, line + l, end);
    }
}

template <typename T, bool WIDE, bool WEIGHTED>
__device__ __forceinline__ void sum_rows(const SumRowsParams& p) {
    using L = Line<T, WIDE>;
    Task task;
    if (!warp_task(task, p.num_tokens, ceil_div(p.hidden, L::COLUMNS), p.lines_per_warp)) {
        return;
    }
    const Assignments of_token =
        assignments_of(p.token_offsets, task.token, p.max_assignments, p.status);
    const uint64_t end_of_task = task.end_line * L::COLUMNS;
    const uint64_t end = end_of_task < p.hidden ? end_of_task : p.hidden;
    for (uint64_t line = task.first_line; line < task.end_line; line += LINES<WIDE>) {
        sum_lines<T, WIDE, WEIGHTED>(p, task.token, of_token, line, end);
    }
}

}  // namespace tollgate

#define TG_SUM_ROWS(name, T, WIDE)                                                             \
    extern "C" __global__ void __launch_bounds__(tollgate::THREADS)                            \
        tg_sum_rows_##name(const __grid_constant__ tollgate::SumRowsParams p) {                \
        tollgate::sum_rows<T, WIDE, false>(p);                                                 \
    }                                                                                          \
    extern "C" __global__ void __launch_bounds__(tollgate::THREADS)                            \
        tg_weighted_sum_rows_##name(const __grid_constant__ tollgate::SumRowsParams p) {       \
        tollgate::sum_rows<T, WIDE, true>(p);                                                  \
    }

TG_SUM_ROWS(f32, float, true)
TG_SUM_ROWS(f16, __half, true)
TG_SUM_ROWS(bf16, __nv_bfloat16, true)
TG_SUM_ROWS(f32_unaligned, float, false)
TG_SUM_ROWS(f16_unaligned, __half, false)
TG_SUM_ROWS(bf16_unaligned, __nv_bfloat16, false)
