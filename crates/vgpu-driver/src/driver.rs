//! The one driver of the process: made by `cuInit`, alive until the process ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tollgate_vgpu::host::Machine;

use crate::boundary::say;
use crate::context::{Context, Primary};
use crate::failure::{Failure, Outcome, code};
use crate::handles::{Handle, Handles};
use crate::reports::{Reports, write_counters};
use crate::settings::Settings;

/// CUDA version that the driver stands for.
pub(crate) const VERSION: i32 = 13_000;

/// How memory came to be, which decides how it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `cuMemAlloc`.
    Device,
    /// `cuMemAllocAsync` and its kin, from the pool with the handle.
    Pool(Handle),
    /// `cuMemAllocManaged`: memory of the host that kernels use by the same address.
    Managed,
    /// `cuMemAllocHost`, `cuMemHostAlloc`.
    Pinned,
    /// `cuMemHostRegister`.
    Registered,
}

/// Memory that the program allocated or registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub bytes: u64,
    pub origin: Origin,
    /// The context in which it was made, and whose end is its own.
    pub context: u64,
    pub context_handle: Handle,
    pub device: u32,
    /// `CU_MEMHOSTALLOC_*` or `CU_MEMHOSTREGISTER_*`.
    pub flags: u32,
    /// Unique for the life of the process.
    pub id: u64,
}

/// The driver.
pub(crate) struct Driver {
    pub machine: Machine,
    pub settings: Settings,
    pub handles: Handles,
    pub reports: Arc<Reports>,
    /// Primary contexts, by device.
    pub primaries: Vec<Mutex<Primary>>,
    /// Handles of the default and the current memory pool of each device.
    pub pools: Vec<Mutex<(Handle, Handle)>>,
    /// Contexts that are alive.
    pub contexts: Mutex<HashMap<u64, Arc<Context>>>,
    /// Memory by first address.
    pub memory: Mutex<BTreeMap<u64, Piece>>,
    /// Numbers of the captures under way, by the number of the stream that began each.
    pub captures: Mutex<HashMap<u32, u64>>,
    ids: AtomicU64,
}

static DRIVER: OnceLock<Result<Driver, Failure>> = OnceLock::new();

/// Makes the driver, once.
///
/// # Errors
/// `INVALID_VALUE` for an environment variable that makes no sense; the words go to stderr.
pub(crate) fn initialise() -> Outcome {
    let made = DRIVER.get_or_init(|| {
        let driver = Driver::new().map_err(|why| {
            say(&format!("cuInit: {why}"));
            Failure::quiet(code::INVALID_VALUE)
        })?;
        // SAFETY: the handler is a function of this library, which is never unloaded (`-z
        // nodelete`).
        if unsafe { libc::atexit(at_exit) } != 0 {
            say("cuInit: no exit handler can be set: counters and leaks will not be written");
        }
        Ok(driver)
    });
    made.as_ref().map(|_| ()).map_err(Clone::clone)
}

/// The driver.
///
/// # Errors
/// `NOT_INITIALIZED` before `cuInit`.
pub(crate) fn driver() -> Outcome<&'static Driver> {
    match DRIVER.get() {
        Some(made) => made.as_ref().map_err(Clone::clone),
        None => Err(Failure::quiet(code::NOT_INITIALIZED)),
    }
}

/// Locks what no panic leaves half done.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    fn new() -> Result<Self, String> {
        let settings = Settings::read(|name| std::env::var(name).ok())?;
        let reports = Arc::new(Reports::new(&settings.reports, settings.fail)?);
        let machine = Machine::new(settings.config.clone()).map_err(|error| error.to_string())?;
        let sink = reports.clone();
        machine.on_report(Arc::new(move |report| sink.take(report)));
        let devices = settings.config.devices as usize;
        Ok(Self {
            machine,
            settings,
            handles: Handles::default(),
            reports,
            primaries: (0..devices).map(|_| Mutex::default()).collect(),
            pools: (0..devices).map(|_| Mutex::default()).collect(),
            contexts: Mutex::default(),
            memory: Mutex::default(),
            captures: Mutex::default(),
            ids: AtomicU64::new(1),
        })
    }

    /// A number that was not given before.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The device behind a `CUdevice`.
    ///
    /// # Errors
    /// `INVALID_DEVICE`.
    pub fn device(&self, device: i32) -> Outcome<u32> {
        u32::try_from(device)
            .ok()
            .filter(|&device| device < self.machine.device_count())
            .ok_or(Failure::quiet(code::INVALID_DEVICE))
    }

    /// What a synchronising call on `device` answers when all went well for the machine.
    ///
    /// # Errors
    /// The code of a report on the device, if reports make calls fail.
    pub fn verdict(&self, device: u32) -> Outcome {
        match self.reports.failure(device) {
            Some(code) => Err(Failure::quiet(code)),
            None => Ok(()),
        }
    }

    /// The piece of memory that holds `address`, and its first address.
    pub fn piece(&self, address: u64) -> Option<(u64, Piece)> {
        let memory = lock(&self.memory);
        let (&base, &piece) = memory.range(..=address).next_back()?;
        (address - base < piece.bytes.max(1)).then_some((base, piece))
    }
}

/// Writes what is only known at the end.
extern "C" fn at_exit() {
    let end = || {
        let Ok(driver) = driver() else { return };
        if driver.settings.config.checks.leaks {
            driver.report_leaks(None);
        }
        if let Some(path) = &driver.settings.counters
            && let Err(error) = write_counters(path, &driver.machine.take_launches())
        {
            say(&format!(
                "cannot write counters to {}: {error}",
                path.display()
            ));
        }
        match driver.reports.count() {
            0 => {}
            1 => say("1 report"),
            reports => say(&format!("{reports} reports")),
        }
    };
    if std::panic::catch_unwind(end).is_err() {
        say("internal error at exit");
    }
}
