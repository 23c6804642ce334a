//! Launches.

use std::ffi::c_uint;

use tollgate_vgpu::host::LaunchConfig;

use super::event::EventObject;
use super::functions::find;
use crate::abi::{CuFunction, CuLaunchConfig, CuStream, LaunchAttribute};
use crate::boundary::{In, exports};
use crate::failure::{Failure, Outcome, code};
use crate::params::pack;
use crate::stream::resolve;

exports! {
    cuLaunchKernel | cuLaunchKernel_ptsz(function: CuFunction, grid_x: c_uint, grid_y: c_uint,
        grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared: c_uint,
        stream: CuStream, params: In<In<u8>>, extra: In<usize>) => launch;
    cuLaunchCooperativeKernel | cuLaunchCooperativeKernel_ptsz(function: CuFunction,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: CuStream, params: In<In<u8>>)
        => launch_cooperative;
    cuLaunchKernelEx | cuLaunchKernelEx_ptsz(config: In<CuLaunchConfig>, function: CuFunction,
        params: In<In<u8>>, extra: In<usize>) => launch_ex;
}

/// A launch as its attributes describe it.
pub(super) struct Described {
    pub config: LaunchConfig,
    /// Events to be recorded behind it.
    events: Vec<usize>,
}

/// Reads a launch configuration with its attributes.
///
/// Hints change nothing: cache policies, priorities, scheduling preferences, preferred clusters,
/// carve-outs, memory domains. Programmatic and launch-completion events are recorded when the
/// kernel has ended: later than a device may, never earlier.
pub(super) fn describe(config: &CuLaunchConfig) -> Outcome<Described> {
    let mut launch = LaunchConfig::new(config.grid, config.block);
    launch.dynamic_shared = config.shared;
    let mut events = Vec::new();
    for LaunchAttribute { id, value, .. } in config.attributes.list(config.count as usize)? {
        match id {
            0 | 1 | 3 | 5 | 8..=11 | 14 | 16 => {}
            2 => launch.cooperative = value[0] != 0,
            4 => launch.cluster = Some([value[0], value[1], value[2]]),
            6 => launch.programmatic_dependent = value[0] != 0,
            7 | 12 => events.push(value[0] as usize | (value[1] as usize) << 32),
            13 => {
                return Err(Failure::not_supported(
                    "a kernel node that the device updates",
                ));
            }
            other => {
                return Err(Failure::value(format!(
                    "launch attribute {other} is unknown"
                )));
            }
        }
    }
    Ok(Described {
        config: launch,
        events,
    })
}

/// Puts a launch into a stream.
fn enqueue(
    function: CuFunction,
    stream: CuStream,
    launch: &Described,
    params: In<In<u8>>,
    extra: In<usize>,
) -> Outcome {
    let used = resolve(stream)?;
    let driver = used.driver;
    let function = find(driver, function)?;
    if function.function.device() != used.stream.device() {
        return Err(Failure::new(
            code::INVALID_HANDLE,
            format!(
                "kernel `{}` is on device {}, the stream on device {}",
                function.function.name(),
                function.function.device(),
                used.stream.device()
            ),
        ));
    }
    let events = launch
        .events
        .iter()
        .map(|&event| driver.handles.get::<EventObject>(event));
    let events: Vec<_> = events.collect::<Outcome<_>>()?;
    let params = pack(&function.function, params, extra)?;
    driver
        .machine
        .launch(used.stream, &function.function, &launch.config, &params)?;
    for event in events {
        driver.machine.record(event.event, used.stream)?;
    }
    Ok(())
}

fn launch(
    function: CuFunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: CuStream,
    params: In<In<u8>>,
    extra: In<usize>,
) -> Outcome {
    let mut config = LaunchConfig::new([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    config.dynamic_shared = shared;
    enqueue(
        function,
        stream,
        &Described {
            config,
            events: Vec::new(),
        },
        params,
        extra,
    )
}

fn launch_cooperative(
    function: CuFunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: CuStream,
    params: In<In<u8>>,
) -> Outcome {
    let mut config = LaunchConfig::new([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    config.dynamic_shared = shared;
    config.cooperative = true;
    enqueue(
        function,
        stream,
        &Described {
            config,
            events: Vec::new(),
        },
        params,
        In::NULL,
    )
}

fn launch_ex(
    config: In<CuLaunchConfig>,
    function: CuFunction,
    params: In<In<u8>>,
    extra: In<usize>,
) -> Outcome {
    let config = config.get()?;
    enqueue(function, config.stream, &describe(&config)?, params, extra)
}
