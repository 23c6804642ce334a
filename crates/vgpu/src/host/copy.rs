//! Copies: boxes of bytes with pitches between any two places.

use std::sync::{Arc, Mutex};

use super::machine::{Machine, lock};
use super::work::Work;
use super::{Error, Result, Stream};

/// The shape of a copy. One row of `width` bytes is an ordinary copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape3d {
    /// Bytes of a row.
    pub width: u64,
    /// Rows of a slice.
    pub rows: u64,
    /// Slices.
    pub slices: u64,
    /// Bytes from a row of the target to the next.
    pub dst_pitch: u64,
    /// Rows from a slice of the target to the next.
    pub dst_slice_rows: u64,
    /// Bytes from a row of the source to the next.
    pub src_pitch: u64,
    /// Rows from a slice of the source to the next.
    pub src_slice_rows: u64,
}

/// Where a copy goes.
#[derive(Debug)]
pub enum Target<'a> {
    /// Memory of a device, or registered memory of the host.
    Memory(u64),
    /// Any memory of the host.
    Slice(&'a mut [u8]),
}

/// Where a copy comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Memory of a device, or registered memory of the host.
    Memory(u64),
    /// Any memory of the host.
    Slice(&'a [u8]),
}

impl Shape3d {
    /// `bytes` bytes in one piece.
    pub fn linear(bytes: u64) -> Self {
        Self::rows(bytes, 1, bytes, bytes)
    }

    /// A rectangle of `rows` rows.
    pub fn rows(width: u64, rows: u64, dst_pitch: u64, src_pitch: u64) -> Self {
        Self {
            width,
            rows,
            slices: 1,
            dst_pitch,
            dst_slice_rows: rows,
            src_pitch,
            src_slice_rows: rows,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.width == 0 || self.rows == 0 || self.slices == 0
    }

    /// Bytes that move.
    fn total(&self) -> u64 {
        self.width
            .saturating_mul(self.rows)
            .saturating_mul(self.slices)
    }

    /// Bytes from the first to behind the last one, of the target and the source.
    pub(super) fn extents(&self) -> Result<[u64; 2]> {
        let target = [self.dst_pitch, self.dst_slice_rows];
        let source = [self.src_pitch, self.src_slice_rows];
        let mut extents = [0; 2];
        for (extent, (side, [pitch, slice_rows])) in extents
            .iter_mut()
            .zip([("target", target), ("source", source)])
        {
            if self.is_empty() {
                continue;
            }
            if (self.rows > 1 || self.slices > 1) && pitch < self.width {
                return Err(Error::InvalidValue(format!(
                    "the {side}'s pitch of {pitch} is less than a row of {} bytes",
                    self.width
                )));
            }
            if self.slices > 1 && slice_rows < self.rows {
                return Err(Error::InvalidValue(format!(
                    "the {side}'s slices of {slice_rows} rows are less than the {} that are copied",
                    self.rows
                )));
            }
            let last = slice_rows
                .checked_mul(self.slices - 1)
                .and_then(|rows| rows.checked_add(self.rows - 1))
                .and_then(|rows| rows.checked_mul(pitch))
                .and_then(|start| start.checked_add(self.width));
            *extent = last.ok_or_else(|| {
                Error::InvalidValue(format!("the {side}'s box is larger than memory"))
            })?;
        }
        Ok(extents)
    }

    /// The same with a target, or a source, without gaps.
    fn dense(&self, target: bool) -> Self {
        let mut shape = *self;
        if target {
            (shape.dst_pitch, shape.dst_slice_rows) = (self.width, self.rows);
        } else {
            (shape.src_pitch, shape.src_slice_rows) = (self.width, self.rows);
        }
        shape
    }

    /// Calls `f(offset in the target, offset in the source, bytes)` for each run of bytes, which are
    /// rows, or more where there are no gaps between them.
    pub(super) fn runs<E>(
        &self,
        mut f: impl FnMut(u64, u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.is_empty() {
            return Ok(());
        }
        let (mut width, mut rows, mut slices) = (self.width, self.rows, self.slices);
        let dense = |pitch| pitch == self.width || self.rows == 1 && self.slices == 1;
        if dense(self.dst_pitch) && dense(self.src_pitch) {
            (width, rows) = (self.width * self.rows, 1);
            let whole = |slice_rows| slice_rows == self.rows || self.slices == 1;
            if whole(self.dst_slice_rows) && whole(self.src_slice_rows) {
                (width, slices) = (width * self.slices, 1);
            }
        }
        for slice in 0..slices {
            for row in 0..rows {
                f(
                    (slice * self.dst_slice_rows + row) * self.dst_pitch,
                    (slice * self.src_slice_rows + row) * self.src_pitch,
                    width,
                )?;
            }
        }
        Ok(())
    }
}

/// Rearranges bytes of the host; the slices hold the shape's extents.
fn rearrange(to: &mut [u8], from: &[u8], shape: &Shape3d) {
    let copied = shape.runs(|dst, src, bytes| -> Result<(), ()> {
        let (dst, src, bytes) = (dst as usize, src as usize, bytes as usize);
        to[dst..dst + bytes].copy_from_slice(&from[src..src + bytes]);
        Ok(())
    });
    debug_assert!(copied.is_ok(), "the closure returns no error");
}

fn holds(side: &str, have: usize, need: u64) -> Result<()> {
    if (have as u64) < need {
        return Err(Error::InvalidValue(format!(
            "the {side} slice has {have} bytes, the copy needs {need}"
        )));
    }
    Ok(())
}

impl Machine {
    /// Reads device memory (or registered memory of the host) in the default stream of the device that
    /// owns it, and waits.
    ///
    /// # Errors
    /// An address that is not memory; a fault of the device.
    pub fn read(&self, ptr: u64, out: &mut [u8]) -> Result<()> {
        self.read_on(self.home_stream(ptr)?, ptr, out)
    }

    /// Reads in a stream's turn, and waits for it.
    ///
    /// # Errors
    /// An address that is not memory; a fault of the device.
    pub fn read_on(&self, stream: Stream, ptr: u64, out: &mut [u8]) -> Result<()> {
        let shape = Shape3d::linear(out.len() as u64);
        self.copy_3d(stream, Target::Slice(out), Source::Memory(ptr), &shape)
    }

    /// Writes device memory (or registered memory of the host) in the default stream of the device
    /// that owns it, and waits.
    ///
    /// # Errors
    /// An address that is not memory; a fault of the device.
    pub fn write(&self, ptr: u64, from: &[u8]) -> Result<()> {
        let shape = Shape3d::linear(from.len() as u64);
        let stream = self.home_stream(ptr)?;
        self.copy_3d(stream, Target::Memory(ptr), Source::Slice(from), &shape)
    }

    /// Writes in a stream's turn. The bytes are taken at once, so `from` may change afterwards.
    ///
    /// # Errors
    /// An address that is not memory.
    pub fn write_async(&self, stream: Stream, ptr: u64, from: &[u8]) -> Result<()> {
        let shape = Shape3d::linear(from.len() as u64);
        if !shape.is_empty() {
            self.memory().snapshot().find(ptr, shape.width)?;
        }
        let bytes = Arc::from(from);
        let dst = ptr;
        self.enqueue(stream, Work::Put { dst, shape, bytes })?;
        Ok(())
    }

    /// Copies between any two places that the machine knows, in the default stream of the device that
    /// owns the target (or the source, when the target is the host's), and waits.
    ///
    /// # Errors
    /// An address that is not memory; a fault of the device.
    pub fn copy(&self, dst: u64, src: u64, bytes: u64) -> Result<()> {
        let shape = Shape3d::linear(bytes);
        let stream = self.copy_stream(dst, src)?;
        self.copy_3d(stream, Target::Memory(dst), Source::Memory(src), &shape)
    }

    /// Copies in the stream's turn.
    ///
    /// # Errors
    /// An address that is not memory.
    pub fn copy_async(&self, stream: Stream, dst: u64, src: u64, bytes: u64) -> Result<()> {
        self.copy_3d_async(stream, dst, src, &Shape3d::linear(bytes))
    }

    /// Copies a box in the stream's turn.
    ///
    /// # Errors
    /// An address that is not memory; pitches that are too small.
    pub fn copy_3d_async(&self, stream: Stream, dst: u64, src: u64, shape: &Shape3d) -> Result<()> {
        self.check_copy(dst, src, shape)?;
        let shape = *shape;
        self.enqueue(stream, Work::Copy { dst, src, shape })?;
        Ok(())
    }

    /// Copies a box in the stream's turn, and waits for it. Slices begin with the first byte of the box.
    ///
    /// # Errors
    /// An address that is not memory, a slice or pitches that are too small; a fault of the device.
    pub fn copy_3d(
        &self,
        stream: Stream,
        to: Target<'_>,
        from: Source<'_>,
        shape: &Shape3d,
    ) -> Result<()> {
        let [to_bytes, from_bytes] = shape.extents()?;
        match (to, from) {
            (Target::Memory(dst), Source::Memory(src)) => {
                self.check_copy(dst, src, shape)?;
                let shape = *shape;
                self.enqueue_and_wait(stream, Work::Copy { dst, src, shape })
            }
            (Target::Memory(dst), Source::Slice(from)) => {
                holds("source", from.len(), from_bytes)?;
                if !shape.is_empty() {
                    self.memory().snapshot().find(dst, to_bytes)?;
                }
                let mut bytes = vec![0; shape.total() as usize];
                rearrange(&mut bytes, from, &shape.dense(true));
                let shape = shape.dense(false);
                let bytes = bytes.into();
                self.enqueue_and_wait(stream, Work::Put { dst, shape, bytes })
            }
            (Target::Slice(to), Source::Memory(src)) => {
                holds("target", to.len(), to_bytes)?;
                if !shape.is_empty() {
                    self.memory().snapshot().find(src, from_bytes)?;
                }
                let into = Arc::new(Mutex::new(Vec::new()));
                let work = Work::Get {
                    src,
                    shape: shape.dense(true),
                    into: Arc::clone(&into),
                };
                self.enqueue_and_wait(stream, work)?;
                let bytes = lock(&into);
                if !shape.is_empty() && bytes.is_empty() {
                    // The device was reset by another host thread meanwhile.
                    return Err(Error::InvalidHandle(format!(
                        "stream {} is gone and has not read",
                        stream.id
                    )));
                }
                rearrange(to, &bytes, &shape.dense(false));
                Ok(())
            }
            (Target::Slice(to), Source::Slice(from)) => {
                holds("target", to.len(), to_bytes)?;
                holds("source", from.len(), from_bytes)?;
                rearrange(to, from, shape);
                Ok(())
            }
        }
    }

    pub(super) fn check_copy(&self, dst: u64, src: u64, shape: &Shape3d) -> Result<()> {
        let [to, from] = shape.extents()?;
        if !shape.is_empty() {
            let table = self.memory().snapshot();
            table.find(dst, to)?;
            table.find(src, from)?;
        }
        Ok(())
    }
}
