//! What a stream can be told to do.

use std::sync::{Arc, Mutex, OnceLock};

use super::copy::Shape3d;
use super::fill::Fill;
use super::launch::KernelWork;
use super::value::ValueWork;
use crate::race::Clock;

/// A function of the host that a stream calls in its turn.
pub type HostFunction = Arc<dyn Fn() + Send + Sync>;

/// A point in a stream's work: set when the work before it is complete.
pub(super) type Point = Arc<OnceLock<Mark>>;

/// What is known of a point that was reached.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// What happened before it.
    pub(super) clock: Clock,
    /// Virtual time of its device.
    pub(super) ticks: u64,
}

/// One operation. Cheap to clone: graphs run theirs many times.
#[derive(Clone)]
pub(super) enum Work {
    /// Nothing; orders what is around it.
    Empty,
    /// A launch.
    Kernel(Arc<KernelWork>),
    /// A copy within the memory that the machine knows.
    Copy {
        dst: u64,
        src: u64,
        shape: Shape3d,
    },
    /// Bytes of the host, dense, to memory.
    Put {
        dst: u64,
        shape: Shape3d,
        bytes: Arc<[u8]>,
    },
    /// Memory to the host, dense.
    Get {
        src: u64,
        shape: Shape3d,
        into: Arc<Mutex<Vec<u8>>>,
    },
    Fill(Fill),
    Host(HostFunction),
    Value(ValueWork),
    /// The end of an allocation.
    Free(u64),
    /// Sets a point.
    Record(Point),
    /// Waits for points of other streams.
    Wait(Vec<Point>),
}

impl Work {
    /// The points that must be reached before it starts.
    pub(super) fn awaited(&self) -> &[Point] {
        match self {
            Self::Wait(points) => points,
            _ => &[],
        }
    }

    /// Whether the launch may start before the one in front of it is complete.
    pub(super) fn is_dependent_launch(&self) -> bool {
        matches!(self, Self::Kernel(kernel) if kernel.programmatic_dependent)
    }
}
