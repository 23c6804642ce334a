//! One runner for every implementation: shared cases, each implementation plugs in a closure.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Case;

/// Runs `check` for every implementation on every case and panics once, at the end, with the list
/// of all failures by implementation and case name.
#[track_caller]
pub fn run_all<I>(
    operation: &str,
    cases: &[Case],
    implementations: &[(&str, I)],
    mut check: impl FnMut(&Case, &I),
) {
    assert!(
        !cases.is_empty() && !implementations.is_empty(),
        "{operation}: nothing to run"
    );
    let mut failures = Vec::new();
    for (name, implementation) in implementations {
        for case in cases {
            let outcome = catch_unwind(AssertUnwindSafe(|| check(case, implementation)));
            if let Err(panic) = outcome {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_else(|| "panic without a message".to_owned());
                failures.push(format!("{operation} / {name} / {}: {text}", case.name));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} checks failed:\n{}",
        failures.len(),
        cases.len() * implementations.len(),
        failures.join("\n")
    );
}
