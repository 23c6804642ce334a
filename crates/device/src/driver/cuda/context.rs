//! The primary context of a device, and how it becomes that of the calling thread.

use cudarc::driver::{result, sys};

use super::call::failed;
use crate::Result;

/// A device's primary context, held as long as this lives.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

// SAFETY: the driver's handles belong to no thread, and its functions may be called from any; which
// context a thread uses is set anew by every `bind`.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the primary context of a device: the one that runtime, frameworks and cust use.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn retain(index: u32) -> Result<Self> {
        let device = result::device::get(index as i32).map_err(failed("cuDeviceGet"))?;
        // SAFETY: the device is one that the driver gave.
        let handle = unsafe { result::primary_ctx::retain(device) };
        let handle = handle.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        Ok(Self { device, handle })
    }

    /// Makes it the context of this thread until the result is dropped; then the thread has again
    /// what it had, so that a framework with another device is not disturbed.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn bind(&self) -> Result<Bound> {
        let before = result::ctx::get_current().map_err(failed("cuCtxGetCurrent"))?;
        if before == Some(self.handle) {
            return Ok(Bound { restore: None });
        }
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.handle) }.map_err(failed("cuCtxSetCurrent"))?;
        let restore = Some(before.unwrap_or(std::ptr::null_mut()));
        Ok(Bound { restore })
    }

    /// Gives the context back. Not `Drop`: with work that never ends the driver would wait.
    pub(super) fn release(&self) {
        // SAFETY: the device is one that the driver gave, and was retained once. What it answers
        // changes nothing any more.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// The context is that of this thread.
pub(super) struct Bound {
    /// What was there before, where that was another one; null for none.
    restore: Option<sys::CUcontext>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(before) = self.restore {
            // SAFETY: the context was current when this call began, and whoever owns it does not
            // destroy it inside. A failure leaves ours, which every call here sets anyway.
            let _ = unsafe { result::ctx::set_current(before) };
        }
    }
}
