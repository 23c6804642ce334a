//! Contexts: which are current in a thread, and what ends with them.
//!
//! A device of the machine has one address space, so contexts of one device share it, and its
//! default stream. A context keeps track of what was made in it, and takes it along when it ends.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::abi::CuContext;
use crate::api::event::EventObject;
use crate::api::module::ModuleObject;
use crate::driver::{Driver, Origin, driver, lock};
use crate::failure::{Failure, Outcome, code};
use crate::handles::Handle;
use crate::stream::StreamObject;

/// A context.
pub(crate) struct Context {
    pub id: u64,
    pub device: u32,
    pub primary: bool,
    /// `CU_CTX_*`.
    pub flags: AtomicU32,
    pub cache_config: AtomicU32,
    pub shared_config: AtomicU32,
    pub limits: Mutex<HashMap<u32, usize>>,
    alive: AtomicBool,
    /// Grows when the context ends; a primary context may begin again.
    epoch: AtomicU64,
    handle: OnceLock<Handle>,
}

/// The primary context of a device.
#[derive(Default)]
pub(crate) struct Primary {
    /// Made when it is first wanted; its handle stays the same.
    pub context: Option<Arc<Context>>,
    /// Retains without releases.
    pub count: u32,
    pub flags: u32,
}

thread_local! {
    /// Contexts of this thread; the last one is current.
    static STACK: RefCell<Vec<Arc<Context>>> = const { RefCell::new(Vec::new()) };
}

impl Context {
    /// Makes a context with its handle. A primary one is not alive until it is retained.
    pub fn new(driver: &Driver, device: u32, primary: bool, flags: u32) -> Arc<Self> {
        let context = Arc::new(Self {
            id: driver.next_id(),
            device,
            primary,
            flags: AtomicU32::new(flags),
            cache_config: AtomicU32::new(0),
            shared_config: AtomicU32::new(0),
            limits: Mutex::default(),
            alive: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            handle: OnceLock::new(),
        });
        let handle = driver.handles.insert(context.clone(), None);
        context.handle.get_or_init(|| handle);
        context
    }

    pub fn handle(&self) -> CuContext {
        self.handle.get().copied().unwrap_or(0)
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Lets the context begin.
    pub fn begin(self: &Arc<Self>, driver: &Driver) {
        if !self.alive.swap(true, Ordering::AcqRel) {
            lock(&driver.contexts).insert(self.id, self.clone());
        }
    }

    /// Ends the context and what was made in it. The last one of a device resets the device, which
    /// also clears a fault.
    pub fn end(&self, driver: &Driver) -> Outcome {
        if !self.alive.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let last = {
            let mut contexts = lock(&driver.contexts);
            contexts.remove(&self.id);
            !contexts.values().any(|other| other.device == self.device)
        };
        if last && driver.settings.config.checks.leaks {
            driver.report_leaks(Some(self.device));
        }
        let machine = &driver.machine;
        for object in driver.handles.remove_of(self.id) {
            // What is destroyed already, or lost with a device that failed, is no concern any more.
            if let Some(stream) = object.downcast_ref::<StreamObject>() {
                let _ = machine.destroy_stream(stream.stream);
            } else if let Some(event) = object.downcast_ref::<EventObject>() {
                let _ = machine.destroy_event(event.event);
            } else if let Some(module) = object.downcast_ref::<ModuleObject>() {
                let _ = machine.unload(&module.module);
            }
        }
        let mut memory = lock(&driver.memory);
        let mine: Vec<_> = memory
            .iter()
            .filter(|(_, piece)| piece.context == self.id)
            .map(|(&base, piece)| (base, piece.origin))
            .collect();
        memory.retain(|_, piece| piece.context != self.id);
        drop(memory);
        for (base, origin) in mine {
            let _ = match origin {
                Origin::Device | Origin::Pool(_) => machine.free(base),
                Origin::Managed | Origin::Pinned => machine.free_host(base),
                Origin::Registered => machine.unregister_host(base),
            };
        }
        if last {
            machine.reset(self.device)?;
            driver.reports.forgive(self.device);
            // The machine tells of a thing once; after a reset it is news again.
            machine.take_reports();
        }
        Ok(())
    }
}

impl Driver {
    /// The context behind a handle.
    ///
    /// # Errors
    /// `INVALID_CONTEXT`, or `CONTEXT_IS_DESTROYED`.
    pub fn context(&self, handle: CuContext) -> Outcome<Arc<Context>> {
        let context: Arc<Context> = self
            .handles
            .find(handle)
            .ok_or(Failure::quiet(code::INVALID_CONTEXT))?;
        if !context.is_alive() {
            return Err(Failure::quiet(code::CONTEXT_IS_DESTROYED));
        }
        Ok(context)
    }

    /// The primary context of `device`, alive or not.
    pub fn primary(&self, device: u32) -> Arc<Context> {
        let mut primary = lock(&self.primaries[device as usize]);
        let flags = primary.flags;
        primary
            .context
            .get_or_insert_with(|| Context::new(self, device, true, flags))
            .clone()
    }

    /// Passes allocations that were not freed, of one device or of all, to the reports.
    pub fn report_leaks(&self, device: Option<u32>) {
        let leaks = self.machine.check_leaks();
        for leak in leaks
            .iter()
            .filter(|leak| device.is_none_or(|device| device == leak.device))
        {
            self.reports.take(leak);
        }
    }
}

/// The driver and the current context.
///
/// # Errors
/// `NOT_INITIALIZED`, `INVALID_CONTEXT` without one, `CONTEXT_IS_DESTROYED`.
pub(crate) fn current() -> Outcome<(&'static Driver, Arc<Context>)> {
    let driver = driver()?;
    let context = peek().ok_or(Failure::quiet(code::INVALID_CONTEXT))?;
    if !context.is_alive() {
        return Err(Failure::quiet(code::CONTEXT_IS_DESTROYED));
    }
    Ok((driver, context))
}

/// The current context, alive or not.
pub(crate) fn peek() -> Option<Arc<Context>> {
    STACK.with_borrow(|stack| stack.last().cloned())
}

/// Makes `context` current above the others.
pub(crate) fn push(context: Arc<Context>) {
    STACK.with_borrow_mut(|stack| stack.push(context));
}

/// Takes the current context off.
pub(crate) fn pop() -> Option<Arc<Context>> {
    STACK.with_borrow_mut(Vec::pop)
}
