//! Bars of block characters, exact to an eighth of a column.

/// Left parts of a full block, by eighths.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// A bar of `value / largest` of `columns`; what is more than nothing is seen.
pub fn bar(value: f64, largest: f64, columns: usize) -> String {
    // Written so that a NaN gives no bar.
    if !(value > 0.0 && largest > 0.0) {
        return String::new();
    }
    let share = (value / largest).min(1.0);
    let eighths = ((share * (8 * columns) as f64).round() as usize).max(1);
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(EIGHTHS[eighths % 8]);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_proportional_and_never_hide_a_little() {
        assert_eq!(bar(1.0, 1.0, 4), "████");
        assert_eq!(bar(0.5, 1.0, 3), "█▌");
        assert_eq!(bar(1e-9, 1.0, 4), "▏");
        assert_eq!(bar(0.0, 1.0, 4), "");
        assert_eq!(bar(2.0, 1.0, 2), "██");
        for (value, largest) in [(f64::NAN, 1.0), (1.0, f64::NAN), (1.0, 0.0), (-1.0, 1.0)] {
            assert_eq!(bar(value, largest, 4), "");
        }
    }
}
