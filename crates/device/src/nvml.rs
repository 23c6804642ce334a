//! What NVML tells of a CUDA device while it works: clocks, power, temperature, links.
//!
//! The library is looked for at run time. Its absence is a fact like any other, and so is that of a
//! single value: not every device, driver or container tells all of them.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, P2pCapabilitiesIndex, P2pStatus, TemperatureSensor,
};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// NVLinks of a device at most.
const MOST_LINKS: u32 = 18;

/// NVML, loaded. Open it once and read as often as wanted.
pub struct Telemetry {
    nvml: Nvml,
}

/// What one device is doing at a moment. `None` is what it does not tell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Readings {
    /// Clock of the multiprocessors, in MHz.
    pub sm_mhz: Option<u32>,
    /// Clock of the memory, in MHz.
    pub memory_mhz: Option<u32>,
    /// The highest clock of the multiprocessors, in MHz.
    pub max_sm_mhz: Option<u32>,
    /// The highest clock of the memory, in MHz.
    pub max_memory_mhz: Option<u32>,
    /// Power drawn, in watts.
    pub power_w: Option<f64>,
    /// The limit that is enforced, in watts.
    pub power_limit_w: Option<f64>,
    /// Temperature of the GPU, in °C.
    pub temperature_c: Option<u32>,
    /// Why the clocks are below their highest; empty when nothing holds them.
    pub throttle_reasons: Option<Vec<&'static str>>,
    /// Generation and lanes of the PCIe link as it runs now, and at most.
    pub pcie: Option<PcieLink>,
    /// NVLinks that are up; 0 on a device without them.
    pub active_nvlinks: Option<u32>,
}

/// A PCIe link. Idle devices run theirs slower than they could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcieLink {
    /// Generation now.
    pub generation: u32,
    /// Lanes now.
    pub lanes: u32,
    /// Generation at most.
    pub max_generation: u32,
    /// Lanes at most.
    pub max_lanes: u32,
}

/// Whether one device reaches another's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAccess {
    /// Loads from it.
    pub reads: bool,
    /// Stores to it.
    pub writes: bool,
    /// Over NVLink.
    pub nvlink: bool,
}

/// The reasons, as they are shown.
const REASONS: &[(ThrottleReasons, &str)] = &[
    (ThrottleReasons::GPU_IDLE, "idle"),
    (
        ThrottleReasons::APPLICATIONS_CLOCKS_SETTING,
        "application clocks",
    ),
    (ThrottleReasons::SW_POWER_CAP, "power cap"),
    (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
    (ThrottleReasons::SYNC_BOOST, "sync boost"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal, software"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "thermal, hardware"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power brake"),
    (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display clocks"),
];

impl Telemetry {
    /// Loads NVML.
    ///
    /// # Errors
    /// In words, why it cannot be used.
    pub fn open() -> Result<Self, String> {
        match Nvml::init() {
            Ok(nvml) => Ok(Self { nvml }),
            Err(NvmlError::LibloadingError(error)) => {
                Err(format!("NVML cannot be loaded ({error})"))
            }
            Err(error) => Err(format!("NVML does not start: {error}")),
        }
    }

    /// Version of the display driver, such as `580.82.07`.
    pub fn driver(&self) -> Option<String> {
        self.nvml.sys_driver_version().ok()
    }

    /// Reads a device, by its place on the bus: [`crate::Found::pci_bus_id`].
    ///
    /// # Errors
    /// In words, when NVML does not know the device.
    pub fn read(&self, pci_bus_id: &str) -> Result<Readings, String> {
        let device = self.device(pci_bus_id)?;
        let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
        Ok(Readings {
            sm_mhz: device.clock_info(Clock::SM).ok(),
            memory_mhz: device.clock_info(Clock::Memory).ok(),
            max_sm_mhz: device.max_clock_info(Clock::SM).ok(),
            max_memory_mhz: device.max_clock_info(Clock::Memory).ok(),
            power_w: device.power_usage().ok().map(watts),
            power_limit_w: device.enforced_power_limit().ok().map(watts),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
            throttle_reasons: device.current_throttle_reasons().ok().map(names),
            pcie: pcie(&device).ok(),
            active_nvlinks: active_nvlinks(&device),
        })
    }

    /// Whether `from` reaches the memory of `to`, both by their places on the bus.
    ///
    /// # Errors
    /// In words, when NVML does not know one of them or does not tell.
    pub fn peer_access(&self, from: &str, to: &str) -> Result<PeerAccess, String> {
        let (from, to) = (self.device(from)?, self.device(to)?);
        let is_ok = |which| match from.p2p_status(&to, which) {
            Ok(status) => Ok(status == P2pStatus::Ok),
            Err(error) => Err(error.to_string()),
        };
        Ok(PeerAccess {
            reads: is_ok(P2pCapabilitiesIndex::Read)?,
            writes: is_ok(P2pCapabilitiesIndex::Write)?,
            nvlink: is_ok(P2pCapabilitiesIndex::NvLink)?,
        })
    }

    fn device(&self, pci_bus_id: &str) -> Result<Device<'_>, String> {
        let device = self.nvml.device_by_pci_bus_id(pci_bus_id);
        device.map_err(|error| format!("NVML does not know {pci_bus_id}: {error}"))
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

fn names(reasons: ThrottleReasons) -> Vec<&'static str> {
    let holding = REASONS.iter().filter(|(flag, _)| reasons.contains(*flag));
    holding.map(|&(_, name)| name).collect()
}

fn pcie(device: &Device<'_>) -> Result<PcieLink, NvmlError> {
    Ok(PcieLink {
        generation: device.current_pcie_link_gen()?,
        lanes: device.current_pcie_link_width()?,
        max_generation: device.max_pcie_link_gen()?,
        max_lanes: device.max_pcie_link_width()?,
    })
}

/// Links beyond those that a device has are an invalid argument; a device without any supports
/// none.
fn active_nvlinks(device: &Device<'_>) -> Option<u32> {
    let mut active = 0;
    for link in 0..MOST_LINKS {
        match device.link_wrapper_for(link).is_active() {
            Ok(up) => active += u32::from(up),
            Err(NvmlError::InvalidArg | NvmlError::NotSupported) => {}
            Err(_) => return None,
        }
    }
    Some(active)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_name() {
        assert_eq!(names(ThrottleReasons::NONE), [""; 0]);
        let two = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_SLOWDOWN;
        assert_eq!(names(two), ["power cap", "hardware slowdown"]);
        assert_eq!(names(ThrottleReasons::all()).len(), REASONS.len());
    }
}
