//! The library as a program sees it that loads it at run time, in this process and with the default
//! environment: handles and pointers that are wrong, contexts, modules and their logs.

#[macro_use]
mod loaded;
mod common;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use libloading::os::unix::Symbol;
use loaded::{Result, alloc, context, cuda, function, module};

#[test]
fn the_device_says_what_it_is() {
    let (mut count, mut value, mut version) = (0, 0, 0);
    assert_eq!(call!(cuDeviceGetCount(&mut count => *mut c_int)), 0);
    assert_eq!(call!(cuDriverGetVersion(&mut version => *mut c_int)), 0);
    assert_eq!((count, version), (1, 13_000));
    let mut name = [1 as c_char; 64];
    let code = call!(cuDeviceGetName(name.as_mut_ptr() => *mut c_char, 64 => c_int, 0 => c_int));
    assert_eq!(code, 0);
    // SAFETY: the call above put a NUL into the buffer.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_str().unwrap();
    assert!(name.contains("sm_90a"), "{name}");
    for (which, expected) in [
        (1, 1024),
        (10, 32),
        (16, 132),
        (75, 9),
        (76, 0),
        (97, 232_448),
    ] {
        let code = call!(cuDeviceGetAttribute(
            &mut value => *mut c_int, which => c_uint, 0 => c_int
        ));
        assert_eq!((code, value), (0, expected), "attribute {which}");
    }
    let code = call!(cuDeviceGetAttribute(&mut value => *mut c_int, 16 => c_uint, 7 => c_int));
    assert_eq!(code, 101);
}

#[test]
fn null_pointers_and_foreign_handles_are_errors() {
    context();
    assert_eq!(call!(cuDeviceGetCount(null_mut() => *mut c_int)), 1);
    assert_eq!(call!(cuMemAlloc_v2(null_mut() => *mut u64, 16 => usize)), 1);
    assert_eq!(
        call!(cuModuleLoadData(null_mut() => *mut usize, null() => *const c_char)),
        1
    );
    for handle in [0_usize, 0xdead_beef, 0x7a00_0000_0000_0001] {
        assert_eq!(call!(cuEventQuery(handle => usize)), 400);
        assert_eq!(call!(cuModuleUnload(handle => usize)), 400);
        assert_eq!(call!(cuGraphDestroy(handle => usize)), 400);
        let code = call!(cuLaunchKernel(
            handle => usize, 1 => c_uint, 1 => c_uint, 1 => c_uint, 1 => c_uint, 1 => c_uint,
            1 => c_uint, 0 => c_uint, 0 => usize, null_mut() => *mut c_void,
            null_mut() => *mut c_void
        ));
        assert_eq!(code, 400);
    }
    assert_eq!(call!(cuStreamSynchronize(0xdead_beef => usize)), 400);
    assert_eq!(call!(cuCtxSetCurrent(0xdead_beef => usize)), 201);
    // A handle of another kind.
    let mut stream = 0_usize;
    assert_eq!(
        call!(cuStreamCreate(&mut stream => *mut usize, 0 => c_uint)),
        0
    );
    assert_eq!(call!(cuEventQuery(stream => usize)), 400);
    assert_eq!(call!(cuStreamDestroy_v2(stream => usize)), 0);
    assert_eq!(call!(cuStreamDestroy_v2(stream => usize)), 400);
    // Memory.
    assert_eq!(call!(cuMemFree_v2(0 => u64)), 0);
    assert_eq!(call!(cuMemFree_v2(12_345 => u64)), 1);
    let address = alloc(64);
    assert_eq!(call!(cuMemFree_v2(address + 4 => u64)), 1);
    assert_eq!(
        call!(cuMemcpyHtoD_v2(address => u64, null() => *const c_void, 64 => usize)),
        1
    );
    let bytes = [0_u8; 128];
    let code = call!(cuMemcpyHtoD_v2(address => u64, bytes.as_ptr() => *const u8, 128 => usize));
    assert_eq!(code, 1, "past the end");
    assert_eq!(call!(cuMemFree_v2(address => u64)), 0);
    assert_eq!(call!(cuMemFree_v2(address => u64)), 1, "freed before");
}

#[test]
fn functions_that_are_not_modelled_say_so() {
    assert_eq!(
        call!(cuArrayCreate_v2(null_mut() => *mut c_void, null() => *const c_void)),
        801
    );
    assert_eq!(
        call!(cuIpcGetMemHandle(null_mut() => *mut c_void, 0 => u64)),
        801
    );
}

#[test]
fn errors_have_names() {
    let mut text: *const c_char = null();
    for (code, expected) in [(0, "CUDA_SUCCESS"), (700, "CUDA_ERROR_ILLEGAL_ADDRESS")] {
        assert_eq!(
            call!(cuGetErrorName(code => c_uint, &mut text => *mut *const c_char)),
            0
        );
        // SAFETY: the names are strings of the library.
        assert_eq!(unsafe { CStr::from_ptr(text) }.to_str(), Ok(expected));
    }
    assert_eq!(
        call!(cuGetErrorString(2 => c_uint, &mut text => *mut *const c_char)),
        0
    );
    // SAFETY: as above.
    let words = unsafe { CStr::from_ptr(text) };
    assert_eq!(words.to_str(), Ok("out of memory"));
    assert_eq!(
        call!(cuGetErrorName(12_345 => c_uint, &mut text => *mut *const c_char)),
        1
    );
    assert!(text.is_null());
}

#[test]
fn contexts_stack_up_in_a_thread() {
    std::thread::spawn(|| {
        let mut now = 1_usize;
        assert_eq!(call!(cuCtxGetCurrent(&mut now => *mut usize)), 0);
        assert_eq!(now, 0, "a thread begins without a context");
        assert_eq!(call!(cuMemAlloc_v2(&mut 0 => *mut u64, 16 => usize)), 201);
        let primary = context();
        let mut own = 0_usize;
        let code = call!(cuCtxCreate_v2(&mut own => *mut usize, 0 => c_uint, 0 => c_int));
        assert_eq!(code, 0);
        assert_eq!(call!(cuCtxGetCurrent(&mut now => *mut usize)), 0);
        assert_eq!(now, own);
        let memory = alloc(256);
        let mut event = 0_usize;
        assert_eq!(
            call!(cuEventCreate(&mut event => *mut usize, 0 => c_uint)),
            0
        );
        assert_eq!(call!(cuCtxDestroy_v2(own => usize)), 0);
        // What was made in it is gone with it, and the one below is current.
        assert_eq!(call!(cuEventQuery(event => usize)), 400);
        assert_eq!(call!(cuMemFree_v2(memory => u64)), 1);
        assert_eq!(call!(cuCtxGetCurrent(&mut now => *mut usize)), 0);
        assert_eq!(now, primary);
        assert_eq!(call!(cuCtxSetCurrent(own => usize)), 709);
        assert_eq!(call!(cuCtxPopCurrent_v2(&mut now => *mut usize)), 0);
        assert_eq!(call!(cuCtxPopCurrent_v2(&mut now => *mut usize)), 201);
    })
    .join()
    .unwrap();
}

/// Loads an image with a log; returns the code and the log.
fn load_with_log(image: &[u8]) -> (Result, String) {
    let mut log = [0_u8; 512];
    let options: [c_uint; 2] = [5, 6];
    let mut values = [log.as_mut_ptr() as usize, log.len()];
    let mut module = 0_usize;
    let code = call!(cuModuleLoadDataEx(
        &mut module => *mut usize, image.as_ptr() => *const u8, 2 => c_uint,
        options.as_ptr() => *const c_uint, values.as_mut_ptr() => *mut usize
    ));
    assert!(values[1] <= log.len());
    (
        code,
        CStr::from_bytes_until_nul(&log)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned(),
    )
}

#[test]
fn a_module_that_cannot_be_loaded_fills_the_log() {
    context();
    let unknown =
        b".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\nfly.u32;\n}\n\0";
    let (code, log) = load_with_log(unknown);
    assert_eq!(code, 218);
    assert!(
        log.contains("fly") && log.contains('6'),
        "the log names line and text: {log}"
    );
    let (code, log) = load_with_log(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    assert_eq!(code, 209);
    assert!(
        log.contains("a cubin cannot run on the virtual GPU"),
        "{log}"
    );
    let future =
        b".version 8.0\n.target sm_120\n.address_size 64\n.visible .entry k()\n{\nret;\n}\n\0";
    let (code, log) = load_with_log(future);
    assert_eq!(code, 209);
    assert!(log.contains("sm_120"), "{log}");
    let mut text = std::fs::read(common::kernels()).unwrap();
    text.push(0);
    assert_eq!(load_with_log(&text), (0, String::new()));
}

#[test]
fn a_launch_reads_parameters_of_every_kind() {
    context();
    let by_value = function(module(), c"by_value");
    let out = alloc(4 * 32);
    #[repr(C)]
    struct Wide {
        scale: f64,
        bias: [i32; 3],
        tag: i8,
    }
    let mut wide = Wide {
        scale: 1.5,
        bias: [10, 20, 30],
        tag: 7,
    };
    let mut address = out;
    let mut params = [(&raw mut address).cast::<c_void>(), (&raw mut wide).cast()];
    let launch = |params: *mut *mut c_void, extra: *mut *mut c_void| {
        call!(cuLaunchKernel(
            by_value => usize, 1 => c_uint, 1 => c_uint, 1 => c_uint, 32 => c_uint, 1 => c_uint,
            1 => c_uint, 0 => c_uint, 0 => usize, params => *mut *mut c_void,
            extra => *mut *mut c_void
        ))
    };
    let check = |bias: i32| {
        let mut host = [0_i32; 32];
        let code = call!(cuMemcpyDtoH_v2(host.as_mut_ptr() => *mut i32, out => u64, 128 => usize));
        assert_eq!(code, 0);
        for (i, &value) in host.iter().enumerate() {
            assert_eq!(
                value,
                (1.5 * i as f64) as i32 + [10, 20, 30][i % 3] + bias,
                "element {i}"
            );
        }
    };
    assert_eq!(launch(params.as_mut_ptr(), null_mut()), 0);
    check(7);
    // The same as one block of bytes.
    let mut block = [0_u8; 32];
    block[..8].copy_from_slice(&out.to_le_bytes());
    block[8..16].copy_from_slice(&1.5_f64.to_le_bytes());
    for (i, bias) in wide.bias.iter().enumerate() {
        block[16 + 4 * i..20 + 4 * i].copy_from_slice(&bias.to_le_bytes());
    }
    block[28] = 9;
    let mut bytes = block.len();
    let mut extra: [*mut c_void; 5] = [
        std::ptr::without_provenance_mut(1),
        block.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(2),
        (&raw mut bytes).cast(),
        null_mut(),
    ];
    assert_eq!(launch(null_mut(), extra.as_mut_ptr()), 0);
    check(9);
    // Wrong in every way.
    let mut short = 8_usize;
    extra[3] = (&raw mut short).cast();
    assert_eq!(launch(null_mut(), extra.as_mut_ptr()), 1);
    assert_eq!(launch(null_mut(), null_mut()), 1);
    assert_eq!(launch(params.as_mut_ptr(), extra.as_mut_ptr()), 1);
    params[1] = null_mut();
    assert_eq!(launch(params.as_mut_ptr(), null_mut()), 1);
    assert_eq!(call!(cuMemFree_v2(out => u64)), 0);
}

#[test]
fn functions_tell_their_attributes_and_occupancy() {
    context();
    let module = module();
    let reduce = function(module, c"reduce");
    let mut value = 0;
    let mut get = |which: c_uint| {
        let code = call!(cuFuncGetAttribute(
            &mut value => *mut c_int, which => c_uint, reduce => usize
        ));
        assert_eq!(code, 0, "attribute {which}");
        value
    };
    assert_eq!(get(0), 1024);
    assert_eq!(get(1), 1024, "256 floats of shared memory");
    assert!(get(4) > 0, "registers");
    let code = call!(cuFuncSetAttribute(reduce => usize, 8 => c_uint, 100_000 => c_int));
    assert_eq!(code, 0);
    let code = call!(cuFuncSetAttribute(reduce => usize, 8 => c_uint, 1_000_000 => c_int));
    assert_eq!(code, 1);
    let mut blocks = 0;
    let code = call!(cuOccupancyMaxActiveBlocksPerMultiprocessor(
        &mut blocks => *mut c_int, reduce => usize, 256 => c_int, 0 => usize
    ));
    assert_eq!((code, blocks), (0, 8));
    let (mut grid, mut block) = (0, 0);
    let code = call!(cuOccupancyMaxPotentialBlockSize(
        &mut grid => *mut c_int, &mut block => *mut c_int, reduce => usize,
        null() => *const c_void, 0 => usize, 0 => c_int
    ));
    assert_eq!(code, 0);
    assert!(
        grid >= 132 && (32..=1024).contains(&block),
        "{grid} blocks of {block}"
    );
    let mut missing = 0_usize;
    let code = call!(cuModuleGetFunction(
        &mut missing => *mut usize, module => usize, c"nobody".as_ptr() => *const c_char
    ));
    assert_eq!(code, 500);
    assert_eq!(call!(cuModuleUnload(module => usize)), 0);
    let code = call!(cuFuncGetAttribute(&mut 0 => *mut c_int, 0 => c_uint, reduce => usize));
    assert_eq!(code, 400, "functions go with their module");
}

#[test]
fn procedures_are_found_by_name_and_version() {
    let mut address: *const c_void = null();
    let mut status: c_uint = 9;
    let mut find = |name: &CStr, version: c_int| {
        let code = call!(cuGetProcAddress_v2(
            name.as_ptr() => *const c_char, &mut address => *mut *const c_void, version => c_int,
            0 => u64, &mut status => *mut c_uint
        ));
        (code, address as usize, status)
    };
    // SAFETY: only the address is looked at.
    let wanted: Symbol<unsafe extern "C" fn()> = unsafe { cuda().get(b"cuMemAlloc_v2\0") }.unwrap();
    assert_eq!(
        find(c"cuMemAlloc", 12_000),
        (0, wanted.into_raw() as usize, 0)
    );
    assert_eq!(find(c"cuLaunchKernelEx", 11_000), (0, 0, 2));
    assert_eq!(find(c"cuFly", 13_000), (0, 0, 1));
    assert_eq!(find(c"cuInit", 20_000).0, 1);
}
