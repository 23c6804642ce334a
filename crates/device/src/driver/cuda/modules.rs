//! Modules and kernels that were loaded.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::{DriverError, result, sys};
use tollgate_kernels::{Kernel, Module};

use super::call::{failed, words};
use crate::{Error, Facts, Result};

/// Dynamic shared memory that a kernel may have without being asked for more.
const SHARED_WITHOUT_OPT_IN: u32 = 48 << 10;
/// Room for what the PTX compiler says about a module that it does not take.
const LOG_BYTES: usize = 16 << 10;

/// A kernel that was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) handle: sys::CUfunction,
    /// Bytes of dynamic shared memory of a launch at most, on this device.
    pub(super) max_dynamic_shared: u32,
}

/// The cache. Modules stay loaded as long as the device is open: graphs hold their kernels.
#[derive(Default)]
pub(super) struct Modules {
    /// By name.
    loaded: HashMap<&'static str, sys::CUmodule>,
    /// By name of the module, and entry.
    functions: HashMap<(&'static str, &'static str), Function>,
}

// SAFETY: the driver's handles belong to no thread.
unsafe impl Send for Modules {}

impl Modules {
    /// The kernel, loaded when it is asked for for the first time. The context is bound.
    ///
    /// # Errors
    /// A module that the driver does not take, with the words of its compiler; an entry that is not
    /// in it.
    pub(super) fn function(&mut self, kernel: &Kernel, facts: &Facts) -> Result<Function> {
        let name = (kernel.module.name, kernel.entry);
        if let Some(&function) = self.functions.get(&name) {
            return Ok(function);
        }
        // Loading may allocate, which a capture under way would forbid to this thread.
        let _relaxed = Relaxed::enter()?;
        let module = match self.loaded.get(name.0) {
            Some(&module) => module,
            None => {
                let module = load(kernel.module, facts.compute_capability)?;
                self.loaded.insert(name.0, module);
                module
            }
        };
        let function = find(module, kernel, facts.shared_per_block_bytes)?;
        self.functions.insert(name, function);
        Ok(function)
    }

    /// Bytes of dynamic shared memory that a launch of a loaded kernel may have on this device.
    pub(super) fn max_dynamic_shared(&self, kernel: &Kernel) -> u32 {
        let function = self.functions.get(&(kernel.module.name, kernel.entry));
        function.map_or(0, |function| function.max_dynamic_shared)
    }

    /// Unloads everything. The context is bound, and nothing runs any more.
    pub(super) fn unload(&mut self) {
        self.functions.clear();
        for (_, module) in self.loaded.drain() {
            // SAFETY: the module was loaded here, and its functions are forgotten. What the driver
            // answers changes nothing any more.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}

/// Loads the image that fits the device; the driver compiles it.
fn load(module: &Module, capability: (u32, u32)) -> Result<sys::CUmodule> {
    const CALL: &str = "cuModuleLoadDataEx";
    let refuse = |reason: String| Error::Driver {
        call: CALL,
        reason: format!("module {}: {reason}", module.name),
    };
    let image = CString::new(module.image(capability))
        .map_err(|_| refuse("the PTX has a zero byte in it".to_owned()))?;
    let mut log = vec![0_u8; LOG_BYTES];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    // Each value is passed in the place of a pointer.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
    let mut handle = std::ptr::null_mut();
    // SAFETY: the image ends with a zero byte, the options and their values are as many as is said,
    // the log is as long as is said, and all of them outlive the call.
    let answer = unsafe {
        sys::cuModuleLoadDataEx(
            &mut handle,
            image.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    answer.result().map_err(|error| {
        let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        match text.trim() {
            "" => refuse(words(error)),
            text => refuse(format!("{}; its compiler says: {text}", words(error))),
        }
    })?;
    Ok(handle)
}

/// Looks a kernel up and asks for its shared memory.
fn find(module: sys::CUmodule, kernel: &Kernel, most_shared: u32) -> Result<Function> {
    use sys::CUfunction_attribute::{
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
    };
    let named = |error: DriverError| Error::Driver {
        call: "cuModuleGetFunction",
        reason: format!(
            "{} in {}: {}",
            kernel.entry,
            kernel.module.name,
            words(error)
        ),
    };
    let entry = CString::new(kernel.entry).map_err(|_| Error::Launch {
        kernel: kernel.entry,
        reason: "the entry's name has a zero byte in it".to_owned(),
    })?;
    // SAFETY: the module was loaded here.
    let handle = unsafe { result::module::get_function(module, entry) }.map_err(named)?;
    // SAFETY: the function was just found.
    let fixed = unsafe {
        result::function::get_function_attribute(handle, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)
    };
    let fixed = fixed.map_err(failed("cuFuncGetAttribute"))?;
    let room = most_shared.saturating_sub(u32::try_from(fixed).unwrap_or(0));
    let max_dynamic_shared = kernel.max_dynamic_shared.min(room);
    if max_dynamic_shared > SHARED_WITHOUT_OPT_IN {
        // SAFETY: the function was just found; the value is within the device's limit.
        let set = unsafe {
            result::function::set_function_attribute(
                handle,
                CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                max_dynamic_shared as i32,
            )
        };
        set.map_err(failed("cuFuncSetAttribute"))?;
    }
    Ok(Function {
        handle,
        max_dynamic_shared,
    })
}

/// The thread may do what captures forbid until this is dropped.
struct Relaxed {
    before: sys::CUstreamCaptureMode,
}

impl Relaxed {
    fn enter() -> Result<Self> {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the mode is exchanged with the thread's own and outlives the call.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }
            .result()
            .map_err(failed("cuThreadExchangeStreamCaptureMode"))?;
        Ok(Self { before: mode })
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: as above. It took the other mode and takes this one.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.before) };
    }
}
