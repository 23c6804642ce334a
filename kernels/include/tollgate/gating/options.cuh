// What the options of the gate mean to its kernels; the numbers are those of src/abi/gating.rs.
#pragma once

#include <cstdint>

namespace tollgate::gate {

// How many of the ranked experts a token takes.
namespace rule {
inline constexpr uint32_t FIXED = 0;
inline constexpr uint32_t COLUMNS = 1;
inline constexpr uint32_t SECOND = 2;
inline constexpr uint32_t GAP_SOFTMAX = 3;
inline constexpr uint32_t GAP_LOGITS = 4;
inline constexpr uint32_t FORCED = 5;
inline constexpr uint32_t THRESHOLD = 6;
inline constexpr uint32_t RANDOM = 7;
}  // namespace rule

namespace weights {
inline constexpr uint32_t PROB = 0;
inline constexpr uint32_t SELECTED = 1;
inline constexpr uint32_t TOP2 = 2;
}  // namespace weights

namespace load {
inline constexpr uint32_t SINGLE = 0;
inline constexpr uint32_t FIRST = 1;
inline constexpr uint32_t ALL = 2;
}  // namespace load

namespace local_choice {
inline constexpr uint32_t BEST = 0;
inline constexpr uint32_t MODULO = 1;
inline constexpr uint32_t UNIFORM = 2;
}  // namespace local_choice

namespace local_weight {
inline constexpr uint32_t SCORE = 0;
inline constexpr uint32_t ORIGINAL = 1;
inline constexpr uint32_t SHARE = 2;
inline constexpr uint32_t ONE = 3;
}  // namespace local_weight

}  // namespace tollgate::gate
