//! Order: within a stream, between streams by events, and across threads.

use std::sync::Arc;

use tollgate_device::testing::devices;
use tollgate_device::{DeviceSliceMut, Error, Gpu, VirtualOptions};

use crate::kernels::{SCALE_ADD, scale_add};

#[test]
fn a_stream_keeps_the_order() {
    for (name, gpu) in devices() {
        for stream in [&gpu.stream().unwrap(), gpu.default_stream()] {
            let mut buffer = gpu.upload(stream, &[0.0_f32; 1000]).unwrap();
            for _ in 0..6 {
                scale_add(gpu, stream, &SCALE_ADD, buffer.slice_mut(), 2.0, 1.0).unwrap();
            }
            assert_eq!(buffer.read(stream).unwrap(), [63.0; 1000], "{name}");
        }
    }
}

#[test]
fn a_stream_waits_for_an_event_of_another() {
    for (name, gpu) in devices() {
        let (first, second) = (gpu.stream().unwrap(), gpu.stream().unwrap());
        let mut buffer = gpu.upload(&first, &[1.0_f32; 500]).unwrap();
        let mut copy = gpu.alloc::<f32>(500).unwrap();
        for round in 0..10 {
            scale_add(gpu, &first, &SCALE_ADD, buffer.slice_mut(), 1.0, 1.0).unwrap();
            second.wait(&first.record().unwrap()).unwrap();
            second.copy(buffer.slice(), copy.slice_mut()).unwrap();
            // The other way round too: the next launch must not overtake the copy.
            first.wait(&second.record().unwrap()).unwrap();
            if round % 3 == 2 {
                let expected = [round as f32 + 2.0; 500];
                assert_eq!(copy.read(&second).unwrap(), expected, "{name}");
            }
        }
        first.synchronize().unwrap();
        second.synchronize().unwrap();
    }
}

#[test]
fn events_tell_the_time_between_them() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut buffer = gpu.upload(&stream, &[1.0_f32; 10_000]).unwrap();
        let start = stream.record().unwrap();
        for _ in 0..3 {
            scale_add(gpu, &stream, &SCALE_ADD, buffer.slice_mut(), 1.5, 0.0).unwrap();
        }
        let end = stream.record().unwrap();
        // Nothing was waited for before.
        let milliseconds = end.elapsed_ms(&start).unwrap();
        assert!(
            milliseconds > 0.0 && milliseconds < 60_000.0,
            "{name}: {milliseconds}"
        );
        assert_eq!(start.elapsed_ms(&start).unwrap(), 0.0, "{name}");
        stream.synchronize().unwrap();
    }
}

#[test]
fn a_borrowed_stream_is_the_same_queue() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut buffer = gpu.upload(&stream, &[3.0_f32; 10]).unwrap();
        // SAFETY: the stream outlives the one that borrows it.
        let borrowed = unsafe { gpu.borrow_stream(stream.handle()) };
        // SAFETY: the elements of a buffer that outlives the view.
        let view = unsafe { DeviceSliceMut::from_raw("values", buffer.slice().ptr().0, 10) };
        scale_add(gpu, &borrowed, &SCALE_ADD, view.unwrap(), 2.0, 1.0).unwrap();
        borrowed.clone().synchronize().unwrap();
        drop(borrowed);
        scale_add(gpu, &stream, &SCALE_ADD, buffer.slice_mut(), 1.0, 1.0).unwrap();
        assert_eq!(buffer.read(&stream).unwrap(), [8.0; 10], "{name}");
    }
}

#[test]
fn a_shared_stream_keeps_its_owner() {
    for (name, gpu) in devices() {
        let owner = Arc::new(gpu.stream().unwrap());
        let still_there = Arc::downgrade(&owner);
        let handle = owner.handle();
        // SAFETY: the owner is the stream.
        let shared = unsafe { gpu.share_stream(handle, owner) };
        let clone = shared.clone();
        drop(shared);
        let buffer = gpu.upload(&clone, &[4_u32]).unwrap();
        assert_eq!(buffer.read(&clone).unwrap(), [4], "{name}");
        assert!(still_there.upgrade().is_some());
        drop(clone);
        assert!(still_there.upgrade().is_none(), "{name}");
    }
}

#[test]
fn the_default_stream_has_the_handle_that_frameworks_pass() {
    for (name, gpu) in devices() {
        assert_eq!(gpu.default_stream().handle(), 0, "{name}");
        // SAFETY: the default stream lives as long as the device.
        let borrowed = unsafe { gpu.borrow_stream(0) };
        let buffer = gpu.upload(&borrowed, &[4_u32]).unwrap();
        assert_eq!(buffer.read(gpu.default_stream()).unwrap(), [4]);
    }
}

#[test]
fn any_thread_may_use_a_device() {
    for (name, gpu) in devices() {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    let stream = gpu.stream().unwrap();
                    let mut buffer = gpu.upload(&stream, &[thread as f32; 300]).unwrap();
                    for _ in 0..4 {
                        scale_add(gpu, &stream, &SCALE_ADD, buffer.slice_mut(), 1.0, 10.0).unwrap();
                    }
                    let expected = [thread as f32 + 40.0; 300];
                    assert_eq!(buffer.read(&stream).unwrap(), expected, "{name}");
                });
            }
        });
    }
}

#[test]
fn devices_are_not_mixed() {
    let other = Gpu::virtual_gpu(&VirtualOptions::default()).unwrap();
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut buffer = gpu.upload(&stream, &[1.0_f32]).unwrap();
        let foreign = other.default_stream();
        let is_foreign = |error: Error| matches!(error, Error::OtherDevice { .. });
        let launched = scale_add(gpu, foreign, &SCALE_ADD, buffer.slice_mut(), 1.0, 1.0);
        assert!(is_foreign(launched.unwrap_err()), "{name}");
        let event = foreign.record().unwrap();
        assert!(is_foreign(stream.wait(&event).unwrap_err()), "{name}");
        let own = stream.record().unwrap();
        assert!(is_foreign(own.elapsed_ms(&event).unwrap_err()), "{name}");
        let graph = other.stream().unwrap().capture(|_| Ok::<_, Error>(()));
        assert!(
            is_foreign(graph.unwrap().launch(&stream).unwrap_err()),
            "{name}"
        );
    }
}
