//! Mistakes put into the kernels of `kernels/`, one at a time: each must be reported, as what it
//! is.
//!
//! Wrong results do not count: a mutant is killed by a report of the kind that its list names,
//! about the kernel that was changed. `kernels.rs` shows that the kernels as they are get no
//! report.

mod common;
#[path = "mutants/edit.rs"]
mod edit;
#[path = "mutants/hopper.rs"]
mod hopper;
#[path = "mutants/products.rs"]
mod products;
#[path = "mutants/rings.rs"]
mod rings;
#[path = "mutants/routing.rs"]
mod routing;
#[path = "mutants/warps.rs"]
mod warps;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Instant;

use common::{Case, Failure, Outcome, Rig, cases, spread};
use edit::Edit;
use tollgate_vgpu::host::{Config, Error};
use tollgate_vgpu::report::{Kind, Report};

/// A mistake.
pub struct Mutant {
    /// In words, unique among those of its kernel.
    what: &'static str,
    /// What the reports must say.
    kind: Kind,
    edits: &'static [Edit],
}

/// A mistake, what it is reported as, and the edits that make it.
const fn mutant(what: &'static str, kind: Kind, edits: &'static [Edit]) -> Mutant {
    Mutant { what, kind, edits }
}

/// The mutants of one entry.
pub struct Kernel {
    /// The case that runs it.
    case: &'static str,
    entry: &'static str,
    mutants: &'static [Mutant],
}

/// The mutants of an entry that has a case of its own.
const fn kernel(case: &'static str, mutants: &'static [Mutant]) -> Kernel {
    Kernel {
        case,
        entry: case,
        mutants,
    }
}

const LISTS: [&[Kernel]; 5] = [
    routing::KERNELS,
    warps::KERNELS,
    rings::KERNELS,
    hopper::KERNELS,
    products::KERNELS,
];

/// Seeds that a mutant may take.
const SEEDS: u64 = 20;
/// Warp instructions after which a launch that does not end is given up. The longest case has fewer
/// by far.
const BUDGET: u64 = 1 << 18;

/// Everything that a run said, with the report that ended it.
fn reports(outcome: Outcome) -> Vec<Report> {
    let mut reports = outcome.reports;
    if let Err(Failure::Machine(Error::Faulted(report))) = outcome.result {
        reports.push(*report);
    }
    reports
}

/// The seed that kills a mutant, or what was seen instead.
fn judge(case: &Case, entry: &str, mutant: &Mutant) -> Result<u64, String> {
    let text = edit::apply(case.ptx, entry, mutant.edits)?;
    let mut seen = BTreeMap::new();
    for seed in 0..SEEDS {
        let config = Config {
            seed,
            budget: BUDGET,
            ..case.config()
        };
        let rig = Rig::new(&text, config).map_err(|e| format!("it does not load: {e}"))?;
        let reports = reports(rig.run(case, 0, seed));
        let kills = |report: &Report| report.kind == mutant.kind && report.kernel == entry;
        if reports.iter().any(kills) {
            return Ok(seed);
        }
        for report in reports {
            seen.entry(report.kind).or_insert(report);
        }
    }
    let seen: Vec<String> = seen.values().map(Report::to_string).collect();
    Err(format!(
        "wanted {:?}; seen: {}",
        mutant.kind,
        seen.join("\n")
    ))
}

#[test]
fn every_mutant_is_reported_as_what_it_is() {
    let start = Instant::now();
    let cases = cases();
    let mutants: Vec<(&Case, &Kernel, &Mutant)> = (LISTS.iter().copied().flatten())
        .flat_map(|kernel| kernel.mutants.iter().map(move |mutant| (kernel, mutant)))
        .map(|(kernel, mutant)| {
            let case = cases.iter().find(|case| case.name == kernel.case);
            let case = case.unwrap_or_else(|| panic!("there is no case {}", kernel.case));
            (case, kernel, mutant)
        })
        .collect();
    let verdicts = spread(&mutants, |(case, kernel, mutant)| {
        judge(case, kernel.entry, mutant)
    });

    // Past the capture of tests that pass: the count belongs to the output.
    let mut out = io::stdout().lock();
    let mut say = |line: String| writeln!(out, "{line}").expect("standard output");
    let mut alive = Vec::new();
    for ((_, kernel, mutant), verdict) in mutants.iter().zip(&verdicts) {
        let name = format!("{}, {}", kernel.entry, mutant.what);
        match verdict {
            Ok(0) => {}
            Ok(seed) => say(format!("mutant killed by seed {seed}: {name}")),
            Err(why) => alive.push(format!("{name}: {why}")),
        }
    }
    let (total, kernels) = (
        mutants.len(),
        LISTS.iter().map(|list| list.len()).sum::<usize>(),
    );
    say(format!(
        "mutants killed / total: {} / {total} (of {kernels} kernels, in {:.1} s)",
        total - alive.len(),
        start.elapsed().as_secs_f64()
    ));
    assert!(alive.is_empty(), "not killed:\n{}", alive.join("\n\n"));
    assert!(total >= 60 && kernels >= 12);
}

#[test]
fn mutants_are_named_once_and_differ() {
    let cases = cases();
    for kernel in LISTS.iter().copied().flatten() {
        let case = cases.iter().find(|case| case.name == kernel.case);
        let ptx = case.expect("the case exists").ptx;
        let mut names = BTreeSet::new();
        let mut texts = BTreeSet::from([edit::apply(ptx, kernel.entry, &[]).expect("no edit")]);
        for mutant in kernel.mutants {
            let text = edit::apply(ptx, kernel.entry, mutant.edits);
            let text = text.unwrap_or_else(|e| panic!("{}: {e}", mutant.what));
            assert!(names.insert(mutant.what), "{}", mutant.what);
            assert!(texts.insert(text), "{} changes nothing new", mutant.what);
        }
    }
}
