// A block reduction whose barrier is missing: warps write their sums to shared memory, and warp 0
// reads all of them at once.

extern "C" __global__ void block_sum(const float* in, float* out)
{
    __shared__ float sums[32];
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;

    float sum = in[blockIdx.x * blockDim.x + threadIdx.x];
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_down_sync(0xffffffffu, sum, step);
    if (lane == 0)
        sums[warp] = sum;
    // __syncthreads() belongs here.
    if (warp == 0) {
        sum = lane < blockDim.x / 32 ? sums[lane] : 0.0f;
        for (int step = 16; step > 0; step /= 2)
            sum += __shfl_down_sync(0xffffffffu, sum, step);
        if (lane == 0)
            out[blockIdx.x] = sum;
    }
}
