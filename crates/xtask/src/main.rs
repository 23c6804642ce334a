//! Repository chores; `cargo xtask help` lists them.

#![forbid(unsafe_code)]

mod ci;
mod cuda;
mod deps;
mod driver_tests;
mod files;
mod gpu;
mod kernels;
mod program;
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
  kernels [--only NAME | --check]
                      compile the sources under kernels/ that have changed into kernels/prebuilt
                      (one of them; or check that everything there is what its source compiles to);
                      installs the compiler into target/cuda
  driver-tests        run the GPU tests through the CUDA driver's interface, on the virtual GPU's
                      driver library
  gpu-bundle [--out FILE]
                      build the GPU tests and benchmarks into one archive, for a machine with a GPU
                      and without cargo; the run.sh inside says how to use it
  gpu-record DIR      turn the results that such a run.sh wrote into a page of docs/measurements
  vgpu-kernels [--check]
                      compile the PTX of the virtual GPU's tests (or check that it is what its
                      sources compile to) and assemble it
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
        ["kernels"] => kernels::run(&root(), kernels::Task::Write(None)),
        ["kernels", "--only", name] => kernels::run(&root(), kernels::Task::Write(Some(name))),
        ["kernels", "--check"] => kernels::run(&root(), kernels::Task::Check),
        ["driver-tests"] => driver_tests::run(&root()),
        ["gpu-bundle"] => gpu::bundle::run(&root(), None),
        ["gpu-bundle", "--out", file] => gpu::bundle::run(&root(), Some(file)),
        ["gpu-record", folder] => gpu::record::run(&root(), folder),
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
