//! Types as C passes them: facts of the CUDA 13.0 driver API's binary interface.
//!
//! Enumerations are plain integers here: C may pass any value, and an invalid `enum` value would be
//! undefined behaviour in Rust.

use std::ffi::{c_int, c_uint, c_void};

use crate::boundary::In;
use crate::handles::Handle;

/// `CUresult`.
pub(crate) type CuResult = c_uint;
/// `CUdevice`.
pub(crate) type CuDevice = c_int;
/// `CUdeviceptr`.
pub(crate) type CuDevicePtr = u64;
/// `CUcontext`.
pub(crate) type CuContext = Handle;
/// `CUmodule`.
pub(crate) type CuModule = Handle;
/// `CUfunction`, or a `CUkernel` in its place.
pub(crate) type CuFunction = Handle;
/// `CUlibrary`.
pub(crate) type CuLibrary = Handle;
/// `CUkernel`.
pub(crate) type CuKernel = Handle;
/// `CUlinkState`.
pub(crate) type CuLink = Handle;
/// `CUstream`.
pub(crate) type CuStream = Handle;
/// `CUevent`.
pub(crate) type CuEvent = Handle;
/// `CUmemoryPool`.
pub(crate) type CuPool = Handle;
/// `CUgraph`.
pub(crate) type CuGraph = Handle;
/// `CUgraphNode`.
pub(crate) type CuNode = Handle;
/// `CUgraphExec`.
pub(crate) type CuGraphExec = Handle;

/// `CUhostFn`.
pub(crate) type CuHostFn = Option<unsafe extern "C" fn(*mut c_void)>;
/// `CUstreamCallback`.
pub(crate) type CuStreamCallback = Option<unsafe extern "C" fn(CuStream, CuResult, *mut c_void)>;
/// `CUoccupancyB2DSize`.
pub(crate) type CuBlockToShared = Option<unsafe extern "C" fn(c_int) -> usize>;

/// `CUuuid`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Uuid(pub [u8; 16]);

/// `CUdevprop`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceProperties {
    pub max_threads_per_block: c_int,
    pub max_threads_dim: [c_int; 3],
    pub max_grid_size: [c_int; 3],
    pub shared_per_block: c_int,
    pub constant_memory: c_int,
    pub warp_size: c_int,
    pub memory_pitch: c_int,
    pub registers_per_block: c_int,
    pub clock_rate: c_int,
    pub texture_alignment: c_int,
}

/// `CUctxCreateParams`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ContextParams {
    pub affinity: *const c_void,
    pub affinities: c_int,
    pub cig: *const c_void,
}

/// `CU_MEMORYTYPE_*`.
pub(crate) mod memory_type {
    use std::ffi::c_uint;
    pub const HOST: c_uint = 1;
    pub const DEVICE: c_uint = 2;
    pub const ARRAY: c_uint = 3;
    pub const UNIFIED: c_uint = 4;
}

/// One side of `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Side2d {
    pub x: usize,
    pub y: usize,
    pub memory_type: c_uint,
    pub host: u64,
    pub device: CuDevicePtr,
    pub array: Handle,
    pub pitch: usize,
}

/// `CUDA_MEMCPY2D_v2`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Copy2d {
    pub src: Side2d,
    pub dst: Side2d,
    pub width: usize,
    pub height: usize,
}

/// One side of `CUDA_MEMCPY3D` and `CUDA_MEMCPY3D_PEER`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Side3d {
    pub x: usize,
    pub y: usize,
    pub z: usize,
    pub lod: usize,
    pub memory_type: c_uint,
    pub host: u64,
    pub device: CuDevicePtr,
    pub array: Handle,
    /// Reserved; in the peer form, the context. Addresses are unified, so nothing depends on it.
    pub context: CuContext,
    pub pitch: usize,
    pub height: usize,
}

/// `CUDA_MEMCPY3D_v2`, and `CUDA_MEMCPY3D_PEER`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Copy3d {
    pub src: Side3d,
    pub dst: Side3d,
    pub width: usize,
    pub height: usize,
    pub depth: usize,
}

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub kind: c_uint,
    pub id: c_int,
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct AccessDescription {
    pub location: Location,
    pub flags: c_uint,
}

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PoolProperties {
    pub allocation_type: c_uint,
    pub handle_types: c_uint,
    pub location: Location,
    pub security: *const c_void,
    pub max_size: usize,
    pub usage: u16,
    pub reserved: [u8; 54],
}

/// `CUlaunchAttribute`; its value is a union of 64 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct LaunchAttribute {
    pub id: c_uint,
    pub pad: c_uint,
    pub value: [u32; 16],
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CuLaunchConfig {
    pub grid: [c_uint; 3],
    pub block: [c_uint; 3],
    pub shared: c_uint,
    pub stream: CuStream,
    pub attributes: In<LaunchAttribute>,
    pub count: c_uint,
}

/// `CUDA_KERNEL_NODE_PARAMS_v1`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KernelNodeV1 {
    pub function: CuFunction,
    pub grid: [c_uint; 3],
    pub block: [c_uint; 3],
    pub shared: c_uint,
    pub params: In<In<u8>>,
    pub extra: In<usize>,
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KernelNode {
    pub v1: KernelNodeV1,
    pub kernel: CuKernel,
    pub context: CuContext,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FillNode {
    pub dst: CuDevicePtr,
    pub pitch: usize,
    pub value: c_uint,
    pub element_bytes: c_uint,
    pub width: usize,
    pub height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct HostNode {
    pub function: CuHostFn,
    pub data: *mut c_void,
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct InstantiateParams {
    pub flags: u64,
    pub upload_stream: CuStream,
    pub error_node: CuNode,
    pub result: c_uint,
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UpdateResult {
    pub result: c_uint,
    pub error_node: CuNode,
    pub error_from: CuNode,
}

/// `CUgraphEdgeData`: all zero is an ordinary edge.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct EdgeData(pub [u8; 8]);

/// `CUstreamBatchMemOpParams`, in its wait and write forms.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MemoryOperation {
    pub operation: c_uint,
    pub address: CuDevicePtr,
    pub value: u64,
    pub flags: c_uint,
    pub alias: CuDevicePtr,
    pub pad: u64,
}

/// `CUtensorMap`.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct TensorMapBytes(pub [u8; 128]);

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// Sizes and offsets that a C compiler gives the structures of `cuda.h`.
    #[test]
    fn layouts_are_those_of_c() {
        assert_eq!(size_of::<DeviceProperties>(), 56);
        assert_eq!(size_of::<Copy2d>(), 128);
        assert_eq!(offset_of!(Copy2d, width), 112);
        assert_eq!(size_of::<Copy3d>(), 200);
        assert_eq!(offset_of!(Copy3d, width), 176);
        assert_eq!(size_of::<AccessDescription>(), 12);
        assert_eq!(size_of::<PoolProperties>(), 88);
        assert_eq!(size_of::<LaunchAttribute>(), 72);
        assert_eq!(size_of::<CuLaunchConfig>(), 56);
        assert_eq!(offset_of!(CuLaunchConfig, stream), 32);
        assert_eq!(size_of::<KernelNodeV1>(), 56);
        assert_eq!(size_of::<KernelNode>(), 72);
        assert_eq!(size_of::<FillNode>(), 40);
        assert_eq!(size_of::<HostNode>(), 16);
        assert_eq!(size_of::<InstantiateParams>(), 32);
        assert_eq!(size_of::<UpdateResult>(), 24);
        assert_eq!(size_of::<MemoryOperation>(), 48);
        assert_eq!(size_of::<TensorMapBytes>(), 128);
    }
}
