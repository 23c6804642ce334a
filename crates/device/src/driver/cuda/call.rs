//! What the CUDA driver answers, in words.

use cudarc::driver::DriverError;

use crate::Error;

/// Turns the driver's answer to `call` into an error.
pub(super) fn failed(call: &'static str) -> impl Fn(DriverError) -> Error {
    move |error| Error::Driver {
        call,
        reason: words(error),
    }
}

/// Name, number and description of an answer.
pub(crate) fn words(error: DriverError) -> String {
    let number = error.0 as u32;
    let text = |found: Result<&std::ffi::CStr, _>| {
        found.map_or_else(
            |_: DriverError| "unknown".to_owned(),
            |text| text.to_string_lossy().into_owned(),
        )
    };
    let (name, description) = (text(error.error_name()), text(error.error_string()));
    format!("{name} ({number}): {description}")
}
