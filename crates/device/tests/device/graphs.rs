//! Work that is captured once and launched again and again.

use tollgate_device::testing::devices;
use tollgate_device::{Error, Result};

use crate::kernels::{LATE_SCALE_ADD, SCALE_ADD, scale_add};

#[test]
fn a_graph_does_what_was_captured_each_time() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut values = gpu.upload(&stream, &[1.0_f32; 200]).unwrap();
        let mut last = gpu.upload(&stream, &[0.0_f32; 200]).unwrap();
        let mut flags = gpu.upload(&stream, &[7_u8; 5]).unwrap();
        let graph = stream.capture(|stream| {
            stream.copy(values.slice(), last.slice_mut())?;
            scale_add(gpu, stream, &SCALE_ADD, values.slice_mut(), 2.0, 0.0)?;
            scale_add(gpu, stream, &SCALE_ADD, values.slice_mut(), 1.0, 1.0)?;
            stream.fill(flags.slice_mut(), 9)
        });
        let graph = graph.unwrap();
        assert_eq!(
            values.read(&stream).unwrap(),
            [1.0; 200],
            "{name}: nothing ran yet"
        );
        assert_eq!(flags.read(&stream).unwrap(), [7; 5]);
        let mut expected = 1.0;
        for _ in 0..5 {
            graph.launch(&stream).unwrap();
            assert_eq!(last.read(&stream).unwrap(), [expected; 200], "{name}");
            expected = 2.0 * expected + 1.0;
        }
        assert_eq!(values.read(&stream).unwrap(), [expected; 200], "{name}");
        assert_eq!(flags.read(&stream).unwrap(), [9; 5]);
        // Twice without a wait, in another stream.
        let other = gpu.stream().unwrap();
        graph.launch(&other).unwrap();
        graph.launch(&other).unwrap();
        let expected = 4.0 * expected + 3.0;
        assert_eq!(values.read(&other).unwrap(), [expected; 200], "{name}");
    }
}

#[test]
fn other_streams_take_part_by_events() {
    for (name, gpu) in devices() {
        let (stream, side) = (gpu.stream().unwrap(), gpu.stream().unwrap());
        let mut a = gpu.upload(&stream, &[1.0_f32; 100]).unwrap();
        let mut b = gpu.upload(&stream, &[1.0_f32; 100]).unwrap();
        stream.synchronize().unwrap();
        let graph = stream.capture(|stream| {
            side.wait(&stream.record()?)?;
            scale_add(gpu, &side, &SCALE_ADD, b.slice_mut(), 3.0, 0.0)?;
            scale_add(gpu, stream, &SCALE_ADD, a.slice_mut(), 2.0, 0.0)?;
            stream.wait(&side.record()?)?;
            stream.copy(b.slice(), a.slice_mut())
        });
        let graph = graph.unwrap();
        graph.launch(&stream).unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(a.read(&stream).unwrap(), [9.0; 100], "{name}");
        assert_eq!(b.read(&side).unwrap(), [9.0; 100], "{name}");
    }
}

#[test]
fn a_kernel_may_be_launched_for_the_first_time_in_a_capture() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut values = gpu.upload(&stream, &[1.0_f32; 10]).unwrap();
        let graph = stream
            .capture(|stream| scale_add(gpu, stream, &LATE_SCALE_ADD, values.slice_mut(), 2.0, 3.0))
            .unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(values.read(&stream).unwrap(), [5.0; 10], "{name}");
    }
}

#[test]
fn what_a_graph_cannot_hold_is_refused() {
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let mut values = gpu.upload(&stream, &[1.0_f32; 10]).unwrap();
        stream.synchronize().unwrap();
        let refused = |outcome: Result<_>| match outcome {
            Err(error) => assert!(matches!(error, Error::Driver { .. }), "{name}: {error}"),
            Ok(_) => panic!("{name}: it was captured"),
        };
        refused(stream.capture(|stream| stream.read(values.slice()).map(|_| ())));
        refused(stream.capture(|stream| values.write(stream, &[2.0; 10])));
        refused(stream.capture(|stream| stream.synchronize()));
        refused(gpu.default_stream().capture(|_| Ok(())));
        // The stream is none the worse for it.
        scale_add(gpu, &stream, &SCALE_ADD, values.slice_mut(), 2.0, 0.0).unwrap();
        assert_eq!(values.read(&stream).unwrap(), [2.0; 10], "{name}");
    }
}

#[test]
fn an_error_of_the_work_ends_the_capture() {
    #[derive(Debug)]
    enum Failure {
        Mine,
        Device,
    }
    impl From<Error> for Failure {
        fn from(_: Error) -> Self {
            Self::Device
        }
    }
    for (name, gpu) in devices() {
        let stream = gpu.stream().unwrap();
        let outcome = stream.capture(|_| Err(Failure::Mine));
        assert!(matches!(outcome.err(), Some(Failure::Mine)), "{name}");
        let graph = stream.capture(|_| Ok::<_, Failure>(())).unwrap();
        graph.launch(&stream).unwrap();
        stream.synchronize().unwrap();
    }
}
