//! saxpy and a reduction on two streams with cudarc: pinned memory, events, a captured graph. With
//! `racy` it launches a kernel that has a race instead.

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

const KERNELS: &str = include_str!("../../../tests/kernels/kernels.ptx");
const N: usize = 1000;

fn main() -> Result<(), DriverError> {
    let context = CudaContext::new(0)?;
    println!("{} {:?}", context.name()?, context.compute_capability()?);
    let module = context.load_module(Ptx::from_src(KERNELS))?;
    if std::env::args().any(|word| word == "racy") {
        let stream = context.default_stream();
        let input = stream.clone_htod(&vec![1.0_f32; 256])?;
        let mut out = stream.alloc_zeros::<f32>(256)?;
        let racy = module.load_function("racy")?;
        let mut launch = stream.launch_builder(&racy);
        launch.arg(&input).arg(&mut out);
        // SAFETY: the arguments are those of the kernel.
        unsafe { launch.launch(in_blocks_of_256(256)) }?;
        return stream.synchronize();
    }

    let saxpy = module.load_function("saxpy")?;
    let reduce = module.load_function("reduce")?;
    let stream = context.new_stream()?;
    let other = stream.fork()?;

    // SAFETY: every element is written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<f32>(N) }?;
    for (i, x) in pinned.as_mut_slice()?.iter_mut().enumerate() {
        *x = i as f32;
    }
    let x = stream.clone_htod(&pinned)?;
    let mut y = stream.clone_htod(&vec![1.0_f32; N])?;
    let start = stream.record_event(None)?;
    let n = N as u32;
    let mut launch = stream.launch_builder(&saxpy);
    launch.arg(&2.0_f32).arg(&x).arg(&mut y).arg(&n);
    // SAFETY: the arguments are those of the kernel.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }?;
    other.join(&stream)?;

    let blocks = N.div_ceil(256);
    let mut sums = other.alloc_zeros::<f32>(blocks)?;
    let mut launch = other.launch_builder(&reduce);
    launch.arg(&y).arg(&mut sums).arg(&n);
    // SAFETY: as above.
    unsafe { launch.launch(in_blocks_of_256(n)) }?;
    stream.join(&other)?;

    let host = stream.clone_dtoh(&y)?;
    let sum: f32 = stream.clone_dtoh(&sums)?.iter().sum();
    stream.synchronize()?;
    for (i, &value) in host.iter().enumerate() {
        assert_eq!(value, 2.0 * i as f32 + 1.0, "element {i}");
    }
    assert_eq!(sum, host.iter().sum::<f32>());

    // The same launch as a graph. cudarc's own events would be foreign to the capture.
    // SAFETY: everything below is on one stream.
    unsafe { context.disable_event_tracking() };
    let (x, mut y) = (stream.clone_htod(&host)?, stream.alloc_zeros::<f32>(N)?);
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let mut launch = stream.launch_builder(&saxpy);
    launch.arg(&0.5_f32).arg(&x).arg(&mut y).arg(&n);
    // SAFETY: as above.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }?;
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.expect("the stream was captured");
    graph.launch()?;
    graph.launch()?;
    assert_eq!(stream.clone_dtoh(&y)?, host, "0.5 x, twice");

    let end = stream.record_event(None)?;
    end.synchronize()?;
    drop(start);
    println!("done");
    Ok(())
}

/// Blocks of 256 threads, which is what `reduce` and `racy` are made for.
fn in_blocks_of_256(n: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (n.div_ceil(256), 1, 1),
        block_dim: (256, 1, 1),
        shared_mem_bytes: 0,
    }
}
