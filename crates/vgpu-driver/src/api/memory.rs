//! Memory: of devices, pinned, registered, managed.

use std::ffi::{c_int, c_uint, c_void};

use crate::abi::{CuDevicePtr, CuStream, Location};
use crate::boundary::{Buffer, Out, exports};
use crate::context::{Context, current};
use crate::driver::{Driver, Origin, Piece, driver, lock};
use crate::failure::{Failure, Outcome, code};
use crate::stream::resolve;

exports! {
    cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) => get_info;
    cuMemAlloc_v2(out: Out<CuDevicePtr>, bytes: usize) => alloc;
    cuMemAllocPitch_v2(out: Out<CuDevicePtr>, pitch: Out<usize>, width: usize, height: usize,
        element_bytes: c_uint) => alloc_pitch;
    cuMemFree_v2(address: CuDevicePtr) => free;
    cuMemGetAddressRange_v2(base: Out<CuDevicePtr>, bytes: Out<usize>, address: CuDevicePtr)
        => address_range;
    cuMemAllocHost_v2(out: Out<u64>, bytes: usize) => alloc_host;
    cuMemHostAlloc(out: Out<u64>, bytes: usize, flags: c_uint) => host_alloc;
    cuMemFreeHost(address: Buffer) => free_host;
    cuMemHostGetDevicePointer_v2(out: Out<CuDevicePtr>, address: Buffer, flags: c_uint)
        => host_device_pointer;
    cuMemHostGetFlags(flags: Out<c_uint>, address: Buffer) => host_flags;
    cuMemHostRegister | cuMemHostRegister_v2(address: Buffer, bytes: usize, flags: c_uint)
        => host_register;
    cuMemHostUnregister(address: Buffer) => host_unregister;
    cuMemAllocManaged(out: Out<CuDevicePtr>, bytes: usize, flags: c_uint) => alloc_managed;
    cuMemPrefetchAsync | cuMemPrefetchAsync_ptsz(address: CuDevicePtr, bytes: usize, device: c_int,
        stream: CuStream) => prefetch;
    cuMemPrefetchAsync_v2 | cuMemPrefetchAsync_v2_ptsz(address: CuDevicePtr, bytes: usize,
        location: Location, flags: c_uint, stream: CuStream) => prefetch_v2;
    cuMemAdvise(address: CuDevicePtr, bytes: usize, advice: c_uint, device: c_int) => advise;
    cuMemAdvise_v2(address: CuDevicePtr, bytes: usize, advice: c_uint, location: Location)
        => advise_v2;
    cuMemRangeGetAttribute(data: Out<c_void>, bytes: usize, which: c_uint, address: CuDevicePtr,
        count: usize) => range_attribute;
    cuFlushGPUDirectRDMAWrites(target: c_uint, scope: c_uint) => flush_rdma;
}

/// Distance of rows that `cuMemAllocPitch` makes a multiple of.
const PITCH: usize = 512;
/// `CU_MEMHOSTALLOC_*` and `CU_MEMHOSTREGISTER_*`: portable, device map, write combined or IO
/// memory, read only. All of it is host memory that kernels use by its own address.
const HOST_FLAGS: c_uint = 0xf;

/// Keeps track of new memory.
pub(super) fn note(
    driver: &Driver,
    context: &Context,
    base: u64,
    bytes: usize,
    origin: Origin,
    flags: c_uint,
) {
    let piece = Piece {
        bytes: bytes as u64,
        origin,
        context: context.id,
        context_handle: context.handle(),
        device: context.device,
        flags,
        id: driver.next_id(),
    };
    lock(&driver.memory).insert(base, piece);
}

/// The piece that begins at `base`.
fn piece_at(driver: &Driver, base: u64) -> Outcome<Piece> {
    lock(&driver.memory)
        .get(&base)
        .copied()
        .ok_or_else(|| Failure::value(format!("{base:#x} is not the start of an allocation")))
}

fn some(bytes: usize) -> Outcome<u64> {
    if bytes == 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    Ok(bytes as u64)
}

fn get_info(free: Out<usize>, total: Out<usize>) -> Outcome {
    let (driver, context) = current()?;
    let info = driver.machine.mem_info(context.device)?;
    free.set_if_wanted(info.free as usize);
    total.set_if_wanted(info.total as usize);
    Ok(())
}

fn alloc(out: Out<CuDevicePtr>, bytes: usize) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    let base = driver.machine.alloc(context.device, some(bytes)?)?;
    note(driver, &context, base, bytes, Origin::Device, 0);
    out.set(base)
}

fn alloc_pitch(
    out: Out<CuDevicePtr>,
    pitch: Out<usize>,
    width: usize,
    height: usize,
    element_bytes: c_uint,
) -> Outcome {
    current()?;
    pitch.check()?;
    if !matches!(element_bytes, 4 | 8 | 16) {
        return Err(Failure::value(format!(
            "elements of {element_bytes} bytes; 4, 8 or 16 fit"
        )));
    }
    let row = width.checked_next_multiple_of(PITCH);
    let bytes = row.and_then(|row| row.checked_mul(height));
    let (Some(row), Some(bytes)) = (row, bytes) else {
        return Err(Failure::value(format!(
            "{height} rows of {width} bytes are too much"
        )));
    };
    alloc(out, bytes)?;
    pitch.set(row)
}

/// Frees what a `cuMemAlloc` of any kind made. The null pointer is freed already.
fn free(address: CuDevicePtr) -> Outcome {
    if address == 0 {
        return driver().map(|_| ());
    }
    let (driver, _) = current()?;
    let piece = piece_at(driver, address).or_else(|unknown| {
        // The machine knows more about an address than that nothing begins there: freed before, or
        // inside an allocation.
        driver.machine.free(address)?;
        Err(unknown)
    })?;
    match piece.origin {
        Origin::Device | Origin::Pool(_) => driver.machine.free(address)?,
        Origin::Managed => {
            driver.machine.synchronize_device(piece.device)?;
            driver.machine.free_host(address)?;
        }
        Origin::Pinned | Origin::Registered => {
            return Err(Failure::value(format!("{address:#x} is host memory")));
        }
    }
    lock(&driver.memory).remove(&address);
    Ok(())
}

fn address_range(base: Out<CuDevicePtr>, bytes: Out<usize>, address: CuDevicePtr) -> Outcome {
    let (driver, _) = current()?;
    let range = driver
        .machine
        .range_of(address)
        .map_err(|_| Failure::quiet(code::NOT_FOUND))?;
    base.set_if_wanted(range.base);
    bytes.set_if_wanted(range.bytes as usize);
    Ok(())
}

fn alloc_host(out: Out<u64>, bytes: usize) -> Outcome {
    host_alloc(out, bytes, 0)
}

fn host_alloc(out: Out<u64>, bytes: usize, flags: c_uint) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    if flags & !HOST_FLAGS != 0 {
        return Err(Failure::value(format!(
            "host allocation flags {flags:#x} are unknown"
        )));
    }
    let base = driver.machine.alloc_host(some(bytes)?)?;
    note(driver, &context, base, bytes, Origin::Pinned, flags);
    out.set(base)
}

fn free_host(address: Buffer) -> Outcome {
    let (driver, _) = current()?;
    let address = address.address();
    if address == 0 {
        return Ok(());
    }
    let piece = piece_at(driver, address)?;
    if piece.origin != Origin::Pinned {
        return Err(Failure::value(format!(
            "{address:#x} is not pinned host memory"
        )));
    }
    driver.machine.free_host(address)?;
    lock(&driver.memory).remove(&address);
    Ok(())
}

/// Host memory that kernels may use, and where in it `address` points.
fn host_piece(driver: &Driver, address: u64) -> Outcome<(u64, Piece)> {
    driver
        .piece(address)
        .filter(|(_, piece)| matches!(piece.origin, Origin::Pinned | Origin::Registered))
        .ok_or(Failure::quiet(code::INVALID_VALUE))
}

fn host_device_pointer(out: Out<CuDevicePtr>, address: Buffer, flags: c_uint) -> Outcome {
    let (driver, _) = current()?;
    if flags != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    host_piece(driver, address.address())?;
    out.set(address.address())
}

fn host_flags(flags: Out<c_uint>, address: Buffer) -> Outcome {
    let (driver, _) = current()?;
    let (_, piece) = host_piece(driver, address.address())?;
    flags.set(piece.flags)
}

fn host_register(address: Buffer, bytes: usize, flags: c_uint) -> Outcome {
    let (driver, context) = current()?;
    if address.is_null() || flags & !HOST_FLAGS != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    let (base, count) = (address.address(), some(bytes)?);
    // SAFETY: the program vouches that the memory is its own, and stays until it is unregistered.
    unsafe { driver.machine.register_host(base, count) }?;
    note(driver, &context, base, bytes, Origin::Registered, flags);
    Ok(())
}

fn host_unregister(address: Buffer) -> Outcome {
    let (driver, _) = current()?;
    let base = address.address();
    let registered = lock(&driver.memory).get(&base).map(|piece| piece.origin);
    if registered != Some(Origin::Registered) {
        return Err(Failure::quiet(code::HOST_MEMORY_NOT_REGISTERED));
    }
    driver.machine.unregister_host(base)?;
    lock(&driver.memory).remove(&base);
    Ok(())
}

/// Managed memory is host memory that every kernel uses by the same address: it never moves.
fn alloc_managed(out: Out<CuDevicePtr>, bytes: usize, flags: c_uint) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    // Attached to everybody, or to the host.
    if !matches!(flags, 1 | 2) {
        return Err(Failure::value(format!(
            "managed memory flags are {flags:#x}; 1 or 2 fit"
        )));
    }
    let base = driver.machine.alloc_host(some(bytes)?)?;
    note(driver, &context, base, bytes, Origin::Managed, flags);
    out.set(base)
}

/// Managed memory of at least `bytes` from `address`.
fn managed(driver: &Driver, address: u64, bytes: usize) -> Outcome {
    let fits = driver.piece(address).is_some_and(|(base, piece)| {
        piece.origin == Origin::Managed && bytes as u64 <= piece.bytes - (address - base)
    });
    if !fits || bytes == 0 {
        return Err(Failure::value(format!(
            "{bytes} bytes at {address:#x} are not managed memory"
        )));
    }
    Ok(())
}

fn prefetch(address: CuDevicePtr, bytes: usize, _device: c_int, stream: CuStream) -> Outcome {
    managed(resolve(stream)?.driver, address, bytes)
}

fn prefetch_v2(
    address: CuDevicePtr,
    bytes: usize,
    location: Location,
    flags: c_uint,
    stream: CuStream,
) -> Outcome {
    if flags != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    prefetch(address, bytes, location.id, stream)
}

fn advise(address: CuDevicePtr, bytes: usize, advice: c_uint, _device: c_int) -> Outcome {
    let driver = driver()?;
    if !(1..=6).contains(&advice) {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    managed(driver, address, bytes)
}

fn advise_v2(address: CuDevicePtr, bytes: usize, advice: c_uint, location: Location) -> Outcome {
    advise(address, bytes, advice, location.id)
}

/// No advice is kept: read-mostly is off, locations are unknown (`CU_DEVICE_INVALID`).
fn range_attribute(
    data: Out<c_void>,
    bytes: usize,
    which: c_uint,
    address: CuDevicePtr,
    count: usize,
) -> Outcome {
    managed(driver()?, address, count)?;
    let value: c_int = match which {
        1 => 0,
        2 | 4 => -2,
        _ => return Err(Failure::not_supported("this attribute of managed memory")),
    };
    if bytes != size_of::<c_int>() {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    data.cast().set(value)
}

fn flush_rdma(_target: c_uint, _scope: c_uint) -> Outcome {
    current().map(|_| ())
}
