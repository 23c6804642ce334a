// A team of threads that works on one row: a warp, or a block for rows that are too long for one.
//
// Place e of a row is thread e % SIZE's, so that neighbours ask different banks of shared memory.
// All threads of the team take part in every function, and all get the result. Sums have one order:
// a thread's places ascending, then the lanes as a tree, then the warps in order.
#pragma once

#include <cstdint>

#include "tollgate/gating/scores.cuh"
#include "tollgate/ptx/memory.cuh"
#include "tollgate/warp.cuh"

namespace tollgate::gate {

// An expert and the key that it is ranked by.
struct Place {
    uint32_t key;
    uint32_t expert;

    __device__ __forceinline__ bool before(const Place& other) const {
        return key > other.key || (key == other.key && expert < other.expert);
    }
};

// Shared memory of a team of several warps.
struct TeamScratch {
    uint32_t words[2][WARP];
};

template <uint32_t WARPS>
struct Team {
    static constexpr uint32_t SIZE = WARPS * WARP;
    TeamScratch& scratch;

    __device__ __forceinline__ uint32_t rank() const { return threadIdx.x % SIZE; }

    __device__ __forceinline__ void sync() const {
        if constexpr (WARPS == 1) {
            __syncwarp();
        } else {
            __syncthreads();
        }
    }

    // Calls `work(e)` for every place of this thread among 0..experts, ascending.
    template <typename Work>
    __device__ __forceinline__ void each(uint32_t experts, Work work) const {
        for (uint32_t e = rank(); e < experts; e += SIZE) {
            work(e);
        }
    }

    __device__ __forceinline__ float sum(float value) const {
        value = warp_sum(value);
        if constexpr (WARPS > 1) {
            value = across_warps(value, [](float a, float b) { return __fadd_rn(a, b); });
        }
        return value;
    }

    // The largest; NaNs may be left out.
    __device__ __forceinline__ float max(float value) const {
        value = warp_max(value);
        if constexpr (WARPS > 1) {
            value = across_warps(value, [](float a, float b) { return fmaxf(a, b); });
        }
        return value;
    }

    __device__ __forceinline__ bool any(bool holds) const {
        if constexpr (WARPS == 1) {
            return ptx::ballot(ptx::ALL_LANES, holds) != 0;
        } else {
            return __syncthreads_or(holds) != 0;
        }
    }

    // The first of all by key, then by expert.
    __device__ __forceinline__ Place best(const Place& mine) const {
        const uint32_t key = ptx::redux_max_u32(ptx::ALL_LANES, mine.key);
        const uint32_t expert =
            ptx::redux_min_u32(ptx::ALL_LANES, mine.key == key ? mine.expert : ~0u);
        Place best = {key, expert};
        if constexpr (WARPS > 1) {
            if (lane_id() == 0) {
                scratch.words[0][warp_id()] = key;
                scratch.words[1][warp_id()] = expert;
            }
            __syncthreads();
            best = {scratch.words[0][0], scratch.words[1][0]};
#pragma unroll
            for (uint32_t warp = 1; warp < WARPS; ++warp) {
                const Place other = {scratch.words[0][warp], scratch.words[1][warp]};
                best = other.before(best) ? other : best;
            }
            __syncthreads();
        }
        return best;
    }

  private:
    template <typename Combine>
    __device__ __forceinline__ float across_warps(float value, Combine combine) const {
        if (lane_id() == 0) {
            scratch.words[0][warp_id()] = __float_as_uint(value);
        }
        __syncthreads();
        float all = __uint_as_float(scratch.words[0][0]);
#pragma unroll
        for (uint32_t warp = 1; warp < WARPS; ++warp) {
            all = combine(all, __uint_as_float(scratch.words[0][warp]));
        }
        __syncthreads();
        return all;
    }
};

// What a thread saw of a row: the largest value, and whether one is a NaN or +infinity.
struct Loaded {
    float largest;
    bool faulty;
};

// Copies a row of global memory to shared memory, where the team may read all of it afterwards.

template <uint32_t WARPS>
__device__ __forceinline__ Loaded load_row(const Team<WARPS>& team, float* z, const float* row,
                                           uint32_t experts, bool vector) {
    Loaded seen = {-infinity_f32(), false};
    const auto look = [&](float value) {
        seen.largest = fmaxf(seen.largest, value);
        seen.faulty = seen.faulty || is_nan(value) || value == infinity_f32();
    };
    if (vector) {
        for (uint32_t e = 4 * team.rank(); e < experts; e += 4 * Team<WARPS>::SIZE) {
            const uint4 bits = ptx::ld_global_nc_streaming_v4(row + e);
            *reinterpret_cast<uint4*>(z + e) = bits;
            look(__uint_as_float(bits.x));
            look(__uint_as_float(bits.y));
            look(__uint_as_float(bits.z));
            look(__uint_as_float(bits.w));
        }
    } else {
        team.each(experts, [&](uint32_t e) {
            const float value = ptx::ld_global_nc_f32(row + e);
            z[e] = value;
            look(value);
        });
    }
    team.sync();
    return seen;
}

// Writes a row from shared to global memory, after the team has finished with it.
template <uint32_t WARPS>
__device__ __forceinline__ void store_row(const Team<WARPS>& team, float* row, const float* values,
                                          uint32_t experts, bool vector) {
    team.sync();
    if (vector) {
        for (uint32_t e = 4 * team.rank(); e < experts; e += 4 * Team<WARPS>::SIZE) {
            ptx::st_global_v4(row + e, *reinterpret_cast<const uint4*>(values + e));
        }
    } else {
        team.each(experts, [&](uint32_t e) { row[e] = values[e]; });
    }
}

// p = e^(z - largest), and their sum: see Lanes::exponentials.
template <uint32_t WARPS>
__device__ __forceinline__ float exponentials(const Team<WARPS>& team, float* p, const float* z,
                                              float largest, uint32_t experts) {
    float total = 0.0f;
    team.each(experts, [&](uint32_t e) {
        const float value = exp_of_nonpositive(__fsub_rn(z[e], largest));
        p[e] = value;
        total = __fadd_rn(total, value);
    });
    return team.sum(total);
}

}  // namespace tollgate::gate
