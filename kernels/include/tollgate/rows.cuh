// Rows of matrices as warps move them: in lines.
//
// A line is what a warp takes in one go: 32 pieces of 16 bytes side by side, one a lane, or, where
// rows are not aligned to 16 bytes, as many elements one by one. Either way a lane holds C = 16 /
// sizeof(T) columns of every line of 32·C, and a matrix's elements are only looked at as f32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "tollgate/ptx/memory.cuh"
#include "tollgate/ptx/pieces.cuh"
#include "tollgate/status.cuh"
#include "tollgate/warp.cuh"

namespace tollgate {

// ---- elements ----

// A pair of 16-bit elements as they lie in a word, and one f32: bits to f32, exactly, and back,
// rounded to nearest even.
template <typename T>
struct Words;

template <>
struct Words<float> {
    static constexpr uint32_t COLUMNS = 1;
    using Bits = uint32_t;

    __device__ __forceinline__ static void widen(uint32_t word, float* out) {
        out[0] = __uint_as_float(word);
    }
    __device__ __forceinline__ static uint32_t narrow(const float* v) {
        return __float_as_uint(v[0]);
    }
    __device__ __forceinline__ static float widen_one(Bits bits) { return __uint_as_float(bits); }
    __device__ __forceinline__ static Bits narrow_one(float v) { return __float_as_uint(v); }
};

template <>
struct Words<__half> {
    static constexpr uint32_t COLUMNS = 2;
    using Bits = uint16_t;

    __device__ __forceinline__ static void widen(uint32_t word, float* out) {
        out[0] = widen_one(static_cast<uint16_t>(word));
        out[1] = widen_one(static_cast<uint16_t>(word >> 16));
    }
    __device__ __forceinline__ static uint32_t narrow(const float* v) {
        const __half2 pair = __floats2half2_rn(v[0], v[1]);
        return __half_as_ushort(pair.x) | static_cast<uint32_t>(__half_as_ushort(pair.y)) << 16;
    }
    __device__ __forceinline__ static float widen_one(Bits bits) {
        return __half2float(__ushort_as_half(bits));
    }
    __device__ __forceinline__ static Bits narrow_one(float v) {
        return __half_as_ushort(__float2half_rn(v));
    }
};

template <>
struct Words<__nv_bfloat16> {
    static constexpr uint32_t COLUMNS = 2;
    using Bits = uint16_t;

    __device__ __forceinline__ static void widen(uint32_t word, float* out) {
        out[0] = __uint_as_float(word << 16);
        out[1] = __uint_as_float(word & 0xffff0000u);
    }
    __device__ __forceinline__ static uint32_t narrow(const float* v) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(v[0], v[1]);
        return __bfloat16_as_ushort(pair.x) |
               static_cast<uint32_t>(__bfloat16_as_ushort(pair.y)) << 16;
    }
    __device__ __forceinline__ static float widen_one(Bits bits) {
        return __uint_as_float(static_cast<uint32_t>(bits) << 16);
    }
    __device__ __forceinline__ static Bits narrow_one(float v) {
        return __bfloat16_as_ushort(__float2bfloat16_rn(v));
    }
};

// ---- single pieces ----

__device__ __forceinline__ void load_streaming(uint4& v, const void* at) {
    v = ptx::ld_global_nc_streaming_v4(at);
}
__device__ __forceinline__ void load_streaming(uint2& v, const void* at) {
    v = ptx::ld_global_nc_streaming_v2(at);
}
__device__ __forceinline__ void load_streaming(uint32_t& v, const void* at) {
    v = ptx::ld_global_nc_streaming_u32(at);
}
__device__ __forceinline__ void load_streaming(uint16_t& v, const void* at) {
    v = ptx::ld_global_nc_streaming_u16(at);
}
__device__ __forceinline__ void store_streaming(void* at, uint4 v) {
    ptx::st_global_streaming_v4(at, v);
}
__device__ __forceinline__ void store_streaming(void* at, uint2 v) {
    ptx::st_global_streaming_v2(at, v);
}
__device__ __forceinline__ void store_streaming(void* at, uint32_t v) {
    ptx::st_global_streaming_u32(at, v);
}
__device__ __forceinline__ void store_streaming(void* at, uint16_t v) {
    ptx::st_global_streaming_u16(at, v);
}

// ---- lines ----

// A lane's share of a line of elements T: C columns. WIDE: one piece of 16 bytes, columns lane·C
// and on; the row's address is a multiple of 16 bytes and H one of C. Otherwise C single elements,
// 32 columns apart, of rows of any alignment and length.
template <typename T, bool WIDE>
struct Line {
    static constexpr uint32_t C = 16 / sizeof(T);
    static constexpr uint32_t COLUMNS = WARP * C;
    using Bits = typename Words<T>::Bits;

    uint4 piece;        // WIDE
    Bits elements[C];   // not WIDE

    // The column that the lane's i-th element of a line has.
    __device__ __forceinline__ static uint64_t column(uint64_t line, uint32_t i) {
        return WIDE ? line * COLUMNS + lane_id() * C + i : line * COLUMNS + i * WARP + lane_id();
    }
    // Whether the lane's i-th element is in a row of `hidden` columns. WIDE: the same for all i.
    __device__ __forceinline__ static bool inside(uint64_t line, uint32_t i, uint64_t hidden) {
        return column(line, WIDE ? 0 : i) < hidden;
    }

    // Nothing is loaded, and nothing changes, outside the row.
    __device__ __forceinline__ void load(const T* row, uint64_t line, uint64_t hidden) {
        if constexpr (WIDE) {
            if (inside(line, 0, hidden)) {
                load_streaming(piece, row + column(line, 0));
            }
        } else {
#pragma unroll
            for (uint32_t i = 0; i < C; ++i) {
                if (inside(line, i, hidden)) {
                    load_streaming(elements[i], row + column(line, i));
                }
            }
        }
    }

    __device__ __forceinline__ void store(T* row, uint64_t line, uint64_t hidden) const {
        if constexpr (WIDE) {
            if (inside(line, 0, hidden)) {
                store_streaming(row + column(line, 0), piece);
            }
        } else {
#pragma unroll
            for (uint32_t i = 0; i < C; ++i) {
                if (inside(line, i, hidden)) {
                    store_streaming(row + column(line, i), elements[i]);
                }
            }
        }
    }

    // The lane's columns of a row in f32, whose address is a multiple of 16 bytes where WIDE.
    // `values` keeps what it holds outside the row. All lanes take part.
    __device__ __forceinline__ static void load_f32(const float* row, uint64_t line,
                                                    uint64_t hidden, float (&values)[C]) {
        if constexpr (!WIDE) {
#pragma unroll
            for (uint32_t i = 0; i < C; ++i) {
                if (inside(line, i, hidden)) {
                    values[i] = ptx::ld_global_nc_f32(row + column(line, i));
                }
            }
        } else if constexpr (C == 4) {
            if (inside(line, 0, hidden)) {
                uint4 piece;
                load_streaming(piece, row + column(line, 0));
                unpack(piece, values);
            }
        } else {
            // 8 columns are two pieces of f32. If every lane loaded its own two, each load would
            // touch every sector of 32 bytes for half of it. So a pair of lanes loads the even
            // lane's two pieces together, then the odd lane's, and they swap one.
            const uint64_t odd = lane_id() % 2;
            const uint64_t of_pair = column(line, 0) - odd * C;
            uint4 of_even = make_uint4(0, 0, 0, 0);
            uint4 of_odd = make_uint4(0, 0, 0, 0);
            if (of_pair < hidden) {
                load_streaming(of_even, row + of_pair + odd * 4);
            }
            if (of_pair + C < hidden) {
                load_streaming(of_odd, row + of_pair + C + odd * 4);
            }
            const uint4 given = odd ? of_even : of_odd;
            const uint4 kept = odd ? of_odd : of_even;
            const uint4 got =
                make_uint4(ptx::shfl_bfly_u32(ptx::ALL_LANES, given.x, 1),
                           ptx::shfl_bfly_u32(ptx::ALL_LANES, given.y, 1),
                           ptx::shfl_bfly_u32(ptx::ALL_LANES, given.z, 1),
                           ptx::shfl_bfly_u32(ptx::ALL_LANES, given.w, 1));
            if (inside(line, 0, hidden)) {
                unpack(odd ? got : kept, values);
                unpack(odd ? kept : got, values + 4);
            }
        }
    }

    __device__ __forceinline__ static void unpack(uint4 piece, float* values) {
        values[0] = __uint_as_float(piece.x);
        values[1] = __uint_as_float(piece.y);
        values[2] = __uint_as_float(piece.z);
        values[3] = __uint_as_float(piece.w);
    }

    // To f32, exactly.
    __device__ __forceinline__ void widen(float (&v)[C]) const {
        if constexpr (WIDE) {
            constexpr uint32_t N = Words<T>::COLUMNS;
            Words<T>::widen(piece.x, v);
            Words<T>::widen(piece.y, v + N);
            Words<T>::widen(piece.z, v + 2 * N);
            Words<T>::widen(piece.w, v + 3 * N);
        } else {
#pragma unroll
            for (uint32_t i = 0; i < C; ++i) {
                v[i] = Words<T>::widen_one(elements[i]);
            }
        }
    }

    // From f32, rounded to nearest even.
    __device__ __forceinline__ void narrow(const float (&v)[C]) {
        if constexpr (WIDE) {
            constexpr uint32_t N = Words<T>::COLUMNS;
            piece = make_uint4(Words<T>::narrow(v), Words<T>::narrow(v + N),
                               Words<T>::narrow(v + 2 * N), Words<T>::narrow(v + 3 * N));
        } else {
#pragma unroll
            for (uint32_t i = 0; i < C; ++i) {
                elements[i] = Words<T>::narrow_one(v[i]);
            }
        }
    }
};

__device__ __forceinline__ uint64_t ceil_div(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

// ---- work of a warp ----

// Which lines of which token a warp takes.
struct Task {
    uint32_t token;
    uint64_t first_line;
    uint64_t end_line;
};

// The work of this warp, where `lines` of every token are shared out `lines_per_warp` at a time;
// the warps of a token stand side by side. False: none is left. The host sees to it that there are
// fewer than 2^32 tasks.
__device__ __forceinline__ bool warp_task(Task& task, uint32_t num_tokens, uint64_t lines,
                                          uint32_t lines_per_warp) {
    const uint64_t number = static_cast<uint64_t>(blockIdx.x) * (blockDim.x / WARP) + warp_id();
    const uint32_t warps = static_cast<uint32_t>(ceil_div(lines, lines_per_warp));
    if (number >= static_cast<uint64_t>(num_tokens) * warps) {
        return false;
    }
    const uint32_t index = static_cast<uint32_t>(number);
    task.token = index / warps;
    task.first_line = static_cast<uint64_t>(index % warps) * lines_per_warp;
    const uint64_t end = task.first_line + lines_per_warp;
    task.end_line = end < lines ? end : lines;
    return true;
}

// ---- a token's assignments ----

// start..end of an array of assignments.
struct Assignments {
    uint32_t start;
    uint32_t end;
};

// Whether two neighbouring offsets enclose assignments, none beyond the bound.
__device__ __forceinline__ bool offsets_fit(int32_t start, int32_t end, uint32_t bound) {
    return 0 <= start && start <= end && static_cast<uint32_t>(end) <= bound;
}

// The assignments of a token, in all lanes; none, and a fault, where its offsets are no prefix
// sums.
__device__ __forceinline__ Assignments assignments_of(const int32_t* token_offsets, uint32_t token,
                                                      uint32_t bound, StatusBlock* status) {
    // Lanes 0 and 1 read: one access for both.
    int32_t offset = 0;
    if (lane_id() < 2) {
        offset = static_cast<int32_t>(
            ptx::ld_global_nc_u32(token_offsets + static_cast<uint64_t>(token) + lane_id()));
    }
    const int32_t start = static_cast<int32_t>(ptx::shfl_idx_u32(ptx::ALL_LANES, offset, 0));
    const int32_t end = static_cast<int32_t>(ptx::shfl_idx_u32(ptx::ALL_LANES, offset, 1));
    if (!offsets_fit(start, end, bound)) {
        if (lane_id() == 0) {
            raise_bad_index(status, fault::TOKEN_OFFSETS, token);
        }
        return {0, 0};
    }
    return {static_cast<uint32_t>(start), static_cast<uint32_t>(end)};
}

// A map entry where no row is.
inline constexpr uint32_t NO_ROW = 0xffffffffu;

// The row of an assignment; NO_ROW, and a fault, where it is out of range.
__device__ __forceinline__ uint32_t row_of(const int32_t* row_of_assignment, uint32_t assignment,
                                           uint32_t max_rows, StatusBlock* status) {
    const uint32_t row = ptx::ld_global_nc_u32(row_of_assignment + assignment);
    if (row < max_rows) {
        return row;
    }
    raise_bad_index(status, fault::MAP_INDEX, assignment);
    return NO_ROW;
}

}  // namespace tollgate
