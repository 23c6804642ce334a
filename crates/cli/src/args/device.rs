//! On what a layer runs.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use tollgate::device::DeviceSpec;

use crate::error::{Failure, Result};

/// The CPU, or a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `cpu`.
    Cpu,
    /// `virtual`, `cuda` or `cuda:I`.
    Gpu(DeviceSpec),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.pad("cpu"),
            Self::Gpu(spec) => spec.fmt(f),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            // A number that is none is named by the device's own error.
            _ if text.starts_with("cuda:") => text.parse().map(Self::Gpu),
            _ => text
                .parse()
                .map(Self::Gpu)
                .map_err(|_| "expected cpu, virtual, cuda or cuda:I".to_owned()),
        }
    }
}

/// On what a layer runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Execution")]
pub struct DeviceArgs {
    /// Where the layer runs: cpu; virtual, a GPU that runs the kernels on the CPU and counts what
    /// they do; cuda or cuda:I, a CUDA device.
    #[arg(long, value_name = "DEVICE", default_value_t = Place::Cpu)]
    pub device: Place,
    /// With --device virtual: also check every kernel for races, uninitialised reads and barriers,
    /// on one thread. What is found is reported, and the exit code is 3.
    #[arg(long)]
    pub checks: bool,
}

impl DeviceArgs {
    /// Refuses checks where there are none.
    ///
    /// # Errors
    /// `--checks` without the virtual GPU.
    pub fn validate(&self) -> Result<()> {
        match self.device {
            Place::Gpu(DeviceSpec::Virtual) => Ok(()),
            _ if !self.checks => Ok(()),
            other => Err(Failure::Usage(format!(
                "--checks are those of the virtual GPU, but the device is {other}; use them with \
                 --device virtual"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_round_trip() {
        for text in ["cpu", "virtual", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Place::Gpu(DeviceSpec::Cuda(0))));
        for text in ["", "gpu", "cpu:0", "virtual:1"] {
            assert!(text.parse::<Place>().unwrap_err().contains("cuda:I"));
        }
        assert!("cuda:x".parse::<Place>().unwrap_err().contains("'x'"));
    }

    #[test]
    fn checks_are_the_virtual_gpus() {
        let args = |text: &str| DeviceArgs {
            device: text.parse().unwrap(),
            checks: true,
        };
        assert!(args("virtual").validate().is_ok());
        for text in ["cpu", "cuda"] {
            let error = args(text).validate().unwrap_err().to_string();
            assert!(error.contains("--checks"), "{error}");
        }
    }
}
