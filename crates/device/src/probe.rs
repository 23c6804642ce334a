//! The one place that looks for a CUDA driver.
//!
//! cudarc loads the driver when it is called for the first time, and panics when that fails or when
//! a function is missing. So all that it will need is tried here before, and what is missing is
//! said.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

use cudarc::driver::{DriverError, result, sys};

use crate::driver::cuda::words;
use crate::{Backend, DeviceSpec, Error, Facts, Result};

/// A CUDA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The driver's number of it: `cuda:I`.
    pub index: u32,
    /// What the driver tells of it.
    pub facts: Facts,
    /// Its place on the bus, `domain:bus:device.function`; NVML knows it by the same.
    pub pci_bus_id: Option<String>,
    /// Why the kernels do not run on it, if so.
    pub unusable: Option<String>,
    pub(crate) reads_pageable: bool,
}

/// The oldest CUDA version whose driver takes the kernels' PTX (`.version 8.0`).
const OLDEST_VERSION: (u32, u32) = (12, 0);
/// The oldest compute capability that they are compiled for.
const OLDEST_CAPABILITY: (u32, u32) = (8, 0);

/// What this crate calls. cudarc panics when one is missing.
const FUNCTIONS: &[&CStr] = &[
    c"cuCtxGetCurrent",
    c"cuCtxSetCurrent",
    c"cuDeviceGet",
    c"cuDeviceGetAttribute",
    c"cuDeviceGetCount",
    c"cuDeviceGetName",
    c"cuDeviceGetPCIBusId",
    c"cuDevicePrimaryCtxRelease_v2",
    c"cuDevicePrimaryCtxRetain",
    c"cuDeviceTotalMem_v2",
    c"cuDriverGetVersion",
    c"cuEventCreate",
    c"cuEventDestroy_v2",
    c"cuEventElapsedTime",
    c"cuEventQuery",
    c"cuEventRecord",
    c"cuFuncGetAttribute",
    c"cuFuncSetAttribute",
    c"cuGetErrorName",
    c"cuGetErrorString",
    c"cuGraphDestroy",
    c"cuGraphExecDestroy",
    c"cuGraphInstantiateWithFlags",
    c"cuGraphLaunch",
    c"cuInit",
    c"cuLaunchKernel",
    c"cuMemAlloc_v2",
    c"cuMemFree_v2",
    c"cuMemGetInfo_v2",
    c"cuMemcpyDtoDAsync_v2",
    c"cuMemcpyDtoHAsync_v2",
    c"cuMemcpyHtoDAsync_v2",
    c"cuMemsetD8Async",
    c"cuModuleGetFunction",
    c"cuModuleLoadDataEx",
    c"cuModuleUnload",
    c"cuPointerGetAttribute",
    c"cuStreamBeginCapture_v2",
    c"cuStreamCreate",
    c"cuStreamDestroy_v2",
    c"cuStreamEndCapture",
    c"cuStreamIsCapturing",
    c"cuStreamQuery",
    c"cuStreamWaitEvent",
    c"cuThreadExchangeStreamCaptureMode",
];

/// The CUDA devices of this machine, by the driver's numbers; those that the kernels do not run on
/// are among them.
///
/// # Errors
/// [`Error::NoDevice`] with the reason: no driver library, one that is broken or too old, no
/// device.
pub fn probe() -> Result<Vec<Found>> {
    all().map_err(|reason| Error::NoDevice {
        device: "cuda".to_owned(),
        reason,
    })
}

/// The device with the driver's number `index`, if kernels run on it.
///
/// # Errors
/// In words.
pub(crate) fn open(index: u32) -> std::result::Result<Found, String> {
    let mut found = all()?;
    let count = found.len();
    let place = found.iter().position(|device| device.index == index);
    let device = place.map(|place| found.swap_remove(place)).ok_or_else(|| {
        let last = DeviceSpec::Cuda(count.saturating_sub(1) as u32);
        format!("the driver knows {count}, the last is {last}")
    })?;
    match device.unusable {
        Some(reason) => Err(reason),
        None => Ok(device),
    }
}

fn all() -> std::result::Result<Vec<Found>, String> {
    let version = driver()?;
    let count = result::device::get_count().map_err(words)?;
    if count == 0 {
        return Err("the driver knows no device; CUDA_VISIBLE_DEVICES may hide them".to_owned());
    }
    (0..count.unsigned_abs())
        .map(|index| describe(index, version).map_err(words))
        .collect()
}

/// The CUDA version of the driver, which is loaded and initialised once.
fn driver() -> std::result::Result<(u32, u32), String> {
    static DRIVER: OnceLock<std::result::Result<(u32, u32), String>> = OnceLock::new();
    DRIVER.get_or_init(load).clone()
}

fn load() -> std::result::Result<(u32, u32), String> {
    // SAFETY: loading the driver runs its initialisers, which is what anyone who uses it wants.
    if !unsafe { sys::is_culib_present() } {
        return Err(format!(
            "no CUDA driver can be loaded ({}); it comes with NVIDIA's display driver, and its \
             folder must be known to the loader (LD_LIBRARY_PATH)",
            loader_says()
        ));
    }
    // SAFETY: it was loaded just now, so it does not panic.
    let library = unsafe { sys::culib() };
    let missing = FUNCTIONS.iter().find(|name| {
        // SAFETY: the symbol is looked up and not called.
        unsafe { library.get::<unsafe extern "C" fn()>(name.to_bytes_with_nul()) }.is_err()
    });
    if let Some(name) = missing {
        return Err(format!(
            "the library that the loader finds as CUDA driver has no {}: it is too old, or another \
             library",
            name.to_string_lossy()
        ));
    }
    // First, because it needs no initialised driver: an old one says so.
    let version = version().map_err(words)?;
    if version < OLDEST_VERSION {
        let (major, minor) = OLDEST_VERSION;
        return Err(format!(
            "the driver is too old: it supports CUDA {}.{}, and the kernels need {major}.{minor}",
            version.0, version.1
        ));
    }
    result::init().map_err(|error| format!("cuInit: {}", words(error)))?;
    Ok(version)
}

/// Why the loader does not find a driver.
fn loader_says() -> String {
    let name = if cfg!(windows) {
        "nvcuda.dll"
    } else {
        "libcuda.so.1"
    };
    // SAFETY: as in `load`.
    match unsafe { libloading::Library::new(name) } {
        Ok(_) => "it is not there under the names that are tried".to_owned(),
        // The loader's own words are its source.
        Err(error) => match std::error::Error::source(&error) {
            Some(source) => source.to_string(),
            None => error.to_string(),
        },
    }
}

fn version() -> std::result::Result<(u32, u32), DriverError> {
    let mut version: c_int = 0;
    // SAFETY: the number is written to `version`.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    let version = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

fn describe(index: u32, version: (u32, u32)) -> std::result::Result<Found, DriverError> {
    use sys::CUdevice_attribute as Attribute;
    let device = result::device::get(index as c_int)?;
    let attribute = |which: Attribute| {
        // SAFETY: the device is one that the driver gave.
        let value = unsafe { result::device::get_attribute(device, which) };
        value.map(|value| u32::try_from(value).unwrap_or(0))
    };
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    // SAFETY: as above.
    let memory_bytes = unsafe { result::device::total_mem(device) }? as u64;
    let facts = Facts {
        backend: Backend::Cuda,
        name: result::device::get_name(device)?,
        compute_capability: capability,
        num_sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory_bytes,
        shared_per_block_bytes: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
        l2_bytes: u64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        driver_version: version,
    };
    let reads_pageable =
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES)?
            != 0;
    let unusable = (capability < OLDEST_CAPABILITY).then(|| {
        let (major, minor) = OLDEST_CAPABILITY;
        format!(
            "its compute capability is {}.{}, and the kernels need {major}.{minor}",
            capability.0, capability.1
        )
    });
    Ok(Found {
        index,
        facts,
        pci_bus_id: pci_bus_id(device),
        unusable,
        reads_pageable,
    })
}

fn pci_bus_id(device: sys::CUdevice) -> Option<String> {
    let mut text = [0_u8; 32];
    // SAFETY: the text is as long as is said; the device is one that the driver gave.
    let answer =
        unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), text.len() as c_int, device) };
    answer.result().ok()?;
    let text = CStr::from_bytes_until_nul(&text).ok()?;
    Some(text.to_string_lossy().into_owned())
}

/// Milliseconds between two events that have happened.
///
/// By the function's first name: the one that cudarc calls came with CUDA 12.8, and nothing else
/// here needs a driver as new as that.
pub(crate) fn elapsed_ms(
    start: sys::CUevent,
    end: sys::CUevent,
) -> std::result::Result<f32, DriverError> {
    type ElapsedTime = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
    // SAFETY: events come from the driver, so it is loaded.
    let library = unsafe { sys::culib() };
    // SAFETY: the type is that of the function.
    let function = unsafe { library.get::<ElapsedTime>(b"cuEventElapsedTime\0") };
    let function = function.map_err(|_| DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND))?;
    let mut milliseconds = 0.0;
    // SAFETY: both are events of the driver, and live during the call.
    unsafe { function(&mut milliseconds, start, end) }.result()?;
    Ok(milliseconds)
}
