// Generated from src/abi/gating.rs; `TOLLGATE_BLESS=1 cargo test -p tollgate-kernels headers` writes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tollgate/abi/common.h"

namespace tollgate {

}  // namespace tollgate
