//! How many registers a thread of a kernel needs, estimated from the text.
//!
//! ptxas decides in the end; this bound from the lives of the virtual registers serves the occupancy
//! figures where no `.maxnreg` is declared.

use super::{Inst, Src};

/// 32-bit registers live at once at most, plus what every kernel uses; within the hardware's 16…255.
pub(super) fn registers(insts: &[Inst], labels: &[u32], declared: Option<u32>) -> u32 {
    if let Some(declared) = declared {
        return declared;
    }
    // One interval a slot, from the first mention to the last one.
    let mut intervals: Vec<Option<(u32, u32, u32)>> = Vec::new();
    let mut mention = |slot: u32, rows: u8, at: u32| {
        let index = slot as usize;
        if intervals.len() <= index {
            intervals.resize(index + 1, None);
        }
        let (first, _, _) = intervals[index].unwrap_or((at, at, 0));
        intervals[index] = Some((first, at, u32::from(rows)));
    };
    for (at, inst) in insts.iter().enumerate() {
        let at = at as u32;
        for src in inst.reads.iter().chain(&inst.strict) {
            if src.slot & Src::CONSTANT == 0 {
                mention(src.slot, src.rows, at);
            }
        }
        for dst in &inst.writes {
            if let Some(slot) = dst.slot {
                mention(slot, dst.rows, at);
            }
        }
    }
    // What lives when a loop is entered and is read inside lives to the loop's end.
    let mut loops: Vec<(u32, u32)> = Vec::new();
    for (at, inst) in insts.iter().enumerate() {
        if let Some(label) = inst.target
            && labels[label as usize] <= at as u32
        {
            loops.push((labels[label as usize], at as u32));
        }
    }
    let mut change = vec![0_i64; insts.len() + 1];
    for (first, mut last, rows) in intervals.into_iter().flatten() {
        for &(start, end) in &loops {
            if first < start && last >= start && last < end {
                last = end;
            }
        }
        change[first as usize] += i64::from(rows);
        change[last as usize + 1] -= i64::from(rows);
    }
    let mut live = 0;
    let peak = change.into_iter().fold(0, |peak: i64, step| {
        live += step;
        peak.max(live)
    });
    (peak as u32 + 8).clamp(16, 255)
}
