//! Capture of streams.

use std::ffi::{c_uint, c_void};

use super::graphs::GraphObject;
use crate::abi::{CuGraph, CuStream};
use crate::boundary::{Out, exports};
use crate::driver::{driver, lock};
use crate::failure::{Failure, Outcome, code};
use crate::stream::resolve;

exports! {
    cuStreamBeginCapture | cuStreamBeginCapture_ptsz(stream: CuStream) => begin_global;
    cuStreamBeginCapture_v2 | cuStreamBeginCapture_v2_ptsz(stream: CuStream, mode: c_uint)
        => begin;
    cuStreamEndCapture | cuStreamEndCapture_ptsz(stream: CuStream, out: Out<CuGraph>) => end;
    cuStreamIsCapturing | cuStreamIsCapturing_ptsz(stream: CuStream, status: Out<c_uint>)
        => is_capturing;
    cuStreamGetCaptureInfo | cuStreamGetCaptureInfo_ptsz(stream: CuStream, status: Out<c_uint>,
        id: Out<u64>) => info;
    cuStreamGetCaptureInfo_v2 | cuStreamGetCaptureInfo_v2_ptsz(stream: CuStream,
        status: Out<c_uint>, id: Out<u64>, graph: Out<CuGraph>, after: Out<*const c_void>,
        count: Out<usize>) => info_v2;
    cuStreamGetCaptureInfo_v3 | cuStreamGetCaptureInfo_v3_ptsz(stream: CuStream,
        status: Out<c_uint>, id: Out<u64>, graph: Out<CuGraph>, after: Out<*const c_void>,
        edges: Out<*const c_void>, count: Out<usize>) => info_v3;
    cuThreadExchangeStreamCaptureMode(mode: Out<c_uint>) => exchange_mode;
}

std::thread_local! {
    /// The thread's capture mode, kept for those who ask. Calls that a capture forbids fail
    /// whatever the mode, if they touch a device that captures.
    static MODE: std::cell::Cell<c_uint> = const { std::cell::Cell::new(0) };
}

/// `CU_STREAM_CAPTURE_MODE_RELAXED`, the last mode.
const RELAXED: c_uint = 2;

fn begin_global(stream: CuStream) -> Outcome {
    begin(stream, 0)
}

fn begin(stream: CuStream, mode: c_uint) -> Outcome {
    let used = resolve(stream)?;
    if mode > RELAXED {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    used.driver.machine.begin_capture(used.stream)?;
    lock(&used.driver.captures).insert(used.stream.id(), used.driver.next_id());
    Ok(())
}

fn end(stream: CuStream, out: Out<CuGraph>) -> Outcome {
    let used = resolve(stream)?;
    out.check()?;
    let ended = used.driver.machine.end_capture(used.stream);
    lock(&used.driver.captures).remove(&used.stream.id());
    match ended {
        Ok(graph) => out.set(GraphObject::captured(used.driver, &used.context, graph)?),
        Err(error) => {
            out.set(0)?;
            Err(error.into())
        }
    }
}

/// `CU_STREAM_CAPTURE_STATUS_NONE` or `_ACTIVE`.
fn is_capturing(stream: CuStream, status: Out<c_uint>) -> Outcome {
    let used = resolve(stream)?;
    status.set(c_uint::from(used.driver.machine.is_capturing(used.stream)?))
}

fn info(stream: CuStream, status: Out<c_uint>, id: Out<u64>) -> Outcome {
    is_capturing(stream, status)?;
    let used = resolve(stream)?;
    if !used.driver.machine.is_capturing(used.stream)? {
        id.set_if_wanted(0);
        return Ok(());
    }
    let known = lock(&used.driver.captures).get(&used.stream.id()).copied();
    match known {
        Some(known) => id.set_if_wanted(known),
        None if id.is_null() => {}
        None => {
            return Err(Failure::not_supported(
                "the capture's number of a joined stream",
            ));
        }
    }
    Ok(())
}

fn info_v2(
    stream: CuStream,
    status: Out<c_uint>,
    id: Out<u64>,
    graph: Out<CuGraph>,
    after: Out<*const c_void>,
    count: Out<usize>,
) -> Outcome {
    info_v3(stream, status, id, graph, after, Out::NULL, count)
}

fn info_v3(
    stream: CuStream,
    status: Out<c_uint>,
    id: Out<u64>,
    graph: Out<CuGraph>,
    after: Out<*const c_void>,
    edges: Out<*const c_void>,
    count: Out<usize>,
) -> Outcome {
    info(stream, status, id)?;
    let used = resolve(stream)?;
    let asked = !(graph.is_null() && after.is_null() && edges.is_null() && count.is_null());
    if asked && used.driver.machine.is_capturing(used.stream)? {
        return Err(Failure::not_supported("the graph of a capture under way"));
    }
    graph.set_if_wanted(0);
    after.set_if_wanted(std::ptr::null());
    edges.set_if_wanted(std::ptr::null());
    count.set_if_wanted(0);
    Ok(())
}

fn exchange_mode(mode: Out<c_uint>) -> Outcome {
    driver()?;
    let new = mode.as_in().get()?;
    if new > RELAXED {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    mode.set(MODE.replace(new))
}
