//! Streams and events.

use std::any::Any;
use std::sync::Arc;

use bytemuck::Pod;

use crate::driver::{Driver, RawEvent, RawStream};
use crate::{DeviceSlice, DeviceSliceMut, Error, Graph, Result};

/// A queue of work of a device: what is put into it happens in order, after the call returns.
///
/// Clones are the same queue.
#[derive(Clone)]
pub struct Stream {
    shared: Arc<Shared>,
}

struct Shared {
    driver: Arc<dyn Driver>,
    raw: RawStream,
    owner: Owner,
}

/// Who destroys a stream.
pub(crate) enum Owner {
    /// The last clone of the [`Stream`].
    Ours,
    /// Someone else, later.
    Borrowed,
    /// What is kept here.
    Kept { _by: Arc<dyn Any + Send + Sync> },
}

impl Drop for Shared {
    fn drop(&mut self) {
        if matches!(self.owner, Owner::Ours) {
            self.driver.destroy_stream(self.raw);
        }
    }
}

impl Stream {
    pub(crate) fn new(driver: Arc<dyn Driver>, raw: RawStream, owner: Owner) -> Self {
        let shared = Arc::new(Shared { driver, raw, owner });
        Self { shared }
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.shared.driver
    }

    pub(crate) fn raw(&self) -> RawStream {
        self.shared.raw
    }

    /// The driver's handle: a `CUstream` on CUDA.
    pub fn handle(&self) -> u64 {
        self.shared.raw.0
    }

    /// Waits until everything in it is done.
    ///
    /// # Errors
    /// [`Error::Timeout`]; a fault of the device; on the virtual GPU [`Error::Checks`].
    pub fn synchronize(&self) -> Result<()> {
        self.driver().synchronize(self.raw())
    }

    /// Copies `values` to the start of `to`; `values` may change afterwards.
    ///
    /// # Errors
    /// More values than elements; what the driver says.
    pub fn write<T: Pod>(&self, to: DeviceSliceMut<'_, T>, values: &[T]) -> Result<()> {
        let to = to.part("the buffer to write to, in elements,", 0, values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        self.driver()
            .write(self.raw(), to.ptr().0, bytemuck::cast_slice(values))
    }

    /// Copies `from` to the host and waits for it.
    ///
    /// # Errors
    /// What the driver says; on the virtual GPU what the checks found.
    pub fn read<T: Pod>(&self, from: DeviceSlice<'_, T>) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); from.len()];
        self.read_into(from, &mut values)?;
        Ok(values)
    }

    /// Copies `from` to `to`, which is as long, and waits for it.
    ///
    /// # Errors
    /// As [`Stream::read`]; [`Error::Shape`].
    pub fn read_into<T: Pod>(&self, from: DeviceSlice<'_, T>, to: &mut [T]) -> Result<()> {
        if to.len() != from.len() {
            return Err(Error::Shape {
                what: "the length of what is read into",
                actual: to.len(),
                expected: from.len(),
            });
        }
        if to.is_empty() {
            return self.synchronize();
        }
        let bytes = bytemuck::cast_slice_mut(to);
        self.driver().read(self.raw(), from.ptr().0, bytes)
    }

    /// Copies on the device; both have the same length.
    ///
    /// # Errors
    /// [`Error::Shape`]; what the driver says.
    pub fn copy<T: Pod>(&self, from: DeviceSlice<'_, T>, to: DeviceSliceMut<'_, T>) -> Result<()> {
        if to.len() != from.len() {
            return Err(Error::Shape {
                what: "the length of the copy's destination",
                actual: to.len(),
                expected: from.len(),
            });
        }
        let bytes = size_of::<T>() as u64 * from.len() as u64;
        match bytes {
            0 => Ok(()),
            bytes => self
                .driver()
                .copy(self.raw(), to.ptr().0, from.ptr().0, bytes),
        }
    }

    /// Sets every byte of `to`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn fill<T: Pod>(&self, to: DeviceSliceMut<'_, T>, byte: u8) -> Result<()> {
        let bytes = size_of::<T>() as u64 * to.len() as u64;
        match bytes {
            0 => Ok(()),
            bytes => self.driver().fill(self.raw(), to.ptr().0, byte, bytes),
        }
    }

    /// An event behind everything that is in the stream now.
    ///
    /// # Errors
    /// What the driver says.
    pub fn record(&self) -> Result<Event> {
        let raw = self.driver().create_event()?;
        let event = Event {
            driver: self.driver().clone(),
            raw,
        };
        self.driver().record(raw, self.raw())?;
        Ok(event)
    }

    /// Lets what is put into this stream from now on wait for the event.
    ///
    /// # Errors
    /// An event of another device; what the driver says.
    pub fn wait(&self, event: &Event) -> Result<()> {
        if !Arc::ptr_eq(self.driver(), &event.driver) {
            return Err(Error::OtherDevice { what: "the event" });
        }
        self.driver().wait_event(self.raw(), event.raw)
    }

    /// Runs `work`, which puts work into this stream, and returns that as a graph instead of doing
    /// it.
    ///
    /// # Errors
    /// What `work` returns; what the driver says, for example to a synchronisation inside.
    pub fn capture<E: From<Error>>(
        &self,
        work: impl FnOnce(&Self) -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        self.driver().begin_capture(self.raw())?;
        let done = work(self);
        let graph = self.driver().end_capture(self.raw());
        done?;
        Ok(Graph::new(self.driver().clone(), graph?))
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stream").field(&self.handle()).finish()
    }
}

/// A point in a stream's work.
pub struct Event {
    driver: Arc<dyn Driver>,
    raw: RawEvent,
}

impl Event {
    /// Milliseconds from `start` to this event on the device; waits for both.
    ///
    /// # Errors
    /// Events of different devices; what the driver says.
    pub fn elapsed_ms(&self, start: &Event) -> Result<f32> {
        if !Arc::ptr_eq(&self.driver, &start.driver) {
            return Err(Error::OtherDevice { what: "the event" });
        }
        self.driver.elapsed_ms(start.raw, self.raw)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.driver.destroy_event(self.raw);
    }
}
