//! Workspace arithmetic: the size of a workspace and the addresses in it come from the same code.

use std::marker::PhantomData;

use bytemuck::Pod;

use crate::{DeviceSliceMut, Error, Result};

/// Where an array stands in a workspace.
#[derive(Debug)]
pub struct Region<T> {
    offset: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<T> Clone for Region<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Region<T> {}

impl<T> PartialEq for Region<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.offset, self.len) == (other.offset, other.len)
    }
}

impl<T> Eq for Region<T> {}

impl<T> Region<T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A plan of arrays, one behind the other.
#[derive(Debug, Clone, Default)]
pub struct WorkspaceLayout {
    bytes: usize,
}

impl WorkspaceLayout {
    /// Every array starts at a multiple of this many bytes.
    pub const ALIGNMENT: usize = 256;

    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an array of `len` elements.
    ///
    /// # Errors
    /// [`Error::Overflow`].
    pub fn array<T: Pod>(&mut self, what: &'static str, len: usize) -> Result<Region<T>> {
        let overflow = || Error::Overflow {
            what,
            detail: format!("{len} elements of {} bytes", size_of::<T>()),
            limit: isize::MAX as u64,
        };
        let offset = self.bytes;
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(overflow)?;
        let end = offset.checked_add(bytes).ok_or_else(overflow)?;
        let end = end.checked_next_multiple_of(Self::ALIGNMENT);
        self.bytes = end
            .filter(|&end| end <= isize::MAX as usize)
            .ok_or_else(overflow)?;
        Ok(Region {
            offset,
            len,
            element: PhantomData,
        })
    }

    /// Bytes of a workspace that holds all arrays.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Device memory that a layout is laid over. The caller owns it; its contents mean nothing between
/// calls.
#[derive(Debug)]
pub struct Workspace<'a> {
    memory: DeviceSliceMut<'a, u8>,
}

impl<'a> Workspace<'a> {
    /// Lays `layout` over `memory`.
    ///
    /// # Errors
    /// [`Error::TooSmall`] with both sizes; [`Error::BadPointer`] when it does not start at a
    /// multiple of [`WorkspaceLayout::ALIGNMENT`].
    pub fn new(memory: DeviceSliceMut<'a, u8>, layout: &WorkspaceLayout) -> Result<Self> {
        if memory.len() < layout.bytes() {
            return Err(Error::TooSmall {
                what: "the workspace, in bytes,",
                actual: memory.len(),
                needed: layout.bytes(),
            });
        }
        let ptr = memory.ptr().0;
        if !ptr.is_multiple_of(WorkspaceLayout::ALIGNMENT as u64) {
            return Err(Error::BadPointer {
                what: "the workspace",
                ptr,
                reason: format!("must be a multiple of {} bytes", WorkspaceLayout::ALIGNMENT),
            });
        }
        Ok(Self { memory })
    }

    /// The array of a region. Regions of one layout do not overlap, which is why several may be
    /// held at once.
    ///
    /// # Errors
    /// [`Error::TooSmall`] for a region of a larger layout.
    pub fn array<T: Pod>(&self, region: Region<T>) -> Result<DeviceSliceMut<'a, T>> {
        let needed = region.offset + region.len * size_of::<T>();
        if needed > self.memory.len() {
            return Err(Error::TooSmall {
                what: "the workspace, in bytes,",
                actual: self.memory.len(),
                needed,
            });
        }
        let ptr = match region.len {
            0 => 0,
            _ => self.memory.ptr().0 + region.offset as u64,
        };
        Ok(DeviceSliceMut::trusted(ptr, region.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_follow_each_other_aligned() {
        let mut layout = WorkspaceLayout::new();
        let a = layout.array::<u8>("a", 3).unwrap();
        let b = layout.array::<f64>("b", 0).unwrap();
        let c = layout.array::<f64>("c", 33).unwrap();
        assert_eq!((a.offset, b.offset, c.offset), (0, 256, 256));
        assert_eq!(layout.bytes(), 256 + 512);
        let memory = DeviceSliceMut::<u8>::trusted(1 << 20, layout.bytes());
        let workspace = Workspace::new(memory, &layout).unwrap();
        assert_eq!(workspace.array(c).unwrap().ptr().0, (1 << 20) + 256);
        assert_eq!(workspace.array(c).unwrap().len(), 33);
        let small = DeviceSliceMut::<u8>::trusted(1 << 20, layout.bytes() - 1);
        let error = Workspace::new(small, &layout).unwrap_err().to_string();
        assert_eq!(
            error,
            "the workspace, in bytes, holds 767, but 768 are needed"
        );
        let skewed = DeviceSliceMut::<u8>::trusted((1 << 20) + 16, layout.bytes());
        assert!(Workspace::new(skewed, &layout).is_err());
        assert!(layout.array::<f64>("huge", usize::MAX / 4).is_err());
    }
}
