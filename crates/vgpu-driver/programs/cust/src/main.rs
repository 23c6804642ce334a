//! saxpy and a reduction with cust: streams, events, asynchronous copies. With `racy` it launches a
//! kernel that has a race instead.

use std::error::Error;

use cust::event::{Event, EventFlags};
use cust::memory::{AsyncCopyDestination, CopyDestination, DeviceBuffer, LockedBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use cust::{function::FunctionAttribute, launch};

const KERNELS: &str = include_str!("../../../tests/kernels/kernels.ptx");
const N: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let _context = cust::quick_init()?;
    let device = cust::device::Device::get_device(0)?;
    println!("{}, {} bytes", device.name()?, device.total_memory()?);
    let module = Module::from_ptx(KERNELS, &[])?;
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None)?;
    if std::env::args().any(|word| word == "racy") {
        let racy = module.get_function("racy")?;
        let input = DeviceBuffer::from_slice(&[1.0_f32; 256])?;
        let out = DeviceBuffer::from_slice(&[0.0_f32; 256])?;
        // SAFETY: the arguments are those of the kernel.
        unsafe {
            launch!(racy<<<1, 256, 0, stream>>>(input.as_device_ptr(), out.as_device_ptr()))?;
        }
        stream.synchronize()?;
        return Ok(());
    }

    let saxpy = module.get_function("saxpy")?;
    let reduce = module.get_function("reduce")?;
    assert_eq!(
        reduce.get_attribute(FunctionAttribute::SharedMemorySizeBytes)?,
        1024
    );
    let (_, block) = saxpy.suggested_launch_configuration(0, 0.into())?;
    let grid = (N as u32).div_ceil(block);

    let mut pinned = LockedBuffer::new(&0.0_f32, N)?;
    for (i, x) in pinned.iter_mut().enumerate() {
        *x = i as f32;
    }
    let mut x = DeviceBuffer::from_slice(&[0.0_f32; N])?;
    let y = DeviceBuffer::from_slice(&[1.0_f32; N])?;
    let blocks = N.div_ceil(256);
    let sums = DeviceBuffer::from_slice(&vec![0.0_f32; blocks])?;
    let mut back = LockedBuffer::new(&0.0_f32, N)?;
    let start = Event::new(EventFlags::DEFAULT)?;
    let end = Event::new(EventFlags::DEFAULT)?;
    start.record(&stream)?;
    // SAFETY: the buffers outlive the stream's work, which is waited for below; the arguments are
    // those of the kernels.
    unsafe {
        x.async_copy_from(&pinned, &stream)?;
        launch!(saxpy<<<grid, block, 0, stream>>>(
            2.0_f32, x.as_device_ptr(), y.as_device_ptr(), N as u32
        ))?;
        launch!(reduce<<<blocks as u32, 256, 0, stream>>>(
            y.as_device_ptr(), sums.as_device_ptr(), N as u32
        ))?;
        y.async_copy_to(&mut back, &stream)?;
    }
    end.record(&stream)?;
    end.synchronize()?;
    assert!(end.elapsed_time_f32(&start)? > 0.0);
    for (i, &value) in back.iter().enumerate() {
        assert_eq!(value, 2.0 * i as f32 + 1.0, "element {i}");
    }
    let mut host = vec![0.0_f32; blocks];
    sums.copy_to(&mut host)?;
    assert_eq!(host.iter().sum::<f32>(), back.iter().sum::<f32>());
    println!("done");
    Ok(())
}
