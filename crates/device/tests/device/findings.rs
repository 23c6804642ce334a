//! What the virtual GPU's checks find in a kernel is an error of the next wait.

use tollgate_device::{DevicePtr, Error, Gpu, Result, VirtualOptions};

use crate::kernels::{ENDLESS, Endless, OutAndBytes, RACY, SCALE_ADD, scale_add};

/// A virtual GPU of the test's own: what is found belongs to the whole device.
fn own_gpu(options: &VirtualOptions) -> Gpu {
    Gpu::virtual_gpu(options).unwrap()
}

/// Launches `racy` on 64 elements and waits.
pub fn race(gpu: &Gpu, offset: u32) -> Result<()> {
    let stream = gpu.stream()?;
    let out = gpu.upload(&stream, &[0_u32; 64])?;
    let params = OutAndBytes {
        out: out.slice().ptr(),
        bytes: offset,
        reserved: 0,
    };
    // SAFETY: on the virtual GPU every access is checked, whatever its address.
    unsafe { gpu.launch(&stream, &RACY, [1, 1, 1], 0, &params) }?;
    stream.synchronize()
}

/// Launches a kernel that never ends and waits.
pub fn hang(gpu: &Gpu) -> Result<()> {
    let stream = gpu.stream()?;
    let flag = gpu.upload(&stream, &[0_u32])?;
    let params = Endless {
        flag: flag.slice().ptr(),
        reserved: 0,
    };
    // SAFETY: the kernel reads the flag.
    unsafe { gpu.launch(&stream, &ENDLESS, [1, 1, 1], 0, &params) }?;
    stream.synchronize()
}

fn first_finding(outcome: Result<()>) -> String {
    match outcome {
        Err(Error::Checks { count, first }) if count > 0 => first,
        other => panic!("no finding: {other:?}"),
    }
}

#[test]
fn a_race_is_found() {
    let gpu = own_gpu(&VirtualOptions::default());
    let first = first_finding(race(&gpu, 0));
    assert!(first.contains("race") && first.contains("racy"), "{first}");
    // It is told once, and the device goes on.
    let stream = gpu.stream().unwrap();
    let mut values = gpu.upload(&stream, &[1.0_f32; 3]).unwrap();
    scale_add(&gpu, &stream, &SCALE_ADD, values.slice_mut(), 2.0, 0.0).unwrap();
    assert_eq!(values.read(&stream).unwrap(), [2.0; 3]);
    // Without checks nobody looks.
    let options = VirtualOptions {
        checks: false,
        ..VirtualOptions::default()
    };
    assert_eq!(race(&own_gpu(&options), 0), Ok(()));
}

#[test]
fn memory_that_nobody_wrote_is_found() {
    let gpu = own_gpu(&VirtualOptions::default());
    let stream = gpu.stream().unwrap();
    let mut values = gpu.alloc::<f32>(5).unwrap();
    scale_add(&gpu, &stream, &SCALE_ADD, values.slice_mut(), 2.0, 0.0).unwrap();
    let first = first_finding(stream.synchronize());
    assert!(first.contains("scale_add"), "{first}");
}

#[test]
fn an_access_outside_is_found_by_a_read_too() {
    for checks in [true, false] {
        let options = VirtualOptions {
            checks,
            ..VirtualOptions::default()
        };
        let gpu = own_gpu(&options);
        let first = first_finding(race(&gpu, 256));
        assert!(first.contains("racy"), "{first}");
        // All that follows on a device after a fault is an error.
        let buffer = gpu.alloc::<u32>(1);
        let stream = gpu.default_stream();
        assert!(buffer.and_then(|buffer| buffer.read(stream)).is_err());
    }
    let gpu = own_gpu(&VirtualOptions::default());
    let stream = gpu.stream().unwrap();
    let params = OutAndBytes {
        out: DevicePtr::NULL,
        bytes: 0,
        reserved: 0,
    };
    let buffer = gpu.upload(&stream, &[1_u8]).unwrap();
    // SAFETY: as in `race`.
    unsafe { gpu.launch(&stream, &RACY, [1, 1, 1], 0, &params) }.unwrap();
    first_finding(buffer.read(&stream).map(|_| ()));
}

#[test]
fn a_kernel_that_never_ends_is_found() {
    let options = VirtualOptions {
        budget: 100_000,
        ..VirtualOptions::default()
    };
    let first = first_finding(hang(&own_gpu(&options)));
    assert!(first.contains("endless"), "{first}");
}
