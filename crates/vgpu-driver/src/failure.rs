//! Result codes, and why a call failed.

use tollgate_vgpu::host::Error;
use tollgate_vgpu::report::{Kind, Report};

use crate::abi::CuResult;

/// Declares the result codes: a constant, the name programs know it by, and what it means.
macro_rules! codes {
    ($($name:ident = $code:literal, $words:literal;)*) => {
        /// The values of `CUresult`.
        #[allow(dead_code, reason = "complete, so that every code has a name")]
        pub(crate) mod code {
            use crate::abi::CuResult;
            pub const SUCCESS: CuResult = 0;
            $(pub const $name: CuResult = $code;)*
        }

        /// Name and meaning of a code, NUL at the end.
        pub(crate) fn describe(code: CuResult) -> Option<(&'static str, &'static str)> {
            Some(match code {
                0 => ("CUDA_SUCCESS\0", "no error\0"),
                $($code => (
                    concat!("CUDA_ERROR_", stringify!($name), "\0"),
                    concat!($words, "\0"),
                ),)*
                _ => return None,
            })
        }
    };
}

codes! {
    INVALID_VALUE = 1, "invalid argument";
    OUT_OF_MEMORY = 2, "out of memory";
    NOT_INITIALIZED = 3, "cuInit was not called";
    DEINITIALIZED = 4, "the driver is shutting down";
    PROFILER_DISABLED = 5, "the profiler is disabled";
    PROFILER_NOT_INITIALIZED = 6, "the profiler is not initialised";
    PROFILER_ALREADY_STARTED = 7, "the profiler runs already";
    PROFILER_ALREADY_STOPPED = 8, "the profiler is stopped already";
    STUB_LIBRARY = 34, "the library is a stub";
    CALL_REQUIRES_NEWER_DRIVER = 36, "the call needs a newer driver";
    DEVICE_UNAVAILABLE = 46, "the device is unavailable";
    NO_DEVICE = 100, "no device";
    INVALID_DEVICE = 101, "invalid device ordinal";
    DEVICE_NOT_LICENSED = 102, "the device is not licensed";
    INVALID_IMAGE = 200, "invalid module image";
    INVALID_CONTEXT = 201, "no context, or an invalid one";
    CONTEXT_ALREADY_CURRENT = 202, "the context is current already";
    MAP_FAILED = 205, "mapping failed";
    UNMAP_FAILED = 206, "unmapping failed";
    ARRAY_IS_MAPPED = 207, "the array is mapped";
    ALREADY_MAPPED = 208, "the resource is mapped already";
    NO_BINARY_FOR_GPU = 209, "no code in the image that the device can run";
    ALREADY_ACQUIRED = 210, "the resource is acquired already";
    NOT_MAPPED = 211, "the resource is not mapped";
    NOT_MAPPED_AS_ARRAY = 212, "the resource is not mapped as an array";
    NOT_MAPPED_AS_POINTER = 213, "the resource is not mapped as a pointer";
    ECC_UNCORRECTABLE = 214, "uncorrectable ECC error";
    UNSUPPORTED_LIMIT = 215, "unsupported limit";
    CONTEXT_ALREADY_IN_USE = 216, "the context is in use by another thread";
    PEER_ACCESS_UNSUPPORTED = 217, "peer access is not possible between these devices";
    INVALID_PTX = 218, "PTX that cannot be compiled";
    INVALID_GRAPHICS_CONTEXT = 219, "invalid OpenGL or DirectX context";
    NVLINK_UNCORRECTABLE = 220, "uncorrectable NVLink error";
    JIT_COMPILER_NOT_FOUND = 221, "the PTX compiler library is missing";
    UNSUPPORTED_PTX_VERSION = 222, "unsupported PTX version";
    JIT_COMPILATION_DISABLED = 223, "compilation of PTX is disabled";
    UNSUPPORTED_EXEC_AFFINITY = 224, "unsupported execution affinity";
    UNSUPPORTED_DEVSIDE_SYNC = 225, "unsupported synchronisation on the device";
    CONTAINED = 226, "a contained memory error";
    INVALID_SOURCE = 300, "invalid kernel source";
    FILE_NOT_FOUND = 301, "file not found";
    SHARED_OBJECT_SYMBOL_NOT_FOUND = 302, "symbol of a shared object not found";
    SHARED_OBJECT_INIT_FAILED = 303, "a shared object failed to initialise";
    OPERATING_SYSTEM = 304, "a call of the operating system failed";
    INVALID_HANDLE = 400, "invalid resource handle";
    ILLEGAL_STATE = 401, "the operation does not fit the resource's state";
    LOSSY_QUERY = 402, "the answer would be incomplete";
    NOT_FOUND = 500, "symbol not found";
    NOT_READY = 600, "not ready";
    ILLEGAL_ADDRESS = 700, "illegal memory access";
    LAUNCH_OUT_OF_RESOURCES = 701, "too many resources for a launch";
    LAUNCH_TIMEOUT = 702, "the kernel did not end";
    LAUNCH_INCOMPATIBLE_TEXTURING = 703, "incompatible texturing mode";
    PEER_ACCESS_ALREADY_ENABLED = 704, "peer access is enabled already";
    PEER_ACCESS_NOT_ENABLED = 705, "peer access is not enabled";
    PRIMARY_CONTEXT_ACTIVE = 708, "the primary context is active";
    CONTEXT_IS_DESTROYED = 709, "the context is destroyed";
    ASSERT = 710, "an assertion on the device failed";
    TOO_MANY_PEERS = 711, "too many peers";
    HOST_MEMORY_ALREADY_REGISTERED = 712, "the host memory is registered already";
    HOST_MEMORY_NOT_REGISTERED = 713, "the host memory is not registered";
    HARDWARE_STACK_ERROR = 714, "stack error on the device";
    ILLEGAL_INSTRUCTION = 715, "illegal instruction";
    MISALIGNED_ADDRESS = 716, "misaligned address";
    INVALID_ADDRESS_SPACE = 717, "an operation on the wrong address space";
    INVALID_PC = 718, "invalid program counter";
    LAUNCH_FAILED = 719, "the kernel failed";
    COOPERATIVE_LAUNCH_TOO_LARGE = 720, "too many blocks for a cooperative launch";
    TENSOR_MEMORY_LEAK = 721, "tensor memory was not freed";
    NOT_PERMITTED = 800, "operation not permitted";
    NOT_SUPPORTED = 801, "operation not supported";
    SYSTEM_NOT_READY = 802, "the system is not ready";
    SYSTEM_DRIVER_MISMATCH = 803, "driver versions do not match";
    COMPAT_NOT_SUPPORTED_ON_DEVICE = 804, "forward compatibility is not supported";
    MPS_CONNECTION_FAILED = 805, "no connection to the MPS server";
    MPS_RPC_FAILURE = 806, "a call of the MPS server failed";
    MPS_SERVER_NOT_READY = 807, "the MPS server is not ready";
    MPS_MAX_CLIENTS_REACHED = 808, "too many MPS clients";
    MPS_MAX_CONNECTIONS_REACHED = 809, "too many MPS connections";
    MPS_CLIENT_TERMINATED = 810, "the MPS client was ended by the server";
    CDP_NOT_SUPPORTED = 811, "dynamic parallelism is not supported";
    CDP_VERSION_MISMATCH = 812, "versions of dynamic parallelism do not match";
    STREAM_CAPTURE_UNSUPPORTED = 900, "not permitted while a stream is captured";
    STREAM_CAPTURE_INVALIDATED = 901, "the capture failed because of an earlier error";
    STREAM_CAPTURE_MERGE = 902, "two captures would be merged";
    STREAM_CAPTURE_UNMATCHED = 903, "the capture did not start on this stream";
    STREAM_CAPTURE_UNJOINED = 904, "a captured stream was not joined";
    STREAM_CAPTURE_ISOLATION = 905, "a dependency across the capture's border";
    STREAM_CAPTURE_IMPLICIT = 906, "an implicit dependency on the legacy stream";
    CAPTURED_EVENT = 907, "not permitted on an event that was recorded in a capture";
    STREAM_CAPTURE_WRONG_THREAD = 908, "the capture was started by another thread";
    TIMEOUT = 909, "the wait timed out";
    GRAPH_EXEC_UPDATE_FAILURE = 910, "the graph cannot be updated this way";
    EXTERNAL_DEVICE = 911, "an external device failed";
    INVALID_CLUSTER_SIZE = 912, "invalid cluster size";
    FUNCTION_NOT_LOADED = 913, "the function is not loaded";
    INVALID_RESOURCE_TYPE = 914, "invalid resource type";
    INVALID_RESOURCE_CONFIGURATION = 915, "invalid resource configuration";
    KEY_ROTATION = 916, "a key rotation is under way";
    UNKNOWN = 999, "unknown error";
}

/// What the functions behind the exported ones return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a call failed: the code its caller gets, and the words that go to stderr because a code
/// cannot hold them.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub code: CuResult,
    pub message: Option<String>,
}

impl Failure {
    /// The code says it all, or programs ask in order to get it.
    pub fn quiet(code: CuResult) -> Self {
        Self {
            code,
            message: None,
        }
    }

    pub fn new(code: CuResult, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    /// `INVALID_VALUE` with the value and its bound.
    pub fn value(message: impl Into<String>) -> Self {
        Self::new(code::INVALID_VALUE, message)
    }

    /// `NOT_SUPPORTED` with what is missing.
    pub fn not_supported(what: &str) -> Self {
        Self::new(code::NOT_SUPPORTED, format!("{what} is not modelled"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NoDevice { .. } => code::INVALID_DEVICE,
            Error::OutOfMemory { .. } => code::OUT_OF_MEMORY,
            Error::InvalidValue(_) | Error::InvalidLaunch(_) | Error::Address(_) => {
                code::INVALID_VALUE
            }
            Error::InvalidHandle(_) => code::INVALID_HANDLE,
            Error::Syntax(_) | Error::Load(_) => code::INVALID_PTX,
            Error::WrongArch { .. } | Error::NotPtx(_) => code::NO_BINARY_FOR_GPU,
            Error::NotFound { .. } => return Self::quiet(code::NOT_FOUND),
            Error::Faulted(report) => return Self::quiet(code_of(report)),
            Error::NotReady => return Self::quiet(code::NOT_READY),
            Error::Capture(_) => code::STREAM_CAPTURE_UNSUPPORTED,
            Error::PeerAccess(_) => code::PEER_ACCESS_NOT_ENABLED,
            Error::AlreadyRegistered(_) => code::HOST_MEMORY_ALREADY_REGISTERED,
        };
        Self::new(code, error.to_string())
    }
}

/// The code with which a real device would answer, had it noticed.
pub(crate) fn code_of(report: &Report) -> CuResult {
    match report.kind {
        Kind::OutOfBounds
        | Kind::UseAfterFree
        | Kind::UninitialisedRead
        | Kind::Race
        | Kind::WarpRace
        | Kind::Scope
        | Kind::ProxyFence
        | Kind::AsyncHazard => code::ILLEGAL_ADDRESS,
        Kind::Misaligned => code::MISALIGNED_ADDRESS,
        Kind::Deadlock | Kind::Livelock => code::LAUNCH_TIMEOUT,
        Kind::Trap if report.message.contains("assert") => code::ASSERT,
        _ => code::LAUNCH_FAILED,
    }
}
