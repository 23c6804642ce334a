// The consistency loss of stochastic experts (Zuo et al., ICLR 2022) and its gradient with respect
// to both sides: alpha / 2 sum_i (p_i - q_i)(log p_i - log q_i) over the rows of a, b [N, V] with p
// = softmax(a), q = softmax(b).
//
// A team has a row: a warp where rows are short, else a block. It goes over the row four times:
// largest logits, sums of exponentials, divergences, gradients. Rows that fit wait in shared memory
// meanwhile. Columns belong to threads by their number alone, so that no bit depends on alignment,
// and no thread waits for what another has put there. Exponentials are f32, all else is f64.

#include <cstdint>

#include "tollgate/abi/selection.h"
#include "tollgate/block.cuh"
#include "tollgate/numeric.cuh"
#include "tollgate/numeric_f64.cuh"

namespace tollgate {

inline constexpr uint32_t THREADS = 256;

// ---- teams ----

// Sums, maxima and questions that a row's threads answer together.
struct WarpTeam {
    static constexpr uint32_t SIZE = WARP;

    __device__ __forceinline__ uint32_t rank() const { return lane_id(); }
    __device__ __forceinline__ double sum(double v) const { return warp_sum(v); }
    __device__ __forceinline__ float max(float v) const { return warp_max(v); }
    __device__ __forceinline__ bool any(bool v) const {
        return ptx::ballot(ptx::ALL_LANES, v) != 0;
    }
};

struct BlockTeam {
    static constexpr uint32_t SIZE = THREADS;
    BlockScratch& scratch;
    float* maxima;

    __device__ __forceinline__ uint32_t rank() const { return threadIdx.x; }
    __device__ __forceinline__ double sum(double v) const {
        return block_sum<THREADS>(v, scratch);
    }
    __device__ __forceinline__ float max(float v) const {
        v = warp_max(v);
        if (lane_id() == 0) {
            maxima[warp_id()] = v;
        }
        __syncthreads();
        const bool there = lane_id() < THREADS / WARP;
        v = warp_max(there ? maxima[lane_id()] : -infinity_f32());
        __syncthreads();
        return v;
    }
    __device__ __forceinline__ bool any(bool v) const { return __syncthreads_or(v) != 0; }
};

// ---- rows ----

struct Row {
    const float* a;
    const float* b;
    float* da;
    float* db;
    // Both sides in shared memory, ceil(V / 4) pieces each; null: the row is too long.
    float4* waiting;
    uint32_t columns;
    // Aligned to 16 bytes, with a multiple of 4 columns.
    bool wide;
};

// Four columns of both sides; what lies behind the row's end is masked, which adds nothing.
struct Pieces {
    float a[4];
    float b[4];
};

__device__ __forceinline__ float4 four_of(const float* v) {
    return make_float4(v[0], v[1], v[2], v[3]);
}

__device__ __forceinline__ void take_four(float4 four, float* v) {
    v[0] = four.x;
    v[1] = four.y;
    v[2] = four.z;
    v[3] = four.w;
}

__device__ __forceinline__ void load_four(const float* row, uint32_t c, const Row& r, float* v) {
    if (r.wide) {
        take_four(*reinterpret_cast<const float4*>(row + c), v);
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        v[i] = c + i < r.columns ? row[c + i] : -infinity_f32();
    }
}

__device__ __forceinline__ void store_four(float* row, uint32_t c, const Row& r, const float* v) {
    if (r.wide) {
        *reinterpret_cast<float4*>(row + c) = four_of(v);
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        if (c + i < r.columns) {
            row[c + i] = v[i];
        }
    }
}

// Whether pieces come from the matrices, and wait from then on, or have been waiting.
enum class Pass { First, Later };

template <Pass PASS, typename Team, typename Work>
__device__ __forceinline__ void for_pieces(const Team& team, const Row& row, Work work) {
    const uint32_t pieces = (row.columns + 3) / 4;
    for (uint32_t c = team.rank() * 4; c < row.columns; c += Team::SIZE * 4) {
        Pieces p;
        if (PASS == Pass::First || row.waiting == nullptr) {
            load_four(row.a, c, row, p.a);
            load_four(row.b, c, row, p.b);
        } else {
            take_four(row.waiting[c / 4], p.a);
            take_four(row.waiting[pieces + c / 4], p.b);
        }
        if (PASS == Pass::First && row.waiting != nullptr) {
            row.waiting[c / 4] = four_of(p.a);
            row.waiting[pieces + c / 4] = four_of(p.b);
        }
        work(c, p);
    }
}

template <typename Team>
__device__ __forceinline__ void fill_gradients(const Team& team, const Row& row, float value) {
    const float four[4] = {value, value, value, value};
    for (uint32_t c = team.rank() * 4; c < row.columns; c += Team::SIZE * 4) {
        store_four(row.da, c, row, four);
        store_four(row.db, c, row, four);
    }
}

// ---- one side of a row ----

// Its largest logit, and log and reciprocal of sum exp(z - max).
struct Side {
    float max;
    double log_sum;
    float reciprocal;

    // Of the exponential of z - max.
    __device__ __forceinline__ double probability(float z) const {
        return __fmul_rn(exp_of_nonpositive(__fsub_rn(z, max)), reciprocal);
    }
    // In f64: a difference of large logits could overflow in f32.
    __device__ __forceinline__ double log_probability(float z) const {
        return __dsub_rn(__dsub_rn(z, max), log_sum);
    }
};

// A row of only -infinity has probabilities of 0.
__device__ __forceinline__ Side side_of(float max, double sum) {
    if (sum == 0.0) {
        return {0.0f, 0.0, 0.0f};
    }
    return {max, ln_f64(sum), __double2float_rn(__ddiv_rn(1.0, sum))};
}

// log p - log q; 0 where both are masked.
__device__ __forceinline__ double log_ratio(const Side& p, const Side& q, float a, float b) {
    const double difference = __dsub_rn(p.log_probability(a), q.log_probability(b));
    return a == -infinity_f32() ? 0.0 : difference;
}

// The row's loss; writes its gradients.
template <typename Team>
__device__ __forceinline__ double divergence(const Team& team, const Row& row, double alpha) {
    float max_a = -infinity_f32();
    float max_b = -infinity_f32();
    bool faulty = false;
    bool one_sided = false;
    for_pieces<Pass::First>(team, row, [&](uint32_t, const Pieces& v) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            max_a = v.a[i] > max_a ? v.a[i] : max_a;
            max_b = v.b[i] > max_b ? v.b[i] : max_b;
            faulty |= !(v.a[i] < infinity_f32()) | !(v.b[i] < infinity_f32());
            one_sided |= (v.a[i] == -infinity_f32()) != (v.b[i] == -infinity_f32());
        }
    });
    faulty = team.any(faulty);
    one_sided = team.any(one_sided);
    if (faulty || one_sided) {
        fill_gradients(team, row, nan_f32());
        return faulty ? static_cast<double>(nan_f32()) : static_cast<double>(infinity_f32());
    }
    max_a = team.max(max_a);
    max_b = team.max(max_b);
    // A fully masked row has no largest logit; 0 keeps -infinity - max at -infinity.
    max_a = max_a == -infinity_f32() ? 0.0f : max_a;
    max_b = max_b == -infinity_f32() ? 0.0f : max_b;

    double sum_a = 0.0;
    double sum_b = 0.0;
    for_pieces<Pass::Later>(team, row, [&](uint32_t, const Pieces& v) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            sum_a = __dadd_rn(sum_a, exp_of_nonpositive(__fsub_rn(v.a[i], max_a)));
            sum_b = __dadd_rn(sum_b, exp_of_nonpositive(__fsub_rn(v.b[i], max_b)));
        }
    });
    const Side p = side_of(max_a, team.sum(sum_a));
    const Side q = side_of(max_b, team.sum(sum_b));

    double kl_pq = 0.0;
    double kl_qp = 0.0;
    for_pieces<Pass::Later>(team, row, [&](uint32_t, const Pieces& v) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const double ratio = log_ratio(p, q, v.a[i], v.b[i]);
            kl_pq = __fma_rn(p.probability(v.a[i]), ratio, kl_pq);
            kl_qp = __fma_rn(-q.probability(v.b[i]), ratio, kl_qp);
        }
    });
    kl_pq = team.sum(kl_pq);
    kl_qp = team.sum(kl_qp);

    const double half = 0.5 * alpha;
    for_pieces<Pass::Later>(team, row, [&](uint32_t c, const Pieces& v) {
        Pieces d;
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const double pi = p.probability(v.a[i]);
            const double qi = q.probability(v.b[i]);
            const double ratio = log_ratio(p, q, v.a[i], v.b[i]);
            const double of_a = __fma_rn(pi, __dsub_rn(ratio, kl_pq), __dsub_rn(pi, qi));
            const double of_b = __fma_rn(qi, __dsub_rn(-ratio, kl_qp), __dsub_rn(qi, pi));
            d.a[i] = __double2float_rn(__dmul_rn(half, of_a));
            d.b[i] = __double2float_rn(__dmul_rn(half, of_b));
        }
        store_four(row.da, c, row, d.a);
        store_four(row.db, c, row, d.b);
    });
    return __dmul_rn(half, __dadd_rn(kl_pq, kl_qp));
}

template <typename Team>
__device__ __forceinline__ void row_consistency(const Team& team, const ConsistencyParams& p,
                                                uint64_t r, float4* waiting) {
    const Row row = {p.a + r * p.a_stride,
                     p.b + r * p.b_stride,
                     p.da + r * p.da_stride,
                     p.db + r * p.db_stride,
                     p.waits ? waiting : nullptr,
                     p.columns,
                     p.wide != 0};
    double loss = 0.0;
    // With alpha = 0 nothing counts, whatever the rows hold.
    if (p.alpha == 0.0 || (p.padding != nullptr && p.padding[r] != 0)) {
        fill_gradients(team, row, 0.0f);
    } else {
        loss = divergence(team, row, p.alpha);
    }
    if (team.rank() == 0) {
        p.row_losses[r] = loss;
    }
}

// ---- kernels ----

extern "C" __global__ void __launch_bounds__(256)
    tg_consistency_warp(const __grid_constant__ ConsistencyParams p) {
    extern __shared__ float4 waiting[];
    const uint64_t r = static_cast<uint64_t>(blockIdx.x) * (THREADS / WARP) + warp_id();
    if (r < p.rows) {
        const uint32_t of_warp = (p.columns + 3) / 4 * 2;
        row_consistency(WarpTeam{}, p, r, waiting + warp_id() * of_warp);
    }
}

extern "C" __global__ void __launch_bounds__(256)
    tg_consistency_block(const __grid_constant__ ConsistencyParams p) {
    __shared__ BlockScratch scratch;
    __shared__ float maxima[THREADS / WARP];
    extern __shared__ float4 waiting[];
    row_consistency(BlockTeam{scratch, maxima}, p, blockIdx.x, waiting);
}

// The rows' losses, added in an order that their number alone decides.
extern "C" __global__ void __launch_bounds__(256)
    tg_consistency_sum(const __grid_constant__ ConsistencyParams p) {
    __shared__ BlockScratch scratch;
    double sum = 0.0;
    for (uint64_t r = threadIdx.x; r < p.rows; r += THREADS) {
        sum = __dadd_rn(sum, p.row_losses[r]);
    }
    sum = block_sum<THREADS>(sum, scratch);
    if (threadIdx.x == 0) {
        *p.loss = sum;
    }
}

}  // namespace tollgate
