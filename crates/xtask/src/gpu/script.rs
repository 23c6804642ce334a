//! The script of a bundle.

/// What runs on the machine with the GPU.
pub const TEXT: &str = include_str!("run.sh");

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use super::super::archive::make_executable;
    use super::*;
    use crate::{files, program};

    /// The script under a shell, with programs made up for it.
    #[test]
    fn the_script_runs_on_after_failures_and_tells_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for (path, text) in [
            ("run.sh", TEXT),
            (
                "bin/tests/bad",
                "#!/bin/sh\necho on $TOLLGATE_TEST_DEVICES\nexit 3\n",
            ),
            ("bin/tests/good", "#!/bin/sh\nexit 0\n"),
            ("bin/tests/slow", "#!/bin/sh\nexec sleep 60\n"),
            ("bin/benches/fast", "#!/bin/sh\necho arguments: \"$@\"\n"),
        ] {
            files::write(&at(path), text).unwrap();
            make_executable(&at(path)).unwrap();
        }
        files::write(&at("BUNDLE.toml"), "commit = \"abc\"\n").unwrap();
        let list = "bad\ngood --skip a --skip b\nslow\n";
        files::write(&at("tests.txt"), list).unwrap();
        let script = |arguments: &[&str]| {
            let mut command = Command::new(at("run.sh"));
            command.args(arguments).env("TOLLGATE_STEP_SECONDS", "1");
            let devices = command.env("TOLLGATE_TEST_DEVICES", "virtual");
            program::output(devices.env_remove("TOLLGATE_RESULTS")).unwrap()
        };

        let (status, text) = script(&["tests", "memcheck", "benches"]);
        assert_eq!(status.code(), Some(1), "{text}");
        let steps = files::read(&at("results/steps.tsv")).unwrap();
        let rows: Vec<Vec<&str>> = steps.lines().map(|l| l.split('\t').collect()).collect();
        let codes: Vec<(&str, &str)> = rows.iter().map(|row| (row[1], row[2])).collect();
        assert_eq!(codes[..3], [("bad", "3"), ("good", "0"), ("slow", "124")]);
        assert_eq!(rows.last().unwrap()[..3], ["benches", "fast", "0"]);
        assert_eq!(rows.last().unwrap()[5], "bin/benches/fast --bench");
        assert_eq!(rows[1][5], "bin/tests/good --skip a --skip b");
        let log = files::read(&at("results/logs/tests.bad.log")).unwrap();
        assert_eq!(log, "on virtual\n");
        let facts = files::read(&at("results/facts.txt")).unwrap();
        assert!(facts.contains("\ndevices: virtual\n"), "{facts}");
        assert!(at("results/BUNDLE.toml").is_file());

        let (status, text) = script(&["benches"]);
        assert_eq!(status.code(), Some(0), "{text}");
        let (status, text) = script(&["nonsense"]);
        assert_eq!(status.code(), Some(2));
        assert!(text.contains("no step is called 'nonsense'"), "{text}");
        let (status, text) = script(&["--help"]);
        assert_eq!(status.code(), Some(0));
        assert!(
            text.contains("TOLLGATE_RESULTS") && !text.contains("set -u"),
            "{text}"
        );
    }
}
