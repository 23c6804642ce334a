//! Which stream a `CUstream` means.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tollgate_vgpu::host::{Stream, StreamFlags};

use crate::abi::CuStream;
use crate::boundary::null_stream_is_per_thread;
use crate::context::{Context, current};
use crate::driver::{Driver, driver};
use crate::failure::Outcome;

/// `CU_STREAM_LEGACY`.
const LEGACY: CuStream = 1;
/// `CU_STREAM_PER_THREAD`.
const PER_THREAD: CuStream = 2;

/// A stream that the program made.
pub(crate) struct StreamObject {
    pub stream: Stream,
    pub context: Arc<Context>,
}

/// A stream in use.
pub(crate) struct Resolved {
    pub driver: &'static Driver,
    pub stream: Stream,
    pub context: Arc<Context>,
}

thread_local! {
    /// The thread's own default streams, by context and epoch of the context.
    static OWN: RefCell<HashMap<(u64, u64), Stream>> = RefCell::default();
}

/// The stream behind a `CUstream`; the default ones are those of the current context.
///
/// # Errors
/// `INVALID_HANDLE`; those of [`current`] for a default stream.
pub(crate) fn resolve(handle: CuStream) -> Outcome<Resolved> {
    let own = handle == PER_THREAD || (handle == 0 && null_stream_is_per_thread());
    if handle == 0 || handle == LEGACY || own {
        let (driver, context) = current()?;
        let stream = if own {
            own_stream(driver, &context)?
        } else {
            driver.machine.default_stream(context.device)?
        };
        return Ok(Resolved {
            driver,
            stream,
            context,
        });
    }
    let driver = driver()?;
    let object = driver.handles.get::<StreamObject>(handle)?;
    Ok(Resolved {
        driver,
        stream: object.stream,
        context: object.context.clone(),
    })
}

fn own_stream(driver: &Driver, context: &Context) -> Outcome<Stream> {
    let key = (context.id, context.epoch());
    if let Some(stream) = OWN.with_borrow(|own| own.get(&key).copied()) {
        return Ok(stream);
    }
    let stream = driver
        .machine
        .stream(context.device, StreamFlags::default())?;
    OWN.with_borrow_mut(|own| own.insert(key, stream));
    Ok(stream)
}

impl Resolved {
    /// Waits for the stream's work.
    pub fn synchronize(&self) -> Outcome {
        self.driver.machine.synchronize(self.stream)?;
        self.driver.verdict(self.stream.device())
    }
}
