// Generated from src/abi/selection.rs; `TOLLGATE_BLESS=1 cargo test -p tollgate-kernels headers` writes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tollgate/abi/common.h"

namespace tollgate {

struct FinishParams {
    const int32_t* slot_experts;
    const float* slot_weights;
    int32_t* block_counts;
    const int32_t* block_histogram;
    const int32_t* load_histogram;
    const float* block_shares;
    const double* block_squares;
    int32_t* expert_counts;
    int32_t* load_counts;
    double* shares;
    int32_t* token_offsets;
    int32_t* expert_indices;
    float* routing_weights;
    int32_t* expert_offsets;
    double* load;
    double* losses;
    const StepBlock* step;
    double balance_factor;
    double z_factor;
    uint64_t silent_below;
    uint32_t num_tokens;
    uint32_t k_max;
    uint32_t tokens_per_block;
    uint32_t num_blocks;
    uint32_t num_experts;
    uint32_t reduced;
    uint32_t coin_per_step;
    uint32_t reserved;
};
static_assert(sizeof(FinishParams) == 192);
static_assert(alignof(FinishParams) == 8);
static_assert(offsetof(FinishParams, slot_experts) == 0);
static_assert(offsetof(FinishParams, slot_weights) == 8);
static_assert(offsetof(FinishParams, block_counts) == 16);
static_assert(offsetof(FinishParams, block_histogram) == 24);
static_assert(offsetof(FinishParams, load_histogram) == 32);
static_assert(offsetof(FinishParams, block_shares) == 40);
static_assert(offsetof(FinishParams, block_squares) == 48);
static_assert(offsetof(FinishParams, expert_counts) == 56);
static_assert(offsetof(FinishParams, load_counts) == 64);
static_assert(offsetof(FinishParams, shares) == 72);
static_assert(offsetof(FinishParams, token_offsets) == 80);
static_assert(offsetof(FinishParams, expert_indices) == 88);
static_assert(offsetof(FinishParams, routing_weights) == 96);
static_assert(offsetof(FinishParams, expert_offsets) == 104);
static_assert(offsetof(FinishParams, load) == 112);
static_assert(offsetof(FinishParams, losses) == 120);
static_assert(offsetof(FinishParams, step) == 128);
static_assert(offsetof(FinishParams, balance_factor) == 136);
static_assert(offsetof(FinishParams, z_factor) == 144);
static_assert(offsetof(FinishParams, silent_below) == 152);
static_assert(offsetof(FinishParams, num_tokens) == 160);
static_assert(offsetof(FinishParams, k_max) == 164);
static_assert(offsetof(FinishParams, tokens_per_block) == 168);
static_assert(offsetof(FinishParams, num_blocks) == 172);
static_assert(offsetof(FinishParams, num_experts) == 176);
static_assert(offsetof(FinishParams, reduced) == 180);
static_assert(offsetof(FinishParams, coin_per_step) == 184);
static_assert(offsetof(FinishParams, reserved) == 188);

struct DrawParams {
    const StepBlock* step;
    const int32_t* token_ids;
    int32_t* expert_indices;
    float* routing_weights;
    StatusBlock* status;
    float weight;
    uint32_t num_tokens;
    uint32_t num_experts;
    uint32_t stream;
};
static_assert(sizeof(DrawParams) == 56);
static_assert(alignof(DrawParams) == 8);
static_assert(offsetof(DrawParams, step) == 0);
static_assert(offsetof(DrawParams, token_ids) == 8);
static_assert(offsetof(DrawParams, expert_indices) == 16);
static_assert(offsetof(DrawParams, routing_weights) == 24);
static_assert(offsetof(DrawParams, status) == 32);
static_assert(offsetof(DrawParams, weight) == 40);
static_assert(offsetof(DrawParams, num_tokens) == 44);
static_assert(offsetof(DrawParams, num_experts) == 48);
static_assert(offsetof(DrawParams, stream) == 52);

struct UngatedParams {
    const StepBlock* step;
    const int32_t* token_ids;
    const int32_t* hash_table;
    const int32_t* sequence_offsets;
    int32_t* token_offsets;
    int32_t* expert_indices;
    float* routing_weights;
    int32_t* expert_offsets;
    StatusBlock* status;
    float weight;
    uint32_t num_tokens;
    uint32_t num_experts;
    uint32_t vocabulary;
    uint32_t num_sequences;
    uint32_t reserved;
};
static_assert(sizeof(UngatedParams) == 96);
static_assert(alignof(UngatedParams) == 8);
static_assert(offsetof(UngatedParams, step) == 0);
static_assert(offsetof(UngatedParams, token_ids) == 8);
static_assert(offsetof(UngatedParams, hash_table) == 16);
static_assert(offsetof(UngatedParams, sequence_offsets) == 24);
static_assert(offsetof(UngatedParams, token_offsets) == 32);
static_assert(offsetof(UngatedParams, expert_indices) == 40);
static_assert(offsetof(UngatedParams, routing_weights) == 48);
static_assert(offsetof(UngatedParams, expert_offsets) == 56);
static_assert(offsetof(UngatedParams, status) == 64);
static_assert(offsetof(UngatedParams, weight) == 72);
static_assert(offsetof(UngatedParams, num_tokens) == 76);
static_assert(offsetof(UngatedParams, num_experts) == 80);
static_assert(offsetof(UngatedParams, vocabulary) == 84);
static_assert(offsetof(UngatedParams, num_sequences) == 88);
static_assert(offsetof(UngatedParams, reserved) == 92);

struct CountParams {
    const int32_t* expert_indices;
    int32_t* block_counts;
    int32_t* block_histogram;
    uint32_t num_tokens;
    uint32_t num_experts;
};
static_assert(sizeof(CountParams) == 32);
static_assert(alignof(CountParams) == 8);
static_assert(offsetof(CountParams, expert_indices) == 0);
static_assert(offsetof(CountParams, block_counts) == 8);
static_assert(offsetof(CountParams, block_histogram) == 16);
static_assert(offsetof(CountParams, num_tokens) == 24);
static_assert(offsetof(CountParams, num_experts) == 28);

struct NoiseParams {
    const StepBlock* step;
    const float* logits;
    const float* noise_logits;
    float* noise;
    float* noisy_logits;
    uint32_t* row_faults;
    uint64_t logits_stride;
    uint64_t noise_logits_stride;
    uint32_t num_tokens;
    uint32_t num_experts;
    uint32_t wide;
    uint32_t reserved;
};
static_assert(sizeof(NoiseParams) == 80);
static_assert(alignof(NoiseParams) == 8);
static_assert(offsetof(NoiseParams, step) == 0);
static_assert(offsetof(NoiseParams, logits) == 8);
static_assert(offsetof(NoiseParams, noise_logits) == 16);
static_assert(offsetof(NoiseParams, noise) == 24);
static_assert(offsetof(NoiseParams, noisy_logits) == 32);
static_assert(offsetof(NoiseParams, row_faults) == 40);
static_assert(offsetof(NoiseParams, logits_stride) == 48);
static_assert(offsetof(NoiseParams, noise_logits_stride) == 56);
static_assert(offsetof(NoiseParams, num_tokens) == 64);
static_assert(offsetof(NoiseParams, num_experts) == 68);
static_assert(offsetof(NoiseParams, wide) == 72);
static_assert(offsetof(NoiseParams, reserved) == 76);

struct NoiseBackwardParams {
    const float* dnoisy_logits;
    const float* noise;
    const float* noise_logits;
    float* dnoise_logits;
    uint64_t dnoisy_logits_stride;
    uint64_t noise_logits_stride;
    uint64_t dnoise_logits_stride;
    uint32_t num_tokens;
    uint32_t num_experts;
    uint32_t wide;
    uint32_t reserved;
};
static_assert(sizeof(NoiseBackwardParams) == 72);
static_assert(alignof(NoiseBackwardParams) == 8);
static_assert(offsetof(NoiseBackwardParams, dnoisy_logits) == 0);
static_assert(offsetof(NoiseBackwardParams, noise) == 8);
static_assert(offsetof(NoiseBackwardParams, noise_logits) == 16);
static_assert(offsetof(NoiseBackwardParams, dnoise_logits) == 24);
static_assert(offsetof(NoiseBackwardParams, dnoisy_logits_stride) == 32);
static_assert(offsetof(NoiseBackwardParams, noise_logits_stride) == 40);
static_assert(offsetof(NoiseBackwardParams, dnoise_logits_stride) == 48);
static_assert(offsetof(NoiseBackwardParams, num_tokens) == 56);
static_assert(offsetof(NoiseBackwardParams, num_experts) == 60);
static_assert(offsetof(NoiseBackwardParams, wide) == 64);
static_assert(offsetof(NoiseBackwardParams, reserved) == 68);

struct JitterParams {
    const StepBlock* step;
    const void* x;
    float* out;
    uint64_t x_stride;
    uint64_t out_stride;
    double amount;
    uint32_t num_tokens;
    uint32_t hidden;
    uint32_t wide;
    uint32_t reserved;
};
static_assert(sizeof(JitterParams) == 64);
static_assert(alignof(JitterParams) == 8);
static_assert(offsetof(JitterParams, step) == 0);
static_assert(offsetof(JitterParams, x) == 8);
static_assert(offsetof(JitterParams, out) == 16);
static_assert(offsetof(JitterParams, x_stride) == 24);
static_assert(offsetof(JitterParams, out_stride) == 32);
static_assert(offsetof(JitterParams, amount) == 40);
static_assert(offsetof(JitterParams, num_tokens) == 48);
static_assert(offsetof(JitterParams, hidden) == 52);
static_assert(offsetof(JitterParams, wide) == 56);
static_assert(offsetof(JitterParams, reserved) == 60);

struct ConsistencyParams {
    const float* a;
    const float* b;
    const uint8_t* padding;
    float* da;
    float* db;
    double* row_losses;
    double* loss;
    uint64_t a_stride;
    uint64_t b_stride;
    uint64_t da_stride;
    uint64_t db_stride;
    double alpha;
    uint32_t rows;
    uint32_t columns;
    uint32_t wide;
    uint32_t reserved;
};
static_assert(sizeof(ConsistencyParams) == 112);
static_assert(alignof(ConsistencyParams) == 8);
static_assert(offsetof(ConsistencyParams, a) == 0);
static_assert(offsetof(ConsistencyParams, b) == 8);
static_assert(offsetof(ConsistencyParams, padding) == 16);
static_assert(offsetof(ConsistencyParams, da) == 24);
static_assert(offsetof(ConsistencyParams, db) == 32);
static_assert(offsetof(ConsistencyParams, row_losses) == 40);
static_assert(offsetof(ConsistencyParams, loss) == 48);
static_assert(offsetof(ConsistencyParams, a_stride) == 56);
static_assert(offsetof(ConsistencyParams, b_stride) == 64);
static_assert(offsetof(ConsistencyParams, da_stride) == 72);
static_assert(offsetof(ConsistencyParams, db_stride) == 80);
static_assert(offsetof(ConsistencyParams, alpha) == 88);
static_assert(offsetof(ConsistencyParams, rows) == 96);
static_assert(offsetof(ConsistencyParams, columns) == 100);
static_assert(offsetof(ConsistencyParams, wide) == 104);
static_assert(offsetof(ConsistencyParams, reserved) == 108);

}  // namespace tollgate
