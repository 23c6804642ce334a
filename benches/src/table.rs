//! The table that follows each operation.

use std::fmt::Write;

use crate::limits::Limits;
use crate::work::Work;

/// One benchmark's result.
#[derive(Debug, Clone)]
pub struct Row {
    /// `shape/dtype/impl`.
    pub id: String,
    /// What an iteration does.
    pub work: Work,
    /// Seconds an iteration, one value a sample.
    pub samples: Vec<f64>,
    /// Cores that other processes used meanwhile.
    pub foreign_cores: f64,
}

/// Other load below this many cores is not worth a remark.
const QUIET_CORES: f64 = 0.1;

/// Median of the samples; the mean of the middle two if their number is even. Panics on none.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

/// A time with three or four digits and its unit.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let decimals = match value {
        v if v < 10.0 => 3,
        v if v < 100.0 => 2,
        _ => 1,
    };
    format!("{value:.decimals$} {unit}")
}

/// The table of an operation: median and best time, rate at the median, share of the limit.
pub fn render(op: &str, rows: &[Row], limits: &Limits) -> String {
    let width = rows.iter().map(|r| r.id.len()).chain([op.len()]).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{op:<width$}  {:>10}  {:>10}  {:>16}  share of limit",
        "median", "best", "rate"
    );
    for row in rows {
        let Row {
            id, work, samples, ..
        } = row;
        let seconds = median(samples);
        let best = samples.iter().copied().fold(f64::INFINITY, f64::min);
        let (rate, unit) = work.rate(seconds);
        let rate = format!("{:.1} {unit}", rate / 1e9);
        let share = match work.floor_seconds(limits) {
            Some((floor, limit)) => format!("{:5.1} % of {limit}", 100.0 * floor / seconds),
            None => "      – (from the caches)".to_owned(),
        };
        let (seconds, best) = (time(seconds), time(best));
        let _ = write!(
            text,
            "{id:<width$}  {seconds:>10}  {best:>10}  {rate:>16}  {share}"
        );
        let _ = match row.foreign_cores {
            cores if cores < QUIET_CORES => writeln!(text),
            cores => writeln!(text, "  ! others used {cores:.1} cores"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Rate;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[1.0]), 1.0);
    }

    #[test]
    fn times_keep_their_digits() {
        assert_eq!(time(1.5e-8), "15.00 ns");
        assert_eq!(time(1.234_5e-3), "1.234 ms");
        assert_eq!(time(0.291), "291.0 ms");
        assert_eq!(time(2.0), "2.000 s");
    }

    #[test]
    fn a_row_names_its_share_and_its_limit() {
        let rate = Rate { one: 1e9, all: 2e9 };
        let limits = Limits {
            threads: 2,
            f32_flops: rate,
            bf16_flops: None,
            read: rate,
            copy: rate,
            memcpy: rate,
        };
        let row = Row {
            id: "s/f32/tollgate".to_owned(),
            work: Work::traffic(500_000_000, 500_000_000),
            samples: vec![1.0, 0.5, 1.5],
            foreign_cores: 0.05,
        };
        let text = render("op", std::slice::from_ref(&row), &limits);
        let line = text.lines().nth(1).unwrap();
        for part in [
            "s/f32/tollgate",
            "1.000 s",
            "500.0 ms",
            "1.0 GB/s",
            "50.0 % of RAM",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!text.contains("others"), "{text}");
        let disturbed = Row {
            foreign_cores: 0.84,
            ..row
        };
        let text = render("op", &[disturbed], &limits);
        assert!(text.contains("! others used 0.8 cores"), "{text}");
    }
}
