//! What is known about an address.

use std::ffi::{c_int, c_uint, c_void};

use tollgate_vgpu::host::Range;
use tollgate_vgpu::memory::Owner;

use crate::abi::{CuDevicePtr, memory_type};
use crate::boundary::{In, Out, exports};
use crate::driver::{Driver, Origin, Piece, driver};
use crate::failure::{Failure, Outcome, code};

exports! {
    cuPointerGetAttribute(data: Out<c_void>, which: c_uint, address: CuDevicePtr) => get_one;
    cuPointerGetAttributes(count: c_uint, which: In<c_uint>, data: In<Out<c_void>>,
        address: CuDevicePtr) => get_several;
    cuPointerSetAttribute(value: In<c_void>, which: c_uint, address: CuDevicePtr) => set_one;
}

/// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`.
const SYNC_MEMOPS: c_uint = 6;

/// Stores attribute `which` of an address in memory that the machine knows.
fn store(
    driver: &Driver,
    data: Out<c_void>,
    which: c_uint,
    address: u64,
    range: Range,
    piece: Option<Piece>,
) -> Outcome {
    let on_host = range.owner == Owner::Host;
    let device = match range.owner {
        Owner::Device(device) | Owner::Module(device) => device,
        Owner::Host => piece.map_or(0, |piece| piece.device),
    };
    let managed = piece.is_some_and(|piece| piece.origin == Origin::Managed);
    match which {
        1 => data.cast().set(match piece {
            Some(piece) => piece.context_handle,
            None => driver.primary(device).handle(),
        }),
        2 => data.cast().set(if on_host && !managed {
            memory_type::HOST
        } else {
            memory_type::DEVICE
        }),
        3 => data.cast().set(address),
        4 if on_host => data.cast().set(address),
        4 => Err(Failure::quiet(code::INVALID_VALUE)),
        SYNC_MEMOPS => data.cast().set(0_u32),
        7 => data.cast().set(piece.map_or(range.base, |piece| piece.id)),
        8 => data.cast().set(u8::from(managed)),
        9 => data.cast().set(device as c_int),
        // Capabilities that nothing here has: IPC, handles of the system, RDMA, decompression.
        10 | 14 | 15 | 21 => data.cast().set(0_u8),
        11 => data.cast().set(range.base),
        12 => data.cast().set(range.bytes as usize),
        13 => data.cast().set(1_u8),
        // Access flags: read and write.
        16 => data.cast().set(3_u32),
        17 => data.cast().set(match piece.map(|piece| piece.origin) {
            Some(Origin::Pool(pool)) => pool,
            _ => 0,
        }),
        5 | 18..=20 => Err(Failure::not_supported("this attribute of pointers")),
        _ => Err(Failure::quiet(code::INVALID_VALUE)),
    }
}

fn get_one(data: Out<c_void>, which: c_uint, address: CuDevicePtr) -> Outcome {
    let driver = driver()?;
    data.check()?;
    // Programs ask about any pointer to learn whether CUDA knows it: no words then.
    let range = driver.machine.range_of(address);
    let range = range.map_err(|_| Failure::quiet(code::INVALID_VALUE))?;
    let piece = driver.piece(address).map(|(_, piece)| piece);
    store(driver, data, which, address, range, piece)
}

/// Answers nothing, as zeros, about pointers that nobody knows.
fn get_several(
    count: c_uint,
    which: In<c_uint>,
    data: In<Out<c_void>>,
    address: CuDevicePtr,
) -> Outcome {
    let driver = driver()?;
    let count = count as usize;
    let which = which.list(count)?;
    let data = data.list(count)?;
    let range = driver.machine.range_of(address).ok();
    let piece = driver.piece(address).map(|(_, piece)| piece);
    for (which, data) in which.into_iter().zip(data) {
        let stored = match range {
            Some(range) => store(driver, data, which, address, range, piece),
            None => Err(Failure::quiet(code::INVALID_VALUE)),
        };
        if stored.is_err() {
            match which {
                9 => data.cast().set(-2_i32)?,
                2 | SYNC_MEMOPS | 14 | 16 => data.cast().set(0_u32)?,
                1 | 3 | 4 | 7 | 11 | 12 | 17 => data.cast().set(0_u64)?,
                8 | 10 | 13 | 15 | 21 => data.cast().set(0_u8)?,
                _ => return stored,
            }
        }
    }
    Ok(())
}

fn set_one(value: In<c_void>, which: c_uint, address: CuDevicePtr) -> Outcome {
    let driver = driver()?;
    let _on: c_uint = value.cast().get()?;
    let known = driver.machine.range_of(address).is_ok();
    // Copies to and from the memory are ordered with the host anyway.
    if which != SYNC_MEMOPS || !known {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    Ok(())
}
