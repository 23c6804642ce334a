//! The kernels of the tests, and how they are launched.

use bytemuck::{Pod, Zeroable};
use tollgate_device::{Abi, DevicePtr, DeviceSliceMut, Gpu, Kernel, Module, Result, Stream};
use tollgate_kernels::abi::{Field, Struct};

pub const PTX: &str = include_str!("kernels.ptx");

static MODULE: Module = Module {
    name: "tests/device",
    sm_80: PTX,
    sm_90a: None,
};

/// The same under another name, so that it is loaded where it is used for the first time.
static LATE: Module = Module {
    name: "tests/device-late",
    sm_80: PTX,
    sm_90a: None,
};

const fn kernel(module: &'static Module, entry: &'static str, threads: u32) -> Kernel {
    Kernel {
        module,
        entry,
        threads,
        max_dynamic_shared: 0,
    }
}

pub static SCALE_ADD: Kernel = kernel(&MODULE, "scale_add", 64);
pub static LATE_SCALE_ADD: Kernel = kernel(&LATE, "scale_add", 64);
pub static STEP_AND_STATUS: Kernel = kernel(&MODULE, "step_and_status", 1);
pub static RACY: Kernel = kernel(&MODULE, "racy", 64);
pub static ENDLESS: Kernel = kernel(&MODULE, "endless", 1);
pub static ABSENT: Kernel = kernel(&MODULE, "absent", 1);
pub static THROUGH_SHARED: Kernel = Kernel {
    max_dynamic_shared: 99 << 10,
    ..kernel(&MODULE, "through_shared", 64)
};
/// Asks for more than any device has.
pub static GREEDY: Kernel = Kernel {
    max_dynamic_shared: 1 << 20,
    ..kernel(&LATE, "through_shared", 64)
};

macro_rules! params {
    ($( $name:ident { $( $field:ident : $rust:ty ),+ } )+) => {$(
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
        pub struct $name { $( pub $field: $rust ),+ }

        impl Abi for $name {
            const STRUCT: Struct = Struct {
                name: stringify!($name),
                size: size_of::<$name>(),
                align: align_of::<$name>(),
                fields: &[$( Field {
                    name: stringify!($field),
                    c_type: "",
                    offset: std::mem::offset_of!($name, $field),
                    size: size_of::<$rust>(),
                } ),+],
            };
        }
    )+};
}

params! {
    ScaleAdd { values: DevicePtr, count: u64, factor: f32, addend: f32 }
    StepAndStatus {
        step: DevicePtr,
        status: DevicePtr,
        out: DevicePtr,
        faults: u32,
        position: u32
    }
    OutAndBytes { out: DevicePtr, bytes: u32, reserved: u32 }
    Endless { flag: DevicePtr, reserved: u64 }
}

/// `values = values · factor + addend`.
pub fn scale_add(
    gpu: &Gpu,
    stream: &Stream,
    kernel: &'static Kernel,
    values: DeviceSliceMut<'_, f32>,
    factor: f32,
    addend: f32,
) -> Result<()> {
    let params = ScaleAdd {
        values: values.ptr(),
        count: values.len() as u64,
        factor,
        addend,
    };
    let grid = [values.len().div_ceil(64) as u32, 1, 1];
    // SAFETY: the kernel changes `count` elements of `values`.
    unsafe { gpu.launch(stream, kernel, grid, 0, &params) }
}
