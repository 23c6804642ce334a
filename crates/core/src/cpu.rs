//! The CPU as a place where operations run: a thread pool of a fixed size.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

/// A handle on the threads that CPU implementations use. Cheap to clone; clones share the threads.
///
/// Results do not depend on the number of threads: work is split by position, and every sum has a
/// fixed order.
#[derive(Clone)]
pub struct Cpu {
    pool: Arc<rayon::ThreadPool>,
}

impl Cpu {
    /// The largest number of threads that may be asked for.
    pub const MAX_THREADS: usize = 1024;

    /// A pool of `threads` threads.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for 0 or more than [`Cpu::MAX_THREADS`]; [`Error::Threads`] when the
    /// system refuses.
    pub fn new(threads: usize) -> Result<Self> {
        Error::check_range("threads", threads, 1, Self::MAX_THREADS)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("tollgate-{i}"))
            .build()
            .map_err(|e| Error::Threads {
                threads,
                reason: e.to_string(),
            })?;
        Ok(Self {
            pool: Arc::new(pool),
        })
    }

    /// One thread per core this process may use.
    ///
    /// # Errors
    /// [`Error::Threads`] when the system refuses.
    pub fn all_cores() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self::new(cores.min(Self::MAX_THREADS))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on the pool; rayon's parallel iterators inside it use these threads.
    ///
    /// Entering from outside costs tens of microseconds, entering again from inside costs nothing:
    /// a layer enters once and its operations then find themselves inside.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("threads", &self.threads())
            .finish()
    }
}
