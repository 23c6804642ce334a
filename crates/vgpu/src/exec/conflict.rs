//! What the race detector finds, told as a report.

use super::{Core, Env};
use crate::machine::{Cluster, Grid, Launches};
use crate::memory::Table;
use crate::program::Program;
use crate::race::{Access, Conflict, ConflictKind, Kind, Party, Proxy, Scope, Space, Who};
use crate::report::{self, Report, Site};

impl Core<'_> {
    /// Tells the race detector, if there is one, of an access by lanes of this warp, and notes what
    /// it finds.
    #[inline]
    pub fn track(&mut self, access: &Access<'_>) {
        if let (Some(race), Some(id)) = (&mut self.env.race, self.warp.race)
            && let Some(conflict) = race.access(id, access)
        {
            self.env.note_conflict(conflict);
        }
    }
}

impl Env<'_> {
    /// Notes what the race detector found.
    #[cold]
    pub fn note_conflict(&mut self, conflict: Box<Conflict>) {
        let scene = Scene {
            memory: &self.memory,
            launches: self.launches,
            here: Some((self.program, self.grid)),
            cluster: Some(self.cluster),
            seed: self.grid.seed,
        };
        let report = scene.report(&conflict);
        self.note(report);
    }
}

/// What is known around a conflict, to put names to it.
pub(crate) struct Scene<'a> {
    /// Memory as it is now.
    pub(crate) memory: &'a Table,
    /// Launches by number.
    pub(crate) launches: &'a Launches,
    /// The launch at hand, which need not be among them; `None` for an operation of a stream.
    pub(crate) here: Option<(&'a Program, &'a Grid)>,
    /// The cluster at hand.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Seed of the schedule.
    pub(crate) seed: u64,
}

impl<'a> Scene<'a> {
    /// The conflict in words.
    pub(crate) fn report(&self, conflict: &Conflict) -> Report {
        let kind = match conflict.kind {
            ConflictKind::Race => report::Kind::Race,
            ConflictKind::IntraWarp => report::Kind::WarpRace,
            ConflictKind::InsufficientScope => report::Kind::Scope,
            ConflictKind::MissingProxyFence => report::Kind::ProxyFence,
        };
        let place = self.place_in_words(conflict);
        let [first, second] = [&conflict.first, &conflict.second].map(in_words);
        let message = match conflict.kind {
            ConflictKind::Race => format!("nothing orders a {second} after a {first} of {place}"),
            ConflictKind::IntraWarp => format!(
                "nothing orders a {second} after a {first} by another lane of the warp of {place}: \
                 bar.warp.sync is missing"
            ),
            ConflictKind::InsufficientScope => format!(
                "a {second} after a {first} of {place}: the scope of one of them does not take in the \
                 other's thread"
            ),
            ConflictKind::MissingProxyFence => format!(
                "a {second} of {place} may not see the {first} before it: fence.proxy.async is \
                 missing between them"
            ),
        };
        // A conflict that a stream's own operation runs into is told as one of the kernel's.
        let launch = self.here.or_else(|| {
            [&conflict.second, &conflict.first]
                .into_iter()
                .find_map(|party| self.launch_of(party))
        });
        Report {
            kind,
            message,
            kernel: launch.map_or_else(String::new, |(program, _)| program.name.to_string()),
            device: launch.map_or(0, |(_, grid)| grid.device),
            site: self.site_of(&conflict.second),
            other: Some(self.site_of(&conflict.first)),
            seed: self.seed,
        }
    }

    fn place_in_words(&self, conflict: &Conflict) -> String {
        let Conflict { address, bytes, .. } = *conflict;
        let plural = if bytes == 1 { "" } else { "s" };
        match conflict.space {
            Space::Shared(uid) => {
                let mut blocks = self.cluster.iter().flat_map(|cluster| &cluster.blocks);
                let owner = blocks.find(|block| block.uid == uid);
                let of = owner.map_or_else(String::new, |block| {
                    let [x, y, z] = block.index;
                    format!(" of block ({x},{y},{z})")
                });
                format!("{bytes} byte{plural} at shared address {address:#x}{of}")
            }
            Space::Global => match self.memory.find(address, u64::from(bytes)) {
                Ok(index) => {
                    let allocation = self.memory.get(index);
                    format!(
                        "{bytes} byte{plural} at {address:#x} (offset {} of the {}-byte allocation \
                         at {:#x})",
                        address - allocation.base(),
                        allocation.bytes(),
                        allocation.base()
                    )
                }
                Err(_) => format!("{bytes} byte{plural} at {address:#x}"),
            },
        }
    }

    fn launch_of(&self, party: &Party) -> Option<(&'a Program, &'a Grid)> {
        let (Who::Thread { warp, .. } | Who::Async { warp, .. }) = party.who else {
            return None;
        };
        match self.here {
            Some((program, grid)) if grid.launch == warp.launch => Some((program, grid)),
            _ => self
                .launches
                .get(&warp.launch)
                .map(|(program, grid)| (&**program, grid)),
        }
    }

    /// Where one side of a conflict is.
    fn site_of(&self, party: &Party) -> Site {
        let action = in_words(party);
        let nowhere = |action| Site {
            action,
            block: None,
            thread: None,
            ptx_line: 0,
            ptx: String::new(),
            source: None,
        };
        let (warp, lane) = match party.who {
            Who::Thread { warp, lane } => (warp, Some(lane)),
            Who::Async { warp, lane } => (warp, lane),
            Who::Host { stream } => return nowhere(format!("{action} by stream {stream}")),
        };
        let Some((program, grid)) = self.launch_of(party) else {
            return nowhere(format!("{action} by launch {}", warp.launch));
        };
        let inst = program.insts.get(party.inst as usize);
        let first = warp.warp * crate::lane::LANES as u32;
        let here = self
            .here
            .is_some_and(|(_, here)| here.launch == grid.launch);
        let action = if here {
            action
        } else {
            let name = &program.name;
            format!("{action} by kernel {name} on device {}", grid.device)
        };
        Site {
            action,
            block: grid.block_of_uid(warp.block),
            thread: lane.map(|lane| grid.thread_index(first + lane)),
            ptx_line: inst.map_or(0, |inst| inst.line),
            ptx: inst.map_or_else(String::new, |inst| inst.text.to_string()),
            source: inst.and_then(|inst| inst.source.clone()),
        }
    }
}

/// What one side did, in a few words: `relaxed.gpu write`, `asynchronous read`.
fn in_words(party: &Party) -> String {
    let what = match party.kind {
        Kind::Read => "read",
        Kind::Write => "write",
        Kind::Rmw => "atomic update",
    };
    let scope = |scope| match scope {
        Scope::Cta => "cta",
        Scope::Cluster => "cluster",
        Scope::Gpu => "gpu",
        Scope::Sys => "sys",
    };
    match (party.who, party.proxy, party.strong) {
        (_, Proxy::Tensormap, _) => format!("tensor map {what}"),
        (Who::Async { .. }, ..) => format!("asynchronous {what}"),
        (Who::Host { .. }, ..) => format!("host {what}"),
        (_, _, Some(strong)) => format!("strong {what} of scope {}", scope(strong)),
        _ => what.to_owned(),
    }
}
