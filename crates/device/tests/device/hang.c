/* In front of the driver library: a device that never answers, and that must not be asked to free. */

#include <stdlib.h>

unsigned int cuStreamQuery(void* stream) {
    (void)stream;
    return 600; /* CUDA_ERROR_NOT_READY */
}

unsigned int cuMemFree_v2(unsigned long long ptr) {
    (void)ptr;
    abort();
}

unsigned int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device;
    abort();
}
