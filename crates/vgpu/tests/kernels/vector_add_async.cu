// Sums of two vectors whose pieces come through shared memory, copied ahead by cp.async.
//
//   out[i] = x[i] + y[i]
//
//   vector_add_groups:   two slots, completion by commit and wait groups
//   vector_add_mbarrier: two slots, completion on an mbarrier a slot (sm_80's: arrive by cp.async,
//                        test_wait); what one thread copies another one reads
//
// Geometry: grid any, block 128, static shared memory only. Chunks of 128 floats; blocks stride
//   over the chunks.
// Parameters: x [n] f32, y [n] f32, out [n] f32, n. Any n.
// Synchronisation: in `vector_add_groups` each thread reads only what it copied, so its own wait
//   suffices. In `vector_add_mbarrier` all 128 threads' copies complete the `full` barrier; a
//   thread reads its neighbour's words after the wait; `empty`, at which all arrive after reading,
//   lets the slot be filled again.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

inline namespace vector_add_async_parts {

constexpr u32 CHUNK = 128;
constexpr u32 SLOTS = 2;

struct Slot {
    float x[CHUNK];
    float y[CHUNK];
};

// Words past the end are zero and not read.
__device__ __forceinline__ void copy_word(Slot& slot, const float* x, const float* y, u32 chunk,
                                          u32 n) {
    const u32 i = chunk * CHUNK + threadIdx.x;
    const u32 from = i < n ? i : 0;
    const u32 bytes = i < n ? 4 : 0;
    ptx::cp_async_4(&slot.x[threadIdx.x], x + from, bytes);
    ptx::cp_async_4(&slot.y[threadIdx.x], y + from, bytes);
}

}  // namespace vector_add_async_parts

extern "C" __global__ void __launch_bounds__(CHUNK)
    vector_add_groups(const float* __restrict__ x, const float* __restrict__ y,
                      float* __restrict__ out, u32 n) {
    __shared__ Slot slots[SLOTS];

    const u32 chunks = (n + CHUNK - 1) / CHUNK;
    u32 slot = 0;
    if (blockIdx.x < chunks) {
        copy_word(slots[slot], x, y, blockIdx.x, n);
    }
    ptx::cp_async_commit_group();
    for (u32 chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        if (chunk + gridDim.x < chunks) {
            copy_word(slots[slot ^ 1], x, y, chunk + gridDim.x, n);
        }
        ptx::cp_async_commit_group();
        ptx::cp_async_wait_group<1>();
        const u32 i = chunk * CHUNK + threadIdx.x;
        if (i < n) {
            out[i] = slots[slot].x[threadIdx.x] + slots[slot].y[threadIdx.x];
        }
        slot ^= 1;
    }
}

extern "C" __global__ void __launch_bounds__(CHUNK)
    vector_add_mbarrier(const float* __restrict__ x, const float* __restrict__ y,
                        float* __restrict__ out, u32 n) {
    __shared__ Slot slots[SLOTS];
    __shared__ u64 full[SLOTS];
    __shared__ u64 empty[SLOTS];

    if (threadIdx.x == 0) {
        for (u32 s = 0; s < SLOTS; ++s) {
            ptx::mbarrier_init(&full[s], CHUNK);
            ptx::mbarrier_init(&empty[s], CHUNK);
        }
    }
    __syncthreads();

    const u32 chunks = (n + CHUNK - 1) / CHUNK;
    const u32 mine = blockIdx.x < chunks ? (chunks - 1 - blockIdx.x) / gridDim.x + 1 : 0;
    const u32 neighbour = threadIdx.x ^ 33;  // in another warp
    // Fill `use` of a slot is the slot's (use / SLOTS)-th; step `use` consumes fill use - 1.
    for (u32 use = 0; use <= mine; ++use) {
        if (use < mine) {
            const u32 s = use % SLOTS;
            if (use >= SLOTS) {
                while (!ptx::mbarrier_test_wait(&empty[s], (use / SLOTS - 1) % 2)) {
                }
            }
            copy_word(slots[s], x, y, blockIdx.x + use * gridDim.x, n);
            ptx::cp_async_mbarrier_arrive_noinc(&full[s]);
        }
        if (use > 0) {
            const u32 s = (use - 1) % SLOTS;
            while (!ptx::mbarrier_test_wait(&full[s], (use - 1) / SLOTS % 2)) {
            }
            const u32 i = (blockIdx.x + (use - 1) * gridDim.x) * CHUNK + neighbour;
            if (i < n) {
                out[i] = slots[s].x[neighbour] + slots[s].y[neighbour];
            }
            ptx::mbarrier_arrive(&empty[s]);
        }
    }

    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < SLOTS; ++s) {
            ptx::mbarrier_inval(&full[s]);
            ptx::mbarrier_inval(&empty[s]);
        }
    }
}
