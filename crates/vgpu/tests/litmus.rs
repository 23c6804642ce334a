//! Litmus tests of the memory model: in each of a thousand schedules, what is racy is reported as
//! what it is, and what is correct is silent and gives only results that PTX permits.
//!
//! Memory of the virtual GPU is sequentially consistent. So results that PTX permits to weaker
//! memory are never seen (both zero in store buffering without `fence.sc`); races are found by what
//! orders the accesses, not by their results.

#[path = "litmus/barriers.rs"]
mod barriers;
mod common;
#[path = "litmus/proxies.rs"]
mod proxies;
#[path = "litmus/scopes.rs"]
mod scopes;
#[path = "litmus/shape.rs"]
mod shape;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Instant;

use shape::{Apart, Litmus};
use tollgate_vgpu::report::Kind;

/// Schedules of each test.
const SCHEDULES: u64 = 1000;

/// A test in which nothing is wrong, with all results that may be seen.
fn silent<const N: usize>(
    name: &'static str,
    apart: Apart,
    threads: [String; N],
    outcomes: &[[u32; N]],
) -> Litmus {
    Litmus {
        name,
        apart,
        threads: threads.into(),
        report: None,
        outcomes: outcomes.iter().map(|outcome| outcome.to_vec()).collect(),
    }
}

/// A test that must be reported, in every schedule.
fn racy<const N: usize>(
    name: &'static str,
    apart: Apart,
    threads: [String; N],
    kind: Kind,
) -> Litmus {
    Litmus {
        name,
        apart,
        threads: threads.into(),
        report: Some(kind),
        outcomes: Vec::new(),
    }
}

/// Statements one after the other.
fn all(statements: &[&str]) -> String {
    statements.join("\n")
}

/// Polls with this load until the word is `value`. One such loop in a thread and an address.
fn until(load: &str, address: &str, value: u32) -> String {
    let label: String = address
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    format!(
        "{label}_~:\n{load} %poll, [{address}];\nsetp.ne.u32 %q, %poll, {value};\n@%q bra {label}_~;"
    )
}

#[test]
fn racy_programs_are_reported_and_correct_ones_silent() {
    let start = Instant::now();
    let tests = [scopes::tests(), barriers::tests(), proxies::tests()].concat();
    let names: BTreeSet<&str> = tests.iter().map(|test| test.name).collect();
    assert_eq!(names.len(), tests.len(), "a name is given twice");
    let seen = common::spread(&tests, |test| test.run(SCHEDULES));
    let mut wrong = Vec::new();
    for (test, seen) in tests.iter().zip(seen) {
        if let Some(words) = seen.wrong {
            wrong.push(format!("right in {} of {SCHEDULES}; {words}", seen.right));
        }
        let want: BTreeSet<Vec<u32>> = test.outcomes.iter().cloned().collect();
        // Of few results each has its turn in so many schedules.
        let all_seen = want.len() > 4 || want.is_subset(&seen.outcomes);
        let permitted = want.is_empty() || seen.outcomes.is_subset(&want);
        if !permitted || !all_seen {
            wrong.push(format!(
                "{}: results {:?}, wanted {want:?}",
                test.name, seen.outcomes
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    let racy = tests.iter().filter(|test| test.report.is_some()).count();
    // Past the capture of tests that pass.
    writeln!(
        io::stdout(),
        "litmus tests: {racy} racy reported, {} correct silent, in each of {SCHEDULES} schedules, in \
         {:.1} s",
        tests.len() - racy,
        start.elapsed().as_secs_f64()
    )
    .expect("standard output");
}
