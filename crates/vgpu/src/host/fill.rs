//! Setting memory to a value.

use super::machine::Machine;
use super::work::Work;
use super::{Error, Result, Stream};

/// A rectangle of memory and the value to set it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// First byte.
    pub ptr: u64,
    /// Bytes from the start of a row to the next.
    pub pitch: u64,
    /// Elements of a row.
    pub width: u64,
    /// Rows.
    pub rows: u64,
    /// The value; its low bytes count.
    pub value: u32,
    /// Bytes of an element: 1, 2 or 4.
    pub element_bytes: u32,
}

impl Fill {
    /// One row.
    pub fn row(ptr: u64, value: u32, element_bytes: u32, count: u64) -> Self {
        Self {
            ptr,
            pitch: 0,
            width: count,
            rows: 1,
            value,
            element_bytes,
        }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> u64 {
        self.width.saturating_mul(u64::from(self.element_bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.width == 0 || self.rows == 0
    }

    /// Bytes from the first to behind the last one.
    pub(super) fn extent(&self) -> Result<u64> {
        if !matches!(self.element_bytes, 1 | 2 | 4) {
            return Err(Error::InvalidValue(format!(
                "elements of {} bytes; 1, 2 and 4 are possible",
                self.element_bytes
            )));
        }
        if self.is_empty() {
            return Ok(0);
        }
        let bytes = u64::from(self.element_bytes);
        if !self.ptr.is_multiple_of(bytes) || !self.pitch.is_multiple_of(bytes) {
            return Err(Error::InvalidValue(format!(
                "address {:#x} and pitch {} are to be multiples of the element's {bytes} bytes",
                self.ptr, self.pitch
            )));
        }
        let row = self.row_bytes();
        if self.rows > 1 && self.pitch < row {
            return Err(Error::InvalidValue(format!(
                "pitch {} is less than a row of {row} bytes",
                self.pitch
            )));
        }
        (self.rows - 1)
            .checked_mul(self.pitch)
            .and_then(|start| start.checked_add(row))
            .ok_or_else(|| Error::InvalidValue("the rectangle is larger than memory".to_owned()))
    }
}

macro_rules! fills {
    ($now:ident, $later:ident, $type:ty) => {
        /// Sets `count` elements from `ptr` on to a value, in the default stream of the device that
        /// owns them, and waits.
        ///
        /// # Errors
        /// An address that is not memory or not aligned; a fault of the device.
        pub fn $now(&self, ptr: u64, value: $type, count: u64) -> Result<()> {
            let stream = self.home_stream(ptr)?;
            self.fill_2d(
                stream,
                &Fill::row(ptr, u32::from(value), size_of::<$type>() as u32, count),
            )
        }

        /// Sets `count` elements from `ptr` on to a value, in the stream's turn.
        ///
        /// # Errors
        /// An address that is not memory or not aligned.
        pub fn $later(&self, stream: Stream, ptr: u64, value: $type, count: u64) -> Result<()> {
            self.fill_2d_async(
                stream,
                &Fill::row(ptr, u32::from(value), size_of::<$type>() as u32, count),
            )
        }
    };
}

impl Machine {
    fills!(fill8, fill8_async, u8);
    fills!(fill16, fill16_async, u16);
    fills!(fill32, fill32_async, u32);

    /// Sets a rectangle in the stream's turn.
    ///
    /// # Errors
    /// An address that is not memory or not aligned; a pitch that is too small.
    pub fn fill_2d_async(&self, stream: Stream, fill: &Fill) -> Result<()> {
        self.check_fill(fill)?;
        self.enqueue(stream, Work::Fill(*fill))?;
        Ok(())
    }

    /// Sets a rectangle in the stream's turn, and waits.
    ///
    /// # Errors
    /// As [`Self::fill_2d_async`]; a fault of the device.
    pub fn fill_2d(&self, stream: Stream, fill: &Fill) -> Result<()> {
        self.check_fill(fill)?;
        self.enqueue_and_wait(stream, Work::Fill(*fill))
    }

    pub(super) fn check_fill(&self, fill: &Fill) -> Result<()> {
        let bytes = fill.extent()?;
        if bytes > 0 {
            self.memory().snapshot().find(fill.ptr, bytes)?;
        }
        Ok(())
    }
}
