//! `tollgate vgpu ops`: what a PTX file uses, and what of it is not supported.

use std::fmt::Write;

use serde::Serialize;
use tollgate_vgpu::program::LoadError;
use tollgate_vgpu::program::survey::{Survey, survey};

use super::args::OpsArgs;
use super::{Done, read_ptx, syntax};
use crate::error::Result;
use crate::report::table::{Align, Table};
use crate::report::{Style, plural};

/// Lines of one opcode that are shown in the text.
const LINES_SHOWN: usize = 3;

/// Runs the command.
///
/// # Errors
/// A file that cannot be read or is not PTX.
pub fn run(args: &OpsArgs, style: Style) -> Result<Done> {
    let text = read_ptx(&args.file)?;
    let survey = survey(&text).map_err(|error| syntax(&args.file, &error))?;
    let file = args.file.display().to_string();
    Ok(Done {
        text: match args.json {
            true => json(&file, &survey),
            false => table(&file, &survey, style),
        },
        fired: !survey.is_supported(),
    })
}

fn table(file: &str, survey: &Survey, style: Style) -> String {
    let unsupported = survey.ops.values().filter(|op| !op.errors.is_empty());
    let (major, minor) = survey.version;
    let title = format!(
        "{file}: {}, {} not supported",
        plural(survey.ops.len(), "opcode"),
        unsupported.count()
    );
    let mut text = style.titled(
        &title,
        &format!("PTX {major}.{minor} for {}", survey.target),
    );
    let mut table = Table::new(&[
        ("opcode", Align::Left),
        ("count", Align::Right),
        ("", Align::Left),
    ]);
    for (name, op) in &survey.ops {
        let remark = match op.errors.is_empty() {
            true => String::new(),
            false => format!("not supported at {}", places(&op.errors)),
        };
        table.row([name.clone(), op.count.to_string(), remark]);
    }
    text.push('\n');
    text.push_str(&table.render(style));
    let errors = survey.ops.values().flat_map(|op| {
        // The same opcode is mostly refused for the same reason.
        let mut seen = Vec::new();
        op.errors.iter().filter(move |error| {
            let new = !seen.contains(&&error.message);
            seen.push(&error.message);
            new
        })
    });
    for (i, error) in errors.chain(&survey.other).enumerate() {
        let heading = if i == 0 { "\nWhy\n" } else { "" };
        let LoadError {
            line,
            text: quoted,
            message,
        } = error;
        let _ = writeln!(text, "{heading}  line {line}: {message}\n      {quoted}");
    }
    if !survey.unreached.is_empty() {
        let names = survey.unreached.join(", ");
        let _ = writeln!(
            text,
            "\nCounted but not decoded, as no entry calls them: {names}"
        );
    }
    text
}

fn places(errors: &[LoadError]) -> String {
    let mut lines: Vec<u32> = errors.iter().map(|error| error.line).collect();
    lines.dedup();
    let shown: Vec<String> = lines.iter().take(LINES_SHOWN).map(u32::to_string).collect();
    let more = match lines.len().saturating_sub(LINES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let word = if lines.len() == 1 { "line" } else { "lines" };
    format!("{word} {}{more}", shown.join(", "))
}

#[derive(Serialize)]
struct Listing<'a> {
    file: &'a str,
    version: String,
    target: &'a str,
    supported: bool,
    opcodes: Vec<Opcode<'a>>,
    other_errors: Vec<Refusal<'a>>,
    unreached_functions: &'a [String],
}

#[derive(Serialize)]
struct Opcode<'a> {
    opcode: &'a str,
    root: &'a str,
    count: u64,
    supported: bool,
    errors: Vec<Refusal<'a>>,
}

#[derive(Serialize)]
struct Refusal<'a> {
    line: u32,
    text: &'a str,
    message: &'a str,
}

fn json(file: &str, survey: &Survey) -> String {
    let listing = Listing {
        file,
        version: format!("{}.{}", survey.version.0, survey.version.1),
        target: &survey.target,
        supported: survey.is_supported(),
        opcodes: survey
            .ops
            .iter()
            .map(|(name, op)| Opcode {
                opcode: name,
                root: name.split('.').next().unwrap_or(name),
                count: op.count,
                supported: op.errors.is_empty(),
                errors: op.errors.iter().map(Refusal::of).collect(),
            })
            .collect(),
        other_errors: survey.other.iter().map(Refusal::of).collect(),
        unreached_functions: &survey.unreached,
    };
    super::json::pretty(&listing)
}

impl<'a> Refusal<'a> {
    fn of(error: &'a LoadError) -> Self {
        Self {
            line: error.line,
            text: &error.text,
            message: &error.message,
        }
    }
}
