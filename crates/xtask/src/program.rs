//! Running other programs.

use std::process::{Command, ExitStatus};

/// What a program printed to both streams; a failure tells the command and what it printed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let (status, text) = output(command)?;
    if status.success() {
        Ok(text)
    } else {
        Err(format!("{command:?}: {status}\n{text}"))
    }
}

/// How a program ended, and what it printed to both streams.
pub fn output(command: &mut Command) -> Result<(ExitStatus, String), String> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let text = [output.stdout, output.stderr]
        .iter()
        .map(|stream| String::from_utf8_lossy(stream))
        .collect::<String>();
    Ok((output.status, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_or_is_absent_is_named() {
        let error = run(Command::new("cargo").arg("no-such-subcommand")).unwrap_err();
        assert!(error.contains("no-such-subcommand"), "{error}");
        let error = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.contains("no-such-program"), "{error}");
    }
}
