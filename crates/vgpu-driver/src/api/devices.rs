//! Devices: how many, what they are called, how large they are.

use std::ffi::{c_char, c_int, c_uint};

use tollgate_vgpu::machine::THREADS_PER_BLOCK;

use super::attributes::{GRID, attribute};
use crate::abi::{CuDevice, DeviceProperties, Uuid};
use crate::boundary::{Buffer, Out, Text, exports};
use crate::driver::driver;
use crate::failure::{Failure, Outcome, code};

exports! {
    cuDeviceGet(device: Out<CuDevice>, ordinal: c_int) => get;
    cuDeviceGetCount(count: Out<c_int>) => count_devices;
    cuDeviceGetName(name: Buffer, bytes: c_int, device: CuDevice) => get_name;
    cuDeviceGetUuid | cuDeviceGetUuid_v2(uuid: Out<Uuid>, device: CuDevice) => get_uuid;
    cuDeviceGetLuid(luid: Out<c_char>, mask: Out<c_uint>, device: CuDevice) => get_luid;
    cuDeviceTotalMem_v2(bytes: Out<usize>, device: CuDevice) => total_memory;
    cuDeviceGetAttribute(value: Out<c_int>, which: c_uint, device: CuDevice) => get_attribute;
    cuDeviceGetProperties(properties: Out<DeviceProperties>, device: CuDevice) => get_properties;
    cuDeviceComputeCapability(major: Out<c_int>, minor: Out<c_int>, device: CuDevice) => capability;
    cuDeviceGetPCIBusId(text: Buffer, bytes: c_int, device: CuDevice) => pci_bus_id;
    cuDeviceGetByPCIBusId(device: Out<CuDevice>, text: Text) => by_pci_bus_id;
    cuDeviceGetExecAffinitySupport(value: Out<c_int>, kind: c_uint, device: CuDevice) => affinity;
}

fn get(out: Out<CuDevice>, ordinal: c_int) -> Outcome {
    let device = driver()?.device(ordinal)?;
    out.set(device as CuDevice)
}

fn count_devices(count: Out<c_int>) -> Outcome {
    count.set(driver()?.machine.device_count() as c_int)
}

fn get_name(name: Buffer, bytes: c_int, device: CuDevice) -> Outcome {
    let driver = driver()?;
    driver.device(device)?;
    let capacity = usize::try_from(bytes).map_err(|_| Failure::quiet(code::INVALID_VALUE))?;
    let words = format!("Tollgate virtual GPU ({})", driver.machine.arch().name);
    name.set_text(&words, capacity).map(|_| ())
}

fn get_uuid(uuid: Out<Uuid>, device: CuDevice) -> Outcome {
    let device = driver()?.device(device)?;
    let mut bytes = *b"tollgate-vgpu\0\0\0";
    bytes[15] = device as u8;
    uuid.set(Uuid(bytes))
}

fn get_luid(luid: Out<c_char>, mask: Out<c_uint>, device: CuDevice) -> Outcome {
    let device = driver()?.device(device)?;
    luid.set_all((0..8).map(|byte| if byte == 0 { device as c_char } else { 0 }))?;
    mask.set(1)
}

fn total_memory(bytes: Out<usize>, device: CuDevice) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    bytes.set(driver.machine.mem_info(device)?.total as usize)
}

fn get_attribute(value: Out<c_int>, which: c_uint, device: CuDevice) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    let known = attribute(which, device, &driver.machine.arch());
    value.set(known.ok_or(Failure::quiet(code::INVALID_VALUE))?)
}

fn get_properties(properties: Out<DeviceProperties>, device: CuDevice) -> Outcome {
    let driver = driver()?;
    let device = driver.device(device)?;
    let arch = driver.machine.arch();
    let get = |which| attribute(which, device, &arch).unwrap_or(0);
    properties.set(DeviceProperties {
        max_threads_per_block: THREADS_PER_BLOCK as c_int,
        max_threads_dim: [get(2), get(3), get(4)],
        max_grid_size: GRID,
        shared_per_block: get(8),
        constant_memory: get(9),
        warp_size: get(10),
        memory_pitch: get(11),
        registers_per_block: get(12),
        clock_rate: get(13),
        texture_alignment: get(14),
    })
}

fn capability(major: Out<c_int>, minor: Out<c_int>, device: CuDevice) -> Outcome {
    let driver = driver()?;
    driver.device(device)?;
    let capability = driver.machine.arch().capability;
    minor.check()?;
    major.set(capability.0 as c_int)?;
    minor.set(capability.1 as c_int)
}

/// Devices stand one behind the other on a bus that does not exist.
fn bus_id(device: u32) -> String {
    format!("0000:{:02X}:00.0", device + 1)
}

fn pci_bus_id(text: Buffer, bytes: c_int, device: CuDevice) -> Outcome {
    let device = driver()?.device(device)?;
    let capacity = usize::try_from(bytes).map_err(|_| Failure::quiet(code::INVALID_VALUE))?;
    text.set_text(&bus_id(device), capacity).map(|_| ())
}

fn by_pci_bus_id(out: Out<CuDevice>, text: Text) -> Outcome {
    let driver = driver()?;
    let wanted = text.get()?.to_ascii_uppercase();
    let short = |device| bus_id(device)["0000:".len()..].to_owned();
    let found = (0..driver.machine.device_count()).find(|&device| {
        let short = short(device);
        wanted == bus_id(device) || wanted == short || format!("{wanted}.0") == short
    });
    out.set(found.ok_or(Failure::quiet(code::INVALID_DEVICE))? as CuDevice)
}

fn affinity(value: Out<c_int>, _kind: c_uint, device: CuDevice) -> Outcome {
    driver()?.device(device)?;
    value.set(0)
}
