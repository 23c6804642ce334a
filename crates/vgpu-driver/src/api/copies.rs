//! Copies. Addresses are unified, so one function serves all directions: what matters is whether
//! the machine knows the memory on either side, or whether it is pageable memory of the program.
//!
//! A copy from pageable memory takes its bytes at once, a copy to it waits: the driver's
//! documentation allows both for the asynchronous calls, and programs may rely on neither.

use tollgate_vgpu::host::{Shape3d, Source, Target};
use tollgate_vgpu::memory::DEVICE_BASE;

use crate::abi::{Copy2d, Copy3d, CuContext, CuDevicePtr, CuStream, Side2d, Side3d, memory_type};
use crate::boundary::{Buffer, In, exports};
use crate::driver::Driver;
use crate::failure::{Failure, Outcome};
use crate::stream::{Resolved, resolve};

exports! {
    cuMemcpy | cuMemcpy_ptds(to: CuDevicePtr, from: CuDevicePtr, bytes: usize) => copy;
    cuMemcpyHtoD_v2 | cuMemcpyHtoD_v2_ptds(to: CuDevicePtr, from: CuDevicePtr, bytes: usize)
        => copy;
    cuMemcpyDtoH_v2 | cuMemcpyDtoH_v2_ptds(to: CuDevicePtr, from: CuDevicePtr, bytes: usize)
        => copy;
    cuMemcpyDtoD_v2 | cuMemcpyDtoD_v2_ptds(to: CuDevicePtr, from: CuDevicePtr, bytes: usize)
        => copy;
    cuMemcpyPeer | cuMemcpyPeer_ptds(to: CuDevicePtr, to_context: CuContext, from: CuDevicePtr,
        from_context: CuContext, bytes: usize) => copy_peer;
    cuMemcpyAsync | cuMemcpyAsync_ptsz(to: CuDevicePtr, from: CuDevicePtr, bytes: usize,
        stream: CuStream) => copy_async;
    cuMemcpyHtoDAsync_v2 | cuMemcpyHtoDAsync_v2_ptsz(to: CuDevicePtr, from: CuDevicePtr,
        bytes: usize, stream: CuStream) => copy_async;
    cuMemcpyDtoHAsync_v2 | cuMemcpyDtoHAsync_v2_ptsz(to: CuDevicePtr, from: CuDevicePtr,
        bytes: usize, stream: CuStream) => copy_async;
    cuMemcpyDtoDAsync_v2 | cuMemcpyDtoDAsync_v2_ptsz(to: CuDevicePtr, from: CuDevicePtr,
        bytes: usize, stream: CuStream) => copy_async;
    cuMemcpyPeerAsync | cuMemcpyPeerAsync_ptsz(to: CuDevicePtr, to_context: CuContext,
        from: CuDevicePtr, from_context: CuContext, bytes: usize, stream: CuStream)
        => copy_peer_async;
    cuMemcpy2D_v2 | cuMemcpy2D_v2_ptds | cuMemcpy2DUnaligned_v2 | cuMemcpy2DUnaligned_v2_ptds
        (copy: In<Copy2d>) => copy_2d;
    cuMemcpy2DAsync_v2 | cuMemcpy2DAsync_v2_ptsz(copy: In<Copy2d>, stream: CuStream)
        => copy_2d_async;
    cuMemcpy3D_v2 | cuMemcpy3D_v2_ptds(copy: In<Copy3d>) => copy_3d;
    cuMemcpy3DPeer | cuMemcpy3DPeer_ptds(copy: In<Copy3d>) => copy_3d;
    cuMemcpy3DAsync_v2 | cuMemcpy3DAsync_v2_ptsz(copy: In<Copy3d>, stream: CuStream)
        => copy_3d_async;
    cuMemcpy3DPeerAsync | cuMemcpy3DPeerAsync_ptsz(copy: In<Copy3d>, stream: CuStream)
        => copy_3d_async;
}

/// Whether the machine knows the memory at `address`, or must be asked why it does not: what lies
/// in the devices' part of the address space is never pageable memory.
fn is_known(driver: &Driver, address: u64) -> bool {
    let devices = u64::from(driver.machine.device_count());
    let window = DEVICE_BASE..DEVICE_BASE * (devices + 1);
    window.contains(&address) || driver.machine.range_of(address).is_ok()
}

/// Puts a copy into a stream. Waits for it where pageable memory is written.
fn enqueue(used: &Resolved, to: u64, from: u64, bytes: usize) -> Outcome {
    let (driver, stream) = (used.driver, used.stream);
    if bytes == 0 {
        return Ok(());
    }
    match (is_known(driver, to), is_known(driver, from)) {
        (true, true) => driver.machine.copy_async(stream, to, from, bytes as u64)?,
        (true, false) => {
            let from = Buffer::from_address(from).read(bytes)?;
            driver.machine.write_async(stream, to, from)?;
        }
        (false, true) => {
            let to = Buffer::from_address(to).write(bytes)?;
            driver.machine.read_on(stream, from, to)?;
            driver.verdict(stream.device())?;
        }
        (false, false) => {
            driver.machine.synchronize(stream)?;
            move_bytes(to, from, bytes)?;
        }
    }
    Ok(())
}

/// Copies between two places of the program's memory, which may overlap.
fn move_bytes(to: u64, from: u64, bytes: usize) -> Outcome {
    let copy = Buffer::from_address(from).read(bytes)?.to_vec();
    Buffer::from_address(to)
        .write(bytes)?
        .copy_from_slice(&copy);
    Ok(())
}

fn copy(to: CuDevicePtr, from: CuDevicePtr, bytes: usize) -> Outcome {
    let used = resolve(0)?;
    enqueue(&used, to, from, bytes)?;
    used.synchronize()
}

fn copy_async(to: CuDevicePtr, from: CuDevicePtr, bytes: usize, stream: CuStream) -> Outcome {
    enqueue(&resolve(stream)?, to, from, bytes)
}

fn copy_peer(
    to: CuDevicePtr,
    to_context: CuContext,
    from: CuDevicePtr,
    from_context: CuContext,
    bytes: usize,
) -> Outcome {
    let used = resolve(0)?;
    // Behind the work of both sides, as documented.
    for context in [to_context, from_context] {
        let device = used.driver.context(context)?.device;
        used.driver.machine.synchronize_device(device)?;
    }
    enqueue(&used, to, from, bytes)?;
    used.synchronize()
}

fn copy_peer_async(
    to: CuDevicePtr,
    to_context: CuContext,
    from: CuDevicePtr,
    from_context: CuContext,
    bytes: usize,
    stream: CuStream,
) -> Outcome {
    let used = resolve(stream)?;
    used.driver.context(to_context)?;
    used.driver.context(from_context)?;
    enqueue(&used, to, from, bytes)
}

/// A copy of rows and slices with plain start addresses.
pub(super) struct Plain {
    pub to: u64,
    pub from: u64,
    pub shape: Shape3d,
}

/// Start, pitch and rows of a slice of one side.
fn side(side: &Side3d, width: u64, height: u64) -> Outcome<(u64, u64, u64)> {
    let base = match side.memory_type {
        memory_type::HOST => side.host,
        memory_type::DEVICE | memory_type::UNIFIED => side.device,
        memory_type::ARRAY => return Err(Failure::not_supported("a CUDA array")),
        other => return Err(Failure::value(format!("memory type {other} is unknown"))),
    };
    if side.lod != 0 {
        return Err(Failure::value(format!(
            "level of detail {} of plain memory",
            side.lod
        )));
    }
    // Zero means dense.
    let pitch = if side.pitch == 0 {
        width
    } else {
        side.pitch as u64
    };
    let rows = if side.height == 0 {
        height
    } else {
        side.height as u64
    };
    if pitch < width || rows < height {
        return Err(Failure::value(format!(
            "rows of {width} bytes and slices of {height} rows do not fit a pitch of {pitch} bytes \
             and a height of {rows} rows"
        )));
    }
    let (x, y, z) = (side.x as u64, side.y as u64, side.z as u64);
    let start = || {
        let row = z.checked_mul(rows)?.checked_add(y)?;
        row.checked_mul(pitch)?.checked_add(x)?.checked_add(base)
    };
    let start = start().ok_or_else(|| Failure::value("the copy begins beyond all addresses"))?;
    Ok((start, pitch, rows))
}

/// The copy with plain addresses.
pub(super) fn plain(copy: &Copy3d) -> Outcome<Plain> {
    let (width, rows, slices) = (copy.width as u64, copy.height as u64, copy.depth as u64);
    let (to, dst_pitch, dst_slice_rows) = side(&copy.dst, width, rows)?;
    let (from, src_pitch, src_slice_rows) = side(&copy.src, width, rows)?;
    let shape = Shape3d {
        width,
        rows,
        slices,
        dst_pitch,
        dst_slice_rows,
        src_pitch,
        src_slice_rows,
    };
    Ok(Plain { to, from, shape })
}

/// The same copy as one of a single slice.
fn deep(copy: Copy2d) -> Copy3d {
    let side = |side: Side2d| Side3d {
        x: side.x,
        y: side.y,
        z: 0,
        lod: 0,
        memory_type: side.memory_type,
        host: side.host,
        device: side.device,
        array: side.array,
        context: 0,
        pitch: side.pitch,
        height: 0,
    };
    Copy3d {
        src: side(copy.src),
        dst: side(copy.dst),
        width: copy.width,
        height: copy.height,
        depth: 1,
    }
}

/// Bytes from the first to the last of rows that lie `pitch` apart.
fn extent(shape: &Shape3d, pitch: u64, slice_rows: u64) -> Outcome<usize> {
    let bytes = || {
        let rows = (shape.slices - 1)
            .checked_mul(slice_rows)?
            .checked_add(shape.rows - 1)?;
        usize::try_from(rows.checked_mul(pitch)?.checked_add(shape.width)?).ok()
    };
    bytes().ok_or_else(|| Failure::value("the copy is larger than all addresses"))
}

/// Puts a copy of rows into a stream. Waits for it where pageable memory takes part.
fn enqueue_rows(used: &Resolved, copy: &Copy3d) -> Outcome {
    let Plain { to, from, shape } = plain(copy)?;
    if shape.width == 0 || shape.rows == 0 || shape.slices == 0 {
        return Ok(());
    }
    let (driver, stream) = (used.driver, used.stream);
    let to_bytes = extent(&shape, shape.dst_pitch, shape.dst_slice_rows)?;
    let from_bytes = extent(&shape, shape.src_pitch, shape.src_slice_rows)?;
    match (is_known(driver, to), is_known(driver, from)) {
        (true, true) => driver.machine.copy_3d_async(stream, to, from, &shape)?,
        (true, false) => {
            let source = Source::Slice(Buffer::from_address(from).read(from_bytes)?);
            driver
                .machine
                .copy_3d(stream, Target::Memory(to), source, &shape)?;
        }
        (false, true) => {
            let target = Target::Slice(Buffer::from_address(to).write(to_bytes)?);
            driver
                .machine
                .copy_3d(stream, target, Source::Memory(from), &shape)?;
            driver.verdict(stream.device())?;
        }
        (false, false) => {
            driver.machine.synchronize(stream)?;
            for slice in 0..shape.slices {
                for row in 0..shape.rows {
                    let at = |pitch, slice_rows| (slice * slice_rows + row) * pitch;
                    move_bytes(
                        to + at(shape.dst_pitch, shape.dst_slice_rows),
                        from + at(shape.src_pitch, shape.src_slice_rows),
                        shape.width as usize,
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn copy_2d(copy: In<Copy2d>) -> Outcome {
    let used = resolve(0)?;
    enqueue_rows(&used, &deep(copy.get()?))?;
    used.synchronize()
}

fn copy_2d_async(copy: In<Copy2d>, stream: CuStream) -> Outcome {
    enqueue_rows(&resolve(stream)?, &deep(copy.get()?))
}

fn copy_3d(copy: In<Copy3d>) -> Outcome {
    let used = resolve(0)?;
    enqueue_rows(&used, &copy.get()?)?;
    used.synchronize()
}

fn copy_3d_async(copy: In<Copy3d>, stream: CuStream) -> Outcome {
    enqueue_rows(&resolve(stream)?, &copy.get()?)
}
