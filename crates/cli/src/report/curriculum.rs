//! The table of `tollgate curriculum`.

use super::bars::bar;
use super::table::{Align, Table};
use super::{Style, filled};
use crate::curriculum::Order;

/// More layers than this are shown as their mean.
const MAX_LISTED_LAYERS: usize = 8;

/// The whole report.
pub fn text(order: &Order, style: Style) -> String {
    let count = order.samples.len();
    let title = format!("Order of {count} samples for the next epoch");
    let mut text = style.titled(&title, &format!("router {}", order.router));
    text.push_str(&format!("  {}\n\n", filled(&order.setting, style.width, 2)));
    const HEADINGS: [&str; MAX_LISTED_LAYERS] =
        ["r_0", "r_1", "r_2", "r_3", "r_4", "r_5", "r_6", "r_7"];
    let listed = order.layers <= MAX_LISTED_LAYERS;
    let headings = match listed {
        true => &HEADINGS[..order.layers],
        false => &["mean r"][..],
    };
    let mut columns = vec![
        ("rank", Align::Right),
        ("sample", Align::Right),
        ("tokens", Align::Right),
        ("two experts", Align::Right),
    ];
    columns.extend(headings.iter().map(|&heading| (heading, Align::Right)));
    columns.push(("similarity", Align::Right));
    let used = 43 + 8 * headings.len();
    let mut rows = Table::new(&columns).with_bars();
    let mean = |r: &[f64]| r.iter().sum::<f64>() / r.len().max(1) as f64;
    for (rank, sample) in order.samples.iter().enumerate() {
        let mut cells = vec![
            (rank + 1).to_string(),
            sample.sample.to_string(),
            sample.tokens.to_string(),
            sample.two_expert_tokens.to_string(),
        ];
        match listed {
            true => cells.extend(sample.complexity.iter().map(|r| format!("{r:.3}"))),
            false => cells.push(format!("{:.3}", mean(&sample.complexity))),
        }
        cells.push(format!("{:.4}", sample.similarity));
        cells.push(bar(
            mean(&sample.complexity),
            1.0,
            style.width.saturating_sub(used),
        ));
        rows.row(cells);
    }
    text.push_str(&rows.render(style));
    text.push('\n');
    for line in [
        "r_l: share of the sample's tokens that took two experts in layer l; bar: their mean",
        "first the sample with the fewest such tokens, then by cosine similarity to it, descending",
    ] {
        text.push_str(&format!(
            "  {}\n",
            style.quiet(&filled(line, style.width, 2))
        ));
    }
    text.push_str(&super::run::notes(&order.notes, style));
    text
}
