// From a routing table to its maps: counts, offsets, stable positions.
//
// token_offsets [T+1], expert_indices [A] -> row_of_assignment [A], assignment_of_row [R],
// token_of_row [R], expert_offsets [E+1]. Rows are numbered expert by expert, inside an expert by
// assignment, so by token. An expert's rows start at a multiple of row_alignment; the rows between
// belong to no token (-1). A and R are bounds: A itself is token_offsets[T], which only the device
// knows, and entries behind it are -1.
//
// Three launches, over tiles of tokens_per_tile tokens; a warp takes a tile:
//   tg_sort_count: how many assignments of each tile every expert has: counts [tiles, E]. Fills the
//       maps with -1, and raises what is wrong with the table.
//   tg_sort_scan: counts to those of the tiles before, column by column, and totals [E].
//   tg_sort_rows: every block adds up the totals to the experts' offsets; then each warp walks its
//       tile in order and gives every assignment the next row of its expert. Lanes with the same
//       expert find each other by match.any, so that nothing depends on an order of atomics.
//
// What is summed in which order depends on the shapes alone, and all of it is integers. With broken
// token offsets no assignment gets a row: all maps are -1, all offsets 0.

#include "tollgate/abi/permute.h"
#include "tollgate/block.cuh"
#include "tollgate/rows.cuh"

namespace tollgate {

// Of tg_sort_count and tg_sort_rows.
inline constexpr uint32_t THREADS = 128;
inline constexpr uint32_t WARPS = THREADS / WARP;
// Up to so many experts a warp counts in shared memory; beyond, in its row of counts.
inline constexpr uint32_t SHARED_EXPERTS = 2048;
// Experts whose totals a thread of tg_sort_rows adds up at a time.
inline constexpr uint32_t EXPERTS_PER_THREAD = 4;

// tg_sort_scan: a lane takes an expert, the warps share the tiles.
inline constexpr uint32_t SCAN_THREADS = 1024;
inline constexpr uint32_t SCAN_WARPS = SCAN_THREADS / WARP;

static_assert(WARPS * SHARED_EXPERTS * sizeof(uint32_t) + sizeof(BlockScratch) <= 48 * 1024);

// An expert index outside 0..E, as every lane's value without an assignment.
inline constexpr uint32_t NO_EXPERT = 0xffffffffu;

// Up to 32 tokens, one a lane, whose offsets ascend: their assignments are one range.
struct TokenGroup {
    Assignments assignments;
    uint32_t first_token;
    // The lane's token: where its assignments start. Lanes without a token: the end.
    uint32_t start;
};

// The tokens `first` to `first` + 31; `end` is the tile's last and one. Bad offsets: false, and a
// fault if `raises`.
__device__ __forceinline__ bool token_group(TokenGroup& group, const SortParams& p, uint32_t first,
                                            uint32_t end, bool raises) {
    const uint32_t left = end - first;
    const uint32_t tokens = left < WARP ? left : WARP;
    // Offset `lane` and the next one; lanes without a token hold the end.
    const uint32_t lane = lane_id() < tokens ? lane_id() : tokens;
    const int32_t start = p.token_offsets[first + lane];
    const int32_t next = p.token_offsets[first + (lane < tokens ? lane + 1 : tokens)];
    bool fits = offsets_fit(start, next, p.max_assignments);
    // The first offset of all is 0, or the first assignments would be lost.
    fits = fits && (first + lane > 0 || start == 0);
    if (!fits && raises) {
        raise_bad_index(p.status, fault::TOKEN_OFFSETS, first + lane);
    }
    if (ptx::ballot(ptx::ALL_LANES, !fits) != 0) {
        return false;
    }
    group.first_token = first;
    group.start = static_cast<uint32_t>(start);
    group.assignments.start = ptx::shfl_idx_u32(ptx::ALL_LANES, group.start, 0);
    group.assignments.end =
        ptx::shfl_idx_u32(ptx::ALL_LANES, static_cast<uint32_t>(next), WARP - 1);
    return true;
}

// The token of an assignment of the group: the last that starts at or before it, by halving. Lanes
// may ask for different assignments; all take part.
__device__ __forceinline__ uint32_t token_of(const TokenGroup& group, uint32_t assignment) {
    uint32_t lane = 0;
#pragma unroll
    for (uint32_t step = WARP / 2; step > 0; step /= 2) {
        const uint32_t start = ptx::shfl_idx_u32(ptx::ALL_LANES, group.start, lane + step);
        lane = start <= assignment ? lane + step : lane;
    }
    return group.first_token + lane;
}

// The expert of an assignment; NO_EXPERT where the index is out of range.
__device__ __forceinline__ uint32_t expert_of(const SortParams& p, uint32_t assignment) {
    const uint32_t expert = static_cast<uint32_t>(p.expert_indices[assignment]);
    return expert < p.num_experts ? expert : NO_EXPERT;
}

// The tile of this warp, and its tokens.
struct Tile {
    uint32_t number;
    uint32_t first;
    uint32_t end;
};

__device__ __forceinline__ Tile tile_of_warp(const SortParams& p) {
    const uint32_t number = blockIdx.x * WARPS + warp_id();
    if (number >= p.num_tiles) {
        return {number, 0, 0};
    }
    const uint32_t first = number * p.tokens_per_tile;
    const uint32_t left = p.num_tokens - first;
    return {number, first, first + (left < p.tokens_per_tile ? left : p.tokens_per_tile)};
}

__device__ __forceinline__ uint32_t* counts_of(const SortParams& p, uint32_t tile) {
    return p.counts + static_cast<uint64_t>(tile) * p.num_experts;
}

// ---- tg_sort_count ----

// -1 into `values`, by all threads of the grid.
__device__ __forceinline__ void fill(int32_t* values, uint32_t count) {
    const uint32_t threads = gridDim.x * THREADS;
    for (uint64_t i = blockIdx.x * THREADS + threadIdx.x; i < count; i += threads) {
        values[i] = -1;
    }
}

template <bool SHARED>
__device__ __forceinline__ void sort_count(const SortParams& p) {
    __shared__ uint32_t histograms[SHARED ? WARPS * SHARED_EXPERTS : 1];
    const Tile tile = tile_of_warp(p);
    const bool has_tile = tile.number < p.num_tiles;
    uint32_t* counts = SHARED ? histograms + warp_id() * p.num_experts : counts_of(p, tile.number);
    if (has_tile) {
        for (uint32_t e = lane_id(); e < p.num_experts; e += WARP) {
            counts[e] = 0;
        }
    }
    fill(p.row_of_assignment, p.max_assignments);
    fill(p.assignment_of_row, p.max_rows);
    fill(p.token_of_row, p.max_rows);
    __syncwarp();
    for (uint32_t first = tile.first; first < tile.end; first += WARP) {
        TokenGroup group;
        if (!token_group(group, p, first, tile.end, true)) {
            continue;
        }
        for (uint32_t a = group.assignments.start + lane_id(); a < group.assignments.end;
             a += WARP) {
            const uint32_t expert = expert_of(p, a);
            if (expert == NO_EXPERT) {
                raise_bad_index(p.status, fault::EXPERT_INDEX, a);
            } else {
                // The order does not matter: these are counts.
                atomicAdd(&counts[expert], 1u);
            }
        }
    }
    __syncwarp();
    if (SHARED && has_tile) {
        uint32_t* out = counts_of(p, tile.number);
        for (uint32_t e = lane_id(); e < p.num_experts; e += WARP) {
            out[e] = counts[e];
        }
    }
}

// ---- tg_sort_scan ----

__device__ __forceinline__ void sort_scan(const SortParams& p) {
    __shared__ uint32_t sums[SCAN_WARPS][WARP];
    const uint32_t expert = blockIdx.x * WARP + lane_id();
    const bool active = expert < p.num_experts;
    const uint32_t share = static_cast<uint32_t>(ceil_div(p.num_tiles, SCAN_WARPS));
    const uint64_t from = static_cast<uint64_t>(warp_id()) * share;
    const uint64_t first = from < p.num_tiles ? from : p.num_tiles;
    const uint64_t end = first + share < p.num_tiles ? first + share : p.num_tiles;
    uint32_t* column = p.counts + expert;
    uint32_t sum = 0;
    if (active) {
#pragma unroll 8
        for (uint64_t tile = first; tile < end; ++tile) {
            sum += column[tile * p.num_experts];
        }
    }
    sums[warp_id()][lane_id()] = sum;
    __syncthreads();
    uint32_t before = 0;
    for (uint32_t warp = 0; warp < warp_id(); ++warp) {
        before += sums[warp][lane_id()];
    }
    if (!active) {
        return;
    }
    uint32_t at = before;
#pragma unroll 8
    for (uint64_t tile = first; tile < end; ++tile) {
        const uint32_t count = column[tile * p.num_experts];
        column[tile * p.num_experts] = at;
        at += count;
    }
    if (warp_id() == SCAN_WARPS - 1) {
        p.totals[expert] = at;
        // The table's own offsets must say the same.
        const uint32_t start = static_cast<uint32_t>(p.table_expert_offsets[expert]);
        const uint32_t next = static_cast<uint32_t>(p.table_expert_offsets[expert + 1]);
        if (next - start != at || (expert == 0 && start != 0)) {
            raise_bad_index(p.status, fault::EXPERT_OFFSETS, expert);
        }
    }
}

// ---- tg_sort_rows ----

// The experts' offsets from their totals. Block 0 writes them; every block adds them to the counts
// of its tiles, which become the next row of each expert.
template <bool SHARED>
__device__ __forceinline__ void offsets(const SortParams& p, bool broken, uint32_t* next,
                                        BlockScratch& scratch) {
    constexpr uint32_t AT_A_TIME = THREADS * EXPERTS_PER_THREAD;
    const uint32_t first_tile = blockIdx.x * WARPS;
    uint32_t carried = 0;
    for (uint32_t start = 0; start < p.num_experts; start += AT_A_TIME) {
        const uint32_t mine = start + threadIdx.x * EXPERTS_PER_THREAD;
        uint32_t rows[EXPERTS_PER_THREAD];
        uint32_t sum = 0;
#pragma unroll
        for (uint32_t i = 0; i < EXPERTS_PER_THREAD; ++i) {
            const uint32_t total = mine + i < p.num_experts && !broken ? p.totals[mine + i] : 0;
            // A division a thread and launch, and none where nothing is aligned.
            rows[i] = p.row_alignment == 1
                          ? total
                          : static_cast<uint32_t>(ceil_div(total, p.row_alignment)) *
                                p.row_alignment;
            sum += rows[i];
        }
        const Ranked at = block_exclusive_sum<THREADS>(sum, scratch);
        uint32_t offset = carried + at.before;
#pragma unroll
        for (uint32_t i = 0; i < EXPERTS_PER_THREAD; ++i) {
            if (mine + i < p.num_experts) {
                if (blockIdx.x == 0) {
                    p.expert_offsets[mine + i] = static_cast<int32_t>(offset);
                }
#pragma unroll
                for (uint32_t warp = 0; warp < WARPS; ++warp) {
                    if (first_tile + warp < p.num_tiles) {
                        uint32_t* count = counts_of(p, first_tile + warp) + mine + i;
                        if (SHARED) {
                            next[warp * p.num_experts + mine + i] = *count + offset;
                        } else {
                            *count += offset;
                        }
                    }
                }
            }
            offset += rows[i];
        }
        carried += at.total;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        p.expert_offsets[p.num_experts] = static_cast<int32_t>(carried);
    }
}

template <bool SHARED>
__device__ __forceinline__ void sort_rows(const SortParams& p) {
    __shared__ uint32_t next_rows[SHARED ? WARPS * SHARED_EXPERTS : 1];
    __shared__ BlockScratch scratch;
    const bool broken = (p.status->faults & fault::TOKEN_OFFSETS) != 0;
    offsets<SHARED>(p, broken, next_rows, scratch);
    __syncthreads();
    if (broken) {
        return;
    }
    const Tile tile = tile_of_warp(p);
    uint32_t* next = SHARED ? next_rows + warp_id() * p.num_experts : counts_of(p, tile.number);
    for (uint32_t first = tile.first; first < tile.end; first += WARP) {
        TokenGroup group;
        if (!token_group(group, p, first, tile.end, false)) {
            continue;
        }
        for (uint32_t start = group.assignments.start; start < group.assignments.end;
             start += WARP) {
            const uint32_t a = start + lane_id();
            const uint32_t expert = a < group.assignments.end ? expert_of(p, a) : NO_EXPERT;
            const uint32_t token = token_of(group, a);
            const uint32_t same = ptx::match_any_u32(ptx::ALL_LANES, expert);
            const uint32_t lower = same & ptx::lanes_below();
            uint32_t row = 0;
            if (expert != NO_EXPERT) {
                row = next[expert] + __popc(lower);
            }
            // All have read before the lowest of each expert moves on, and it has before the next
            // round reads.
            __syncwarp();
            if (expert != NO_EXPERT && lower == 0) {
                next[expert] = row + __popc(same);
            }
            __syncwarp();
            if (expert != NO_EXPERT && row < p.max_rows) {
                p.row_of_assignment[a] = static_cast<int32_t>(row);
                p.assignment_of_row[row] = static_cast<int32_t>(a);
                p.token_of_row[row] = static_cast<int32_t>(token);
            }
        }
    }
}

}  // namespace tollgate

extern "C" __global__ void __launch_bounds__(tollgate::THREADS)
    tg_sort_count(const __grid_constant__ tollgate::SortParams p) {
    tollgate::sort_count<true>(p);
}
extern "C" __global__ void __launch_bounds__(tollgate::THREADS)
    tg_sort_count_many(const __grid_constant__ tollgate::SortParams p) {
    tollgate::sort_count<false>(p);
}
extern "C" __global__ void __launch_bounds__(tollgate::SCAN_THREADS)
    tg_sort_scan(const __grid_constant__ tollgate::SortParams p) {
    tollgate::sort_scan(p);
}
extern "C" __global__ void __launch_bounds__(tollgate::THREADS)
    tg_sort_rows(const __grid_constant__ tollgate::SortParams p) {
    tollgate::sort_rows<true>(p);
}
extern "C" __global__ void __launch_bounds__(tollgate::THREADS)
    tg_sort_rows_many(const __grid_constant__ tollgate::SortParams p) {
    tollgate::sort_rows<false>(p);
}
