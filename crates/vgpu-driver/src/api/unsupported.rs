//! The functions that are exported and not modelled: each answers `CUDA_ERROR_NOT_SUPPORTED`.
//!
//! `NOT_MODELLED.md` is made of this table; a test compares the two, and that every function of
//! CUDA 13.0 is exported exactly once.

use crate::abi::CuResult;
use crate::boundary::Export;
use crate::failure::code;

/// Declares functions that are not modelled, by topic. They ignore their parameters, which the
/// calling conventions of the platforms allow: the caller puts them in place and takes them away.
macro_rules! unsupported {
    ($($topic:literal: $($name:ident)*;)*) => {
        $($(
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> CuResult {
                code::NOT_SUPPORTED
            }
        )*)*

        pub(super) const EXPORTS: &[Export] =
            &[$($(Export::new(stringify!($name), $name as *const ()),)*)*];

        /// The functions by topic.
        #[cfg(test)]
        pub(super) const TOPICS: &[(&str, &[&str])] =
            &[$(($topic, &[$(stringify!($name)),*]),)*];
    };
}

unsupported! {
    "CUDA arrays, mipmapped arrays and copies of them":
        cuArray3DCreate cuArray3DCreate_v2 cuArray3DGetDescriptor cuArray3DGetDescriptor_v2
        cuArrayCreate cuArrayCreate_v2 cuArrayDestroy cuArrayGetDescriptor cuArrayGetDescriptor_v2
        cuArrayGetMemoryRequirements cuArrayGetPlane cuArrayGetSparseProperties
        cuDeviceGetTexture1DLinearMaxWidth cuExternalMemoryGetMappedMipmappedArray
        cuGraphicsResourceGetMappedMipmappedArray cuGraphicsSubResourceGetMappedArray
        cuMemMapArrayAsync cuMemMapArrayAsync_ptsz cuMemcpyAtoA cuMemcpyAtoA_v2
        cuMemcpyAtoA_v2_ptds cuMemcpyAtoD cuMemcpyAtoD_v2 cuMemcpyAtoD_v2_ptds cuMemcpyAtoH
        cuMemcpyAtoHAsync cuMemcpyAtoHAsync_v2 cuMemcpyAtoHAsync_v2_ptsz cuMemcpyAtoH_v2
        cuMemcpyAtoH_v2_ptds cuMemcpyDtoA cuMemcpyDtoA_v2 cuMemcpyDtoA_v2_ptds cuMemcpyHtoA
        cuMemcpyHtoAAsync cuMemcpyHtoAAsync_v2 cuMemcpyHtoAAsync_v2_ptsz cuMemcpyHtoA_v2
        cuMemcpyHtoA_v2_ptds cuMipmappedArrayCreate cuMipmappedArrayDestroy
        cuMipmappedArrayGetLevel cuMipmappedArrayGetMemoryRequirements
        cuMipmappedArrayGetSparseProperties cuSurfRefGetArray cuSurfRefSetArray cuTexRefGetArray
        cuTexRefGetMipmappedArray cuTexRefSetArray cuTexRefSetMipmappedArray;
    "texture and surface references and objects":
        cuParamSetTexRef cuSurfObjectCreate cuSurfObjectDestroy cuSurfObjectGetResourceDesc
        cuTexObjectCreate cuTexObjectDestroy cuTexObjectGetResourceDesc
        cuTexObjectGetResourceViewDesc cuTexObjectGetTextureDesc cuTexRefCreate cuTexRefDestroy
        cuTexRefGetAddress cuTexRefGetAddressMode cuTexRefGetAddress_v2 cuTexRefGetBorderColor
        cuTexRefGetFilterMode cuTexRefGetFlags cuTexRefGetFormat cuTexRefGetMaxAnisotropy
        cuTexRefGetMipmapFilterMode cuTexRefGetMipmapLevelBias cuTexRefGetMipmapLevelClamp
        cuTexRefSetAddress cuTexRefSetAddress2D cuTexRefSetAddress2D_v2 cuTexRefSetAddress2D_v3
        cuTexRefSetAddressMode cuTexRefSetAddress_v2 cuTexRefSetBorderColor cuTexRefSetFilterMode
        cuTexRefSetFlags cuTexRefSetFormat cuTexRefSetMaxAnisotropy cuTexRefSetMipmapFilterMode
        cuTexRefSetMipmapLevelBias cuTexRefSetMipmapLevelClamp;
    "graphics interoperation":
        cuGraphicsMapResources cuGraphicsMapResources_ptsz cuGraphicsResourceGetMappedPointer
        cuGraphicsResourceGetMappedPointer_v2 cuGraphicsResourceSetMapFlags
        cuGraphicsResourceSetMapFlags_v2 cuGraphicsUnmapResources cuGraphicsUnmapResources_ptsz
        cuGraphicsUnregisterResource;
    "external memory and semaphores":
        cuDestroyExternalMemory cuDestroyExternalSemaphore cuDeviceGetNvSciSyncAttributes
        cuExternalMemoryGetMappedBuffer cuGraphAddExternalSemaphoresSignalNode
        cuGraphAddExternalSemaphoresWaitNode cuGraphExecExternalSemaphoresSignalNodeSetParams
        cuGraphExecExternalSemaphoresWaitNodeSetParams
        cuGraphExternalSemaphoresSignalNodeGetParams cuGraphExternalSemaphoresSignalNodeSetParams
        cuGraphExternalSemaphoresWaitNodeGetParams cuGraphExternalSemaphoresWaitNodeSetParams
        cuImportExternalMemory cuImportExternalSemaphore cuSignalExternalSemaphoresAsync
        cuSignalExternalSemaphoresAsync_ptsz cuWaitExternalSemaphoresAsync
        cuWaitExternalSemaphoresAsync_ptsz;
    "memory and events shared with other processes":
        cuIpcCloseMemHandle cuIpcGetEventHandle cuIpcGetMemHandle cuIpcOpenEventHandle
        cuIpcOpenMemHandle cuIpcOpenMemHandle_v2 cuMemExportToShareableHandle
        cuMemGetHandleForAddressRange cuMemImportFromShareableHandle cuMemPoolExportPointer
        cuMemPoolExportToShareableHandle cuMemPoolImportFromShareableHandle cuMemPoolImportPointer;
    "virtual memory management and multicast objects":
        cuMemAddressFree cuMemAddressReserve cuMemCreate cuMemGetAccess
        cuMemGetAllocationGranularity cuMemGetAllocationPropertiesFromHandle cuMemMap cuMemRelease
        cuMemRetainAllocationHandle cuMemSetAccess cuMemUnmap cuMulticastAddDevice
        cuMulticastBindAddr cuMulticastBindMem cuMulticastCreate cuMulticastGetGranularity
        cuMulticastUnbind;
    "memory pools outside devices":
        cuMemGetDefaultMemPool cuMemGetMemPool cuMemSetMemPool;
    "green contexts and parts of a device":
        cuCtxFromGreenCtx cuCtxGetDevResource cuCtxGetExecAffinity cuDevResourceGenerateDesc
        cuDevSmResourceSplitByCount cuDeviceGetDevResource cuGreenCtxCreate cuGreenCtxDestroy
        cuGreenCtxGetDevResource cuGreenCtxGetId cuGreenCtxRecordEvent cuGreenCtxStreamCreate
        cuGreenCtxWaitEvent cuStreamGetGreenCtx;
    "events of a whole context":
        cuCtxRecordEvent cuCtxWaitEvent;
    "batches of copies, prefetches and discards, decompression":
        cuMemBatchDecompressAsync cuMemBatchDecompressAsync_ptsz cuMemDiscardAndPrefetchBatchAsync
        cuMemDiscardAndPrefetchBatchAsync_ptsz cuMemDiscardBatchAsync cuMemDiscardBatchAsync_ptsz
        cuMemPrefetchBatchAsync cuMemPrefetchBatchAsync_ptsz cuMemRangeGetAttributes
        cuMemcpy3DBatchAsync cuMemcpy3DBatchAsync_ptsz cuMemcpy3DBatchAsync_v2
        cuMemcpy3DBatchAsync_v2_ptsz cuMemcpyBatchAsync cuMemcpyBatchAsync_ptsz
        cuMemcpyBatchAsync_v2 cuMemcpyBatchAsync_v2_ptsz;
    "graph nodes of events, semaphores, memory, batches and conditions; reading nodes back":
        cuDeviceGetGraphMemAttribute cuDeviceGraphMemTrim cuDeviceSetGraphMemAttribute
        cuGraphAddBatchMemOpNode cuGraphAddEventRecordNode cuGraphAddEventWaitNode
        cuGraphAddMemAllocNode cuGraphAddMemFreeNode cuGraphAddNode cuGraphAddNode_v2
        cuGraphBatchMemOpNodeGetParams cuGraphBatchMemOpNodeSetParams
        cuGraphConditionalHandleCreate cuGraphDebugDotPrint cuGraphEventRecordNodeGetEvent
        cuGraphEventRecordNodeSetEvent cuGraphEventWaitNodeGetEvent cuGraphEventWaitNodeSetEvent
        cuGraphExecBatchMemOpNodeSetParams cuGraphExecChildGraphNodeSetParams
        cuGraphExecEventRecordNodeSetEvent cuGraphExecEventWaitNodeSetEvent
        cuGraphExecNodeSetParams cuGraphHostNodeGetParams cuGraphKernelNodeCopyAttributes
        cuGraphKernelNodeGetAttribute cuGraphKernelNodeGetParams cuGraphKernelNodeGetParams_v2
        cuGraphKernelNodeSetAttribute cuGraphMemAllocNodeGetParams cuGraphMemFreeNodeGetParams
        cuGraphMemcpyNodeGetParams cuGraphMemsetNodeGetParams cuGraphNodeSetParams
        cuGraphReleaseUserObject cuGraphRetainUserObject;
    "captures into graphs that exist":
        cuStreamBeginCaptureToGraph cuStreamBeginCaptureToGraph_ptsz
        cuStreamUpdateCaptureDependencies cuStreamUpdateCaptureDependencies_ptsz
        cuStreamUpdateCaptureDependencies_v2 cuStreamUpdateCaptureDependencies_v2_ptsz;
    "objects that graphs keep alive":
        cuUserObjectCreate cuUserObjectRelease cuUserObjectRetain;
    "attributes of streams":
        cuStreamGetAttribute cuStreamGetAttribute_ptsz cuStreamSetAttribute
        cuStreamSetAttribute_ptsz;
    "interfaces of 32-bit addresses, replaced in CUDA 3.2":
        cuDeviceTotalMem cuMemAlloc cuMemAllocHost cuMemAllocPitch cuMemFree cuMemGetAddressRange
        cuMemGetInfo cuMemHostGetDevicePointer cuMemcpy2D cuMemcpy2DAsync cuMemcpy2DUnaligned
        cuMemcpy3D cuMemcpy3DAsync cuMemcpyDtoD cuMemcpyDtoDAsync cuMemcpyDtoH cuMemcpyDtoHAsync
        cuMemcpyHtoD cuMemcpyHtoDAsync cuMemsetD16 cuMemsetD2D16 cuMemsetD2D32 cuMemsetD2D8
        cuMemsetD32 cuMemsetD8 cuModuleGetGlobal;
    "launches of before CUDA 4.0, and over several devices":
        cuFuncSetBlockShape cuFuncSetSharedSize cuLaunch cuLaunchCooperativeKernelMultiDevice
        cuLaunchGrid cuLaunchGridAsync cuParamSetSize cuParamSetf cuParamSeti cuParamSetv;
    "im2col tensor maps":
        cuTensorMapEncodeIm2col cuTensorMapEncodeIm2colWide;
    "checkpoints, core dumps, logs, the old profiler's files":
        cuCheckpointProcessCheckpoint cuCheckpointProcessGetRestoreThreadId
        cuCheckpointProcessGetState cuCheckpointProcessLock cuCheckpointProcessRestore
        cuCheckpointProcessUnlock cuCoredumpGetAttribute cuCoredumpGetAttributeGlobal
        cuCoredumpSetAttribute cuCoredumpSetAttributeGlobal cuLogsCurrent cuLogsDumpToFile
        cuLogsDumpToMemory cuLogsRegisterCallback cuLogsUnregisterCallback cuProfilerInitialize;
    "atomic capabilities, notifications, pointers common to host and device, export tables":
        cuDeviceGetHostAtomicCapabilities cuDeviceGetP2PAtomicCapabilities
        cuDeviceRegisterAsyncNotification cuDeviceUnregisterAsyncNotification cuGetExportTable
        cuLibraryGetUnifiedFunction;
}
