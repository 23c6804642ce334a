//! Contexts: primary ones, others, and which is current.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::abi::{ContextParams, CuContext, CuDevice};
use crate::boundary::{In, Out, exports};
use crate::context::{Context, current, peek, pop, push};
use crate::driver::{Driver, driver, lock};
use crate::failure::{Failure, Outcome, code};

exports! {
    cuDevicePrimaryCtxRetain(out: Out<CuContext>, device: CuDevice) => primary_retain;
    cuDevicePrimaryCtxRelease | cuDevicePrimaryCtxRelease_v2(device: CuDevice) => primary_release;
    cuDevicePrimaryCtxSetFlags | cuDevicePrimaryCtxSetFlags_v2(device: CuDevice, flags: c_uint)
        => primary_set_flags;
    cuDevicePrimaryCtxGetState(device: CuDevice, flags: Out<c_uint>, active: Out<c_int>)
        => primary_state;
    cuDevicePrimaryCtxReset | cuDevicePrimaryCtxReset_v2(device: CuDevice) => primary_reset;
    cuCtxCreate | cuCtxCreate_v2(out: Out<CuContext>, flags: c_uint, device: CuDevice) => create;
    cuCtxCreate_v3(out: Out<CuContext>, affinity: In<c_void>, count: c_int, flags: c_uint,
        device: CuDevice) => create_v3;
    cuCtxCreate_v4(out: Out<CuContext>, params: In<ContextParams>, flags: c_uint, device: CuDevice)
        => create_v4;
    cuCtxDestroy | cuCtxDestroy_v2(context: CuContext) => destroy;
    cuCtxAttach(out: Out<CuContext>, flags: c_uint) => attach;
    cuCtxDetach(context: CuContext) => destroy;
    cuCtxPushCurrent | cuCtxPushCurrent_v2(context: CuContext) => push_current;
    cuCtxPopCurrent | cuCtxPopCurrent_v2(out: Out<CuContext>) => pop_current;
    cuCtxSetCurrent(context: CuContext) => set_current;
    cuCtxGetCurrent(out: Out<CuContext>) => get_current;
    cuCtxGetDevice(out: Out<CuDevice>) => get_device;
    cuCtxGetDevice_v2(out: Out<CuDevice>, context: CuContext) => get_device_of;
    cuCtxGetFlags(flags: Out<c_uint>) => get_flags;
    cuCtxSetFlags(flags: c_uint) => set_flags;
    cuCtxGetId(context: CuContext, id: Out<u64>) => get_id;
    cuCtxSynchronize() => synchronize;
    cuCtxSynchronize_v2(context: CuContext) => synchronize_one;
    cuCtxSetLimit(limit: c_uint, value: usize) => set_limit;
    cuCtxGetLimit(value: Out<usize>, limit: c_uint) => get_limit;
    cuCtxGetCacheConfig(config: Out<c_uint>) => get_cache_config;
    cuCtxSetCacheConfig(config: c_uint) => set_cache_config;
    cuCtxGetSharedMemConfig(config: Out<c_uint>) => get_shared_config;
    cuCtxSetSharedMemConfig(config: c_uint) => set_shared_config;
    cuCtxGetApiVersion(context: CuContext, version: Out<c_uint>) => api_version;
    cuCtxGetStreamPriorityRange(least: Out<c_int>, greatest: Out<c_int>) => priority_range;
    cuCtxResetPersistingL2Cache() => reset_l2;
}

/// `CU_CTX_FLAGS_MASK`.
const FLAGS: c_uint = 0xff;
/// Stream priorities: the least, and the greatest.
pub(super) const PRIORITIES: (c_int, c_int) = (0, -5);
/// What the limits of `CUlimit` 0 to 6 are before anybody sets them. They are kept, and change
/// nothing: stacks, heaps and caches are not modelled.
const LIMITS: [usize; 7] = [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0];

fn check_flags(flags: c_uint) -> Outcome {
    if flags & !FLAGS != 0 {
        return Err(Failure::value(format!(
            "context flags {flags:#x} are unknown"
        )));
    }
    Ok(())
}

fn primary_retain(out: Out<CuContext>, device: CuDevice) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    out.check()?;
    let context = driver.primary(device);
    lock(&driver.primaries[device as usize]).count += 1;
    context.begin(driver);
    out.set(context.handle())
}

fn primary_release(device: CuDevice) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    let context = driver.primary(device);
    let left = {
        let mut primary = lock(&driver.primaries[device as usize]);
        primary.count = primary
            .count
            .checked_sub(1)
            .ok_or(Failure::quiet(code::INVALID_CONTEXT))?;
        primary.count
    };
    if left == 0 {
        context.end(driver)
    } else {
        Ok(())
    }
}

fn primary_set_flags(device: CuDevice, flags: c_uint) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    check_flags(flags)?;
    driver.primary(device).flags.store(flags, Ordering::Relaxed);
    lock(&driver.primaries[device as usize]).flags = flags;
    Ok(())
}

fn primary_state(device: CuDevice, flags: Out<c_uint>, active: Out<c_int>) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    active.check()?;
    let primary = lock(&driver.primaries[device as usize]);
    flags.set(primary.flags)?;
    active.set(c_int::from(
        primary
            .context
            .as_ref()
            .is_some_and(|context| context.is_alive()),
    ))
}

/// Ends the primary context for everybody. Retains are not undone: a thread that holds it may go on
/// with a fresh one.
fn primary_reset(device: CuDevice) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    let context = driver.primary(device);
    context.end(driver)?;
    if lock(&driver.primaries[device as usize]).count > 0 {
        context.begin(driver);
    }
    Ok(())
}

fn create(out: Out<CuContext>, flags: c_uint, device: CuDevice) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    check_flags(flags)?;
    out.check()?;
    let context = Context::new(driver, device, false, flags);
    context.begin(driver);
    push(context.clone());
    out.set(context.handle())
}

fn create_v3(
    out: Out<CuContext>,
    _affinity: In<c_void>,
    count: c_int,
    flags: c_uint,
    device: CuDevice,
) -> Outcome {
    if count != 0 {
        return Err(Failure::new(
            code::UNSUPPORTED_EXEC_AFFINITY,
            "contexts on a part of a device are not modelled",
        ));
    }
    create(out, flags, device)
}

fn create_v4(
    out: Out<CuContext>,
    params: In<ContextParams>,
    flags: c_uint,
    device: CuDevice,
) -> Outcome {
    if !params.is_null() {
        let params = params.get()?;
        if !params.cig.is_null() {
            return Err(Failure::not_supported("a context in a graphics client"));
        }
        let affinity = In::from_address(params.affinity as usize);
        return create_v3(out, affinity, params.affinities, flags, device);
    }
    create(out, flags, device)
}

fn destroy(context: CuContext) -> Outcome {
    let driver = driver()?;
    let context = driver.context(context)?;
    if context.primary {
        return Err(Failure::quiet(code::INVALID_CONTEXT));
    }
    if peek().is_some_and(|top| top.id == context.id) {
        pop();
    }
    context.end(driver)
}

fn attach(out: Out<CuContext>, flags: c_uint) -> Outcome {
    let (_, context) = current()?;
    if flags != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    out.set(context.handle())
}

fn push_current(context: CuContext) -> Outcome {
    push(driver()?.context(context)?);
    Ok(())
}

fn pop_current(out: Out<CuContext>) -> Outcome {
    driver()?;
    let context = pop().ok_or(Failure::quiet(code::INVALID_CONTEXT))?;
    out.set_if_wanted(context.handle());
    Ok(())
}

fn set_current(context: CuContext) -> Outcome {
    let driver = driver()?;
    let new = if context == 0 {
        None
    } else {
        Some(driver.context(context)?)
    };
    pop();
    if let Some(context) = new {
        push(context);
    }
    Ok(())
}

fn get_current(out: Out<CuContext>) -> Outcome {
    driver()?;
    out.set(peek().map_or(0, |context| context.handle()))
}

fn get_device(out: Out<CuDevice>) -> Outcome {
    let (_, context) = current()?;
    out.set(context.device as CuDevice)
}

/// The context that was named; without a name, the current one.
fn named(context: CuContext) -> Outcome<(&'static Driver, Arc<Context>)> {
    if context == 0 {
        return current();
    }
    let driver = driver()?;
    Ok((driver, driver.context(context)?))
}

fn get_device_of(out: Out<CuDevice>, context: CuContext) -> Outcome {
    let (_, context) = named(context)?;
    out.set(context.device as CuDevice)
}

fn get_flags(flags: Out<c_uint>) -> Outcome {
    let (_, context) = current()?;
    flags.set(context.flags.load(Ordering::Relaxed))
}

fn set_flags(flags: c_uint) -> Outcome {
    let (_, context) = current()?;
    check_flags(flags)?;
    context.flags.store(flags, Ordering::Relaxed);
    Ok(())
}

fn get_id(context: CuContext, id: Out<u64>) -> Outcome {
    let (_, context) = named(context)?;
    id.set(context.id)
}

fn synchronize() -> Outcome {
    synchronize_one(0)
}

fn synchronize_one(context: CuContext) -> Outcome {
    let (driver, context) = named(context)?;
    driver.machine.synchronize_device(context.device)?;
    driver.verdict(context.device)
}

fn set_limit(limit: c_uint, value: usize) -> Outcome {
    let (_, context) = current()?;
    if limit as usize >= LIMITS.len() {
        return Err(Failure::quiet(code::UNSUPPORTED_LIMIT));
    }
    lock(&context.limits).insert(limit, value);
    Ok(())
}

fn get_limit(value: Out<usize>, limit: c_uint) -> Outcome {
    let (_, context) = current()?;
    let default = LIMITS
        .get(limit as usize)
        .ok_or(Failure::quiet(code::UNSUPPORTED_LIMIT))?;
    value.set(
        lock(&context.limits)
            .get(&limit)
            .copied()
            .unwrap_or(*default),
    )
}

fn get_cache_config(config: Out<c_uint>) -> Outcome {
    let (_, context) = current()?;
    config.set(context.cache_config.load(Ordering::Relaxed))
}

fn set_cache_config(config: c_uint) -> Outcome {
    let (_, context) = current()?;
    if config > 3 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    context.cache_config.store(config, Ordering::Relaxed);
    Ok(())
}

fn get_shared_config(config: Out<c_uint>) -> Outcome {
    let (_, context) = current()?;
    config.set(context.shared_config.load(Ordering::Relaxed))
}

fn set_shared_config(config: c_uint) -> Outcome {
    let (_, context) = current()?;
    if config > 2 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    context.shared_config.store(config, Ordering::Relaxed);
    Ok(())
}

fn api_version(context: CuContext, version: Out<c_uint>) -> Outcome {
    named(context)?;
    // The version of contexts, not that of the driver.
    version.set(3020)
}

fn priority_range(least: Out<c_int>, greatest: Out<c_int>) -> Outcome {
    current()?;
    least.set_if_wanted(PRIORITIES.0);
    greatest.set_if_wanted(PRIORITIES.1);
    Ok(())
}

fn reset_l2() -> Outcome {
    current().map(|_| ())
}
