//! Libraries: images that are loaded into each context when a kernel of them is used there.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::{Arc, Mutex};

use super::functions::{attribute, find, param_info, set};
use super::module::{ModuleObject, function_handle, load_text, read_file};
use crate::abi::{CuDevice, CuDevicePtr, CuFunction, CuKernel, CuLibrary, CuModule};
use crate::boundary::{In, Out, Text, exports};
use crate::context::{Context, current};
use crate::driver::{Driver, driver, lock};
use crate::failure::{Failure, Outcome, code};
use crate::image;
use crate::jit::Logs;

exports! {
    cuLibraryLoadData(out: Out<CuLibrary>, image: In<u8>, jit_options: In<c_uint>,
        jit_values: Out<usize>, jit_count: c_uint, options: In<c_uint>, values: In<c_void>,
        count: c_uint) => load_data;
    cuLibraryLoadFromFile(out: Out<CuLibrary>, path: Text, jit_options: In<c_uint>,
        jit_values: Out<usize>, jit_count: c_uint, options: In<c_uint>, values: In<c_void>,
        count: c_uint) => load_file;
    cuLibraryUnload(library: CuLibrary) => unload;
    cuLibraryGetKernel(out: Out<CuKernel>, library: CuLibrary, name: Text) => get_kernel;
    cuLibraryGetKernelCount(count: Out<c_uint>, library: CuLibrary) => kernel_count;
    cuLibraryEnumerateKernels(out: Out<CuKernel>, most: c_uint, library: CuLibrary)
        => enumerate_kernels;
    cuLibraryGetModule(out: Out<CuModule>, library: CuLibrary) => get_module;
    cuLibraryGetGlobal(address: Out<CuDevicePtr>, bytes: Out<usize>, library: CuLibrary,
        name: Text) => get_global;
    cuLibraryGetManaged(address: Out<CuDevicePtr>, bytes: Out<usize>, library: CuLibrary,
        name: Text) => get_managed;
    cuKernelGetFunction(out: Out<CuFunction>, kernel: CuKernel) => get_function;
    cuKernelGetLibrary(out: Out<CuLibrary>, kernel: CuKernel) => get_library;
    cuKernelGetAttribute(value: Out<c_int>, which: c_uint, kernel: CuKernel, device: CuDevice)
        => get_attribute;
    cuKernelSetAttribute(which: c_uint, value: c_int, kernel: CuKernel, device: CuDevice)
        => set_attribute;
    cuKernelSetCacheConfig(kernel: CuKernel, config: c_uint, device: CuDevice) => set_cache_config;
    cuKernelGetName(name: Out<*const c_char>, kernel: CuKernel) => get_name;
    cuKernelGetParamInfo(kernel: CuKernel, index: usize, offset: Out<usize>, bytes: Out<usize>)
        => get_param_info;
}

/// A library.
struct LibraryObject {
    text: String,
    /// Modules made of it, by context and epoch of the context.
    modules: Mutex<HashMap<(u64, u64), CuModule>>,
    kernels: Mutex<HashMap<String, CuKernel>>,
}

/// A kernel of a library.
pub(crate) struct KernelObject {
    library: CuLibrary,
    name: String,
    /// The name, NUL at its end.
    c_name: Box<[u8]>,
}

impl LibraryObject {
    /// The library's module in a context.
    fn module(&self, driver: &Driver, context: &Arc<Context>) -> Outcome<CuModule> {
        let mut modules = lock(&self.modules);
        let key = (context.id, context.epoch());
        if let Some(&module) = modules.get(&key) {
            return Ok(module);
        }
        let (module, _) = load_text(driver, context, &self.text)?;
        modules.insert(key, module);
        Ok(module)
    }

    /// Its module in the current context; without one, in the primary context of the first device,
    /// which then begins as if it had been retained.
    fn any_module(&self, driver: &Driver) -> Outcome<Arc<ModuleObject>> {
        let context = match current() {
            Ok((_, context)) => context,
            Err(_) => {
                let context = driver.primary(0);
                context.begin(driver);
                context
            }
        };
        driver.handles.get(self.module(driver, &context)?)
    }
}

impl KernelObject {
    /// The kernel's function in the current context.
    pub fn function(&self, driver: &Driver) -> Outcome<CuFunction> {
        let (_, context) = current()?;
        let library = driver.handles.get::<LibraryObject>(self.library)?;
        let module = library.module(driver, &context)?;
        function_handle(driver, module, &*driver.handles.get(module)?, &self.name)
    }
}

fn load(
    out: Out<CuLibrary>,
    text: impl FnOnce() -> Outcome<String>,
    jit: (In<c_uint>, Out<usize>, c_uint),
) -> Outcome {
    let driver = driver()?;
    out.check()?;
    let (options, values, count) = jit;
    let logs = Logs::read(count, options, values)?;
    let load = || {
        let library = LibraryObject {
            text: text()?,
            modules: Mutex::default(),
            kernels: Mutex::default(),
        };
        // Errors in the text are the load's, not those of the first launch.
        library.any_module(driver)?;
        Ok(library)
    };
    let library = logs.fill(load())?;
    out.set(driver.handles.insert(Arc::new(library), None))
}

fn load_data(
    out: Out<CuLibrary>,
    image: In<u8>,
    jit_options: In<c_uint>,
    jit_values: Out<usize>,
    jit_count: c_uint,
    _options: In<c_uint>,
    _values: In<c_void>,
    _count: c_uint,
) -> Outcome {
    load(
        out,
        || image::ptx(image),
        (jit_options, jit_values, jit_count),
    )
}

fn load_file(
    out: Out<CuLibrary>,
    path: Text,
    jit_options: In<c_uint>,
    jit_values: Out<usize>,
    jit_count: c_uint,
    _options: In<c_uint>,
    _values: In<c_void>,
    _count: c_uint,
) -> Outcome {
    load(
        out,
        || read_file(path),
        (jit_options, jit_values, jit_count),
    )
}

fn unload(library: CuLibrary) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.remove::<LibraryObject>(library)?;
    for &kernel in lock(&object.kernels).values() {
        let _ = driver.handles.remove::<KernelObject>(kernel);
    }
    for &module in lock(&object.modules).values() {
        // Modules of contexts that ended are gone already.
        if driver.handles.find::<ModuleObject>(module).is_some() {
            super::module::unload(module)?;
        }
    }
    Ok(())
}

fn kernel_handle(driver: &Driver, handle: CuLibrary, name: &str) -> Outcome<CuKernel> {
    let library = driver.handles.get::<LibraryObject>(handle)?;
    let mut kernels = lock(&library.kernels);
    if let Some(&known) = kernels.get(name) {
        return Ok(known);
    }
    library.any_module(driver)?.module.function(name)?;
    let mut c_name = name.as_bytes().to_vec();
    c_name.push(0);
    let object = KernelObject {
        library: handle,
        name: name.to_owned(),
        c_name: c_name.into(),
    };
    let kernel = driver.handles.insert(Arc::new(object), None);
    kernels.insert(name.to_owned(), kernel);
    Ok(kernel)
}

fn get_kernel(out: Out<CuKernel>, library: CuLibrary, name: Text) -> Outcome {
    out.check()?;
    out.set(kernel_handle(driver()?, library, &name.get()?)?)
}

fn kernel_count(count: Out<c_uint>, library: CuLibrary) -> Outcome {
    let driver = driver()?;
    let library = driver.handles.get::<LibraryObject>(library)?;
    count.set(library.any_module(driver)?.module.functions().len() as c_uint)
}

fn enumerate_kernels(out: Out<CuKernel>, most: c_uint, library: CuLibrary) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.get::<LibraryObject>(library)?;
    let functions = object.any_module(driver)?.module.functions();
    for (index, function) in functions.iter().take(most as usize).enumerate() {
        out.set_at(index, kernel_handle(driver, library, function.name())?)?;
    }
    Ok(())
}

fn get_module(out: Out<CuModule>, library: CuLibrary) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    out.set(
        driver
            .handles
            .get::<LibraryObject>(library)?
            .module(driver, &context)?,
    )
}

fn get_global(
    address: Out<CuDevicePtr>,
    bytes: Out<usize>,
    library: CuLibrary,
    name: Text,
) -> Outcome {
    let (driver, context) = current()?;
    let module = driver
        .handles
        .get::<LibraryObject>(library)?
        .module(driver, &context)?;
    let (base, size) = driver
        .handles
        .get::<ModuleObject>(module)?
        .module
        .global(&name.get()?)?;
    address.set_if_wanted(base);
    bytes.set_if_wanted(size as usize);
    Ok(())
}

/// Variables are on a device each; none is managed.
fn get_managed(
    _address: Out<CuDevicePtr>,
    _bytes: Out<usize>,
    library: CuLibrary,
    name: Text,
) -> Outcome {
    driver()?.handles.get::<LibraryObject>(library)?;
    name.get()?;
    Err(Failure::quiet(code::NOT_FOUND))
}

fn kernel(driver: &Driver, kernel: CuKernel) -> Outcome<Arc<KernelObject>> {
    driver.handles.get(kernel)
}

fn get_function(out: Out<CuFunction>, handle: CuKernel) -> Outcome {
    let driver = driver()?;
    out.check()?;
    out.set(kernel(driver, handle)?.function(driver)?)
}

fn get_library(out: Out<CuLibrary>, handle: CuKernel) -> Outcome {
    out.set(kernel(driver()?, handle)?.library)
}

/// All devices are alike, so the answer does not depend on the device.
fn get_attribute(value: Out<c_int>, which: c_uint, handle: CuKernel, device: CuDevice) -> Outcome {
    let driver = driver()?;
    driver.device(device)?;
    kernel(driver, handle)?;
    value.set(attribute(&*find(driver, handle)?, which)?)
}

fn set_attribute(which: c_uint, value: c_int, handle: CuKernel, device: CuDevice) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    kernel(driver, handle)?;
    let (_, context) = current()?;
    if context.device != device {
        return Err(Failure::not_supported(
            "an attribute of a kernel on another device",
        ));
    }
    set(&*find(driver, handle)?, which, value)
}

fn set_cache_config(handle: CuKernel, config: c_uint, device: CuDevice) -> Outcome {
    let driver = driver()?;
    driver.device(device)?;
    kernel(driver, handle)?;
    if config > 3 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    Ok(())
}

fn get_name(name: Out<*const c_char>, handle: CuKernel) -> Outcome {
    // Good as long as the library is loaded, because the table of handles holds the object.
    name.set(kernel(driver()?, handle)?.c_name.as_ptr().cast())
}

fn get_param_info(
    handle: CuKernel,
    index: usize,
    offset: Out<usize>,
    bytes: Out<usize>,
) -> Outcome {
    let driver = driver()?;
    let object = kernel(driver, handle)?;
    let library = driver.handles.get::<LibraryObject>(object.library)?;
    let function = library.any_module(driver)?.module.function(&object.name)?;
    param_info(&function, index, offset, bytes)
}
