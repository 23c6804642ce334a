//! `tollgate devices`: what `--device` can name on this machine, and why there is no more.

use clap::Args;
use serde::Serialize;
use tollgate::device::nvml::{Readings, Telemetry};
use tollgate::device::{self, Backend, DeviceSpec, Facts, Gpu};

use crate::error::{Failure, Result};
use crate::report::Style;
use crate::report::filled;
use crate::report::table::{Align, Table};

/// `tollgate devices`.
#[derive(Debug, Clone, Args)]
pub struct DevicesArgs {
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Everything that was found. The keys are what programs may rely on.
#[derive(Debug, Default, Serialize)]
struct Devices {
    devices: Vec<Device>,
    /// Why there is no CUDA device.
    no_cuda: Option<String>,
    /// Version of the display driver.
    display_driver: Option<String>,
    /// Why nothing is known of clocks, power and links, where there is a CUDA device.
    no_readings: Option<String>,
    /// Every ordered pair of CUDA devices that NVML tells of.
    peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
struct Device {
    /// What `--device` takes.
    device: String,
    name: String,
    /// Major and minor.
    compute_capability: [u32; 2],
    multiprocessors: u32,
    memory_bytes: u64,
    shared_per_block_bytes: u32,
    l2_bytes: Option<u64>,
    /// CUDA version of the driver: major and minor.
    cuda: Option<[u32; 2]>,
    pci_bus_id: Option<String>,
    /// Why kernels do not run on it.
    unusable: Option<String>,
    now: Option<Now>,
}

/// What NVML tells of a device.
#[derive(Debug, Serialize)]
struct Now {
    sm_mhz: Option<u32>,
    memory_mhz: Option<u32>,
    max_sm_mhz: Option<u32>,
    max_memory_mhz: Option<u32>,
    power_w: Option<f64>,
    power_limit_w: Option<f64>,
    temperature_c: Option<u32>,
    throttle_reasons: Option<Vec<&'static str>>,
    pcie: Option<Pcie>,
    active_nvlinks: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Pcie {
    generation: u32,
    lanes: u32,
    max_generation: u32,
    max_lanes: u32,
}

#[derive(Debug, Serialize)]
struct Peer {
    from: String,
    to: String,
    reads: bool,
    writes: bool,
    nvlink: bool,
}

/// Looks for devices and prints them.
///
/// # Errors
/// A virtual GPU that cannot be made, which is for the library to say.
pub fn run(args: &DevicesArgs, style: Style) -> Result<String> {
    let found = look()?;
    if !args.json {
        return Ok(found.text(style));
    }
    match serde_json::to_string_pretty(&found) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure::Usage(format!("no JSON can be made: {error}"))),
    }
}

fn look() -> Result<Devices> {
    let gpu = Gpu::open(DeviceSpec::Virtual).map_err(tollgate::Error::from)?;
    let mut found = Devices {
        devices: vec![Device::new(DeviceSpec::Virtual, gpu.facts())],
        ..Devices::default()
    };
    let cuda = match device::probe() {
        Ok(cuda) => cuda,
        Err(device::Error::NoDevice { reason, .. }) => {
            found.no_cuda = Some(reason);
            return Ok(found);
        }
        Err(other) => {
            found.no_cuda = Some(other.to_string());
            return Ok(found);
        }
    };
    for cuda in cuda {
        found.devices.push(Device {
            pci_bus_id: cuda.pci_bus_id,
            unusable: cuda.unusable,
            ..Device::new(DeviceSpec::Cuda(cuda.index), &cuda.facts)
        });
    }
    found.read();
    Ok(found)
}

impl Device {
    fn new(spec: DeviceSpec, facts: &Facts) -> Self {
        let (major, minor) = facts.compute_capability;
        Self {
            device: spec.to_string(),
            name: facts.name.clone(),
            compute_capability: [major, minor],
            multiprocessors: facts.num_sms,
            memory_bytes: facts.memory_bytes,
            shared_per_block_bytes: facts.shared_per_block_bytes,
            l2_bytes: (facts.l2_bytes > 0).then_some(facts.l2_bytes),
            cuda: (facts.backend == Backend::Cuda).then_some(facts.driver_version.into()),
            pci_bus_id: None,
            unusable: None,
            now: None,
        }
    }
}

impl From<Readings> for Now {
    fn from(r: Readings) -> Self {
        Self {
            sm_mhz: r.sm_mhz,
            memory_mhz: r.memory_mhz,
            max_sm_mhz: r.max_sm_mhz,
            max_memory_mhz: r.max_memory_mhz,
            power_w: r.power_w,
            power_limit_w: r.power_limit_w,
            temperature_c: r.temperature_c,
            throttle_reasons: r.throttle_reasons,
            pcie: r.pcie.map(|link| Pcie {
                generation: link.generation,
                lanes: link.lanes,
                max_generation: link.max_generation,
                max_lanes: link.max_lanes,
            }),
            active_nvlinks: r.active_nvlinks,
        }
    }
}

impl Devices {
    /// Adds what NVML tells.
    fn read(&mut self) {
        let nvml = match Telemetry::open() {
            Ok(nvml) => nvml,
            Err(reason) => {
                self.no_readings = Some(reason);
                return;
            }
        };
        self.display_driver = nvml.driver();
        for device in &mut self.devices {
            let Some(id) = &device.pci_bus_id else {
                continue;
            };
            match nvml.read(id) {
                Ok(readings) => device.now = Some(readings.into()),
                Err(reason) => self.no_readings = Some(reason),
            }
        }
        let places = self.devices.iter().filter_map(|device| {
            let id = device.pci_bus_id.as_deref()?;
            Some((device.device.as_str(), id))
        });
        let places: Vec<(&str, &str)> = places.collect();
        for &(from, from_id) in &places {
            for &(to, to_id) in places.iter().filter(|(to, _)| *to != from) {
                if let Ok(access) = nvml.peer_access(from_id, to_id) {
                    self.peers.push(Peer {
                        from: from.to_owned(),
                        to: to.to_owned(),
                        reads: access.reads,
                        writes: access.writes,
                        nvlink: access.nvlink,
                    });
                }
            }
        }
    }

    fn text(&self, style: Style) -> String {
        let mut table = Table::new(&[
            ("device", Align::Left),
            ("name", Align::Left),
            ("capability", Align::Right),
            ("SMs", Align::Right),
            ("memory", Align::Right),
            ("shared a block", Align::Right),
            ("L2", Align::Right),
            ("CUDA", Align::Right),
        ]);
        for d in &self.devices {
            let [major, minor] = d.compute_capability;
            table.row([
                d.device.clone(),
                d.name.clone(),
                format!("{major}.{minor}"),
                d.multiprocessors.to_string(),
                bytes(d.memory_bytes),
                bytes(u64::from(d.shared_per_block_bytes)),
                d.l2_bytes.map(bytes).unwrap_or_default(),
                d.cuda
                    .map_or(String::new(), |[major, minor]| format!("{major}.{minor}")),
            ]);
        }
        let driver = self.display_driver.as_ref();
        let driver = driver.map_or(String::new(), |version| format!("display driver {version}"));
        let mut text = style.titled("devices", &driver) + &table.render(style);
        let mut remark =
            |words: &str| text.push_str(&format!("\n{}\n", filled(words, style.width, 0)));
        if let Some(reason) = &self.no_cuda {
            remark(&format!("No CUDA device: {reason}."));
        }
        for d in &self.devices {
            if let Some(reason) = &d.unusable {
                remark(&format!("{} cannot be used: {reason}.", d.device));
            }
        }
        if let Some(reason) = &self.no_readings {
            remark(&format!("No clocks, power and links: {reason}."));
        }
        for d in &self.devices {
            let Some(now) = &d.now else { continue };
            let peers = self.peers.iter().filter(|peer| peer.from == d.device);
            text.push('\n');
            text.push_str(&style.heading(&d.device));
            text.push('\n');
            text.push_str(&now.table(peers).render(style));
        }
        text
    }
}

impl Now {
    /// A line for each thing that is known.
    fn table<'a>(&self, peers: impl Iterator<Item = &'a Peer>) -> Table {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
        let mut line = |title: &str, parts: Vec<Option<String>>| {
            let known: Vec<String> = parts.into_iter().flatten().collect();
            if !known.is_empty() {
                table.row([title.to_owned(), known.join(", ")]);
            }
        };
        let clock = |name: &str, now: Option<u32>, most: Option<u32>| {
            let now = now?;
            let most = most.map_or(String::new(), |most| format!(" of {most}"));
            Some(format!("{name} {now}{most} MHz"))
        };
        line(
            "clocks",
            vec![
                clock("SM", self.sm_mhz, self.max_sm_mhz),
                clock("memory", self.memory_mhz, self.max_memory_mhz),
            ],
        );
        let reasons = self
            .throttle_reasons
            .as_ref()
            .map(|reasons| match reasons.len() {
                0 => "nothing".to_owned(),
                _ => reasons.join("; "),
            });
        line("held down by", vec![reasons]);
        let power = self.power_w.map(|now| {
            let limit = self.power_limit_w;
            let limit = limit.map_or(String::new(), |limit| format!(" of {limit:.0}"));
            format!("{now:.0}{limit} W")
        });
        line("power", vec![power]);
        let temperature = self.temperature_c.map(|degrees| format!("{degrees} °C"));
        line("temperature", vec![temperature]);
        let pcie = self.pcie.as_ref().map(|link| {
            format!(
                "PCIe {} × {} lanes (at most {} × {})",
                link.generation, link.lanes, link.max_generation, link.max_lanes
            )
        });
        let nvlinks = self
            .active_nvlinks
            .map(|count| format!("NVLinks up: {count}"));
        line("links", vec![pcie, nvlinks]);
        for peer in peers {
            let access = match (peer.reads, peer.writes) {
                (true, true) => "reads and writes",
                (true, false) => "reads only",
                (false, true) => "writes only",
                (false, false) => "no access",
            };
            let road = if peer.nvlink { "NVLink" } else { "no NVLink" };
            line(
                &format!("memory of {}", peer.to),
                vec![Some(access.to_owned()), Some(road.to_owned())],
            );
        }
        table
    }
}

/// Bytes in the largest unit that keeps a digit before the point.
fn bytes(count: u64) -> String {
    const UNITS: &[(u32, &str)] = &[(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = UNITS.iter().find(|(shift, _)| count >> shift > 0);
    match unit {
        Some((shift, name)) => {
            let value = count as f64 / (1_u64 << shift) as f64;
            let digits = if value.fract() < 0.05 { 0 } else { 1 };
            format!("{value:.digits$} {name}")
        }
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        let shown = [0, 1023, 227 << 10, 50 << 20, 16 << 30, 150_754_820_096].map(bytes);
        assert_eq!(
            shown,
            ["0 B", "1023 B", "227 KiB", "50 MiB", "16 GiB", "140.4 GiB"]
        );
    }

    fn facts() -> Facts {
        Facts {
            backend: Backend::Cuda,
            name: "Some GPU".to_owned(),
            compute_capability: (7, 5),
            num_sms: 40,
            memory_bytes: 16 << 30,
            shared_per_block_bytes: 64 << 10,
            l2_bytes: 4 << 20,
            driver_version: (12, 4),
        }
    }

    #[test]
    fn all_that_is_known_has_its_line() {
        let now = Now {
            sm_mhz: Some(1700),
            memory_mhz: Some(2600),
            max_sm_mhz: Some(1980),
            max_memory_mhz: None,
            power_w: Some(412.4),
            power_limit_w: Some(700.0),
            temperature_c: Some(40),
            throttle_reasons: Some(vec!["power cap", "thermal, software"]),
            pcie: Some(Pcie {
                generation: 1,
                lanes: 16,
                max_generation: 5,
                max_lanes: 16,
            }),
            active_nvlinks: Some(3),
        };
        let found = Devices {
            devices: vec![Device {
                unusable: Some("it is old".to_owned()),
                now: Some(now),
                ..Device::new(DeviceSpec::Cuda(0), &facts())
            }],
            display_driver: Some("550.1".to_owned()),
            peers: vec![Peer {
                from: "cuda:0".to_owned(),
                to: "cuda:1".to_owned(),
                reads: true,
                writes: true,
                nvlink: false,
            }],
            ..Devices::default()
        };
        let text = found.text(Style::PLAIN);
        for line in [
            "  cuda:0  Some GPU         7.5   40  16 GiB          64 KiB  4 MiB  12.4",
            "cuda:0 cannot be used: it is old.",
            "  clocks            SM 1700 of 1980 MHz, memory 2600 MHz",
            "  held down by      power cap; thermal, software",
            "  power             412 of 700 W",
            "  temperature       40 °C",
            "  links             PCIe 1 × 16 lanes (at most 5 × 16), NVLinks up: 3",
            "  memory of cuda:1  reads and writes, no NVLink",
        ] {
            assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
        }
        assert!(text.starts_with("devices ") && text.contains("display driver 550.1"));
    }

    #[test]
    fn what_is_not_known_has_none() {
        let now = Now::from(Readings::default());
        let found = Devices {
            devices: vec![Device {
                now: Some(now),
                ..Device::new(DeviceSpec::Cuda(0), &facts())
            }],
            no_readings: Some("nobody knows".to_owned()),
            ..Devices::default()
        };
        let text = found.text(Style::PLAIN);
        assert!(text.ends_with("\ncuda:0\n"), "{text}");
        assert!(text.contains("No clocks, power and links: nobody knows."));
    }
}
