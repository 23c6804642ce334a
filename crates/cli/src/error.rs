//! What the command says when it cannot go on: one line that names the problem and what to do next.

use std::path::Path;

use tollgate::{Error, device};

/// Why the command stopped; [`Failure::exit_code`] tells how it ends.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Options that make no sense together.
    #[error("{0}")]
    Usage(String),
    /// A file that cannot be used.
    #[error("{file}: {problem}; {advice}")]
    File {
        /// The file as the user named it.
        file: String,
        /// What is wrong, with value and bound.
        problem: String,
        /// What to do next.
        advice: String,
    },
    /// The library refused its input.
    #[error("{error}{}", hint(error))]
    Library {
        /// Its error, shown as it is.
        #[from]
        error: Error,
    },
    /// The checks of the virtual GPU found something in a kernel.
    #[error("{0}")]
    Found(String),
    /// Output could not be written.
    #[error("cannot write {file}: {reason}; choose another file or make room")]
    Write {
        /// Where to.
        file: String,
        /// What the system said.
        reason: String,
    },
}

/// The result of everything the command does.
pub type Result<T> = std::result::Result<T, Failure>;

impl From<device::Error> for Failure {
    fn from(error: device::Error) -> Self {
        match error {
            device::Error::Checks { .. } => Self::Found(error.to_string()),
            device::Error::NoDevice { .. } => Self::Usage(format!("{error}; see --device")),
            other => Self::Library {
                error: other.into(),
            },
        }
    }
}

impl Failure {
    /// 3 when checks found something, else 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Found(_) => 3,
            _ => 2,
        }
    }

    /// A file that cannot be used.
    pub(crate) fn file(
        file: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::File {
            file: file.into(),
            problem: problem.into(),
            advice: advice.into(),
        }
    }

    /// A file that cannot be written.
    pub(crate) fn write(path: &Path, reason: impl ToString) -> Self {
        Self::Write {
            file: path.display().to_string(),
            reason: reason.to_string(),
        }
    }
}

/// What to do about an error of the library, where the error itself does not say it.
fn hint(error: &Error) -> &'static str {
    match error {
        Error::Missing { what, .. } => match *what {
            "token_ids" => "; give a tokens file with a tensor 'token_ids' [T] of I32",
            "sequence_offsets" => {
                "; give a tokens file with a tensor 'sequence_offsets' [S+1] of I32"
            }
            "router weight (E·H)" => "; give a layer file that has a router",
            _ => "",
        },
        Error::OutOfRange { what, .. } => match *what {
            "k" | "groups" | "top groups" => "; see --router in 'tollgate run --help'",
            "end of local experts" | "start of local experts" => "; see --local-experts",
            "threads" => "; see --threads",
            _ => "",
        },
        Error::RealOutOfRange { what, .. } => match *what {
            "gating dropout p" => "; see --gating-dropout",
            "capacity factor" => "; see --capacity",
            "adaptive τ" | "forced share" | "second-expert τ" | "expert-choice factor" => {
                "; see --router in 'tollgate run --help'"
            }
            _ => "",
        },
        Error::Threads { .. } => "; try a smaller --threads",
        _ => "",
    }
}

/// The text on one line: control characters (of a hostile file's names, say) are escaped, and what
/// is longer than anyone reads is cut.
pub fn one_line(text: &str) -> String {
    const LONGEST: usize = 600;
    let mut line = String::with_capacity(text.len().min(LONGEST));
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            line.push('…');
            break;
        }
        match c.is_control() {
            true => line.extend(c.escape_debug()),
            false => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_follow_the_error() {
        let error = Error::Missing {
            what: "token_ids",
            because: "router hash".into(),
        };
        let text = Failure::from(error).to_string();
        assert_eq!(
            text,
            "token_ids is required by router hash, but was not given; give a tokens file with a \
             tensor 'token_ids' [T] of I32"
        );
    }

    #[test]
    fn what_checks_find_has_an_exit_code_of_its_own() {
        let found = device::Error::Checks {
            count: 2,
            first: "a race\n  in a kernel".into(),
        };
        let failure = Failure::from(found);
        assert_eq!(failure.exit_code(), 3);
        assert!(failure.to_string().contains("a race"), "{failure}");
        let absent = Failure::from(device::Error::NoDevice {
            device: "cuda:9".into(),
            reason: "there is one".into(),
        });
        assert_eq!(absent.exit_code(), 2);
        assert!(absent.to_string().ends_with("see --device"), "{absent}");
    }

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(one_line("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(one_line(&"x".repeat(5000)).chars().count(), 601);
    }
}
