//! Several host threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

#[test]
fn a_kernel_may_wait_for_a_launch_that_another_thread_makes_later() {
    let (machine, module) = machine();
    let flag = machine.alloc(0, 4).unwrap();
    machine.fill32(flag, 0, 1).unwrap();
    let streams = [stream(&machine, true), stream(&machine, true)];
    module.go(&machine, streams[0], "await", [flag, 0]);
    let waiting = {
        let machine = machine.clone();
        thread::spawn(move || machine.synchronize(streams[0]))
    };
    thread::sleep(Duration::from_millis(30));
    assert!(!waiting.is_finished());
    let signal = module.function("signal").unwrap();
    let config = LaunchConfig::new([1; 3], [1; 3]);
    machine
        .launch(streams[1], &signal, &config, &params(&signal, [flag, 0]))
        .unwrap();
    waiting.join().unwrap().unwrap();
    assert!(machine.take_reports().is_empty());
}

#[test]
fn a_stream_may_wait_for_a_value_that_another_thread_writes_later() {
    let machine = machine_of(Config {
        patience: Duration::from_secs(20),
        ..config()
    });
    let flag = machine.alloc_host(4).unwrap();
    let stream = stream(&machine, true);
    machine
        .wait_value(stream, flag, 1, Bits::W32, Until::Equal)
        .unwrap();
    let waiting = {
        let machine = machine.clone();
        thread::spawn(move || machine.synchronize(stream))
    };
    thread::sleep(Duration::from_millis(30));
    let other = super::stream(&machine, true);
    machine.write_value(other, flag, 1, Bits::W32).unwrap();
    waiting.join().unwrap().unwrap();
    machine.free_host(flag).unwrap();
}

#[test]
fn many_threads_with_streams_of_their_own() {
    let (machine, module) = machine();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let (machine, module) = (machine.clone(), module.clone());
            thread::spawn(move || {
                let stream = stream(&machine, true);
                for round in 0..20 {
                    let a = machine.alloc_async(stream, 128).unwrap();
                    module.go(&machine, stream, "store", [a, number * 100 + round]);
                    let mut out = [0; 4];
                    machine.read_on(stream, a, &mut out).unwrap();
                    assert_eq!(u64::from(u32::from_le_bytes(out)), number * 100 + round);
                    machine.free_async(stream, a).unwrap();
                }
                machine.synchronize(stream).unwrap();
                machine.destroy_stream(stream).unwrap();
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(machine.take_launches().len(), 160);
    assert!(machine.take_reports().is_empty());
    assert_eq!(machine.check_leaks(), []);
}

#[test]
fn a_reset_wakes_whoever_waits() {
    let (machine, module) = machine();
    let flag = machine.alloc(0, 4).unwrap();
    machine.fill32(flag, 0, 1).unwrap();
    let stream = stream(&machine, true);
    module.go(&machine, stream, "await", [flag, 0]);
    let done = Arc::new(AtomicBool::new(false));
    let waiting = {
        let (machine, done) = (machine.clone(), Arc::clone(&done));
        thread::spawn(move || {
            let result = machine.synchronize(stream);
            done.store(true, Ordering::Release);
            result
        })
    };
    thread::sleep(Duration::from_millis(20));
    assert!(!done.load(Ordering::Acquire));
    machine.reset(0).unwrap();
    waiting.join().unwrap().unwrap();
}
