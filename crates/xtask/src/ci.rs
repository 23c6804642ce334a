//! Every check of continuous integration, in order, each with its time.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{deps, driver_tests, kernels, report, vgpu_kernels};

/// What to do when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Leave the later steps out.
    Stop,
    /// Run them all the same.
    KeepGoing,
}

/// One check.
struct Step {
    title: &'static str,
    action: Action,
}

enum Action {
    /// `cargo` with these arguments and environment variables; a non-zero exit is a failure.
    Cargo(&'static str, &'static [(&'static str, &'static str)]),
    /// As `Cargo`, and standard output, which is shown too, must pass the check.
    Output(&'static str, fn(&str) -> Result<String, String>),
    /// A check inside this program, and the command that runs it alone.
    Own(&'static str, fn(&Path) -> Result<String, String>),
}

use Action::{Cargo, Output, Own};

/// README's command for the main job, without `cargo`.
const RUN: &str = "run --release";
/// README's command for the tests, without `cargo`.
const TEST: &str = "test --workspace";

const STEPS: &[Step] = &[
    Step {
        title: "format",
        action: Cargo("fmt --all --check", &[]),
    },
    Step {
        title: "clippy",
        action: Cargo("clippy --workspace --all-targets -- -D warnings", &[]),
    },
    Step {
        title: "documentation",
        action: Cargo(
            "doc --workspace --no-deps",
            &[("RUSTDOCFLAGS", "-D warnings")],
        ),
    },
    Step {
        title: "dependency directions",
        action: Own("deps", deps::run),
    },
    Step {
        title: "kernels' PTX",
        action: Own("kernels --check", |root| {
            kernels::run(root, kernels::Task::Check)
        }),
    },
    Step {
        title: "virtual GPU's test PTX",
        action: Own("vgpu-kernels --check", |root| {
            vgpu_kernels::run(root, vgpu_kernels::OnDifference::Fail)
        }),
    },
    Step {
        title: "tests (README)",
        action: Cargo(TEST, &[]),
    },
    Step {
        title: "GPU tests through the CUDA driver's interface",
        action: Own("driver-tests", driver_tests::run),
    },
    Step {
        title: "main job (README)",
        action: Output(RUN, table_is_printed),
    },
    Step {
        title: "JSON report",
        action: Output(
            "run --release -q -- run --router adaptive:0.1 --backward --json",
            report::check,
        ),
    },
];

/// The outcome of a step; `None` was not run.
type Outcome = Option<(Duration, Result<String, String>)>;

/// Runs all steps at `root` and prints a table of them.
///
/// # Errors
/// How many steps failed.
pub fn run(root: &Path, on_failure: OnFailure) -> Result<String, String> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(STEPS.len());
    let mut failed = 0;
    for (i, step) in STEPS.iter().enumerate() {
        if failed > 0 && on_failure == OnFailure::Stop {
            outcomes.push(None);
            continue;
        }
        println!(
            "\n==== {}/{} {}: {}",
            i + 1,
            STEPS.len(),
            step.title,
            step.command()
        );
        let start = Instant::now();
        let result = step.run(root);
        match &result {
            Ok(message) if message.is_empty() => {}
            Ok(message) => println!("{message}"),
            Err(message) => {
                failed += 1;
                eprintln!("error: {message}");
            }
        }
        outcomes.push(Some((start.elapsed(), result)));
    }
    print!("\n{}", summary(&outcomes));
    match failed {
        0 => Ok(format!("all {} checks passed", STEPS.len())),
        _ => Err(format!("{failed} of {} checks failed", STEPS.len())),
    }
}

impl Step {
    /// What a person would type.
    fn command(&self) -> String {
        match self.action {
            Cargo(arguments, environment) => environment
                .iter()
                .map(|(key, value)| format!("{key}='{value}' "))
                .chain([format!("cargo {arguments}")])
                .collect(),
            Output(arguments, _) => format!("cargo {arguments}"),
            Own(command, _) => format!("cargo xtask {command}"),
        }
    }

    fn run(&self, root: &Path) -> Result<String, String> {
        match self.action {
            Cargo(arguments, environment) => {
                let status = cargo(root, arguments)
                    .envs(environment.iter().copied())
                    .status()
                    .map_err(|e| e.to_string())?;
                if status.success() {
                    Ok(String::new())
                } else {
                    Err(status.to_string())
                }
            }
            Output(arguments, check) => {
                let output = cargo(root, arguments)
                    .stderr(Stdio::inherit())
                    .output()
                    .map_err(|e| e.to_string())?;
                let text = String::from_utf8(output.stdout).map_err(|e| e.to_string())?;
                println!("{}", text.trim_end());
                if !output.status.success() {
                    return Err(output.status.to_string());
                }
                check(&text)
            }
            Own(_, check) => check(root),
        }
    }
}

fn cargo(root: &Path, arguments: &str) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).current_dir(root);
    command
}

/// The main job's table speaks of experts, tokens and times, and has a line for each of 16 experts.
fn table_is_printed(text: &str) -> Result<String, String> {
    for word in ["expert", "token", "ms"] {
        if !text.contains(word) {
            return Err(format!("the main job printed nothing about '{word}'"));
        }
    }
    match text.lines().count() {
        lines if lines >= 16 => Ok(format!("main job: a table of {lines} lines")),
        lines => Err(format!(
            "the main job printed {lines} lines, fewer than one per expert"
        )),
    }
}

/// One line a step: verdict, seconds, title.
fn summary(outcomes: &[Outcome]) -> String {
    STEPS
        .iter()
        .zip(outcomes)
        .map(|(step, outcome)| match outcome {
            None => format!("not run         -  {}\n", step.title),
            Some((time, result)) => format!(
                "{:<7} {:>7.1} s  {}\n",
                if result.is_ok() { "passed" } else { "FAILED" },
                time.as_secs_f64(),
                step.title
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_the_commands_that_are_run_here() {
        let readme = std::fs::read_to_string(crate::root().join("README.md")).unwrap();
        for command in [RUN, TEST] {
            let line = format!("cargo {command}");
            assert!(
                readme.lines().any(|l| l == line),
                "README.md has no line '{line}'"
            );
        }
    }

    #[test]
    fn a_failing_command_fails_and_says_how() {
        let step = Step {
            title: "nonsense",
            action: Cargo("no-such-subcommand", &[]),
        };
        assert!(step.run(&crate::root()).unwrap_err().contains("exit"));
        let step = Step {
            title: "check",
            action: Output("--version", |_| Err("no".into())),
        };
        assert_eq!(step.run(&crate::root()), Err("no".into()));
        let step = Step {
            title: "exit",
            action: Output("no-such-subcommand", |_| Ok("".into())),
        };
        assert!(step.run(&crate::root()).unwrap_err().contains("exit"));
    }

    #[test]
    fn the_summary_tells_passed_failed_and_not_run() {
        let second = Duration::from_millis(1500);
        let text = summary(&[
            Some((second, Ok("".into()))),
            Some((second, Err("".into()))),
            None,
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "passed      1.5 s  format");
        assert_eq!(lines[1], "FAILED      1.5 s  clippy");
        assert_eq!(lines[2], "not run         -  documentation");
    }

    #[test]
    fn an_empty_main_job_is_not_a_table() {
        assert!(table_is_printed("").is_err());
        assert!(table_is_printed("expert token ms").is_err());
        assert!(table_is_printed(&"expert token ms\n".repeat(16)).is_ok());
    }
}
