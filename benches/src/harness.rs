//! A family of benchmarks: criterion does the sampling, a table follows each operation.
//!
//! Ids are `op/shape/dtype/impl`. A benchmark's set-up (data, one checked run) happens when it is
//! about to be timed, so that what a filter leaves out costs nothing, and nothing is timed that has
//! not been checked. The limits are measured before the first benchmark and again before each
//! table; the better value of each counts.

use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use tollgate::Cpu;

use crate::limits::Limits;
use crate::load::{Ticks, foreign_cores};
use crate::table::{Row, render};
use crate::work::Work;

/// How large the shapes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scale {
    /// Everything shrunk: `cargo test` runs each benchmark once, to see that it works.
    Smoke,
    /// What a small machine does in a few minutes.
    Default,
    /// All shapes of the papers.
    Full,
}

impl Scale {
    /// From the arguments that cargo passes and from `TOLLGATE_BENCH`.
    fn choose(arguments: &[String], variable: Option<&str>) -> Result<Self, String> {
        if !measures(arguments) {
            return Ok(Self::Smoke);
        }
        match variable {
            None | Some("" | "default") => Ok(Self::Default),
            Some("smoke") => Ok(Self::Smoke),
            Some("full") => Ok(Self::Full),
            Some(other) => Err(format!(
                "TOLLGATE_BENCH is '{other}', expected one of default, full, smoke"
            )),
        }
    }
}

/// Whether cargo asks for measurements, and not for one run of each benchmark as a test.
fn measures(arguments: &[String]) -> bool {
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    has("--bench") && !has("--test")
}

/// Samples of each benchmark: criterion's minimum. A sample holds as many iterations as fit its
/// share of the time.
const SAMPLES: usize = 10;

/// The benchmarks of one operation crate.
pub struct Family {
    criterion: Criterion,
    cpu: Cpu,
    scale: Scale,
    measuring: bool,
    limits: Option<Limits>,
    tables: Vec<(String, Vec<Row>)>,
}

impl Family {
    /// A family, configured by the command line and by `TOLLGATE_BENCH` and
    /// `TOLLGATE_BENCH_THREADS` (default: all cores).
    ///
    /// Exits with a message if a variable makes no sense.
    pub fn from_args() -> Self {
        let exit = |message: String| -> ! {
            eprintln!("error: {message}");
            std::process::exit(2)
        };
        let arguments: Vec<String> = std::env::args().collect();
        let variable = std::env::var("TOLLGATE_BENCH").ok();
        let scale = Scale::choose(&arguments, variable.as_deref()).unwrap_or_else(|e| exit(e));
        let cpu = match std::env::var("TOLLGATE_BENCH_THREADS") {
            Err(_) => Cpu::all_cores().map_err(|e| e.to_string()),
            Ok(text) => match text.parse() {
                Ok(threads) => Cpu::new(threads).map_err(|e| e.to_string()),
                Err(_) => Err(format!(
                    "TOLLGATE_BENCH_THREADS is '{text}', must be a number"
                )),
            },
        };
        Self {
            criterion: Criterion::default()
                .without_plots()
                .warm_up_time(Duration::from_millis(300))
                .measurement_time(Duration::from_millis(1000))
                .nresamples(10_000)
                .configure_from_args(),
            cpu: cpu.unwrap_or_else(|e| exit(e)),
            scale,
            measuring: measures(&arguments),
            limits: None,
            tables: Vec::new(),
        }
    }

    /// The threads that are measured.
    pub fn cpu(&self) -> Cpu {
        self.cpu.clone()
    }

    /// The size of the shapes.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Whether what is counted on the virtual GPU is to be printed as well: in a test, and where a
    /// benchmark of the family was measured, so that a filter leaves it out with the rest.
    pub fn wants_counters(&self) -> bool {
        self.scale == Scale::Smoke || !self.tables.is_empty()
    }

    /// The benchmarks of one operation; the name begins with the family's.
    pub fn op(&mut self, name: &str) -> Op<'_> {
        let mut group = self.criterion.benchmark_group(name);
        group.sample_size(SAMPLES).sampling_mode(SamplingMode::Flat);
        Op {
            name: name.to_owned(),
            group,
            cpu: &self.cpu,
            measuring: self.measuring,
            limits: &mut self.limits,
            tables: &mut self.tables,
            rows: Vec::new(),
        }
    }

    /// Prints all tables once more, together, with the limits that their shares refer to.
    pub fn finish(self) {
        let Some(limits) = self.limits else {
            return;
        };
        println!("{}\n{limits}", "=".repeat(100));
        for (op, rows) in &self.tables {
            println!("{}", render(op, rows, &limits));
        }
        if self.scale < Scale::Full {
            println!("TOLLGATE_BENCH=full adds the largest shapes of the papers.\n");
        }
        self.criterion.final_summary();
    }
}

/// One operation: a group of benchmarks that are compared with each other.
pub struct Op<'a> {
    name: String,
    group: BenchmarkGroup<'a, WallTime>,
    cpu: &'a Cpu,
    measuring: bool,
    limits: &'a mut Option<Limits>,
    tables: &'a mut Vec<(String, Vec<Row>)>,
    rows: Vec<Row>,
}

impl Op<'_> {
    /// Times what `setup` returns, under the id `op/shape/dtype/implementation`. `setup` prepares
    /// data, runs once and asserts that the result is right.
    pub fn bench<W: FnMut()>(
        &mut self,
        shape: &str,
        dtype: &str,
        implementation: &str,
        work: Work,
        setup: impl FnOnce() -> W,
    ) {
        let id = format!("{shape}/{dtype}/{implementation}");
        let mut setup = Some(setup);
        let mut routine = None;
        // Every value that criterion is given, warm-up included.
        let mut samples = Vec::new();
        self.group.throughput(work.throughput());
        self.group.bench_function(&id, |bencher| {
            if let Some(setup) = setup.take() {
                if self.measuring {
                    self.limits.get_or_insert_with(|| Limits::measure(self.cpu));
                }
                routine = Some(setup());
            }
            let Some(routine) = routine.as_mut() else {
                return;
            };
            bencher.iter_custom(|iterations| {
                let before = Ticks::now();
                let start = Instant::now();
                for _ in 0..iterations {
                    routine();
                }
                let elapsed = start.elapsed();
                let span = Ticks::now().zip(before).map(|(now, then)| now.since(&then));
                samples.push((elapsed.as_secs_f64() / iterations as f64, span));
                elapsed
            });
        });
        // The warm-up comes first: the last values are the measurement.
        let samples = samples.split_off(samples.len().saturating_sub(SAMPLES));
        if samples.is_empty() {
            return;
        }
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let spans: Vec<Ticks> = samples.iter().filter_map(|(_, span)| *span).collect();
        self.rows.push(Row {
            id,
            work,
            samples: samples.iter().map(|(seconds, _)| *seconds).collect(),
            foreign_cores: foreign_cores(&spans, cores),
        });
    }

    /// Prints the operation's table.
    pub fn finish(self) {
        self.group.finish();
        let Some(limits) = self.limits else {
            return;
        };
        if self.rows.is_empty() {
            return;
        }
        *limits = limits.better(&Limits::measure(self.cpu));
        println!("{}", render(&self.name, &self.rows, limits));
        self.tables.push((self.name, self.rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_follows_cargo_and_the_variable() {
        let args = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let bench = args(&["x", "--bench"]);
        let choose = |arguments: &[String], variable| Scale::choose(arguments, variable).unwrap();
        assert_eq!(choose(&args(&["x"]), Some("full")), Scale::Smoke);
        assert_eq!(
            choose(&args(&["x", "--bench", "--test"]), None),
            Scale::Smoke
        );
        assert_eq!(choose(&bench, None), Scale::Default);
        assert_eq!(choose(&bench, Some("full")), Scale::Full);
        let error = Scale::choose(&bench, Some("all")).unwrap_err();
        assert!(error.contains("'all'") && error.contains("full"), "{error}");
    }
}
