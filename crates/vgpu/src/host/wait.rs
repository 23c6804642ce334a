//! Waiting, which is what makes the machine run.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::Step;
use super::machine::{Machine, Shared};
use super::queue::Queues;
use super::work::HostFunction;
use super::{Error, Result, Stream};

/// Steps that a question whether something is complete may take.
const STEPS_OF_A_QUERY: u32 = 64;
/// How often a thread with nothing to run looks again: the host may write memory that a stream waits
/// for without a call.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How often a thread that waits for the one which runs the machine looks again.
const LOOK_AFTER: Duration = Duration::from_millis(20);

/// Ends the turn of the thread that runs the machine, also when it panics.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.queues().driving = false;
        self.0.wake.notify_all();
    }
}

impl Machine {
    /// Waits until a stream is past the entry with a number.
    pub(super) fn wait_for(&self, stream: Stream, order: u64) -> Result<()> {
        let resets = self.shared.queues().device(stream.device)?.resets;
        self.wait_until(|queues| {
            let device = queues.healthy(stream.device)?;
            if device.resets != resets {
                return Ok(Some(()));
            }
            if !queues.is_past(stream.id, order) {
                return Ok(None);
            }
            if let Some(lane) = queues.lanes.get(&stream.id) {
                let clock = lane.clock.clone();
                queues.host.join(&clock);
            }
            Ok(Some(()))
        })
    }

    /// Runs the machine until `done` says something.
    pub(super) fn wait_until<T>(
        &self,
        mut done: impl FnMut(&mut Queues) -> Result<Option<T>>,
    ) -> Result<T> {
        let shared = &*self.shared;
        let mut idle_since: Option<Instant> = None;
        let mut queues = shared.queues();
        loop {
            if let Some(value) = done(&mut queues)? {
                return Ok(value);
            }
            if queues.driving {
                queues = shared
                    .wake
                    .wait_timeout(queues, LOOK_AFTER)
                    .unwrap_or_else(|poison| poison.into_inner())
                    .0;
                continue;
            }
            queues.driving = true;
            drop(queues);
            let step = {
                let _turn = Turn(shared);
                self.step()
            };
            match step {
                Step::Progress => idle_since = None,
                Step::Call {
                    function,
                    stream,
                    order,
                } => {
                    idle_since = None;
                    self.call(&function, stream, order);
                }
                Step::Idle => {
                    let since = *idle_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= shared.config.patience {
                        self.give_up();
                    }
                    let queues = shared.queues();
                    drop(
                        shared
                            .wake
                            .wait_timeout(queues, LOOK_AGAIN)
                            .unwrap_or_else(|poison| poison.into_inner()),
                    );
                }
            }
            queues = shared.queues();
        }
    }

    /// Runs the machine for a moment, and says whether `done` says something then.
    pub(super) fn ask<T>(
        &self,
        mut done: impl FnMut(&mut Queues) -> Result<Option<T>>,
    ) -> Result<T> {
        let shared = &*self.shared;
        for _ in 0..STEPS_OF_A_QUERY {
            {
                let mut queues = shared.queues();
                if let Some(value) = done(&mut queues)? {
                    return Ok(value);
                }
                if queues.driving {
                    drop(queues);
                    std::thread::yield_now();
                    return Err(Error::NotReady);
                }
                queues.driving = true;
            }
            let step = {
                let _turn = Turn(shared);
                self.step()
            };
            match step {
                Step::Progress => {}
                Step::Call {
                    function,
                    stream,
                    order,
                } => self.call(&function, stream, order),
                Step::Idle => break,
            }
        }
        done(&mut shared.queues())?.ok_or(Error::NotReady)
    }

    /// Calls a function of the host in a stream's turn. It may call this machine, also wait for other
    /// streams.
    fn call(&self, function: &HostFunction, stream: u32, order: u64) {
        let result = catch_unwind(AssertUnwindSafe(|| function()));
        {
            let mut queues = self.shared.queues();
            let clock = queues.host.clone();
            queues.complete(stream, order, &clock);
        }
        self.shared.engine().unblock();
        self.shared.wake.notify_all();
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    }

    /// Whether a reference is to this machine.
    pub(super) fn same_as(&self, other: &std::sync::Weak<Shared>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.shared), other.as_ptr())
    }
}
