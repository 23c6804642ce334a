//! Lines of the PTX file and of the sources beside it, with a mark at the one that is meant.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use tollgate_vgpu::report::{Site, SourceLine};

use crate::error::one_line;

/// Lines shown before and behind the one that is meant.
const AROUND: usize = 2;
/// Characters of a line that are shown.
const WIDEST: usize = 100;
/// Bytes of a source file at most: what is larger was not written by hand.
const LARGEST: u64 = 16 << 20;

/// The files that reports speak of.
#[derive(Debug)]
pub struct Sources {
    name: String,
    folder: PathBuf,
    ptx: Vec<String>,
    /// By their names in the PTX; `None`: not beside it.
    beside: RefCell<HashMap<String, Option<Vec<String>>>>,
}

impl Sources {
    /// Of a PTX file with this text.
    pub fn new(file: &Path, text: &str) -> Self {
        let name = file.file_name().unwrap_or(file.as_os_str());
        Self {
            name: name.to_string_lossy().into_owned(),
            folder: file.parent().map(Path::to_owned).unwrap_or_default(),
            ptx: lines(text),
            beside: RefCell::default(),
        }
    }

    /// A line of the PTX without white space around it; empty if there is none.
    pub fn ptx_line(&self, line: u32) -> &str {
        let line = self.ptx.get((line as usize).wrapping_sub(1));
        line.map_or("", |line| line.trim())
    }

    /// Where something happened: the source's lines, if the source is there, and the PTX's.
    pub fn show(&self, site: &Site, indent: usize) -> String {
        let mut text = String::new();
        let space = " ".repeat(indent);
        if let Some(source) = &site.source {
            let file = file_name(&source.file);
            let _ = writeln!(text, "{space}{file}:{}", source.line);
            if let Some(excerpt) = self.source_lines(source, indent + 2) {
                text.push_str(&excerpt);
            }
        }
        if site.ptx_line != 0 {
            let _ = writeln!(text, "{space}{}:{}", self.name, site.ptx_line);
            text.push_str(&marked(&self.ptx, site.ptx_line, indent + 2));
        }
        text
    }

    fn source_lines(&self, source: &SourceLine, indent: usize) -> Option<String> {
        let mut beside = self.beside.borrow_mut();
        let lines = beside
            .entry(source.file.to_string())
            .or_insert_with(|| self.read(&source.file));
        let lines = lines.as_ref()?;
        let excerpt = marked(lines, source.line, indent);
        (!excerpt.is_empty()).then_some(excerpt)
    }

    /// A source of which the PTX knows the path on the machine that compiled it; here it is looked
    /// for in the folder of the PTX, by its name alone.
    fn read(&self, path: &str) -> Option<Vec<String>> {
        let file = self.folder.join(file_name(path));
        let small = file
            .metadata()
            .is_ok_and(|m| m.is_file() && m.len() <= LARGEST);
        let bytes = small.then(|| std::fs::read(&file).ok()).flatten()?;
        Some(lines(&String::from_utf8_lossy(&bytes)))
    }
}

/// The last part of a path of any system.
pub fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// The lines around `line`, counted from 1, which is marked; nothing if there is no such line.
fn marked(lines: &[String], line: u32, indent: usize) -> String {
    let line = line as usize;
    let mut text = String::new();
    if line == 0 || line > lines.len() {
        return text;
    }
    let first = line.saturating_sub(AROUND).max(1);
    let last = (line + AROUND).min(lines.len());
    let digits = last.to_string().len();
    for number in first..=last {
        let mark = if number == line { '>' } else { ' ' };
        let content = lines[number - 1].replace('\t', "    ");
        let content = one_line(content.trim_end());
        let shown: String = content.chars().take(WIDEST).collect();
        let row = format!("{:indent$}{mark} {number:>digits$} | {shown}", "");
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_marked_and_its_neighbours_are_shown() {
        let text: Vec<String> = (1..=12).map(|n| format!("line {n}\t")).collect();
        assert_eq!(
            marked(&text, 10, 2),
            "     8 | line 8\n     9 | line 9\n  > 10 | line 10\n    11 | line 11\n    12 | line 12\n"
        );
        assert_eq!(marked(&text, 1, 0).lines().count(), 3);
        assert_eq!(marked(&text, 13, 0), "");
        assert_eq!(marked(&text, 0, 0), "");
    }

    #[test]
    fn sources_are_looked_for_beside_the_file() {
        let folder = std::env::temp_dir().join(format!("tollgate-excerpt-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("k.cu"), "a\nb\n").unwrap();
        let sources = Sources::new(&folder.join("k.ptx"), "one\n two\n");
        let site = Site {
            action: String::new(),
            block: None,
            thread: None,
            ptx_line: 2,
            ptx: String::new(),
            source: Some(SourceLine {
                file: "/elsewhere/k.cu".into(),
                line: 1,
            }),
        };
        let shown = sources.show(&site, 0);
        assert_eq!(
            shown,
            "k.cu:1\n  > 1 | a\n    2 | b\nk.ptx:2\n    1 | one\n  > 2 |  two\n"
        );
        assert_eq!(sources.ptx_line(2), "two");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
