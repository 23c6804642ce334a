//! Nodes of graphs: how they are made, changed and asked about.

use std::ffi::c_uint;
use std::sync::Arc;

use tollgate_vgpu::host::{Fill, LaunchConfig};

use super::copies::{Plain, plain};
use super::functions::find;
use super::graphs::{Entry, ExecObject, GraphObject, NodeObject, Task, graph_of};
use super::streams::host_function;
use crate::abi::{
    Copy3d, CuContext, CuGraph, CuGraphExec, CuNode, EdgeData, FillNode, HostNode, KernelNode,
    KernelNodeV1,
};
use crate::boundary::{In, Out, exports};
use crate::driver::{Driver, driver, lock};
use crate::failure::{Failure, Outcome, code};
use crate::params::pack;

exports! {
    cuGraphAddKernelNode(out: Out<CuNode>, graph: CuGraph, after: In<CuNode>, count: usize,
        params: In<KernelNodeV1>) => add_kernel_v1;
    cuGraphAddKernelNode_v2(out: Out<CuNode>, graph: CuGraph, after: In<CuNode>, count: usize,
        params: In<KernelNode>) => add_kernel;
    cuGraphAddMemcpyNode(out: Out<CuNode>, graph: CuGraph, after: In<CuNode>, count: usize,
        params: In<Copy3d>, context: CuContext) => add_copy;
    cuGraphAddMemsetNode(out: Out<CuNode>, graph: CuGraph, after: In<CuNode>, count: usize,
        params: In<FillNode>, context: CuContext) => add_fill;
    cuGraphAddHostNode(out: Out<CuNode>, graph: CuGraph, after: In<CuNode>, count: usize,
        params: In<HostNode>) => add_host;
    cuGraphAddEmptyNode(out: Out<CuNode>, graph: CuGraph, after: In<CuNode>, count: usize)
        => add_empty;
    cuGraphAddChildGraphNode(out: Out<CuNode>, graph: CuGraph, after: In<CuNode>, count: usize,
        child: CuGraph) => add_child;
    cuGraphChildGraphNodeGetGraph(node: CuNode, out: Out<CuGraph>) => get_child;
    cuGraphKernelNodeSetParams(node: CuNode, params: In<KernelNodeV1>) => set_kernel_v1;
    cuGraphKernelNodeSetParams_v2(node: CuNode, params: In<KernelNode>) => set_kernel;
    cuGraphMemcpyNodeSetParams(node: CuNode, params: In<Copy3d>) => set_copy;
    cuGraphMemsetNodeSetParams(node: CuNode, params: In<FillNode>) => set_fill;
    cuGraphHostNodeSetParams(node: CuNode, params: In<HostNode>) => set_host;
    cuGraphExecKernelNodeSetParams(exec: CuGraphExec, node: CuNode, params: In<KernelNodeV1>)
        => exec_set_kernel_v1;
    cuGraphExecKernelNodeSetParams_v2(exec: CuGraphExec, node: CuNode, params: In<KernelNode>)
        => exec_set_kernel;
    cuGraphExecMemcpyNodeSetParams(exec: CuGraphExec, node: CuNode, params: In<Copy3d>,
        context: CuContext) => exec_set_copy;
    cuGraphExecMemsetNodeSetParams(exec: CuGraphExec, node: CuNode, params: In<FillNode>,
        context: CuContext) => exec_set_fill;
    cuGraphExecHostNodeSetParams(exec: CuGraphExec, node: CuNode, params: In<HostNode>)
        => exec_set_host;
    cuGraphNodeSetEnabled(exec: CuGraphExec, node: CuNode, enabled: c_uint) => set_enabled;
    cuGraphNodeGetEnabled(exec: CuGraphExec, node: CuNode, enabled: Out<c_uint>) => get_enabled;
    cuGraphNodeGetType(node: CuNode, kind: Out<c_uint>) => get_type;
    cuGraphGetNodes(graph: CuGraph, nodes: Out<CuNode>, count: Out<usize>) => get_nodes;
    cuGraphGetRootNodes(graph: CuGraph, nodes: Out<CuNode>, count: Out<usize>) => get_roots;
    cuGraphGetEdges(graph: CuGraph, from: Out<CuNode>, to: Out<CuNode>, count: Out<usize>)
        => get_edges;
    cuGraphGetEdges_v2(graph: CuGraph, from: Out<CuNode>, to: Out<CuNode>, data: Out<EdgeData>,
        count: Out<usize>) => get_edges_v2;
    cuGraphNodeGetDependencies(node: CuNode, nodes: Out<CuNode>, count: Out<usize>)
        => get_dependencies;
    cuGraphNodeGetDependencies_v2(node: CuNode, nodes: Out<CuNode>, data: Out<EdgeData>,
        count: Out<usize>) => get_dependencies_v2;
    cuGraphNodeGetDependentNodes(node: CuNode, nodes: Out<CuNode>, count: Out<usize>)
        => get_dependents;
    cuGraphNodeGetDependentNodes_v2(node: CuNode, nodes: Out<CuNode>, data: Out<EdgeData>,
        count: Out<usize>) => get_dependents_v2;
    cuGraphAddDependencies(graph: CuGraph, from: In<CuNode>, to: In<CuNode>, count: usize)
        => add_edges;
    cuGraphAddDependencies_v2(graph: CuGraph, from: In<CuNode>, to: In<CuNode>,
        data: In<EdgeData>, count: usize) => add_edges_v2;
    cuGraphRemoveDependencies(graph: CuGraph, from: In<CuNode>, to: In<CuNode>, count: usize)
        => remove_edges;
    cuGraphRemoveDependencies_v2(graph: CuGraph, from: In<CuNode>, to: In<CuNode>,
        data: In<EdgeData>, count: usize) => remove_edges_v2;
    cuGraphDestroyNode(node: CuNode) => destroy_node;
}

/// An edge without ports or a type of its own.
const PLAIN_EDGE: EdgeData = EdgeData([0; 8]);

fn kernel_task(driver: &Driver, params: &KernelNodeV1, kernel: usize) -> Outcome<Task> {
    let handle = if params.function == 0 {
        kernel
    } else {
        params.function
    };
    let function = find(driver, handle)?.function.clone();
    let mut config = LaunchConfig::new(params.grid, params.block);
    config.dynamic_shared = params.shared;
    let params = pack(&function, params.params, params.extra)?;
    Ok(Task::Kernel {
        function,
        config,
        params,
    })
}

fn copy_task(params: In<Copy3d>) -> Outcome<Task> {
    let Plain { to, from, shape } = plain(&params.get()?)?;
    Ok(Task::Copy { to, from, shape })
}

fn fill_task(params: In<FillNode>) -> Outcome<Task> {
    let FillNode {
        dst,
        pitch,
        value,
        element_bytes,
        width,
        height,
    } = params.get()?;
    let row = width as u64 * u64::from(element_bytes);
    // The pitch of a single row means nothing.
    let pitch = if height <= 1 { row } else { pitch as u64 };
    let (width, rows) = (width as u64, height as u64);
    Ok(Task::Fill(Fill {
        ptr: dst,
        pitch,
        width,
        rows,
        value,
        element_bytes,
    }))
}

fn host_task(params: In<HostNode>) -> Outcome<Task> {
    let HostNode { function, data } = params.get()?;
    Ok(Task::Host(host_function(function, data)?))
}

/// Adds a node to a graph.
fn add(
    out: Out<CuNode>,
    graph: CuGraph,
    after: In<CuNode>,
    count: usize,
    task: impl FnOnce(&Driver) -> Outcome<Task>,
) -> Outcome {
    let driver = driver()?;
    out.check()?;
    let object = driver.handles.get::<GraphObject>(graph)?;
    let after = after.list(count)?;
    let task = task(driver)?;
    out.set(object.add(driver, graph, after, task)?)
}

fn add_kernel_v1(
    out: Out<CuNode>,
    graph: CuGraph,
    after: In<CuNode>,
    count: usize,
    params: In<KernelNodeV1>,
) -> Outcome {
    add(out, graph, after, count, |driver| {
        kernel_task(driver, &params.get()?, 0)
    })
}

fn add_kernel(
    out: Out<CuNode>,
    graph: CuGraph,
    after: In<CuNode>,
    count: usize,
    params: In<KernelNode>,
) -> Outcome {
    add(out, graph, after, count, |driver| {
        let KernelNode { v1, kernel, .. } = params.get()?;
        kernel_task(driver, &v1, kernel)
    })
}

fn add_copy(
    out: Out<CuNode>,
    graph: CuGraph,
    after: In<CuNode>,
    count: usize,
    params: In<Copy3d>,
    _context: CuContext,
) -> Outcome {
    add(out, graph, after, count, |_| copy_task(params))
}

fn add_fill(
    out: Out<CuNode>,
    graph: CuGraph,
    after: In<CuNode>,
    count: usize,
    params: In<FillNode>,
    _context: CuContext,
) -> Outcome {
    add(out, graph, after, count, |_| fill_task(params))
}

fn add_host(
    out: Out<CuNode>,
    graph: CuGraph,
    after: In<CuNode>,
    count: usize,
    params: In<HostNode>,
) -> Outcome {
    add(out, graph, after, count, |_| host_task(params))
}

fn add_empty(out: Out<CuNode>, graph: CuGraph, after: In<CuNode>, count: usize) -> Outcome {
    add(out, graph, after, count, |_| Ok(Task::Empty))
}

fn add_child(
    out: Out<CuNode>,
    graph: CuGraph,
    after: In<CuNode>,
    count: usize,
    child: CuGraph,
) -> Outcome {
    add(out, graph, after, count, |driver| {
        if child == graph {
            return Err(Failure::value("a graph cannot be its own child"));
        }
        let object = driver.handles.get::<GraphObject>(child)?;
        let entries = lock(&object.entries).clone();
        Ok(Task::Child(child, entries))
    })
}

fn get_child(node: CuNode, out: Out<CuGraph>) -> Outcome {
    let graph = graph_of(driver()?, node)?;
    let entries = lock(&graph.entries);
    match entries
        .iter()
        .find(|entry| entry.handle == node)
        .map(|entry| &entry.task)
    {
        Some(Task::Child(child, _)) => out.set(*child),
        _ => Err(Failure::value("the node is no child graph")),
    }
}

/// Gives an entry another task of the same kind.
fn exchange(entry: &mut Entry, task: Task) -> Outcome {
    if entry.task.number() != task.number() {
        return Err(Failure::value("the node is of another kind"));
    }
    entry.task = task;
    Ok(())
}

/// Gives a node of a graph another task.
fn set(node: CuNode, task: impl FnOnce(&Driver) -> Outcome<Task>) -> Outcome {
    let driver = driver()?;
    let graph = graph_of(driver, node)?;
    let task = task(driver)?;
    let mut entries = lock(&graph.entries);
    let entry = entries.iter_mut().find(|entry| entry.handle == node);
    exchange(entry.ok_or(Failure::quiet(code::INVALID_HANDLE))?, task)
}

/// Gives a node of a graph that is ready to be launched another task.
fn exec_set(
    exec: CuGraphExec,
    node: CuNode,
    task: impl FnOnce(&Driver) -> Outcome<Task>,
) -> Outcome {
    let driver = driver()?;
    let exec = driver.handles.get::<ExecObject>(exec)?;
    let task = task(driver)?;
    exec.change(node, |entry| exchange(entry, task))
}

fn set_kernel_v1(node: CuNode, params: In<KernelNodeV1>) -> Outcome {
    set(node, |driver| kernel_task(driver, &params.get()?, 0))
}

fn set_kernel(node: CuNode, params: In<KernelNode>) -> Outcome {
    set(node, |driver| {
        let KernelNode { v1, kernel, .. } = params.get()?;
        kernel_task(driver, &v1, kernel)
    })
}

fn set_copy(node: CuNode, params: In<Copy3d>) -> Outcome {
    set(node, |_| copy_task(params))
}

fn set_fill(node: CuNode, params: In<FillNode>) -> Outcome {
    set(node, |_| fill_task(params))
}

fn set_host(node: CuNode, params: In<HostNode>) -> Outcome {
    set(node, |_| host_task(params))
}

fn exec_set_kernel_v1(exec: CuGraphExec, node: CuNode, params: In<KernelNodeV1>) -> Outcome {
    exec_set(exec, node, |driver| kernel_task(driver, &params.get()?, 0))
}

fn exec_set_kernel(exec: CuGraphExec, node: CuNode, params: In<KernelNode>) -> Outcome {
    exec_set(exec, node, |driver| {
        let KernelNode { v1, kernel, .. } = params.get()?;
        kernel_task(driver, &v1, kernel)
    })
}

fn exec_set_copy(
    exec: CuGraphExec,
    node: CuNode,
    params: In<Copy3d>,
    _context: CuContext,
) -> Outcome {
    exec_set(exec, node, |_| copy_task(params))
}

fn exec_set_fill(
    exec: CuGraphExec,
    node: CuNode,
    params: In<FillNode>,
    _context: CuContext,
) -> Outcome {
    exec_set(exec, node, |_| fill_task(params))
}

fn exec_set_host(exec: CuGraphExec, node: CuNode, params: In<HostNode>) -> Outcome {
    exec_set(exec, node, |_| host_task(params))
}

/// Kernels, copies and fills can be switched off; they order others still.
fn set_enabled(exec: CuGraphExec, node: CuNode, enabled: c_uint) -> Outcome {
    driver()?
        .handles
        .get::<ExecObject>(exec)?
        .change(node, |entry| {
            if entry.task.number() > 2 {
                return Err(Failure::value(
                    "only kernels, copies and fills can be switched off",
                ));
            }
            entry.enabled = enabled != 0;
            Ok(())
        })
}

fn get_enabled(exec: CuGraphExec, node: CuNode, enabled: Out<c_uint>) -> Outcome {
    let exec = driver()?.handles.get::<ExecObject>(exec)?;
    enabled.set(c_uint::from(exec.is_enabled(node)?))
}

fn get_type(node: CuNode, kind: Out<c_uint>) -> Outcome {
    let graph = graph_of(driver()?, node)?;
    let entries = lock(&graph.entries);
    let entry = entries.iter().find(|entry| entry.handle == node);
    kind.set(
        entry
            .ok_or(Failure::quiet(code::INVALID_HANDLE))?
            .task
            .number(),
    )
}

/// Answers a query that is asked twice: without a place for the answers it counts them; with one,
/// it gives as many as fit, nulls for the rest, and how many there were.
fn answer<T: Copy>(out: Out<T>, count: Out<usize>, all: &[T], none: T) -> Outcome {
    if out.is_null() {
        return count.set(all.len());
    }
    let room = count.as_in().get()?;
    let padded = all.iter().copied().chain(std::iter::repeat(none));
    out.set_all(padded.take(room))?;
    count.set(room.min(all.len()))
}

fn nodes_of(graph: CuGraph, wanted: impl Fn(&Entry) -> bool) -> Outcome<Vec<CuNode>> {
    let graph = driver()?.handles.get::<GraphObject>(graph)?;
    let entries = lock(&graph.entries);
    Ok(entries
        .iter()
        .filter(|entry| wanted(entry))
        .map(|entry| entry.handle)
        .collect())
}

fn get_nodes(graph: CuGraph, nodes: Out<CuNode>, count: Out<usize>) -> Outcome {
    answer(nodes, count, &nodes_of(graph, |_| true)?, 0)
}

fn get_roots(graph: CuGraph, nodes: Out<CuNode>, count: Out<usize>) -> Outcome {
    answer(
        nodes,
        count,
        &nodes_of(graph, |entry| entry.after.is_empty())?,
        0,
    )
}

fn edges_of(graph: &GraphObject) -> Vec<(CuNode, CuNode)> {
    let entries = lock(&graph.entries);
    let edges = |entry: &Entry| {
        let to = entry.handle;
        entry
            .after
            .iter()
            .map(move |&from| (from, to))
            .collect::<Vec<_>>()
    };
    entries.iter().flat_map(edges).collect()
}

fn get_edges(graph: CuGraph, from: Out<CuNode>, to: Out<CuNode>, count: Out<usize>) -> Outcome {
    get_edges_v2(graph, from, to, Out::NULL, count)
}

fn get_edges_v2(
    graph: CuGraph,
    from: Out<CuNode>,
    to: Out<CuNode>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> Outcome {
    let edges = edges_of(&*driver()?.handles.get::<GraphObject>(graph)?);
    if from.is_null() != to.is_null() {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    if from.is_null() {
        return count.set(edges.len());
    }
    let given = count.as_in().get()?.min(edges.len());
    from.set_all(edges.iter().take(given).map(|edge| edge.0))?;
    to.set_all(edges.iter().take(given).map(|edge| edge.1))?;
    if !data.is_null() {
        data.set_all(std::iter::repeat_n(PLAIN_EDGE, given))?;
    }
    count.set(given)
}

fn around(
    node: CuNode,
    nodes: Out<CuNode>,
    data: Out<EdgeData>,
    count: Out<usize>,
    other_end: impl Fn((CuNode, CuNode)) -> Option<CuNode>,
) -> Outcome {
    let graph = graph_of(driver()?, node)?;
    let found: Vec<CuNode> = edges_of(&graph).into_iter().filter_map(other_end).collect();
    if !nodes.is_null() && !data.is_null() {
        let room = count.as_in().get()?;
        data.set_all(std::iter::repeat_n(PLAIN_EDGE, room.min(found.len())))?;
    }
    answer(nodes, count, &found, 0)
}

fn get_dependencies(node: CuNode, nodes: Out<CuNode>, count: Out<usize>) -> Outcome {
    get_dependencies_v2(node, nodes, Out::NULL, count)
}

fn get_dependencies_v2(
    node: CuNode,
    nodes: Out<CuNode>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> Outcome {
    around(node, nodes, data, count, |(from, to)| {
        (to == node).then_some(from)
    })
}

fn get_dependents(node: CuNode, nodes: Out<CuNode>, count: Out<usize>) -> Outcome {
    get_dependents_v2(node, nodes, Out::NULL, count)
}

fn get_dependents_v2(
    node: CuNode,
    nodes: Out<CuNode>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> Outcome {
    around(node, nodes, data, count, |(from, to)| {
        (from == node).then_some(to)
    })
}

/// Changes the edges of a graph, all or none.
fn change_edges(
    graph: CuGraph,
    (from, to): (In<CuNode>, In<CuNode>),
    count: usize,
    change: impl Fn(&mut Vec<CuNode>, CuNode) -> Outcome,
) -> Outcome {
    let graph = driver()?.handles.get::<GraphObject>(graph)?;
    let (from, to) = (from.list(count)?, to.list(count)?);
    let mut entries = lock(&graph.entries);
    let mut changed = entries.clone();
    for (from, to) in from.into_iter().zip(to) {
        let stranger = || Failure::value("an end of a dependency is not a node of the graph");
        if from == to || !changed.iter().any(|entry| entry.handle == from) {
            return Err(stranger());
        }
        let entry = changed
            .iter_mut()
            .find(|entry| entry.handle == to)
            .ok_or_else(stranger)?;
        change(&mut entry.after, from)?;
    }
    *entries = changed;
    Ok(())
}

/// Whether edges have ports or types of their own, which are not modelled.
fn check_plain(data: In<EdgeData>, count: usize) -> Outcome {
    if !data.is_null() && data.list(count)?.iter().any(|&edge| edge != PLAIN_EDGE) {
        return Err(Failure::not_supported("a programmatic edge"));
    }
    Ok(())
}

fn add_edges(graph: CuGraph, from: In<CuNode>, to: In<CuNode>, count: usize) -> Outcome {
    change_edges(graph, (from, to), count, |after, from| {
        if after.contains(&from) {
            return Err(Failure::value("the dependency is there already"));
        }
        after.push(from);
        Ok(())
    })
}

fn add_edges_v2(
    graph: CuGraph,
    from: In<CuNode>,
    to: In<CuNode>,
    data: In<EdgeData>,
    count: usize,
) -> Outcome {
    check_plain(data, count)?;
    add_edges(graph, from, to, count)
}

fn remove_edges(graph: CuGraph, from: In<CuNode>, to: In<CuNode>, count: usize) -> Outcome {
    change_edges(graph, (from, to), count, |after, from| {
        let at = after.iter().position(|&node| node == from);
        after.remove(at.ok_or_else(|| Failure::value("the dependency does not exist"))?);
        Ok(())
    })
}

fn remove_edges_v2(
    graph: CuGraph,
    from: In<CuNode>,
    to: In<CuNode>,
    data: In<EdgeData>,
    count: usize,
) -> Outcome {
    check_plain(data, count)?;
    remove_edges(graph, from, to, count)
}

fn destroy_node(node: CuNode) -> Outcome {
    let driver = driver()?;
    let graph = graph_of(driver, node)?;
    let mut entries = lock(&graph.entries);
    entries.retain(|entry| entry.handle != node);
    entries
        .iter_mut()
        .for_each(|entry| entry.after.retain(|&before| before != node));
    driver
        .handles
        .remove::<NodeObject>(node)
        .map(|_: Arc<NodeObject>| ())
}
