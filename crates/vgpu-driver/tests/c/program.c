/* A C program over the driver API, linked against libcuda like any other.
 *
 *   program work  KERNELS   uses most of the API on two devices and checks what comes of it
 *   program racy  KERNELS   launches a kernel with a race and goes on
 *   program fail  KERNELS   the same, and expects the synchronising call to fail
 *   program beyond KERNELS  launches a kernel that writes out of bounds: always fails
 *   program leak  KERNELS   frees nothing
 *   program init  KERNELS   only initialises; the exit code is the result code
 */
#include "driver_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call) expect(call, 0, #call, __LINE__)
#define EXPECT(call, code) expect(call, code, #call, __LINE__)
#define TRUE(condition)                                                                          \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            printf("line %d: not true: %s\n", __LINE__, #condition);                             \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

static void expect(CUresult result, CUresult wanted, const char *call, int line)
{
    if (result != wanted) {
        printf("line %d: %s gave %d, not %d\n", line, call, result, wanted);
        exit(1);
    }
}

enum { N = 1000 };

static CUmodule module;

static CUfunction kernel(const char *name)
{
    CUfunction function;
    CHECK(cuModuleGetFunction(&function, module, name));
    return function;
}

static void launch_saxpy(float a, CUdeviceptr x, CUdeviceptr y, unsigned n, CUstream stream)
{
    void *params[] = {&a, &x, &y, &n};
    CHECK(cuLaunchKernel(kernel("saxpy"), (n + 127) / 128, 1, 1, 128, 1, 1, 0, stream, params,
                         NULL));
}

static void streams_and_events(void)
{
    CUstream one, two;
    CUevent start, middle, end;
    CHECK(cuStreamCreateWithPriority(&one, 1, -3));
    CHECK(cuStreamCreateWithPriority(&two, 1, 0));
    int priority = 0;
    CHECK(cuStreamGetPriority(one, &priority));
    TRUE(priority == -3);
    CHECK(cuEventCreate(&start, 0));
    CHECK(cuEventCreate(&middle, 2));
    CHECK(cuEventCreate(&end, 0));

    float *host;
    CHECK(cuMemAllocHost_v2((void **)&host, 2 * N * sizeof *host));
    for (int i = 0; i < N; i++)
        host[i] = (float)i;
    CUdeviceptr x, y;
    CHECK(cuMemAllocAsync(&x, N * sizeof *host, one));
    CHECK(cuMemAllocAsync(&y, N * sizeof *host, one));
    CHECK(cuEventRecord(start, one));
    CHECK(cuMemcpyHtoDAsync_v2(x, host, N * sizeof *host, one));
    CHECK(cuMemsetD32Async(y, 0x3f800000, N, one));
    CHECK(cuEventRecord(middle, one));
    CHECK(cuStreamWaitEvent(two, middle, 0));
    launch_saxpy(2.0f, x, y, N, two);
    CHECK(cuEventRecord(end, two));
    CHECK(cuStreamWaitEvent(one, end, 0));
    CHECK(cuMemcpyDtoHAsync_v2(host + N, y, N * sizeof *host, one));
    CHECK(cuStreamSynchronize(one));
    CHECK(cuStreamQuery(two));
    for (int i = 0; i < N; i++)
        TRUE(host[N + i] == 2.0f * i + 1.0f);
    float ms = -1;
    CHECK(cuEventElapsedTime(&ms, start, end));
    TRUE(ms > 0);
    EXPECT(cuEventElapsedTime(&ms, start, middle), 400);
    CHECK(cuMemFreeAsync(x, one));
    CHECK(cuMemFreeAsync(y, one));
    CHECK(cuStreamDestroy_v2(one));
    CHECK(cuStreamDestroy_v2(two));
    CHECK(cuEventDestroy_v2(start));
    CHECK(cuEventDestroy_v2(middle));
    CHECK(cuEventDestroy_v2(end));
    CHECK(cuMemFreeHost(host));
}

static void count_call(void *data)
{
    ++*(int *)data;
}

static void values_and_host_functions(void)
{
    CUstream waits, writes;
    CUdeviceptr flag;
    int calls = 0;
    CHECK(cuStreamCreateWithPriority(&waits, 1, 0));
    CHECK(cuStreamCreateWithPriority(&writes, 1, 0));
    CHECK(cuMemAlloc_v2(&flag, 4));
    CHECK(cuMemsetD32_v2(flag, 0, 1));
    CHECK(cuStreamWaitValue32_v2(waits, flag, 5, 0));
    CHECK(cuLaunchHostFunc(waits, count_call, &calls));
    EXPECT(cuStreamQuery(waits), 600);
    TRUE(calls == 0);
    CHECK(cuStreamWriteValue32_v2(writes, flag, 6, 0));
    CHECK(cuStreamSynchronize(waits));
    TRUE(calls == 1);
    CHECK(cuMemFree_v2(flag));
    CHECK(cuStreamDestroy_v2(waits));
    CHECK(cuStreamDestroy_v2(writes));
}

static void rows(void)
{
    enum { WIDTH = 5, HEIGHT = 3 };
    unsigned char from[HEIGHT][WIDTH], to[HEIGHT][8];
    for (int i = 0; i < HEIGHT * WIDTH; i++)
        (&from[0][0])[i] = (unsigned char)(i + 1);
    memset(to, 0, sizeof to);
    CUdeviceptr rows;
    size_t pitch;
    CHECK(cuMemAllocPitch_v2(&rows, &pitch, WIDTH, HEIGHT, 4));
    TRUE(pitch >= WIDTH && pitch % 16 == 0);
    CUDA_MEMCPY2D up = {.src = {.memory_type = 1, .host = from, .pitch = WIDTH},
                        .dst = {.memory_type = 2, .device = rows, .pitch = pitch},
                        .width_bytes = WIDTH,
                        .height = HEIGHT};
    CHECK(cuMemcpy2D_v2(&up));
    /* Back, without the first column and row. */
    CUDA_MEMCPY2D down = {.src = {.x = 1, .y = 1, .memory_type = 2, .device = rows, .pitch = pitch},
                          .dst = {.memory_type = 1, .host = to, .pitch = 8},
                          .width_bytes = WIDTH - 1,
                          .height = HEIGHT - 1};
    CHECK(cuMemcpy2D_v2(&down));
    for (int y = 0; y < HEIGHT - 1; y++)
        for (int x = 0; x < 8; x++)
            TRUE(to[y][x] == (x < WIDTH - 1 ? from[y + 1][x + 1] : 0));
    down.src.memory_type = 3;
    EXPECT(cuMemcpy2D_v2(&down), 801);
    CHECK(cuMemFree_v2(rows));
}

static void captured_graph(void)
{
    CUstream stream;
    CUdeviceptr x, y;
    CUgraph graph;
    CUgraphExec exec;
    float host[N];
    CHECK(cuStreamCreateWithPriority(&stream, 1, 0));
    CHECK(cuMemAlloc_v2(&x, sizeof host));
    CHECK(cuMemAlloc_v2(&y, sizeof host));
    CHECK(cuMemsetD32_v2(x, 0x3f800000, N));
    CHECK(cuStreamBeginCapture_v2(stream, 0));
    CHECK(cuMemsetD32Async(y, 0, N, stream));
    launch_saxpy(3.0f, x, y, N, stream);
    launch_saxpy(4.0f, x, y, N, stream);
    int status = 0;
    CHECK(cuStreamIsCapturing(stream, &status));
    TRUE(status == 1);
    EXPECT(cuStreamSynchronize(stream), 900);
    CHECK(cuStreamEndCapture(stream, &graph));
    size_t count = 0;
    CHECK(cuGraphGetNodes(graph, NULL, &count));
    TRUE(count == 3);
    CUgraphNode nodes[3];
    CHECK(cuGraphGetNodes(graph, nodes, &count));
    int type = -1;
    CHECK(cuGraphNodeGetType(nodes[0], &type));
    TRUE(type == 2);
    CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    for (int run = 0; run < 2; run++)
        CHECK(cuGraphLaunch(exec, stream));
    CHECK(cuStreamSynchronize(stream));
    CHECK(cuMemcpyDtoH_v2(host, y, sizeof host));
    for (int i = 0; i < N; i++)
        TRUE(host[i] == 7.0f);
    CHECK(cuGraphExecDestroy(exec));
    CHECK(cuGraphDestroy(graph));
    EXPECT(cuGraphDestroy(graph), 400);
    CHECK(cuMemFree_v2(x));
    CHECK(cuMemFree_v2(y));
    CHECK(cuStreamDestroy_v2(stream));
}

static void launch_attributes_and_globals(void)
{
    CUdeviceptr table, managed;
    size_t bytes = 0;
    int host[4] = {1, 2, 3, 4};
    CHECK(cuModuleGetGlobal_v2(&table, &bytes, module, "table"));
    TRUE(bytes == sizeof host);
    CHECK(cuMemcpyHtoD_v2(table, host, sizeof host));
    CHECK(cuMemAllocManaged(&managed, 64 * sizeof(float), 1));
    float *data = (float *)managed;
    for (int i = 0; i < 64; i++)
        data[i] = (float)i;
    /* Clusters of one block, and dependent launch. */
    CUlaunchAttribute attributes[2] = {{.id = 4, .value.words = {1, 1, 1}},
                                       {.id = 6, .value.words = {1}}};
    CUlaunchConfig config = {{1, 1, 1}, {64, 1, 1}, 64 * sizeof(float), NULL, attributes, 2};
    void *params[] = {&managed};
    CHECK(cuLaunchKernelEx(&config, kernel("scale"), params, NULL));
    CHECK(cuCtxSynchronize());
    for (int i = 0; i < 64; i++)
        TRUE(data[i] == 2.0f * i + host[i % 4]);
    attributes[0].value.words[0] = 64;
    EXPECT(cuLaunchKernelEx(&config, kernel("scale"), params, NULL), 1);
    int type = 0;
    unsigned char is_managed = 0;
    CHECK(cuPointerGetAttribute(&type, 2, table));
    CHECK(cuPointerGetAttribute(&is_managed, 8, managed));
    TRUE(type == 2 && is_managed == 1);
    EXPECT(cuPointerGetAttribute(&type, 2, (CUdeviceptr)host), 1);
    CHECK(cuMemFree_v2(managed));
}

static void tensor_map(void)
{
    CUdeviceptr tensor;
    CUtensorMap map;
    uint64_t dims[2] = {64, 32}, strides[1] = {128};
    uint32_t box[2] = {64, 8}, steps[2] = {1, 1};
    CHECK(cuMemAlloc_v2(&tensor, 64 * 32 * 2));
    CHECK(cuTensorMapEncodeTiled(&map, 6, 2, (void *)tensor, dims, strides, box, steps, 0, 3, 2, 0));
    box[0] = 128; /* 256 bytes do not fit a swizzle of 128 */
    EXPECT(cuTensorMapEncodeTiled(&map, 6, 2, (void *)tensor, dims, strides, box, steps, 0, 3, 2, 0),
           1);
    EXPECT(cuTensorMapEncodeTiled(&map, 6, 0, (void *)tensor, dims, strides, box, steps, 0, 0, 0, 0),
           1);
    CHECK(cuMemFree_v2(tensor));
}

static void peers(CUcontext first)
{
    CUcontext second;
    CUdeviceptr here, there;
    int can = 0, host[4] = {7, 8, 9, 10}, back[4] = {0};
    CHECK(cuDeviceCanAccessPeer(&can, 0, 1));
    TRUE(can == 1);
    CHECK(cuDevicePrimaryCtxRetain(&second, 1));
    CHECK(cuMemAlloc_v2(&here, sizeof host));
    CHECK(cuMemcpyHtoD_v2(here, host, sizeof host));
    CHECK(cuCtxEnablePeerAccess(second, 0));
    EXPECT(cuCtxEnablePeerAccess(second, 0), 704);
    CHECK(cuCtxSetCurrent(second));
    CHECK(cuMemAlloc_v2(&there, sizeof host));
    CHECK(cuMemcpyPeer(there, second, here, first, sizeof host));
    CHECK(cuMemcpyDtoH_v2(back, there, sizeof back));
    TRUE(memcmp(host, back, sizeof host) == 0);
    int ordinal = -1;
    CHECK(cuPointerGetAttribute(&ordinal, 9, there));
    TRUE(ordinal == 1);
    CHECK(cuMemFree_v2(there));
    CHECK(cuCtxSetCurrent(first));
    CHECK(cuMemFree_v2(here));
    CHECK(cuDevicePrimaryCtxRelease_v2(1));
}

static void memory_limit(void)
{
    size_t free_bytes = 0, total = 0;
    CUdeviceptr address;
    CHECK(cuMemGetInfo_v2(&free_bytes, &total));
    TRUE(total == 64u << 20 && free_bytes <= total);
    EXPECT(cuMemAlloc_v2(&address, 65u << 20), 2);
}

static CUdeviceptr run_racy(void)
{
    CUdeviceptr in, out;
    CHECK(cuMemAlloc_v2(&in, 256 * 4));
    CHECK(cuMemAlloc_v2(&out, 256 * 4));
    CHECK(cuMemsetD32_v2(in, 0x3f800000, 256));
    void *params[] = {&in, &out};
    CHECK(cuLaunchKernel(kernel("racy"), 1, 1, 1, 256, 1, 1, 0, NULL, params, NULL));
    return out;
}

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    const char *mode = words[1];
    int result = cuInit(0);
    if (strcmp(mode, "init") == 0)
        return result;
    expect(result, 0, "cuInit", __LINE__);
    CUcontext context;
    CHECK(cuDevicePrimaryCtxRetain(&context, 0));
    EXPECT(cuModuleLoad(&module, words[2]), 201);
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoad(&module, words[2]));
    if (strcmp(mode, "work") == 0) {
        int devices = 0;
        CHECK(cuDeviceGetCount(&devices));
        TRUE(devices == 2);
        streams_and_events();
        values_and_host_functions();
        rows();
        captured_graph();
        launch_attributes_and_globals();
        tensor_map();
        peers(context);
        memory_limit();
    } else if (strcmp(mode, "racy") == 0) {
        float host[256];
        CHECK(cuMemcpyDtoH_v2(host, run_racy(), sizeof host));
        CHECK(cuCtxSynchronize());
    } else if (strcmp(mode, "fail") == 0) {
        run_racy();
        EXPECT(cuCtxSynchronize(), 700);
        EXPECT(cuStreamSynchronize(NULL), 700);
        CHECK(cuDevicePrimaryCtxReset_v2(0));
        CHECK(cuCtxSynchronize());
    } else if (strcmp(mode, "beyond") == 0) {
        CUdeviceptr data;
        int end = 4;
        CHECK(cuMemAlloc_v2(&data, 16));
        void *params[] = {&data, &end};
        CHECK(cuLaunchKernel(kernel("beyond"), 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
        EXPECT(cuCtxSynchronize(), 700);
        EXPECT(cuMemAlloc_v2(&data, 16), 700);
        /* A reset makes the device good again; what was loaded is gone. */
        CHECK(cuDevicePrimaryCtxReset_v2(0));
        EXPECT(cuModuleUnload(module), 400);
        CHECK(cuModuleLoad(&module, words[2]));
        CHECK(cuMemAlloc_v2(&data, 16));
        CHECK(cuMemFree_v2(data));
    } else if (strcmp(mode, "leak") == 0) {
        CUdeviceptr data;
        CHECK(cuMemAlloc_v2(&data, 1234));
        return 0;
    } else {
        return 2;
    }
    if (strcmp(mode, "fail") != 0)
        CHECK(cuModuleUnload(module));
    CHECK(cuDevicePrimaryCtxRelease_v2(0));
    printf("done\n");
    return 0;
}
