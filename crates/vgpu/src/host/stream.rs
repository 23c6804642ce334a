//! Streams: making them, and waiting for them.

use super::machine::Machine;
use super::queue::{Lane, Queues};
use super::work::{HostFunction, Work};
use super::{Event, Result, Stream, StreamFlags};

impl Machine {
    /// The default stream of a device, ordered with every stream of it that is not `non_blocking`.
    ///
    /// # Errors
    /// A device that does not exist.
    pub fn default_stream(&self, device: u32) -> Result<Stream> {
        self.shared.queues().device(device)?;
        let id = device;
        Ok(Stream { id, device })
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// A device that does not exist or has failed.
    pub fn stream(&self, device: u32, flags: StreamFlags) -> Result<Stream> {
        self.shared.queues().add_stream(device, flags)
    }

    /// Destroys a stream. Its work is still done.
    ///
    /// # Errors
    /// A stream that does not exist, or is a default stream.
    pub fn destroy_stream(&self, stream: Stream) -> Result<()> {
        let mut queues = self.shared.queues();
        if stream.is_default() {
            return Err(super::Error::InvalidHandle(
                "a default stream cannot be destroyed".to_owned(),
            ));
        }
        queues.lane(stream)?;
        queues.leave_stream(stream);
        Ok(())
    }

    /// How a stream was made.
    ///
    /// # Errors
    /// A stream that does not exist; a fault of its device.
    pub fn stream_flags(&self, stream: Stream) -> Result<StreamFlags> {
        Ok(self.shared.queues().lane(stream)?.flags)
    }

    /// Whether a stream has done everything. Runs the machine for a moment, so that asking again and
    /// again gets there.
    ///
    /// # Errors
    /// [`NotReady`](super::Error::NotReady) if it has not; a fault of its device.
    pub fn query(&self, stream: Stream) -> Result<()> {
        let order = self.last_order(stream, "a query")?;
        self.ask(|queues| {
            queues.healthy(stream.device)?;
            Ok(queues
                .is_past(stream.id, order)
                .then(|| queues.learn(stream.id)))
        })
    }

    /// Waits until a stream has done everything that was put into it.
    ///
    /// # Errors
    /// The fault that its device ended with; a stream that is captured.
    pub fn synchronize(&self, stream: Stream) -> Result<()> {
        let order = self.last_order(stream, "a wait for the stream")?;
        self.wait_for(stream, order)
    }

    fn last_order(&self, stream: Stream, what: &str) -> Result<u64> {
        let mut queues = self.shared.queues();
        queues.lane(stream)?;
        queues.refuse_capture(stream, what)?;
        Ok(queues.next_order)
    }

    /// Waits until a device has done everything that was put into its streams.
    ///
    /// # Errors
    /// The fault that the device ended with; a stream of it that is captured.
    pub fn synchronize_device(&self, device: u32) -> Result<()> {
        let (order, resets) = {
            let queues = self.shared.queues();
            let state = queues.healthy(device)?;
            queues.refuse_device_capture(device, "a wait for the device")?;
            (queues.next_order, state.resets)
        };
        self.wait_until(|queues| {
            if queues.healthy(device)?.resets != resets {
                return Ok(Some(()));
            }
            if !queues.device_is_past(device, order) {
                return Ok(None);
            }
            let clock = queues.device_clock(device);
            queues.host.join(&clock);
            Ok(Some(()))
        })
    }

    /// Lets a stream wait for what an event recorded last; an event that was never recorded is not
    /// waited for.
    ///
    /// # Errors
    /// A stream or event that does not exist.
    pub fn wait_event(&self, stream: Stream, event: Event) -> Result<()> {
        let point = {
            let mut queues = self.shared.queues();
            queues.lane(stream)?;
            if queues.capture_wait(stream, event)? {
                return Ok(());
            }
            let Some((point, _)) = queues.event(event)?.last.clone() else {
                return Ok(());
            };
            point
        };
        self.enqueue(stream, Work::Wait(vec![point]))?;
        Ok(())
    }

    /// Calls a function of the host in the stream's turn, from whichever host thread runs the machine
    /// then. The stream goes on when it has returned. It may use the machine, but not wait for its own
    /// stream.
    ///
    /// # Errors
    /// A stream that does not exist.
    pub fn call_host(&self, stream: Stream, function: HostFunction) -> Result<()> {
        self.enqueue(stream, Work::Host(function))?;
        Ok(())
    }
}

impl Queues {
    /// Makes a stream of a device that exists and has not failed.
    pub(super) fn add_stream(&mut self, device: u32, flags: StreamFlags) -> Result<Stream> {
        self.healthy(device)?;
        let id = self.take_id()?;
        let lane = Lane::new(device, flags);
        self.lanes.insert(id, lane);
        Ok(Stream { id, device })
    }

    /// No more calls for a stream; it goes when its work is done.
    pub(super) fn leave_stream(&mut self, stream: Stream) {
        let Some(lane) = self.lanes.get_mut(&stream.id) else {
            return;
        };
        lane.destroyed = true;
        lane.capture = None;
        self.remove_left(stream.id);
    }

    /// Removes a stream that was destroyed and has done its work.
    pub(super) fn remove_left(&mut self, stream: u32) {
        let done = |lane: &mut Lane| lane.destroyed && lane.queue.is_empty();
        let Some(lane) = self.lanes.get_mut(&stream) else {
            return;
        };
        if !done(lane) {
            return;
        }
        // What it did stays known to whoever waits for the whole device.
        let (device, clock) = (lane.device, lane.clock.clone());
        self.lanes.remove(&stream);
        self.gone.push(stream);
        if let Some(default) = self.lanes.get_mut(&device) {
            default.clock.join(&clock);
        }
    }

    /// The host learns what a stream did.
    fn learn(&mut self, stream: u32) {
        if let Some(lane) = self.lanes.get(&stream) {
            let clock = lane.clock.clone();
            self.host.join(&clock);
        }
    }
}
