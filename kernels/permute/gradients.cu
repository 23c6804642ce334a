// The backward of unpermute: gradients of the rows and of the routing weights in one pass.
//
// dy [T, H], rows [R, H] -> drows [R, H], dweights [A]: for the assignment a of token t with row r,
// drows[r] = round(w_a * dy[t]) and dweights[a] = <dy[t], rows[r]> in f32. T is f32, f16 or bf16.
// *_unaligned: element by element, for rows that are not aligned to 16 bytes.
//
// A block takes a few tokens, so many that they have about one assignment for each of its warps
// (tokens_per_block), and a warp one assignment after the other: its dot product has one order,
// whatever else the block does. The tokens' dy go through shared memory, STEP lines at a time: they
// are read from global memory once, not once an assignment. The next step's dy and rows are under
// way into registers while a step is computed.
//
// Order of a dot product, with C columns in 16 bytes: 32 * C sums from 0, column j to sum j mod
// 32 * C in ascending order by fused multiply-adds; then the upper half of the sums is added to the
// lower, 16 * C, 8 * C, ..., 1 at a time.

#include "tollgate/abi/permute.h"
#include "tollgate/rows.cuh"

namespace tollgate {

inline constexpr uint32_t THREADS = 256;
inline constexpr uint32_t WARPS = THREADS / WARP;
// Lines of a step: so many pieces of 16 bytes a lane has under way of its row.
inline constexpr uint32_t STEP = 4;
// One a warp: the warp loads its token's dy.
inline constexpr uint32_t MAX_TOKENS = WARPS;

static_assert(THREADS % WARP == 0);

// Shared memory of a block.
template <typename T, bool WIDE>
struct GradientsShared {
    // dy of the tokens at hand, two steps: one is read while the other is written. Lane l of any
    // warp reads what lane l wrote.
    typename Line<T, WIDE>::Bits dy[2][MAX_TOKENS][STEP][Line<T, WIDE>::COLUMNS];
    // token_offsets of the block's tokens, and the end.
    int32_t offsets[MAX_TOKENS + 1];
};

static_assert(sizeof(GradientsShared<float, true>) <= 48 * 1024);

// A lane's share of line `number`, to shared memory and from there: 16 bytes side by side, or
// elements a line apart, as in a row. Neither has bank conflicts. Nothing happens outside the row.
template <typename T, bool WIDE>
__device__ __forceinline__ void put(typename Line<T, WIDE>::Bits* line, const Line<T, WIDE>& share,
                                    uint64_t number, uint64_t hidden) {
    using L = Line<T, WIDE>;
#pragma unroll
    for (uint32_t i = 0; i < (WIDE ? 1 : L::C); ++i) {
        if (!L::inside(number, i, hidden)) {
            continue;
        }
        if constexpr (WIDE) {
            *reinterpret_cast<uint4*>(line + lane_id() * L::C) = share.piece;
        } else {
            line[i * WARP + lane_id()] = share.elements[i];
        }
    }
}

template <typename T, bool WIDE>
__device__ __forceinline__ void get(const typename Line<T, WIDE>::Bits* line,
                                    Line<T, WIDE>& share, uint64_t number, uint64_t hidden) {
    using L = Line<T, WIDE>;
#pragma unroll
    for (uint32_t i = 0; i < (WIDE ? 1 : L::C); ++i) {
        if (!L::inside(number, i, hidden)) {
            continue;
        }
        if constexpr (WIDE) {
            share.piece = *reinterpret_cast<const uint4*>(line + lane_id() * L::C);
        } else {
            share.elements[i] = line[i * WARP + lane_id()];
        }
    }
}

// The sum of the 32 * C partial sums of a warp, in the order that the top of this file tells; in
// all lanes.
template <typename T, bool WIDE>
__device__ __forceinline__ float reduce(float (&sums)[Line<T, WIDE>::C]) {
    constexpr uint32_t C = Line<T, WIDE>::C;
    if constexpr (WIDE) {
        // A lane has sums lane * C to lane * C + C - 1: the halves are other lanes'. In each of the
        // first log2(C) rounds a lane gives away the half of its sums that its partner keeps, and
        // keeps the other: C - 1 exchanges instead of C a round. Afterwards a lane has one sum.
#pragma unroll
        for (uint32_t half = C / 2, lanes = WARP / 2; half > 0; half /= 2, lanes /= 2) {
            const bool upper = (lane_id() & lanes) != 0;
#pragma unroll
            for (uint32_t i = 0; i < half; ++i) {
                const float given = upper ? sums[i] : sums[i + half];
                const float kept = upper ? sums[i + half] : sums[i];
                sums[i] = __fadd_rn(kept, ptx::shfl_bfly_f32(ptx::ALL_LANES, given, lanes));
            }
        }
        // The rest of the pieces: the lanes in which it was not decided which sum they keep.
        float sum = sums[0];
#pragma unroll
        for (uint32_t lanes = WARP / 2 / C; lanes > 0; lanes /= 2) {
            sum = __fadd_rn(sum, ptx::shfl_bfly_f32(ptx::ALL_LANES, sum, lanes));
        }
        // Then the sums inside the piece that is left: by which of them a lane kept.
#pragma unroll
        for (uint32_t lanes = WARP / 2; lanes >= WARP / C; lanes /= 2) {
            sum = __fadd_rn(sum, ptx::shfl_bfly_f32(ptx::ALL_LANES, sum, lanes));
        }
        return sum;
    } else {
        // A lane's i-th sum is number 32 * i + lane: first the lane's own, then over the lanes.
#pragma unroll
        for (uint32_t half = C / 2; half > 0; half /= 2) {
#pragma unroll
            for (uint32_t i = 0; i < half; ++i) {
                sums[i] = __fadd_rn(sums[i], sums[i + half]);
            }
        }
        return warp_sum(sums[0]);
    }
}

// An assignment of this warp; row is NO_ROW where there is none.
struct Mine {
    uint32_t assignment;
    uint32_t row;
    float weight;
    // Its token, counted from the first of the pass.
    uint32_t slot;
};

// The tokens and assignments of a pass: one assignment a warp.
struct Pass {
    uint32_t first_token;
    uint32_t num_tokens;
    Mine mine;
};

// The token of an assignment, counted from the block's first: the last that starts at or before it
// and is not empty.
__device__ __forceinline__ uint32_t slot_of(const int32_t* offsets, uint32_t tokens,
                                            uint32_t assignment) {
    uint32_t slot = 0;
    for (uint32_t i = 1; i < tokens; ++i) {
        slot = static_cast<uint32_t>(offsets[i]) <= assignment ? i : slot;
    }
    return slot;
}

// One pass: every warp its assignment, step by step.
template <typename T, bool WIDE>
__device__ __forceinline__ void run_pass(const RowGradientsParams& p,
                                         GradientsShared<T, WIDE>& shared, const Pass& pass) {
    using L = Line<T, WIDE>;
    const uint64_t lines = ceil_div(p.hidden, L::COLUMNS);
    const Mine mine = pass.mine;
    const bool active = mine.row != NO_ROW;
    const bool loads_dy = warp_id() < pass.num_tokens;
    const T* dy = static_cast<const T*>(p.dy) +
                  (static_cast<uint64_t>(pass.first_token) + warp_id()) * p.dy_stride;
    const T* row = static_cast<const T*>(p.rows) + mine.row * p.rows_stride;
    T* drow = static_cast<T*>(p.drows) + mine.row * p.drows_stride;

    L next[STEP];
    L values[STEP];
#pragma unroll
    for (uint32_t l = 0; l < STEP; ++l) {
        if (loads_dy) {
            next[l].load(dy, l, p.hidden);
        }
        if (active) {
            values[l].load(row, l, p.hidden);
        }
    }
    float sums[L::C] = {};
    uint32_t buffer = 0;
    for (uint64_t line = 0; line < lines; line += STEP) {
#pragma unroll
        for (uint32_t l = 0; l < STEP; ++l) {
            if (loads_dy) {
                put<T, WIDE>(shared.dy[buffer][warp_id()][l], next[l], line + l, p.hidden);
            }
        }
        // The other buffer was read before the last barrier but one: it is free behind this one.
        __syncthreads();
#pragma unroll
        for (uint32_t l = 0; l < STEP; ++l) {
            if (loads_dy) {
                next[l].load(dy, line + STEP + l, p.hidden);
            }
        }
#pragma unroll
        for (uint32_t l = 0; l < STEP; ++l) {
            if (active && L::inside(line + l, 0, p.hidden)) {
                L share;
                get<T, WIDE>(shared.dy[buffer][mine.slot][l], share, line + l, p.hidden);
                float gradient[L::C];
                float value[L::C];
                share.widen(gradient);
                values[l].widen(value);
                values[l].load(row, line + STEP + l, p.hidden);
                float scaled[L::C];
#pragma unroll
                for (uint32_t i = 0; i < L::C; ++i) {
                    if (L::inside(line + l, i, p.hidden)) {
                        sums[i] = __fmaf_rn(gradient[i], value[i], sums[i]);
                    }
                    scaled[i] = __fmul_rn(mine.weight, gradient[i]);
                }
                L out;
                out.narrow(scaled);
                out.store(drow, line + l, p.hidden);
            }
        }
        buffer ^= 1;
    }
    const float dot = reduce<T, WIDE>(sums);
    if (active && lane_id() == 0) {
        p.dweights[mine.assignment] = dot;
    }
    // The next pass writes where this one reads.
    __syncthreads();
}

template <typename T, bool WIDE>
__device__ __forceinline__ void row_gradients(const RowGradientsParams& p) {
    __shared__ GradientsShared<T, WIDE> shared;
    const uint32_t first_token = blockIdx.x * p.tokens_per_block;
    const uint32_t left = p.num_tokens - first_token;
    const uint32_t tokens = left < p.tokens_per_block ? left : p.tokens_per_block;
    if (threadIdx.x <= tokens) {
        shared.offsets[threadIdx.x] = static_cast<int32_t>(
            ptx::ld_global_nc_u32(p.token_offsets + static_cast<uint64_t>(first_token) +
                                  threadIdx.x));
    }
    __syncthreads();
    // A bad offset: the block's tokens have no assignments.
    bool bad = false;
    if (threadIdx.x < tokens) {
        const int32_t start = shared.offsets[threadIdx.x];
        bad = !offsets_fit(start, shared.offsets[threadIdx.x + 1], p.max_assignments);
        if (bad) {
            raise_bad_index(p.status, fault::TOKEN_OFFSETS, first_token + threadIdx.x);
        }
    }
    if (__syncthreads_or(bad)) {
        return;
    }
    const uint32_t end = static_cast<uint32_t>(shared.offsets[tokens]);
    for (uint32_t first = static_cast<uint32_t>(shared.offsets[0]); first < end; first += WARPS) {
        const uint32_t last = end - first > WARPS ? first + WARPS - 1 : end - 1;
        const uint32_t first_slot = slot_of(shared.offsets, tokens, first);
        const uint32_t last_slot = slot_of(shared.offsets, tokens, last);
        Mine mine = {first + warp_id(), NO_ROW, 0.0f, 0};
        if (mine.assignment <= last) {
            mine.slot = slot_of(shared.offsets, tokens, mine.assignment) - first_slot;
            mine.row = ptx::ld_global_nc_u32(p.row_of_assignment + mine.assignment);
            mine.weight = ptx::ld_global_nc_f32(p.weights + mine.assignment);
            if (mine.row >= p.max_rows) {
                mine.row = NO_ROW;
                if (lane_id() == 0) {
                    raise_bad_index(p.status, fault::MAP_INDEX, mine.assignment);
                }
            }
        }
        run_pass<T, WIDE>(p, shared,
                          {first_token + first_slot, last_slot - first_slot + 1, mine});
    }
}

}  // namespace tollgate

// BLOCKS a multiprocessor: what the registers that the loop needs leave room for.
#define TG_ROW_GRADIENTS(name, T, WIDE, BLOCKS)                                                \
    extern "C" __global__ void __launch_bounds__(tollgate::THREADS, BLOCKS)                    \
        tg_row_gradients_##name(const __grid_constant__ tollgate::RowGradientsParams p) {      \
        tollgate::row_gradients<T, WIDE>(p);                                                   \
    }

TG_ROW_GRADIENTS(f32, float, true, 3)
TG_ROW_GRADIENTS(f16, __half, true, 3)
TG_ROW_GRADIENTS(bf16, __nv_bfloat16, true, 3)
TG_ROW_GRADIENTS(f32_unaligned, float, false, 2)
TG_ROW_GRADIENTS(f16_unaligned, __half, false, 2)
TG_ROW_GRADIENTS(bf16_unaligned, __nv_bfloat16, false, 2)
