// Generated from src/abi/gemm.rs; `TOLLGATE_BLESS=1 cargo test -p tollgate-kernels headers` writes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tollgate/abi/common.h"

namespace tollgate {

struct MGroupedParams {
    const void* a;
    const void* b;
    const void* bias;
    void* d;
    const int32_t* offsets;
    StatusBlock* status;
    uint64_t a_stride;
    uint64_t d_stride;
    uint32_t rows;
    uint32_t experts;
    uint32_t cols;
    uint32_t depth;
    uint32_t row_tiles;
    uint32_t a_type;
    uint32_t b_type;
    uint32_t d_type;
    uint32_t a_vector;
    uint32_t b_vector;
    uint32_t d_vector;
    uint32_t reserved;
};
static_assert(sizeof(MGroupedParams) == 112);
static_assert(alignof(MGroupedParams) == 8);
static_assert(offsetof(MGroupedParams, a) == 0);
static_assert(offsetof(MGroupedParams, b) == 8);
static_assert(offsetof(MGroupedParams, bias) == 16);
static_assert(offsetof(MGroupedParams, d) == 24);
static_assert(offsetof(MGroupedParams, offsets) == 32);
static_assert(offsetof(MGroupedParams, status) == 40);
static_assert(offsetof(MGroupedParams, a_stride) == 48);
static_assert(offsetof(MGroupedParams, d_stride) == 56);
static_assert(offsetof(MGroupedParams, rows) == 64);
static_assert(offsetof(MGroupedParams, experts) == 68);
static_assert(offsetof(MGroupedParams, cols) == 72);
static_assert(offsetof(MGroupedParams, depth) == 76);
static_assert(offsetof(MGroupedParams, row_tiles) == 80);
static_assert(offsetof(MGroupedParams, a_type) == 84);
static_assert(offsetof(MGroupedParams, b_type) == 88);
static_assert(offsetof(MGroupedParams, d_type) == 92);
static_assert(offsetof(MGroupedParams, a_vector) == 96);
static_assert(offsetof(MGroupedParams, b_vector) == 100);
static_assert(offsetof(MGroupedParams, d_vector) == 104);
static_assert(offsetof(MGroupedParams, reserved) == 108);

struct KGroupedParams {
    const void* a;
    const void* x;
    float* w;
    const int32_t* offsets;
    StatusBlock* status;
    uint64_t a_stride;
    uint64_t x_stride;
    uint32_t rows;
    uint32_t experts;
    uint32_t n;
    uint32_t k;
    uint32_t accumulate;
    uint32_t a_type;
    uint32_t x_type;
    uint32_t a_vector;
    uint32_t x_vector;
    uint32_t w_vector;
};
static_assert(sizeof(KGroupedParams) == 96);
static_assert(alignof(KGroupedParams) == 8);
static_assert(offsetof(KGroupedParams, a) == 0);
static_assert(offsetof(KGroupedParams, x) == 8);
static_assert(offsetof(KGroupedParams, w) == 16);
static_assert(offsetof(KGroupedParams, offsets) == 24);
static_assert(offsetof(KGroupedParams, status) == 32);
static_assert(offsetof(KGroupedParams, a_stride) == 40);
static_assert(offsetof(KGroupedParams, x_stride) == 48);
static_assert(offsetof(KGroupedParams, rows) == 56);
static_assert(offsetof(KGroupedParams, experts) == 60);
static_assert(offsetof(KGroupedParams, n) == 64);
static_assert(offsetof(KGroupedParams, k) == 68);
static_assert(offsetof(KGroupedParams, accumulate) == 72);
static_assert(offsetof(KGroupedParams, a_type) == 76);
static_assert(offsetof(KGroupedParams, x_type) == 80);
static_assert(offsetof(KGroupedParams, a_vector) == 84);
static_assert(offsetof(KGroupedParams, x_vector) == 88);
static_assert(offsetof(KGroupedParams, w_vector) == 92);

struct ColumnSumsParams {
    const void* a;
    float* sums;
    const int32_t* offsets;
    StatusBlock* status;
    uint64_t a_stride;
    uint32_t rows;
    uint32_t experts;
    uint32_t cols;
    uint32_t accumulate;
    uint32_t a_type;
    uint32_t reserved;
};
static_assert(sizeof(ColumnSumsParams) == 64);
static_assert(alignof(ColumnSumsParams) == 8);
static_assert(offsetof(ColumnSumsParams, a) == 0);
static_assert(offsetof(ColumnSumsParams, sums) == 8);
static_assert(offsetof(ColumnSumsParams, offsets) == 16);
static_assert(offsetof(ColumnSumsParams, status) == 24);
static_assert(offsetof(ColumnSumsParams, a_stride) == 32);
static_assert(offsetof(ColumnSumsParams, rows) == 40);
static_assert(offsetof(ColumnSumsParams, experts) == 44);
static_assert(offsetof(ColumnSumsParams, cols) == 48);
static_assert(offsetof(ColumnSumsParams, accumulate) == 52);
static_assert(offsetof(ColumnSumsParams, a_type) == 56);
static_assert(offsetof(ColumnSumsParams, reserved) == 60);

struct ExpertsUpParams {
    const void* x;
    const void* up;
    const void* up_bias;
    void* pre;
    void* act;
    const int32_t* offsets;
    StatusBlock* status;
    uint64_t x_stride;
    uint64_t pre_stride;
    uint64_t act_stride;
    uint32_t rows;
    uint32_t experts;
    uint32_t intermediate;
    uint32_t hidden;
    uint32_t row_tiles;
    uint32_t element_type;
    uint32_t activation;
    uint32_t gated;
    uint32_t x_vector;
    uint32_t up_vector;
    uint32_t pre_vector;
    uint32_t act_vector;
};
static_assert(sizeof(ExpertsUpParams) == 128);
static_assert(alignof(ExpertsUpParams) == 8);
static_assert(offsetof(ExpertsUpParams, x) == 0);
static_assert(offsetof(ExpertsUpParams, up) == 8);
static_assert(offsetof(ExpertsUpParams, up_bias) == 16);
static_assert(offsetof(ExpertsUpParams, pre) == 24);
static_assert(offsetof(ExpertsUpParams, act) == 32);
static_assert(offsetof(ExpertsUpParams, offsets) == 40);
static_assert(offsetof(ExpertsUpParams, status) == 48);
static_assert(offsetof(ExpertsUpParams, x_stride) == 56);
static_assert(offsetof(ExpertsUpParams, pre_stride) == 64);
static_assert(offsetof(ExpertsUpParams, act_stride) == 72);
static_assert(offsetof(ExpertsUpParams, rows) == 80);
static_assert(offsetof(ExpertsUpParams, experts) == 84);
static_assert(offsetof(ExpertsUpParams, intermediate) == 88);
static_assert(offsetof(ExpertsUpParams, hidden) == 92);
static_assert(offsetof(ExpertsUpParams, row_tiles) == 96);
static_assert(offsetof(ExpertsUpParams, element_type) == 100);
static_assert(offsetof(ExpertsUpParams, activation) == 104);
static_assert(offsetof(ExpertsUpParams, gated) == 108);
static_assert(offsetof(ExpertsUpParams, x_vector) == 112);
static_assert(offsetof(ExpertsUpParams, up_vector) == 116);
static_assert(offsetof(ExpertsUpParams, pre_vector) == 120);
static_assert(offsetof(ExpertsUpParams, act_vector) == 124);

struct ExpertsDownBackwardParams {
    const void* dy;
    const void* down;
    const void* pre;
    void* dpre;
    const int32_t* offsets;
    StatusBlock* status;
    uint64_t dy_stride;
    uint64_t pre_stride;
    uint64_t dpre_stride;
    uint32_t rows;
    uint32_t experts;
    uint32_t intermediate;
    uint32_t hidden;
    uint32_t row_tiles;
    uint32_t element_type;
    uint32_t activation;
    uint32_t gated;
    uint32_t dy_vector;
    uint32_t down_vector;
    uint32_t pre_vector;
    uint32_t dpre_vector;
};
static_assert(sizeof(ExpertsDownBackwardParams) == 120);
static_assert(alignof(ExpertsDownBackwardParams) == 8);
static_assert(offsetof(ExpertsDownBackwardParams, dy) == 0);
static_assert(offsetof(ExpertsDownBackwardParams, down) == 8);
static_assert(offsetof(ExpertsDownBackwardParams, pre) == 16);
static_assert(offsetof(ExpertsDownBackwardParams, dpre) == 24);
static_assert(offsetof(ExpertsDownBackwardParams, offsets) == 32);
static_assert(offsetof(ExpertsDownBackwardParams, status) == 40);
static_assert(offsetof(ExpertsDownBackwardParams, dy_stride) == 48);
static_assert(offsetof(ExpertsDownBackwardParams, pre_stride) == 56);
static_assert(offsetof(ExpertsDownBackwardParams, dpre_stride) == 64);
static_assert(offsetof(ExpertsDownBackwardParams, rows) == 72);
static_assert(offsetof(ExpertsDownBackwardParams, experts) == 76);
static_assert(offsetof(ExpertsDownBackwardParams, intermediate) == 80);
static_assert(offsetof(ExpertsDownBackwardParams, hidden) == 84);
static_assert(offsetof(ExpertsDownBackwardParams, row_tiles) == 88);
static_assert(offsetof(ExpertsDownBackwardParams, element_type) == 92);
static_assert(offsetof(ExpertsDownBackwardParams, activation) == 96);
static_assert(offsetof(ExpertsDownBackwardParams, gated) == 100);
static_assert(offsetof(ExpertsDownBackwardParams, dy_vector) == 104);
static_assert(offsetof(ExpertsDownBackwardParams, down_vector) == 108);
static_assert(offsetof(ExpertsDownBackwardParams, pre_vector) == 112);
static_assert(offsetof(ExpertsDownBackwardParams, dpre_vector) == 116);

}  // namespace tollgate
