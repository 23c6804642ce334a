// y = a x + y.

extern "C" __global__ void saxpy(int n, float a, const float* x, float* y)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = a * x[i] + y[i];
}

// Columns of a row-major matrix, read by consecutive threads: 32 sectors where 4 would do.
extern "C" __global__ void columns(const float* matrix, float* sums, int rows, int stride)
{
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0.0f;
    if (row < rows)
        for (int column = 0; column < 8; ++column)
            sum += matrix[row * stride + column];
    if (row < rows)
        sums[row] = sum;
}
