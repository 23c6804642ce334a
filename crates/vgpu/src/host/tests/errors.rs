//! Faults stay with their device until it is reset.

use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn a_fault_is_what_every_call_returns() {
    let (machine, module) = machine();
    let told: Arc<Mutex<Vec<Report>>> = Arc::default();
    let hook = Arc::clone(&told);
    machine.on_report(Arc::new(move |report| {
        hook.lock().unwrap().push(report.clone())
    }));
    let stream = machine.default_stream(0).unwrap();
    let out = machine.alloc(0, 128).unwrap();
    let event = machine.event(0).unwrap();
    module.go(&machine, stream, "stop", [0; 2]);
    module.go(&machine, stream, "store", [out, 1]);
    machine.record(event, stream).unwrap();
    let fault = machine.synchronize(stream).unwrap_err();
    let Error::Faulted(report) = &fault else {
        panic!("{fault}")
    };
    assert_eq!((report.kind, &*report.kernel), (Kind::Trap, "stop"));
    assert_eq!(machine.synchronize(stream), Err(fault.clone()));
    assert_eq!(machine.alloc(0, 16), Err(fault.clone()));
    assert_eq!(machine.write(out, &[1]), Err(fault.clone()));
    assert_eq!(machine.query_event(event), Err(fault.clone()));
    assert_eq!(machine.synchronize_device(0), Err(fault.clone()));
    assert_eq!(machine.free(out), Err(fault));
    assert_eq!(machine.fault(0).unwrap().kind, Kind::Trap);
    assert_eq!(kinds(&machine.take_reports()), [Kind::Trap]);
    assert_eq!(kinds(&told.lock().unwrap()), [Kind::Trap]);
    let launches = machine.take_launches();
    assert!(launches.len() == 1 && !launches[0].complete);
    // After a reset it works again, with nothing of before.
    machine.reset(0).unwrap();
    assert_eq!(machine.fault(0), None);
    assert_eq!(machine.mem_info(0).unwrap().free, 1 << 24);
    assert!(machine.range_of(out).is_err());
    let module = machine.load(0, KERNELS).unwrap();
    let out = machine.alloc(0, 128).unwrap();
    module.go(&machine, stream, "store", [out, 1]);
    assert_eq!(read_words(&machine, out, 32), [1; 32]);
    assert!(machine.take_reports().is_empty());
}

#[test]
fn a_fault_of_one_device_leaves_the_others() {
    let machine = machine_of(Config {
        devices: 2,
        ..config()
    });
    let modules = [0, 1].map(|device| machine.load(device, KERNELS).unwrap());
    let streams = [0, 1].map(|device| machine.default_stream(device).unwrap());
    let out = machine.alloc(1, 128).unwrap();
    let event = machine.event(0).unwrap();
    modules[0].go(&machine, streams[0], "stop", [0; 2]);
    machine.record(event, streams[0]).unwrap();
    // Whoever waits for an event of the failed device goes on.
    machine.wait_event(streams[1], event).unwrap();
    modules[1].go(&machine, streams[1], "store", [out, 4]);
    assert_eq!(read_words(&machine, out, 32), [4; 32]);
    assert!(matches!(
        machine.synchronize(streams[0]),
        Err(Error::Faulted(_))
    ));
}

#[test]
fn kernels_that_use_freed_or_foreign_addresses_are_found() {
    let (machine, module) = machine();
    let stream = machine.default_stream(0).unwrap();
    let ptr = machine.alloc(0, 128).unwrap();
    machine.free(ptr).unwrap();
    module.go(&machine, stream, "store", [ptr, 1]);
    let Err(Error::Faulted(report)) = machine.synchronize(stream) else {
        panic!()
    };
    assert_eq!(report.kind, Kind::UseAfterFree);
    machine.reset(0).unwrap();
    let module = machine.load(0, KERNELS).unwrap();
    let ptr = machine.alloc(0, 64).unwrap();
    module.go(&machine, stream, "store", [ptr, 1]);
    let Err(Error::Faulted(report)) = machine.synchronize(stream) else {
        panic!()
    };
    assert_eq!((report.kind, report.seed), (Kind::OutOfBounds, 0));
}

#[test]
fn an_operation_on_memory_that_went_meanwhile_is_a_fault() {
    let (machine, _) = machine();
    let streams = [stream(&machine, true), stream(&machine, true)];
    let flag = machine.alloc(0, 4).unwrap();
    machine.fill32(flag, 0, 1).unwrap();
    let ptr = machine.alloc(0, 128).unwrap();
    machine
        .wait_value(streams[0], flag, 1, Bits::W32, Until::Equal)
        .unwrap();
    machine.fill8_async(streams[0], ptr, 1, 128).unwrap();
    machine.free_async(streams[1], ptr).unwrap();
    machine.write_value(streams[1], flag, 1, Bits::W32).unwrap();
    let Err(Error::Faulted(report)) = machine.synchronize(streams[0]) else {
        panic!()
    };
    assert_eq!(report.kind, Kind::UseAfterFree);
    assert!(
        report.site.action.contains("operation of stream"),
        "{report}"
    );
}

#[test]
fn an_endless_kernel_ends_with_its_budget() {
    let machine = machine_of(Config {
        budget: 10_000,
        ..config()
    });
    let module = machine.load(0, KERNELS).unwrap();
    let flag = machine.alloc(0, 4).unwrap();
    machine.fill32(flag, 0, 1).unwrap();
    let stream = machine.default_stream(0).unwrap();
    module.go(&machine, stream, "await", [flag, 0]);
    let Err(Error::Faulted(report)) = machine.synchronize(stream) else {
        panic!()
    };
    assert_eq!(report.kind, Kind::Livelock);
    assert!(
        report.message.contains("10000 warp instructions"),
        "{report}"
    );
}

#[test]
fn a_wait_for_a_value_that_never_comes_is_a_deadlock() {
    let (machine, _) = machine();
    let flag = machine.alloc(0, 8).unwrap();
    machine.fill32(flag, 0, 2).unwrap();
    let stream = stream(&machine, true);
    machine
        .wait_value(stream, flag, 3, Bits::W64, Until::Equal)
        .unwrap();
    assert_eq!(machine.query(stream), Err(Error::NotReady));
    let Err(Error::Faulted(report)) = machine.synchronize(stream) else {
        panic!()
    };
    assert_eq!(report.kind, Kind::Deadlock);
    assert!(
        report.message.contains("waits for the value 0x3"),
        "{report}"
    );
}
