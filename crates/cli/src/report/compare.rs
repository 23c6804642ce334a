//! The table of `tollgate compare`.

use super::bars::bar;
use super::table::{Align, Table};
use super::{Style, filled, percent};
use crate::compare::Comparison;

/// The whole report.
pub fn text(comparison: &Comparison, style: Style) -> String {
    let width = style.width;
    let mut text = style.titled(
        "Routers compared",
        &match comparison.top2_ms {
            Some(ms) => format!("top2: {ms:.2} ms"),
            None => "virtual GPU: counted, not timed".to_owned(),
        },
    );
    let counts = comparison.top2_ms.is_none();
    for line in [&comparison.input, &comparison.setting] {
        text.push_str(&format!("  {}\n", filled(line, width, 2)));
    }
    text.push('\n');
    let mut rows = Table::new(&[
        ("router", Align::Left),
        ("work", Align::Right),
        (if counts { "instr." } else { "time" }, Align::Right),
        ("paper", Align::Right),
        (if counts { "10^6" } else { "ms" }, Align::Right),
        ("top-2", Align::Right),
        ("balance", Align::Right),
        ("load cv", Align::Right),
    ])
    .with_bars();
    let longest = comparison
        .rows
        .iter()
        .map(|r| r.router.chars().count())
        .max()
        .unwrap_or(6);
    let columns = width.saturating_sub(longest.max(6) + 64);
    let slowest = comparison.rows.iter().map(|r| r.time).fold(0.0, f64::max);
    for row in &comparison.rows {
        rows.row([
            row.router.clone(),
            format!("{:.2}", row.computation),
            format!("{:.2}", row.time),
            row.paper.map_or_else(String::new, |p| format!("{p:.2}")),
            match (row.ms, row.instructions) {
                (Some(ms), _) => format!("{ms:.2}"),
                (None, count) => format!("{:.1}", count.unwrap_or(0) as f64 / 1e6),
            },
            percent(row.two_expert_share),
            row.balance
                .map_or_else(|| "–".to_owned(), |b| format!("{b:.5}")),
            format!("{:.3}", row.load_variation),
            bar(row.time, slowest, columns),
        ]);
    }
    text.push_str(&rows.render(style));
    text.push('\n');
    for line in [
        "work: assignments, i.e. rows that the experts compute, over those of top2",
        match counts {
            true => "instr.: of the layer's warps, over top2's; 10^6: the same in millions",
            false => "time: of the layer, over top2's in the same round; median over the rounds",
        },
        "paper: the same in Table 1 of the adaptive-gating paper (Li et al. 2023), measured there \
         with 8 GPUs",
        "balance: the loss with its coefficient; load cv: variation of the rows per expert",
    ] {
        text.push_str(&format!("  {}\n", style.quiet(&filled(line, width, 2))));
    }
    text.push_str(&super::run::notes(&comparison.notes, style));
    text
}
