//! Peer access between devices.

use std::ffi::{c_int, c_uint};

use tollgate_vgpu::host::Error;

use crate::abi::{CuContext, CuDevice};
use crate::boundary::{Out, exports};
use crate::context::current;
use crate::driver::{Driver, driver};
use crate::failure::{Failure, Outcome, code};

exports! {
    cuDeviceCanAccessPeer(out: Out<c_int>, device: CuDevice, peer: CuDevice) => can_access;
    cuDeviceGetP2PAttribute(out: Out<c_int>, which: c_uint, device: CuDevice, peer: CuDevice)
        => attribute;
    cuCtxEnablePeerAccess(peer: CuContext, flags: c_uint) => enable_access;
    cuCtxDisablePeerAccess(peer: CuContext) => disable_access;
}

/// Lets `device` use the memory of `peer`; it may be so already.
pub(super) fn enable(driver: &Driver, device: u32, peer: u32) -> Outcome {
    match driver.machine.enable_peer(device, peer) {
        Ok(()) | Err(Error::PeerAccess(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn can_access(out: Out<c_int>, device: CuDevice, peer: CuDevice) -> Outcome {
    let driver = driver()?;
    let (device, peer) = (driver.device(device)?, driver.device(peer)?);
    out.set(c_int::from(driver.machine.can_access_peer(device, peer)?))
}

fn attribute(out: Out<c_int>, which: c_uint, device: CuDevice, peer: CuDevice) -> Outcome {
    let driver = driver()?;
    let (device, peer) = (driver.device(device)?, driver.device(peer)?);
    if device == peer {
        return Err(Failure::quiet(code::INVALID_DEVICE));
    }
    let possible = c_int::from(driver.machine.can_access_peer(device, peer)?);
    out.set(match which {
        // All links are alike; access; native atomics.
        1 => 0,
        2 | 3 => possible,
        // Arrays of peers; atomics of which only some are native.
        4 | 5 => 0,
        _ => return Err(Failure::quiet(code::INVALID_VALUE)),
    })
}

fn enable_access(peer: CuContext, flags: c_uint) -> Outcome {
    let (driver, context) = current()?;
    let peer = driver.context(peer)?;
    if flags != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    if peer.device == context.device {
        return Err(Failure::quiet(code::INVALID_CONTEXT));
    }
    match driver.machine.enable_peer(context.device, peer.device) {
        Err(Error::PeerAccess(_)) => Err(Failure::quiet(code::PEER_ACCESS_ALREADY_ENABLED)),
        result => Ok(result?),
    }
}

fn disable_access(peer: CuContext) -> Outcome {
    let (driver, context) = current()?;
    let peer = driver.context(peer)?;
    match driver.machine.disable_peer(context.device, peer.device) {
        Err(Error::PeerAccess(_)) => Err(Failure::quiet(code::PEER_ACCESS_NOT_ENABLED)),
        result => Ok(result?),
    }
}
