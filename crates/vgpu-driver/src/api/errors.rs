//! Initialisation, versions and names of errors.

use std::ffi::{c_char, c_int, c_uint};

use crate::abi::CuResult;
use crate::boundary::{Out, exports};
use crate::driver::{VERSION, driver, initialise};
use crate::failure::{Failure, Outcome, code, describe};

exports! {
    cuInit(flags: c_uint) => init;
    cuDriverGetVersion(version: Out<c_int>) => driver_version;
    cuGetErrorName(error: CuResult, name: Out<*const c_char>) => error_name;
    cuGetErrorString(error: CuResult, text: Out<*const c_char>) => error_string;
    cuProfilerStart() => profiler;
    cuProfilerStop() => profiler;
}

fn init(flags: c_uint) -> Outcome {
    if flags != 0 {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    initialise()
}

fn driver_version(version: Out<c_int>) -> Outcome {
    version.set(VERSION)
}

fn error_name(error: CuResult, name: Out<*const c_char>) -> Outcome {
    told(describe(error).map(|(name, _)| name), name)
}

fn error_string(error: CuResult, text: Out<*const c_char>) -> Outcome {
    told(describe(error).map(|(_, text)| text), text)
}

/// Both queries answer null, and say so, for a number that is no code.
fn told(words: Option<&'static str>, out: Out<*const c_char>) -> Outcome {
    out.set(words.map_or(std::ptr::null(), |words| words.as_ptr().cast()))?;
    words.map(|_| ()).ok_or(Failure::quiet(code::INVALID_VALUE))
}

/// There is no profiler to start or stop; programs call these around what they want to see.
fn profiler() -> Outcome {
    driver().map(|_| ())
}
