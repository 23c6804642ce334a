//! Streams.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use tollgate_vgpu::host::StreamFlags;

use super::contexts::PRIORITIES;
use crate::abi::{CuContext, CuDevice, CuEvent, CuHostFn, CuStream, CuStreamCallback};
use crate::api::event::EventObject;
use crate::boundary::{Out, exports};
use crate::context::current;
use crate::driver::driver;
use crate::failure::{Failure, Outcome, code};
use crate::stream::{StreamObject, resolve};

exports! {
    cuStreamCreate(out: Out<CuStream>, flags: c_uint) => create;
    cuStreamCreateWithPriority(out: Out<CuStream>, flags: c_uint, priority: c_int)
        => create_with_priority;
    cuStreamDestroy | cuStreamDestroy_v2(stream: CuStream) => destroy;
    cuStreamGetPriority | cuStreamGetPriority_ptsz(stream: CuStream, priority: Out<c_int>)
        => get_priority;
    cuStreamGetFlags | cuStreamGetFlags_ptsz(stream: CuStream, flags: Out<c_uint>) => get_flags;
    cuStreamGetId | cuStreamGetId_ptsz(stream: CuStream, id: Out<u64>) => get_id;
    cuStreamGetCtx | cuStreamGetCtx_ptsz(stream: CuStream, context: Out<CuContext>) => get_context;
    cuStreamGetCtx_v2 | cuStreamGetCtx_v2_ptsz(stream: CuStream, context: Out<CuContext>,
        green: Out<usize>) => get_context_v2;
    cuStreamGetDevice | cuStreamGetDevice_ptsz(stream: CuStream, device: Out<CuDevice>)
        => get_device;
    cuStreamWaitEvent | cuStreamWaitEvent_ptsz(stream: CuStream, event: CuEvent, flags: c_uint)
        => wait_event;
    cuStreamAddCallback | cuStreamAddCallback_ptsz(stream: CuStream, function: CuStreamCallback,
        data: *mut c_void, flags: c_uint) => add_callback;
    cuLaunchHostFunc | cuLaunchHostFunc_ptsz(stream: CuStream, function: CuHostFn,
        data: *mut c_void) => launch_host;
    cuStreamQuery | cuStreamQuery_ptsz(stream: CuStream) => query;
    cuStreamSynchronize | cuStreamSynchronize_ptsz(stream: CuStream) => synchronize;
    cuStreamAttachMemAsync | cuStreamAttachMemAsync_ptsz(stream: CuStream, address: u64,
        bytes: usize, flags: c_uint) => attach_memory;
    cuStreamCopyAttributes | cuStreamCopyAttributes_ptsz(to: CuStream, from: CuStream)
        => copy_attributes;
}

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;

fn create(out: Out<CuStream>, flags: c_uint) -> Outcome {
    create_with_priority(out, flags, 0)
}

fn create_with_priority(out: Out<CuStream>, flags: c_uint, priority: c_int) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    if flags & !NON_BLOCKING != 0 {
        return Err(Failure::value(format!(
            "stream flags {flags:#x} are unknown"
        )));
    }
    let (least, greatest) = PRIORITIES;
    let flags = StreamFlags {
        non_blocking: flags & NON_BLOCKING != 0,
        priority: priority.clamp(greatest, least),
    };
    let stream = driver.machine.stream(context.device, flags)?;
    let id = context.id;
    out.set(
        driver
            .handles
            .insert(Arc::new(StreamObject { stream, context }), Some(id)),
    )
}

fn destroy(stream: CuStream) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.remove::<StreamObject>(stream)?;
    Ok(driver.machine.destroy_stream(object.stream)?)
}

fn get_priority(stream: CuStream, priority: Out<c_int>) -> Outcome {
    let used = resolve(stream)?;
    priority.set(used.driver.machine.stream_flags(used.stream)?.priority)
}

fn get_flags(stream: CuStream, flags: Out<c_uint>) -> Outcome {
    let used = resolve(stream)?;
    let non_blocking = used.driver.machine.stream_flags(used.stream)?.non_blocking;
    flags.set(if non_blocking { NON_BLOCKING } else { 0 })
}

fn get_id(stream: CuStream, id: Out<u64>) -> Outcome {
    let used = resolve(stream)?;
    id.set(u64::from(used.stream.device()) << 32 | u64::from(used.stream.id()))
}

fn get_context(stream: CuStream, context: Out<CuContext>) -> Outcome {
    context.set(resolve(stream)?.context.handle())
}

/// No stream belongs to a green context: there are none.
fn get_context_v2(stream: CuStream, context: Out<CuContext>, green: Out<usize>) -> Outcome {
    green.set_if_wanted(0);
    context.set_if_wanted(resolve(stream)?.context.handle());
    Ok(())
}

fn get_device(stream: CuStream, device: Out<CuDevice>) -> Outcome {
    device.set(resolve(stream)?.context.device as CuDevice)
}

fn wait_event(stream: CuStream, event: CuEvent, flags: c_uint) -> Outcome {
    let used = resolve(stream)?;
    let event = used.driver.handles.get::<EventObject>(event)?;
    // Bit 0: an external wait in a capture.
    if flags > 1 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    if flags == 1 {
        return Err(Failure::not_supported(
            "an external event wait in a capture",
        ));
    }
    Ok(used.driver.machine.wait_event(used.stream, event.event)?)
}

fn add_callback(
    stream: CuStream,
    function: CuStreamCallback,
    data: *mut c_void,
    flags: c_uint,
) -> Outcome {
    let used = resolve(stream)?;
    let function = function.ok_or(Failure::quiet(code::INVALID_VALUE))?;
    if flags != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    let data = data as usize;
    let call = move || {
        // SAFETY: the program gave the function for this call, with this argument.
        unsafe { function(stream, code::SUCCESS, data as *mut c_void) }
    };
    Ok(used.driver.machine.call_host(used.stream, Arc::new(call))?)
}

/// A function of the program as work of a stream.
pub(super) fn host_function(
    function: CuHostFn,
    data: *mut c_void,
) -> Outcome<tollgate_vgpu::host::HostFunction> {
    let function = function.ok_or(Failure::quiet(code::INVALID_VALUE))?;
    let data = data as usize;
    Ok(Arc::new(move || {
        // SAFETY: the program gave the function for this call, with this argument.
        unsafe { function(data as *mut c_void) }
    }))
}

fn launch_host(stream: CuStream, function: CuHostFn, data: *mut c_void) -> Outcome {
    let used = resolve(stream)?;
    let function = host_function(function, data)?;
    Ok(used.driver.machine.call_host(used.stream, function)?)
}

fn query(stream: CuStream) -> Outcome {
    let used = resolve(stream)?;
    used.driver.machine.query(used.stream)?;
    used.driver.verdict(used.stream.device())
}

fn synchronize(stream: CuStream) -> Outcome {
    resolve(stream)?.synchronize()
}

/// Managed memory is visible everywhere at any time: nothing is to be attached.
fn attach_memory(stream: CuStream, address: u64, _bytes: usize, flags: c_uint) -> Outcome {
    let used = resolve(stream)?;
    if used.driver.piece(address).is_none() || !matches!(flags, 1 | 2 | 4) {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    Ok(())
}

/// The attributes of streams are hints that nothing here follows.
fn copy_attributes(to: CuStream, from: CuStream) -> Outcome {
    resolve(to)?;
    resolve(from)?;
    Ok(())
}
