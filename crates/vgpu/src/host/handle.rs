//! Names of streams and events.

/// A stream of a device: operations in order. A name that can be copied; the stream lives until it is
/// destroyed and its work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    pub(super) id: u32,
    pub(super) device: u32,
}

impl Stream {
    /// Its number, unique in the machine.
    pub fn id(self) -> u32 {
        self.id
    }

    /// Its device.
    pub fn device(self) -> u32 {
        self.device
    }

    /// Whether it is the default stream of its device.
    pub fn is_default(self) -> bool {
        self.id == self.device
    }
}

/// How a stream is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFlags {
    /// Whether it is independent of the device's default stream.
    pub non_blocking: bool,
    /// Kept and given back; the schedule is the seed's, so that no order can be relied on.
    pub priority: i32,
}

/// An event: a point in a stream's work. A name that can be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    pub(super) id: u32,
    pub(super) device: u32,
}

impl Event {
    /// Its number, unique in the machine.
    pub fn id(self) -> u32 {
        self.id
    }

    /// Its device.
    pub fn device(self) -> u32 {
        self.device
    }
}
