//! What a launch did, as tables.

use std::fmt::Write;

use serde_json::Value;
use tollgate_vgpu::counters::{Counters, Traffic};
use tollgate_vgpu::host::{LaunchRecord, Limit};
use tollgate_vgpu::program::Class;

use crate::report::Style;
use crate::report::table::{Align, Table};

/// The name of a class, as in JSON.
pub fn class_name(class: Class) -> String {
    match serde_json::to_value(class) {
        Ok(Value::String(name)) => name,
        _ => format!("{class:?}").to_lowercase(),
    }
}

/// The tables of a launch.
pub fn tables(record: &LaunchRecord, style: Style) -> String {
    let counters = &record.counters;
    let mut text = memory(counters).render(style);
    text.push('\n');
    text.push_str(&instructions(counters).render(style));
    text.push('\n');
    text.push_str(&summary(record).render(style));
    text
}

/// A row of the memory table: name, warp instructions, bytes asked for, bytes moved, and the passes
/// over the banks with those that conflicts add.
struct Row {
    name: &'static str,
    instructions: Option<u64>,
    requested: u64,
    moved: Option<u64>,
    passes: Option<(u64, u64)>,
}

fn memory(counters: &Counters) -> Table {
    let global = |name, traffic: &Traffic| Row {
        name,
        instructions: Some(traffic.instructions),
        requested: traffic.requested_bytes,
        moved: Some(traffic.moved_bytes()),
        passes: None,
    };
    let shared = |name, traffic: &Traffic| Row {
        name,
        instructions: Some(traffic.instructions),
        requested: traffic.requested_bytes,
        moved: None,
        passes: Some((traffic.wavefronts, traffic.conflicts)),
    };
    let plain = |name, traffic: &Traffic| Row {
        passes: None,
        ..shared(name, traffic)
    };
    let copies = |name, requested, sectors: Option<u64>| Row {
        name,
        instructions: None,
        requested,
        moved: sectors.map(|sectors| 32 * sectors),
        passes: None,
    };
    let c = counters;
    let rows = [
        global("global reads", &c.global_read),
        global("global writes", &c.global_write),
        global("global atomics", &c.global_atomic),
        copies("copies in", c.async_read_bytes, Some(c.async_read_sectors)),
        copies(
            "copies out",
            c.async_write_bytes,
            Some(c.async_write_sectors),
        ),
        shared("shared reads", &c.shared_read),
        shared("shared writes", &c.shared_write),
        shared("shared atomics", &c.shared_atomic),
        copies("other blocks' shared", c.distributed_shared_bytes, None),
        plain("local reads", &c.local_read),
        plain("local writes", &c.local_write),
        plain("constants", &c.constant_read),
    ];
    let mut table = Table::new(&[
        ("memory", Align::Left),
        ("instructions", Align::Right),
        ("bytes asked", Align::Right),
        ("moved", Align::Right),
        ("moved/asked", Align::Right),
        ("passes", Align::Right),
        ("conflicts", Align::Right),
    ]);
    for row in rows
        .iter()
        .filter(|row| row.requested > 0 || row.instructions > Some(0))
    {
        let passes = row.passes.map(|(passes, _)| grouped(passes));
        let conflicts = row.passes.map(|(_, conflicts)| grouped(conflicts));
        let ratio = row.moved.map(|moved| ratio(moved, row.requested));
        table.row([
            row.name.to_owned(),
            row.instructions.map(grouped).unwrap_or_default(),
            grouped(row.requested),
            row.moved.map(grouped).unwrap_or_default(),
            ratio.unwrap_or_default(),
            passes.unwrap_or_default(),
            conflicts.unwrap_or_default(),
        ]);
    }
    table
}

fn instructions(counters: &Counters) -> Table {
    let mut table = Table::new(&[
        ("warp instructions", Align::Left),
        ("count", Align::Right),
        ("share", Align::Right),
    ]);
    let total = counters.total_instructions();
    for class in Class::ALL {
        let count = counters.instructions(class);
        if count > 0 {
            table.row([class_name(class), grouped(count), percent(count, total)]);
        }
    }
    table.row(["all".to_owned(), grouped(total), percent(total, total)]);
    table
}

fn summary(record: &LaunchRecord) -> Table {
    let counters = &record.counters;
    let total = counters.total_instructions();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Right), ("", Align::Left)]);
    let mut row = |name: &str, value: u64, remark: String| {
        table.row([name.to_owned(), grouped(value), remark]);
    };
    let lanes = percent(counters.thread_instructions, 32 * total);
    let remark = format!("{} of the lanes at work", lanes.trim());
    row("thread instructions", counters.thread_instructions, remark);
    let remark = format!("of {} branches", grouped(counters.branches));
    row("divergent branches", counters.divergent_branches, remark);
    row(
        "barrier arrivals",
        counters.barrier_arrivals,
        "by warp".to_owned(),
    );
    row(
        "barrier waits",
        counters.barrier_waits,
        "turns that found a warp waiting".to_owned(),
    );
    if counters.tensor_flops > 0 {
        row("tensor flops", counters.tensor_flops, String::new());
    }
    row("blocks", counters.blocks, String::new());
    let shared = record.static_shared + record.dynamic_shared;
    row(
        "registers a thread",
        record.registers.into(),
        "declared or estimated".to_owned(),
    );
    row("shared bytes a block", shared.into(), String::new());
    let occupancy = &record.occupancy;
    let remark = format!(
        "{:.0} % of the warps; limited by {}",
        100.0 * occupancy.share,
        limit(occupancy.limited_by)
    );
    row("blocks an SM", occupancy.blocks_per_sm.into(), remark);
    table
}

fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Threads => "threads",
        Limit::Blocks => "blocks",
        Limit::Registers => "registers",
        Limit::SharedMemory => "shared memory",
    }
}

fn ratio(moved: u64, asked: u64) -> String {
    match asked {
        0 => String::new(),
        _ => format!("{:.2}", moved as f64 / asked as f64),
    }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// Digits in groups of three.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One line about a launch.
pub fn headline(record: &LaunchRecord) -> String {
    let [grid, block, cluster] = [record.grid, record.block, record.cluster].map(extent);
    let mut text = format!("{}: grid {grid}, block {block}", record.kernel);
    if cluster != "1" {
        let _ = write!(text, ", cluster {cluster}");
    }
    if record.dynamic_shared > 0 {
        let _ = write!(
            text,
            ", {} bytes of shared memory",
            grouped(record.dynamic_shared.into())
        );
    }
    let _ = write!(text, ", device {}", record.device);
    text
}

fn extent([x, y, z]: [u32; 3]) -> String {
    match (y, z) {
        (1, 1) => x.to_string(),
        (_, 1) => format!("{x}×{y}"),
        _ => format!("{x}×{y}×{z}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(extent([4, 1, 1]), "4");
        assert_eq!(extent([4, 1, 2]), "4×1×2");
        assert_eq!(ratio(64, 32), "2.00");
    }
}
