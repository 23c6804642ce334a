// Faults that a kernel meets in its data. Integer atomics whose order does not matter.
#pragma once

#include <cstdint>

#include "tollgate/abi/common.h"
#include "tollgate/ptx/atomic.cuh"

namespace tollgate {

// Bits of StatusBlock::faults.
namespace fault {
inline constexpr uint32_t FAULTY_ROW = 1u;
inline constexpr uint32_t EXPERT_INDEX = 1u << 1;
inline constexpr uint32_t TOKEN_OFFSETS = 1u << 2;
inline constexpr uint32_t MAP_INDEX = 1u << 3;
inline constexpr uint32_t EXPERT_OFFSETS = 1u << 4;
inline constexpr uint32_t TOKEN_ID = 1u << 5;
}  // namespace fault

// One thread reports a row of logits that holds a NaN or +infinity.
__device__ __forceinline__ void raise_faulty_row(StatusBlock* status, uint32_t row) {
    ptx::red_global_or_u32(&status->faults, fault::FAULTY_ROW);
    ptx::red_global_add_u32(&status->faulty_rows, 1u);
    ptx::red_global_min_u32(&status->first_faulty_row, row);
}

// One thread reports an index that is out of range, at `position` of the array that holds it.
__device__ __forceinline__ void raise_bad_index(StatusBlock* status, uint32_t which,
                                                uint64_t position) {
    ptx::red_global_or_u32(&status->faults, which);
    const uint64_t most = 0xfffffffeu;
    ptx::red_global_min_u32(&status->first_bad_index,
                            static_cast<uint32_t>(position < most ? position : most));
}

}  // namespace tollgate
