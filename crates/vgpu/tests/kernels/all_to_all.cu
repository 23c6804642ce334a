// Exchange of rows between the devices of a group, by stores into the peers' memory.
//
// In epoch e every rank r sends rows [p, e] to every rank p (itself included), and then adds up
// what it got:
//
//   digest[s, i] = sum over the epochs of this launch of word i of the rows from rank s  (mod 2^32)
//
// One launch a rank, all at the same time. A receive buffer has one slot for each sender, used anew
// in every epoch: a flag says that it is filled, an acknowledgement to the sender that it is read.
//
// Geometry: grid = world blocks, all co-resident; block a multiple of 32; static shared memory
//   only. Block b sends to rank (rank + b) mod world and receives from rank (rank - b) mod world.
// Parameters: one `AllToAll`, by value. Flags and acknowledgements are zeroed before the first
//   launch; later launches go on with first_epoch + num_epochs. The first timeout sets `error`
//   to 1 + the peer's rank (waited for an acknowledgement) or 0x101 + the peer's rank (for rows).
// Synchronisation: __syncthreads, then a release at system scope by thread 0 publishes the block's
//   stores; an acquire at system scope by thread 0, then __syncthreads, lets the block read. The
//   acknowledgement orders reads of a slot before the stores of the next epoch into it.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

constexpr u32 MAX_WORLD = 8;

struct AllToAll {
    const uint4* send;        // [num_epochs, world, slot_pieces] of this rank
    uint4* recv[MAX_WORLD];   // of each rank: [world, slot_pieces], indexed by sender
    u32* filled[MAX_WORLD];   // of each rank: [world], the last epoch each sender has filled
    u32* drained[MAX_WORLD];  // of each rank: [world], the last epoch each receiver has read
    u32* digest;              // [world, slot_pieces * 4] of this rank, added to
    u32* error;               // [1] of this rank, 0 if all went well
    u32 rank;
    u32 world;
    u32 slot_pieces;  // 16-byte pieces a slot
    u32 first_epoch;  // counts from 1
    u32 num_epochs;
    u32 spin_limit;  // polls before giving up
};
static_assert(sizeof(AllToAll) == 240, "the host writes this struct field by field");

inline namespace all_to_all_parts {

// Whether `*word` came to `epoch` or later; epochs may wrap around.
__device__ __forceinline__ bool wait_for_epoch(const u32* word, u32 epoch, u32 spin_limit) {
    for (u32 spins = 0; spins < spin_limit; ++spins) {
        if (static_cast<int>(ptx::ld_acquire_sys(word) - epoch) >= 0) {
            return true;
        }
        __nanosleep(50);
    }
    return false;
}

}  // namespace all_to_all_parts

extern "C" __global__ void all_to_all(const __grid_constant__ AllToAll p) {
    __shared__ bool in_time;

    const u32 to = (p.rank + blockIdx.x) % p.world;
    const u32 from = (p.rank + p.world - blockIdx.x) % p.world;
    uint4* remote_slot = p.recv[to] + u64(p.rank) * p.slot_pieces;
    const uint4* local_slot = p.recv[p.rank] + u64(from) * p.slot_pieces;

    for (u32 e = 0; e < p.num_epochs; ++e) {
        const u32 epoch = p.first_epoch + e;

        // The receiver has read what we sent last.
        if (threadIdx.x == 0) {
            in_time = wait_for_epoch(p.drained[p.rank] + to, epoch - 1, p.spin_limit);
            if (!in_time) {
                atomicCAS(p.error, 0, 1 + to);
            }
        }
        __syncthreads();
        if (!in_time) {
            return;
        }

        const uint4* rows = p.send + (u64(e) * p.world + to) * p.slot_pieces;
        for (u32 i = threadIdx.x; i < p.slot_pieces; i += blockDim.x) {
            remote_slot[i] = rows[i];
        }
        __syncthreads();

        if (threadIdx.x == 0) {
            ptx::st_release_sys(p.filled[to] + p.rank, epoch);
            in_time = wait_for_epoch(p.filled[p.rank] + from, epoch, p.spin_limit);
            if (!in_time) {
                atomicCAS(p.error, 0, 0x101 + from);
            }
        }
        __syncthreads();
        if (!in_time) {
            return;
        }

        uint4* digest = reinterpret_cast<uint4*>(p.digest) + u64(from) * p.slot_pieces;
        for (u32 i = threadIdx.x; i < p.slot_pieces; i += blockDim.x) {
            const uint4 got = local_slot[i];
            uint4 sum = digest[i];
            sum.x += got.x;
            sum.y += got.y;
            sum.z += got.z;
            sum.w += got.w;
            digest[i] = sum;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            ptx::st_release_sys(p.drained[from] + p.rank, epoch);
        }
    }
}
