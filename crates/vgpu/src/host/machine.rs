//! The machine: what all of its parts share.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use super::engine::Engine;
use super::queue::Queues;
use super::work::Work;
use super::{Config, Result, Stream};
use crate::machine::Arch;
use crate::memory::Memory;
use crate::report::Report;

/// Called with each report when it is found.
pub(super) type Hook = Arc<dyn Fn(&Report) + Send + Sync>;

/// A machine with one or more virtual GPUs. Clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    pub(super) shared: Arc<Shared>,
}

/// What the clones of a machine share.
///
/// Locks are taken in the order `engine`, `queues`; no lock is held while code of the host program
/// runs.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) memory: Memory,
    pub(super) queues: Mutex<Queues>,
    /// Something was put into a queue or completed, or nobody runs the machine any more.
    pub(super) wake: Condvar,
    /// Held for a step of the machine.
    engine: Mutex<Engine>,
    /// Threads that want `engine` for something else than a step.
    wanting: AtomicUsize,
    pub(super) hooks: Mutex<Vec<Hook>>,
    /// Threads for grids of independent blocks, made when the first one runs.
    pub(super) pool: OnceLock<Option<rayon::ThreadPool>>,
}

/// Locks a mutex. Whatever is behind one of this module is whole between any two statements, so that a
/// panic of a thread that held it does no harm.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl Shared {
    pub(super) fn queues(&self) -> MutexGuard<'_, Queues> {
        lock(&self.queues)
    }

    /// The engine, for the thread that runs the machine. Others go first.
    pub(super) fn engine_for_step(&self) -> MutexGuard<'_, Engine> {
        // A mutex may well be given back to the thread that has just unlocked it, for ever.
        while self.wanting.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        lock(&self.engine)
    }

    /// The engine, for anything else: no step is under way.
    pub(super) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.wanting.fetch_add(1, Ordering::AcqRel);
        let engine = lock(&self.engine);
        self.wanting.fetch_sub(1, Ordering::AcqRel);
        engine
    }

    /// Keeps reports and tells whoever wants to hear of them. No lock may be held.
    pub(super) fn tell(&self, reports: &[Report]) {
        if reports.is_empty() {
            return;
        }
        let new: Vec<bool> = {
            let mut queues = self.queues();
            reports.iter().map(|report| queues.note(report)).collect()
        };
        let hooks = lock(&self.hooks).clone();
        for (report, _) in reports.iter().zip(new).filter(|&(_, new)| new) {
            hooks.iter().for_each(|hook| hook(report));
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// Makes a machine.
    ///
    /// # Errors
    /// A number of devices that is not possible.
    pub fn new(config: Config) -> Result<Self> {
        config.check()?;
        let shared = Shared {
            memory: Memory::new(config.devices, config.checks.memory_init),
            queues: Mutex::new(Queues::new(config.devices)),
            wake: Condvar::new(),
            engine: Mutex::new(Engine::new(&config)),
            wanting: AtomicUsize::new(0),
            hooks: Mutex::default(),
            pool: OnceLock::new(),
            config,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Its devices.
    pub fn device_count(&self) -> u32 {
        self.shared.config.devices
    }

    /// What its devices can do.
    pub fn arch(&self) -> Arch {
        self.shared.config.arch
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Puts work into a stream, or into the graph that is captured from it; returns its number.
    pub(super) fn enqueue(&self, stream: Stream, work: Work) -> Result<u64> {
        let mut queues = self.shared.queues();
        if queues.capture(stream, &work)? {
            return Ok(0);
        }
        let order = queues.push(stream.id, work);
        drop(queues);
        self.shared.wake.notify_all();
        Ok(order)
    }

    /// Puts work into a stream and waits for it.
    pub(super) fn enqueue_and_wait(&self, stream: Stream, work: Work) -> Result<()> {
        let order = {
            let mut queues = self.shared.queues();
            queues.lane(stream)?;
            queues.refuse_capture(stream, "a call that waits for the stream")?;
            queues.push(stream.id, work)
        };
        self.shared.wake.notify_all();
        self.wait_for(stream, order)
    }
}
