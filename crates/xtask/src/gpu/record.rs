//! What a bundle's script wrote on a machine with a GPU, as a page under `docs/measurements/`.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use crate::files;

/// Where records are, from the workspace's root.
const RECORDS: &str = "docs/measurements";
/// Lines of a failed program's log that are shown: its end says why.
const LOG_LINES: usize = 30;
/// Lines of a benchmark's log that are shown where its tables are not found.
const BENCH_LINES: usize = 200;
/// The last line of this sign alone comes before a benchmark's tables.
const TABLES_AFTER: char = '=';

/// Writes the record of the results in `folder`.
///
/// # Errors
/// Results that are missing or of another form; a record of that day and GPU that is there already.
pub fn run(root: &Path, folder: &str) -> Result<String, String> {
    let results = Results::read(Path::new(folder))?;
    let name = format!("{}/{}.md", RECORDS, results.name()?);
    let path = root.join(&name);
    if path.exists() {
        return Err(format!(
            "{name} is there already; remove it, or rename it, and run again"
        ));
    }
    files::write(&path, results.page()?)?;
    let goldens = results
        .goldens()?
        .map_or(String::new(), |hint| format!("; {hint}"));
    Ok(format!(
        "{name}: {} programs, {} failed{goldens}",
        results.steps.len(),
        results
            .steps
            .iter()
            .filter(|s| s.outcome() == Outcome::Failed)
            .count()
    ))
}

/// A line of `steps.tsv`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    step: String,
    name: String,
    /// `None`: not run, and `command` says why.
    code: Option<i32>,
    seconds: String,
    log: String,
    command: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    NotRun,
}

impl Step {
    fn parse(line: &str) -> Result<Self, String> {
        let odd = || format!("steps.tsv: '{line}' has not the form of a step");
        let [step, name, code, seconds, log, command] =
            line.splitn(6, '\t').collect::<Vec<_>>()[..]
        else {
            return Err(odd());
        };
        Ok(Self {
            step: step.to_owned(),
            name: name.to_owned(),
            code: match code {
                "-" => None,
                code => Some(code.parse().map_err(|_| odd())?),
            },
            seconds: seconds.to_owned(),
            log: log.to_owned(),
            command: command.to_owned(),
        })
    }

    fn outcome(&self) -> Outcome {
        match self.code {
            None => Outcome::NotRun,
            Some(0) => Outcome::Passed,
            Some(_) => Outcome::Failed,
        }
    }

    /// The outcome in words.
    fn words(&self) -> String {
        match self.code {
            None => format!("not run: {}", self.command),
            Some(0) => "passed".to_owned(),
            Some(124 | 137) => "**out of time**".to_owned(),
            Some(code) => format!("**failed** ({code})"),
        }
    }
}

/// What the page tells of `BUNDLE.toml`.
#[derive(Deserialize)]
struct Bundle {
    commit: String,
    commit_date: String,
    changed: bool,
    toolchain: String,
    features: String,
}

/// A folder of results.
struct Results<'a> {
    folder: &'a Path,
    /// In their order.
    facts: Vec<(String, String)>,
    steps: Vec<Step>,
    bundle: Bundle,
}

impl<'a> Results<'a> {
    fn read(folder: &'a Path) -> Result<Self, String> {
        let text = |name: &str| {
            files::read(&folder.join(name)).map_err(|e| {
                format!("{e}; the folder must be the `results` that a bundle's run.sh wrote")
            })
        };
        let facts = text("facts.txt")?
            .lines()
            .map(|line| {
                let (key, value) = line
                    .split_once(": ")
                    .ok_or_else(|| format!("facts.txt: '{line}' has not the form of a fact"))?;
                Ok((key.to_owned(), value.trim().to_owned()))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let steps = text("steps.tsv")?
            .lines()
            .map(Step::parse)
            .collect::<Result<Vec<_>, String>>()?;
        if steps.is_empty() {
            return Err("steps.tsv: no program ran, so there is nothing to record".to_owned());
        }
        let bundle = toml::from_str(&text("BUNDLE.toml")?)
            .map_err(|e| format!("BUNDLE.toml of the results: {e}"))?;
        Ok(Self {
            folder,
            facts,
            steps,
            bundle,
        })
    }

    fn fact(&self, key: &str) -> Result<&str, String> {
        self.facts
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
            .ok_or_else(|| format!("facts.txt has no '{key}'"))
    }

    /// `2026-11-24-nvidia-h100-80gb-hbm3`.
    fn name(&self) -> Result<String, String> {
        let date = self.fact("date")?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        if date.len() != 10 || !digits(date) {
            return Err(format!(
                "facts.txt: the date is '{date}', must be YYYY-MM-DD"
            ));
        }
        let gpu = match self.fact("gpu")? {
            "none" => "virtual-gpu",
            gpu => gpu,
        };
        let words = gpu.split(|c: char| !c.is_ascii_alphanumeric());
        let words: Vec<String> = words
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        Ok(format!("{date}-{}", words.join("-")))
    }

    fn page(&self) -> Result<String, String> {
        let gpu = match self.fact("gpu")? {
            "none" => "No GPU: the virtual one",
            gpu => gpu,
        };
        let mut page = format!("# {gpu}, {}\n\n", self.fact("date")?);
        let _ = writeln!(
            page,
            "Commit `{}` of {}{}, {}, features `{}`; programs built by `cargo xtask gpu-bundle`, \
             this page by `cargo xtask gpu-record`.\n",
            self.bundle.commit,
            self.bundle.commit_date,
            if self.bundle.changed {
                ", **with uncommitted changes**"
            } else {
                ""
            },
            self.bundle.toolchain,
            self.bundle.features,
        );
        page.push_str("## The machine\n\n| | |\n|---|---|\n");
        for (key, value) in &self.facts {
            let _ = writeln!(page, "| {key} | {} |", cell(value));
        }
        self.outcomes(&mut page);
        self.failures(&mut page)?;
        self.benches(&mut page)?;
        Ok(page)
    }

    fn outcomes(&self, page: &mut String) {
        page.push_str(
            "\n## What ran\n\n| step | program | outcome | seconds | command |\n|---|---|---|---|---|\n",
        );
        for step in &self.steps {
            let (seconds, command) = match step.outcome() {
                Outcome::NotRun => ("", String::new()),
                _ => (step.seconds.as_str(), format!("`{}`", step.command)),
            };
            let _ = writeln!(
                page,
                "| {} | {} | {} | {seconds} | {} |",
                step.step,
                step.name,
                cell(&step.words()),
                cell(&command)
            );
        }
    }

    fn failures(&self, page: &mut String) -> Result<(), String> {
        let failed = self.steps.iter().filter(|s| s.outcome() == Outcome::Failed);
        for (i, step) in failed.enumerate() {
            if i == 0 {
                page.push_str("\n## Failures\n");
            }
            let log = self.log(step)?;
            let _ = write!(
                page,
                "\n### {} {}\n\nThe end of its output:\n\n{}",
                step.step,
                step.name,
                block(last_lines(&log, LOG_LINES))
            );
        }
        Ok(())
    }

    fn benches(&self, page: &mut String) -> Result<(), String> {
        let passed = |s: &&Step| s.step == "benches" && s.outcome() == Outcome::Passed;
        for (i, step) in self.steps.iter().filter(passed).enumerate() {
            if i == 0 {
                page.push_str("\n## Benchmarks\n");
            }
            let log = self.log(step)?;
            let _ = write!(page, "\n### {}\n\n{}", step.name, block(tables(&log)));
        }
        Ok(())
    }

    fn log(&self, step: &Step) -> Result<String, String> {
        let path = self.folder.join(&step.log);
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where the goldens of these results belong, if there are any.
    fn goldens(&self) -> Result<Option<String>, String> {
        let goldens = self.folder.join("goldens.txt");
        let recorded = self.steps.iter().any(|step| {
            step.step == "goldens" && step.name == "record" && step.outcome() == Outcome::Passed
        });
        if !recorded {
            return Ok(None);
        }
        let name = self.name()?;
        Ok(Some(format!(
            "the goldens in {} belong into crates/vgpu/goldens/recorded/{}-driver{}.txt",
            goldens.display(),
            name.get("2026-11-24-".len()..).unwrap_or(&name),
            self.fact("driver").unwrap_or("unknown")
        )))
    }
}

/// What follows the last rule in a benchmark's output: all of its tables once more.
fn tables(log: &str) -> &str {
    let is_rule = |line: &str| line.len() > 20 && line.chars().all(|c| c == TABLES_AFTER);
    let rule = log.lines().rfind(|line| is_rule(line));
    // The lines are parts of the log, so that their places in it are known.
    let after = rule.map(|line| line.as_ptr() as usize - log.as_ptr() as usize + line.len());
    match after {
        Some(at) => &log[at..],
        None => last_lines(log, BENCH_LINES),
    }
}

fn last_lines(text: &str, count: usize) -> &str {
    let text = text.trim_end();
    let start = text
        .rmatch_indices('\n')
        .nth(count - 1)
        .map_or(0, |(at, _)| at + 1);
    &text[start..]
}

/// Text as it was printed. Whatever it holds, it does not end the block.
fn block(text: &str) -> String {
    let text = text.trim_matches('\n').trim_end();
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}\n")
}

/// Text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: &str = "\
date: 2026-11-24
devices: cuda
gpu: NVIDIA H100 80GB HBM3
driver: 580.65.06
power: 92.10 W (limit 700.00 W)
";
    const STEPS: &str = "\
tests\ttollgate-device.gpu\t0\t1.5\tlogs/a.log\tbin/tests/tollgate-device.gpu
tests\ttollgate-gating.gpu\t101\t2.0\tlogs/b.log\tbin/tests/tollgate-gating.gpu a|b
memcheck\tall\t-\t0\t-\tno compute-sanitizer on this machine
racecheck\ttollgate-device.gpu\t124\t600.0\tlogs/c.log\tcompute-sanitizer
goldens\trecord\t0\t1.0\tlogs/d.log\tgoldens/record
benches\ttollgate-benches.gating\t0\t9.0\tlogs/e.log\tbin/benches/x --bench
";
    const BUNDLE: &str = "commit = \"abc\"\ncommit_date = \"2026-11-23\"\nchanged = false\n\
                          toolchain = \"rustc 1.95.0\"\nfeatures = \"f\"\n";

    fn results(changes: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let rule = "=".repeat(100);
        let bench = format!("criterion's lines\n{rule}\nlimits\n\ngating  4.0 us\n");
        let log: String = (0..50).map(|i| format!("line {i}\n")).collect();
        for (path, text) in [
            ("facts.txt", FACTS),
            ("steps.tsv", STEPS),
            ("BUNDLE.toml", BUNDLE),
            ("logs/b.log", log.as_str()),
            ("logs/c.log", "```\n"),
            ("logs/e.log", bench.as_str()),
        ]
        .iter()
        .chain(changes)
        {
            files::write(&folder.path().join(path), text).unwrap();
        }
        folder
    }

    fn record(results: &tempfile::TempDir) -> Result<(String, String), String> {
        let root = tempfile::tempdir().unwrap();
        let message = run(root.path(), &results.path().display().to_string())?;
        let page = root
            .path()
            .join("docs/measurements/2026-11-24-nvidia-h100-80gb-hbm3.md");
        Ok((message, files::read(&page)?))
    }

    #[test]
    fn results_become_a_page() {
        let (message, page) = record(&results(&[])).unwrap();
        assert!(
            message.contains("6 programs, 2 failed; the goldens in"),
            "{message}"
        );
        assert!(
            message.ends_with("/nvidia-h100-80gb-hbm3-driver580.65.06.txt"),
            "{message}"
        );
        for line in [
            "# NVIDIA H100 80GB HBM3, 2026-11-24",
            "| power | 92.10 W (limit 700.00 W) |",
            "| tests | tollgate-device.gpu | passed | 1.5 | `bin/tests/tollgate-device.gpu` |",
            "| tests | tollgate-gating.gpu | **failed** (101) | 2.0 \
             | `bin/tests/tollgate-gating.gpu a\\|b` |",
            "| memcheck | all | not run: no compute-sanitizer on this machine |  |  |",
            "### tests tollgate-gating.gpu",
            "line 49",
            "line 20",
            "### racecheck tollgate-device.gpu",
            "````text",
            "gating  4.0 us",
        ] {
            assert!(
                page.lines().any(|l| l == line),
                "no line '{line}' in\n{page}"
            );
        }
        assert!(page.contains("| **out of time** | 600.0 |"), "{page}");
        assert!(
            page.contains("Commit `abc` of 2026-11-23, rustc 1.95.0"),
            "{page}"
        );
        assert!(
            !page.contains("line 19\n") && !page.contains("criterion's"),
            "{page}"
        );
    }

    #[test]
    fn uncommitted_changes_and_missing_tables_are_told() {
        let changed = BUNDLE.replace("false", "true");
        let log = "no tables\n";
        let (_, page) = record(&results(&[
            ("BUNDLE.toml", changed.as_str()),
            ("logs/e.log", log),
        ]))
        .unwrap();
        assert!(page.contains("**with uncommitted changes**"), "{page}");
        assert!(page.contains("```text\nno tables\n```"), "{page}");
    }

    #[test]
    fn a_record_is_not_written_over() {
        let (root, results) = (tempfile::tempdir().unwrap(), results(&[]));
        let folder = results.path().display().to_string();
        run(root.path(), &folder).unwrap();
        let error = run(root.path(), &folder).unwrap_err();
        assert!(error.contains("is there already"), "{error}");
    }

    #[test]
    fn results_of_another_form_are_errors_that_say_where() {
        for (path, text, expected) in [
            ("steps.tsv", "", "no program ran"),
            ("steps.tsv", "tests\ta\tb\n", "'tests\ta\tb'"),
            (
                "steps.tsv",
                "tests\ta\tx\t1\tl\tc\n",
                "has not the form of a step",
            ),
            ("facts.txt", "gpu\n", "'gpu' has not the form"),
            ("facts.txt", "gpu: x\n", "has no 'date'"),
            ("facts.txt", "date: ../../x\ngpu: x\n", "must be YYYY-MM-DD"),
            ("BUNDLE.toml", "=", "BUNDLE.toml of the results"),
        ] {
            let error = record(&results(&[(path, text)])).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(
            record(&empty)
                .unwrap_err()
                .contains("must be the `results`")
        );
    }
}
