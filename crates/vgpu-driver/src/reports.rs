//! Where reports and counters go.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tollgate_vgpu::host::LaunchRecord;
use tollgate_vgpu::report::{Kind, Report};

use crate::abi::CuResult;
use crate::boundary::say;
use crate::failure::code_of;
use crate::settings::Sink;

enum Output {
    Stderr,
    Text(File),
    /// An array that is closed after every report, so that a program that dies leaves valid JSON.
    Json {
        file: File,
        empty: bool,
    },
}

/// Takes what the checks found.
pub(crate) struct Reports {
    output: Mutex<Output>,
    count: AtomicU64,
    /// The code of the first report of each device, when reports make calls fail.
    failed: Mutex<HashMap<u32, CuResult>>,
    fail: bool,
}

impl Reports {
    /// # Errors
    /// In words, when the file cannot be made.
    pub fn new(sink: &Sink, fail: bool) -> Result<Self, String> {
        let output = match sink {
            Sink::Stderr => Output::Stderr,
            Sink::File(path) => {
                let failed = |error| format!("cannot write reports to {}: {error}", path.display());
                let mut file = File::create(path).map_err(failed)?;
                if path.extension().is_some_and(|ending| ending == "json") {
                    file.write_all(b"[]\n").map_err(failed)?;
                    Output::Json { file, empty: true }
                } else {
                    Output::Text(file)
                }
            }
        };
        Ok(Self {
            output: Mutex::new(output),
            count: AtomicU64::new(0),
            failed: Mutex::default(),
            fail,
        })
    }

    /// Writes a report.
    pub fn take(&self, report: &Report) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // An illegal launch has failed already, and a leak fails nothing.
        if self.fail && !matches!(report.kind, Kind::Launch | Kind::Leak) {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed
                .entry(report.device)
                .or_insert_with(|| code_of(report));
        }
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *output {
            Output::Stderr => {
                say(&report.to_string());
                Ok(())
            }
            Output::Text(file) => writeln!(file, "{report}\n"),
            Output::Json { file, empty } => append(file, report, empty),
        };
        if let Err(error) = written {
            say(&format!("cannot write a report: {error}\n{report}"));
        }
    }

    /// Reports so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The code with which synchronising calls on `device` must fail.
    pub fn failure(&self, device: u32) -> Option<CuResult> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&device).copied()
    }

    /// Forgets that `device` failed: it was reset.
    pub fn forgive(&self, device: u32) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.remove(&device);
    }
}

/// Adds an object to the array in `file`, over its closing bracket.
fn append(file: &mut File, report: &Report, empty: &mut bool) -> std::io::Result<()> {
    file.seek(SeekFrom::End(-2))?;
    file.write_all(if *empty { b"\n" } else { b",\n" })?;
    *empty = false;
    serde_json::to_writer(&mut *file, report)?;
    file.write_all(b"]\n")
}

/// Writes what every launch counted, as an array.
///
/// # Errors
/// Those of the file.
pub(crate) fn write_counters(path: &Path, launches: &[LaunchRecord]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    serde_json::to_writer_pretty(&mut file, launches)?;
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use tollgate_vgpu::report::Site;

    use super::*;
    use crate::failure::code;

    fn report(kind: Kind, device: u32) -> Report {
        let site = Site {
            action: "write of 4 bytes".to_owned(),
            block: Some([0; 3]),
            thread: Some([1, 0, 0]),
            ptx_line: 3,
            ptx: "st.global.u32 [%rd1], %r1;".to_owned(),
            source: None,
        };
        Report {
            kind,
            message: "two writes".to_owned(),
            kernel: "k".to_owned(),
            device,
            site,
            other: None,
            seed: 0,
        }
    }

    #[test]
    fn the_file_is_valid_json_after_every_report() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reports.json");
        let reports = Reports::new(&Sink::File(path.clone()), false).unwrap();
        for expected in 0..3 {
            let text = std::fs::read_to_string(&path).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json.as_array().unwrap().len(), expected);
            reports.take(&report(Kind::Race, 0));
        }
        assert_eq!(reports.count(), 3);
        assert_eq!(reports.failure(0), None);
    }

    #[test]
    fn the_first_report_of_a_device_decides_its_code() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reports.txt");
        let reports = Reports::new(&Sink::File(path.clone()), true).unwrap();
        reports.take(&report(Kind::Launch, 1));
        reports.take(&report(Kind::DivergentBarrier, 1));
        reports.take(&report(Kind::Race, 1));
        assert_eq!(reports.failure(0), None);
        assert_eq!(reports.failure(1), Some(code::LAUNCH_FAILED));
        reports.forgive(1);
        assert_eq!(reports.failure(1), None);
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains("data race: two writes")
        );
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let sink = Sink::File("/nowhere/at/all.json".into());
        let message = Reports::new(&sink, false).err().unwrap();
        assert!(message.contains("/nowhere/at/all.json"), "{message}");
    }
}
