//! Graphs, and what is launched of them.
//!
//! A program may add an edge between any two nodes at any time, so a graph is kept here as a list
//! of what its nodes do and what comes before them, and put in order when it is instantiated. What
//! was instantiated keeps its own copy of the list, so that single nodes of it can be changed.

use std::collections::HashMap;
use std::ffi::{c_char, c_uint};
use std::sync::{Arc, Mutex};

use tollgate_vgpu::host::{
    Fill, Function, Graph, GraphExec, HostFunction, LaunchConfig, NodeId, NodeKind, Shape3d,
};

use crate::abi::{CuGraph, CuGraphExec, CuNode, CuStream, InstantiateParams, UpdateResult};
use crate::boundary::{Out, exports};
use crate::context::{Context, current};
use crate::driver::{Driver, driver, lock};
use crate::failure::{Failure, Outcome, code};
use crate::stream::resolve;

exports! {
    cuGraphCreate(out: Out<CuGraph>, flags: c_uint) => create;
    cuGraphDestroy(graph: CuGraph) => destroy;
    cuGraphClone(out: Out<CuGraph>, graph: CuGraph) => clone;
    cuGraphNodeFindInClone(out: Out<CuNode>, node: CuNode, clone: CuGraph) => find_in_clone;
    cuGraphInstantiateWithFlags(out: Out<CuGraphExec>, graph: CuGraph, flags: u64) => instantiate;
    cuGraphInstantiate | cuGraphInstantiate_v2(out: Out<CuGraphExec>, graph: CuGraph,
        node: Out<CuNode>, log: Out<c_char>, bytes: usize) => instantiate_with_log;
    cuGraphInstantiateWithParams | cuGraphInstantiateWithParams_ptsz(out: Out<CuGraphExec>,
        graph: CuGraph, params: Out<InstantiateParams>) => instantiate_with_params;
    cuGraphExecGetFlags(exec: CuGraphExec, flags: Out<u64>) => exec_flags;
    cuGraphExecDestroy(exec: CuGraphExec) => exec_destroy;
    cuGraphUpload | cuGraphUpload_ptsz(exec: CuGraphExec, stream: CuStream) => upload;
    cuGraphLaunch | cuGraphLaunch_ptsz(exec: CuGraphExec, stream: CuStream) => launch;
    cuGraphExecUpdate(exec: CuGraphExec, graph: CuGraph, node: Out<CuNode>, result: Out<c_uint>)
        => update;
    cuGraphExecUpdate_v2(exec: CuGraphExec, graph: CuGraph, result: Out<UpdateResult>)
        => update_v2;
}

/// Flags of an instantiation: free on launch, upload, device launch, node priority.
const FLAGS: u64 = 0xf;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH`.
const DEVICE_LAUNCH: u64 = 4;

/// What a node does.
#[derive(Clone)]
pub(super) enum Task {
    Kernel {
        function: Function,
        config: LaunchConfig,
        params: Vec<u8>,
    },
    Copy {
        to: u64,
        from: u64,
        shape: Shape3d,
    },
    Fill(Fill),
    Host(HostFunction),
    Empty,
    /// All nodes of a graph as it was when it became a child.
    Child(CuGraph, Vec<Entry>),
    /// What a captured node does.
    Captured(Arc<Graph>, NodeId),
}

impl Task {
    /// `CU_GRAPH_NODE_TYPE_*`.
    pub fn number(&self) -> c_uint {
        match self {
            Self::Kernel { .. } => 0,
            Self::Copy { .. } => 1,
            Self::Fill(_) => 2,
            Self::Host(_) => 3,
            Self::Child(..) => 4,
            Self::Empty => 5,
            Self::Captured(graph, node) => match graph.kind(*node) {
                Some(NodeKind::Kernel) => 0,
                Some(NodeKind::Copy) => 1,
                Some(NodeKind::Fill) => 2,
                Some(NodeKind::Host) => 3,
                Some(NodeKind::Free) => 11,
                Some(NodeKind::Value) => 12,
                Some(NodeKind::Empty) | None => 5,
            },
        }
    }
}

/// A node in a graph's list.
#[derive(Clone)]
pub(super) struct Entry {
    pub handle: CuNode,
    pub task: Task,
    /// Nodes that come before it.
    pub after: Vec<CuNode>,
    pub enabled: bool,
}

/// A graph.
pub(super) struct GraphObject {
    pub device: u32,
    pub context: u64,
    pub entries: Mutex<Vec<Entry>>,
    /// For a clone: its nodes by those of the original.
    origins: HashMap<CuNode, CuNode>,
}

/// A node's handle: only says where the node is.
pub(super) struct NodeObject {
    pub graph: CuGraph,
}

/// A graph that can be launched.
pub(super) struct ExecObject {
    device: u32,
    flags: u64,
    state: Mutex<(Vec<Entry>, GraphExec)>,
}

impl GraphObject {
    /// A graph without nodes; returns its handle.
    fn empty(driver: &Driver, device: u32, context: u64) -> CuGraph {
        let (entries, origins) = (Mutex::default(), HashMap::new());
        let object = Self {
            device,
            context,
            entries,
            origins,
        };
        driver.handles.insert(Arc::new(object), Some(context))
    }

    /// The graph that a capture made; returns its handle.
    pub fn captured(driver: &Driver, context: &Context, graph: Graph) -> Outcome<CuGraph> {
        let graph = Arc::new(graph);
        let handle = Self::empty(driver, context.device, context.id);
        let object = driver.handles.get::<Self>(handle)?;
        let mut after: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        for (before, node) in graph.edges() {
            after.entry(node).or_default().push(before);
        }
        let mut nodes: HashMap<NodeId, CuNode> = HashMap::new();
        for node in graph.node_ids() {
            let before = after.remove(&node).unwrap_or_default();
            let before = before
                .iter()
                .filter_map(|before| nodes.get(before).copied())
                .collect();
            let task = Task::Captured(graph.clone(), node);
            nodes.insert(node, object.add(driver, handle, before, task)?);
        }
        Ok(handle)
    }

    /// Adds a node; returns its handle.
    pub fn add(
        &self,
        driver: &Driver,
        graph: CuGraph,
        after: Vec<CuNode>,
        task: Task,
    ) -> Outcome<CuNode> {
        let mut entries = lock(&self.entries);
        let known = |node: &CuNode| entries.iter().any(|entry| entry.handle == *node);
        if !after.iter().all(known) {
            return Err(Failure::value("a dependency is not a node of the graph"));
        }
        let node = NodeObject { graph };
        let handle = driver.handles.insert(Arc::new(node), Some(self.context));
        entries.push(Entry {
            handle,
            task,
            after,
            enabled: true,
        });
        Ok(handle)
    }
}

/// The graph that a node is in, and the graph's handle.
pub(super) fn graph_of(driver: &Driver, node: CuNode) -> Outcome<Arc<GraphObject>> {
    driver
        .handles
        .get(driver.handles.get::<NodeObject>(node)?.graph)
}

/// Adds `entries` to `graph`, each after those it names; all of them after `before`. Returns the
/// nodes with nothing behind them.
fn build(graph: &mut Graph, entries: &[Entry], before: &[NodeId]) -> Outcome<Vec<NodeId>> {
    let mut done: HashMap<CuNode, NodeId> = HashMap::new();
    let mut left: Vec<&Entry> = entries.iter().collect();
    while !left.is_empty() {
        let ready = |entry: &&Entry| entry.after.iter().all(|node| done.contains_key(node));
        let (now, later): (Vec<&Entry>, Vec<&Entry>) = left.into_iter().partition(ready);
        if now.is_empty() {
            return Err(Failure::value("the graph's dependencies go in a circle"));
        }
        for entry in now {
            let mut after: Vec<NodeId> = entry.after.iter().map(|node| done[node]).collect();
            if after.is_empty() {
                after.extend(before);
            }
            done.insert(entry.handle, add_task(graph, entry, &after)?);
        }
        left = later;
    }
    let is_last = |entry: &&Entry| {
        !entries
            .iter()
            .any(|other| other.after.contains(&entry.handle))
    };
    Ok(entries
        .iter()
        .filter(is_last)
        .map(|entry| done[&entry.handle])
        .collect())
}

fn add_task(graph: &mut Graph, entry: &Entry, after: &[NodeId]) -> Outcome<NodeId> {
    if !entry.enabled {
        return Ok(graph.add_empty(after)?);
    }
    Ok(match &entry.task {
        Task::Kernel {
            function,
            config,
            params,
        } => graph.add_kernel(after, function, config, params)?,
        Task::Copy { to, from, shape } => graph.add_copy(after, *to, *from, shape)?,
        Task::Fill(fill) => graph.add_fill(after, fill)?,
        Task::Host(function) => graph.add_host(after, function.clone())?,
        Task::Empty => graph.add_empty(after)?,
        Task::Captured(from, node) => graph.add_from(after, from, *node)?,
        Task::Child(_, entries) => {
            // One node in front of the child and one behind it stand for the whole.
            let start = graph.add_empty(after)?;
            let ends = build(graph, entries, &[start])?;
            graph.add_empty(if ends.is_empty() {
                std::slice::from_ref(&start)
            } else {
                &ends
            })?
        }
    })
}

/// Makes a list of nodes ready to be launched.
fn ready(device: u32, entries: &[Entry]) -> Outcome<GraphExec> {
    let mut graph = Graph::new(device);
    build(&mut graph, entries, &[])?;
    Ok(graph.instantiate()?)
}

impl ExecObject {
    /// Changes one node and makes the whole ready again. A launch that runs is not touched.
    pub fn change(&self, node: CuNode, change: impl FnOnce(&mut Entry) -> Outcome) -> Outcome {
        let mut state = lock(&self.state);
        let mut entries = state.0.clone();
        let entry = entries.iter_mut().find(|entry| entry.handle == node);
        change(entry.ok_or_else(|| Failure::value("the node is not in the graph"))?)?;
        *state = (entries.clone(), ready(self.device, &entries)?);
        Ok(())
    }

    /// Whether a node is enabled.
    pub fn is_enabled(&self, node: CuNode) -> Outcome<bool> {
        let state = lock(&self.state);
        let entry = state.0.iter().find(|entry| entry.handle == node);
        Ok(entry
            .ok_or_else(|| Failure::value("the node is not in the graph"))?
            .enabled)
    }
}

fn create(out: Out<CuGraph>, flags: c_uint) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    if flags != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    out.set(GraphObject::empty(driver, context.device, context.id))
}

fn destroy(graph: CuGraph) -> Outcome {
    let driver = driver()?;
    let object = driver.handles.remove::<GraphObject>(graph)?;
    for entry in lock(&object.entries).iter() {
        let _ = driver.handles.remove::<NodeObject>(entry.handle);
    }
    Ok(())
}

fn clone(out: Out<CuGraph>, graph: CuGraph) -> Outcome {
    let driver = driver()?;
    out.check()?;
    let object = driver.handles.get::<GraphObject>(graph)?;
    let entries = lock(&object.entries).clone();
    // Nodes name their graph, and the graph its nodes: so first a graph without nodes, for its
    // handle.
    let handle = GraphObject::empty(driver, object.device, object.context);
    let mut origins = HashMap::new();
    for entry in &entries {
        let node = NodeObject { graph: handle };
        origins.insert(
            entry.handle,
            driver.handles.insert(Arc::new(node), Some(object.context)),
        );
    }
    let copies = entries.into_iter().map(|entry| Entry {
        handle: origins[&entry.handle],
        after: entry.after.iter().map(|node| origins[node]).collect(),
        ..entry
    });
    let copies = copies.collect();
    let clone = GraphObject {
        device: object.device,
        context: object.context,
        entries: Mutex::new(copies),
        origins,
    };
    driver.handles.replace(handle, Arc::new(clone));
    out.set(handle)
}

fn find_in_clone(out: Out<CuNode>, node: CuNode, clone: CuGraph) -> Outcome {
    let clone = driver()?.handles.get::<GraphObject>(clone)?;
    out.set(
        *clone
            .origins
            .get(&node)
            .ok_or(Failure::quiet(code::INVALID_VALUE))?,
    )
}

fn instantiate(out: Out<CuGraphExec>, graph: CuGraph, flags: u64) -> Outcome {
    let driver = driver()?;
    out.check()?;
    if flags & !FLAGS != 0 {
        return Err(Failure::value(format!(
            "instantiation flags {flags:#x} are unknown"
        )));
    }
    if flags & DEVICE_LAUNCH != 0 {
        return Err(Failure::not_supported("a launch of a graph by a device"));
    }
    let graph = driver.handles.get::<GraphObject>(graph)?;
    let entries = lock(&graph.entries).clone();
    let exec = ready(graph.device, &entries)?;
    let object = ExecObject {
        device: graph.device,
        flags,
        state: Mutex::new((entries, exec)),
    };
    out.set(driver.handles.insert(Arc::new(object), Some(graph.context)))
}

fn instantiate_with_log(
    out: Out<CuGraphExec>,
    graph: CuGraph,
    node: Out<CuNode>,
    log: Out<c_char>,
    bytes: usize,
) -> Outcome {
    node.set_if_wanted(0);
    if bytes > 0 {
        log.set_if_wanted(0);
    }
    instantiate(out, graph, 0)
}

fn instantiate_with_params(
    out: Out<CuGraphExec>,
    graph: CuGraph,
    params: Out<InstantiateParams>,
) -> Outcome {
    let mut given = params.as_in().get()?;
    let done = instantiate(out, graph, given.flags);
    given.error_node = 0;
    given.result = c_uint::from(done.is_err());
    params.set(given)?;
    done
}

fn exec_flags(exec: CuGraphExec, flags: Out<u64>) -> Outcome {
    flags.set(driver()?.handles.get::<ExecObject>(exec)?.flags)
}

fn exec_destroy(exec: CuGraphExec) -> Outcome {
    driver()?.handles.remove::<ExecObject>(exec).map(|_| ())
}

/// There is nothing to upload: a graph is launched from where it is.
fn upload(exec: CuGraphExec, stream: CuStream) -> Outcome {
    let used = resolve(stream)?;
    used.driver.handles.get::<ExecObject>(exec).map(|_| ())
}

fn launch(exec: CuGraphExec, stream: CuStream) -> Outcome {
    let used = resolve(stream)?;
    let exec = used.driver.handles.get::<ExecObject>(exec)?;
    let ready = lock(&exec.state).1.clone();
    Ok(used.driver.machine.launch_graph(&ready, used.stream)?)
}

/// Replaces what the nodes do by what those of a graph of the same form do. Returns the result's
/// number, 0 for success, and the node at which the forms differ.
fn replace(exec: CuGraphExec, graph: CuGraph) -> Outcome<(c_uint, CuNode)> {
    const TOPOLOGY_CHANGED: c_uint = 2;
    const NODE_TYPE_CHANGED: c_uint = 3;
    let driver = driver()?;
    let exec = driver.handles.get::<ExecObject>(exec)?;
    let graph = driver.handles.get::<GraphObject>(graph)?;
    let new = lock(&graph.entries).clone();
    let mut state = lock(&exec.state);
    let place = |entries: &[Entry]| -> HashMap<CuNode, usize> {
        entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.handle, index))
            .collect()
    };
    let (old_places, new_places) = (place(&state.0), place(&new));
    if state.0.len() != new.len() {
        return Ok((TOPOLOGY_CHANGED, 0));
    }
    let mut updated = state.0.clone();
    for (old, new) in updated.iter_mut().zip(&new) {
        let sorted = |after: &[CuNode], places: &HashMap<CuNode, usize>| {
            let mut after: Vec<_> = after.iter().map(|node| places[node]).collect();
            after.sort_unstable();
            after
        };
        if sorted(&old.after, &old_places) != sorted(&new.after, &new_places) {
            return Ok((TOPOLOGY_CHANGED, new.handle));
        }
        if old.task.number() != new.task.number() {
            return Ok((NODE_TYPE_CHANGED, new.handle));
        }
        old.task = new.task.clone();
    }
    let ready = ready(exec.device, &updated)?;
    *state = (updated, ready);
    Ok((0, 0))
}

fn verdict(result: c_uint) -> Outcome {
    if result == 0 {
        Ok(())
    } else {
        Err(Failure::quiet(code::GRAPH_EXEC_UPDATE_FAILURE))
    }
}

fn update(exec: CuGraphExec, graph: CuGraph, node: Out<CuNode>, result: Out<c_uint>) -> Outcome {
    let (number, at) = replace(exec, graph)?;
    node.set_if_wanted(at);
    result.set_if_wanted(number);
    verdict(number)
}

fn update_v2(exec: CuGraphExec, graph: CuGraph, result: Out<UpdateResult>) -> Outcome {
    let (number, at) = replace(exec, graph)?;
    result.set_if_wanted(UpdateResult {
        result: number,
        error_node: at,
        error_from: 0,
    });
    verdict(number)
}
