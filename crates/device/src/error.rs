//! What can go wrong between host and device.

/// The result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a device refused, or what it met.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such device, or no driver for it.
    #[error("no device `{device}`: {reason}")]
    NoDevice {
        /// What was asked for, as [`crate::DeviceSpec`] prints it.
        device: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// Device memory is used up.
    #[error("out of device memory: {bytes} bytes wanted, {free} free")]
    OutOfMemory {
        /// Bytes that were wanted.
        bytes: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A size does not fit its type.
    #[error("{what}: {detail} overflows the limit of {limit}")]
    Overflow {
        /// The quantity.
        what: &'static str,
        /// The factors, with their values.
        detail: String,
        /// The largest value that is representable.
        limit: u64,
    },
    /// A pointer that cannot be used.
    #[error("{what} is {ptr:#x}: {reason}")]
    BadPointer {
        /// The tensor.
        what: &'static str,
        /// The address.
        ptr: u64,
        /// Null, misaligned, wrapping around.
        reason: String,
    },
    /// A length or shape differs from what it must be.
    #[error("{what} is {actual}, expected {expected}")]
    Shape {
        /// The length.
        what: &'static str,
        /// What was passed.
        actual: usize,
        /// What is needed.
        expected: usize,
    },
    /// A buffer is smaller than what it must hold.
    #[error("{what} holds {actual}, but {needed} are needed")]
    TooSmall {
        /// The buffer, with its unit.
        what: &'static str,
        /// What it holds.
        actual: usize,
        /// What is needed.
        needed: usize,
    },
    /// A launch that the device cannot take.
    #[error("launch of {kernel}: {reason}")]
    Launch {
        /// The kernel's entry.
        kernel: &'static str,
        /// The value and its bound.
        reason: String,
    },
    /// Buffers, streams or graphs of one device were used with another.
    #[error("{what} belongs to another device")]
    OtherDevice {
        /// What was passed.
        what: &'static str,
    },
    /// A wait ended at its deadline.
    #[error("{what} was not finished after {seconds} s")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The virtual GPU's checks found something in a kernel.
    #[error("the virtual GPU found {count} faults; the first: {first}")]
    Checks {
        /// How many.
        count: usize,
        /// The first, whole.
        first: String,
    },
    /// The driver said no.
    #[error("{call}: {reason}")]
    Driver {
        /// The call.
        call: &'static str,
        /// What the driver said.
        reason: String,
    },
}

impl Error {
    /// Refuses a buffer that is too small. `what` names it, with its unit.
    ///
    /// # Errors
    /// [`Error::TooSmall`].
    pub fn check_len(what: &'static str, actual: usize, needed: usize) -> Result<()> {
        if actual >= needed {
            return Ok(());
        }
        Err(Self::TooSmall {
            what,
            actual,
            needed,
        })
    }

    /// Refuses a length or a dimension that differs.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check_shape(what: &'static str, actual: usize, expected: usize) -> Result<()> {
        if actual == expected {
            return Ok(());
        }
        Err(Self::Shape {
            what,
            actual,
            expected,
        })
    }
}

impl From<Error> for tollgate_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Shape {
                what,
                actual,
                expected,
            } => Self::Shape {
                what,
                actual,
                expected,
            },
            Error::Overflow {
                what,
                detail,
                limit,
            } => Self::Overflow {
                what,
                detail,
                limit,
            },
            Error::TooSmall {
                what,
                actual,
                needed,
            } => Self::BufferTooSmall {
                what,
                actual,
                needed,
            },
            other => Self::Device {
                reason: other.to_string(),
            },
        }
    }
}
