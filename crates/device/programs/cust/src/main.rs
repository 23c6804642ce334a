//! A program of cust's that launches kernels through `Gpu`: on cust's streams, on cust's memory.
//! cust checks what came out.

use std::error::Error;
use std::sync::Arc;

use cust::memory::{CopyDestination, DeviceBuffer};
use cust::stream::{Stream, StreamFlags};
use tollgate_device::{
    Abi, DevicePtr, DeviceSlice, DeviceSliceMut, DeviceSpec, Gpu, Kernel, Module,
};
use tollgate_kernels::abi::{Field, Struct};

static MODULE: Module = Module {
    name: "programs/cust",
    sm_80: include_str!("../../../tests/device/kernels.ptx"),
    sm_90a: None,
};

static SCALE_ADD: Kernel = Kernel {
    module: &MODULE,
    entry: "scale_add",
    threads: 64,
    max_dynamic_shared: 0,
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ScaleAdd {
    values: DevicePtr,
    count: u64,
    factor: f32,
    addend: f32,
}

impl Abi for ScaleAdd {
    const STRUCT: Struct = {
        const fn field(name: &'static str, offset: usize, size: usize) -> Field {
            let c_type = "";
            Field {
                name,
                c_type,
                offset,
                size,
            }
        }
        Struct {
            name: "ScaleAdd",
            size: size_of::<Self>(),
            align: align_of::<Self>(),
            fields: &[
                field("values", 0, 8),
                field("count", 8, 8),
                field("factor", 16, 4),
                field("addend", 20, 4),
            ],
        }
    };
}

const N: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let _context = cust::quick_init()?;
    let gpu = Gpu::open(DeviceSpec::Cuda(0))?;
    println!("{}", gpu.facts().name);

    let cust_stream = Arc::new(Stream::new(StreamFlags::NON_BLOCKING, None)?);
    let host: Vec<f32> = (0..N).map(|i| i as f32).collect();
    let mut x = DeviceBuffer::from_slice(&host)?;
    let stream = gpu.cust_stream(cust_stream.clone())?;

    // A launch on all of it, and one on a part that starts at an odd element.
    scale_add(&gpu, &stream, DeviceSliceMut::from_cust(&mut x), 2.0, 1.0)?;
    scale_add(
        &gpu,
        &stream,
        DeviceSliceMut::from_cust(&mut x.index(1..11)),
        1.0,
        0.5,
    )?;
    cust_stream.synchronize()?;
    let mut back = vec![0.0; N];
    x.copy_to(&mut back)?;
    for (i, &value) in back.iter().enumerate() {
        let more = if (1..11).contains(&i) { 0.5 } else { 0.0 };
        assert_eq!(value, 2.0 * i as f32 + 1.0 + more, "element {i}");
    }

    // Copies between memory of cust and of this crate, in a stream that is borrowed.
    let mut ours = gpu.alloc::<f32>(N)?;
    {
        // SAFETY: the stream of cust outlives this block.
        let borrowed = unsafe { gpu.borrow_cust_stream(&cust_stream) }?;
        borrowed.copy(DeviceSlice::from_cust(&x), ours.slice_mut())?;
        scale_add(&gpu, &borrowed, ours.slice_mut(), 0.0, 7.0)?;
        borrowed.copy(ours.slice(), DeviceSliceMut::from_cust(&mut x))?;
    }
    // Here it is waited for by the one, above by the other.
    stream.synchronize()?;
    x.copy_to(&mut back)?;
    assert_eq!(back, [7.0; N]);

    // The stream lives as long as whoever uses it.
    drop(cust_stream);
    assert_eq!(ours.read(&stream)?, [7.0; N]);
    println!("done");
    Ok(())
}

fn scale_add(
    gpu: &Gpu,
    stream: &tollgate_device::Stream,
    values: DeviceSliceMut<'_, f32>,
    factor: f32,
    addend: f32,
) -> tollgate_device::Result<()> {
    let params = ScaleAdd {
        values: values.ptr(),
        count: values.len() as u64,
        factor,
        addend,
    };
    let blocks = values.len().div_ceil(64) as u32;
    // SAFETY: the kernel changes `count` elements of `values`.
    unsafe { gpu.launch(stream, &SCALE_ADD, [blocks, 1, 1], 0, &params) }
}
