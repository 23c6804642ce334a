// The source of sample_sm_80.ptx and sample_sm_90a.ptx: what a reader of nvcc's output meets.
// nvcc -std=c++17 -O3 -ptx -lineinfo -arch=compute_80 (or compute_90a) sample.cu, directories cut from `.file`
struct Rows {
    float *data;
    int stride;
    short tag;
    char flags[5];
};

__constant__ float scales[3] = {1.5f, -2.0f, 0.1f};
__device__ int counter = -5;
struct Link {
    int key;
    int *target;
};
__device__ Link links[2] = {{1, &counter}, {2, nullptr}};
extern __shared__ float dynamic[];

__device__ __noinline__ float scaled(float x, Rows rows) { return x * rows.data[rows.stride]; }
__device__ __noinline__ float one_more(float x) { return x + 1; }
__device__ __noinline__ float doubled(float x) { return x * 2; }
__device__ float (*const functions[2])(float) = {one_more, doubled};
__device__ __forceinline__ float inlined(float x) { return x * 3 + counter; }

__global__ void __launch_bounds__(128, 2)
    mixed(const __grid_constant__ Rows rows, float *__restrict__ out, int n, bool flag) {
    __shared__ float tile[128];
    int i = threadIdx.x;
    tile[i] = rows.data[i] + dynamic[i];
    __syncthreads();
    float v = scaled(tile[127 - i], rows) + scales[n % 3];
    v += __shfl_xor_sync(~0u, v, 1);
    v = functions[n & 1](v);
    if (flag) v = inlined(v);
#pragma unroll 1
    for (int k = 0; k < n; ++k) v += out[k + 1];
    float4 four = reinterpret_cast<const float4 *>(rows.data)[i];
    out[i] = v + four.x + four.w + links[n].key;
}

#if __CUDA_ARCH__ >= 900
struct TensorMap {
    alignas(64) char bytes[128];
};

__global__ void __cluster_dims__(2, 1, 1)
    tensor(const __grid_constant__ TensorMap map, int x) {
    __shared__ alignas(128) char tile[1024];
    __shared__ unsigned long long barrier;
    auto to = static_cast<unsigned>(__cvta_generic_to_shared(tile));
    auto full = static_cast<unsigned>(__cvta_generic_to_shared(&barrier));
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.mbarrier_init.release.cluster;" ::"r"(full));
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;");
    asm volatile("{\n\t.reg .pred P;\n\telect.sync _|P, 0xffffffff;\n\t"
                 "@!P bra SKIP_%=;\n\t"
                 "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, 0}], [%3];\n\tSKIP_%=:\n\t}"
                 ::"r"(to), "l"(&map), "r"(x), "r"(full) : "memory");
    asm volatile("{\n\t.reg .pred P1;\n\tLAB_WAIT:\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 P1, [%0], %1;\n\t@P1 bra DONE;\n\tbra LAB_WAIT;\n\tDONE:\n\t}"
                 ::"r"(full), "r"(0));
}
#endif
