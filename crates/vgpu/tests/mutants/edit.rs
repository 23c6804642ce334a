//! Changes of a PTX text that say exactly where they apply, and fail anywhere else.
//!
//! White space counts as one blank, and lines are counted within one entry: `cut("bar.sync 0;", 2,
//! 3)` takes away the second of the three lines of the entry that hold `bar.sync 0;`.

/// One change of the lines of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    /// What the line holds.
    needle: &'static str,
    /// Which of the lines that hold it, from 1.
    nth: usize,
    /// How many lines hold it.
    of: usize,
    change: Change,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Cut,
    Swap(&'static str),
    Before(&'static str),
    After(&'static str),
}

const fn edit(needle: &'static str, nth: usize, of: usize, change: Change) -> Edit {
    Edit {
        needle,
        nth,
        of,
        change,
    }
}

/// Takes the line away.
pub const fn cut(needle: &'static str, nth: usize, of: usize) -> Edit {
    edit(needle, nth, of, Change::Cut)
}

/// Puts `to` in the needle's place; the rest of the line stays.
pub const fn swap(needle: &'static str, nth: usize, of: usize, to: &'static str) -> Edit {
    edit(needle, nth, of, Change::Swap(to))
}

/// Puts statements before the line.
pub const fn before(needle: &'static str, nth: usize, of: usize, text: &'static str) -> Edit {
    edit(needle, nth, of, Change::Before(text))
}

/// Puts statements behind the line.
pub const fn after(needle: &'static str, nth: usize, of: usize, text: &'static str) -> Edit {
    edit(needle, nth, of, Change::After(text))
}

/// The text with all of the edits made in an entry, one after the other.
///
/// # Errors
/// There is no such entry, or an edit does not find the number of lines that it names.
pub fn apply(ptx: &str, entry: &str, edits: &[Edit]) -> Result<String, String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = ptx.lines().map(words).collect();
    for edit in edits {
        let (start, end) = span(&lines, entry).ok_or_else(|| format!("no entry {entry}"))?;
        let found: Vec<usize> = (start..end)
            .filter(|&line| lines[line].contains(edit.needle))
            .collect();
        if found.len() != edit.of || !(1..=edit.of).contains(&edit.nth) {
            return Err(format!(
                "`{}` is in {} lines of {entry}, not in {}",
                edit.needle,
                found.len(),
                edit.of
            ));
        }
        let line = &mut lines[found[edit.nth - 1]];
        *line = match edit.change {
            Change::Cut => String::new(),
            Change::Swap(to) if line.matches(edit.needle).count() == 1 => {
                line.replace(edit.needle, to)
            }
            Change::Swap(_) => return Err(format!("`{}` twice in `{line}`", edit.needle)),
            Change::Before(text) => format!("{text} {line}"),
            Change::After(text) => format!("{line} {text}"),
        };
    }
    Ok(lines.join("\n"))
}

/// The lines of an entry, from its head to its closing brace.
fn span(lines: &[String], entry: &str) -> Option<(usize, usize)> {
    let head = format!(".entry {entry}(");
    let start = lines.iter().position(|line| line.contains(&head))?;
    let mut depth = 0;
    for (line, text) in lines.iter().enumerate().skip(start) {
        let braces = |brace| text.matches(brace).count();
        let opened = depth + braces('{');
        depth = opened - braces('}').min(opened);
        if opened > 0 && depth == 0 {
            return Some((start, line + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{after, apply, before, cut, swap};

    const TEXT: &str = ".entry f(\n.param .u32 p\n)\n{\n\tbar.sync \t0;\n\tmov.u32  %a, 1;\n\t{\n\
        \tadd.u32 {x}, 1;\n\t}\n\tbar.sync 0;\n\tret;\n}\n.entry g()\n{\n\tbar.sync 0;\n}\n";

    #[test]
    fn edits_change_the_line_that_they_name_and_nothing_else() {
        let text = apply(
            TEXT,
            "f",
            &[
                cut("bar.sync 0;", 2, 2),
                swap("%a, 1", 1, 1, "%a, 2"),
                before("ret;", 1, 1, "x;"),
                after("bar.sync 0;", 1, 1, "y;"),
            ],
        );
        let want = ".entry f(\n.param .u32 p\n)\n{\nbar.sync 0; y;\nmov.u32 %a, 2;\n{\n\
            add.u32 {x}, 1;\n}\n\nx; ret;\n}\n.entry g()\n{\nbar.sync 0;\n}";
        assert_eq!(text.as_deref(), Ok(want));
    }

    #[test]
    fn edits_that_do_not_apply_are_errors() {
        for (entry, edits) in [
            ("h", vec![cut("ret;", 1, 1)]),
            ("f", vec![cut("bar.sync 0;", 1, 1)]),
            ("f", vec![cut("bar.sync 0;", 3, 2)]),
            ("f", vec![cut("bar.sync 0;", 0, 2)]),
            ("f", vec![cut("membar", 1, 1)]),
            ("f", vec![swap("r", 1, 6, "s")]),
            ("g", vec![cut("ret;", 1, 1)]),
        ] {
            let result = apply(TEXT, entry, &edits);
            assert!(result.is_err(), "{entry} {edits:?}");
        }
        assert!(apply("", "f", &[]).is_ok(), "nothing to apply");
    }
}
