//! Repository chores; `cargo xtask help` lists them.

#![forbid(unsafe_code)]

mod ci;
mod deps;
mod report;
mod vgpu_kernels;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  deps                check who depends on whom, from `cargo metadata`
  ci [--keep-going]   run every check of continuous integration, in order
  check-report        check the JSON report of `tollgate run` on standard input
  vgpu-kernels [--check]
                      compile the PTX of the virtual GPU's tests (or check that it is what its
                      sources compile to) and assemble it; installs the compiler into target/cuda
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["deps"] => deps::run(&root()),
        ["ci"] => ci::run(&root(), ci::OnFailure::Stop),
        ["ci", "--keep-going"] => ci::run(&root(), ci::OnFailure::KeepGoing),
        ["check-report"] => std::io::read_to_string(std::io::stdin())
            .map_err(|e| format!("standard input: {e}"))
            .and_then(|text| report::check(&text)),
        ["vgpu-kernels"] => vgpu_kernels::run(&root(), vgpu_kernels::OnDifference::Write),
        ["vgpu-kernels", "--check"] => vgpu_kernels::run(&root(), vgpu_kernels::OnDifference::Fail),
        [] | ["help" | "--help" | "-h"] => Ok(USAGE.trim_end().to_owned()),
        _ => {
            eprint!("unknown command '{}'\n\n{USAGE}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root: two folders above this package.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_owned()
}
