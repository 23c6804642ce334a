// Kernels of the driver library's tests. The PTX beside it is what programs load:
//   nvcc -std=c++17 -O3 -ptx -arch=compute_80 kernels.cu -o kernels.ptx

__device__ int table[4];
__constant__ float factor = 2.0f;

// y[i] = a * x[i] + y[i]
extern "C" __global__ void saxpy(float a, const float *x, float *y, unsigned n)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = a * x[i] + y[i];
}

// out[block] = sum of the block's 256 elements, through shared memory.
extern "C" __global__ void reduce(const float *in, float *out, unsigned n)
{
    __shared__ float part[256];
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = i < n ? in[i] : 0.0f;
    __syncthreads();
    for (unsigned half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = part[0];
}

// As reduce, but without the barrier between writing and reading: a race in shared memory.
extern "C" __global__ void racy(const float *in, float *out)
{
    __shared__ float part[256];
    part[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = part[255 - threadIdx.x];
}

// Scales with a constant and with dynamic shared memory; adds what the host put into the table.
extern "C" __global__ void scale(float *data)
{
    extern __shared__ float buffer[];
    buffer[threadIdx.x] = data[threadIdx.x] * factor;
    __syncthreads();
    data[threadIdx.x] = buffer[threadIdx.x] + table[threadIdx.x % 4];
}

// Writes one element past the end if asked to.
extern "C" __global__ void beyond(int *data, int count)
{
    data[count] = 1;
}

// A parameter by value, of several members.
struct Wide { double scale; int bias[3]; char tag; };
extern "C" __global__ void by_value(int *out, Wide wide)
{
    out[threadIdx.x] = (int)(wide.scale * threadIdx.x) + wide.bias[threadIdx.x % 3] + wide.tag;
}
