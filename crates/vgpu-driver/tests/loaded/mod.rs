//! The library, loaded into the test's own process.

#![allow(dead_code, reason = "every test file uses its part")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::sync::OnceLock;

use libloading::os::unix::{Library, Symbol};

/// `CUresult`.
pub type Result = c_uint;

/// The library, loaded once and initialised.
pub fn cuda() -> &'static Library {
    static CUDA: OnceLock<Library> = OnceLock::new();
    CUDA.get_or_init(|| {
        // SAFETY: the library's initialisers do nothing but what Rust's runtime needs.
        let library = unsafe { Library::new(crate::common::library()) }.unwrap();
        // SAFETY: the type is that of cuInit.
        let init: Symbol<unsafe extern "C" fn(c_uint) -> Result> =
            unsafe { library.get(b"cuInit\0") }.unwrap();
        // SAFETY: cuInit takes any number.
        unsafe {
            assert_eq!(init(1), 1, "flags must be zero");
            assert_eq!(init(0), 0);
        }
        library
    })
}

/// Calls an exported function; its type is that of the arguments, which must be the declared ones.
macro_rules! call {
    ($name:ident($($argument:expr => $type:ty),* $(,)?)) => {{
        let name = concat!(stringify!($name), "\0").as_bytes();
        type Function = unsafe extern "C" fn($($type),*) -> $crate::loaded::Result;
        // SAFETY: the types are those that the CUDA documentation declares for the function.
        let function = unsafe { $crate::loaded::cuda().get::<Function>(name) }.unwrap();
        // SAFETY: pointers are null or good for what the function does with them.
        unsafe { function($($argument),*) }
    }};
}

/// Retains the primary context of device 0 and makes it current in this thread.
pub fn context() -> usize {
    let mut context = 0_usize;
    assert_eq!(
        call!(cuDevicePrimaryCtxRetain(&mut context => *mut usize, 0 => c_int)),
        0
    );
    assert_eq!(call!(cuCtxSetCurrent(context => usize)), 0);
    context
}

/// The kernels of the tests, as a module.
pub fn module() -> usize {
    let text = CString::new(std::fs::read(crate::common::kernels()).unwrap()).unwrap();
    let mut module = 0_usize;
    assert_eq!(
        call!(cuModuleLoadData(&mut module => *mut usize, text.as_ptr() => *const c_char)),
        0
    );
    module
}

/// A function of a module.
pub fn function(module: usize, name: &CStr) -> usize {
    let mut function = 0_usize;
    let code = call!(cuModuleGetFunction(
        &mut function => *mut usize, module => usize, name.as_ptr() => *const c_char
    ));
    assert_eq!(code, 0, "{name:?}");
    function
}

/// Memory of the device.
pub fn alloc(bytes: usize) -> u64 {
    let mut address = 0;
    assert_eq!(
        call!(cuMemAlloc_v2(&mut address => *mut u64, bytes => usize)),
        0
    );
    address
}
