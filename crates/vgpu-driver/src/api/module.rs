//! Modules: PTX made ready on a device, and what is in it.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_void};
use std::sync::{Arc, Mutex};

use tollgate_vgpu::host::{Function, Module};

use crate::abi::{CuDevicePtr, CuFunction, CuModule};
use crate::boundary::{In, Out, Text, exports};
use crate::context::{Context, current};
use crate::driver::{Driver, driver, lock};
use crate::failure::{Failure, Outcome, code};
use crate::image;
use crate::jit::Logs;

exports! {
    cuModuleLoad(out: Out<CuModule>, path: Text) => load_file;
    cuModuleLoadData(out: Out<CuModule>, image: In<u8>) => load_data;
    cuModuleLoadDataEx(out: Out<CuModule>, image: In<u8>, count: c_uint, options: In<c_uint>,
        values: Out<usize>) => load_data_ex;
    cuModuleLoadFatBinary(out: Out<CuModule>, image: In<u8>) => load_data;
    cuModuleUnload(module: CuModule) => unload;
    cuModuleGetLoadingMode(mode: Out<c_uint>) => loading_mode;
    cuModuleGetFunction(out: Out<CuFunction>, module: CuModule, name: Text) => get_function;
    cuModuleGetFunctionCount(count: Out<c_uint>, module: CuModule) => function_count;
    cuModuleEnumerateFunctions(out: Out<CuFunction>, most: c_uint, module: CuModule)
        => enumerate_functions;
    cuModuleGetGlobal_v2(address: Out<CuDevicePtr>, bytes: Out<usize>, module: CuModule,
        name: Text) => get_global;
    cuModuleGetTexRef(out: Out<c_void>, module: CuModule, name: Text) => get_reference;
    cuModuleGetSurfRef(out: Out<c_void>, module: CuModule, name: Text) => get_reference;
}

/// A module in a context.
pub(crate) struct ModuleObject {
    pub module: Module,
    pub context: Arc<Context>,
    /// Handles of the functions that were asked for.
    functions: Mutex<BTreeMap<String, CuFunction>>,
}

/// A function of a module.
pub(crate) struct FunctionObject {
    pub function: Function,
    pub module: CuModule,
    /// The name, NUL at its end, for programs that ask for it.
    pub name: Box<[u8]>,
    /// Cluster dimensions as they are set, one at a time; 0 is not set.
    pub cluster: Mutex<[u32; 3]>,
}

/// Loads PTX in a context; returns the handle of the module.
pub(super) fn load_text(
    driver: &Driver,
    context: &Arc<Context>,
    text: &str,
) -> Outcome<(CuModule, Arc<ModuleObject>)> {
    let module = driver.machine.load(context.device, text)?;
    let object = Arc::new(ModuleObject {
        module,
        context: context.clone(),
        functions: Mutex::default(),
    });
    Ok((
        driver.handles.insert(object.clone(), Some(context.id)),
        object,
    ))
}

/// The handle of a function: the same whenever it is asked for.
pub(super) fn function_handle(
    driver: &Driver,
    handle: CuModule,
    module: &ModuleObject,
    name: &str,
) -> Outcome<CuFunction> {
    let mut functions = lock(&module.functions);
    if let Some(&known) = functions.get(name) {
        return Ok(known);
    }
    let function = module.module.function(name)?;
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    let object = FunctionObject {
        function,
        module: handle,
        name: bytes.into(),
        cluster: Mutex::default(),
    };
    let made = driver
        .handles
        .insert(Arc::new(object), Some(module.context.id));
    functions.insert(name.to_owned(), made);
    Ok(made)
}

/// Reads a file that holds a module.
pub(super) fn read_file(path: Text) -> Outcome<String> {
    let path = path.get()?;
    let bytes = std::fs::read(&path)
        .map_err(|error| Failure::new(code::FILE_NOT_FOUND, format!("{path}: {error}")))?;
    image::ptx_in(&bytes)
}

fn load_file(out: Out<CuModule>, path: Text) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    out.set(load_text(driver, &context, &read_file(path)?)?.0)
}

fn load_data(out: Out<CuModule>, image: In<u8>) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    out.set(load_text(driver, &context, &image::ptx(image)?)?.0)
}

fn load_data_ex(
    out: Out<CuModule>,
    image: In<u8>,
    count: c_uint,
    options: In<c_uint>,
    values: Out<usize>,
) -> Outcome {
    current()?;
    let logs = Logs::read(count, options, values)?;
    logs.fill(load_data(out, image))
}

/// Takes back the handles of a module and its functions, and unloads it.
pub(super) fn unload(module: CuModule) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.remove::<ModuleObject>(module)?;
    for &function in lock(&object.functions).values() {
        let _ = driver.handles.remove::<FunctionObject>(function);
    }
    Ok(driver.machine.unload(&object.module)?)
}

/// `CU_MODULE_EAGER_LOADING`.
fn loading_mode(mode: Out<c_uint>) -> Outcome {
    driver()?;
    mode.set(1)
}

fn get_function(out: Out<CuFunction>, module: CuModule, name: Text) -> Outcome {
    let driver = driver()?;
    out.check()?;
    let object = driver.handles.get::<ModuleObject>(module)?;
    out.set(function_handle(driver, module, &object, &name.get()?)?)
}

fn function_count(count: Out<c_uint>, module: CuModule) -> Outcome {
    let object = driver()?.handles.get::<ModuleObject>(module)?;
    count.set(object.module.functions().len() as c_uint)
}

fn enumerate_functions(out: Out<CuFunction>, most: c_uint, module: CuModule) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.get::<ModuleObject>(module)?;
    for (index, function) in object
        .module
        .functions()
        .iter()
        .take(most as usize)
        .enumerate()
    {
        out.set_at(
            index,
            function_handle(driver, module, &object, function.name())?,
        )?;
    }
    Ok(())
}

fn get_global(
    address: Out<CuDevicePtr>,
    bytes: Out<usize>,
    module: CuModule,
    name: Text,
) -> Outcome {
    let object = driver()?.handles.get::<ModuleObject>(module)?;
    let (base, size) = object.module.global(&name.get()?)?;
    address.set_if_wanted(base);
    bytes.set_if_wanted(size as usize);
    Ok(())
}

/// PTX of today has no texture or surface references, so no module has one of any name.
fn get_reference(_out: Out<c_void>, module: CuModule, name: Text) -> Outcome {
    driver()?.handles.get::<ModuleObject>(module)?;
    name.get()?;
    Err(Failure::quiet(code::NOT_FOUND))
}
