//! The environment variables that say what the virtual devices are.

use std::path::PathBuf;
use std::str::FromStr;

use tollgate_vgpu::host::Config;

/// Where reports go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    Stderr,
    /// Text, or with the ending `.json` an array of objects.
    File(PathBuf),
}

/// What the environment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub config: Config,
    pub reports: Sink,
    /// Whether a report makes later synchronising calls on its device fail.
    pub fail: bool,
    pub counters: Option<PathBuf>,
}

/// Every variable begins with it.
const PREFIX: &str = "TOLLGATE_VGPU_";

impl Settings {
    /// Reads the variables through `variable`, which is given the whole name.
    ///
    /// # Errors
    /// In words, with the variable, its value and what is possible.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| variable(&format!("{PREFIX}{name}")).filter(|text| !text.is_empty());
        let mut config = Config::default();
        if let Some(text) = get("DEVICES") {
            config.devices = parse("DEVICES", &text)?;
        }
        if let Some(text) = get("ARCH") {
            config.arch = parse("ARCH", &text)?;
        }
        if let Some(text) = get("MEMORY") {
            config.memory_bytes = bytes(&text).map_err(|why| invalid("MEMORY", &text, &why))?;
        }
        if let Some(text) = get("CHECKS") {
            config.checks = parse("CHECKS", &text)?;
        }
        if let Some(text) = get("SEED") {
            config.seed = parse("SEED", &text)?;
        }
        if let Some(text) = get("THREADS") {
            config.threads = parse("THREADS", &text)?;
            if config.threads == 0 {
                return Err(invalid("THREADS", &text, "at least 1 is needed"));
            }
        }
        if let Some(text) = get("BUDGET") {
            config.budget = parse("BUDGET", &text)?;
        }
        let reports = match get("REPORTS").as_deref() {
            None | Some("stderr") => Sink::Stderr,
            Some(path) => Sink::File(path.into()),
        };
        let fail = match get("ON_REPORT").as_deref() {
            None | Some("continue") => false,
            Some("fail") => true,
            Some(other) => {
                return Err(invalid(
                    "ON_REPORT",
                    other,
                    "possible are continue and fail",
                ));
            }
        };
        let counters = get("COUNTERS").map(PathBuf::from);
        Ok(Self {
            config,
            reports,
            fail,
            counters,
        })
    }
}

fn invalid(name: &str, value: &str, why: &str) -> String {
    format!("{PREFIX}{name}={value}: {why}")
}

fn parse<T: FromStr<Err: ToString>>(name: &str, text: &str) -> Result<T, String> {
    text.trim()
        .parse()
        .map_err(|why: T::Err| invalid(name, text, &why.to_string()))
}

/// A number of bytes, with `K`, `M`, `G` or `T` for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    const WANTED: &str = "a number of bytes is wanted, such as 512M or 16G";
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit
        .to_ascii_lowercase()
        .trim_end_matches('b')
        .trim_end_matches('i')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(WANTED.to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| WANTED.to_owned())?;
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| WANTED.to_owned())
}

#[cfg(test)]
mod tests {
    use tollgate_vgpu::machine::{Arch, Checks};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| {
            let found = pairs
                .iter()
                .find(|(key, _)| name.strip_prefix(PREFIX) == Some(key))?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn variables_are_read() {
        let settings = read(&[
            ("DEVICES", "4"),
            ("ARCH", "sm_80"),
            ("MEMORY", "2GiB"),
            ("CHECKS", "races,barriers"),
            ("SEED", "9"),
            ("THREADS", "3"),
            ("BUDGET", "1000"),
            ("REPORTS", "out.json"),
            ("ON_REPORT", "fail"),
            ("COUNTERS", "counters.json"),
        ])
        .unwrap();
        assert_eq!(settings.config.devices, 4);
        assert_eq!(settings.config.arch, Arch::SM_80);
        assert_eq!(settings.config.memory_bytes, 2 << 30);
        let checks = Checks {
            races: true,
            barriers: true,
            ..Checks::NONE
        };
        assert_eq!(settings.config.checks, checks);
        assert_eq!((settings.config.seed, settings.config.threads), (9, 3));
        assert_eq!(settings.config.budget, 1000);
        assert_eq!(settings.reports, Sink::File("out.json".into()));
        assert!(settings.fail);
        assert_eq!(settings.counters, Some("counters.json".into()));
    }

    #[test]
    fn an_empty_environment_means_the_defaults() {
        let settings = read(&[("DEVICES", "")]).unwrap();
        assert_eq!(settings.config, Config::default());
        assert_eq!((settings.reports, settings.fail), (Sink::Stderr, false));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value, needle) in [
            ("DEVICES", "two", "TOLLGATE_VGPU_DEVICES=two"),
            ("ARCH", "sm_70", "sm_90a"),
            ("MEMORY", "16X", "16G"),
            ("MEMORY", "99999999T", "bytes"),
            ("MEMORY", "0", "bytes"),
            ("CHECKS", "race", "races"),
            ("THREADS", "0", "at least 1"),
            ("ON_REPORT", "stop", "continue"),
        ] {
            let message = read(&[(name, value)]).unwrap_err();
            assert!(message.contains(needle), "{message}");
        }
    }
}
