// Choices that must not become branches: one instruction pair, one function.
#pragma once

namespace tollgate::ptx {

// `value`, or 0 where x < bound. Written as a condition, the compiler may jump over the computation
// of `value`, lane by lane, and chains of several values no longer overlap.
__device__ __forceinline__ float zero_if_less(float x, float bound, float value) {
    float result;
    asm("{\n\t.reg .pred p;\n\tsetp.lt.f32 p, %1, %2;\n\tselp.f32 %0, 0f00000000, %3, p;\n\t}"
        : "=f"(result)
        : "f"(x), "f"(bound), "f"(value));
    return result;
}

}  // namespace tollgate::ptx
