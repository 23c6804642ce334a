//! All tests of this file's program once more, through the CUDA driver's interface: the program
//! starts itself with the driver library of the virtual GPU in the loader's path.
//!
//! That takes the road of a real device from end to end: the library is looked for, loaded and
//! called by cudarc.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tollgate_device::nvml::{PcieLink, Readings};
use tollgate_device::testing::devices;
use tollgate_device::{DeviceSpec, Error, Gpu, probe};

use crate::findings::{hang, race};

/// Tells a started program which single thing to do.
const TASK: &str = "TOLLGATE_DEVICE_TEST_TASK";

/// The driver library of the virtual GPU, which cargo builds because the package is named under
/// `[dev-dependencies]`. A program that was carried to another machine has none, nor its sources.
pub fn library() -> Option<PathBuf> {
    const NAME: &str = "libtollgate_cuda.so";
    let test = std::env::current_exe().unwrap();
    let mut folders = test.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| {
        let path = folder.join(NAME);
        path.exists().then_some(path)
    });
    if found.is_none() {
        assert!(
            is_carried(),
            "no {NAME} beside {} or above it",
            test.display()
        );
        println!("skipped: there is no driver library beside this program");
    }
    found
}

/// Whether this program runs without the sources that it was made of.
fn is_carried() -> bool {
    !Path::new(env!("CARGO_MANIFEST_DIR")).exists()
}

/// This program again, with a folder in the loader's path in which the CUDA driver is `target`.
fn again(target: Option<PathBuf>) -> (Command, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    if let Some(target) = target {
        for name in ["libcuda.so", "libcuda.so.1"] {
            symlink(&target, folder.path().join(name)).unwrap();
        }
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env("LD_LIBRARY_PATH", folder.path())
        .env("TOLLGATE_TEST_DEVICES", "cuda");
    (command, folder)
}

/// Starts this program for one task, which is the test of that name.
fn start(task: &str, target: Option<PathBuf>, variables: &[(&str, &str)]) -> (bool, String) {
    let (mut command, _folder) = again(target);
    command
        .args(["--exact", "second_run::the_task", "--nocapture"])
        .env(TASK, task)
        .env("TOLLGATE_VGPU_REPORTS", "stderr")
        .envs(variables.iter().copied());
    said(&command.output().unwrap())
}

/// Whether a program succeeded, and all that it said.
pub fn said(output: &Output) -> (bool, String) {
    let words = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    (output.status.success(), words.concat())
}

/// What a started program does; nothing in the first one.
#[test]
fn the_task() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    match task.as_str() {
        "probe" => match (probe(), Gpu::open(DeviceSpec::Cuda(0))) {
            (Err(Error::NoDevice { device, reason }), Err(Error::NoDevice { .. })) => {
                println!("{device}: {reason}");
            }
            (found, opened) => println!("found {found:?}, opened {opened:?}"),
        },
        "race" => println!("race: {:?}", race(&devices()[0].1, 0)),
        "silence" => {
            let gpu = Gpu::open(DeviceSpec::Cuda(0)).unwrap();
            let stream = gpu.stream().unwrap();
            // Small enough for no wait.
            let buffer = gpu.upload(&stream, &[1_u32]).unwrap();
            println!("silence: {:?}", buffer.read(&stream));
        }
        "telemetry" => telemetry(),
        "hang" => println!("hang: {:?}", hang(&devices()[0].1)),
        "open" => println!("open: {:?}", Gpu::open(DeviceSpec::Cuda(7))),
        other => panic!("{other} is no task"),
    }
}

/// Reads the two devices of `nvml.c`.
fn telemetry() {
    let nvml = match tollgate_device::nvml::Telemetry::open() {
        Ok(nvml) => nvml,
        Err(reason) => return println!("none: {reason}"),
    };
    assert_eq!(nvml.driver().as_deref(), Some("580.82.07"));
    let (first, second) = ("0000:01:00.0", "0000:02:00.0");
    let readings = nvml.read(first).unwrap();
    let expected = Readings {
        sm_mhz: Some(1700),
        memory_mhz: Some(2600),
        max_sm_mhz: Some(1980),
        max_memory_mhz: Some(2619),
        power_w: Some(412.5),
        power_limit_w: Some(700.0),
        temperature_c: Some(40),
        throttle_reasons: Some(vec!["power cap", "thermal, software"]),
        pcie: Some(PcieLink {
            generation: 1,
            lanes: 16,
            max_generation: 5,
            max_lanes: 16,
        }),
        active_nvlinks: Some(3),
    };
    assert_eq!(readings, expected);
    let other = nvml.read(second).unwrap();
    let expected = Readings {
        sm_mhz: Some(1701),
        memory_mhz: Some(2601),
        power_w: None,
        temperature_c: Some(41),
        throttle_reasons: Some(vec![]),
        active_nvlinks: Some(0),
        ..expected
    };
    assert_eq!(other, expected);
    let access = |from, to| {
        nvml.peer_access(from, to)
            .map(|a| (a.reads, a.writes, a.nvlink))
    };
    assert_eq!(access(first, second), Ok((true, true, false)));
    assert_eq!(access(second, first), Ok((true, false, false)));
    let unknown = nvml.read("0000:09:00.0").unwrap_err();
    assert!(unknown.contains("0000:09:00.0"), "{unknown}");
    println!("all was read");
}

/// Compiles a file beside this one to a shared library.
fn compile(source: &str, to: &Path, options: &[&str]) {
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(to)
        .arg(format!(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/device/{}"),
            source
        ))
        .args(options)
        .output()
        .unwrap();
    let (compiled, words) = said(&output);
    assert!(compiled, "{words}");
}

#[test]
fn a_device_that_never_answers_ends_in_a_timeout() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display().to_string();
    // The first name is the one that cudarc asks for; the second is what that one needs.
    symlink(&library, folder.path().join("libcuda.so.1")).unwrap();
    let place = format!("-L{here}");
    let behind = ["-Wl,--no-as-needed", &place, "-l:libcuda.so.1"];
    compile("hang.c", &folder.path().join("libcuda.so"), &behind);
    let variables = [
        ("LD_LIBRARY_PATH", here.as_str()),
        ("TOLLGATE_DEVICE_TIMEOUT_S", "1"),
    ];
    let (passed, words) = start("silence", None, &variables);
    assert!(passed, "{words}");
    let expected = "Err(Timeout { what: \"the stream's work\", seconds: 1 })";
    assert!(words.contains(expected), "{words}");
}

#[test]
fn nvml_is_read_where_it_is_and_absent_where_it_is_not() {
    if is_carried() {
        println!("skipped: there is no source to compile here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libnvidia-ml.so.1");
    compile("nvml.c", &path, &[]);
    let here = folder.path().display().to_string();
    let (passed, words) = start("telemetry", None, &[("LD_LIBRARY_PATH", here.as_str())]);
    assert!(passed && words.contains("all was read"), "{words}");
    // A file of that name that is no library is like none.
    std::fs::write(&path, "nothing").unwrap();
    let (passed, words) = start("telemetry", None, &[("LD_LIBRARY_PATH", here.as_str())]);
    assert!(
        passed && words.contains("none: NVML cannot be loaded"),
        "{words}"
    );
}

#[test]
fn all_tests_pass_over_the_driver_library() {
    if std::env::var_os("TOLLGATE_TEST_DEVICES").is_some() {
        // Someone has said which devices to use: this is not the first run, or not to be more.
        return;
    }
    let Some(library) = library() else { return };
    let (mut command, folder) = again(Some(library));
    let reports = folder.path().join("reports.txt");
    // The programs run over it anyway.
    command
        .args(["--skip", "programs::"])
        .env("TOLLGATE_VGPU_ON_REPORT", "fail")
        .env("TOLLGATE_VGPU_REPORTS", &reports);
    let (passed, words) = said(&command.output().unwrap());
    assert!(passed, "{words}");
    assert!(
        words.contains("devices: cuda:0 (Tollgate virtual GPU"),
        "{words}"
    );
    let reports = std::fs::read_to_string(&reports).unwrap();
    assert_eq!(reports, "", "the checks found something");
}

#[test]
fn findings_fail_a_wait_over_the_driver_library() {
    let Some(library) = library() else { return };
    let fail = ("TOLLGATE_VGPU_ON_REPORT", "fail");
    let (passed, words) = start("race", Some(library.clone()), &[fail]);
    assert!(passed && words.contains("race: Err("), "{words}");
    assert!(
        words.contains("CUDA_ERROR_ILLEGAL_ADDRESS (700)"),
        "{words}"
    );
    assert!(words.contains("data race"), "{words}");
    let budget = ("TOLLGATE_VGPU_BUDGET", "100000");
    let (passed, words) = start("hang", Some(library), &[fail, budget]);
    assert!(passed && words.contains("hang: Err("), "{words}");
    assert!(words.contains("CUDA_ERROR_LAUNCH_TIMEOUT (702)"), "{words}");
}

#[test]
fn a_machine_without_a_driver_says_so() {
    if let Ok(found) = probe() {
        println!("skipped: this machine has {found:?}");
        return;
    }
    let (passed, words) = start("probe", None, &[]);
    assert!(
        passed && words.contains("cuda: no CUDA driver can be loaded"),
        "{words}"
    );
}

#[test]
fn libraries_that_are_no_driver_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, "no library ".repeat(1000)).unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    if probe().is_err() {
        // Where there is a driver too, the loader goes on to that one.
        for (file, why) in [(garbage, "invalid ELF header"), (empty, "too short")] {
            let (passed, words) = start("probe", Some(file), &[]);
            assert!(
                passed && words.contains("no CUDA driver can be loaded (") && words.contains(why),
                "{words}"
            );
        }
    }
    let other = std::fs::read_to_string("/proc/self/maps").unwrap();
    let other = other
        .split_whitespace()
        .find(|word| word.contains("/libc.so"));
    if let Some(other) = other {
        let (passed, words) = start("probe", Some(other.into()), &[]);
        assert!(
            passed && words.contains("has no cuCtxGetCurrent"),
            "{words}"
        );
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let Some(library) = library() else { return };
    let (passed, words) = start(
        "open",
        Some(library.clone()),
        &[("TOLLGATE_VGPU_DEVICES", "2")],
    );
    assert!(passed, "{words}");
    assert!(
        words.contains("cuda:7") && words.contains("the last is cuda:1"),
        "{words}"
    );
    let timeout = ("TOLLGATE_DEVICE_TIMEOUT_S", "soon");
    let (_, words) = start("open", Some(library), &[timeout]);
    assert!(words.contains("TOLLGATE_DEVICE_TIMEOUT_S=soon"), "{words}");
}
