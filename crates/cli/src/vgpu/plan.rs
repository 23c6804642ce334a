//! What a command line asks for, checked as far as that is possible before anything runs.

use std::collections::BTreeMap;

use tollgate_vgpu::host::{Config, MAX_DEVICES};
use tollgate_vgpu::machine::Checks;

use super::arg::Arg;
use super::args::RunArgs;
use super::buffer::{Buffer, Contents};
use super::groups::Group;
use crate::error::{Failure, Result};

/// Warp instructions of a launch at most, where the command line does not say: about a minute.
const BUDGET: u64 = 1 << 30;

/// A buffer with its place.
#[derive(Debug)]
pub struct Placed {
    /// As it is defined.
    pub buffer: Buffer,
    /// Where it lives.
    pub device: u32,
    /// What is in it at first.
    pub contents: Contents,
}

/// Launches and buffers.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The text of the PTX file.
    pub text: &'a str,
    /// The launches, in order.
    pub groups: &'a [Group],
    /// The buffers, in the order of their definitions.
    pub buffers: Vec<Placed>,
    /// The machine; its seed is set for each run.
    pub config: Config,
}

impl<'a> Plan<'a> {
    /// Makes the plan of a command line and its PTX.
    ///
    /// # Errors
    /// Buffers that are defined twice or not at all; devices that do not exist; files that cannot be
    /// read.
    pub fn new(args: &'a RunArgs, text: &'a str) -> Result<Self> {
        let groups = &args.launches.0[..];
        let buffers = buffers(args)?;
        let named = groups.iter().map(|group| group.device);
        let named = named.chain(buffers.iter().map(|placed| placed.device));
        let needed = named.max().unwrap_or(0).saturating_add(1);
        let devices = args.devices.unwrap_or(needed);
        if !(1..=MAX_DEVICES).contains(&devices) || devices < needed {
            return Err(Failure::Usage(match devices < needed && devices > 0 {
                true => format!(
                    "device {} is named, but --devices {devices} makes {devices}",
                    needed - 1
                ),
                false => format!("--devices is {devices}, must be in 1..={MAX_DEVICES}"),
            }));
        }
        let plan = Self {
            text,
            groups,
            buffers,
            config: config(args, devices),
        };
        plan.check_names(args)?;
        Ok(plan)
    }

    /// The buffer with a name.
    ///
    /// # Errors
    /// There is none; tells the names there are.
    pub fn find(&self, name: &str) -> std::result::Result<usize, String> {
        let mut names = self.buffers.iter().map(|placed| &*placed.buffer.name);
        names.position(|known| known == name).ok_or_else(|| {
            let names: Vec<&str> = self.buffers.iter().map(|p| &*p.buffer.name).collect();
            let known = match names.is_empty() {
                true => "none are".to_owned(),
                false => names.join(", "),
            };
            format!(
                "no buffer is named '{name}'; defined: {known}; --arg buf:{name}=FILL or --buffer \
                 {name}=FILL defines it"
            )
        })
    }

    fn check_names(&self, args: &RunArgs) -> Result<()> {
        let mut names: Vec<&str> = Vec::new();
        for group in self.groups {
            names.extend(group.args.iter().flat_map(Arg::pointers).map(|p| &*p.name));
        }
        for placed in &self.buffers {
            if let Contents::Pointers(pointers) = &placed.contents {
                names.extend(pointers.iter().map(|pointer| &*pointer.name));
            }
        }
        names.extend(args.outputs.iter().map(|(name, _)| &**name));
        names.extend(args.prints.iter().map(|(name, _)| &**name));
        for name in names {
            self.find(name).map_err(Failure::Usage)?;
        }
        Ok(())
    }
}

fn config(args: &RunArgs, devices: u32) -> Config {
    let usual = Config::default();
    Config {
        devices,
        arch: args.arch,
        checks: args.check.unwrap_or_default(),
        threads: args
            .threads
            .map_or(usual.threads, |threads| threads as usize),
        budget: args.budget.unwrap_or(BUDGET),
        trace: args.trace,
        ..usual
    }
}

fn buffers(args: &RunArgs) -> Result<Vec<Placed>> {
    let of_launches = args.launches.0.iter().flat_map(|group| {
        let buffers = group.args.iter().filter_map(|arg| match arg {
            Arg::Buffer(buffer) => Some(buffer),
            _ => None,
        });
        buffers.map(|buffer| (buffer, group.device))
    });
    let others = args.buffers.iter().map(|buffer| (buffer, 0));
    let mut all = Vec::new();
    let mut seen = BTreeMap::new();
    for (buffer, device) in of_launches.chain(others) {
        if seen.insert(&*buffer.name, ()).is_some() {
            return Err(Failure::Usage(format!(
                "buffer '{0}' is defined twice; buf:{0} without a fill names it again",
                buffer.name
            )));
        }
        all.push(Placed {
            buffer: buffer.clone(),
            device: buffer.device.unwrap_or(device),
            contents: buffer.contents()?,
        });
    }
    Ok(all)
}

/// The names of the checks that are on.
pub fn check_names(checks: Checks) -> Vec<&'static str> {
    let all = [
        (checks.memory_init, "memory-init"),
        (checks.registers, "registers"),
        (checks.races, "races"),
        (checks.barriers, "barriers"),
        (checks.leaks, "leaks"),
    ];
    all.into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| name)
        .collect()
}
