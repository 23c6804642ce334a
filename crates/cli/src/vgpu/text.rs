//! The report for people.

use std::fmt::Write;

use tollgate_vgpu::report::{Report, Site};

use super::counters::{grouped, headline, tables};
use super::excerpt::Sources;
use super::plan::check_names;
use super::run::{Difference, Finding, Runs};
use super::session::Trace;
use crate::report::table::{Align, Table};
use crate::report::{Style, filled, plural};

/// Findings that are shown in full; JSON has all.
const SHOWN: usize = 20;
/// Seeds that are named.
const SEEDS: usize = 8;

/// The whole report.
pub fn runs(runs: &Runs<'_>, sources: &Sources, style: Style) -> String {
    let (args, config) = (runs.args, &runs.plan.config);
    let file = args.file.file_name().unwrap_or(args.file.as_os_str());
    let seeds = match args.seeds {
        1 => format!("seed {}", args.seed),
        n => format!("seeds {} to {}", args.seed, args.seed + u64::from(n) - 1),
    };
    let title = format!(
        "{}: {} on {}, {seeds}",
        file.to_string_lossy(),
        plural(runs.plan.groups.len(), "launch").replace("launchs", "launches"),
        match config.devices {
            1 => config.arch.name.to_owned(),
            n => format!("{n} {}", config.arch.name),
        },
    );
    let checks = match check_names(config.checks) {
        names if names.is_empty() => "no optional checks".to_owned(),
        names => format!("checks: {}", names.join(", ")),
    };
    let mut text = style.titled(&title, &checks);
    for (i, finding) in runs.findings.iter().take(SHOWN).enumerate() {
        text.push_str(&one(i + 1, finding, runs, sources, style));
    }
    text.push_str(&verdict(runs, style));
    for difference in &runs.differences {
        text.push_str(&differs(difference, runs, style));
    }
    for trace in &runs.first.traces {
        text.push_str(&steps(trace, runs, style));
    }
    if args.counters {
        for record in &runs.first.launches {
            let _ = write!(text, "\n{}", style.titled(&headline(record), ""));
            if !record.complete {
                text.push_str("  ended by a fault: what it did until then\n");
            }
            text.push_str(&tables(record, style));
        }
    }
    for (name, count) in &args.prints {
        text.push_str(&values(name, *count, runs, style));
    }
    text
}

fn one(
    number: usize,
    finding: &Finding,
    runs: &Runs<'_>,
    sources: &Sources,
    style: Style,
) -> String {
    let report = &finding.report;
    let kind = format!("{number}. {}: ", report.kind);
    let indent = 3;
    let message = filled(
        &report.message,
        style.width - kind.chars().count().min(20),
        indent,
    );
    let mut text = format!("\n{}{message}\n", style.heading(&kind));
    let _ = writeln!(text, "   {}", style.quiet(&origin(report, finding, runs)));
    text.push_str(&place(&report.site, sources));
    if let Some(other) = &report.other {
        text.push_str("   and\n");
        text.push_str(&place(other, sources));
    }
    text
}

fn origin(report: &Report, finding: &Finding, runs: &Runs<'_>) -> String {
    let mut text = String::new();
    if !report.kernel.is_empty() {
        let _ = write!(text, "kernel {}, ", report.kernel);
    }
    let _ = write!(text, "device {}, ", report.device);
    match runs.args.seeds {
        1 => {
            let _ = write!(text, "seed {}", runs.args.seed);
        }
        all => text.push_str(&some_seeds(&finding.seeds, all)),
    }
    text
}

fn some_seeds(seeds: &[u64], all: u32) -> String {
    let named: Vec<String> = seeds.iter().take(SEEDS).map(u64::to_string).collect();
    let more = if seeds.len() > SEEDS { ", …" } else { "" };
    let word = if seeds.len() == 1 { "seed" } else { "seeds" };
    format!(
        "{word} {}{more} ({} of {all})",
        named.join(", "),
        seeds.len()
    )
}

fn place(site: &Site, sources: &Sources) -> String {
    let mut text = format!("   {}", site.action);
    let triple = |[x, y, z]: [u32; 3]| format!("({x},{y},{z})");
    if let Some(block) = site.block {
        let _ = write!(text, " by block {}", triple(block));
    }
    if let Some(thread) = site.thread {
        let _ = write!(text, " thread {}", triple(thread));
    }
    text.push('\n');
    text.push_str(&sources.show(site, 5));
    text
}

fn verdict(runs: &Runs<'_>, style: Style) -> String {
    let found = runs.findings.len();
    let mut text = String::from("\n");
    if found == 0 {
        let said = match runs.args.seeds {
            1 => "nothing found".to_owned(),
            n => format!("nothing found in {n} schedules"),
        };
        let _ = writeln!(text, "{}", style.heading(&said));
        return text;
    }
    let mut said = plural(found, "finding");
    if runs.args.seeds > 1 {
        let _ = write!(said, "; {}", some_seeds(&runs.fired, runs.args.seeds));
    }
    if found > SHOWN {
        let _ = write!(said, "; {} more with --json", found - SHOWN);
    }
    let _ = writeln!(text, "{}", style.heading(&said));
    text
}

fn differs(difference: &Difference, runs: &Runs<'_>, style: Style) -> String {
    let buffer = &runs.plan.buffers[difference.buffer].buffer;
    let show = |bits| buffer.element.show(bits);
    let said = format!(
        "{} depends on the schedule: {}[{}] is {} with seed {} and {} with seed {}; {} of {} seeds \
         differ from seed {}",
        buffer.name,
        buffer.name,
        difference.element,
        show(difference.before),
        runs.args.seed,
        show(difference.after),
        difference.seed,
        difference.seeds,
        runs.args.seeds,
        runs.args.seed,
    );
    filled(&said, style.width, 2) + "\n"
}

fn steps(trace: &Trace, runs: &Runs<'_>, style: Style) -> String {
    let record = runs
        .first
        .launches
        .iter()
        .find(|record| record.launch == trace.launch);
    let kernel = record.map_or(String::new(), |record| format!(" of {}", record.kernel));
    let title = format!(
        "launch {}{kernel}: the first {}",
        trace.launch + 1,
        plural(trace.steps.len(), "warp instruction")
    );
    let mut table = Table::new(&[
        ("block", Align::Right),
        ("warp", Align::Right),
        ("lanes", Align::Right),
        ("line", Align::Right),
        ("instruction", Align::Left),
    ]);
    for step in &trace.steps {
        table.row([
            step.block.to_string(),
            step.warp.to_string(),
            format!("{:08x}", step.lanes),
            step.line.to_string(),
            step.text.clone(),
        ]);
    }
    format!("\n{}{}", style.titled(&title, ""), table.render(style))
}

fn values(name: &str, count: usize, runs: &Runs<'_>, style: Style) -> String {
    let Ok(index) = runs.plan.find(name) else {
        return String::new();
    };
    let element = runs.plan.buffers[index].buffer.element;
    let Some(bytes) = &runs.first.buffers[index] else {
        return format!("\n{}  lost by the fault\n", style.titled(name, ""));
    };
    let all = bytes.len() / element.bytes();
    let shown: Vec<String> = element
        .bits_of(bytes)
        .take(count)
        .map(|bits| element.show(bits))
        .collect();
    let title = format!("{name}: {} of {}", shown.len(), grouped(all as u64));
    let mut text = format!("\n{}", style.titled(&title, element.name()));
    let widest = shown.iter().map(String::len).max().unwrap_or(1);
    let digits = shown.len().to_string().len();
    // Rows of a power of two: indices are easy to find.
    let fits = ((style.width - digits - 4) / (widest + 2)).max(1);
    let per_row = 1 << fits.ilog2().min(4);
    for (row, cells) in shown.chunks(per_row).enumerate() {
        let _ = write!(text, "  {:>digits$}:", row * per_row);
        for cell in cells {
            let _ = write!(text, "  {cell:>widest$}");
        }
        text.push('\n');
    }
    text
}
