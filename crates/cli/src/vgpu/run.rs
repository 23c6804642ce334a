//! `tollgate vgpu run`: every seed asked for, what they found, and where their outputs differ.

use std::fmt::Write;
use std::path::Path;

use tollgate_vgpu::report::{Report, Site};

use super::args::RunArgs;
use super::element::Element;
use super::excerpt::Sources;
use super::plan::Plan;
use super::session::{self, Outcome};
use super::{Done, json, read_ptx, text};
use crate::error::{Failure, Result};
use crate::out::writable;
use crate::progress::Progress;
use crate::report::Style;

/// One thing that was found, and the seeds that found it.
#[derive(Debug)]
pub struct Finding {
    /// As the first of them found it.
    pub report: Report,
    /// The seeds, in order.
    pub seeds: Vec<u64>,
}

/// A buffer that ended with other bytes under another seed.
#[derive(Debug)]
pub struct Difference {
    /// Index in the plan.
    pub buffer: usize,
    /// The first seed that differs.
    pub seed: u64,
    /// The first element that differs, its bits under the first seed and under this one.
    pub element: usize,
    /// Bits under the first seed.
    pub before: u64,
    /// Bits under the other.
    pub after: u64,
    /// Seeds that differ from the first.
    pub seeds: usize,
}

/// Everything that a report says.
#[derive(Debug)]
pub struct Runs<'a> {
    /// The command line.
    pub args: &'a RunArgs,
    /// What it asks for.
    pub plan: &'a Plan<'a>,
    /// Of the first seed.
    pub first: Outcome,
    /// What was found, in the order of the seeds.
    pub findings: Vec<Finding>,
    /// Seeds that found something.
    pub fired: Vec<u64>,
    /// Buffers whose contents depend on the seed.
    pub differences: Vec<Difference>,
}

/// Runs the command.
///
/// # Errors
/// Bad input. What the checks find is no error.
pub fn run(args: &RunArgs, style: Style) -> Result<Done> {
    if args.seed.checked_add(u64::from(args.seeds)).is_none() {
        return Err(Failure::Usage("--seed is too large for --seeds".to_owned()));
    }
    for (_, path) in &args.outputs {
        writable(path)?;
    }
    let ptx = read_ptx(&args.file)?;
    let plan = Plan::new(args, &ptx)?;
    let progress = Progress::start("running on the virtual GPU (--threads, --check none: faster)");
    let runs = all(args, &plan)?;
    drop(progress);
    for (name, path) in &args.outputs {
        let index = plan.find(name).map_err(Failure::Usage)?;
        let element = plan.buffers[index].buffer.element;
        // After a fault there is nothing to write; the report says so.
        if let Some(bytes) = &runs.first.buffers[index] {
            write(path, element, bytes)?;
        }
    }
    Ok(Done {
        fired: !runs.findings.is_empty(),
        text: match args.json {
            true => json::runs(&runs),
            false => text::runs(&runs, &Sources::new(&args.file, &ptx), style),
        },
    })
}

fn all<'a>(args: &'a RunArgs, plan: &'a Plan<'a>) -> Result<Runs<'a>> {
    let mut runs = Runs {
        args,
        plan,
        first: session::run(plan, args.seed)?,
        findings: Vec::new(),
        fired: Vec::new(),
        differences: Vec::new(),
    };
    let reports = std::mem::take(&mut runs.first.reports);
    runs.note(args.seed, reports);
    for seed in (args.seed + 1)..(args.seed + u64::from(args.seeds)) {
        let mut outcome = session::run(plan, seed)?;
        runs.note(seed, std::mem::take(&mut outcome.reports));
        runs.compare(&outcome);
    }
    Ok(runs)
}

impl Runs<'_> {
    fn note(&mut self, seed: u64, reports: Vec<Report>) {
        if !reports.is_empty() {
            self.fired.push(seed);
        }
        for report in reports {
            let known = self.findings.iter_mut().find(|f| same(&f.report, &report));
            match known {
                Some(finding) if finding.seeds.last() == Some(&seed) => {}
                Some(finding) => finding.seeds.push(seed),
                None => self.findings.push(Finding {
                    report,
                    seeds: vec![seed],
                }),
            }
        }
    }

    fn compare(&mut self, other: &Outcome) {
        let both = self.first.buffers.iter().zip(&other.buffers).enumerate();
        for (index, (before, after)) in both {
            let (Some(before), Some(after)) = (before, after) else {
                continue;
            };
            if before == after {
                continue;
            }
            if let Some(known) = self.differences.iter_mut().find(|d| d.buffer == index) {
                known.seeds += 1;
                continue;
            }
            let element = self.plan.buffers[index].buffer.element;
            let pairs = element.bits_of(before).zip(element.bits_of(after));
            let first = pairs.enumerate().find(|(_, (a, b))| a != b);
            if let Some((place, (before, after))) = first {
                self.differences.push(Difference {
                    buffer: index,
                    seed: other.seed,
                    element: place,
                    before,
                    after,
                    seeds: 1,
                });
            }
        }
    }
}

/// Whether two schedules found the same: the lines are the same, threads and values may not be. Which
/// access of a race comes first is the schedule's.
fn same(a: &Report, b: &Report) -> bool {
    let line = |site: Option<&Site>| site.map_or(0, |site| site.ptx_line);
    let lines = |report: &Report| {
        let mut lines = [line(Some(&report.site)), line(report.other.as_ref())];
        lines.sort_unstable();
        lines
    };
    let placeless = a.site.ptx_line == 0;
    a.kind == b.kind
        && a.kernel == b.kernel
        && a.device == b.device
        && lines(a) == lines(b)
        && (!placeless || a.message == b.message)
}

fn write(path: &Path, element: Element, bytes: &[u8]) -> Result<()> {
    let text = path.extension().is_some_and(|extension| extension == "txt");
    let written = match text {
        false => std::fs::write(path, bytes),
        true => {
            let mut lines = String::new();
            for bits in element.bits_of(bytes) {
                let _ = writeln!(lines, "{}", element.show(bits));
            }
            std::fs::write(path, lines)
        }
    };
    written.map_err(|error| Failure::write(path, error))
}
