// Transpose of a matrix through tiles of 32 x 32 in shared memory.
//
//   out[c, r] = in[r, c]
//
// `transpose_f32` pads the tile's rows to 33 words, so that reading a column meets 32 banks;
// `transpose_conflicts_f32` does not, so that it meets one: for the counters' tests.
//
// Geometry: grid (ceil(cols / 32), ceil(rows / 32)), block (32, 8), static shared memory only.
// Parameters: in [rows, cols] f32, out [cols, rows] f32, rows, cols.
// Synchronisation: the barrier between writing the tile's rows and reading its columns.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

inline namespace transpose_parts {

constexpr u32 TILE = 32;

template <u32 PITCH>
__device__ __forceinline__ void transpose_tile(float (&tile)[TILE][PITCH],
                                               const float* __restrict__ in,
                                               float* __restrict__ out, u32 rows, u32 cols) {
    const u32 row0 = blockIdx.y * TILE;
    const u32 col0 = blockIdx.x * TILE;
    for (u32 y = threadIdx.y; y < TILE; y += blockDim.y) {
        if (row0 + y < rows && col0 + threadIdx.x < cols) {
            tile[y][threadIdx.x] = in[u64(row0 + y) * cols + col0 + threadIdx.x];
        }
    }
    __syncthreads();
    for (u32 y = threadIdx.y; y < TILE; y += blockDim.y) {
        if (col0 + y < cols && row0 + threadIdx.x < rows) {
            out[u64(col0 + y) * rows + row0 + threadIdx.x] = tile[threadIdx.x][y];
        }
    }
}

}  // namespace transpose_parts

extern "C" __global__ void transpose_f32(const float* in, float* out, u32 rows, u32 cols) {
    __shared__ float tile[TILE][TILE + 1];
    transpose_tile(tile, in, out, rows, cols);
}

extern "C" __global__ void transpose_conflicts_f32(const float* in, float* out, u32 rows,
                                                   u32 cols) {
    __shared__ float tile[TILE][TILE];
    transpose_tile(tile, in, out, rows, cols);
}
