//! Why a call was refused.

use crate::memory::AddressError;
use crate::program::LoadError;
use crate::ptx::SyntaxError;
use crate::report::Report;

/// What the calls of this API return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was refused, or what became of the work it waited for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The device does not exist.
    #[error("device {device} does not exist; the machine has {count}")]
    NoDevice {
        /// The device that was named.
        device: u32,
        /// Devices of the machine.
        count: u32,
    },
    /// Memory is used up.
    #[error("out of memory on {}: {bytes} bytes wanted, {free} free", place(*device))]
    OutOfMemory {
        /// The device; `None`: pinned host memory.
        device: Option<u32>,
        /// Bytes that were wanted.
        bytes: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// An argument that makes no sense, with its bound.
    #[error("invalid value: {0}")]
    InvalidValue(String),
    /// A stream, event or module that does not exist (any more).
    #[error("invalid handle: {0}")]
    InvalidHandle(String),
    /// The text is not PTX.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// The PTX uses something that is unknown.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The module was made for another architecture.
    #[error("the module is for {target}, which does not run on {arch}")]
    WrongArch {
        /// `.target` of the module.
        target: String,
        /// The machine's architecture.
        arch: &'static str,
    },
    /// Not PTX at all but machine code, which this machine cannot run.
    #[error("{0}")]
    NotPtx(String),
    /// No function or variable has the name.
    #[error("{what} `{name}` is not in the module; it has {}", list(known))]
    NotFound {
        /// `function` or `variable`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A launch that the device cannot take; the text names the value and its bound.
    #[error("illegal launch: {0}")]
    InvalidLaunch(String),
    /// An address that cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The device has failed: every call returns this until it is reset.
    #[error("the device has failed: {0}")]
    Faulted(Box<Report>),
    /// The work asked about is not complete.
    #[error("not ready")]
    NotReady,
    /// Not permitted while a stream is captured, or the capture is broken.
    #[error("stream capture: {0}")]
    Capture(String),
    /// Peer access that is enabled already, or not at all.
    #[error("peer access: {0}")]
    PeerAccess(String),
    /// Host memory that overlaps memory which is known.
    #[error("host memory at {0:#x} overlaps memory that is registered")]
    AlreadyRegistered(u64),
}

fn place(device: Option<u32>) -> String {
    device.map_or_else(
        || "the host".to_owned(),
        |device| format!("device {device}"),
    )
}

fn list(known: &[String]) -> String {
    const SHOWN: usize = 12;
    if known.is_empty() {
        return "none".to_owned();
    }
    let shown = known[..known.len().min(SHOWN)].join(", ");
    match known.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
