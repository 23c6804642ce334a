//! Views of device memory: an address, a length, and a lifetime.
//!
//! The device runs behind the host: a view says that memory is there and of which type, not that no
//! kernel is writing it. Order comes from streams.

use std::marker::PhantomData;

use bytemuck::Pod;
use tollgate_kernels::abi::DevicePtr;

use crate::{Error, Result};

/// `len` elements of device memory, to be read.
#[derive(Debug)]
pub struct DeviceSlice<'a, T> {
    ptr: u64,
    len: usize,
    lifetime: PhantomData<&'a [T]>,
}

/// `len` elements of device memory, to be written.
#[derive(Debug)]
pub struct DeviceSliceMut<'a, T> {
    ptr: u64,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<T> Clone for DeviceSlice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DeviceSlice<'_, T> {}

/// Refuses what cannot be the address of `elems` elements.
fn check_pointer<T>(what: &'static str, ptr: u64, elems: usize) -> Result<()> {
    let refuse = |reason: String| Err(Error::BadPointer { what, ptr, reason });
    let align = align_of::<T>() as u64;
    if !ptr.is_multiple_of(align) {
        return refuse(format!("must be a multiple of {align} bytes"));
    }
    if elems > 0 && ptr == 0 {
        return refuse(format!("null, but {elems} elements are needed"));
    }
    let bytes = (elems as u64).checked_mul(size_of::<T>() as u64);
    match bytes.and_then(|bytes| ptr.checked_add(bytes)) {
        Some(_) => Ok(()),
        None => refuse(format!(
            "{elems} elements of {} bytes from here leave the address space",
            size_of::<T>()
        )),
    }
}

impl<'a, T: Pod> DeviceSlice<'a, T> {
    /// Memory that another framework owns.
    ///
    /// # Errors
    /// A null pointer with elements, one that is not aligned to `T`, a range that wraps around.
    ///
    /// # Safety
    /// `len` elements from `ptr` are memory of the device that the view is used with, they live as
    /// long as `'a` and as long as work that was given them is under way.
    pub unsafe fn from_raw(what: &'static str, ptr: u64, len: usize) -> Result<Self> {
        check_pointer::<T>(what, ptr, len)?;
        Ok(Self::trusted(ptr, len))
    }

    pub(crate) fn trusted(ptr: u64, len: usize) -> Self {
        Self {
            ptr,
            len,
            lifetime: PhantomData,
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its address.
    pub fn ptr(&self) -> DevicePtr {
        DevicePtr(self.ptr)
    }

    /// `len` elements from `start`.
    ///
    /// # Errors
    /// [`Error::TooSmall`] when they are not all in it.
    pub fn part(&self, what: &'static str, start: usize, len: usize) -> Result<DeviceSlice<'a, T>> {
        let ptr = part::<T>(what, self.ptr, self.len, start, len)?;
        Ok(Self::trusted(ptr, len))
    }

    /// As `[rows, cols]` with `stride` elements from row to row.
    ///
    /// # Errors
    /// A stride below `cols`; [`Error::TooSmall`] when the last row does not fit.
    pub fn rows(
        self,
        what: &'static str,
        rows: usize,
        cols: usize,
        stride: usize,
    ) -> Result<DeviceRows<'a, T>> {
        check_rows(what, self.len, rows, cols, stride)?;
        Ok(DeviceRows {
            slice: self,
            rows,
            cols,
            stride,
        })
    }
}

impl<'a, T: Pod> DeviceSliceMut<'a, T> {
    /// Memory that another framework owns.
    ///
    /// # Errors
    /// As [`DeviceSlice::from_raw`].
    ///
    /// # Safety
    /// As [`DeviceSlice::from_raw`], and nothing else uses the elements meanwhile.
    pub unsafe fn from_raw(what: &'static str, ptr: u64, len: usize) -> Result<Self> {
        check_pointer::<T>(what, ptr, len)?;
        Ok(Self::trusted(ptr, len))
    }

    pub(crate) fn trusted(ptr: u64, len: usize) -> Self {
        Self {
            ptr,
            len,
            lifetime: PhantomData,
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its address.
    pub fn ptr(&self) -> DevicePtr {
        DevicePtr(self.ptr)
    }

    /// The same memory for a shorter time.
    pub fn reborrow(&mut self) -> DeviceSliceMut<'_, T> {
        DeviceSliceMut::trusted(self.ptr, self.len)
    }

    /// The same memory, to be read.
    pub fn as_slice(&self) -> DeviceSlice<'_, T> {
        DeviceSlice::trusted(self.ptr, self.len)
    }

    /// The same memory, to be read for as long as it was to be written.
    pub fn into_slice(self) -> DeviceSlice<'a, T> {
        DeviceSlice::trusted(self.ptr, self.len)
    }

    /// `len` elements from `start`.
    ///
    /// # Errors
    /// [`Error::TooSmall`] when they are not all in it.
    pub fn part(
        self,
        what: &'static str,
        start: usize,
        len: usize,
    ) -> Result<DeviceSliceMut<'a, T>> {
        let ptr = part::<T>(what, self.ptr, self.len, start, len)?;
        Ok(Self::trusted(ptr, len))
    }

    /// As `[rows, cols]` with `stride` elements from row to row.
    ///
    /// # Errors
    /// As [`DeviceSlice::rows`].
    pub fn rows(
        self,
        what: &'static str,
        rows: usize,
        cols: usize,
        stride: usize,
    ) -> Result<DeviceRowsMut<'a, T>> {
        check_rows(what, self.len, rows, cols, stride)?;
        Ok(DeviceRowsMut {
            slice: self,
            rows,
            cols,
            stride,
        })
    }
}

fn part<T>(what: &'static str, ptr: u64, held: usize, start: usize, len: usize) -> Result<u64> {
    let needed = start.saturating_add(len);
    if needed > held {
        return Err(Error::TooSmall {
            what,
            actual: held,
            needed,
        });
    }
    Ok(ptr + (start * size_of::<T>()) as u64)
}

fn check_rows(
    what: &'static str,
    held: usize,
    rows: usize,
    cols: usize,
    stride: usize,
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    if stride < cols {
        return Err(Error::TooSmall {
            what,
            actual: stride,
            needed: cols,
        });
    }
    let needed = (rows - 1)
        .checked_mul(stride)
        .and_then(|elems| elems.checked_add(cols));
    match needed {
        Some(needed) if needed <= held => Ok(()),
        Some(needed) => Err(Error::TooSmall {
            what,
            actual: held,
            needed,
        }),
        None => Err(Error::Overflow {
            what,
            detail: format!("{rows} rows · stride {stride}"),
            limit: usize::MAX as u64,
        }),
    }
}

/// `[rows, cols]` of device memory, to be read; row r starts `r · stride` elements in.
#[derive(Debug)]
pub struct DeviceRows<'a, T> {
    slice: DeviceSlice<'a, T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

/// `[rows, cols]` of device memory, to be written.
#[derive(Debug)]
pub struct DeviceRowsMut<'a, T> {
    slice: DeviceSliceMut<'a, T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<T> Clone for DeviceRows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DeviceRows<'_, T> {}

macro_rules! shape {
    ($view:ident) => {
        impl<T: Pod> $view<'_, T> {
            /// Rows.
            pub fn num_rows(&self) -> usize {
                self.rows
            }

            /// Columns.
            pub fn num_cols(&self) -> usize {
                self.cols
            }

            /// Elements from row to row.
            pub fn stride(&self) -> usize {
                self.stride
            }

            /// Address of the first element.
            pub fn ptr(&self) -> DevicePtr {
                self.slice.ptr()
            }

            /// The largest power of two, at most 16, that divides the address of every row.
            pub fn row_alignment(&self) -> u64 {
                let pitch = (self.stride * size_of::<T>()) as u64;
                let both = self.slice.ptr().0 | if self.rows > 1 { pitch } else { 0 };
                1 << both.trailing_zeros().min(4)
            }
        }
    };
}

shape!(DeviceRows);
shape!(DeviceRowsMut);

impl<'a, T: Pod> DeviceRowsMut<'a, T> {
    /// The same memory for a shorter time.
    pub fn reborrow(&mut self) -> DeviceRowsMut<'_, T> {
        DeviceRowsMut {
            slice: self.slice.reborrow(),
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        }
    }

    /// The same memory, to be read.
    pub fn as_rows(&self) -> DeviceRows<'_, T> {
        DeviceRows {
            slice: self.slice.as_slice(),
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        }
    }

    /// The same memory, to be read for as long as it was to be written.
    pub fn into_rows(self) -> DeviceRows<'a, T> {
        DeviceRows {
            slice: self.slice.into_slice(),
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
        }
    }
}
