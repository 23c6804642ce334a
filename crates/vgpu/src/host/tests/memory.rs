//! Allocations and copies.

use super::*;
use crate::memory::Owner;

#[test]
fn allocations_are_counted_and_limited() {
    let machine = machine_of(config());
    let a = machine.alloc(0, 1000).unwrap();
    let info = machine.mem_info(0).unwrap();
    assert_eq!((info.free, info.total), ((1 << 24) - 1000, 1 << 24));
    let error = machine.alloc(0, 1 << 24).unwrap_err();
    assert_eq!(
        error.to_string(),
        "out of memory on device 0: 16777216 bytes wanted, 16776216 free"
    );
    let range = machine.range_of(a + 999).unwrap();
    assert_eq!(
        (range.base, range.bytes, range.owner),
        (a, 1000, Owner::Device(0))
    );
    assert!(machine.range_of(a + 1000).is_err());
    assert!(machine.free(a + 8).is_err());
    machine.free(a).unwrap();
    assert!(
        machine
            .free(a)
            .unwrap_err()
            .to_string()
            .contains("freed memory")
    );
    assert_eq!(machine.mem_info(0).unwrap().free, 1 << 24);
    assert!(machine.alloc(0, 0).is_err());
}

#[test]
fn bytes_come_back() {
    let machine = machine_of(config());
    let ptr = machine.alloc(0, 1 << 20).unwrap();
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    machine.write(ptr, &bytes).unwrap();
    let mut out = vec![0; 1 << 20];
    machine.read(ptr, &mut out).unwrap();
    assert_eq!(out, bytes);
    // Overlapping copies behave like `memmove`, in both directions.
    machine.copy(ptr + 3, ptr, 500_000).unwrap();
    machine.read(ptr + 3, &mut out[..500_000]).unwrap();
    assert_eq!(out[..500_000], bytes[..500_000]);
    machine.copy(ptr, ptr + 3, 500_000).unwrap();
    machine.read(ptr, &mut out[..500_000]).unwrap();
    assert_eq!(out[..500_000], bytes[..500_000]);
    assert!(
        machine
            .read(ptr + 10, &mut out)
            .unwrap_err()
            .to_string()
            .contains("past the end")
    );
    assert!(machine.take_reports().is_empty());
}

#[test]
fn fills_have_three_widths_and_rows() {
    let machine = machine_of(config());
    let ptr = machine.alloc(0, 64).unwrap();
    machine.fill8(ptr, 0xee, 64).unwrap();
    machine.fill16(ptr + 2, 0x1234, 2).unwrap();
    machine.fill32(ptr + 8, 0xdead_beef, 1).unwrap();
    let fill = Fill {
        ptr: ptr + 16,
        pitch: 16,
        width: 2,
        rows: 3,
        value: 7,
        element_bytes: 1,
    };
    machine
        .fill_2d(machine.default_stream(0).unwrap(), &fill)
        .unwrap();
    let mut out = [0; 64];
    machine.read(ptr, &mut out).unwrap();
    assert_eq!(
        out[..12],
        [
            0xee, 0xee, 0x34, 0x12, 0x34, 0x12, 0xee, 0xee, 0xef, 0xbe, 0xad, 0xde
        ]
    );
    for row in 0..3 {
        assert_eq!(out[16 + 16 * row..19 + 16 * row], [7, 7, 0xee]);
    }
    assert!(
        machine
            .fill32(ptr + 2, 0, 1)
            .unwrap_err()
            .to_string()
            .contains("multiples")
    );
    assert!(machine.fill8(ptr, 0, 65).is_err());
}

#[test]
fn boxes_are_copied_with_their_pitches() {
    let machine = machine_of(config());
    let stream = machine.default_stream(0).unwrap();
    let ptr = machine.alloc(0, 1000).unwrap();
    machine.fill8(ptr, 0, 1000).unwrap();
    // 2 slices of 3 rows of 4 bytes.
    let from: Vec<u8> = (1..=24).collect();
    let shape = Shape3d {
        width: 4,
        rows: 3,
        slices: 2,
        dst_pitch: 10,
        dst_slice_rows: 5,
        src_pitch: 4,
        src_slice_rows: 3,
    };
    machine
        .copy_3d(stream, Target::Memory(ptr), Source::Slice(&from), &shape)
        .unwrap();
    let mut raw = [0; 100];
    machine.read(ptr, &mut raw).unwrap();
    assert_eq!(raw[..6], [1, 2, 3, 4, 0, 0]);
    assert_eq!(raw[10..15], [5, 6, 7, 8, 0]);
    assert_eq!(raw[50..55], [13, 14, 15, 16, 0]);
    let back = Shape3d {
        dst_pitch: 4,
        dst_slice_rows: 3,
        src_pitch: 10,
        src_slice_rows: 5,
        ..shape
    };
    let mut out = vec![0; 24];
    machine
        .copy_3d(stream, Target::Slice(&mut out), Source::Memory(ptr), &back)
        .unwrap();
    assert_eq!(out, from);
    // Within the device.
    machine
        .copy_3d_async(stream, ptr + 500, ptr, &back)
        .unwrap();
    machine.read(ptr + 500, &mut out).unwrap();
    assert_eq!(out, from);
    let narrow = Shape3d {
        dst_pitch: 3,
        ..shape
    };
    let error = machine
        .copy_3d_async(stream, ptr, ptr, &narrow)
        .unwrap_err();
    assert!(error.to_string().contains("pitch of 3"), "{error}");
    let short = machine.copy_3d(
        stream,
        Target::Memory(ptr),
        Source::Slice(&from[1..]),
        &shape,
    );
    assert!(short.unwrap_err().to_string().contains("23 bytes"));
}

#[test]
fn bytes_that_nobody_wrote_are_followed_through_copies() {
    let (machine, _) = machine();
    let a = machine.alloc(0, 256).unwrap();
    let b = machine.alloc(0, 256).unwrap();
    machine.fill8(b, 1, 256).unwrap();
    machine.write(a, &[1; 100]).unwrap();
    machine.copy(b, a, 128).unwrap();
    assert!(machine.take_reports().is_empty());
    let mut out = [0; 100];
    machine.read(b, &mut out).unwrap();
    assert!(machine.take_reports().is_empty());
    let mut out = [0; 256];
    machine.read(b, &mut out).unwrap();
    let reports = machine.take_reports();
    assert_eq!(kinds(&reports), [Kind::UninitialisedRead]);
    assert_eq!(
        reports[0].message,
        format!(
            "28 of 256 bytes copied to the host from offset 0 of the 256-byte allocation at {b:#x} \
             were never written; the first is at offset 100"
        )
    );
}

#[test]
fn pinned_memory_is_the_hosts_and_the_kernels() {
    let (machine, module) = machine();
    let host = machine.alloc_host(128).unwrap();
    assert_eq!(machine.range_of(host).unwrap().owner, Owner::Host);
    module.go(
        &machine,
        machine.default_stream(0).unwrap(),
        "store",
        [host, 9],
    );
    machine.synchronize_device(0).unwrap();
    // The test may read it like any memory, with nothing under way.
    #[allow(unsafe_code, reason = "pinned memory is a pointer")]
    // SAFETY: `alloc_host` returned it with 128 bytes, it was not freed, and no work is left.
    let words = unsafe { std::slice::from_raw_parts(host as *const u32, 32) };
    assert_eq!(words, [9; 32]);
    machine.free_host(host).unwrap();
    assert!(machine.free_host(host).is_err());
    assert!(machine.range_of(host).is_err());
    assert!(machine.take_reports().is_empty());
}

#[test]
fn registered_memory_does_not_overlap() {
    let machine = machine_of(config());
    let mut words = vec![0_u64; 64];
    let ptr = words.as_mut_ptr() as u64;
    #[allow(unsafe_code, reason = "registering memory is a promise about it")]
    // SAFETY: the vector lives until it is unregistered, and is not touched meanwhile.
    unsafe {
        machine.register_host(ptr, 512).unwrap();
        assert_eq!(
            machine.register_host(ptr + 8, 8),
            Err(Error::AlreadyRegistered(ptr + 8))
        );
        assert!(machine.register_host(0, 8).is_err());
        assert!(machine.register_host(u64::MAX - 4, 8).is_err());
    }
    machine.fill32(ptr, 3, 128).unwrap();
    assert!(machine.free_host(ptr).is_err());
    machine.unregister_host(ptr).unwrap();
    assert!(machine.unregister_host(ptr).is_err());
    assert_eq!(words, [0x0000_0003_0000_0003; 64]);
}

#[test]
fn stream_ordered_memory_comes_and_goes() {
    let (machine, module) = machine();
    let stream = stream(&machine, true);
    let ptr = machine.alloc_async(stream, 128).unwrap();
    module.go(&machine, stream, "store", [ptr, 1]);
    machine.free_async(stream, ptr).unwrap();
    machine.synchronize(stream).unwrap();
    assert!(machine.take_reports().is_empty());
    assert_eq!(machine.check_leaks(), []);
    assert!(machine.free_async(stream, ptr).is_err());
    // Freed in one stream while another one may still use it.
    let ptr = machine.alloc(0, 128).unwrap();
    let other = super::stream(&machine, true);
    module.go(&machine, stream, "store", [ptr, 1]);
    machine.synchronize(stream).unwrap();
    let event = machine.event(0).unwrap();
    module.go(&machine, stream, "store", [ptr, 2]);
    machine.record(event, stream).unwrap();
    while machine.query_event(event).is_err() {}
    // The host knows; the stream was told before it did.
    machine.free_async(other, ptr).unwrap();
    machine.synchronize(other).unwrap();
    assert!(machine.take_reports().is_empty());
}

#[test]
fn leaks_are_told_in_their_order() {
    let (machine, _) = machine();
    let a = machine.alloc(0, 100).unwrap();
    let b = machine.alloc(0, 200).unwrap();
    let c = machine.alloc_host(300).unwrap();
    machine.free(b).unwrap();
    let leaks = machine.check_leaks();
    assert_eq!(kinds(&leaks), [Kind::Leak, Kind::Leak]);
    assert_eq!(
        leaks[0].message,
        format!("100 bytes of device 0 at {a:#x} (allocation number 1) were never freed")
    );
    assert!(
        leaks[1]
            .message
            .starts_with("300 bytes of pinned host memory")
    );
    machine.free(a).unwrap();
    machine.free_host(c).unwrap();
    assert_eq!(machine.check_leaks(), []);
}
