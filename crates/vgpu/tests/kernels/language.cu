// What the language compiles to beyond straight-line code: calls, local arrays, switches, constant
// and initialised global memory, structs by value, traps.
//
//   call_collatz:  out[i] = steps of the Collatz sequence from x[i], at most 1000, 0 for 0; by a
//                  device function that is not inlined and calls another one
//   local_sort:    each thread sorts its 16 words, ascending, in a local array indexed by data
//   switch_ops:    out[i] = the operation code[i] % 9 of x[i]: 0 x + 1, 1 x * 3, 2 x ^ 0x55,
//                  3 x >> 3, 4 ~x, 5 popcount x, 6 leading zeros of x, 7 bits reversed, 8 x - 7
//   constants:     out[i] = x[i] * CONSTANT_SCALE[i % 8] + GLOBAL_BIAS[i % 4], and one count in
//                  GLOBAL_CALLS a thread that has an i
//   by_value:      out[i] = x[i] * affine.scale[i % 3] + affine.bias
//   trap_unless_below: traps in the first thread that sees x[i] >= limit, else out[i] = x[i]
//
// Geometry: grid any with grid * block >= n, block any, no shared memory.
// Parameters: x [n] u32 (`local_sort`: [16 n]), out likewise, then
//   `switch_ops`: x, code [n] u32, out, n; `by_value`: x, out, n, Affine; `trap_unless_below`: x,
//   out, n, limit; others: x, out, n.
// Module symbols: GLOBAL_CALLS u32 (0 at load).
// Synchronisation: none but the relaxed add into GLOBAL_CALLS.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

struct Affine {
    u32 scale[3];
    u32 bias;
};
static_assert(sizeof(Affine) == 16);

extern "C" {
__constant__ u32 CONSTANT_SCALE[8] = {1, 3, 5, 7, 11, 13, 17, 19};
__device__ u32 GLOBAL_BIAS[4] = {100, 200, 300, 400};
__device__ u32 GLOBAL_CALLS = 0;
}

inline namespace language_parts {

__device__ __forceinline__ u32 thread_index() {
    return blockIdx.x * blockDim.x + threadIdx.x;
}

}  // namespace language_parts

extern "C" __device__ __noinline__ u32 collatz_next(u32 v) {
    return v % 2 == 0 ? v / 2 : 3 * v + 1;
}

extern "C" __device__ __noinline__ u32 collatz_steps(u32 v) {
    u32 steps = 0;
    while (v > 1 && steps < 1000) {
        v = collatz_next(v);
        ++steps;
    }
    return steps;
}

extern "C" __global__ void call_collatz(const u32* __restrict__ x, u32* __restrict__ out, u32 n) {
    const u32 i = thread_index();
    if (i < n) {
        out[i] = collatz_steps(x[i]);
    }
}

extern "C" __global__ void local_sort(const u32* __restrict__ x, u32* __restrict__ out, u32 n) {
    constexpr u32 WORDS = 16;
    const u32 i = thread_index();
    if (i >= n) {
        return;
    }
    u32 words[WORDS];
    // Insertion; the loops are kept, so that the index stays a register and the array local.
#pragma unroll 1
    for (u32 j = 0; j < WORDS; ++j) {
        const u32 word = x[u64(i) * WORDS + j];
        u32 place = j;
#pragma unroll 1
        while (place > 0 && words[place - 1] > word) {
            words[place] = words[place - 1];
            --place;
        }
        words[place] = word;
    }
#pragma unroll 1
    for (u32 j = 0; j < WORDS; ++j) {
        out[u64(i) * WORDS + j] = words[j];
    }
}

extern "C" __global__ void switch_ops(const u32* __restrict__ x, const u32* __restrict__ code,
                                      u32* __restrict__ out, u32 n) {
    const u32 i = thread_index();
    if (i >= n) {
        return;
    }
    const u32 v = x[i];
    switch (code[i] % 9) {
        case 0: out[i] = v + 1; break;
        case 1: out[i] = v * 3; break;
        case 2: out[i] = v ^ 0x55; break;
        case 3: out[i] = v >> 3; break;
        case 4: out[i] = ~v; break;
        case 5: out[i] = __popc(v); break;
        case 6: out[i] = __clz(v); break;
        case 7: out[i] = __brev(v); break;
        case 8: out[i] = v - 7; break;
    }
}

extern "C" __global__ void constants(const u32* __restrict__ x, u32* __restrict__ out, u32 n) {
    const u32 i = thread_index();
    if (i < n) {
        out[i] = x[i] * CONSTANT_SCALE[i % 8] + GLOBAL_BIAS[i % 4];
        ptx::red_add_relaxed_gpu(&GLOBAL_CALLS, 1);
    }
}

extern "C" __global__ void by_value(const u32* __restrict__ x, u32* __restrict__ out, u32 n,
                                    Affine affine) {
    const u32 i = thread_index();
    if (i < n) {
        out[i] = x[i] * affine.scale[i % 3] + affine.bias;
    }
}

extern "C" __global__ void trap_unless_below(const u32* __restrict__ x, u32* __restrict__ out,
                                             u32 n, u32 limit) {
    const u32 i = thread_index();
    if (i < n) {
        if (x[i] >= limit) {
            __trap();
        }
        out[i] = x[i];
    }
}
