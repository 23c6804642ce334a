// Philox4x32-10 (Salmon et al., SC 2011): a draw is a function of seed and counter, no state.
#pragma once

#include <cstdint>

#include "tollgate/abi/common.h"

namespace tollgate {

// What a random number is for; each purpose has its own stream. The numbers are those of the host.
enum class DrawStream : uint32_t {
    SecondExpert = 1,
    RouterNoise = 2,
    GatingDropout = 3,
    LocalChoice = 4,
    Stochastic = 5,
    Jitter = 6,
    ForcedShare = 7,
    Hash = 8,
};

__device__ __forceinline__ uint4 philox(uint64_t seed, uint4 c) {
    uint32_t k0 = static_cast<uint32_t>(seed);
    uint32_t k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c.x;
        const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c.z;
        c = make_uint4(static_cast<uint32_t>(p1 >> 32) ^ c.y ^ k0, static_cast<uint32_t>(p1),
                       static_cast<uint32_t>(p0 >> 32) ^ c.w ^ k1, static_cast<uint32_t>(p0));
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// Four words for a token in a step: counter (token, layer, step, stream | pass << 4 | block << 8).
// `token` is the global index: first_token plus the index within the batch.
__device__ __forceinline__ uint4 step_words(const StepBlock& s, uint32_t token, DrawStream stream,
                                            uint32_t block) {
    const uint32_t word = static_cast<uint32_t>(stream) | (s.pass & 0xfu) << 4 | block << 8;
    return philox(s.seed, make_uint4(token, s.layer, s.step, word));
}

// A uniform integer in 0..n, by multiply-high.
__device__ __forceinline__ uint32_t below(uint32_t word, uint32_t n) { return __umulhi(word, n); }

// The integer threshold of a probability p: an event happens when the word is below it.
__device__ __forceinline__ uint64_t threshold(double p) {
    const double clamped = p < 0.0 ? 0.0 : (p > 1.0 ? 1.0 : p);
    return static_cast<uint64_t>(clamped * 4294967296.0);
}

__device__ __forceinline__ bool happens(uint32_t word, double p) { return word < threshold(p); }

}  // namespace tollgate
