//! `tollgate vgpu`: runs and checks PTX on a virtual GPU.
//!
//! - [`args`], [`groups`]: the command line; [`arg`], [`buffer`], [`map`], [`place`], [`element`]: its
//!   arguments.
//! - [`plan`]: what it asks for; [`session`]: one run of it; [`run`]: all runs, compared.
//! - [`text`], [`counters`], [`excerpt`]: the report; [`json`]: the same for programs.
//! - [`ops`]: the opcodes of a file.

pub mod arg;
pub mod args;
pub mod buffer;
pub mod counters;
pub mod element;
pub mod excerpt;
pub mod groups;
pub mod json;
pub mod map;
pub mod ops;
pub mod place;
pub mod plan;
pub mod run;
pub mod session;
pub mod text;

use std::path::Path;

use tollgate_vgpu::ptx::SyntaxError;

pub use args::VgpuCommand;

use crate::error::{Failure, Result};
use crate::report::Style;

/// What the command says at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// For standard output.
    pub text: String,
    /// Whether a check found something, or an opcode is not supported: exit code 3.
    pub fired: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input.
pub fn execute(command: &VgpuCommand, style: Style) -> Result<Done> {
    match command {
        VgpuCommand::Run(args) => run::run(args, style),
        VgpuCommand::Ops(args) => ops::run(args, style),
    }
}

/// The text of a PTX file.
fn read_ptx(file: &Path) -> Result<String> {
    let advice = "give a PTX file, as 'nvcc -ptx' writes it";
    let shown = || file.display().to_string();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::file(shown(), format!("cannot read it: {error}"), advice))?;
    let binary = [&b"\x7fELF"[..], &[0x50, 0xed, 0x55, 0xba]];
    if binary.iter().any(|magic| bytes.starts_with(magic)) {
        return Err(Failure::file(shown(), "it holds machine code", advice));
    }
    String::from_utf8(bytes).map_err(|_| Failure::file(shown(), "it is not text", advice))
}

/// An error of a PTX text on one line.
fn quoted(line: u32, message: &str, text: &str) -> String {
    match text.is_empty() {
        true => format!("PTX line {line}: {message}"),
        false => format!("PTX line {line}: {message}: {text}"),
    }
}

fn syntax(file: &Path, error: &SyntaxError) -> Failure {
    let problem = quoted(error.line, &error.message, &error.text);
    let advice = "'nvcc -ptx' writes what can be read";
    Failure::file(file.display().to_string(), problem, advice)
}
