//! Events: points in the work of streams.

use std::sync::Arc;

use super::machine::Machine;
use super::queue::{EventState, Queues};
use super::work::{Mark, Point, Work};
use super::{Error, Event, Result, Stream};

/// Nanoseconds of a tick of virtual time.
const NANOSECONDS_OF_A_TICK: f64 = 1.0;

impl Queues {
    pub(super) fn event(&mut self, event: Event) -> Result<&mut EventState> {
        self.device(event.device)?;
        self.events
            .get_mut(&event.id)
            .filter(|state| state.device == event.device)
            .ok_or_else(|| Error::InvalidHandle(format!("event {} does not exist", event.id)))
    }
}

impl Machine {
    /// Makes an event of a device.
    ///
    /// # Errors
    /// A device that does not exist or has failed.
    pub fn event(&self, device: u32) -> Result<Event> {
        let mut queues = self.shared.queues();
        queues.healthy(device)?;
        let id = queues.take_id()?;
        let state = EventState {
            device,
            last: None,
            captured: None,
        };
        queues.events.insert(id, state);
        Ok(Event { id, device })
    }

    /// Destroys an event. Whoever waits for it still does.
    ///
    /// # Errors
    /// An event that does not exist.
    pub fn destroy_event(&self, event: Event) -> Result<()> {
        let mut queues = self.shared.queues();
        queues.event(event)?;
        queues.events.remove(&event.id);
        Ok(())
    }

    /// Records an event: it is complete when all work that is in the stream now is.
    ///
    /// # Errors
    /// A stream or event that does not exist; a stream of another device.
    pub fn record(&self, event: Event, stream: Stream) -> Result<()> {
        if event.device != stream.device {
            return Err(Error::InvalidHandle(format!(
                "event {} is of device {}, stream {} of device {}",
                event.id, event.device, stream.id, stream.device
            )));
        }
        let mut queues = self.shared.queues();
        queues.lane(stream)?;
        queues.event(event)?;
        if queues.capture_record(stream, event)? {
            return Ok(());
        }
        let point = Point::default();
        queues.may_enqueue(stream)?;
        queues.push(stream.id, Work::Record(Arc::clone(&point)));
        let state = queues.event(event)?;
        state.last = Some((point, stream.id));
        state.captured = None;
        drop(queues);
        self.shared.wake.notify_all();
        Ok(())
    }

    fn point(queues: &mut Queues, event: Event) -> Result<Option<Point>> {
        let state = queues.event(event)?;
        if state.captured.is_some() {
            return Err(Error::Capture(format!(
                "event {} was recorded in a stream that is captured",
                event.id
            )));
        }
        Ok(state.last.as_ref().map(|(point, _)| Arc::clone(point)))
    }

    /// Whether an event is complete, as one that was never recorded is. Runs the machine for a moment.
    ///
    /// # Errors
    /// [`NotReady`](Error::NotReady) if it is not; a fault of its device.
    pub fn query_event(&self, event: Event) -> Result<()> {
        let point = Self::point(&mut self.shared.queues(), event)?;
        self.ask(|queues| Self::reached(queues, event, point.as_ref()))
    }

    /// Waits for an event.
    ///
    /// # Errors
    /// The fault that its device ended with.
    pub fn synchronize_event(&self, event: Event) -> Result<()> {
        let point = Self::point(&mut self.shared.queues(), event)?;
        self.wait_until(|queues| Self::reached(queues, event, point.as_ref()))
    }

    fn reached(queues: &mut Queues, event: Event, point: Option<&Point>) -> Result<Option<()>> {
        queues.healthy(event.device)?;
        let Some(point) = point else {
            return Ok(Some(()));
        };
        Ok(point
            .get()
            .map(|mark| mark.clock.clone())
            .map(|clock| queues.host.join(&clock)))
    }

    /// Virtual time between two events of a device, in milliseconds: see the
    /// [module](super#time).
    ///
    /// # Errors
    /// An event that was never recorded, or is not complete; events of two devices.
    pub fn elapsed_ms(&self, start: Event, end: Event) -> Result<f32> {
        if start.device != end.device {
            return Err(Error::InvalidHandle(format!(
                "events of devices {} and {}, which have no time in common",
                start.device, end.device
            )));
        }
        let mut queues = self.shared.queues();
        queues.healthy(start.device)?;
        let mut ticks = |event| -> Result<i128> {
            let Some(point) = Self::point(&mut queues, event)? else {
                return Err(Error::InvalidHandle(format!(
                    "event {} was never recorded",
                    event.id
                )));
            };
            let mark: &Mark = point.get().ok_or(Error::NotReady)?;
            Ok(i128::from(mark.ticks))
        };
        let ticks = ticks(end)? - ticks(start)?;
        Ok((ticks as f64 * NANOSECONDS_OF_A_TICK / 1e6) as f32)
    }
}
