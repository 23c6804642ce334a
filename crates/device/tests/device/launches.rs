//! Launches: what a device cannot take is an error before anything runs.

use tollgate_device::testing::devices;
use tollgate_device::{
    DevicePtr, Error, Faults, Gpu, Kernel, Module, Result, StatusBlock, StepBlock, VirtualOptions,
};

use crate::kernels::{
    ABSENT, GREEDY, OutAndBytes, PTX, SCALE_ADD, STEP_AND_STATUS, ScaleAdd, StepAndStatus,
    THROUGH_SHARED, scale_add,
};

#[test]
fn blocks_of_the_step_and_of_the_status_have_one_layout() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let step = StepBlock {
            seed: 0x0123_4567_89ab_cdef,
            layer: 3,
            step: 41,
            pass: 1,
            first_token: 4096,
        };
        let steps = gpu.upload(&stream, &[step]).unwrap();
        let status = gpu.upload(&stream, &[StatusBlock::CLEAR]).unwrap();
        let mut out = gpu.alloc::<u64>(5).unwrap();
        let mut launch = |faults, position| {
            let params = StepAndStatus {
                step: steps.slice().ptr(),
                status: status.slice().ptr(),
                out: out.slice_mut().ptr(),
                faults,
                position,
            };
            // SAFETY: the kernel takes the three blocks, and writes 5 elements of `out`.
            unsafe { gpu.launch(&stream, &STEP_AND_STATUS, [1, 1, 1], 0, &params) }.unwrap();
        };
        launch(Faults::FAULTY_ROW, 17);
        launch(Faults::MAP_INDEX, 5);
        // Captured, it reads the step anew each time.
        let graph = stream.capture(|_| {
            launch(Faults::FAULTY_ROW, 9);
            Ok::<_, Error>(())
        });
        let graph = graph.unwrap();
        for _ in 0..3 {
            graph.launch(&stream).unwrap();
        }
        let seen = out.read(&stream).unwrap();
        assert_eq!(seen, [step.seed, 3, 45, 1, 4096], "{name}");
        let expected = StepBlock { step: 46, ..step };
        assert_eq!(steps.read(&stream).unwrap(), [expected], "{name}");
        let expected = StatusBlock {
            faults: Faults::FAULTY_ROW | Faults::MAP_INDEX,
            faulty_rows: 5,
            first_faulty_row: 5,
            first_bad_index: 5,
        };
        assert_eq!(status.read(&stream).unwrap(), [expected], "{name}");
    }
}

fn through_shared(gpu: &Gpu, kernel: &'static Kernel, bytes: u32) -> Result<Vec<u32>> {
    let stream = gpu.stream()?;
    let out = gpu.alloc::<u32>(64)?;
    let params = OutAndBytes {
        out: out.slice().ptr(),
        bytes,
        reserved: 0,
    };
    // SAFETY: the kernel writes 64 elements of `out`.
    unsafe { gpu.launch(&stream, kernel, [1, 1, 1], bytes, &params) }?;
    out.read(&stream)
}

#[test]
fn dynamic_shared_memory_goes_up_to_what_the_kernel_opted_for() {
    let expected: Vec<u32> = (0..64).map(|t| 1000 + (t ^ 63)).collect();
    for (name, gpu) in devices() {
        for bytes in [256, 48 << 10, 64 << 10, 99 << 10] {
            let seen = through_shared(gpu, &THROUGH_SHARED, bytes).unwrap();
            assert_eq!(seen, expected, "{name}: {bytes} bytes");
        }
        let error = through_shared(gpu, &THROUGH_SHARED, (99 << 10) + 4).unwrap_err();
        let words = error.to_string();
        assert!(matches!(
            error,
            Error::Launch {
                kernel: "through_shared",
                ..
            }
        ));
        assert!(
            words.contains("101380 bytes") && words.contains("101376"),
            "{words}"
        );
        // More than any device has.
        let most = gpu.facts().shared_per_block_bytes;
        assert_eq!(
            through_shared(gpu, &GREEDY, most).unwrap(),
            expected,
            "{name}"
        );
        let error = through_shared(gpu, &GREEDY, most + 4).unwrap_err();
        let words = error.to_string();
        assert!(matches!(error, Error::Launch { .. }), "{words}");
        assert!(words.contains(&most.to_string()), "{words}");
    }
}

#[test]
fn grids_that_no_device_takes_are_refused() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let params = ScaleAdd {
            values: DevicePtr::NULL,
            count: 0,
            factor: 0.0,
            addend: 0.0,
        };
        // SAFETY: of no elements, the kernel touches none.
        let launch = |grid| unsafe { gpu.launch(&stream, &SCALE_ADD, grid, 0, &params) };
        for (grid, needle) in [
            ([1 << 31, 1, 1], "grid.x is 2147483648"),
            ([1, 65_536, 1], "grid.y is 65536, must be at most 65535"),
            ([1, 1, 65_536], "grid.z"),
            ([0, 65_536, 1], "grid.y"),
        ] {
            let error = launch(grid).unwrap_err();
            assert!(matches!(
                error,
                Error::Launch {
                    kernel: "scale_add",
                    ..
                }
            ));
            assert!(error.to_string().contains(needle), "{name}: {error}");
        }
        for grid in [[0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1], [3, 2, 2]] {
            launch(grid).unwrap();
        }
        stream.synchronize().unwrap();
    }
}

#[test]
fn modules_that_do_not_load_say_why() {
    static BROKEN: Module = Module {
        name: "tests/broken",
        sm_80: ".version 8.0\n.target sm_80\n.address_size 64\n\
                .visible .entry k()\n{\n\tfrobnicate.u32 %r1;\n}\n",
        sm_90a: None,
    };
    static ENTRY: Kernel = Kernel {
        module: &BROKEN,
        entry: "k",
        threads: 1,
        max_dynamic_shared: 0,
    };
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let params = OutAndBytes {
            out: DevicePtr::NULL,
            bytes: 0,
            reserved: 0,
        };
        // SAFETY: there is no such kernel.
        let launch = |kernel| unsafe { gpu.launch(&stream, kernel, [1, 1, 1], 0, &params) };
        for _ in 0..2 {
            let error = launch(&ENTRY).unwrap_err().to_string();
            assert!(error.contains("frobnicate"), "{name}: {error}");
            let error = launch(&ABSENT).unwrap_err().to_string();
            assert!(error.contains("absent"), "{name}: {error}");
        }
    }
}

#[test]
fn a_hopper_image_is_taken_where_there_is_one() {
    static MODULE: Module = Module {
        name: "tests/two-images",
        sm_80: PTX,
        sm_90a: Some(
            ".version 8.0\n.target sm_90a\n.address_size 64\n\
             .visible .entry scale_add(.param .align 8 .b8 params[24])\n{\n\
             .reg .pred %p;\n.reg .b64 %rd<2>;\n.reg .b32 %r<3>;\n\
             ld.param.u64 %rd1, [params];\nmov.u32 %r1, 0x42280000;\n\
             mov.u32 %r2, %tid.x;\nsetp.eq.u32 %p, %r2, 0;\n\
             @%p st.global.u32 [%rd1], %r1;\nret;\n}\n",
        ),
    };
    static KERNEL: Kernel = Kernel {
        module: &MODULE,
        entry: "scale_add",
        threads: 64,
        max_dynamic_shared: 0,
    };
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut value = gpu.upload(&stream, &[1.0_f32]).unwrap();
        scale_add(gpu, &stream, &KERNEL, value.slice_mut(), 2.0, 3.0).unwrap();
        let hopper = gpu.facts().compute_capability == (9, 0);
        let expected = if hopper { 42.0 } else { 5.0 };
        assert_eq!(value.read(&stream).unwrap(), [expected], "{name}");
    }
}

#[test]
fn the_virtual_gpu_counts_what_was_launched() {
    let gpu = Gpu::virtual_gpu(&VirtualOptions::default()).unwrap();
    let stream = gpu.stream().unwrap();
    let mut values = gpu.upload(&stream, &[1.0_f32; 128]).unwrap();
    scale_add(&gpu, &stream, &SCALE_ADD, values.slice_mut(), 2.0, 3.0).unwrap();
    stream.synchronize().unwrap();
    let [launch] = gpu.take_launches().try_into().unwrap();
    assert_eq!(launch.kernel, "scale_add");
    assert_eq!((launch.grid, launch.block), ([2, 1, 1], [64, 1, 1]));
    assert_eq!(launch.counters.read_bytes, 512);
    assert_eq!(launch.counters.written_bytes, 512);
    assert_eq!(launch.counters.moved_bytes(), 1024);
    assert_eq!(gpu.take_launches(), []);
}
