//! cust's streams and buffers. cust uses the primary context too, so they are the same device's.

use std::sync::Arc;

use bytemuck::Pod;
use cust::memory::DeviceCopy;
use cust::stream::Stream as CustStream;

use crate::{Backend, DeviceSlice, DeviceSliceMut, Error, Gpu, Result, Stream};

impl Gpu {
    /// A stream of cust, which lives as long as the result and its clones. With one of another
    /// device, the first call fails.
    ///
    /// # Errors
    /// This is no CUDA device.
    pub fn cust_stream(&self, stream: Arc<CustStream>) -> Result<Stream> {
        self.demand_cuda()?;
        let handle = stream.as_inner() as u64;
        // SAFETY: the stream is kept by the result. The driver refuses those of other contexts.
        Ok(unsafe { self.share_stream(handle, stream) })
    }

    /// A stream of cust that is borrowed.
    ///
    /// # Errors
    /// This is no CUDA device.
    ///
    /// # Safety
    /// Neither the result nor a clone of it is used when `stream` is gone.
    pub unsafe fn borrow_cust_stream(&self, stream: &CustStream) -> Result<Stream> {
        self.demand_cuda()?;
        // SAFETY: the caller's promise.
        Ok(unsafe { self.borrow_stream(stream.as_inner() as u64) })
    }

    fn demand_cuda(&self) -> Result<()> {
        match self.facts().backend {
            Backend::Cuda => Ok(()),
            Backend::Virtual => Err(Error::OtherDevice {
                what: "the stream of cust",
            }),
        }
    }
}

impl<'a, T: Pod + DeviceCopy> DeviceSlice<'a, T> {
    /// Memory that cust owns: a `DeviceBuffer` or a part of one.
    pub fn from_cust(memory: &'a cust::memory::DeviceSlice<T>) -> Self {
        Self::trusted(memory.as_device_ptr().as_raw(), memory.len())
    }
}

impl<'a, T: Pod + DeviceCopy> DeviceSliceMut<'a, T> {
    /// Memory that cust owns, to be written.
    pub fn from_cust(memory: &'a mut cust::memory::DeviceSlice<T>) -> Self {
        Self::trusted(memory.as_device_ptr().as_raw(), memory.len())
    }
}
