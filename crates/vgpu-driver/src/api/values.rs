//! Waits for and writes of values in memory, as work of a stream.

use std::ffi::c_uint;

use tollgate_vgpu::host::{Bits, Until};

use crate::abi::{CuDevicePtr, CuStream, MemoryOperation};
use crate::boundary::{In, exports};
use crate::failure::{Failure, Outcome, code};
use crate::stream::resolve;

exports! {
    cuStreamWaitValue32 | cuStreamWaitValue32_ptsz | cuStreamWaitValue32_v2
        | cuStreamWaitValue32_v2_ptsz(stream: CuStream, address: CuDevicePtr, value: u32,
        flags: c_uint) => wait_32;
    cuStreamWaitValue64 | cuStreamWaitValue64_ptsz | cuStreamWaitValue64_v2
        | cuStreamWaitValue64_v2_ptsz(stream: CuStream, address: CuDevicePtr, value: u64,
        flags: c_uint) => wait_64;
    cuStreamWriteValue32 | cuStreamWriteValue32_ptsz | cuStreamWriteValue32_v2
        | cuStreamWriteValue32_v2_ptsz(stream: CuStream, address: CuDevicePtr, value: u32,
        flags: c_uint) => write_32;
    cuStreamWriteValue64 | cuStreamWriteValue64_ptsz | cuStreamWriteValue64_v2
        | cuStreamWriteValue64_v2_ptsz(stream: CuStream, address: CuDevicePtr, value: u64,
        flags: c_uint) => write_64;
    cuStreamBatchMemOp | cuStreamBatchMemOp_ptsz | cuStreamBatchMemOp_v2
        | cuStreamBatchMemOp_v2_ptsz(stream: CuStream, count: c_uint,
        operations: In<MemoryOperation>, flags: c_uint) => batch;
}

/// `CU_STREAM_WAIT_VALUE_FLUSH`: writes of other devices are visible here at once anyway.
const FLUSH: c_uint = 1 << 30;
/// Operations of a batch at most.
const MOST: c_uint = 256;

fn wait_32(stream: CuStream, address: CuDevicePtr, value: u32, flags: c_uint) -> Outcome {
    wait(stream, address, value.into(), Bits::W32, flags)
}

fn wait_64(stream: CuStream, address: CuDevicePtr, value: u64, flags: c_uint) -> Outcome {
    wait(stream, address, value, Bits::W64, flags)
}

fn write_32(stream: CuStream, address: CuDevicePtr, value: u32, flags: c_uint) -> Outcome {
    write(stream, address, value.into(), Bits::W32, flags)
}

fn write_64(stream: CuStream, address: CuDevicePtr, value: u64, flags: c_uint) -> Outcome {
    write(stream, address, value, Bits::W64, flags)
}

fn until(flags: c_uint) -> Outcome<Until> {
    Ok(match flags & !FLUSH {
        0 => Until::GreaterOrEqual,
        1 => Until::Equal,
        2 => Until::AnyBit,
        3 => Until::NoneOr,
        _ => return Err(Failure::value(format!("wait flags {flags:#x} are unknown"))),
    })
}

fn wait(stream: CuStream, address: u64, value: u64, bits: Bits, flags: c_uint) -> Outcome {
    let used = resolve(stream)?;
    let until = until(flags)?;
    Ok(used
        .driver
        .machine
        .wait_value(used.stream, address, value, bits, until)?)
}

fn write(stream: CuStream, address: u64, value: u64, bits: Bits, flags: c_uint) -> Outcome {
    let used = resolve(stream)?;
    // Bit 0: without the memory barrier before it. Having the barrier is always right.
    if flags > 1 {
        return Err(Failure::value(format!(
            "write flags {flags:#x} are unknown"
        )));
    }
    Ok(used
        .driver
        .machine
        .write_value(used.stream, address, value, bits)?)
}

fn batch(
    stream: CuStream,
    count: c_uint,
    operations: In<MemoryOperation>,
    flags: c_uint,
) -> Outcome {
    resolve(stream)?;
    if count > MOST || flags != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    let operations = operations.list(count as usize)?;
    // All are looked at before the first is put into the stream.
    for operation in &operations {
        match operation.operation {
            1 | 4 => {
                until(operation.flags)?;
            }
            2 | 5 => {}
            // The flush of remote writes, and the barrier: order is kept anyway.
            3 | 6 => {}
            other => {
                return Err(Failure::value(format!(
                    "memory operation {other} is unknown"
                )));
            }
        }
    }
    for MemoryOperation {
        operation,
        address,
        value,
        flags,
        ..
    } in operations
    {
        match operation {
            1 => wait_32(stream, address, value as u32, flags)?,
            4 => wait_64(stream, address, value, flags)?,
            2 => write_32(stream, address, value as u32, flags)?,
            5 => write_64(stream, address, value, flags)?,
            _ => {}
        }
    }
    Ok(())
}
