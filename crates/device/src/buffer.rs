//! Device memory that this crate owns.

use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::Pod;

use crate::driver::Driver;
use crate::{DeviceSlice, DeviceSliceMut, Error, Gpu, Result, Stream};

/// `len` elements of device memory, freed on drop.
///
/// Its contents are undefined until written. Dropping it waits for nothing: work that uses it must
/// have ended, which [`Stream::synchronize`] tells.
pub struct Buffer<T> {
    driver: Arc<dyn Driver>,
    ptr: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    pub(crate) fn new(gpu: &Gpu, len: usize) -> Result<Self> {
        let bytes = (len as u64).checked_mul(size_of::<T>() as u64);
        let bytes = bytes.ok_or_else(|| Error::Overflow {
            what: "buffer",
            detail: format!("{len} elements of {} bytes", size_of::<T>()),
            limit: u64::MAX,
        })?;
        let driver = gpu.driver().clone();
        // A driver refuses an allocation of nothing; an empty buffer is legal everywhere here.
        let ptr = match bytes {
            0 => 0,
            bytes => driver.alloc(bytes)?,
        };
        Ok(Self {
            driver,
            ptr,
            len,
            element: PhantomData,
        })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, to be read.
    pub fn slice(&self) -> DeviceSlice<'_, T> {
        DeviceSlice::trusted(self.ptr, self.len)
    }

    /// All of it, to be written.
    pub fn slice_mut(&mut self) -> DeviceSliceMut<'_, T> {
        DeviceSliceMut::trusted(self.ptr, self.len)
    }

    /// Copies `values` to its start, in the order of the stream; `values` may change afterwards.
    ///
    /// # Errors
    /// More values than elements; what the driver says.
    pub fn write(&mut self, stream: &Stream, values: &[T]) -> Result<()> {
        stream.write(self.slice_mut(), values)
    }

    /// Copies all of it to the host and waits for that.
    ///
    /// # Errors
    /// What the driver says; on the virtual GPU what the checks found.
    pub fn read(&self, stream: &Stream) -> Result<Vec<T>> {
        stream.read(self.slice())
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.ptr != 0 {
            self.driver.free(self.ptr);
        }
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer")
            .field("ptr", &format_args!("{:#x}", self.ptr))
            .field("len", &self.len)
            .finish()
    }
}
