// Rows of bf16 moved in pieces of 16 bytes, and their weighted way back.
//
//   gather_rows_16b:     dst[r, :] = src[row_of[r], :], or zeros where row_of[r] is NO_ROW
//   scatter_rows_16b:    dst[row_of[r], :] = src[r, :], nothing where row_of[r] is NO_ROW
//   unpermute_rows_bf16: dst[t, :] = bf16(sum_j weights[t, j] * src[row_of[t, j], :]), f32 sums in
//                        the order of j with fused multiply-adds; NO_ROW adds nothing
//
// NO_ROW is 0xffffffff. H is a multiple of 8; row strides are in pieces of 16 bytes and may exceed
// H / 8. Offsets are 64 bits wide.
//
// Geometry: grid any, block any multiple of 32, no shared memory; blocks stride over the rows.
// Parameters: gather, scatter: src bf16, dst bf16, row_of [rows] u32, rows u32, row_pieces u32,
//   src_stride u64, dst_stride u64. unpermute: src, dst, row_of [T, k] u32, weights [T, k] f32,
//   T u32, k u32, row_pieces u32, src_stride u64, dst_stride u64.
// Synchronisation: none; `row_of` of a scatter names each destination at most once.

#include "ptx.cuh"

using ptx::u32;
using ptx::u64;

inline namespace permute16_parts {
constexpr u32 NO_ROW = 0xffffffff;
}  // namespace permute16_parts

extern "C" __global__ void gather_rows_16b(const uint4* __restrict__ src, uint4* __restrict__ dst,
                                           const u32* __restrict__ row_of, u32 rows,
                                           u32 row_pieces, u64 src_stride, u64 dst_stride) {
    for (u32 r = blockIdx.x; r < rows; r += gridDim.x) {
        const u32 source = row_of[r];
        for (u32 i = threadIdx.x; i < row_pieces; i += blockDim.x) {
            const uint4 piece = source == NO_ROW
                                    ? make_uint4(0, 0, 0, 0)
                                    : ptx::ld_nc_no_allocate(src + source * src_stride + i);
            __stcs(dst + r * dst_stride + i, piece);
        }
    }
}

extern "C" __global__ void scatter_rows_16b(const uint4* __restrict__ src, uint4* __restrict__ dst,
                                            const u32* __restrict__ row_of, u32 rows,
                                            u32 row_pieces, u64 src_stride, u64 dst_stride) {
    for (u32 r = blockIdx.x; r < rows; r += gridDim.x) {
        const u32 target = row_of[r];
        if (target == NO_ROW) {
            continue;
        }
        for (u32 i = threadIdx.x; i < row_pieces; i += blockDim.x) {
            dst[target * dst_stride + i] = ptx::ld_nc_no_allocate(src + r * src_stride + i);
        }
    }
}

extern "C" __global__ void unpermute_rows_bf16(const uint4* __restrict__ src,
                                               uint4* __restrict__ dst,
                                               const u32* __restrict__ row_of,
                                               const float* __restrict__ weights, u32 tokens,
                                               u32 k, u32 row_pieces, u64 src_stride,
                                               u64 dst_stride) {
    for (u32 t = blockIdx.x; t < tokens; t += gridDim.x) {
        for (u32 i = threadIdx.x; i < row_pieces; i += blockDim.x) {
            float sum[8] = {};
            for (u32 j = 0; j < k; ++j) {
                const u32 row = row_of[u64(t) * k + j];
                if (row == NO_ROW) {
                    continue;
                }
                const float w = weights[u64(t) * k + j];
                const uint4 piece = src[row * src_stride + i];
                const u32 pairs[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
                for (int p = 0; p < 4; ++p) {
                    // A bf16 is the upper half of an f32.
                    sum[2 * p] = fmaf(w, __uint_as_float(pairs[p] << 16), sum[2 * p]);
                    sum[2 * p + 1] =
                        fmaf(w, __uint_as_float(pairs[p] & 0xffff0000), sum[2 * p + 1]);
                }
            }
            dst[t * dst_stride + i] = make_uint4(
                ptx::cvt_rn_bf16x2(sum[0], sum[1]), ptx::cvt_rn_bf16x2(sum[2], sum[3]),
                ptx::cvt_rn_bf16x2(sum[4], sum[5]), ptx::cvt_rn_bf16x2(sum[6], sum[7]));
        }
    }
}
