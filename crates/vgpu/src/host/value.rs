//! Streams that write a value to memory, or wait for one.

use super::machine::Machine;
use super::work::Work;
use super::{Error, Result, Stream};
use crate::memory::Table;

/// Width of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// 32 bits.
    W32,
    /// 64 bits.
    W64,
}

impl Bits {
    /// Bytes of the value.
    pub fn bytes(self) -> u32 {
        match self {
            Self::W32 => 4,
            Self::W64 => 8,
        }
    }

    fn cut(self, value: u64) -> u64 {
        match self {
            Self::W32 => value & u64::from(u32::MAX),
            Self::W64 => value,
        }
    }
}

/// What a stream waits for, of the value in memory `m` and the given one `v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// `m - v >= 0`, as a signed difference that wraps.
    GreaterOrEqual,
    /// `m == v`
    Equal,
    /// `m & v != 0`
    AnyBit,
    /// `!(m | v) != 0`
    NoneOr,
}

/// A write of a value, or a wait for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueWork {
    pub(super) ptr: u64,
    pub(super) value: u64,
    pub(super) bits: Bits,
    /// `None` writes.
    pub(super) until: Option<Until>,
}

impl ValueWork {
    /// Whether a wait is over; memory that is gone ends it too, with the error that follows.
    pub(super) fn is_ready(&self, table: &Table) -> bool {
        let Some(until) = self.until else { return true };
        let Ok(index) = table.find(self.ptr, u64::from(self.bits.bytes())) else {
            return true;
        };
        let allocation = table.get(index);
        let now = allocation.load(self.ptr - allocation.base(), self.bits.bytes());
        let value = self.value;
        match (until, self.bits) {
            (Until::GreaterOrEqual, Bits::W32) => {
                (now as u32).wrapping_sub(value as u32) as i32 >= 0
            }
            (Until::GreaterOrEqual, Bits::W64) => now.wrapping_sub(value) as i64 >= 0,
            (Until::Equal, _) => now == value,
            (Until::AnyBit, _) => now & value != 0,
            (Until::NoneOr, bits) => bits.cut(!(now | value)) != 0,
        }
    }
}

impl Machine {
    /// Writes `value` to `ptr` in the stream's turn, visible to whoever reads it with an acquire of
    /// system scope.
    ///
    /// # Errors
    /// An address that is not memory or not a multiple of the width.
    pub fn write_value(&self, stream: Stream, ptr: u64, value: u64, bits: Bits) -> Result<()> {
        self.value(stream, ptr, value, bits, None)
    }

    /// Holds the stream until the value at `ptr` satisfies `until` with `value`.
    ///
    /// # Errors
    /// An address that is not memory or not a multiple of the width.
    pub fn wait_value(
        &self,
        stream: Stream,
        ptr: u64,
        value: u64,
        bits: Bits,
        until: Until,
    ) -> Result<()> {
        self.value(stream, ptr, value, bits, Some(until))
    }

    fn value(
        &self,
        stream: Stream,
        ptr: u64,
        value: u64,
        bits: Bits,
        until: Option<Until>,
    ) -> Result<()> {
        let bytes = u64::from(bits.bytes());
        if !ptr.is_multiple_of(bytes) {
            return Err(Error::InvalidValue(format!(
                "address {ptr:#x} is not a multiple of {bytes}"
            )));
        }
        self.memory().snapshot().find(ptr, bytes)?;
        let work = ValueWork {
            ptr,
            value: bits.cut(value),
            bits,
            until,
        };
        self.enqueue(stream, Work::Value(work))?;
        Ok(())
    }
}
