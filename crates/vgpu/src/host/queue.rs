//! The queues of all streams, and which of their entries may go on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::graph::{Capture, NodeId};
use super::handle::{Stream, StreamFlags};
use super::results::LaunchRecord;
use super::work::{Mark, Point, Work};
use super::{Error, Result};
use crate::machine::TraceLine;
use crate::memory::{Owner, Table};
use crate::race::Clock;
use crate::report::Report;

/// Reports kept until somebody takes them.
const MAX_REPORTS: usize = 1024;
/// Launch records kept until somebody takes them.
const MAX_RECORDS: usize = 1 << 16;

/// How far an entry of a queue is.
pub(super) enum Phase {
    Waiting,
    /// Under way; for a launch, the flag by which it lets a dependent launch start.
    Running(Option<Arc<AtomicBool>>),
    Done,
}

/// Work in a queue.
pub(super) struct Entry {
    /// Its number among everything that was ever put into a queue.
    pub(super) order: u64,
    /// Number of a launch.
    pub(super) launch: u32,
    pub(super) work: Work,
    /// What the host knew when it put it there.
    pub(super) host: Clock,
    pub(super) phase: Phase,
}

/// A stream.
pub(super) struct Lane {
    pub(super) device: u32,
    pub(super) flags: StreamFlags,
    pub(super) queue: VecDeque<Entry>,
    /// What its complete work did and knew.
    pub(super) clock: Clock,
    /// If a launch completed last: what was known before it, and what it did. A dependent launch behind
    /// it knows only the former until it waits, however late it starts.
    pub(super) last_launch: Option<(Clock, Clock)>,
    /// No more calls; goes when its work is done.
    pub(super) destroyed: bool,
    /// The capture it takes part in, and the nodes that the next one comes after.
    pub(super) capture: Option<(u64, Vec<NodeId>)>,
}

impl Lane {
    pub(super) fn new(device: u32, flags: StreamFlags) -> Self {
        Self {
            device,
            flags,
            queue: VecDeque::new(),
            clock: Clock::default(),
            last_launch: None,
            destroyed: false,
            capture: None,
        }
    }
}

/// A device.
#[derive(Default)]
pub(super) struct DeviceState {
    /// What it failed with.
    pub(super) fault: Option<Report>,
    /// Bytes allocated.
    pub(super) used: u64,
    /// Devices whose memory its kernels may touch, one bit each.
    pub(super) peers: u64,
    /// Virtual time.
    pub(super) ticks: u64,
    /// How often it was reset.
    pub(super) resets: u64,
}

/// An event.
pub(super) struct EventState {
    pub(super) device: u32,
    /// The point of its last record, and the stream that sets it.
    pub(super) last: Option<(Point, u32)>,
    /// The capture in which it was recorded last, and the nodes it comes after.
    pub(super) captured: Option<(u64, Vec<NodeId>)>,
}

/// An allocation that the host asked for.
pub(super) struct Allocated {
    pub(super) bytes: u64,
    pub(super) owner: Owner,
    /// How many were made before it, from 1.
    pub(super) number: u64,
    /// Memory that this machine allocated for the host and frees; `None` for registered memory and
    /// devices'.
    pub(super) host: Option<super::memory::HostBlock>,
}

/// Everything that calls of the host look at and change. Locked for moments only.
pub(super) struct Queues {
    pub(super) devices: Vec<DeviceState>,
    /// By number; the first are the devices' default streams.
    pub(super) lanes: BTreeMap<u32, Lane>,
    pub(super) events: HashMap<u32, EventState>,
    pub(super) captures: HashMap<u64, Capture>,
    pub(super) allocations: BTreeMap<u64, Allocated>,
    pub(super) host_used: u64,
    /// Numbers of streams, events and captures.
    pub(super) next_id: u32,
    pub(super) next_order: u64,
    pub(super) next_launch: u32,
    pub(super) next_allocation: u64,
    /// What the host knows.
    pub(super) host: Clock,
    /// Whether a host thread runs the machine.
    pub(super) driving: bool,
    pub(super) reports: Vec<Report>,
    pub(super) records: VecDeque<LaunchRecord>,
    pub(super) traces: Vec<(u32, Vec<TraceLine>)>,
    /// Memory that is gone, of which the race detector may forget all it knows.
    pub(super) forgotten: Vec<(u64, u64)>,
    /// Streams that are gone, likewise.
    pub(super) gone: Vec<u32>,
}

impl Queues {
    pub(super) fn new(devices: u32) -> Self {
        let lane = |device| (device, Lane::new(device, StreamFlags::default()));
        Self {
            devices: (0..devices).map(|_| DeviceState::default()).collect(),
            lanes: (0..devices).map(lane).collect(),
            events: HashMap::new(),
            captures: HashMap::new(),
            allocations: BTreeMap::new(),
            host_used: 0,
            next_id: devices,
            next_order: 0,
            next_launch: 0,
            next_allocation: 0,
            host: Clock::default(),
            driving: false,
            reports: Vec::new(),
            records: VecDeque::new(),
            traces: Vec::new(),
            forgotten: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub(super) fn device(&self, device: u32) -> Result<&DeviceState> {
        let count = self.devices.len() as u32;
        self.devices
            .get(device as usize)
            .ok_or(Error::NoDevice { device, count })
    }

    /// A device that exists and has not failed.
    pub(super) fn healthy(&self, device: u32) -> Result<&DeviceState> {
        let state = self.device(device)?;
        match &state.fault {
            Some(report) => Err(Error::Faulted(Box::new(report.clone()))),
            None => Ok(state),
        }
    }

    /// A stream that exists, on a device that has not failed.
    pub(super) fn lane(&mut self, stream: Stream) -> Result<&mut Lane> {
        self.healthy(stream.device)?;
        match self.lanes.get_mut(&stream.id) {
            Some(lane) if lane.device == stream.device && !lane.destroyed => Ok(lane),
            _ => Err(Error::InvalidHandle(format!(
                "stream {} does not exist",
                stream.id
            ))),
        }
    }

    pub(super) fn take_id(&mut self) -> Result<u32> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or_else(|| {
            Error::InvalidValue("4 billion streams and events were made".to_owned())
        })?;
        Ok(id)
    }

    /// Puts work at the end of a stream's queue; returns its number.
    pub(super) fn push(&mut self, stream: u32, work: Work) -> u64 {
        self.next_order += 1;
        let order = self.next_order;
        let launch = self.next_launch;
        if matches!(work, Work::Kernel(_)) {
            self.next_launch = launch.wrapping_add(1);
        }
        if let Some(lane) = self.lanes.get_mut(&stream) {
            lane.queue.push_back(Entry {
                order,
                launch,
                work,
                host: self.host.clone(),
                phase: Phase::Waiting,
            });
        }
        order
    }

    /// Whether a stream has completed everything up to a number.
    pub(super) fn is_past(&self, stream: u32, order: u64) -> bool {
        self.lanes
            .get(&stream)
            .and_then(|lane| lane.queue.front())
            .is_none_or(|front| front.order > order)
    }

    /// Whether a device has.
    pub(super) fn device_is_past(&self, device: u32, order: u64) -> bool {
        self.lanes
            .iter()
            .filter(|(_, lane)| lane.device == device)
            .all(|(&id, _)| self.is_past(id, order))
    }

    /// What a device's streams know together.
    pub(super) fn device_clock(&self, device: u32) -> Clock {
        let mut clock = Clock::default();
        for lane in self.lanes.values().filter(|lane| lane.device == device) {
            clock.join(&lane.clock);
        }
        clock
    }

    /// The entries that may start now: stream and place in its queue.
    pub(super) fn startable(&self, table: &Table, found: &mut Vec<(u32, usize)>) {
        found.clear();
        for (&id, lane) in &self.lanes {
            let Some(first) = lane.queue.front() else {
                continue;
            };
            let place = match &first.phase {
                Phase::Waiting => 0,
                Phase::Running(Some(dependents)) if dependents.load(Ordering::Acquire) => 1,
                _ => continue,
            };
            let Some(entry) = lane.queue.get(place) else {
                continue;
            };
            let free = matches!(entry.phase, Phase::Waiting)
                && (place == 0 || entry.work.is_dependent_launch())
                && self.is_in_turn(id, lane, entry.order);
            let ready = || match &entry.work {
                Work::Value(value) => value.is_ready(table),
                work => work.awaited().iter().all(|point| point.get().is_some()),
            };
            if free && ready() {
                found.push((id, place));
            }
        }
    }

    /// The order between a device's default stream and its blocking ones.
    fn is_in_turn(&self, id: u32, lane: &Lane, order: u64) -> bool {
        if lane.flags.non_blocking {
            return true;
        }
        if id != lane.device {
            return self.is_past(lane.device, order);
        }
        self.blocking(lane.device)
            .all(|(_, other)| other.queue.front().is_none_or(|front| front.order > order))
    }

    fn blocking(&self, device: u32) -> impl Iterator<Item = (u32, &Lane)> {
        self.lanes
            .iter()
            .map(|(&id, lane)| (id, lane))
            .filter(move |&(id, lane)| {
                lane.device == device && id != device && !lane.flags.non_blocking
            })
    }

    /// What an entry knows when it starts; and for a dependent launch what it will know when it has
    /// waited, if that is known now.
    pub(super) fn start_clock(&self, stream: u32, place: usize) -> (Clock, Option<Clock>) {
        let Some(lane) = self.lanes.get(&stream) else {
            return (Clock::default(), None);
        };
        let dependent = lane
            .queue
            .get(place)
            .is_some_and(|entry| entry.work.is_dependent_launch());
        let (mut clock, later) = match &lane.last_launch {
            Some((before, end)) if dependent && place == 0 => (before.clone(), Some(end.clone())),
            _ => (lane.clock.clone(), None),
        };
        if let Some(entry) = lane.queue.get(place) {
            clock.join(&entry.host);
            for mark in entry.work.awaited().iter().filter_map(|point| point.get()) {
                clock.join(&mark.clock);
            }
        }
        if stream == lane.device {
            for (_, other) in self.blocking(lane.device) {
                clock.join(&other.clock);
            }
        } else if !lane.flags.non_blocking
            && let Some(default) = self.lanes.get(&lane.device)
        {
            clock.join(&default.clock);
        }
        (clock, later)
    }

    /// An entry is complete: its stream knows `clock` now.
    pub(super) fn complete(&mut self, stream: u32, order: u64, clock: &Clock) {
        let Some(lane) = self.lanes.get_mut(&stream) else {
            return;
        };
        // After a fault or a reset of the device the entry is gone.
        let Some(entry) = lane.queue.iter_mut().find(|entry| entry.order == order) else {
            return;
        };
        entry.phase = Phase::Done;
        let launch = matches!(entry.work, Work::Kernel(_));
        lane.last_launch = launch.then(|| (lane.clock.clone(), clock.clone()));
        lane.clock.join(clock);
        while let Some(front) = lane.queue.front()
            && matches!(front.phase, Phase::Done)
        {
            lane.queue.pop_front();
        }
        self.remove_left(stream);
    }

    /// Throws away the work of a device. Whoever waits for a point in it goes on.
    pub(super) fn drop_work(&mut self, device: u32) {
        let ticks = self.devices[device as usize].ticks;
        for lane in self.lanes.values_mut().filter(|lane| lane.device == device) {
            for entry in lane.queue.drain(..) {
                if let Work::Record(point) = entry.work {
                    let clock = lane.clock.clone();
                    // A point under way may be set already.
                    let _ = point.set(Mark { clock, ticks });
                }
            }
        }
        let destroyed = self.lanes.iter().filter(|(_, lane)| lane.destroyed);
        let destroyed: Vec<u32> = destroyed.map(|(&id, _)| id).collect();
        destroyed.into_iter().for_each(|id| self.remove_left(id));
    }

    /// Keeps a report, unless one that waits to be taken says the same; tells whether it is new.
    pub(super) fn note(&mut self, report: &Report) -> bool {
        let line = |report: &Report| report.other.as_ref().map(|site| site.ptx_line);
        let known = self.reports.iter().any(|old| {
            old.kind == report.kind
                && old.kernel == report.kernel
                && old.device == report.device
                && old.site.ptx_line == report.site.ptx_line
                && line(old) == line(report)
                && (report.site.ptx_line != 0 || old.message == report.message)
        });
        let new = !known && self.reports.len() < MAX_REPORTS;
        if new {
            self.reports.push(report.clone());
        }
        new
    }

    pub(super) fn record(&mut self, record: LaunchRecord) {
        if self.records.len() == MAX_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }
}
