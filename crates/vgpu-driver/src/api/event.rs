//! Events.

use std::ffi::c_uint;
use std::sync::Arc;

use tollgate_vgpu::host::Event;

use crate::abi::{CuEvent, CuStream};
use crate::boundary::{Out, exports};
use crate::context::current;
use crate::driver::driver;
use crate::failure::{Failure, Outcome, code};
use crate::stream::resolve;

exports! {
    cuEventCreate(out: Out<CuEvent>, flags: c_uint) => create;
    cuEventDestroy | cuEventDestroy_v2(event: CuEvent) => destroy;
    cuEventRecord | cuEventRecord_ptsz(event: CuEvent, stream: CuStream) => record;
    cuEventRecordWithFlags | cuEventRecordWithFlags_ptsz(event: CuEvent, stream: CuStream,
        flags: c_uint) => record_with_flags;
    cuEventQuery(event: CuEvent) => query;
    cuEventSynchronize(event: CuEvent) => synchronize;
    cuEventElapsedTime | cuEventElapsedTime_v2(ms: Out<f32>, start: CuEvent, end: CuEvent)
        => elapsed;
}

/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: c_uint = 2;
/// `CU_EVENT_INTERPROCESS`.
const INTERPROCESS: c_uint = 4;

/// An event that the program made.
pub(crate) struct EventObject {
    pub event: Event,
    timing: bool,
}

fn create(out: Out<CuEvent>, flags: c_uint) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    if flags > 7 {
        return Err(Failure::value(format!(
            "event flags {flags:#x} are unknown"
        )));
    }
    if flags & INTERPROCESS != 0 {
        return Err(Failure::not_supported("an event of several processes"));
    }
    let event = driver.machine.event(context.device)?;
    let object = EventObject {
        event,
        timing: flags & NO_TIMING == 0,
    };
    out.set(driver.handles.insert(Arc::new(object), Some(context.id)))
}

fn destroy(event: CuEvent) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.remove::<EventObject>(event)?;
    Ok(driver.machine.destroy_event(object.event)?)
}

fn record(event: CuEvent, stream: CuStream) -> Outcome {
    let used = resolve(stream)?;
    let event = used.driver.handles.get::<EventObject>(event)?;
    Ok(used.driver.machine.record(event.event, used.stream)?)
}

fn record_with_flags(event: CuEvent, stream: CuStream, flags: c_uint) -> Outcome {
    match flags {
        0 => record(event, stream),
        1 => Err(Failure::not_supported(
            "an external event record in a capture",
        )),
        _ => Err(Failure::quiet(code::INVALID_VALUE)),
    }
}

fn query(event: CuEvent) -> Outcome {
    let driver = driver()?;
    let event = driver.handles.get::<EventObject>(event)?;
    driver.machine.query_event(event.event)?;
    driver.verdict(event.event.device())
}

fn synchronize(event: CuEvent) -> Outcome {
    let driver = driver()?;
    let event = driver.handles.get::<EventObject>(event)?;
    driver.machine.synchronize_event(event.event)?;
    driver.verdict(event.event.device())
}

/// Virtual time: it grows with the work, is the same in every run, and says nothing about the speed
/// of a real device.
fn elapsed(ms: Out<f32>, start: CuEvent, end: CuEvent) -> Outcome {
    let driver = driver()?;
    let start = driver.handles.get::<EventObject>(start)?;
    let end = driver.handles.get::<EventObject>(end)?;
    if !start.timing || !end.timing {
        return Err(Failure::quiet(code::INVALID_HANDLE));
    }
    ms.set(driver.machine.elapsed_ms(start.event, end.event)?)
}
