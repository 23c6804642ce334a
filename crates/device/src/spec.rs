//! How a device is named.

use std::fmt;
use std::str::FromStr;

/// Which GPU: `virtual`, `cuda` (the first) or `cuda:I`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceSpec {
    /// The virtual GPU.
    Virtual,
    /// A CUDA device, by the driver's number.
    Cuda(u32),
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtual => f.pad("virtual"),
            Self::Cuda(i) => f.pad(&format!("cuda:{i}")),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "virtual" => Ok(Self::Virtual),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| {
                format!("device '{text}': '{index}' is no device number; write cuda or cuda:0")
            }),
            _ => Err(format!(
                "unknown device '{text}', expected virtual, cuda or cuda:I"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_round_trip() {
        for (text, spec) in [
            ("virtual", DeviceSpec::Virtual),
            ("cuda:0", DeviceSpec::Cuda(0)),
            ("cuda:7", DeviceSpec::Cuda(7)),
        ] {
            assert_eq!(text.parse(), Ok(spec));
            assert_eq!(spec.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceSpec::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "virtual:1"] {
            let error = text.parse::<DeviceSpec>().unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
