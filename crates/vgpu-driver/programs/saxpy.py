"""saxpy over the CUDA driver with nothing but ctypes: saxpy.py KERNELS.ptx"""

import ctypes
import sys
from ctypes import byref, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p

N = 1000
cuda = ctypes.CDLL("libcuda.so.1")


def check(code):
    if code != 0:
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(code, byref(name))
        sys.exit(f"{name.value.decode()}")


check(cuda.cuInit(0))
device, context = c_int(), c_void_p()
check(cuda.cuDeviceGet(byref(device), 0))
check(cuda.cuDevicePrimaryCtxRetain(byref(context), device))
check(cuda.cuCtxSetCurrent(context))

module, saxpy = c_void_p(), c_void_p()
check(cuda.cuModuleLoad(byref(module), sys.argv[1].encode()))
check(cuda.cuModuleGetFunction(byref(saxpy), module, b"saxpy"))

floats = c_float * N
size = c_size_t(ctypes.sizeof(floats))
x, y = c_uint64(), c_uint64()
check(cuda.cuMemAlloc_v2(byref(x), size))
check(cuda.cuMemAlloc_v2(byref(y), size))
check(cuda.cuMemcpyHtoD_v2(x, floats(*range(N)), size))
check(cuda.cuMemsetD32_v2(y, c_uint(0x3F800000), c_size_t(N)))

a, n = c_float(2.0), c_uint(N)
params = (c_void_p * 4)(*(ctypes.addressof(value) for value in (a, x, y, n)))
check(cuda.cuLaunchKernel(saxpy, (N + 127) // 128, 1, 1, 128, 1, 1, 0, None, params, None))

out = floats()
check(cuda.cuMemcpyDtoH_v2(out, y, size))
assert all(out[i] == 2.0 * i + 1.0 for i in range(N))
check(cuda.cuMemFree_v2(x))
check(cuda.cuMemFree_v2(y))
check(cuda.cuModuleUnload(module))
check(cuda.cuDevicePrimaryCtxRelease_v2(device))
print("done")
