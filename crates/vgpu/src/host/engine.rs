//! What runs: grids under way, the race detector, and the choice of the next step.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::Config;
use super::launch::KernelWork;
use super::machine::{Machine, Shared};
use super::queue::{Phase, Queues};
use super::results::LaunchRecord;
use super::work::{HostFunction, Work};
use crate::machine::{Grid, GridRun, Launches, Rng, RunContext, SliceEnd, Trace};
use crate::memory::{Memory, Table};
use crate::race::{self, Clock, Detector, WarpId};
use crate::report::{Kind, Report, Site};

/// Launches that reports can still name. Older ones are only numbers in them.
const REMEMBERED_LAUNCHES: usize = 1 << 14;

/// What a step did.
pub(super) enum Step {
    /// Something.
    Progress,
    /// It is a host function's turn, which wants no locks.
    Call {
        function: HostFunction,
        stream: u32,
        order: u64,
    },
    /// Nothing can run.
    Idle,
}

/// A grid under way.
pub(super) struct Active {
    pub(super) run: GridRun,
    kernel: Arc<KernelWork>,
    stream: u32,
    order: u64,
    trace: Option<Trace>,
    /// Waits for the grid before it.
    blocked: bool,
    /// Set when it is complete, for the launch behind it that started early.
    followers: Vec<(Arc<AtomicBool>, Arc<OnceLock<Clock>>)>,
    /// What its checks found; the first `told` were passed on.
    reports: Vec<Report>,
    told: usize,
}

/// Memory as the kernels of a device see it.
struct View {
    of: Arc<Table>,
    peers: u64,
    seen: Arc<Table>,
}

/// Whatever only the thread that runs the machine needs.
pub(super) struct Engine {
    pub(super) detector: Option<Detector>,
    /// Streams as the race detector knows them.
    hosts: HashMap<u32, WarpId>,
    pub(super) runs: Vec<Active>,
    pub(super) launches: Launches,
    launch_order: VecDeque<u32>,
    seed: u64,
    rng: Rng,
    next_uid: u32,
    views: Vec<Option<View>>,
    startable: Vec<(u32, usize)>,
}

impl Engine {
    pub(super) fn new(config: &Config) -> Self {
        let detector = || Detector::new(race::Config::default());
        Self {
            detector: config.checks.races.then(detector),
            hosts: HashMap::new(),
            runs: Vec::new(),
            launches: Launches::new(),
            launch_order: VecDeque::new(),
            seed: config.seed,
            rng: Rng::new(config.seed, u64::MAX - 1),
            next_uid: 0,
            views: (0..config.devices).map(|_| None).collect(),
            startable: Vec::new(),
        }
    }

    /// Something completed: grids that waited for others look again.
    pub(super) fn unblock(&mut self) {
        self.runs
            .iter_mut()
            .for_each(|active| active.blocked = false);
    }

    /// The race detector's name of a stream, for what it does itself.
    pub(super) fn host_actor(&mut self, stream: u32, start: &Clock) -> Option<WarpId> {
        let detector = self.detector.as_mut()?;
        let id = *self
            .hosts
            .entry(stream)
            .or_insert_with(|| detector.begin_host(stream, start));
        detector.acquire(id, 1, start);
        Some(id)
    }

    /// The race detector lets go of memory and streams that are gone.
    fn forget(&mut self, queues: &mut Queues) {
        let (memory, streams) = (queues.forgotten.drain(..), queues.gone.drain(..));
        let Some(detector) = &mut self.detector else {
            return;
        };
        for (address, bytes) in memory {
            detector.forget(race::Space::Global, address, bytes);
        }
        for id in streams.filter_map(|stream| self.hosts.remove(&stream)) {
            detector.end_warp(id, &mut Clock::default());
        }
    }

    /// What the kernels of a device see of memory: not that of other devices without peer access.
    fn view(&mut self, device: u32, peers: u64, memory: &Memory) -> Arc<Table> {
        let of = memory.snapshot();
        let all = u64::MAX >> (64 - self.views.len());
        let mask = (peers | 1 << device) & all;
        if mask == all {
            return of;
        }
        let view = &mut self.views[device as usize];
        if let Some(view) = view
            && Arc::ptr_eq(&view.of, &of)
            && view.peers == mask
        {
            return Arc::clone(&view.seen);
        }
        let seen = Arc::new(of.seen_by(device, mask));
        *view = Some(View {
            of,
            peers: mask,
            seen: Arc::clone(&seen),
        });
        seen
    }

    /// Lets go of every snapshot of memory.
    pub(super) fn forget_views(&mut self) {
        self.views.iter_mut().for_each(|view| *view = None);
    }

    fn start_kernel(&mut self, kernel: Arc<KernelWork>, place: &Place, start: Clock, early: bool) {
        let blocks: u64 = kernel.grid.iter().map(|&n| u64::from(n)).product();
        let uids = u32::try_from(blocks.saturating_mul(2)).unwrap_or(u32::MAX);
        if self.detector.is_some() {
            // Names of long ago are used again in the end; nothing of them is left by then.
            if self.next_uid.checked_add(uids).is_none() {
                self.next_uid = 0;
            }
            if self.runs.is_empty()
                && let Some(detector) = &mut self.detector
            {
                detector.report_again();
            }
        }
        let dependency = Arc::new(AtomicBool::new(!early));
        let known = Arc::new(
            place
                .later
                .clone()
                .map_or_else(OnceLock::new, OnceLock::from),
        );
        if early {
            let before = self
                .runs
                .iter_mut()
                .find(|active| active.stream == place.stream);
            match before {
                Some(active) => active
                    .followers
                    .push((Arc::clone(&dependency), Arc::clone(&known))),
                None => dependency.store(true, Ordering::Release),
            }
        }
        let program = Arc::clone(kernel.function.program());
        let grid = Grid {
            device: place.device,
            launch: place.launch,
            first_uid: self.next_uid,
            seed: kernel.seed_of(place.launch, self.seed),
            arch: kernel.function.arch(),
            blocks: kernel.grid,
            threads: kernel.block,
            cluster: kernel.cluster,
            explicit_cluster: kernel.explicit_cluster,
            dynamic_shared: kernel.dynamic_shared,
            params: Arc::clone(&kernel.params),
            dependency,
            dependency_clock: known,
            dependents: Arc::clone(&place.dependents),
        };
        self.launches
            .insert(place.launch, (Arc::clone(&program), grid.clone()));
        self.launch_order.push_back(place.launch);
        while self.launch_order.len() > REMEMBERED_LAUNCHES
            && let Some(old) = self.launch_order.pop_front()
        {
            self.launches.remove(&old);
        }
        let run = GridRun::new(program, grid, start, kernel.resident_blocks, self.next_uid);
        self.next_uid = self.next_uid.wrapping_add(uids);
        self.runs.push(Active {
            run,
            kernel,
            stream: place.stream,
            order: place.order,
            trace: place.trace.map(Trace::new),
            blocked: false,
            followers: Vec::new(),
            reports: Vec::new(),
            told: 0,
        });
    }

    /// Takes a grid that will not run again out, and what the race detector knows of its warps.
    fn remove(&mut self, index: usize) -> Active {
        let mut active = self.runs.remove(index);
        active.run.abandon(self.detector.as_mut());
        active
    }

    /// Ends everything that runs on a device.
    pub(super) fn abandon(&mut self, device: u32) {
        while let Some(index) = self
            .runs
            .iter()
            .position(|active| active.run.grid.device == device)
        {
            let active = self.remove(index);
            active.release_followers();
        }
        self.unblock();
    }
}

impl Active {
    /// The launch behind it may go on.
    fn release_followers(&self) {
        for (dependency, known) in &self.followers {
            let _ = known.set(self.run.end.clone());
            dependency.store(true, Ordering::Release);
        }
    }

    /// Reports that were not passed on. Their seed becomes the one to give a machine to see them again.
    fn news(&mut self, seed: u64) -> Vec<Report> {
        let seed = self.kernel.seed.unwrap_or(seed);
        let news = &mut self.reports[self.told..];
        news.iter_mut().for_each(|report| report.seed = seed);
        let news = news.to_vec();
        self.told = self.reports.len();
        news
    }

    fn record(&self, complete: bool) -> LaunchRecord {
        let Grid {
            device,
            launch,
            seed,
            ..
        } = self.run.grid;
        LaunchRecord {
            launch,
            kernel: Arc::clone(&self.run.program.name),
            device,
            stream: self.stream,
            grid: self.kernel.grid,
            block: self.kernel.block,
            cluster: self.kernel.cluster,
            static_shared: self.run.program.static_shared,
            dynamic_shared: self.kernel.dynamic_shared,
            registers: self.kernel.registers,
            occupancy: self.kernel.occupancy,
            counters: self.run.counters.clone(),
            cycles: self.run.counters.total_instructions(),
            seed,
            complete,
        }
    }
}

/// Where an entry is.
pub(super) struct Place {
    pub(super) device: u32,
    pub(super) stream: u32,
    pub(super) order: u64,
    launch: u32,
    dependents: Arc<AtomicBool>,
    /// What a dependent launch will know when it has waited, if the launch before it is complete.
    later: Option<Clock>,
    trace: Option<usize>,
}

impl Machine {
    /// One step, of a grid or of an entry of a queue.
    pub(super) fn step(&self) -> Step {
        let shared = &*self.shared;
        let mut guard = shared.engine_for_step();
        let engine = &mut *guard;
        let mut queues = shared.queues();
        engine.forget(&mut queues);
        queues.startable(&shared.memory.snapshot(), &mut engine.startable);
        let waiting = engine.startable.len();
        let able = engine.runs.iter().filter(|active| !active.blocked).count();
        let reports = match waiting + able {
            0 => {
                let Some(stuck) = engine.runs.first() else {
                    return Step::Idle;
                };
                let report = stuck.run.deadlock().0;
                let device = stuck.run.grid.device;
                fail(shared, engine, &mut queues, device, report)
            }
            total => {
                let choice = match total {
                    1 => 0,
                    _ => engine.rng.below(total as u64) as usize,
                };
                if let Some(&(stream, place)) = engine.startable.get(choice) {
                    match self.start(engine, queues, stream, place) {
                        Started::Reports(reports) => reports,
                        Started::Call(call) => return call,
                    }
                } else {
                    let able = engine.runs.iter().enumerate();
                    let index = able
                        .filter(|(_, active)| !active.blocked)
                        .nth(choice - waiting)
                        .map_or(0, |(index, _)| index);
                    self.slice(engine, queues, index)
                }
            }
        };
        drop(guard);
        shared.tell(&reports);
        Step::Progress
    }

    /// Starts an entry, and completes it unless it is a launch.
    fn start(
        &self,
        engine: &mut Engine,
        mut queues: std::sync::MutexGuard<'_, Queues>,
        stream: u32,
        place: usize,
    ) -> Started {
        let (start, later) = queues.start_clock(stream, place);
        let Some(entry) = queues
            .lanes
            .get_mut(&stream)
            .and_then(|lane| lane.queue.get_mut(place))
        else {
            return Started::Reports(Vec::new());
        };
        let (order, launch, work) = (entry.order, entry.launch, entry.work.clone());
        let dependents = Arc::new(AtomicBool::new(false));
        let is_kernel = matches!(work, Work::Kernel(_));
        entry.phase = Phase::Running(is_kernel.then(|| Arc::clone(&dependents)));
        let device = queues.lanes[&stream].device;
        let at = Place {
            device,
            stream,
            order,
            launch,
            dependents,
            later,
            trace: self.shared.config.trace,
        };
        match work {
            Work::Kernel(kernel) => {
                drop(queues);
                engine.start_kernel(kernel, &at, start, place == 1);
                Started::Reports(Vec::new())
            }
            Work::Host(function) => {
                queues.host.join(&start);
                Started::Call(Step::Call {
                    function,
                    stream,
                    order,
                })
            }
            work => {
                let ticks = queues.devices[device as usize].ticks;
                drop(queues);
                let outcome = self.execute(engine, &work, &at, start, ticks);
                let mut queues = self.shared.queues();
                if queues.devices[device as usize].fault.is_some() {
                    return Started::Reports(Vec::new());
                }
                queues.devices[device as usize].ticks += outcome.ticks;
                queues.complete(stream, order, &outcome.clock);
                let mut reports = outcome.reports;
                if let Some(report) = outcome.fault {
                    reports.extend(fail(&self.shared, engine, &mut queues, device, report));
                }
                engine.unblock();
                drop(queues);
                self.shared.wake.notify_all();
                Started::Reports(reports)
            }
        }
    }

    /// Runs a part of a grid.
    fn slice(
        &self,
        engine: &mut Engine,
        queues: std::sync::MutexGuard<'_, Queues>,
        index: usize,
    ) -> Vec<Report> {
        let shared = &*self.shared;
        let config = &shared.config;
        let device = engine.runs[index].run.grid.device;
        let peers = queues.devices[device as usize].peers;
        drop(queues);
        let memory = engine.view(device, peers, &shared.memory);
        let active = &mut engine.runs[index];
        let before = active.run.counters.total_instructions();
        let mut context = RunContext {
            memory,
            checks: config.checks,
            race: engine.detector.as_mut(),
            reports: &mut active.reports,
            threads: config.threads,
            budget: config.budget,
            trace: active.trace.as_mut(),
            launches: &engine.launches,
        };
        let run = &mut active.run;
        let habits = run.program.habits;
        let alone = !habits.talks_across_blocks && !habits.depends_on_grids;
        let pool = shared.pool.get_or_init(|| {
            let threads = config.threads.min(256);
            let build = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            (threads > 1).then(build).and_then(Result::ok)
        });
        let end = match pool {
            Some(pool) if alone && context.race.is_none() && context.trace.is_none() => {
                pool.install(|| run.slice(&mut context))
            }
            _ => run.slice(&mut context),
        };
        let ticks = run.counters.total_instructions() - before;
        let mut reports = active.news(config.seed);
        let mut queues = shared.queues();
        queues.devices[device as usize].ticks += ticks;
        match end {
            SliceEnd::Progress => {}
            SliceEnd::Blocked => engine.runs[index].blocked = true,
            SliceEnd::Done => {
                let mut active = engine.remove(index);
                let start = active.run.start.clone();
                active.run.end.join(&start);
                active.release_followers();
                queues.complete(active.stream, active.order, &active.run.end);
                queues.record(active.record(true));
                if let Some(trace) = active.trace.take() {
                    queues.traces.push((active.run.grid.launch, trace.lines));
                }
                engine.unblock();
                drop(queues);
                shared.wake.notify_all();
            }
            SliceEnd::Fault(fault) => {
                let active = &mut engine.runs[index];
                queues.record(active.record(false));
                if let Some(trace) = active.trace.take() {
                    queues.traces.push((active.run.grid.launch, trace.lines));
                }
                let mut report = fault.0;
                report.seed = active.kernel.seed.unwrap_or(config.seed);
                reports.extend(fail(shared, engine, &mut queues, device, report));
            }
        }
        reports
    }

    /// Nothing can run, and no host thread did anything about it for long: streams that wait for a
    /// value wait for ever.
    pub(super) fn give_up(&self) {
        let shared = &*self.shared;
        let mut engine = shared.engine();
        let mut queues = shared.queues();
        let stuck = queues.lanes.iter().find_map(|(&id, lane)| {
            let front = lane.queue.front()?;
            match &front.work {
                Work::Value(value) => Some((id, lane.device, *value)),
                _ => None,
            }
        });
        let Some((stream, device, value)) = stuck else {
            return;
        };
        let message = format!(
            "stream {stream} waits for the value {:#x} at {:#x}, and nothing else can run",
            value.value, value.ptr
        );
        let report = host_report(Kind::Deadlock, message, device, shared.config.seed, stream);
        let reports = fail(shared, &mut engine, &mut queues, device, report);
        drop(queues);
        drop(engine);
        shared.tell(&reports);
    }
}

enum Started {
    Reports(Vec<Report>),
    Call(Step),
}

/// A device has failed: its work is gone, and every call says so until it is reset.
fn fail(
    shared: &Shared,
    engine: &mut Engine,
    queues: &mut Queues,
    device: u32,
    report: Report,
) -> Vec<Report> {
    queues.devices[device as usize].fault = Some(report.clone());
    queues.drop_work(device);
    engine.abandon(device);
    shared.wake.notify_all();
    vec![report]
}

/// A report about what a stream did itself.
pub(super) fn host_report(
    kind: Kind,
    message: String,
    device: u32,
    seed: u64,
    stream: u32,
) -> Report {
    Report {
        kind,
        message,
        kernel: String::new(),
        device,
        site: Site {
            action: format!("operation of stream {stream}"),
            block: None,
            thread: None,
            ptx_line: 0,
            ptx: String::new(),
            source: None,
        },
        other: None,
        seed,
    }
}
