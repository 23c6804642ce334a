//! Streams and events: what is ordered, what is not, and what races then.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn a_stream_is_in_order_and_two_are_not() {
    let (machine, module) = machine();
    let [a, b] = [128, 128].map(|bytes| machine.alloc(0, bytes).unwrap());
    let streams = [stream(&machine, true), stream(&machine, true)];
    module.go(&machine, streams[0], "store", [a, 1]);
    module.go(&machine, streams[0], "next", [b, a]);
    machine.synchronize(streams[0]).unwrap();
    assert_eq!(read_words(&machine, b, 32), [2; 32]);
    assert!(machine.take_reports().is_empty());
    // Without an event nothing orders the two streams.
    module.go(&machine, streams[0], "store", [a, 1]);
    module.go(&machine, streams[1], "next", [b, a]);
    machine.synchronize_device(0).unwrap();
    let reports = machine.take_reports();
    assert_eq!(kinds(&reports), [Kind::Race]);
    assert!(
        reports[0].to_string().contains("by kernel"),
        "{}",
        reports[0]
    );
}

#[test]
fn events_order_streams() {
    for seed in 0..20 {
        let machine = machine_of(Config { seed, ..config() });
        let module = machine.load(0, KERNELS).unwrap();
        let [a, b] = [128, 128].map(|bytes| machine.alloc(0, bytes).unwrap());
        let streams = [stream(&machine, true), stream(&machine, true)];
        let event = machine.event(0).unwrap();
        // Never recorded: not waited for.
        machine.wait_event(streams[1], event).unwrap();
        module.go(&machine, streams[0], "store", [a, 4]);
        machine.record(event, streams[0]).unwrap();
        machine.wait_event(streams[1], event).unwrap();
        machine.destroy_event(event).unwrap();
        module.go(&machine, streams[1], "next", [b, a]);
        let mut out = [0; 4];
        machine.read_on(streams[1], b, &mut out).unwrap();
        assert_eq!(out, [5, 0, 0, 0]);
        assert!(machine.take_reports().is_empty());
        assert!(machine.query_event(event).is_err());
    }
}

#[test]
fn copies_race_with_kernels_of_other_streams() {
    let (machine, module) = machine();
    let a = machine.alloc(0, 128).unwrap();
    let streams = [stream(&machine, true), stream(&machine, true)];
    module.go(&machine, streams[0], "store", [a, 1]);
    machine.fill8_async(streams[1], a, 0, 128).unwrap();
    machine.synchronize_device(0).unwrap();
    let reports = machine.take_reports();
    assert_eq!(kinds(&reports), [Kind::Race]);
    let text = reports[0].to_string();
    assert!(
        text.contains("host write") && text.contains("store"),
        "{text}"
    );
    // The host saw both ends: what follows is ordered.
    machine.fill8_async(streams[1], a, 0, 128).unwrap();
    machine.synchronize(streams[1]).unwrap();
    module.go(&machine, streams[0], "store", [a, 1]);
    machine.synchronize(streams[0]).unwrap();
    assert!(machine.take_reports().is_empty());
}

#[test]
fn the_default_stream_waits_for_blocking_streams_and_they_for_it() {
    for seed in 0..20 {
        let machine = machine_of(Config { seed, ..config() });
        let module = machine.load(0, KERNELS).unwrap();
        let [a, b] = [128, 128].map(|bytes| machine.alloc(0, bytes).unwrap());
        let default = machine.default_stream(0).unwrap();
        let blocking = stream(&machine, false);
        module.go(&machine, blocking, "store", [a, 1]);
        module.go(&machine, default, "next", [b, a]);
        module.go(&machine, blocking, "next", [a, b]);
        machine.synchronize(blocking).unwrap();
        assert_eq!(read_words(&machine, a, 1), [3]);
        assert!(machine.take_reports().is_empty());
        // A non-blocking stream is not part of it.
        let free = stream(&machine, true);
        module.go(&machine, free, "store", [a, 9]);
        module.go(&machine, default, "next", [b, a]);
        machine.synchronize_device(0).unwrap();
        assert_eq!(kinds(&machine.take_reports()), [Kind::Race]);
    }
}

#[test]
fn kernels_of_two_streams_talk() {
    for seed in 0..20 {
        let machine = machine_of(Config { seed, ..config() });
        let module = machine.load(0, KERNELS).unwrap();
        let flag = machine.alloc(0, 4).unwrap();
        machine.fill32(flag, 0, 1).unwrap();
        let streams = [stream(&machine, true), stream(&machine, true)];
        module.go(&machine, streams[0], "await", [flag, 0]);
        let config = LaunchConfig::new([1; 3], [1; 3]);
        let signal = module.function("signal").unwrap();
        machine
            .launch(streams[1], &signal, &config, &params(&signal, [flag, 0]))
            .unwrap();
        machine.synchronize(streams[0]).unwrap();
        assert!(machine.take_reports().is_empty());
    }
}

#[test]
fn host_functions_run_in_their_turn() {
    let (machine, module) = machine();
    let a = machine.alloc(0, 128).unwrap();
    let stream = stream(&machine, true);
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    for round in 1..=3 {
        module.go(&machine, stream, "store", [a, round]);
        let (again, seen) = (machine.clone(), Arc::clone(&seen));
        let function = move || {
            // Also a wait for other streams is possible here.
            let words = read_words(&again, a, 1);
            seen.lock().unwrap().extend(words);
        };
        machine.call_host(stream, Arc::new(function)).unwrap();
    }
    machine.synchronize(stream).unwrap();
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
    assert!(machine.take_reports().is_empty());
}

#[test]
fn a_panic_of_a_host_function_does_not_stop_the_machine() {
    let (machine, module) = machine();
    let stream = stream(&machine, true);
    machine
        .call_host(stream, Arc::new(|| panic!("on purpose")))
        .unwrap();
    module.go(&machine, stream, "nothing", [0; 2]);
    let again = machine.clone();
    let caught =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| again.synchronize(stream)));
    assert!(caught.is_err());
    machine.synchronize(stream).unwrap();
    assert_eq!(machine.take_launches().len(), 1);
}

#[test]
fn values_order_streams() {
    let (machine, module) = machine();
    let [a, b, flag] = [128, 128, 4].map(|bytes| machine.alloc(0, bytes).unwrap());
    machine.fill32(flag, 0, 1).unwrap();
    let streams = [stream(&machine, true), stream(&machine, true)];
    machine
        .wait_value(streams[1], flag, 5, Bits::W32, Until::GreaterOrEqual)
        .unwrap();
    module.go(&machine, streams[1], "next", [b, a]);
    module.go(&machine, streams[0], "store", [a, 1]);
    machine.write_value(streams[0], flag, 6, Bits::W32).unwrap();
    machine.synchronize(streams[1]).unwrap();
    assert_eq!(read_words(&machine, b, 1), [2]);
    assert!(machine.take_reports().is_empty(), "{:?}", machine.reports());
    assert!(
        machine
            .write_value(streams[0], flag + 2, 6, Bits::W32)
            .is_err()
    );
}

#[test]
fn time_is_virtual_and_grows_with_the_work() {
    let (machine, module) = machine();
    let a = machine.alloc(0, 128).unwrap();
    let stream = machine.default_stream(0).unwrap();
    let events: Vec<Event> = (0..3).map(|_| machine.event(0).unwrap()).collect();
    assert!(machine.elapsed_ms(events[0], events[1]).is_err());
    machine.record(events[0], stream).unwrap();
    module.go(&machine, stream, "store", [a, 1]);
    machine.record(events[1], stream).unwrap();
    (0..10).for_each(|_| module.go(&machine, stream, "store", [a, 1]));
    machine.record(events[2], stream).unwrap();
    assert_eq!(
        machine.elapsed_ms(events[0], events[1]),
        Err(Error::NotReady)
    );
    machine.synchronize_event(events[2]).unwrap();
    let short = machine.elapsed_ms(events[0], events[1]).unwrap();
    let long = machine.elapsed_ms(events[1], events[2]).unwrap();
    // 11 instructions of one warp, and the start of the record.
    assert!((1.0e-5..1.5e-5).contains(&short), "{short}");
    assert!(
        long > 8.0 * short && long < 10.0 * short + 1.0e-5,
        "{short} {long}"
    );
    let back = machine.elapsed_ms(events[2], events[0]).unwrap();
    assert!((back + short + long).abs() < 1e-9, "{back} {short} {long}");
}

#[test]
fn asking_gets_there() {
    let (machine, module) = machine();
    let stream = stream(&machine, true);
    let done = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&done);
    (0..200).for_each(|_| module.go(&machine, stream, "nothing", [0; 2]));
    machine
        .call_host(
            stream,
            Arc::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
        )
        .unwrap();
    assert_eq!(machine.query(stream), Err(Error::NotReady));
    let asked = (0..1000).find(|_| machine.query(stream).is_ok());
    assert!(asked.is_some() && done.load(Ordering::Relaxed) == 1);
}

#[test]
fn a_destroyed_stream_still_does_its_work() {
    let (machine, module) = machine();
    let a = machine.alloc(0, 128).unwrap();
    let stream = stream(&machine, true);
    module.go(&machine, stream, "store", [a, 8]);
    machine.destroy_stream(stream).unwrap();
    assert!(matches!(
        machine.synchronize(stream),
        Err(Error::InvalidHandle(_))
    ));
    machine.synchronize_device(0).unwrap();
    assert_eq!(read_words(&machine, a, 1), [8]);
    assert!(machine.take_reports().is_empty());
    assert!(
        machine
            .destroy_stream(machine.default_stream(0).unwrap())
            .is_err()
    );
}
