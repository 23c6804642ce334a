//! Memory set to a value.

use tollgate_vgpu::host::Fill;

use crate::abi::{CuDevicePtr, CuStream};
use crate::boundary::exports;
use crate::failure::{Failure, Outcome};
use crate::stream::resolve;

exports! {
    cuMemsetD8_v2 | cuMemsetD8_v2_ptds(to: CuDevicePtr, value: u8, count: usize) => d8;
    cuMemsetD16_v2 | cuMemsetD16_v2_ptds(to: CuDevicePtr, value: u16, count: usize) => d16;
    cuMemsetD32_v2 | cuMemsetD32_v2_ptds(to: CuDevicePtr, value: u32, count: usize) => d32;
    cuMemsetD2D8_v2 | cuMemsetD2D8_v2_ptds(to: CuDevicePtr, pitch: usize, value: u8, width: usize,
        height: usize) => d2_d8;
    cuMemsetD2D16_v2 | cuMemsetD2D16_v2_ptds(to: CuDevicePtr, pitch: usize, value: u16,
        width: usize, height: usize) => d2_d16;
    cuMemsetD2D32_v2 | cuMemsetD2D32_v2_ptds(to: CuDevicePtr, pitch: usize, value: u32,
        width: usize, height: usize) => d2_d32;
    cuMemsetD8Async | cuMemsetD8Async_ptsz(to: CuDevicePtr, value: u8, count: usize,
        stream: CuStream) => d8_async;
    cuMemsetD16Async | cuMemsetD16Async_ptsz(to: CuDevicePtr, value: u16, count: usize,
        stream: CuStream) => d16_async;
    cuMemsetD32Async | cuMemsetD32Async_ptsz(to: CuDevicePtr, value: u32, count: usize,
        stream: CuStream) => d32_async;
    cuMemsetD2D8Async | cuMemsetD2D8Async_ptsz(to: CuDevicePtr, pitch: usize, value: u8,
        width: usize, height: usize, stream: CuStream) => d2_d8_async;
    cuMemsetD2D16Async | cuMemsetD2D16Async_ptsz(to: CuDevicePtr, pitch: usize, value: u16,
        width: usize, height: usize, stream: CuStream) => d2_d16_async;
    cuMemsetD2D32Async | cuMemsetD2D32Async_ptsz(to: CuDevicePtr, pitch: usize, value: u32,
        width: usize, height: usize, stream: CuStream) => d2_d32_async;
}

/// Puts a fill into a stream.
fn fill(stream: CuStream, fill: Fill) -> Outcome {
    let used = resolve(stream)?;
    if fill.width == 0 || fill.rows == 0 {
        return Ok(());
    }
    Ok(used.driver.machine.fill_2d_async(used.stream, &fill)?)
}

/// The fill of a row, or of rows that lie `pitch` bytes apart.
fn shape<T>(to: u64, pitch: usize, value: u32, width: usize, rows: usize) -> Fill {
    let element_bytes = size_of::<T>() as u32;
    Fill {
        ptr: to,
        pitch: pitch as u64,
        width: width as u64,
        rows: rows as u64,
        value,
        element_bytes,
    }
}

/// A row of `count` elements; its pitch is its length.
fn row<T>(to: u64, value: u32, count: usize) -> Outcome<Fill> {
    let pitch = count
        .checked_mul(size_of::<T>())
        .ok_or_else(|| Failure::value(format!("{count} elements are more than there can be")))?;
    Ok(shape::<T>(to, pitch, value, count, 1))
}

/// Puts a fill into the default stream and waits for it.
fn fill_now(what: Fill) -> Outcome {
    fill(0, what)?;
    resolve(0)?.synchronize()
}

fn d8(to: u64, value: u8, count: usize) -> Outcome {
    fill_now(row::<u8>(to, value.into(), count)?)
}

fn d16(to: u64, value: u16, count: usize) -> Outcome {
    fill_now(row::<u16>(to, value.into(), count)?)
}

fn d32(to: u64, value: u32, count: usize) -> Outcome {
    fill_now(row::<u32>(to, value, count)?)
}

fn d2_d8(to: u64, pitch: usize, value: u8, width: usize, height: usize) -> Outcome {
    fill_now(shape::<u8>(to, pitch, value.into(), width, height))
}

fn d2_d16(to: u64, pitch: usize, value: u16, width: usize, height: usize) -> Outcome {
    fill_now(shape::<u16>(to, pitch, value.into(), width, height))
}

fn d2_d32(to: u64, pitch: usize, value: u32, width: usize, height: usize) -> Outcome {
    fill_now(shape::<u32>(to, pitch, value, width, height))
}

fn d8_async(to: u64, value: u8, count: usize, stream: CuStream) -> Outcome {
    fill(stream, row::<u8>(to, value.into(), count)?)
}

fn d16_async(to: u64, value: u16, count: usize, stream: CuStream) -> Outcome {
    fill(stream, row::<u16>(to, value.into(), count)?)
}

fn d32_async(to: u64, value: u32, count: usize, stream: CuStream) -> Outcome {
    fill(stream, row::<u32>(to, value, count)?)
}

fn d2_d8_async(
    to: u64,
    pitch: usize,
    value: u8,
    width: usize,
    height: usize,
    stream: CuStream,
) -> Outcome {
    fill(stream, shape::<u8>(to, pitch, value.into(), width, height))
}

fn d2_d16_async(
    to: u64,
    pitch: usize,
    value: u16,
    width: usize,
    height: usize,
    stream: CuStream,
) -> Outcome {
    fill(stream, shape::<u16>(to, pitch, value.into(), width, height))
}

fn d2_d32_async(
    to: u64,
    pitch: usize,
    value: u32,
    width: usize,
    height: usize,
    stream: CuStream,
) -> Outcome {
    fill(stream, shape::<u32>(to, pitch, value, width, height))
}
