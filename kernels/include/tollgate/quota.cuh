// The best so many of every expert, by a merit and then by order: who is among them.
//
// A radix selection finds, for every expert, the merit at which its quota ends: `threshold`. All
// with a larger merit are served. Of those with that merit exactly, `remaining` are, the first in
// order; ALL_TIES says that all of them are, so that nobody need be put in order.
#pragma once

#include <cstdint>

namespace tollgate {

inline constexpr uint32_t ALL_TIES = 0xffffffffu;

// Values of a digit of a merit.
inline constexpr uint32_t DIGITS = 256;

struct Quota {
    uint32_t threshold;
    uint32_t remaining;

    __device__ __forceinline__ bool in_order() const { return remaining != ALL_TIES; }
    // Whether a claim is served whatever its order.
    __device__ __forceinline__ bool above(uint32_t merit) const {
        return merit > threshold || (merit == threshold && !in_order());
    }
    // Whether its order decides.
    __device__ __forceinline__ bool tied(uint32_t merit) const {
        return merit == threshold && in_order();
    }
};

}  // namespace tollgate
