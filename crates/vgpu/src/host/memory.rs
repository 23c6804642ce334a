//! Memory: allocations of devices and of the host.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use super::machine::Machine;
use super::queue::{Allocated, Queues};
use super::work::Work;
use super::{Error, Result, Stream};
use crate::memory::{AddressError, Owner};

/// Alignment of pinned memory: a page.
const PAGE: usize = 4096;

/// An allocation, or registered memory of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
    /// Whose memory it is.
    pub owner: Owner,
}

/// Memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemInfo {
    /// Bytes that are not allocated.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Pinned memory of the host, freed when this is dropped.
pub(super) struct HostBlock {
    data: NonNull<u8>,
    layout: Layout,
}

#[allow(
    unsafe_code,
    reason = "memory with an alignment of its own, shared with the host program"
)]
mod host_block {
    use super::{HostBlock, Layout, NonNull, PAGE, alloc_zeroed, dealloc};

    // SAFETY: it owns its bytes and gives no access to them by itself.
    unsafe impl Send for HostBlock {}

    impl HostBlock {
        pub(in crate::host) fn new(bytes: u64) -> Option<Self> {
            let bytes = usize::try_from(bytes).ok()?;
            let layout = Layout::from_size_align(bytes.max(1), PAGE).ok()?;
            // SAFETY: the layout's size is not zero.
            let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            Some(Self { data, layout })
        }
    }

    impl Drop for HostBlock {
        fn drop(&mut self) {
            // SAFETY: `data` came from `alloc_zeroed` with this layout.
            unsafe { dealloc(self.data.as_ptr(), self.layout) }
        }
    }
}

impl Queues {
    pub(super) fn add_allocation(
        &mut self,
        base: u64,
        bytes: u64,
        owner: Owner,
        host: Option<HostBlock>,
    ) {
        self.next_allocation += 1;
        let number = self.next_allocation;
        let allocated = Allocated {
            bytes,
            owner,
            number,
            host,
        };
        self.allocations.insert(base, allocated);
    }
}

impl Machine {
    /// Allocates memory of a device, aligned to 512 bytes. Its bytes count as never written.
    ///
    /// # Errors
    /// 0 bytes; more than is free.
    pub fn alloc(&self, device: u32, bytes: u64) -> Result<u64> {
        if bytes == 0 {
            return Err(Error::InvalidValue("an allocation of 0 bytes".to_owned()));
        }
        let base = self.allocate(Owner::Device(device), bytes, false)?;
        let mut queues = self.shared.queues();
        queues.add_allocation(base, bytes, Owner::Device(device), None);
        Ok(base)
    }

    /// Takes memory of a device from what is free.
    pub(super) fn allocate(&self, owner: Owner, bytes: u64, read_only: bool) -> Result<u64> {
        let (Owner::Device(device) | Owner::Module(device)) = owner else {
            return Err(Error::InvalidValue(
                "the host has no device memory".to_owned(),
            ));
        };
        {
            let mut queues = self.shared.queues();
            let free = self.config().memory_bytes - queues.healthy(device)?.used;
            if bytes > free {
                let device = Some(device);
                return Err(Error::OutOfMemory {
                    device,
                    bytes,
                    free,
                });
            }
            queues.devices[device as usize].used += bytes;
        }
        match self.memory().allocate(owner, bytes, read_only) {
            Some(allocation) => Ok(allocation.base()),
            // The host has less than the device is to have.
            None => {
                let state = &mut self.shared.queues().devices[device as usize];
                state.used = state.used.saturating_sub(bytes);
                Err(Error::OutOfMemory {
                    device: Some(device),
                    bytes,
                    free: self.config().memory_bytes - state.used,
                })
            }
        }
    }

    /// Frees memory of a device, after waiting for all work of the device.
    ///
    /// # Errors
    /// An address that is not the start of an allocation, or was freed; a fault of the device.
    pub fn free(&self, ptr: u64) -> Result<()> {
        let device = self.allocation_at(ptr)?;
        self.synchronize_device(device)?;
        self.forget_allocation(ptr)?;
        Ok(())
    }

    /// The device whose allocation starts at an address.
    fn allocation_at(&self, ptr: u64) -> Result<u32> {
        if let Some(Allocated {
            owner: Owner::Device(device),
            ..
        }) = self.shared.queues().allocations.get(&ptr)
        {
            return Ok(*device);
        }
        let range = self.range_of(ptr)?;
        Err(match range.owner {
            Owner::Device(_) => Error::InvalidValue(format!(
                "{ptr:#x} is {} bytes behind the start of the allocation at {:#x}",
                ptr - range.base,
                range.base
            )),
            Owner::Module(_) => {
                Error::InvalidValue(format!("{ptr:#x} belongs to a variable of a module"))
            }
            Owner::Host => Error::InvalidValue(format!("{ptr:#x} is memory of the host")),
        })
    }

    /// An allocation is gone, in the books and in memory.
    pub(super) fn forget_allocation(&self, ptr: u64) -> Result<(), AddressError> {
        let allocation = self.memory().free(ptr)?;
        let bytes = allocation.bytes();
        let mut queues = self.shared.queues();
        queues.allocations.remove(&ptr);
        queues.forgotten.push((ptr, bytes));
        if let Owner::Device(device) | Owner::Module(device) = allocation.owner() {
            let used = &mut queues.devices[device as usize].used;
            *used = used.saturating_sub(bytes);
        }
        Ok(())
    }

    /// Allocates memory in a stream's turn. It exists at once; that nobody uses it before the stream
    /// has come here is not checked.
    ///
    /// # Errors
    /// As [`Self::alloc`]; a stream that is captured.
    pub fn alloc_async(&self, stream: Stream, bytes: u64) -> Result<u64> {
        {
            let mut queues = self.shared.queues();
            queues.lane(stream)?;
            queues.refuse_capture(stream, "an allocation")?;
        }
        self.alloc(stream.device, bytes)
    }

    /// Frees memory in a stream's turn. Whoever uses it without being ordered before races with this.
    ///
    /// # Errors
    /// An address that is not the start of an allocation; a stream that is captured.
    pub fn free_async(&self, stream: Stream, ptr: u64) -> Result<()> {
        self.allocation_at(ptr)?;
        {
            let mut queues = self.shared.queues();
            queues.lane(stream)?;
            queues.refuse_capture(stream, "the end of an allocation")?;
        }
        self.enqueue(stream, Work::Free(ptr))?;
        Ok(())
    }

    /// Allocates pinned memory of the host, which kernels may use under the same address. It is zero and
    /// counts as written. The pointer is valid until [`Self::free_host`] or the machine's end.
    ///
    /// # Errors
    /// 0 bytes; more than is free.
    pub fn alloc_host(&self, bytes: u64) -> Result<u64> {
        if bytes == 0 {
            return Err(Error::InvalidValue("an allocation of 0 bytes".to_owned()));
        }
        let mut queues = self.shared.queues();
        let free = self.config().memory_bytes - queues.host_used;
        let none = Error::OutOfMemory {
            device: None,
            bytes,
            free,
        };
        if bytes > free {
            return Err(none);
        }
        let Some(block) = HostBlock::new(bytes) else {
            return Err(none);
        };
        let data = block.data;
        #[allow(unsafe_code, reason = "the block is memory of this process")]
        // SAFETY: the block lives in `allocations` until `free_host` or `reset_host` has taken it out
        // of the memory's table while nothing ran, or until the machine goes.
        let registered = unsafe { self.memory().register_host(data, bytes) };
        if registered.is_none() {
            return Err(Error::AlreadyRegistered(data.as_ptr() as u64));
        }
        queues.host_used += bytes;
        let base = data.as_ptr() as u64;
        queues.add_allocation(base, bytes, Owner::Host, Some(block));
        Ok(base)
    }

    /// Frees pinned memory of the host, after waiting for the work of all devices that have not failed.
    ///
    /// # Errors
    /// An address that [`Self::alloc_host`] did not return, or that was freed.
    pub fn free_host(&self, ptr: u64) -> Result<()> {
        self.drop_host(ptr, true)
    }

    /// Makes memory of the host usable by kernels under the same address.
    ///
    /// # Errors
    /// 0 bytes, or memory that overlaps what is registered.
    ///
    /// # Safety
    /// The memory stays valid until [`Self::unregister_host`] of it returns or the machine is gone, and
    /// meanwhile nobody holds a reference to it while work that touches it runs.
    #[allow(unsafe_code, reason = "memory that the caller owns")]
    pub unsafe fn register_host(&self, ptr: u64, bytes: u64) -> Result<()> {
        let data = usize::try_from(ptr)
            .ok()
            .and_then(|ptr| NonNull::new(ptr as *mut u8));
        let Some(data) = data.filter(|_| bytes > 0 && ptr.checked_add(bytes).is_some()) else {
            return Err(Error::InvalidValue(format!(
                "{bytes} bytes at {ptr:#x} are no memory"
            )));
        };
        let mut queues = self.shared.queues();
        // SAFETY: the caller promises what `register_host` asks for.
        if unsafe { self.memory().register_host(data, bytes) }.is_none() {
            return Err(Error::AlreadyRegistered(ptr));
        }
        queues.add_allocation(ptr, bytes, Owner::Host, None);
        Ok(())
    }

    /// Ends what [`Self::register_host`] began, after waiting for the work of all devices that have not
    /// failed.
    ///
    /// # Errors
    /// An address that is not registered.
    pub fn unregister_host(&self, ptr: u64) -> Result<()> {
        self.drop_host(ptr, false)
    }

    fn drop_host(&self, ptr: u64, pinned: bool) -> Result<()> {
        let known = |queues: &Queues| {
            queues.allocations.get(&ptr).is_some_and(|allocated| {
                allocated.owner == Owner::Host && allocated.host.is_some() == pinned
            })
        };
        let refuse = || {
            let made = if pinned { "pinned" } else { "registered" };
            Error::InvalidValue(format!("{ptr:#x} is not {made} memory of the host"))
        };
        if !known(&self.shared.queues()) {
            return Err(refuse());
        }
        for device in 0..self.device_count() {
            match self.synchronize_device(device) {
                Ok(()) | Err(Error::Faulted(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // Between two steps nobody holds a snapshot with the memory in it, but for the views.
        let mut engine = self.shared.engine();
        let mut queues = self.shared.queues();
        if !known(&queues) {
            return Err(refuse());
        }
        let allocation = self.memory().free(ptr)?;
        engine.forget_views();
        let bytes = allocation.bytes();
        queues.allocations.remove(&ptr);
        queues.forgotten.push((ptr, bytes));
        if pinned {
            queues.host_used = queues.host_used.saturating_sub(bytes);
        }
        Ok(())
    }

    /// The allocation around an address.
    ///
    /// # Errors
    /// An address that is not memory, or was freed.
    pub fn range_of(&self, ptr: u64) -> Result<Range> {
        let table = self.memory().snapshot();
        let allocation = table.get(table.find(ptr, 1)?);
        Ok(Range {
            base: allocation.base(),
            bytes: allocation.bytes(),
            owner: allocation.owner(),
        })
    }

    /// Free and total memory of a device.
    ///
    /// # Errors
    /// A device that does not exist or has failed.
    pub fn mem_info(&self, device: u32) -> Result<MemInfo> {
        let used = self.shared.queues().healthy(device)?.used;
        let total = self.config().memory_bytes;
        let free = total - used;
        Ok(MemInfo { free, total })
    }

    /// The default stream of the device that owns an address; device 0's for memory of the host.
    pub(super) fn home_stream(&self, ptr: u64) -> Result<Stream> {
        self.default_stream(self.device_of(ptr)?.unwrap_or(0))
    }

    /// The default stream in which a copy happens.
    pub(super) fn copy_stream(&self, dst: u64, src: u64) -> Result<Stream> {
        let device = match self.device_of(dst)? {
            Some(device) => Some(device),
            None => self.device_of(src)?,
        };
        self.default_stream(device.unwrap_or(0))
    }

    fn device_of(&self, ptr: u64) -> Result<Option<u32>> {
        let table = self.memory().snapshot();
        Ok(match table.get(table.find(ptr, 0)?).owner() {
            Owner::Device(device) | Owner::Module(device) => Some(device),
            Owner::Host => None,
        })
    }
}
