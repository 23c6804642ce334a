//! Functions and their attributes.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::Arc;

use tollgate_vgpu::host::Function;

use super::libraries::KernelObject;
use super::module::FunctionObject;
use crate::abi::{CuFunction, CuModule};
use crate::boundary::{Out, exports};
use crate::driver::{Driver, driver, lock};
use crate::failure::{Failure, Outcome, code};

exports! {
    cuFuncGetAttribute(value: Out<c_int>, which: c_uint, function: CuFunction) => get_attribute;
    cuFuncSetAttribute(function: CuFunction, which: c_uint, value: c_int) => set_attribute;
    cuFuncSetCacheConfig(function: CuFunction, config: c_uint) => set_cache_config;
    cuFuncSetSharedMemConfig(function: CuFunction, config: c_uint) => set_cache_config;
    cuFuncGetModule(module: Out<CuModule>, function: CuFunction) => get_module;
    cuFuncGetName(name: Out<*const c_char>, function: CuFunction) => get_name;
    cuFuncGetParamInfo(function: CuFunction, index: usize, offset: Out<usize>, bytes: Out<usize>)
        => get_param_info;
    cuFuncIsLoaded(state: Out<c_uint>, function: CuFunction) => is_loaded;
    cuFuncLoad(function: CuFunction) => load;
}

/// The function behind a `CUfunction`, or behind a `CUkernel` in the current context.
pub(super) fn find(driver: &Driver, handle: CuFunction) -> Outcome<Arc<FunctionObject>> {
    if let Some(function) = driver.handles.find(handle) {
        return Ok(function);
    }
    match driver.handles.find::<KernelObject>(handle) {
        Some(kernel) => driver.handles.get(kernel.function(driver)?),
        None => Err(Failure::quiet(code::INVALID_HANDLE)),
    }
}

/// The value of attribute `which`.
pub(super) fn attribute(function: &FunctionObject, which: c_uint) -> Outcome<c_int> {
    let known = function.function.attributes();
    let set = *lock(&function.cluster);
    let cluster = known.cluster.unwrap_or(set);
    Ok(match which {
        0 => known.max_threads_per_block as c_int,
        1 => known.static_shared as c_int,
        2 => known.const_bytes as c_int,
        3 => known.local_bytes as c_int,
        4 => known.registers as c_int,
        5 => known.ptx_version as c_int,
        6 => known.binary_version as c_int,
        7 => 0,
        8 => known.max_dynamic_shared as c_int,
        9 => known.preferred_carveout,
        10 => c_int::from(known.cluster_must_be_set),
        11..=13 => cluster[which as usize - 11] as c_int,
        14 => c_int::from(known.non_portable_cluster),
        15 => 0,
        _ => return Err(Failure::quiet(code::INVALID_VALUE)),
    })
}

/// Sets attribute `which`.
pub(super) fn set(function: &FunctionObject, which: c_uint, value: c_int) -> Outcome {
    let at_least_0 = || {
        u32::try_from(value).map_err(|_| Failure::value(format!("attribute {which} is {value}")))
    };
    match which {
        8 => function.function.set_max_dynamic_shared(at_least_0()?)?,
        9 => function.function.set_preferred_carveout(value)?,
        11..=13 => {
            let value = at_least_0()?;
            let mut cluster = lock(&function.cluster);
            cluster[which as usize - 11] = value;
            // The three come one at a time; they count when all are there.
            if cluster.iter().all(|&extent| extent > 0) {
                function.function.set_cluster_dims(*cluster)?;
            }
        }
        14 => function.function.allow_non_portable_cluster(value != 0)?,
        // A preference of the scheduler.
        15 if (0..=2).contains(&value) => {}
        _ => {
            return Err(Failure::value(format!(
                "function attribute {which} cannot be set"
            )));
        }
    }
    Ok(())
}

fn get_attribute(value: Out<c_int>, which: c_uint, function: CuFunction) -> Outcome {
    let function = find(driver()?, function)?;
    value.set(attribute(&function, which)?)
}

fn set_attribute(function: CuFunction, which: c_uint, value: c_int) -> Outcome {
    set(&*find(driver()?, function)?, which, value)
}

/// Preferences about caches and banks, which are not modelled.
fn set_cache_config(function: CuFunction, config: c_uint) -> Outcome {
    find(driver()?, function)?;
    if config > 3 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    Ok(())
}

fn get_module(module: Out<CuModule>, function: CuFunction) -> Outcome {
    module.set(find(driver()?, function)?.module)
}

fn get_name(name: Out<*const c_char>, function: CuFunction) -> Outcome {
    // Good as long as the module is loaded, because the table of handles holds the object.
    name.set(find(driver()?, function)?.name.as_ptr().cast())
}

/// Offset and size of parameter `index`.
pub(super) fn param_info(
    function: &Function,
    index: usize,
    offset: Out<usize>,
    bytes: Out<usize>,
) -> Outcome {
    let param = function
        .params()
        .get(index)
        .ok_or(Failure::quiet(code::INVALID_VALUE))?;
    offset.set(param.offset as usize)?;
    bytes.set_if_wanted(param.bytes as usize);
    Ok(())
}

fn get_param_info(
    function: CuFunction,
    index: usize,
    offset: Out<usize>,
    bytes: Out<usize>,
) -> Outcome {
    param_info(&find(driver()?, function)?.function, index, offset, bytes)
}

/// `CU_FUNCTION_LOADING_STATE_LOADED`: modules are loaded at once.
fn is_loaded(state: Out<c_uint>, function: CuFunction) -> Outcome {
    find(driver()?, function)?;
    state.set(1)
}

fn load(function: CuFunction) -> Outcome {
    find(driver()?, function).map(|_| ())
}
