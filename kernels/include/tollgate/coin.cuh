// The coin of Gating Dropout (Liu et al., ICML 2022): the same for all tokens and all ranks.
#pragma once

#include <cstdint>

#include "tollgate/philox.cuh"

namespace tollgate {

// Whether this step is dropped: with a probability of `below` * 2^-32; 0 never, 2^32 always.
// `per_step`: all layers and passes of a step share the coin.
__device__ __forceinline__ bool coin_falls(const StepBlock& step, uint64_t below, bool per_step) {
    StepBlock at = step;
    if (per_step) {
        at.layer = 0;
        at.pass = 0;
    }
    return step_words(at, 0, DrawStream::GatingDropout, 0).x < below;
}

}  // namespace tollgate
