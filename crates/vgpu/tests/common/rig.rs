//! A machine with a case's kernels, and a run of the case on it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytemuck::{Pod, Zeroable};
use tollgate_vgpu::host::{
    Config, Error, LaunchConfig, LaunchRecord, Machine, Module, Stream, StreamFlags,
};
use tollgate_vgpu::report::Report;

use super::{Case, Params, Random};

/// Why a run did not give what it must.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The machine refused a call, or a launch faulted.
    Machine(Error),
    /// The results differ from the reference.
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Machine(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(error) => write!(f, "{error}"),
            Self::Wrong(text) => f.write_str(text),
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether the results are the reference's.
    pub result: Result<(), Failure>,
    /// What the checks found, leaks too.
    pub reports: Vec<Report>,
    /// What was launched, with counters.
    pub launches: Vec<LaunchRecord>,
    /// A hash of everything that was read back.
    pub digest: u64,
}

impl Outcome {
    /// Right results and not a word from any check; else what is wrong, in full.
    pub fn clean(&self) -> Result<(), String> {
        let found = (self.reports.iter().map(Report::to_string))
            .chain(self.result.as_ref().err().map(Failure::to_string));
        match found.take(3).collect::<Vec<_>>() {
            none if none.is_empty() => Ok(()),
            some => Err(some.join("\n")),
        }
    }
}

/// A machine with the PTX of a case, or a changed one, loaded on each device. Many runs may follow one
/// another, until one faults.
pub struct Rig {
    machine: Machine,
    modules: Vec<Module>,
}

impl Rig {
    /// Makes the machine, with peer access everywhere, and loads the text.
    ///
    /// # Errors
    /// The text does not load.
    pub fn new(ptx: &str, config: Config) -> Result<Self, Error> {
        let machine = Machine::new(config)?;
        let devices = machine.device_count();
        for device in 0..devices {
            for peer in (0..devices).filter(|&peer| peer != device) {
                machine.enable_peer(device, peer)?;
            }
        }
        let modules = (0..devices)
            .map(|device| machine.load(device, ptx))
            .collect::<Result<_, _>>()?;
        Ok(Self { machine, modules })
    }

    /// The machine of a case as it is.
    pub fn of(case: &Case) -> Self {
        Self::new(case.ptx, case.config()).unwrap_or_else(|e| panic!("{}: {e}", case.name))
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The module on device 0.
    pub fn module(&self) -> &Module {
        &self.modules[0]
    }

    /// Runs a size of a case. Two runs with the same seed on new rigs are the same.
    pub fn run(&self, case: &Case, size: usize, seed: u64) -> Outcome {
        let run = self.start(seed);
        let mut result = (case.check)(&run, size);
        let digest = run.digest.get();
        let finished = run.finish();
        if result.is_ok() {
            result = finished.map_err(Failure::from);
        }
        let mut reports = self.machine.take_reports();
        reports.extend(self.machine.check_leaks());
        Outcome {
            result,
            reports,
            launches: self.machine.take_launches(),
            digest,
        }
    }

    /// A run by hand, for what no case does.
    pub fn start(&self, seed: u64) -> Run<'_> {
        Run {
            rig: self,
            seed,
            launches: Cell::new(0),
            owned: RefCell::default(),
            streams: RefCell::default(),
            digest: Cell::new(0),
        }
    }
}

/// A run of a case under way: what it allocates and starts ends with it. Memory and launches are on
/// device 0 where none is named.
pub struct Run<'a> {
    rig: &'a Rig,
    seed: u64,
    launches: Cell<u64>,
    owned: RefCell<Vec<u64>>,
    streams: RefCell<Vec<Stream>>,
    digest: Cell<u64>,
}

impl Run<'_> {
    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.rig.machine
    }

    /// Decides data and schedule.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The data's random numbers, from their start.
    pub fn random(&self) -> Random {
        Random::new(self.seed)
    }

    /// Memory that nobody has written. Kernels write all of their outputs; reading back what they have
    /// not written differs from the reference.
    pub fn alloc<T>(&self, len: usize) -> Result<u64, Failure> {
        self.alloc_on::<T>(0, len)
    }

    /// As [`Self::alloc`].
    pub fn alloc_on<T>(&self, device: u32, len: usize) -> Result<u64, Failure> {
        // Kernels get a pointer also where there is nothing.
        let bytes = (len * size_of::<T>()).max(1);
        let ptr = self.rig.machine.alloc(device, bytes as u64)?;
        self.owned.borrow_mut().push(ptr);
        Ok(ptr)
    }

    /// Memory with these values.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<u64, Failure> {
        self.upload_on(0, values)
    }

    /// As [`Self::upload`].
    pub fn upload_on<T: Pod>(&self, device: u32, values: &[T]) -> Result<u64, Failure> {
        let ptr = self.alloc_on::<T>(device, values.len())?;
        if !values.is_empty() {
            let bytes = bytemuck::cast_slice(values);
            self.rig.machine.write(ptr, bytes)?;
        }
        Ok(ptr)
    }

    /// Waits for the default stream and reads.
    pub fn read<T: Pod + Zeroable>(&self, ptr: u64, len: usize) -> Result<Vec<T>, Failure> {
        let mut values = vec![T::zeroed(); len];
        if len > 0 {
            let bytes = bytemuck::cast_slice_mut(&mut values);
            self.rig.machine.read(ptr, bytes)?;
            let mut hasher = DefaultHasher::new();
            (self.digest.get(), &*bytes).hash(&mut hasher);
            self.digest.set(hasher.finish());
        }
        Ok(values)
    }

    /// A stream that runs beside all others.
    pub fn stream_on(&self, device: u32) -> Result<Stream, Failure> {
        let flags = StreamFlags {
            non_blocking: true,
            ..StreamFlags::default()
        };
        let stream = self.rig.machine.stream(device, flags)?;
        self.streams.borrow_mut().push(stream);
        Ok(stream)
    }

    /// Launches on the default stream.
    pub fn launch(
        &self,
        entry: &str,
        config: &LaunchConfig,
        params: &Params,
    ) -> Result<(), Failure> {
        let stream = self.rig.machine.default_stream(0)?;
        self.launch_on(stream, entry, config, params)
    }

    /// Launches on a stream.
    pub fn launch_on(
        &self,
        stream: Stream,
        entry: &str,
        config: &LaunchConfig,
        params: &Params,
    ) -> Result<(), Failure> {
        let function = self.rig.modules[stream.device() as usize].function(entry)?;
        function.set_max_dynamic_shared(config.dynamic_shared)?;
        let number = self.launches.replace(self.launches.get() + 1);
        let config = LaunchConfig {
            seed: Some(Random::new(self.seed ^ number << 32).next()),
            ..*config
        };
        Ok((self.rig.machine).launch(stream, &function, &config, params.as_bytes())?)
    }

    /// Waits for everything and frees it.
    fn finish(self) -> Result<(), Error> {
        let machine = &self.rig.machine;
        for stream in self.streams.into_inner() {
            machine.synchronize(stream)?;
            machine.destroy_stream(stream)?;
        }
        (self.owned.into_inner())
            .into_iter()
            .try_for_each(|ptr| machine.free(ptr))
    }
}
