//! Memory: what is written is read, wherever it starts, and nothing beside it changes.

use bytemuck::Pod;
use half::{bf16, f16};
use tollgate_device::testing::devices;
use tollgate_device::{DeviceSlice, DeviceSliceMut, Error, Gpu, Workspace, WorkspaceLayout};

/// `len` values that differ from each other, of any type: their bytes count up.
fn pattern<T: Pod>(len: usize) -> Vec<T> {
    let mut values = vec![T::zeroed(); len];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (i * 7 % 251) as u8;
    }
    values
}

fn bytes<T: Pod>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

fn round_trip<T: Pod>(gpu: &Gpu, name: &str) {
    let stream = gpu.stream().unwrap();
    // The last is larger than what a driver takes at once.
    for len in [0, 1, 3, 257, 100_000] {
        let values = pattern::<T>(len);
        let buffer = gpu.upload(&stream, &values).unwrap();
        assert_eq!((buffer.len(), buffer.is_empty()), (len, len == 0));
        let back = buffer.read(&stream).unwrap();
        assert!(
            bytes(&back) == bytes(&values),
            "{name}: {len} elements of {}",
            std::any::type_name::<T>()
        );
    }
}

#[test]
fn every_type_makes_the_round_trip() {
    for (name, gpu) in devices() {
        round_trip::<u8>(gpu, name);
        round_trip::<i8>(gpu, name);
        round_trip::<u16>(gpu, name);
        round_trip::<f16>(gpu, name);
        round_trip::<bf16>(gpu, name);
        round_trip::<i32>(gpu, name);
        round_trip::<u32>(gpu, name);
        round_trip::<f32>(gpu, name);
        round_trip::<i64>(gpu, name);
        round_trip::<u64>(gpu, name);
        round_trip::<f64>(gpu, name);
        round_trip::<tollgate_device::StepBlock>(gpu, name);
        round_trip::<tollgate_device::StatusBlock>(gpu, name);
    }
}

#[test]
fn the_source_of_a_write_may_change_at_once() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        for len in [64, 1_000_000] {
            let mut values = pattern::<u32>(len);
            let expected = values.clone();
            let mut buffer = gpu.alloc::<u32>(len).unwrap();
            buffer.write(&stream, &values).unwrap();
            values.fill(0);
            assert!(buffer.read(&stream).unwrap() == expected, "{name}: {len}");
        }
    }
}

#[test]
fn parts_start_anywhere_and_leave_the_rest_alone() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut expected = vec![0xab_u8; 64];
        let mut buffer = gpu.upload(&stream, &expected).unwrap();
        for (start, len) in [(1, 13), (17, 1), (19, 32), (63, 1), (64, 0)] {
            let values = pattern::<u8>(len);
            let part = buffer.slice_mut().part("a part", start, len).unwrap();
            stream.write(part, &values).unwrap();
            expected[start..start + len].copy_from_slice(&values);
            let part = buffer.slice().part("a part", start, len).unwrap();
            assert_eq!(stream.read(part).unwrap(), values, "{name}");
        }
        assert_eq!(buffer.read(&stream).unwrap(), expected, "{name}");
        for (start, len) in [(60, 5), (65, 0), (1, usize::MAX)] {
            let error = buffer.slice().part("a part", start, len).unwrap_err();
            assert!(
                matches!(error, Error::TooSmall { actual: 64, .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn copies_and_fills_happen_on_the_device() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let values = pattern::<u16>(500);
        let from = gpu.upload(&stream, &values).unwrap();
        let mut to = gpu.alloc::<u16>(500).unwrap();
        stream.fill(to.slice_mut(), 0x5c).unwrap();
        let source = from.slice().part("source", 3, 450).unwrap();
        let target = to.slice_mut().part("target", 50, 450).unwrap();
        stream.copy(source, target).unwrap();
        let back = to.read(&stream).unwrap();
        assert!(back[..50].iter().all(|&x| x == 0x5c5c), "{name}");
        assert_eq!(back[50..], values[3..453], "{name}");

        let error = stream.copy(from.slice(), to.slice_mut().part("a part", 0, 499).unwrap());
        let error = error.unwrap_err().to_string();
        assert_eq!(
            error,
            "the length of the copy's destination is 499, expected 500"
        );
        let mut nothing = gpu.alloc::<u16>(0).unwrap();
        stream.fill(nothing.slice_mut(), 1).unwrap();
        stream
            .copy(gpu.alloc(0).unwrap().slice(), nothing.slice_mut())
            .unwrap();
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut buffer = gpu.upload(&stream, &[1_u32, 2, 3]).unwrap();
        let error = buffer.write(&stream, &[0; 4]).unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooSmall {
                    actual: 3,
                    needed: 4,
                    ..
                }
            ),
            "{name}"
        );
        let error = stream.read_into(buffer.slice(), &mut [0; 2]).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Shape {
                    actual: 2,
                    expected: 3,
                    ..
                }
            ),
            "{name}"
        );
        assert_eq!(buffer.read(&stream).unwrap(), [1, 2, 3]);

        let error = gpu.alloc::<f64>(usize::MAX / 4).unwrap_err();
        assert!(matches!(error, Error::Overflow { .. }), "{name}: {error}");
        let error = gpu.alloc::<u8>(1 << 50).unwrap_err();
        assert!(
            matches!(error, Error::OutOfMemory { bytes, free } if bytes == 1 << 50 && free > 0),
            "{name}: {error}"
        );
    }
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let check = |ptr: u64, len: usize, needle: &str| {
        // SAFETY: the views are refused, or never used.
        let read = unsafe { DeviceSlice::<f32>::from_raw("x", ptr, len) };
        // SAFETY: as above.
        let write = unsafe { DeviceSliceMut::<f32>::from_raw("x", ptr, len) };
        for error in [read.err(), write.err()] {
            let error = error.unwrap_or_else(|| panic!("{ptr:#x} × {len} was taken"));
            assert!(matches!(error, Error::BadPointer { what: "x", .. }));
            assert!(error.to_string().contains(needle), "{error}");
        }
    };
    check(0, 1, "null");
    check(0x1002, 1, "multiple of 4");
    check(0x1001, 0, "multiple of 4");
    check(u64::MAX - 7, 3, "address space");
    check(0x1000, usize::MAX, "address space");
    // SAFETY: of no elements.
    assert!(unsafe { DeviceSlice::<f32>::from_raw("x", 0, 0) }.is_ok());
}

#[test]
fn raw_pointers_are_the_same_memory() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let buffer = gpu.upload(&stream, &[0_i64; 4]).unwrap();
        let ptr = buffer.slice().ptr().0;
        assert_eq!(ptr % 256, 0, "{name}: allocations are aligned");
        // SAFETY: the second and third element of a buffer that outlives the view.
        let part = unsafe { DeviceSliceMut::from_raw("x", ptr + 8, 2) }.unwrap();
        stream.write(part, &[5_i64, 6]).unwrap();
        assert_eq!(buffer.read(&stream).unwrap(), [0, 5, 6, 0], "{name}");
    }
}

#[test]
fn rows_know_their_alignment_and_bounds() {
    for (_, gpu) in devices() {
        let mut buffer = gpu.alloc::<f32>(64).unwrap();
        let all = buffer.slice();
        for (start, rows, stride, alignment) in [
            (0, 4, 16, 16),
            (0, 4, 14, 8),
            (0, 4, 13, 4),
            (0, 1, 13, 16),
            (2, 3, 16, 8),
            (1, 2, 8, 4),
        ] {
            let part = all.part("x", start, 64 - start).unwrap();
            let view = part.rows("x", rows, 8, stride).unwrap();
            assert_eq!(view.row_alignment(), alignment, "{start} {rows} {stride}");
        }
        assert!(all.rows("x", 5, 8, 14).is_ok());
        assert!(matches!(
            all.rows("x", 5, 9, 14),
            Err(Error::TooSmall { needed: 65, .. })
        ));
        assert!(matches!(
            all.rows("x", 2, 8, 7),
            Err(Error::TooSmall { .. })
        ));
        assert!(matches!(
            all.rows("x", 3, 1, usize::MAX),
            Err(Error::Overflow { .. })
        ));
        assert!(buffer.slice_mut().rows("x", 0, 8, 0).is_ok());
    }
}

#[test]
fn a_workspace_is_laid_over_memory() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut layout = WorkspaceLayout::new();
        let counts = layout.array::<i32>("counts", 5).unwrap();
        let sums = layout.array::<f64>("sums", 3).unwrap();
        let mut memory = gpu.alloc::<u8>(layout.bytes()).unwrap();
        let workspace = Workspace::new(memory.slice_mut(), &layout).unwrap();
        stream
            .write(workspace.array(counts).unwrap(), &[1; 5])
            .unwrap();
        stream
            .write(workspace.array(sums).unwrap(), &[2.0; 3])
            .unwrap();
        let back = stream.read(workspace.array(counts).unwrap().into_slice());
        assert_eq!(back.unwrap(), [1; 5], "{name}");
        let mut small = gpu.alloc::<u8>(layout.bytes() - 1).unwrap();
        let error = Workspace::new(small.slice_mut(), &layout).unwrap_err();
        assert!(error.to_string().contains("holds 511, but 512"), "{error}");
        let part = memory.slice_mut().part("x", 8, 0).unwrap();
        let error = Workspace::new(part, &WorkspaceLayout::new()).unwrap_err();
        assert!(matches!(error, Error::BadPointer { .. }), "{error}");
    }
}
