//! Device buffers for tests, poisoned and between fences, and the contexts that tests draw from.

use bytemuck::Pod;
use tollgate_core::StepContext;
use tollgate_device::{
    Buffer, DeviceSlice, DeviceSliceMut, Gpu, StepBlock, Stream, VirtualOptions,
};

const FENCE: usize = 32;
const FENCE_BYTE: u8 = 0xc5;
/// A NaN in every floating-point type, and no index.
const POISON: u8 = 0xff;

/// A poisoned buffer between fences. What a kernel fails to write stays poison.
pub struct Fenced<T> {
    buffer: Buffer<T>,
    start: usize,
    len: usize,
}

impl<T: Pod> Fenced<T> {
    /// `len` elements; `misalign` shifts the start by that many.
    pub fn new(gpu: &Gpu, len: usize, misalign: usize) -> Self {
        let start = FENCE + misalign;
        let mut buffer = gpu.alloc(start + len + FENCE).unwrap();
        let stream = gpu.default_stream();
        stream.fill(buffer.slice_mut(), FENCE_BYTE).unwrap();
        let inner = buffer.slice_mut().part("inner", start, len).unwrap();
        stream.fill(inner, POISON).unwrap();
        Self { buffer, start, len }
    }

    /// With values in it.
    pub fn from_slice(gpu: &Gpu, values: &[T], misalign: usize) -> Self {
        let mut fenced = Self::new(gpu, values.len(), misalign);
        gpu.default_stream()
            .write(fenced.get_mut(), values)
            .unwrap();
        fenced
    }

    pub fn get(&self) -> DeviceSlice<'_, T> {
        self.buffer
            .slice()
            .part("inner", self.start, self.len)
            .unwrap()
    }

    pub fn get_mut(&mut self) -> DeviceSliceMut<'_, T> {
        let (start, len) = (self.start, self.len);
        self.buffer.slice_mut().part("inner", start, len).unwrap()
    }

    /// Panics when a fence was written over. Unlike [`Fenced::read`] it does not ask for the
    /// values, of which some may be undefined.
    #[track_caller]
    pub fn read_fences(&self, stream: &Stream) {
        let end = self.start + self.len;
        for (start, len) in [(0, self.start), (end, self.buffer.len() - end)] {
            let fence = self.buffer.slice().part("fence", start, len).unwrap();
            let fence = stream.read(fence).unwrap();
            let bytes: &[u8] = bytemuck::cast_slice(&fence);
            assert!(
                bytes.iter().all(|&b| b == FENCE_BYTE),
                "written beside the buffer"
            );
        }
    }

    /// The values; panics when a fence was written over.
    #[track_caller]
    pub fn read(&self, stream: &Stream) -> Vec<T> {
        self.read_fences(stream);
        stream.read(self.get()).unwrap()
    }
}

/// A step context as kernels read it.
pub fn step_block(ctx: &StepContext) -> StepBlock {
    StepBlock {
        seed: ctx.seed,
        layer: ctx.layer,
        step: ctx.step,
        pass: ctx.pass,
        first_token: ctx.first_token,
    }
}

/// A context in the middle of training.
pub fn some_context() -> StepContext {
    StepContext {
        seed: 0x1234_5678_9abc_def0,
        layer: 3,
        step: 17,
        pass: 1,
        first_token: 1000,
        training: true,
    }
}

/// A virtual GPU of a seed, with all checks.
pub fn seeded(seed: u64) -> Gpu {
    let options = VirtualOptions {
        seed,
        threads: 1,
        memory_bytes: 1 << 28,
        ..VirtualOptions::default()
    };
    Gpu::virtual_gpu(&options).unwrap()
}
