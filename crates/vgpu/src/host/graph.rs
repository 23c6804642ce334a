//! Graphs: work with its order, recorded from streams or made node by node, launched as a whole.

use std::sync::{Arc, Mutex, Weak};

use super::copy::Shape3d;
use super::fill::Fill;
use super::launch::validate;
use super::machine::{Machine, Shared, lock};
use super::queue::Queues;
use super::work::{HostFunction, Point, Work};
use super::{Error, Function, LaunchConfig, Result, Stream, StreamFlags};

/// Streams that a launch of a graph is spread over at most. Nodes beyond share them, and so have more
/// order than the graph says.
const MAX_TRACKS: usize = 256;

/// A node of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

/// What a node of a graph does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Launches a kernel.
    Kernel,
    /// Copies.
    Copy,
    /// Sets memory to a value.
    Fill,
    /// Calls a function of the host.
    Host,
    /// Writes a value, or waits for one.
    Value,
    /// Frees memory.
    Free,
    /// Orders others.
    Empty,
}

#[derive(Clone)]
struct Node {
    work: Work,
    device: u32,
    after: Vec<NodeId>,
}

/// Operations with their order. A node comes after nodes that were made before it, so there are no
/// circles.
#[derive(Clone)]
pub struct Graph {
    device: u32,
    nodes: Vec<Node>,
}

/// A graph that can be launched. Clones are the same.
#[derive(Clone)]
pub struct GraphExec(Arc<Exec>);

struct Exec {
    graph: Graph,
    /// The track of each node: nodes that follow one another share one.
    tracks: Vec<usize>,
    run: Mutex<Tracks>,
}

/// The streams of a graph's launches.
#[derive(Default)]
struct Tracks {
    machine: Weak<Shared>,
    streams: Vec<Stream>,
    /// The ends of the last launch: launches of one graph do not overlap.
    ends: Vec<Point>,
}

impl Graph {
    /// A graph without nodes; copies and fills are done by `device`.
    pub fn new(device: u32) -> Self {
        let nodes = Vec::new();
        Self { device, nodes }
    }

    fn add(&mut self, after: &[NodeId], device: u32, work: Work) -> Result<NodeId> {
        let id = NodeId(self.nodes.len());
        if let Some(wrong) = after.iter().find(|other| **other >= id) {
            return Err(Error::InvalidValue(format!(
                "node {} does not exist in a graph of {} nodes",
                wrong.0, id.0
            )));
        }
        let after = after.to_vec();
        self.nodes.push(Node {
            work,
            device,
            after,
        });
        Ok(id)
    }

    /// Adds a launch after other nodes.
    ///
    /// # Errors
    /// A launch that is not possible; a node that does not exist.
    pub fn add_kernel(
        &mut self,
        after: &[NodeId],
        function: &Function,
        config: &LaunchConfig,
        params: &[u8],
    ) -> Result<NodeId> {
        let work = validate(function, config, Some(params))?;
        self.add(after, function.device(), Work::Kernel(Arc::new(work)))
    }

    /// Adds a copy between memory that the machine knows when the graph is launched.
    ///
    /// # Errors
    /// Pitches that are too small; a node that does not exist.
    pub fn add_copy(
        &mut self,
        after: &[NodeId],
        dst: u64,
        src: u64,
        shape: &Shape3d,
    ) -> Result<NodeId> {
        shape.extents()?;
        let shape = *shape;
        self.add(after, self.device, Work::Copy { dst, src, shape })
    }

    /// Adds a fill.
    ///
    /// # Errors
    /// A rectangle that makes no sense; a node that does not exist.
    pub fn add_fill(&mut self, after: &[NodeId], fill: &Fill) -> Result<NodeId> {
        fill.extent()?;
        self.add(after, self.device, Work::Fill(*fill))
    }

    /// Adds a call of a host function.
    ///
    /// # Errors
    /// A node that does not exist.
    pub fn add_host(&mut self, after: &[NodeId], function: HostFunction) -> Result<NodeId> {
        self.add(after, self.device, Work::Host(function))
    }

    /// Adds a node that does nothing but order others.
    ///
    /// # Errors
    /// A node that does not exist.
    pub fn add_empty(&mut self, after: &[NodeId]) -> Result<NodeId> {
        self.add(after, self.device, Work::Empty)
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Its order: (before, after).
    pub fn edges(&self) -> Vec<(NodeId, NodeId)> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .flat_map(|(index, node)| node.after.iter().map(move |&from| (from, NodeId(index))))
            .collect()
    }

    /// Its nodes, in the order in which they were made.
    pub fn node_ids(&self) -> Vec<NodeId> {
        (0..self.nodes.len()).map(NodeId).collect()
    }

    /// What a node does; `None` for a node that does not exist.
    pub fn kind(&self, node: NodeId) -> Option<NodeKind> {
        Some(match self.nodes.get(node.0)?.work {
            Work::Kernel(_) => NodeKind::Kernel,
            Work::Copy { .. } | Work::Put { .. } | Work::Get { .. } => NodeKind::Copy,
            Work::Fill(_) => NodeKind::Fill,
            Work::Host(_) => NodeKind::Host,
            Work::Value(_) => NodeKind::Value,
            Work::Free(_) => NodeKind::Free,
            Work::Empty | Work::Record(_) | Work::Wait(_) => NodeKind::Empty,
        })
    }

    /// Adds what a node of another graph does.
    ///
    /// # Errors
    /// A node that does not exist, in either graph.
    pub fn add_from(&mut self, after: &[NodeId], other: &Graph, node: NodeId) -> Result<NodeId> {
        let Some(from) = other.nodes.get(node.0) else {
            return Err(Error::InvalidValue(format!(
                "node {} does not exist in a graph of {} nodes",
                node.0,
                other.nodes.len()
            )));
        };
        self.add(after, from.device, from.work.clone())
    }

    /// Makes it ready to be launched. What is changed afterwards does not change what was made.
    ///
    /// # Errors
    /// None today; a graph that cannot be launched would be one.
    pub fn instantiate(&self) -> Result<GraphExec> {
        let mut tracks: Vec<usize> = Vec::with_capacity(self.nodes.len());
        // The last node of each track.
        let mut ends: Vec<NodeId> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let goes_on = node.after.iter().copied().find(|&before| {
                ends[tracks[before.0]] == before && self.nodes[before.0].device == node.device
            });
            let shared = || {
                let same = |&track: &usize| self.nodes[ends[track].0].device == node.device;
                (ends.len() >= MAX_TRACKS)
                    .then(|| (0..ends.len()).find(same))
                    .flatten()
            };
            let track = match goes_on.map(|before| tracks[before.0]).or_else(shared) {
                Some(track) => track,
                None => {
                    ends.push(NodeId(index));
                    ends.len() - 1
                }
            };
            ends[track] = NodeId(index);
            tracks.push(track);
        }
        Ok(GraphExec(Arc::new(Exec {
            graph: self.clone(),
            tracks,
            run: Mutex::default(),
        })))
    }

    /// All nodes before these, and these.
    fn before(&self, nodes: &[NodeId]) -> Vec<bool> {
        let mut seen = vec![false; self.nodes.len()];
        let mut left = nodes.to_vec();
        while let Some(node) = left.pop() {
            if !std::mem::replace(&mut seen[node.0], true) {
                left.extend(&self.nodes[node.0].after);
            }
        }
        seen
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({} nodes)", self.nodes.len())
    }
}

impl std::fmt::Debug for GraphExec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GraphExec({} nodes)", self.0.graph.nodes.len())
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        let run = self
            .run
            .get_mut()
            .unwrap_or_else(|poison| poison.into_inner());
        if let Some(shared) = run.machine.upgrade() {
            let mut queues = shared.queues();
            run.streams
                .iter()
                .for_each(|stream| queues.leave_stream(*stream));
        }
    }
}

/// A capture under way.
pub(super) struct Capture {
    pub(super) device: u32,
    origin: u32,
    graph: Graph,
}

impl Queues {
    /// Whether a stream may be given work now: the default stream may not while one that is ordered with
    /// it is captured.
    pub(super) fn may_enqueue(&mut self, stream: Stream) -> Result<()> {
        self.lane(stream)?;
        let ordered = |lane: &super::queue::Lane| {
            lane.device == stream.device && !lane.flags.non_blocking && lane.capture.is_some()
        };
        if stream.is_default() && self.lanes.values().any(ordered) {
            return Err(Error::Capture(format!(
                "the default stream of device {} is ordered with a stream that is captured",
                stream.device
            )));
        }
        Ok(())
    }

    /// Puts work into the graph that is captured from a stream, if it is.
    pub(super) fn capture(&mut self, stream: Stream, work: &Work) -> Result<bool> {
        self.may_enqueue(stream)?;
        let Some((id, after)) = self.lane(stream)?.capture.clone() else {
            return Ok(false);
        };
        let Some(capture) = self.captures.get_mut(&id) else {
            return Err(ended());
        };
        let node = capture.graph.add(&after, stream.device, work.clone())?;
        self.lane(stream)?.capture = Some((id, vec![node]));
        Ok(true)
    }

    pub(super) fn refuse_capture(&mut self, stream: Stream, what: &str) -> Result<()> {
        self.may_enqueue(stream)?;
        if self.lane(stream)?.capture.is_some() {
            return Err(Error::Capture(format!(
                "{what} while stream {} is captured",
                stream.id
            )));
        }
        Ok(())
    }

    pub(super) fn refuse_device_capture(&self, device: u32, what: &str) -> Result<()> {
        let mut lanes = self.lanes.iter().filter(|(_, lane)| lane.device == device);
        match lanes.find(|(_, lane)| lane.capture.is_some()) {
            Some((id, _)) => Err(Error::Capture(format!(
                "{what} while stream {id} is captured"
            ))),
            None => Ok(()),
        }
    }

    /// Records an event in the graph that is captured from a stream, if it is.
    pub(super) fn capture_record(&mut self, stream: Stream, event: super::Event) -> Result<bool> {
        let Some(captured) = self.lane(stream)?.capture.clone() else {
            return Ok(false);
        };
        self.event(event)?.captured = Some(captured);
        Ok(true)
    }

    /// Lets a stream wait for an event that was recorded in a capture; the stream takes part in it then.
    pub(super) fn capture_wait(&mut self, stream: Stream, event: super::Event) -> Result<bool> {
        let of_event = self.event(event)?.captured.clone();
        let of_stream = self.lane(stream)?.capture.clone();
        let (id, nodes) = match (of_event, of_stream) {
            (None, None) => return Ok(false),
            (None, Some(_)) => {
                return Err(Error::Capture(format!(
                    "event {} was recorded outside of the capture that is to wait for it",
                    event.id
                )));
            }
            (Some(captured), None) => captured,
            (Some((id, nodes)), Some((other, more))) if id == other => {
                let mut all = more;
                all.extend(nodes);
                all.sort_unstable();
                all.dedup();
                (id, all)
            }
            (Some(_), Some(_)) => {
                return Err(Error::Capture("two captures cannot be joined".to_owned()));
            }
        };
        if !self.captures.contains_key(&id) {
            return Err(ended());
        }
        if stream.is_default() {
            return Err(Error::Capture(
                "a default stream cannot be captured".to_owned(),
            ));
        }
        self.lane(stream)?.capture = Some((id, nodes));
        Ok(true)
    }
}

fn ended() -> Error {
    Error::Capture("the capture has ended".to_owned())
}

impl Machine {
    /// Begins to put the work of a stream into a graph instead of doing it. Streams that wait for events
    /// of it take part, until they are waited for themselves.
    ///
    /// # Errors
    /// A default stream, or one that is captured already.
    pub fn begin_capture(&self, stream: Stream) -> Result<()> {
        let mut queues = self.shared.queues();
        if stream.is_default() {
            return Err(Error::Capture(
                "a default stream cannot be captured".to_owned(),
            ));
        }
        queues.refuse_capture(stream, "begin of a capture")?;
        let id = u64::from(queues.take_id()?);
        let capture = Capture {
            device: stream.device,
            origin: stream.id,
            graph: Graph::new(stream.device),
        };
        queues.captures.insert(id, capture);
        queues.lane(stream)?.capture = Some((id, Vec::new()));
        Ok(())
    }

    /// Ends a capture where it began.
    ///
    /// # Errors
    /// A stream that is not captured, or did not begin it; a stream that takes part and was not waited
    /// for. The capture is over in any case but the first ones.
    pub fn end_capture(&self, stream: Stream) -> Result<Graph> {
        let mut queues = self.shared.queues();
        let Some((id, last)) = queues.lane(stream)?.capture.clone() else {
            return Err(Error::Capture(format!(
                "stream {} is not captured",
                stream.id
            )));
        };
        if queues
            .captures
            .get(&id)
            .is_some_and(|capture| capture.origin != stream.id)
        {
            return Err(Error::Capture(format!(
                "the capture did not begin in stream {}",
                stream.id
            )));
        }
        let capture = queues.captures.remove(&id).ok_or_else(ended)?;
        let joined = capture.graph.before(&last);
        let mut apart = None;
        for (&other, lane) in &mut queues.lanes {
            if let Some((of, nodes)) = &lane.capture
                && *of == id
            {
                if !nodes.iter().all(|node| joined[node.0]) {
                    apart = Some(other);
                }
                lane.capture = None;
            }
        }
        match apart {
            Some(other) => Err(Error::Capture(format!(
                "stream {other} takes part, and stream {} has not waited for it",
                stream.id
            ))),
            None => Ok(capture.graph),
        }
    }

    /// Whether a stream is captured.
    ///
    /// # Errors
    /// A stream that does not exist.
    pub fn is_capturing(&self, stream: Stream) -> Result<bool> {
        Ok(self.shared.queues().lane(stream)?.capture.is_some())
    }

    /// Launches a graph in a stream: its nodes run in their order, as concurrently as it allows.
    ///
    /// # Errors
    /// Kernels of another machine or of unloaded modules; a stream that is captured; a fault of a
    /// device.
    pub fn launch_graph(&self, exec: &GraphExec, stream: Stream) -> Result<()> {
        let Exec { graph, tracks, run } = &*exec.0;
        for node in &graph.nodes {
            if let Work::Kernel(kernel) = &node.work {
                self.owns(&kernel.function)?;
            }
        }
        let mut run = lock(run);
        let mut queues = self.shared.queues();
        queues.refuse_capture(stream, "a launch of a graph")?;
        for node in &graph.nodes {
            queues.healthy(node.device)?;
        }
        if !self.same_as(&run.machine) {
            *run = Tracks {
                machine: Arc::downgrade(&self.shared),
                ..Tracks::default()
            };
        }
        let count = tracks.iter().max().map_or(0, |&last| last + 1);
        for track in 0..count {
            let known = run.streams.get(track).copied();
            // After a reset of the device its streams are gone.
            if known.is_some_and(|stream| queues.lane(stream).is_ok()) {
                continue;
            }
            let node = tracks.iter().position(|&of| of == track);
            let device = node.map_or(graph.device, |node| graph.nodes[node].device);
            let flags = StreamFlags {
                non_blocking: true,
                priority: 0,
            };
            let made = queues.add_stream(device, flags)?;
            match run.streams.get_mut(track) {
                Some(stream) => *stream = made,
                None => run.streams.push(made),
            }
        }
        let begin = Point::default();
        queues.push(stream.id, Work::Record(Arc::clone(&begin)));
        let mut points: Vec<Point> = Vec::with_capacity(graph.nodes.len());
        let mut is_end = vec![true; graph.nodes.len()];
        for (node, &track) in graph.nodes.iter().zip(tracks) {
            let on = run.streams[track].id;
            let mut wait: Vec<Point> = Vec::new();
            if node.after.is_empty() {
                wait.push(Arc::clone(&begin));
                wait.extend(run.ends.iter().cloned());
            }
            for before in &node.after {
                is_end[before.0] = false;
                if tracks[before.0] != track {
                    wait.push(Arc::clone(&points[before.0]));
                }
            }
            if !wait.is_empty() {
                queues.push(on, Work::Wait(wait));
            }
            queues.push(on, node.work.clone());
            let done = Point::default();
            queues.push(on, Work::Record(Arc::clone(&done)));
            points.push(done);
        }
        let ends = points.into_iter().zip(is_end);
        run.ends = ends
            .filter(|&(_, end)| end)
            .map(|(point, _)| point)
            .collect();
        let ends = run.ends.clone();
        queues.push(stream.id, Work::Wait(ends));
        drop(queues);
        self.shared.wake.notify_all();
        Ok(())
    }
}
