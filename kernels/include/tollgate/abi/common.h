// Generated from src/abi/common.rs; `TOLLGATE_BLESS=1 cargo test -p tollgate-kernels headers` writes it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tollgate {

struct StepBlock {
    uint64_t seed;
    uint32_t layer;
    uint32_t step;
    uint32_t pass;
    uint32_t first_token;
};
static_assert(sizeof(StepBlock) == 24);
static_assert(alignof(StepBlock) == 8);
static_assert(offsetof(StepBlock, seed) == 0);
static_assert(offsetof(StepBlock, layer) == 8);
static_assert(offsetof(StepBlock, step) == 12);
static_assert(offsetof(StepBlock, pass) == 16);
static_assert(offsetof(StepBlock, first_token) == 20);

struct StatusBlock {
    uint32_t faults;
    uint32_t faulty_rows;
    uint32_t first_faulty_row;
    uint32_t first_bad_index;
};
static_assert(sizeof(StatusBlock) == 16);
static_assert(alignof(StatusBlock) == 4);
static_assert(offsetof(StatusBlock, faults) == 0);
static_assert(offsetof(StatusBlock, faulty_rows) == 4);
static_assert(offsetof(StatusBlock, first_faulty_row) == 8);
static_assert(offsetof(StatusBlock, first_bad_index) == 12);

}  // namespace tollgate
