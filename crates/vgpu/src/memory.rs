//! Device memory: allocations in one address space for all devices and, where a program registers
//! it, the host.
//!
//! Addresses are never used twice, so that a pointer into freed memory is recognised for ever.
//! Allocations are 512 bytes apart at least; whatever points between them is out of bounds.

#![allow(
    unsafe_code,
    reason = "device memory is shared by racing kernels: raw relaxed atomics"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
use std::sync::{Arc, RwLock};

/// First address of device 0; a device owns `1 << DEVICE_SHIFT` bytes of address space.
pub const DEVICE_BASE: u64 = 0x0100_0000_0000;
/// log2 of the address space of a device.
pub const DEVICE_SHIFT: u32 = 40;
/// Least distance of an allocation's end from the next one's start, and alignment of both.
pub const GUARD_BYTES: u64 = 512;
/// Alignment of an allocation's bytes on the host: that of the widest access. With more, the
/// allocator would clear all pages by hand instead of leaving them to be made when they are touched.
const HOST_ALIGNMENT: usize = 16;

/// Who gave the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// `alloc`: memory of a device.
    Device(u32),
    /// A variable of a module on a device; lives as long as the module.
    Module(u32),
    /// Memory of the host that kernels may touch: registered, pinned or managed. Its device address
    /// is its host address.
    Host,
}

/// One allocation.
pub struct Allocation {
    base: u64,
    bytes: u64,
    data: NonNull<u8>,
    layout: Option<Layout>,
    owner: Owner,
    read_only: bool,
    freed: AtomicBool,
    /// One bit a byte, set when written; empty when nothing asks.
    written: Box<[AtomicU64]>,
}

// SAFETY: the bytes are only touched through relaxed atomics (or, for exclusive host copies, through
// methods that use them too); the rest is immutable or atomic itself.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(layout) = self.layout {
            // SAFETY: `data` came from `alloc_zeroed` with this layout.
            unsafe { dealloc(self.data.as_ptr(), layout) }
        }
    }
}

macro_rules! typed {
    ($load:ident, $store:ident, $update:ident, $type:ty, $atomic:ty) => {
        /// Loads from `offset`, which must be naturally aligned and in bounds (checked).
        #[inline(always)]
        pub fn $load(&self, offset: u64) -> $type {
            self.check(offset, size_of::<$type>());
            // SAFETY: in bounds and aligned (checked), alive as long as `self`, only atomics touch it.
            unsafe { <$atomic>::from_ptr(self.data.as_ptr().add(offset as usize).cast()) }
                .load(Ordering::Relaxed)
        }

        /// Stores to `offset`, which must be naturally aligned and in bounds (checked).
        #[inline(always)]
        pub fn $store(&self, offset: u64, value: $type) {
            self.check(offset, size_of::<$type>());
            // SAFETY: as in the load.
            unsafe { <$atomic>::from_ptr(self.data.as_ptr().add(offset as usize).cast()) }
                .store(value, Ordering::Relaxed)
        }

        /// Replaces the value at `offset` by `f` of it in one step; returns the old value.
        #[inline]
        pub fn $update(&self, offset: u64, mut f: impl FnMut($type) -> $type) -> $type {
            self.check(offset, size_of::<$type>());
            let place = self.data.as_ptr().wrapping_add(offset as usize).cast();
            // SAFETY: as in the load.
            let cell = unsafe { <$atomic>::from_ptr(place) };
            let mut old = cell.load(Ordering::Relaxed);
            loop {
                match cell.compare_exchange_weak(old, f(old), Ordering::Relaxed, Ordering::Relaxed)
                {
                    Ok(_) => return old,
                    Err(now) => old = now,
                }
            }
        }
    };
}

impl Allocation {
    fn new(base: u64, bytes: u64, owner: Owner, read_only: bool, track: bool) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1) as usize, HOST_ALIGNMENT).ok()?;
        let written = shadow(bytes, track)?;
        // SAFETY: the layout's size is not zero.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self {
            base,
            bytes,
            data,
            layout: Some(layout),
            owner,
            read_only,
            freed: AtomicBool::new(false),
            written,
        })
    }

    /// First address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whose memory it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether kernels may only read it (`.const`).
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether it was freed.
    pub fn is_freed(&self) -> bool {
        self.freed.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn check(&self, offset: u64, bytes: usize) {
        let address = self.data.as_ptr() as u64 + offset;
        assert!(
            offset
                .checked_add(bytes as u64)
                .is_some_and(|end| end <= self.bytes)
                && address.is_multiple_of(bytes as u64),
            "the executor checks bounds and alignment before it touches memory"
        );
    }

    typed!(load8, store8, update8, u8, AtomicU8);
    typed!(load16, store16, update16, u16, AtomicU16);
    typed!(load32, store32, update32, u32, AtomicU32);
    typed!(load64, store64, update64, u64, AtomicU64);

    /// Loads `bytes` (1, 2, 4 or 8) from a naturally aligned, in-bounds `offset`.
    #[inline(always)]
    pub fn load(&self, offset: u64, bytes: u32) -> u64 {
        match bytes {
            1 => u64::from(self.load8(offset)),
            2 => u64::from(self.load16(offset)),
            4 => u64::from(self.load32(offset)),
            _ => self.load64(offset),
        }
    }

    /// Stores the low `bytes` (1, 2, 4 or 8) of `value` at a naturally aligned, in-bounds `offset`.
    #[inline(always)]
    pub fn store(&self, offset: u64, bytes: u32, value: u64) {
        match bytes {
            1 => self.store8(offset, value as u8),
            2 => self.store16(offset, value as u16),
            4 => self.store32(offset, value as u32),
            _ => self.store64(offset, value),
        }
    }

    /// Where a run of bytes begins.
    #[inline(always)]
    fn run(&self, offset: u64, bytes: usize) -> *mut u8 {
        let end = offset.checked_add(bytes as u64);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "the executor checks bounds before it touches memory"
        );
        // SAFETY: in bounds.
        unsafe { self.data.as_ptr().add(offset as usize) }
    }

    /// Copies bytes out; `offset + out.len()` must be in bounds (checked).
    #[inline]
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let start = self.run(offset, out.len());
        let head = bytes_to_word(start).min(out.len());
        let byte = |index: usize| {
            // SAFETY: in bounds, alive as long as `self`, only atomics touch it.
            unsafe { AtomicU8::from_ptr(start.add(index)) }.load(Ordering::Relaxed)
        };
        let (first, rest) = out.split_at_mut(head);
        let (words, last) = rest.as_chunks_mut::<8>();
        let tail = head + words.len() * 8;
        for (index, out) in first.iter_mut().enumerate() {
            *out = byte(index);
        }
        for (index, out) in words.iter_mut().enumerate() {
            // SAFETY: as above; aligned, since `head` bytes were left out.
            let cell = unsafe { AtomicU64::from_ptr(start.add(head + index * 8).cast()) };
            *out = cell.load(Ordering::Relaxed).to_ne_bytes();
        }
        for (index, out) in last.iter_mut().enumerate() {
            *out = byte(tail + index);
        }
    }

    /// Copies bytes in and marks them written; `offset + from.len()` must be in bounds (checked).
    #[inline]
    pub fn write(&self, offset: u64, from: &[u8]) {
        let start = self.run(offset, from.len());
        let head = bytes_to_word(start).min(from.len());
        let byte = |index: usize, value| {
            // SAFETY: in bounds, alive as long as `self`, only atomics touch it.
            unsafe { AtomicU8::from_ptr(start.add(index)) }.store(value, Ordering::Relaxed);
        };
        let (first, rest) = from.split_at(head);
        let (words, last) = rest.as_chunks::<8>();
        let tail = head + words.len() * 8;
        for (index, &value) in first.iter().enumerate() {
            byte(index, value);
        }
        for (index, &word) in words.iter().enumerate() {
            // SAFETY: as above; aligned, since `head` bytes were left out.
            let cell = unsafe { AtomicU64::from_ptr(start.add(head + index * 8).cast()) };
            cell.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        for (index, &value) in last.iter().enumerate() {
            byte(tail + index, value);
        }
        self.mark_written(offset, from.len() as u64);
    }

    /// Marks bytes as written.
    #[inline]
    pub fn mark_written(&self, offset: u64, bytes: u64) {
        self.shadow_words(offset, bytes, |word, bits| {
            // Skipping the read-modify-write of what is set already keeps streaming stores cheap.
            if word.load(Ordering::Relaxed) & bits != bits {
                word.fetch_or(bits, Ordering::Relaxed);
            }
            true
        });
    }

    /// Marks bytes as never written (a copy of undefined bytes makes its target undefined).
    pub fn mark_unwritten(&self, offset: u64, bytes: u64) {
        self.shadow_words(offset, bytes, |word, bits| {
            word.fetch_and(!bits, Ordering::Relaxed);
            true
        });
    }

    /// Whether every byte of the range was written (true where nothing tracks it).
    #[inline]
    pub fn is_written(&self, offset: u64, bytes: u64) -> bool {
        let mut all = true;
        self.shadow_words(offset, bytes, |word, bits| {
            all = word.load(Ordering::Relaxed) & bits == bits;
            all
        });
        all
    }

    #[inline(always)]
    fn shadow_words(&self, offset: u64, bytes: u64, mut f: impl FnMut(&AtomicU64, u64) -> bool) {
        if self.written.is_empty() {
            return;
        }
        let end = offset + bytes;
        let mut at = offset;
        while at < end {
            let shift = at % 64;
            let count = (64 - shift).min(end - at);
            let bits = (u64::MAX >> (64 - count)) << shift;
            if !f(&self.written[(at / 64) as usize], bits) {
                return;
            }
            at += count;
        }
    }
}

/// Bytes before the next address that 8 divides.
#[inline(always)]
fn bytes_to_word(start: *mut u8) -> usize {
    (start as usize).wrapping_neg() % 8
}

/// One bit a byte, none set. The pages of it that nobody touches cost nothing, as those of the
/// allocation do not.
fn shadow(bytes: u64, track: bool) -> Option<Box<[AtomicU64]>> {
    let words = if track { bytes.div_ceil(64) } else { 0 };
    let words = usize::try_from(words).ok()?;
    if words == 0 {
        return Some(Box::default());
    }
    let layout = Layout::array::<AtomicU64>(words).ok()?;
    // SAFETY: the layout's size is not zero.
    let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
    let slice = std::ptr::slice_from_raw_parts_mut(data.as_ptr().cast::<AtomicU64>(), words);
    // SAFETY: `alloc_zeroed` gave it with the layout of this slice, and zeros are `AtomicU64`s.
    Some(unsafe { Box::from_raw(slice) })
}

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing was ever there.
    #[error("address {address:#x} belongs to no allocation{near}")]
    Unmapped {
        /// The address.
        address: u64,
        /// What is near it, in words.
        near: String,
    },
    /// The access runs over the end of an allocation.
    #[error(
        "{bytes} bytes at {address:#x} run past the end of the {size}-byte allocation at {base:#x} \
         (offset {})", address - base
    )]
    PastEnd {
        /// The address.
        address: u64,
        /// Bytes of the access.
        bytes: u64,
        /// Start of the allocation.
        base: u64,
        /// Its size.
        size: u64,
    },
    /// The allocation was freed.
    #[error("address {address:#x} is offset {} of freed memory (allocation of {size} bytes)", address - base)]
    Freed {
        /// The address.
        address: u64,
        /// Start of what was freed.
        base: u64,
        /// Its size.
        size: u64,
    },
}

/// All allocations at one moment, sorted by address. Kernels work on a snapshot.
#[derive(Clone, Default)]
pub struct Table {
    live: Vec<Arc<Allocation>>,
    /// (base, bytes) of what was freed, sorted; addresses are not reused.
    freed: Vec<(u64, u64)>,
    /// The device that sees this table, and the devices whose memory it sees, when not all.
    viewer: Option<(u32, u64)>,
}

impl Table {
    /// Index of the allocation that holds `bytes` bytes from `address` on.
    ///
    /// # Errors
    /// [`AddressError`] says what is wrong with it.
    pub fn find(&self, address: u64, bytes: u64) -> Result<usize, AddressError> {
        let next = self
            .live
            .partition_point(|allocation| allocation.base <= address);
        if let Some(allocation) = next.checked_sub(1).map(|index| &self.live[index]) {
            let offset = address - allocation.base;
            if offset < allocation.bytes || (bytes == 0 && offset == allocation.bytes) {
                return if bytes <= allocation.bytes - offset {
                    Ok(next - 1)
                } else {
                    Err(AddressError::PastEnd {
                        address,
                        bytes,
                        base: allocation.base,
                        size: allocation.bytes,
                    })
                };
            }
        }
        let freed = self.freed.partition_point(|&(base, _)| base <= address);
        if let Some(&(base, size)) = freed.checked_sub(1).map(|index| &self.freed[index])
            && address - base < size
        {
            return Err(AddressError::Freed {
                address,
                base,
                size,
            });
        }
        if let Some((viewer, visible)) = self.viewer
            && let Some(owner) = device_of(address)
            && visible & 1 << owner == 0
        {
            let near = format!(
                "; it is in the memory of device {owner}, to which device {viewer} has no peer access"
            );
            return Err(AddressError::Unmapped { address, near });
        }
        let near = match next.checked_sub(1).map(|index| &self.live[index]) {
            Some(before) if address - before.base - before.bytes < 1 << 20 => format!(
                "; it is {} bytes past the end of the {}-byte allocation at {:#x}",
                address - before.base - before.bytes,
                before.bytes,
                before.base
            ),
            _ => match self.live.get(next) {
                Some(after) if after.base - address < 1 << 20 => format!(
                    "; it is {} bytes before the {}-byte allocation at {:#x}",
                    after.base - address,
                    after.bytes,
                    after.base
                ),
                _ => String::new(),
            },
        };
        Err(AddressError::Unmapped { address, near })
    }

    /// The table as `device` sees it, which may touch the memory of the devices of a mask (with its own
    /// bit) and of the host.
    pub fn seen_by(&self, device: u32, visible: u64) -> Self {
        let seen = |allocation: &&Arc<Allocation>| match allocation.owner {
            Owner::Device(owner) | Owner::Module(owner) => visible & 1 << owner != 0,
            Owner::Host => true,
        };
        Self {
            live: self.live.iter().filter(seen).cloned().collect(),
            freed: self.freed.clone(),
            viewer: Some((device, visible)),
        }
    }

    /// As [`Self::find`], for somebody who comes again: looks first where `hint` says, and leaves there
    /// where it was.
    ///
    /// # Errors
    /// As [`Self::find`].
    #[inline]
    pub fn find_again(
        &self,
        address: u64,
        bytes: u64,
        hint: &AtomicUsize,
    ) -> Result<usize, AddressError> {
        let last = hint.load(Ordering::Relaxed);
        if let Some(allocation) = self.live.get(last) {
            let offset = address.wrapping_sub(allocation.base);
            if offset < allocation.bytes && bytes <= allocation.bytes - offset {
                return Ok(last);
            }
        }
        let found = self.find(address, bytes)?;
        hint.store(found, Ordering::Relaxed);
        Ok(found)
    }

    /// The allocation with an index that [`Self::find`] returned.
    #[inline]
    pub fn get(&self, index: usize) -> &Allocation {
        &self.live[index]
    }

    /// All live allocations, by address.
    pub fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.live.iter().map(|allocation| &**allocation)
    }
}

/// The device in whose address space an address is.
fn device_of(address: u64) -> Option<u32> {
    let device = address.checked_sub(DEVICE_BASE)? >> DEVICE_SHIFT;
    (device < 64).then_some(device as u32)
}

/// The memory of the whole machine.
pub struct Memory {
    table: RwLock<Arc<Table>>,
    next: Vec<AtomicU64>,
    track: bool,
}

impl Memory {
    /// Memory of `devices` devices; `track_writes` keeps one bit a byte for the check of
    /// uninitialised reads.
    pub fn new(devices: u32, track_writes: bool) -> Self {
        let start = |device| DEVICE_BASE + (u64::from(device) << DEVICE_SHIFT);
        Self {
            table: RwLock::default(),
            next: (0..devices)
                .map(|device| AtomicU64::new(start(device)))
                .collect(),
            track: track_writes,
        }
    }

    /// The allocations as they are now.
    pub fn snapshot(&self) -> Arc<Table> {
        Arc::clone(
            &self
                .table
                .read()
                .unwrap_or_else(|poison| poison.into_inner()),
        )
    }

    fn edit<R>(&self, f: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self
            .table
            .write()
            .unwrap_or_else(|poison| poison.into_inner());
        f(Arc::make_mut(&mut table))
    }

    fn insert(&self, allocation: Allocation) -> Arc<Allocation> {
        let allocation = Arc::new(allocation);
        self.edit(|table| {
            let at = table
                .live
                .partition_point(|other| other.base < allocation.base);
            table.live.insert(at, Arc::clone(&allocation));
        });
        allocation
    }

    /// Allocates zeroed, "never written" memory on a device, aligned to 512 bytes. `None` when the host
    /// has no memory left or the device does not exist.
    pub fn allocate(&self, owner: Owner, bytes: u64, read_only: bool) -> Option<Arc<Allocation>> {
        let (Owner::Device(device) | Owner::Module(device)) = owner else {
            return None;
        };
        let limit = 1 << (DEVICE_SHIFT - 1);
        let span = bytes.checked_add(2 * GUARD_BYTES - 1)? / GUARD_BYTES * GUARD_BYTES;
        if span >= limit {
            return None;
        }
        let next = self.next.get(device as usize)?;
        let base = next.fetch_add(span, Ordering::Relaxed);
        let end = DEVICE_BASE + (u64::from(device + 1) << DEVICE_SHIFT);
        if base + span > end {
            return None;
        }
        Some(self.insert(Allocation::new(base, bytes, owner, read_only, self.track)?))
    }

    /// Makes `bytes` bytes of host memory usable by kernels under their host address. `None` when the
    /// range overlaps one that is known.
    ///
    /// # Safety
    /// The range stays valid and is not freed before [`Self::free`] of it returned.
    pub unsafe fn register_host(&self, data: NonNull<u8>, bytes: u64) -> Option<Arc<Allocation>> {
        let base = data.as_ptr() as u64;
        let end = base.checked_add(bytes)?;
        let overlaps = self
            .snapshot()
            .live
            .iter()
            .any(|a| a.base < end && base < a.base + a.bytes);
        (!overlaps).then(|| {
            self.insert(Allocation {
                base,
                bytes,
                data,
                layout: None,
                owner: Owner::Host,
                read_only: false,
                freed: AtomicBool::new(false),
                // What the host wrote is unknown here: all of it counts as written.
                written: Box::default(),
            })
        })
    }

    /// Frees the allocation that starts at `base` and returns it; the bytes go when the last snapshot
    /// does.
    ///
    /// # Errors
    /// [`AddressError`] when nothing starts there or it is free already.
    pub fn free(&self, base: u64) -> Result<Arc<Allocation>, AddressError> {
        self.edit(|table| {
            let index = table.find(base, 0)?;
            let allocation = Arc::clone(&table.live[index]);
            if allocation.base != base {
                let near = format!(
                    "; the allocation around it starts at {:#x}",
                    allocation.base
                );
                return Err(AddressError::Unmapped {
                    address: base,
                    near,
                });
            }
            table.live.remove(index);
            allocation.freed.store(true, Ordering::Relaxed);
            if allocation.owner != Owner::Host {
                let at = table.freed.partition_point(|&(other, _)| other < base);
                table.freed.insert(at, (base, allocation.bytes));
            }
            Ok(allocation)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_what_they_are() {
        let memory = Memory::new(2, true);
        let a = memory.allocate(Owner::Device(0), 100, false).unwrap();
        let b = memory.allocate(Owner::Device(1), 8, false).unwrap();
        assert!(b.base() - a.base() >= 1 << 39);
        let table = memory.snapshot();
        assert_eq!(
            table.get(table.find(a.base() + 96, 4).unwrap()).base(),
            a.base()
        );
        assert!(matches!(
            table.find(a.base() + 98, 4),
            Err(AddressError::PastEnd { .. })
        ));
        assert!(matches!(
            table.find(a.base() + 100, 4),
            Err(AddressError::Unmapped { .. })
        ));
        memory.free(a.base()).unwrap();
        let later = memory.snapshot();
        assert!(matches!(
            later.find(a.base(), 4),
            Err(AddressError::Freed { .. })
        ));
        assert!(memory.free(a.base()).is_err());
        // The snapshot of before still reads it.
        assert_eq!(table.get(0).load32(0), 0);
    }

    #[test]
    fn written_bits_follow_the_bytes() {
        let memory = Memory::new(1, true);
        let a = memory.allocate(Owner::Device(0), 200, false).unwrap();
        assert!(!a.is_written(0, 1));
        a.write(60, &[1; 10]);
        assert!(a.is_written(60, 10));
        assert!(!a.is_written(59, 2) && !a.is_written(69, 2));
        a.mark_unwritten(64, 1);
        assert!(!a.is_written(60, 10) && a.is_written(60, 4));
        let mut out = [0; 12];
        a.read(59, &mut out);
        assert_eq!(out, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn too_much_is_none() {
        let memory = Memory::new(1, false);
        assert!(memory.allocate(Owner::Device(0), u64::MAX, false).is_none());
        assert!(memory.allocate(Owner::Device(0), 1 << 50, false).is_none());
        assert!(memory.allocate(Owner::Device(1), 1, false).is_none());
    }
}
