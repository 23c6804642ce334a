//! One error type for the workspace: each variant names the value and the bound it broke.

use crate::DType;
use crate::routing::BrokenInvariant;

/// The result of every fallible operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation refused its input. Nothing was written when one of these is returned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dimension differs from what the operation needs.
    #[error("{what} is {actual}, expected {expected}")]
    Shape {
        /// The dimension or length, in glossary letters, e.g. `columns of x (H)`.
        what: &'static str,
        /// What was passed.
        actual: usize,
        /// What is needed.
        expected: usize,
    },
    /// A buffer is shorter than its shape says.
    #[error("{what} holds {actual} elements, but its shape needs {needed}")]
    BufferTooSmall {
        /// The buffer.
        what: &'static str,
        /// Elements it holds.
        actual: usize,
        /// Elements its shape needs.
        needed: usize,
    },
    /// A size computation leaves the range of the index type.
    #[error("{what}: {detail} overflows the limit of {limit}")]
    Overflow {
        /// The quantity, e.g. `assignments (T·k)`.
        what: &'static str,
        /// The factors, with their values.
        detail: String,
        /// The largest value that is representable.
        limit: u64,
    },
    /// A count is outside its legal range.
    #[error("{what} is {value}, must be in {min}..={max}")]
    OutOfRange {
        /// The count.
        what: &'static str,
        /// What was passed.
        value: usize,
        /// The smallest legal value.
        min: usize,
        /// The largest legal value.
        max: usize,
    },
    /// A real number is outside its legal range (a NaN is outside every range).
    #[error("{what} is {value}, must be in [{min}, {max}]")]
    RealOutOfRange {
        /// The number.
        what: &'static str,
        /// What was passed.
        value: f64,
        /// The smallest legal value.
        min: f64,
        /// The largest legal value.
        max: f64,
    },
    /// An index in a buffer points outside what it indexes.
    #[error("{what}[{position}] is {value}, must be in 0..{bound}")]
    Index {
        /// The buffer that holds the index.
        what: &'static str,
        /// Where in the buffer.
        position: usize,
        /// The index found.
        value: i64,
        /// One past the largest legal index.
        bound: usize,
    },
    /// A routing table breaks one of its invariants.
    #[error("routing table: {0}")]
    Routing(#[from] BrokenInvariant),
    /// An element type that the operation does not take.
    #[error("{what} has element type {actual}, expected {expected}")]
    DType {
        /// The tensor.
        what: &'static str,
        /// What was passed.
        actual: DType,
        /// What is needed.
        expected: DType,
    },
    /// An input that this configuration needs was not given.
    #[error("{what} is required by {because}, but was not given")]
    Missing {
        /// The input.
        what: &'static str,
        /// The option that needs it.
        because: String,
    },
    /// Two options exclude each other.
    #[error("{what} cannot be combined with {with}: {reason}")]
    Incompatible {
        /// The first option, with its value.
        what: String,
        /// The second option, with its value.
        with: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// A device or its driver refused, or met a fault.
    #[error("{reason}")]
    Device {
        /// What it said.
        reason: String,
    },
    /// The operating system refused the threads.
    #[error("could not start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

impl Error {
    /// `Ok` when `actual == expected`, else [`Error::Shape`].
    pub fn check_shape(what: &'static str, actual: usize, expected: usize) -> Result<()> {
        if actual == expected {
            Ok(())
        } else {
            Err(Self::Shape {
                what,
                actual,
                expected,
            })
        }
    }

    /// `Ok` when `min <= value <= max`, else [`Error::OutOfRange`].
    pub fn check_range(what: &'static str, value: usize, min: usize, max: usize) -> Result<()> {
        if (min..=max).contains(&value) {
            Ok(())
        } else {
            Err(Self::OutOfRange {
                what,
                value,
                min,
                max,
            })
        }
    }

    /// `Ok` when `min <= value <= max` (so never for a NaN), else [`Error::RealOutOfRange`].
    pub fn check_real(what: &'static str, value: f64, min: f64, max: f64) -> Result<()> {
        if value >= min && value <= max {
            Ok(())
        } else {
            Err(Self::RealOutOfRange {
                what,
                value,
                min,
                max,
            })
        }
    }

    /// The product of two sizes, or [`Error::Overflow`] when it exceeds `limit`.
    pub fn checked_product(what: &'static str, a: usize, b: usize, limit: usize) -> Result<usize> {
        match a.checked_mul(b) {
            Some(product) if product <= limit => Ok(product),
            _ => Err(Self::Overflow {
                what,
                detail: format!("{a} × {b}"),
                limit: limit as u64,
            }),
        }
    }
}
