// Two grids, the second of which may start before the first one ends.
//
//   dependent_first:  mid[i] = 3 x[i] + 1
//   dependent_second: out[i] = mid[n - 1 - i] ^ mask[i % 32]     (modulo 2^32)
//
// Geometry: grid any with grid * block >= n, block any; no shared memory. The second one is
//   launched on the same stream, plainly or with programmatic stream serialisation.
// Parameters: dependent_first: x [n] u32, mid [n] u32, n. dependent_second: mid [n] u32,
//   mask [32] u32, out [n] u32, n.
// Synchronisation: griddepcontrol.launch_dependents only lets the second grid start; what it reads
//   of the first one's writes comes after griddepcontrol.wait. `mask` is older than both grids.

#include "ptx.cuh"

using ptx::u32;

extern "C" __global__ void dependent_first(const u32* x, u32* mid, u32 n) {
    ptx::griddepcontrol_launch_dependents();
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        mid[i] = 3 * x[i] + 1;
    }
}

// `mid` changes while this grid runs: no __restrict__, so that it is not read by the read-only
// path.
extern "C" __global__ void dependent_second(const u32* mid, const u32* mask, u32* out, u32 n) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    const u32 flip = i < n ? mask[i % 32] : 0;
    ptx::griddepcontrol_wait();
    if (i < n) {
        out[i] = mid[n - 1 - i] ^ flip;
    }
}
