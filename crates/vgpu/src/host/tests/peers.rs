//! Several devices.

use super::*;

fn pair() -> (Machine, [Module; 2], [Stream; 2]) {
    let machine = machine_of(Config {
        devices: 2,
        ..config()
    });
    let modules = [0, 1].map(|device| machine.load(device, KERNELS).unwrap());
    let streams = [0, 1].map(|device| machine.default_stream(device).unwrap());
    (machine, modules, streams)
}

#[test]
fn peer_memory_needs_to_be_enabled() {
    let (machine, modules, streams) = pair();
    assert_eq!(machine.can_access_peer(0, 1), Ok(true));
    assert_eq!(machine.can_access_peer(0, 0), Ok(false));
    let far = machine.alloc(1, 128).unwrap();
    machine.enable_peer(0, 1).unwrap();
    assert!(matches!(
        machine.enable_peer(0, 1),
        Err(Error::PeerAccess(_))
    ));
    modules[0].go(&machine, streams[0], "store", [far, 2]);
    machine.synchronize(streams[0]).unwrap();
    assert_eq!(read_words(&machine, far, 32), [2; 32]);
    machine.disable_peer(0, 1).unwrap();
    assert!(machine.disable_peer(0, 1).is_err());
    modules[0].go(&machine, streams[0], "store", [far, 3]);
    let Err(Error::Faulted(report)) = machine.synchronize(streams[0]) else {
        panic!()
    };
    assert_eq!(report.kind, Kind::OutOfBounds);
    assert!(
        report
            .message
            .contains("memory of device 1, to which device 0 has no peer access"),
        "{report}"
    );
    assert_eq!(machine.fault(1), None);
}

#[test]
fn copies_between_devices_need_nothing() {
    let (machine, modules, streams) = pair();
    let near = machine.alloc(0, 128).unwrap();
    let far = machine.alloc(1, 128).unwrap();
    modules[0].go(&machine, streams[0], "store", [near, 6]);
    machine.synchronize(streams[0]).unwrap();
    machine.copy(far, near, 128).unwrap();
    assert_eq!(read_words(&machine, far, 32), [6; 32]);
    assert!(machine.take_reports().is_empty());
}

#[test]
fn kernels_of_two_devices_talk() {
    for seed in 0..10 {
        let machine = machine_of(Config {
            devices: 2,
            seed,
            ..config()
        });
        let modules = [0, 1].map(|device| machine.load(device, KERNELS).unwrap());
        machine.enable_peer(1, 0).unwrap();
        let flag = machine.alloc(0, 4).unwrap();
        machine.fill32(flag, 0, 1).unwrap();
        let streams = [0, 1].map(|device| machine.default_stream(device).unwrap());
        modules[0].go(&machine, streams[0], "await", [flag, 0]);
        let signal = modules[1].function("signal").unwrap();
        let config = LaunchConfig::new([1; 3], [1; 3]);
        machine
            .launch(streams[1], &signal, &config, &params(&signal, [flag, 0]))
            .unwrap();
        machine.synchronize(streams[0]).unwrap();
        assert!(machine.take_reports().is_empty());
    }
}

#[test]
fn a_function_belongs_to_its_device() {
    let (machine, modules, streams) = pair();
    let nothing = modules[0].function("nothing").unwrap();
    let config = LaunchConfig::new([1; 3], [1; 3]);
    let error = machine
        .launch(streams[1], &nothing, &config, &[])
        .unwrap_err();
    assert!(
        error.to_string().contains("was loaded on device 0"),
        "{error}"
    );
    let event = machine.event(0).unwrap();
    assert!(machine.record(event, streams[1]).is_err());
}
