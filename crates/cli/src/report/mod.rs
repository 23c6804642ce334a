//! What is printed: text for people, JSON for programs.

pub mod bars;
pub mod compare;
pub mod curriculum;
pub mod json;
pub mod run;
pub mod table;

use std::io::IsTerminal;

/// How text may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences for colour are allowed.
    pub colour: bool,
    /// Columns that may be used.
    pub width: usize,
}

impl Style {
    /// No colour, the usual width: for files and pipes.
    pub const PLAIN: Self = Self {
        colour: false,
        width: 88,
    };

    /// What standard output can show: colour on a terminal unless `NO_COLOR` is set, and the width
    /// that `COLUMNS` says, from 64 to 100.
    pub fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let quiet = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        Self {
            colour: terminal && !quiet,
            width: columns.unwrap_or(Self::PLAIN.width).clamp(64, 100),
        }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self.colour && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// A heading.
    pub fn heading(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What need not be read first.
    pub fn quiet(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// A bar.
    pub fn bar(self, text: &str) -> String {
        self.wrap("36", text)
    }

    /// A heading with a remark at the right margin, or below where both do not fit.
    pub fn titled(self, title: &str, remark: &str) -> String {
        let used = title.chars().count() + remark.chars().count();
        match self.width.checked_sub(used) {
            _ if remark.is_empty() => format!("{}\n", self.heading(title)),
            Some(gap) if gap >= 2 => {
                let space = " ".repeat(gap);
                format!("{}{space}{}\n", self.heading(title), self.quiet(remark))
            }
            _ => format!("{}\n  {}\n", self.heading(title), self.quiet(remark)),
        }
    }
}

/// Words on lines of at most `width` columns, each line after the first indented by `indent`.
pub fn filled(text: &str, width: usize, indent: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for word in text.split(' ') {
        let len = word.chars().count();
        if column > indent && column + 1 + len > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += len;
    }
    lines
}

/// `count thing` or `count things`.
pub fn plural(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

/// A share as per cent, right-aligned in seven columns.
pub fn percent(share: f64) -> String {
    format!("{:>5.1} %", 100.0 * share)
}

/// A small number in three digits, or in scientific notation where that says more.
pub fn short(value: f64) -> String {
    match value.abs() {
        _ if value == 0.0 => "0".to_owned(),
        a if (1e-3..1e4).contains(&a) => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}

/// Standard deviation over mean; 0 where the mean is 0.
pub fn variation(counts: &[usize]) -> f64 {
    let n = counts.len().max(1) as f64;
    let mean = counts.iter().sum::<usize>() as f64 / n;
    let square = counts
        .iter()
        .map(|&c| (c as f64 - mean).powi(2))
        .sum::<f64>()
        / n;
    if mean == 0.0 {
        0.0
    } else {
        square.sqrt() / mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_all_or_nothing() {
        let loud = Style {
            colour: true,
            ..Style::PLAIN
        };
        assert_eq!(loud.heading("a"), "\x1b[1ma\x1b[0m");
        assert_eq!(Style::PLAIN.heading("a"), "a");
        assert_eq!(Style::PLAIN.titled("a", "b").trim_end().chars().count(), 88);
        let long = "x".repeat(87);
        assert_eq!(Style::PLAIN.titled("a", &long), format!("a\n  {long}\n"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.01, 123.0, 1e-7].map(short),
            ["0", "0.0100", "123.0000", "1.000e-7"]
        );
        assert_eq!(short(f64::NAN), "NaN");
        assert_eq!(percent(0.2001953125), " 20.0 %");
        assert_eq!(variation(&[2, 2]), 0.0);
        assert_eq!(variation(&[0, 4]), 1.0);
        assert_eq!(variation(&[]), 0.0);
        assert_eq!(filled("aa bb cc", 7, 2), "aa bb\n  cc");
    }
}
