// A chain of steps over a ring of words, with a grid-wide barrier between the steps.
//
//   step: y[i] = x[i - 1] + 3 x[i] + x[i + 1]   (modulo 2^32, indices modulo n)
//   `steps` steps, back and forth between the two buffers; the result lies in `a` when `steps` is
//   even, else in `b`.
//
// Geometry: cooperative launch, grid any that is co-resident, block any; no shared memory.
// Parameters: a [n] u32 (input), b [n] u32, n, steps, arrivals [1] u32 (zeroed by the caller; holds
//   grid * steps at the end).
// Synchronisation: __syncthreads brings the block's writes before thread 0's arrival; the arrival
//   is a release at device scope and, as a read-modify-write, carries on the releases before it;
//   the polling acquire and a second __syncthreads bring every other block's writes before the next
//   step. The counter only grows, so no block can miss a phase.

#include "ptx.cuh"

using ptx::u32;

inline namespace grid_barrier_parts {

// `phase` counts from 1.
__device__ __forceinline__ void grid_barrier(u32* arrivals, u32 phase) {
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::atom_add_release_gpu(arrivals, 1);
        while (ptx::ld_acquire_gpu(arrivals) < gridDim.x * phase) {
            __nanosleep(20);
        }
    }
    __syncthreads();
}

}  // namespace grid_barrier_parts

// The buffers change roles: no __restrict__, else reads could take the read-only path.
extern "C" __global__ void grid_barrier_stencil(u32* a, u32* b, u32 n, u32 steps, u32* arrivals) {
    u32* x = a;
    u32* y = b;
    for (u32 step = 1; step <= steps; ++step) {
        for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
            const u32 left = x[i == 0 ? n - 1 : i - 1];
            const u32 right = x[i + 1 == n ? 0 : i + 1];
            y[i] = left + 3 * x[i] + right;
        }
        grid_barrier(arrivals, step);
        u32* swap = x;
        x = y;
        y = swap;
    }
}
