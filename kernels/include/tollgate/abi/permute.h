// Generated from src/abi/permute.rs; `TOLLGATE_BLESS=1 cargo test -p tollgate-kernels headers` writes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tollgate/abi/common.h"

namespace tollgate {

struct SortParams {
    const int32_t* token_offsets;
    const int32_t* expert_indices;
    const int32_t* table_expert_offsets;
    int32_t* row_of_assignment;
    int32_t* assignment_of_row;
    int32_t* token_of_row;
    int32_t* expert_offsets;
    uint32_t* counts;
    uint32_t* totals;
    StatusBlock* status;
    uint32_t num_tokens;
    uint32_t num_experts;
    uint32_t max_assignments;
    uint32_t max_rows;
    uint32_t tokens_per_tile;
    uint32_t num_tiles;
    uint32_t row_alignment;
    uint32_t reserved;
};
static_assert(sizeof(SortParams) == 112);
static_assert(alignof(SortParams) == 8);
static_assert(offsetof(SortParams, token_offsets) == 0);
static_assert(offsetof(SortParams, expert_indices) == 8);
static_assert(offsetof(SortParams, table_expert_offsets) == 16);
static_assert(offsetof(SortParams, row_of_assignment) == 24);
static_assert(offsetof(SortParams, assignment_of_row) == 32);
static_assert(offsetof(SortParams, token_of_row) == 40);
static_assert(offsetof(SortParams, expert_offsets) == 48);
static_assert(offsetof(SortParams, counts) == 56);
static_assert(offsetof(SortParams, totals) == 64);
static_assert(offsetof(SortParams, status) == 72);
static_assert(offsetof(SortParams, num_tokens) == 80);
static_assert(offsetof(SortParams, num_experts) == 84);
static_assert(offsetof(SortParams, max_assignments) == 88);
static_assert(offsetof(SortParams, max_rows) == 92);
static_assert(offsetof(SortParams, tokens_per_tile) == 96);
static_assert(offsetof(SortParams, num_tiles) == 100);
static_assert(offsetof(SortParams, row_alignment) == 104);
static_assert(offsetof(SortParams, reserved) == 108);

struct CopyRowsParams {
    const void* x;
    void* rows;
    uint64_t x_stride;
    uint64_t rows_stride;
    const int32_t* token_offsets;
    const int32_t* row_of_assignment;
    StatusBlock* status;
    uint32_t num_tokens;
    uint32_t max_assignments;
    uint32_t max_rows;
    uint32_t lines_per_warp;
    uint64_t pieces;
};
static_assert(sizeof(CopyRowsParams) == 80);
static_assert(alignof(CopyRowsParams) == 8);
static_assert(offsetof(CopyRowsParams, x) == 0);
static_assert(offsetof(CopyRowsParams, rows) == 8);
static_assert(offsetof(CopyRowsParams, x_stride) == 16);
static_assert(offsetof(CopyRowsParams, rows_stride) == 24);
static_assert(offsetof(CopyRowsParams, token_offsets) == 32);
static_assert(offsetof(CopyRowsParams, row_of_assignment) == 40);
static_assert(offsetof(CopyRowsParams, status) == 48);
static_assert(offsetof(CopyRowsParams, num_tokens) == 56);
static_assert(offsetof(CopyRowsParams, max_assignments) == 60);
static_assert(offsetof(CopyRowsParams, max_rows) == 64);
static_assert(offsetof(CopyRowsParams, lines_per_warp) == 68);
static_assert(offsetof(CopyRowsParams, pieces) == 72);

struct ZeroRowsParams {
    void* rows;
    uint64_t rows_stride;
    const int32_t* token_of_row;
    const int32_t* rows_end;
    uint64_t pieces;
    uint32_t max_rows;
    uint32_t lines_per_warp;
};
static_assert(sizeof(ZeroRowsParams) == 48);
static_assert(alignof(ZeroRowsParams) == 8);
static_assert(offsetof(ZeroRowsParams, rows) == 0);
static_assert(offsetof(ZeroRowsParams, rows_stride) == 8);
static_assert(offsetof(ZeroRowsParams, token_of_row) == 16);
static_assert(offsetof(ZeroRowsParams, rows_end) == 24);
static_assert(offsetof(ZeroRowsParams, pieces) == 32);
static_assert(offsetof(ZeroRowsParams, max_rows) == 40);
static_assert(offsetof(ZeroRowsParams, lines_per_warp) == 44);

struct SumRowsParams {
    const void* rows;
    void* y;
    const float* addend;
    uint64_t rows_stride;
    uint64_t y_stride;
    uint64_t addend_stride;
    const int32_t* token_offsets;
    const int32_t* row_of_assignment;
    const float* weights;
    StatusBlock* status;
    uint64_t hidden;
    uint32_t num_tokens;
    uint32_t max_assignments;
    uint32_t max_rows;
    uint32_t lines_per_warp;
};
static_assert(sizeof(SumRowsParams) == 104);
static_assert(alignof(SumRowsParams) == 8);
static_assert(offsetof(SumRowsParams, rows) == 0);
static_assert(offsetof(SumRowsParams, y) == 8);
static_assert(offsetof(SumRowsParams, addend) == 16);
static_assert(offsetof(SumRowsParams, rows_stride) == 24);
static_assert(offsetof(SumRowsParams, y_stride) == 32);
static_assert(offsetof(SumRowsParams, addend_stride) == 40);
static_assert(offsetof(SumRowsParams, token_offsets) == 48);
static_assert(offsetof(SumRowsParams, row_of_assignment) == 56);
static_assert(offsetof(SumRowsParams, weights) == 64);
static_assert(offsetof(SumRowsParams, status) == 72);
static_assert(offsetof(SumRowsParams, hidden) == 80);
static_assert(offsetof(SumRowsParams, num_tokens) == 88);
static_assert(offsetof(SumRowsParams, max_assignments) == 92);
static_assert(offsetof(SumRowsParams, max_rows) == 96);
static_assert(offsetof(SumRowsParams, lines_per_warp) == 100);

struct RowGradientsParams {
    const void* dy;
    const void* rows;
    void* drows;
    float* dweights;
    uint64_t dy_stride;
    uint64_t rows_stride;
    uint64_t drows_stride;
    const int32_t* token_offsets;
    const int32_t* row_of_assignment;
    const float* weights;
    StatusBlock* status;
    uint64_t hidden;
    uint32_t num_tokens;
    uint32_t max_assignments;
    uint32_t max_rows;
    uint32_t tokens_per_block;
};
static_assert(sizeof(RowGradientsParams) == 112);
static_assert(alignof(RowGradientsParams) == 8);
static_assert(offsetof(RowGradientsParams, dy) == 0);
static_assert(offsetof(RowGradientsParams, rows) == 8);
static_assert(offsetof(RowGradientsParams, drows) == 16);
static_assert(offsetof(RowGradientsParams, dweights) == 24);
static_assert(offsetof(RowGradientsParams, dy_stride) == 32);
static_assert(offsetof(RowGradientsParams, rows_stride) == 40);
static_assert(offsetof(RowGradientsParams, drows_stride) == 48);
static_assert(offsetof(RowGradientsParams, token_offsets) == 56);
static_assert(offsetof(RowGradientsParams, row_of_assignment) == 64);
static_assert(offsetof(RowGradientsParams, weights) == 72);
static_assert(offsetof(RowGradientsParams, status) == 80);
static_assert(offsetof(RowGradientsParams, hidden) == 88);
static_assert(offsetof(RowGradientsParams, num_tokens) == 96);
static_assert(offsetof(RowGradientsParams, max_assignments) == 100);
static_assert(offsetof(RowGradientsParams, max_rows) == 104);
static_assert(offsetof(RowGradientsParams, tokens_per_block) == 108);

}  // namespace tollgate
