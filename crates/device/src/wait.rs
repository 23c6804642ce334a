//! Waiting with a deadline.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// The variable that sets how long to wait for a device, in seconds.
pub(crate) const TIMEOUT_VARIABLE: &str = "TOLLGATE_DEVICE_TIMEOUT_S";
/// How long without it: longer than any kernel here, and short enough for a test run to end.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the shortest waits spin: a launch takes a few microseconds.
const SPIN: Duration = Duration::from_micros(50);
/// How long waits give up the processor without sleeping.
const YIELD: Duration = Duration::from_millis(1);
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// The limit of every wait, from [`TIMEOUT_VARIABLE`].
///
/// # Errors
/// In words, when it is no number of seconds above 0.
pub(crate) fn timeout() -> std::result::Result<Duration, String> {
    timeout_of(std::env::var(TIMEOUT_VARIABLE).ok().as_deref())
}

fn timeout_of(text: Option<&str>) -> std::result::Result<Duration, String> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(DEFAULT_TIMEOUT);
    };
    match text.parse() {
        Ok(0) | Err(_) => Err(format!(
            "{TIMEOUT_VARIABLE}={text}: a whole number of seconds above 0 is wanted"
        )),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

/// Asks `is_done` until it says so: first in a loop, then less and less often.
///
/// # Errors
/// [`Error::Timeout`] after `limit`; what `is_done` returns.
pub(crate) fn poll(
    what: &'static str,
    limit: Duration,
    mut is_done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    let mut sleep = Duration::from_micros(20);
    while !is_done()? {
        let waited = start.elapsed();
        if waited >= limit {
            return Err(Error::Timeout {
                what,
                seconds: limit.as_secs(),
            });
        }
        if waited < SPIN {
            std::hint::spin_loop();
        } else if waited < YIELD {
            std::thread::yield_now();
        } else {
            std::thread::sleep(sleep.min(limit - waited));
            sleep = (sleep * 2).min(LONGEST_SLEEP);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_the_work_does() {
        for calls in [1, 2, 1000] {
            let mut asked = 0;
            let done = poll("the work", Duration::from_secs(60), || {
                asked += 1;
                Ok(asked == calls)
            });
            assert_eq!((done, asked), (Ok(()), calls));
        }
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_asks_once_more_at_least() {
        let limit = Duration::from_millis(20);
        let start = Instant::now();
        let mut asked = 0;
        let outcome = poll("the stream's work", limit, || {
            asked += 1;
            Ok(false)
        });
        assert!(start.elapsed() >= limit);
        assert!(asked > 3, "{asked}");
        let error = outcome.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the stream's work was not finished after 0 s"
        );
    }

    #[test]
    fn no_time_at_all_still_asks_once() {
        assert_eq!(poll("it", Duration::ZERO, || Ok(true)), Ok(()));
        assert!(poll("it", Duration::ZERO, || Ok(false)).is_err());
    }

    #[test]
    fn what_the_device_says_ends_the_wait() {
        let fault = Error::Driver {
            call: "cuStreamQuery",
            reason: "CUDA_ERROR_ILLEGAL_ADDRESS".to_owned(),
        };
        let outcome = poll("it", Duration::from_secs(60), || Err(fault.clone()));
        assert_eq!(outcome, Err(fault));
    }

    #[test]
    fn the_variable_is_a_number_of_seconds() {
        assert_eq!(timeout_of(None), Ok(DEFAULT_TIMEOUT));
        assert_eq!(timeout_of(Some("")), Ok(DEFAULT_TIMEOUT));
        assert_eq!(timeout_of(Some(" 7 ")), Ok(Duration::from_secs(7)));
        for text in ["0", "-1", "1.5", "soon"] {
            let words = timeout_of(Some(text)).unwrap_err();
            assert!(words.contains(text) && words.contains(TIMEOUT_VARIABLE));
        }
    }
}
