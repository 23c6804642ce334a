//! What the families measure on GPUs: times between events, the rate of a copy, sums of counters.

use tollgate::device::{Gpu, LaunchCounters, LaunchRecord, Result, Stream, VirtualOptions};

/// Launches before the measured ones.
const WARM_UP: usize = 5;
/// Measured launches.
pub const LAUNCHES: usize = 40;

/// A virtual GPU that counts and does not check: the counters are the same, in less time.
///
/// # Panics
/// When it cannot be made, which no machine is known for.
pub fn counting() -> Gpu {
    let options = VirtualOptions {
        checks: false,
        ..VirtualOptions::default()
    };
    Gpu::virtual_gpu(&options).expect("a virtual GPU")
}

/// A counter summed over launches.
pub fn sum(launches: &[LaunchRecord], of: fn(&LaunchCounters) -> u64) -> u64 {
    launches.iter().map(|launch| of(&launch.counters)).sum()
}

/// How many sets of `bytes` buffers must take turns so that none is in L2 when its turn comes.
pub fn sets_beyond_l2(gpu: &Gpu, bytes: usize) -> usize {
    let beyond = 4 * gpu.facts().l2_bytes.max(64 << 20) as usize;
    beyond.div_ceil(bytes.max(1)).clamp(2, 64)
}

/// Seconds of each of [`LAUNCHES`] launches, an event before and behind each, after a warm-up.
/// `launch` gets the launch's number.
///
/// # Errors
/// What `launch` returns; what the driver says.
pub fn timed(stream: &Stream, mut launch: impl FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
    for i in 0..WARM_UP {
        launch(i)?;
    }
    let mut spans = Vec::with_capacity(LAUNCHES);
    for i in 0..LAUNCHES {
        let start = stream.record()?;
        launch(WARM_UP + i)?;
        spans.push((start, stream.record()?));
    }
    let seconds = spans.iter().map(|(start, end)| end.elapsed_ms(start));
    seconds.map(|ms| ms.map(|ms| f64::from(ms) / 1e3)).collect()
}

/// Bytes a second, read and written, of a copy on the device.
///
/// # Errors
/// What the driver says, for example of 2 GiB of memory that are not there.
pub fn copy_rate(gpu: &Gpu) -> Result<f64> {
    const BYTES: usize = 1 << 30;
    let stream = gpu.stream()?;
    let (from, mut to) = (gpu.alloc::<u8>(BYTES)?, gpu.alloc::<u8>(BYTES)?);
    let seconds = timed(&stream, |_| stream.copy(from.slice(), to.slice_mut()))?;
    let best = seconds.into_iter().fold(f64::INFINITY, f64::min);
    Ok(2.0 * BYTES as f64 / best)
}
