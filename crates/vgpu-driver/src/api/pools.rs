//! Memory in stream order, and pools. A pool is a name and its settings: the machine has one heap a
//! device, keeps no freed memory, and never gives an address twice.

use std::collections::HashMap;
use std::ffi::{c_uint, c_void};
use std::sync::{Arc, Mutex};

use super::memory::note;
use crate::abi::PoolProperties;
use crate::abi::{AccessDescription, CuDevice, CuDevicePtr, CuPool, CuStream, Location};
use crate::boundary::{In, Out, exports};
use crate::driver::{Driver, Origin, driver, lock};
use crate::failure::{Failure, Outcome, code};
use crate::stream::resolve;

exports! {
    cuDeviceGetDefaultMemPool(out: Out<CuPool>, device: CuDevice) => default_pool;
    cuDeviceGetMemPool(out: Out<CuPool>, device: CuDevice) => current_pool;
    cuDeviceSetMemPool(device: CuDevice, pool: CuPool) => set_pool;
    cuMemPoolCreate(out: Out<CuPool>, properties: In<PoolProperties>) => create;
    cuMemPoolDestroy(pool: CuPool) => destroy;
    cuMemPoolTrimTo(pool: CuPool, keep: usize) => trim;
    cuMemPoolSetAttribute(pool: CuPool, which: c_uint, value: In<c_void>) => set_attribute;
    cuMemPoolGetAttribute(pool: CuPool, which: c_uint, value: Out<c_void>) => get_attribute;
    cuMemPoolSetAccess(pool: CuPool, map: In<AccessDescription>, count: usize) => set_access;
    cuMemPoolGetAccess(flags: Out<c_uint>, pool: CuPool, location: In<Location>) => get_access;
    cuMemAllocAsync | cuMemAllocAsync_ptsz(out: Out<CuDevicePtr>, bytes: usize, stream: CuStream)
        => alloc_async;
    cuMemAllocFromPoolAsync | cuMemAllocFromPoolAsync_ptsz(out: Out<CuDevicePtr>, bytes: usize,
        pool: CuPool, stream: CuStream) => alloc_from;
    cuMemFreeAsync | cuMemFreeAsync_ptsz(address: CuDevicePtr, stream: CuStream) => free_async;
}

/// `CU_MEM_LOCATION_TYPE_DEVICE`.
const ON_DEVICE: c_uint = 1;
/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: c_uint = 3;

/// A pool.
struct Pool {
    device: u32,
    /// Settings 1 to 3, switches that are on from the start, and 4, the release threshold.
    settings: Mutex<[u64; 4]>,
    /// Access of other devices, as it was set.
    access: Mutex<HashMap<i32, c_uint>>,
    /// The most that was in use.
    high: Mutex<u64>,
}

fn new_pool(driver: &Driver, device: u32) -> CuPool {
    let pool = Pool {
        device,
        settings: Mutex::new([1, 1, 1, 0]),
        access: Mutex::default(),
        high: Mutex::default(),
    };
    driver.handles.insert(Arc::new(pool), None)
}

/// Handles of the default and the current pool of `device`.
fn pools_of(driver: &Driver, device: u32) -> (CuPool, CuPool) {
    let mut pools = lock(&driver.pools[device as usize]);
    if pools.0 == 0 {
        let pool = new_pool(driver, device);
        *pools = (pool, pool);
    }
    *pools
}

fn default_pool(out: Out<CuPool>, device: CuDevice) -> Outcome {
    let driver = driver()?;
    out.set(pools_of(driver, driver.device(device)?).0)
}

fn current_pool(out: Out<CuPool>, device: CuDevice) -> Outcome {
    let driver = driver()?;
    out.set(pools_of(driver, driver.device(device)?).1)
}

fn set_pool(device: CuDevice, pool: CuPool) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    if driver.handles.get::<Pool>(pool)?.device != device {
        return Err(Failure::value("the pool is on another device"));
    }
    pools_of(driver, device);
    lock(&driver.pools[device as usize]).1 = pool;
    Ok(())
}

fn create(out: Out<CuPool>, properties: In<PoolProperties>) -> Outcome {
    let driver = driver()?;
    out.check()?;
    let properties = properties.get()?;
    if properties.location.kind != ON_DEVICE {
        return Err(Failure::not_supported("a pool outside devices"));
    }
    if properties.handle_types != 0 {
        return Err(Failure::not_supported(
            "a pool that is shared with other processes",
        ));
    }
    let device = driver.device(properties.location.id)?;
    out.set(new_pool(driver, device))
}

fn destroy(pool: CuPool) -> Outcome {
    let driver = driver()?;
    let device = driver.handles.get::<Pool>(pool)?.device;
    let (default, current) = pools_of(driver, device);
    if pool == default {
        return Err(Failure::value("the default pool cannot be destroyed"));
    }
    driver.handles.remove::<Pool>(pool)?;
    if pool == current {
        lock(&driver.pools[device as usize]).1 = default;
    }
    Ok(())
}

/// Nothing is kept, so there is nothing to trim.
fn trim(pool: CuPool, _keep: usize) -> Outcome {
    driver()?.handles.get::<Pool>(pool).map(|_| ())
}

/// Bytes of `pool` in use.
fn in_use(driver: &Driver, pool: CuPool) -> u64 {
    let memory = lock(&driver.memory);
    let mine = memory
        .values()
        .filter(|piece| piece.origin == Origin::Pool(pool));
    mine.map(|piece| piece.bytes).sum()
}

fn set_attribute(pool: CuPool, which: c_uint, value: In<c_void>) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.get::<Pool>(pool)?;
    match which {
        1..=3 => {
            let on: i32 = value.cast().get()?;
            lock(&object.settings)[which as usize - 1] = u64::from(on != 0);
        }
        4 => lock(&object.settings)[3] = value.cast().get()?,
        // High-water marks can be set back to what is in use.
        6 | 8 => {
            if value.cast::<u64>().get()? != 0 {
                return Err(Failure::value("a high-water mark can only be set to 0"));
            }
            *lock(&object.high) = in_use(driver, pool);
        }
        _ => return Err(Failure::quiet(code::INVALID_VALUE)),
    }
    Ok(())
}

fn get_attribute(pool: CuPool, which: c_uint, value: Out<c_void>) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.get::<Pool>(pool)?;
    match which {
        1..=3 => value
            .cast()
            .set(lock(&object.settings)[which as usize - 1] as i32),
        4 => value.cast().set(lock(&object.settings)[3]),
        // Reserved is what is in use: no more is kept.
        5 | 7 => value.cast().set(in_use(driver, pool)),
        6 | 8 => value.cast().set(*lock(&object.high)),
        _ => Err(Failure::quiet(code::INVALID_VALUE)),
    }
}

fn set_access(pool: CuPool, map: In<AccessDescription>, count: usize) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.get::<Pool>(pool)?;
    for AccessDescription { location, flags } in map.list(count)? {
        if location.kind != ON_DEVICE || !matches!(flags, 0 | READ_WRITE) {
            return Err(Failure::quiet(code::INVALID_VALUE));
        }
        let device = driver.device(location.id)?;
        if device == object.device && flags == 0 {
            return Err(Failure::value(
                "a device cannot lose access to its own pool",
            ));
        }
        lock(&object.access).insert(location.id, flags);
        // Access of a device to a pool is access to the other device's memory.
        if flags == READ_WRITE && device != object.device {
            super::peers::enable(driver, device, object.device)?;
        }
    }
    Ok(())
}

fn get_access(flags: Out<c_uint>, pool: CuPool, location: In<Location>) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.get::<Pool>(pool)?;
    let location = location.get()?;
    let device = driver.device(location.id)?;
    let own = if device == object.device {
        READ_WRITE
    } else {
        0
    };
    flags.set(
        lock(&object.access)
            .get(&location.id)
            .copied()
            .unwrap_or(own),
    )
}

fn alloc_async(out: Out<CuDevicePtr>, bytes: usize, stream: CuStream) -> Outcome {
    let used = resolve(stream)?;
    let pool = pools_of(used.driver, used.stream.device()).1;
    alloc_from(out, bytes, pool, stream)
}

fn alloc_from(out: Out<CuDevicePtr>, bytes: usize, pool: CuPool, stream: CuStream) -> Outcome {
    let used = resolve(stream)?;
    out.check()?;
    let object = used.driver.handles.get::<Pool>(pool)?;
    if bytes == 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    if object.device != used.stream.device() {
        return Err(Failure::not_supported(
            "an allocation from another device's pool",
        ));
    }
    let base = used.driver.machine.alloc_async(used.stream, bytes as u64)?;
    note(
        used.driver,
        &used.context,
        base,
        bytes,
        Origin::Pool(pool),
        0,
    );
    let now = in_use(used.driver, pool);
    let mut high = lock(&object.high);
    *high = now.max(*high);
    out.set(base)
}

fn free_async(address: CuDevicePtr, stream: CuStream) -> Outcome {
    let used = resolve(stream)?;
    if address == 0 {
        return Ok(());
    }
    used.driver.machine.free_async(used.stream, address)?;
    lock(&used.driver.memory).remove(&address);
    Ok(())
}
