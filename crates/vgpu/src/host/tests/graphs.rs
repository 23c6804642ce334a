//! Captures and graphs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[test]
fn a_capture_is_replayed() {
    let (machine, module) = machine();
    let [a, b] = [128, 128].map(|bytes| machine.alloc(0, bytes).unwrap());
    let stream = stream(&machine, true);
    machine.begin_capture(stream).unwrap();
    assert!(machine.is_capturing(stream).unwrap());
    module.go(&machine, stream, "next", [b, a]);
    machine.copy_async(stream, a, b, 128).unwrap();
    assert!(matches!(
        machine.synchronize(stream),
        Err(Error::Capture(_))
    ));
    assert!(matches!(machine.query(stream), Err(Error::Capture(_))));
    let graph = machine.end_capture(stream).unwrap();
    assert_eq!((graph.nodes(), graph.edges().len()), (2, 1));
    assert!(machine.take_launches().is_empty());
    machine.fill32(a, 0, 32).unwrap();
    let exec = graph.instantiate().unwrap();
    for _ in 0..5 {
        machine.launch_graph(&exec, stream).unwrap();
    }
    machine.synchronize(stream).unwrap();
    assert_eq!(read_words(&machine, a, 32), [5; 32]);
    assert!(machine.take_reports().is_empty());
    drop(exec);
    machine.synchronize_device(0).unwrap();
}

#[test]
fn streams_join_a_capture_by_events() {
    for seed in 0..10 {
        let machine = machine_of(Config { seed, ..config() });
        let module = machine.load(0, KERNELS).unwrap();
        let [a, b, c] = [128; 3].map(|bytes| machine.alloc(0, bytes).unwrap());
        let [main, side] = [stream(&machine, true), stream(&machine, true)];
        let [fork, join] = [machine.event(0).unwrap(), machine.event(0).unwrap()];
        machine.begin_capture(main).unwrap();
        module.go(&machine, main, "store", [a, 1]);
        machine.record(fork, main).unwrap();
        machine.wait_event(side, fork).unwrap();
        module.go(&machine, side, "next", [b, a]);
        module.go(&machine, main, "next", [c, a]);
        machine.record(join, side).unwrap();
        machine.wait_event(main, join).unwrap();
        module.go(&machine, main, "next", [a, b]);
        assert!(machine.end_capture(side).is_err());
        let graph = machine.end_capture(main).unwrap();
        assert_eq!((graph.nodes(), graph.edges().len()), (4, 4));
        assert!(!machine.is_capturing(side).unwrap());
        let exec = graph.instantiate().unwrap();
        machine.launch_graph(&exec, main).unwrap();
        machine.launch_graph(&exec, side).unwrap();
        machine.synchronize_device(0).unwrap();
        assert_eq!(read_words(&machine, a, 1), [3]);
        assert!(machine.take_reports().is_empty());
    }
}

#[test]
fn what_is_not_joined_is_an_error() {
    let (machine, module) = machine();
    let a = machine.alloc(0, 128).unwrap();
    let [main, side] = [stream(&machine, true), stream(&machine, true)];
    let [fork, outside] = [machine.event(0).unwrap(), machine.event(0).unwrap()];
    assert!(
        machine
            .begin_capture(machine.default_stream(0).unwrap())
            .is_err()
    );
    assert!(matches!(machine.end_capture(main), Err(Error::Capture(_))));
    machine.record(outside, side).unwrap();
    machine.begin_capture(main).unwrap();
    assert!(machine.begin_capture(main).is_err());
    machine.record(fork, main).unwrap();
    machine.wait_event(side, fork).unwrap();
    module.go(&machine, side, "store", [a, 1]);
    assert!(
        machine
            .wait_event(main, outside)
            .unwrap_err()
            .to_string()
            .contains("outside")
    );
    assert!(matches!(
        machine.synchronize_event(fork),
        Err(Error::Capture(_))
    ));
    assert!(matches!(
        machine.alloc_async(main, 8),
        Err(Error::Capture(_))
    ));
    let error = machine.end_capture(main).unwrap_err();
    assert!(error.to_string().contains("has not waited"), "{error}");
    // All is as if there had been no capture.
    module.go(&machine, side, "store", [a, 2]);
    machine.synchronize_device(0).unwrap();
    assert_eq!(read_words(&machine, a, 1), [2]);
}

#[test]
fn the_default_stream_is_not_used_while_one_that_it_waits_for_is_captured() {
    let (machine, module) = machine();
    let a = machine.alloc(0, 128).unwrap();
    let blocking = stream(&machine, false);
    machine.begin_capture(blocking).unwrap();
    let default = machine.default_stream(0).unwrap();
    assert!(matches!(
        machine.fill8_async(default, a, 0, 1),
        Err(Error::Capture(_))
    ));
    module.go(&machine, blocking, "store", [a, 1]);
    assert_eq!(machine.end_capture(blocking).unwrap().nodes(), 1);
    machine.fill8(a, 0, 1).unwrap();
}

#[test]
fn graphs_are_made_node_by_node() {
    let (machine, module) = machine();
    let [a, b, c] = [128; 3].map(|bytes| machine.alloc(0, bytes).unwrap());
    let calls = Arc::new(AtomicU32::new(0));
    let mut graph = Graph::new(0);
    let first = graph.add_fill(&[], &Fill::row(a, 3, 4, 32)).unwrap();
    let next = module.function("next").unwrap();
    let config = LaunchConfig::new([1; 3], [32, 1, 1]);
    let kernel = graph
        .add_kernel(&[first], &next, &config, &params(&next, [b, a]))
        .unwrap();
    let copy = graph
        .add_copy(&[first], c, a, &Shape3d::linear(128))
        .unwrap();
    let both = graph.add_empty(&[kernel, copy]).unwrap();
    let count = Arc::clone(&calls);
    let host = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    graph.add_host(&[both], Arc::new(host)).unwrap();
    assert!(graph.add_kernel(&[], &next, &config, &[]).is_err());
    let exec = graph.instantiate().unwrap();
    let stream = stream(&machine, true);
    machine.launch_graph(&exec, stream).unwrap();
    machine.synchronize(stream).unwrap();
    assert_eq!(read_words(&machine, b, 1), [4]);
    assert_eq!(read_words(&machine, c, 1), [3]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(machine.take_reports().is_empty());
    // A missing edge is a race.
    let mut graph = Graph::new(0);
    graph.add_fill(&[], &Fill::row(a, 3, 4, 32)).unwrap();
    graph
        .add_kernel(&[], &next, &config, &params(&next, [b, a]))
        .unwrap();
    machine
        .launch_graph(&graph.instantiate().unwrap(), stream)
        .unwrap();
    machine.synchronize(stream).unwrap();
    assert_eq!(kinds(&machine.take_reports()), [Kind::Race]);
}
