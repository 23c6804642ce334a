//! Graphs that a program makes node by node; libraries and the linker. In this process.

#[macro_use]
mod loaded;
mod common;

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use loaded::{Result, alloc, context, function, module};

const N: usize = 256;

#[repr(C)]
struct KernelNode {
    function: usize,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
    kernel: usize,
    context: usize,
}

#[repr(C)]
struct FillNode {
    dst: u64,
    pitch: usize,
    value: c_uint,
    element_bytes: c_uint,
    width: usize,
    height: usize,
}

/// A graph: y = value; y += a x, with x all ones. Nodes are added without an order.
struct Made {
    graph: usize,
    fill: usize,
    kernel: usize,
}

fn fill_params(y: u64, value: f32) -> FillNode {
    let value = value.to_bits();
    FillNode {
        dst: y,
        pitch: 0,
        value,
        element_bytes: 4,
        width: N,
        height: 1,
    }
}

/// Calls `f` with the parameters of a saxpy node.
fn with_saxpy(saxpy: usize, a: f32, x: u64, y: u64, f: impl FnOnce(*const KernelNode) -> Result) {
    let (mut a, mut x, mut y, mut n) = (a, x, y, N as u32);
    let mut params: [*mut c_void; 4] = [
        (&raw mut a).cast(),
        (&raw mut x).cast(),
        (&raw mut y).cast(),
        (&raw mut n).cast(),
    ];
    let node = KernelNode {
        function: saxpy,
        grid: [2, 1, 1],
        block: [128, 1, 1],
        shared: 0,
        params: params.as_mut_ptr(),
        extra: null_mut(),
        kernel: 0,
        context: 0,
    };
    assert_eq!(f(&node), 0);
}

fn make(saxpy: usize, a: f32, value: f32, x: u64, y: u64) -> Made {
    let (mut graph, mut fill, mut kernel) = (0_usize, 0_usize, 0_usize);
    assert_eq!(
        call!(cuGraphCreate(&mut graph => *mut usize, 0 => c_uint)),
        0
    );
    with_saxpy(saxpy, a, x, y, |params| {
        call!(cuGraphAddKernelNode_v2(
            &mut kernel => *mut usize, graph => usize, null() => *const usize, 0 => usize,
            params => *const KernelNode
        ))
    });
    let params = fill_params(y, value);
    let code = call!(cuGraphAddMemsetNode(
        &mut fill => *mut usize, graph => usize, null() => *const usize, 0 => usize,
        &params => *const FillNode, 0 => usize
    ));
    assert_eq!(code, 0);
    Made {
        graph,
        fill,
        kernel,
    }
}

fn edge(graph: usize, from: usize, to: usize) -> Result {
    call!(cuGraphAddDependencies(
        graph => usize, &from => *const usize, &to => *const usize, 1 => usize
    ))
}

fn instantiate(graph: usize) -> (Result, usize) {
    let mut exec = 0_usize;
    let code = call!(cuGraphInstantiateWithFlags(
        &mut exec => *mut usize, graph => usize, 0 => u64
    ));
    (code, exec)
}

/// Launches and returns the elements of `y`, which must be alike.
fn run(exec: usize, y: u64) -> f32 {
    assert_eq!(call!(cuGraphLaunch(exec => usize, 0 => usize)), 0);
    let mut host = [0_f32; N];
    let code = call!(cuMemcpyDtoH_v2(host.as_mut_ptr() => *mut f32, y => u64, 4 * N => usize));
    assert_eq!(code, 0);
    assert!(host.iter().all(|&value| value == host[0]), "{host:?}");
    host[0]
}

#[test]
fn a_graph_is_made_changed_and_launched() {
    context();
    let saxpy = function(module(), c"saxpy");
    let (x, y) = (alloc(4 * N), alloc(4 * N));
    let one = 1.0_f32.to_bits();
    assert_eq!(
        call!(cuMemsetD32_v2(x => u64, one => c_uint, N => usize)),
        0
    );
    let made = make(saxpy, 3.0, 10.0, x, y);
    // The kernel was added first and runs last.
    assert_eq!(edge(made.graph, made.fill, made.kernel), 0);
    assert_eq!(
        edge(made.graph, made.fill, made.kernel),
        1,
        "it is there already"
    );
    let (mut count, mut kind) = (8_usize, 9);
    let mut roots = [7_usize; 8];
    let code = call!(cuGraphGetRootNodes(
        made.graph => usize, roots.as_mut_ptr() => *mut usize, &mut count => *mut usize
    ));
    assert_eq!((code, count, &roots[..2]), (0, 1, &[made.fill, 0][..]));
    assert_eq!(
        call!(cuGraphNodeGetType(made.kernel => usize, &mut kind => *mut c_uint)),
        0
    );
    assert_eq!(kind, 0);
    let (code, exec) = instantiate(made.graph);
    assert_eq!(code, 0);
    assert_eq!(run(exec, y), 13.0);
    assert_eq!(run(exec, y), 13.0);

    // One node of what is ready to be launched gets other parameters, then is switched off.
    with_saxpy(saxpy, 5.0, x, y, |params| {
        call!(cuGraphExecKernelNodeSetParams_v2(
            exec => usize, made.kernel => usize, params => *const KernelNode
        ))
    });
    assert_eq!(run(exec, y), 15.0);
    let code = call!(cuGraphNodeSetEnabled(exec => usize, made.kernel => usize, 0 => c_uint));
    assert_eq!(code, 0);
    assert_eq!(run(exec, y), 10.0);
    let params = fill_params(y, 1.0);
    let code = call!(cuGraphExecMemsetNodeSetParams(
        exec => usize, made.kernel => usize, &params => *const FillNode, 0 => usize
    ));
    assert_eq!(code, 1, "the node is no fill");

    // A graph of the same form replaces it; another form is told apart.
    let other = make(saxpy, 2.0, 20.0, x, y);
    let mut result = [0_usize; 3];
    let mut update = |graph: usize| {
        let code = call!(cuGraphExecUpdate_v2(
            exec => usize, graph => usize, result.as_mut_ptr() => *mut usize
        ));
        (code, result[0] as u32)
    };
    assert_eq!(update(other.graph), (910, 2));
    assert_eq!(edge(other.graph, other.fill, other.kernel), 0);
    assert_eq!(update(other.graph), (0, 0));
    let code = call!(cuGraphNodeSetEnabled(exec => usize, made.kernel => usize, 1 => c_uint));
    assert_eq!(code, 0);
    assert_eq!(run(exec, y), 22.0);

    // A clone does not follow its original, and can be a child.
    let (mut clone, mut parent, mut child) = (0_usize, 0_usize, 0_usize);
    assert_eq!(
        call!(cuGraphClone(&mut clone => *mut usize, made.graph => usize)),
        0
    );
    assert_eq!(call!(cuGraphDestroy(made.graph => usize)), 0);
    assert_eq!(
        call!(cuGraphCreate(&mut parent => *mut usize, 0 => c_uint)),
        0
    );
    let code = call!(cuGraphAddChildGraphNode(
        &mut child => *mut usize, parent => usize, null() => *const usize, 0 => usize,
        clone => usize
    ));
    assert_eq!(code, 0);
    let (mut last, mut n) = (0_usize, 0_usize);
    with_saxpy(saxpy, 100.0, x, y, |params| {
        call!(cuGraphAddKernelNode_v2(
            &mut last => *mut usize, parent => usize, &child => *const usize, 1 => usize,
            params => *const KernelNode
        ))
    });
    let code = call!(cuGraphNodeGetDependencies(
        last => usize, null_mut() => *mut usize, &mut n => *mut usize
    ));
    assert_eq!((code, n), (0, 1));
    let (code, exec) = instantiate(parent);
    assert_eq!(code, 0);
    assert_eq!(run(exec, y), 113.0);

    // A circle cannot be launched.
    assert_eq!(edge(other.graph, other.kernel, other.fill), 0);
    assert_eq!(instantiate(other.graph).0, 1);
    for address in [x, y] {
        assert_eq!(call!(cuMemFree_v2(address => u64)), 0);
    }
}

#[test]
fn a_library_gives_kernels_that_can_be_launched() {
    context();
    let text = CString::new(std::fs::read(common::kernels()).unwrap()).unwrap();
    let load = |image: *const c_char| {
        let mut library = 0_usize;
        let code = call!(cuLibraryLoadData(
            &mut library => *mut usize, image => *const c_char, null() => *const c_uint,
            null_mut() => *mut usize, 0 => c_uint, null() => *const c_uint, null() => *const c_void,
            0 => c_uint
        ));
        (code, library)
    };
    assert_eq!(load(c"\x7fELF".as_ptr()).0, 209);
    let (code, library) = load(text.as_ptr());
    assert_eq!(code, 0);
    let (mut count, mut kernel, mut shared) = (0, 0_usize, 0);
    let code = call!(cuLibraryGetKernelCount(&mut count => *mut c_uint, library => usize));
    assert_eq!((code, count), (0, 6));
    let code = call!(cuLibraryGetKernel(
        &mut kernel => *mut usize, library => usize, c"reduce".as_ptr() => *const c_char
    ));
    assert_eq!(code, 0);
    let code = call!(cuKernelGetAttribute(
        &mut shared => *mut c_int, 1 => c_uint, kernel => usize, 0 => c_int
    ));
    assert_eq!((code, shared), (0, 1024));
    let (x, out) = (alloc(4 * N), alloc(4));
    let one = 1.0_f32.to_bits();
    assert_eq!(
        call!(cuMemsetD32_v2(x => u64, one => c_uint, N => usize)),
        0
    );
    let (mut from, mut to, mut n) = (x, out, N as u32);
    let mut params: [*mut c_void; 3] = [
        (&raw mut from).cast(),
        (&raw mut to).cast(),
        (&raw mut n).cast(),
    ];
    // A kernel stands for its function in the current context.
    let code = call!(cuLaunchKernel(
        kernel => usize, 1 => c_uint, 1 => c_uint, 1 => c_uint, 256 => c_uint, 1 => c_uint,
        1 => c_uint, 0 => c_uint, 0 => usize, params.as_mut_ptr() => *mut *mut c_void,
        null_mut() => *mut *mut c_void
    ));
    assert_eq!(code, 0);
    let mut sum = 0_f32;
    assert_eq!(
        call!(cuMemcpyDtoH_v2(&mut sum => *mut f32, out => u64, 4 => usize)),
        0
    );
    assert_eq!(sum, 256.0);
    assert_eq!(call!(cuLibraryUnload(library => usize)), 0);
    let code = call!(cuKernelGetAttribute(
        &mut shared => *mut c_int, 1 => c_uint, kernel => usize, 0 => c_int
    ));
    assert_eq!(code, 400);
}

#[test]
fn the_linker_takes_one_text() {
    context();
    let text = CString::new(std::fs::read(common::kernels()).unwrap()).unwrap();
    let (mut link, mut image, mut bytes, mut linked) =
        (0_usize, null::<c_void>(), 0_usize, 0_usize);
    let code = call!(cuLinkCreate_v2(
        0 => c_uint, null() => *const c_uint, null_mut() => *mut usize, &mut link => *mut usize
    ));
    assert_eq!(code, 0);
    let add = |kind: c_uint| {
        call!(cuLinkAddData_v2(
            link => usize, kind => c_uint, text.as_ptr() => *const c_char,
            text.as_bytes().len() => usize, null() => *const c_char, 0 => c_uint,
            null() => *const c_uint, null_mut() => *mut usize
        ))
    };
    assert_eq!(add(0), 801, "a cubin");
    assert_eq!(add(1), 0);
    assert_eq!(add(1), 801, "a second text");
    let code = call!(cuLinkComplete(
        link => usize, &mut image => *mut *const c_void, &mut bytes => *mut usize
    ));
    assert_eq!((code, bytes), (0, text.as_bytes_with_nul().len()));
    let code = call!(cuModuleLoadData(&mut linked => *mut usize, image => *const c_void));
    assert_eq!(code, 0);
    assert_eq!(call!(cuLinkDestroy(link => usize)), 0);
    assert_ne!(function(linked, c"saxpy"), 0);
}
