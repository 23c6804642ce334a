//! Bulk groups: what `cp.async.bulk.commit_group` closes and `cp.async.bulk.wait_group` waits for.

use std::collections::{BTreeMap, VecDeque};

use super::super::{Core, Fault, Flow, Handler};
use crate::lane::{LANES, lanes};
use crate::machine::{Cluster, Wait};
use crate::program::{Builder, LoadError};
use crate::race::Clock;

/// The bulk groups of a block's threads.
#[derive(Default)]
pub struct BulkGroups {
    threads: BTreeMap<u32, Thread>,
}

/// The groups of a thread; the last one is open.
struct Thread {
    /// Number of the first group in `groups`.
    first: u64,
    groups: VecDeque<Group>,
    /// What groups published that were complete before anything but their reads was waited for.
    finished: Clock,
}

#[derive(Default)]
struct Group {
    /// Operations that have not read all of their sources.
    reading: u32,
    /// Operations that have not written all of their destinations.
    writing: u32,
    /// What the reads publish.
    read: Clock,
    /// What the reads and writes publish.
    done: Clock,
}

impl Default for Thread {
    fn default() -> Self {
        Self {
            first: 0,
            groups: VecDeque::from([Group::default()]),
            finished: Clock::default(),
        }
    }
}

impl Thread {
    /// How many groups a wait that leaves `leave` of them concerns.
    fn concerned(&self, leave: usize) -> usize {
        (self.groups.len() - 1).saturating_sub(leave)
    }
}

/// One half of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Read,
    Write,
}

impl BulkGroups {
    /// Adds an operation to a thread's open group; returns the group's number.
    pub(super) fn start(&mut self, thread: u32) -> u64 {
        let thread = self.threads.entry(thread).or_default();
        if let Some(open) = thread.groups.back_mut() {
            open.reading += 1;
            open.writing += 1;
        }
        thread.first + thread.groups.len() as u64 - 1
    }

    /// Half of an operation of a group is complete; `publish` adds what it publishes.
    pub(super) fn complete(
        &mut self,
        thread: u32,
        number: u64,
        half: Half,
        mut publish: impl FnMut(&mut Clock),
    ) {
        let Some(thread) = self.threads.get_mut(&thread) else {
            return;
        };
        let index = number.wrapping_sub(thread.first) as usize;
        let Some(group) = thread.groups.get_mut(index) else {
            return;
        };
        publish(&mut group.done);
        match half {
            Half::Read => {
                group.reading -= 1;
                publish(&mut group.read);
            }
            Half::Write => group.writing -= 1,
        }
    }

    fn commit(&mut self, thread: u32) {
        let thread = self.threads.entry(thread).or_default();
        thread.groups.push_back(Group::default());
    }

    fn is_over(&self, thread: u32, leave: usize, half: Half) -> bool {
        self.threads.get(&thread).is_none_or(|thread| {
            let mut concerned = thread.groups.iter().take(thread.concerned(leave));
            match half {
                Half::Read => concerned.all(|group| group.reading == 0),
                Half::Write => concerned.all(|group| group.writing == 0),
            }
        })
    }

    /// Ends a wait that is over; returns what it learns.
    fn finish(&mut self, thread: u32, leave: usize, half: Half) -> Clock {
        let mut learnt = Clock::default();
        let Some(thread) = self.threads.get_mut(&thread) else {
            return learnt;
        };
        let mut concerned = thread.concerned(leave);
        for group in thread.groups.iter_mut().take(concerned) {
            match half {
                Half::Read => learnt.join(&std::mem::take(&mut group.read)),
                Half::Write => learnt.join(&group.done),
            }
        }
        while concerned > 0
            && thread
                .groups
                .front()
                .is_some_and(|group| group.writing == 0)
        {
            let group = thread.groups.pop_front().unwrap_or_default();
            concerned -= 1;
            thread.first += 1;
            if half == Half::Read {
                thread.finished.join(&group.done);
            }
        }
        if half == Half::Write {
            learnt.join(&std::mem::take(&mut thread.finished));
        }
        learnt
    }
}

pub(super) fn commit() -> Handler {
    Box::new(|core, mask| {
        let first = core.warp.index * LANES as u32;
        for lane in lanes(mask) {
            core.block().bulk.commit(first + lane as u32);
        }
        Ok(Flow::Next)
    })
}

pub(super) fn wait(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let half = if b.accept("read") {
        Half::Read
    } else {
        Half::Write
    };
    let leave = b.immediate()?;
    let leave = usize::try_from(leave)
        .map_err(|_| b.error(format!("{leave} groups to leave; 0 at least")))?;
    Ok(Box::new(move |core, mask| {
        wait_group(core, mask, leave, half)
    }))
}

fn wait_group(
    core: &mut Core<'_>,
    mask: u32,
    leave: usize,
    half: Half,
) -> Result<Flow, Box<Fault>> {
    let rank = core.block;
    let first = core.warp.index * LANES as u32;
    let ready = move |cluster: &Cluster| {
        let groups = &cluster.blocks[rank].bulk;
        lanes(mask).all(|lane| groups.is_over(first + lane as u32, leave, half))
    };
    if !ready(core.env.cluster) {
        return Ok(Flow::Retry(Wait::For {
            reason: Box::new(|_| "cp.async.bulk.wait_group: a copy is not complete".into()),
            ready: Box::new(ready),
            gives_up: false,
        }));
    }
    for lane in lanes(mask) {
        let learnt = core.block().bulk.finish(first + lane as u32, leave, half);
        if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race)
            && !learnt.is_empty()
        {
            race.acquire(id, 1 << lane, &learnt);
        }
    }
    Ok(Flow::Next)
}
