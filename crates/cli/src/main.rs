//! The `tollgate` command. Exit code 0, or 2 with one line on standard error; 3 when the checks of the
//! virtual GPU found something.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tollgate_cli::args::{Cli, Command};
use tollgate_cli::error::{Failure, one_line};
use tollgate_cli::report::Style;
use tollgate_cli::{compare, curriculum, devices, run, vgpu};

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let style = Style::of_stdout();
    let printed = match &cli.command {
        Some(Command::Run(args)) => run::run(args, style),
        Some(Command::Compare(args)) => compare::run(args, style),
        Some(Command::Curriculum(args)) => curriculum::run(args, style),
        Some(Command::Devices(args)) => devices::run(args, style),
        Some(Command::Vgpu { command }) => return check(command, style),
        None => Ok(String::new()),
    };
    match printed {
        Ok(text) => print(&text, ExitCode::SUCCESS),
        Err(failure) => fail(&failure),
    }
}

/// The command whose exit code tells whether anything was found.
fn check(command: &vgpu::VgpuCommand, style: Style) -> ExitCode {
    match vgpu::execute(command, style) {
        Ok(done) => print(&done.text, ExitCode::from(if done.fired { 3 } else { 0 })),
        Err(failure) => fail(&failure),
    }
}

/// The command line; nothing but the name means `run`.
fn parse() -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse()?;
    match cli.command {
        Some(_) => Ok(cli),
        None => Cli::try_parse_from(["tollgate", "run"]),
    }
}

/// Help and version, or what is wrong with the command line in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A pipe that is closed needs no help.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            let text = error.render().to_string();
            let useful = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
                .collect::<Vec<_>>()
                .join(" ");
            let useful = useful.strip_prefix("error: ").unwrap_or(&useful);
            let command = match std::env::args().nth(1).as_deref() {
                Some("vgpu") => "vgpu run",
                _ => "run",
            };
            complain(&format!(
                "{useful}; see 'tollgate --help' and 'tollgate {command} --help'"
            ))
        }
    }
}

fn fail(failure: &Failure) -> ExitCode {
    complain(&failure.to_string());
    ExitCode::from(failure.exit_code())
}

fn complain(text: &str) -> ExitCode {
    // There is nobody to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "error: {}", one_line(text));
    ExitCode::from(2)
}

/// Prints the result and ends with `code`; a reader that stops early (`| head`) is no error.
fn print(text: &str, code: ExitCode) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => code,
        Err(error) => complain(&format!("cannot write to standard output: {error}")),
    }
}
