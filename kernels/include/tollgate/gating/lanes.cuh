// A row of logits in the registers of a group of lanes, and what the group computes together.
//
// LANES lanes hold LANES * V places, V a lane in pieces of 4 that are loaded at once: place j of
// lane l is expert (j / 4) * 4 * LANES + 4 * l + j % 4. Places beyond E are masked logits that no
// one may choose. All lanes of a warp take part in every function, each for its own group.
#pragma once

#include <cstdint>

#include "tollgate/gating/scores.cuh"
#include "tollgate/ptx/masked.cuh"
#include "tollgate/ptx/memory.cuh"
#include "tollgate/warp.cuh"

namespace tollgate::gate {

template <uint32_t LANES, uint32_t V>
struct Lanes {
    static_assert(V % 4 == 0 && (LANES == 8 || LANES == 16 || LANES == 32));
    static constexpr uint32_t GROUPS = WARP / LANES;
    static constexpr uint32_t PLACES = LANES * V;

    static __device__ __forceinline__ uint32_t lane() { return lane_id() % LANES; }
    static __device__ __forceinline__ uint32_t group() { return lane_id() / LANES; }

    // The expert of place j of this lane.
    static __device__ __forceinline__ uint32_t expert(uint32_t j) {
        return j / 4 * 4 * LANES + 4 * lane() + j % 4;
    }

    static __device__ __forceinline__ uint32_t max(uint32_t value) {
        if constexpr (LANES == WARP) {
            return ptx::redux_max_u32(ptx::ALL_LANES, value);
        } else {
#pragma unroll
            for (uint32_t lanes = LANES / 2; lanes > 0; lanes /= 2) {
                const uint32_t other = ptx::shfl_bfly_u32(ptx::ALL_LANES, value, lanes);
                value = other > value ? other : value;
            }
            return value;
        }
    }

    static __device__ __forceinline__ uint32_t min(uint32_t value) { return ~max(~value); }

    // As a tree, the upper half of the lanes added to the lower; the same bits in every lane.
    static __device__ __forceinline__ float sum(float value) {
#pragma unroll
        for (uint32_t lanes = LANES / 2; lanes > 0; lanes /= 2) {
            value = __fadd_rn(value, ptx::shfl_bfly_f32(ptx::ALL_LANES, value, lanes));
        }
        return value;
    }

    static __device__ __forceinline__ bool any(bool holds) {
        const uint32_t lanes = ptx::ballot(ptx::ALL_LANES, holds);
        return LANES == WARP ? lanes != 0
                             : (lanes >> (group() * LANES) & ((1ull << LANES) - 1)) != 0;
    }

    // The logits of one row, whose first place of this lane is at `at`; all masked where there is
    // no row.
    static __device__ __forceinline__ void load(float (&z)[V], const float* at, bool is_row,
                                                uint32_t experts, bool vector) {
        const float masked = -infinity_f32();
        if (vector) {
#pragma unroll
            for (uint32_t j = 0; j < V; j += 4) {
                const float4 piece = ptx::ld_global_nc_streaming_v4_if(
                    is_row && expert(j) < experts, at + j * LANES, masked);
                z[j] = piece.x;
                z[j + 1] = piece.y;
                z[j + 2] = piece.z;
                z[j + 3] = piece.w;
            }
        } else {
#pragma unroll
            for (uint32_t j = 0; j < V; ++j) {
                const float* from = at + j / 4 * 4 * LANES + j % 4;
                z[j] = is_row && expert(j) < experts ? ptx::ld_global_nc_f32(from) : masked;
            }
        }
    }

    // Writes a row of values, 16 bytes at a time where `vector` says that it may.
    static __device__ __forceinline__ void store(float* row, const float (&values)[V],
                                                 uint32_t experts, bool vector) {
#pragma unroll
        for (uint32_t j = 0; j < V; j += 4) {
            const uint32_t e = expert(j);
            if (vector) {
                if (e < experts) {
                    ptx::st_global_v4(row + e, make_uint4(__float_as_uint(values[j]),
                                                          __float_as_uint(values[j + 1]),
                                                          __float_as_uint(values[j + 2]),
                                                          __float_as_uint(values[j + 3])));
                }
            } else {
#pragma unroll
                for (uint32_t c = 0; c < 4; ++c) {
                    if (e + c < experts) {
                        row[e + c] = values[j + c];
                    }
                }
            }
        }
    }

    // Replaces logits by e^(z - largest) and returns their sum: at least 1 exactly where the row is
    // neither faulty nor fully masked, else NaN.
    static __device__ __forceinline__ float exponentials(float (&z)[V], float largest) {
        float total = 0.0f;
#pragma unroll
        for (uint32_t j = 0; j < V; ++j) {
            z[j] = exp_of_nonpositive(__fsub_rn(z[j], largest));
            total = __fadd_rn(total, z[j]);
        }
        return sum(total);
    }
};

}  // namespace tollgate::gate
