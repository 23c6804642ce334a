//! The report of a grid in which nothing moves any more: who waits where and for what, and whose
//! mistake that may be.

use std::collections::HashMap;

use super::block::Block;
use super::cluster::Cluster;
use super::grid::Grid;
use super::warp::{Split, Wait, Warp};
use crate::exec::Fault;
use crate::lane::LANES;
use crate::program::{Class, Inst, Program};
use crate::report::{Kind, Report, Site};

/// Different places that a report lists.
const SHOWN: usize = 6;

/// All threads wait.
pub(super) fn deadlock(clusters: &[&Cluster], program: &Program, grid: &Grid) -> Box<Fault> {
    let places = places(clusters, program);
    if let Some(diagnosis) = transactions(clusters) {
        let words = format!("a phase that nothing completes, {diagnosis}; threads wait:");
        return report(Kind::TransactionCount, words, &places, None, program, grid);
    }
    for (index, place) in places.iter().enumerate() {
        if let Some(kind) = parted(place, program) {
            let words = "lanes of a warp wait for lanes that are elsewhere:".to_owned();
            return report(kind, words, &places, Some(index), program, grid);
        }
    }
    if let Some(index) = mixed_barriers(&places) {
        let words = "threads of one block wait at different barriers:".to_owned();
        return report(
            Kind::DivergentBarrier,
            words,
            &places,
            Some(index),
            program,
            grid,
        );
    }
    let words = "every thread waits:".to_owned();
    report(Kind::Deadlock, words, &places, None, program, grid)
}

/// The budget is spent.
pub(super) fn livelock(
    clusters: &[&Cluster],
    program: &Program,
    grid: &Grid,
    budget: u64,
) -> Box<Fault> {
    let places = places(clusters, program);
    let words = format!("not complete after {budget} warp instructions");
    match transactions(clusters) {
        Some(diagnosis) => {
            let words = format!("{words}; {diagnosis}:");
            report(Kind::TransactionCount, words, &places, None, program, grid)
        }
        None => report(Kind::Livelock, words + ":", &places, None, program, grid),
    }
}

/// Lanes that are stuck.
struct Place<'c> {
    cluster: &'c Cluster,
    block: &'c Block,
    warp: &'c Warp,
    split: &'c Split,
    /// The instruction that waits.
    pc: usize,
}

fn places<'c>(clusters: &[&'c Cluster], program: &Program) -> Vec<Place<'c>> {
    let mut all = Vec::new();
    for &cluster in clusters {
        for block in &cluster.blocks {
            for warp in block.warps.iter().flatten() {
                all.extend(warp.splits.iter().map(|split| {
                    Place {
                        cluster,
                        block,
                        warp,
                        split,
                        pc: (split.pc.saturating_sub(split.behind.into()) as usize)
                            .min(program.insts.len() - 1),
                    }
                }));
            }
        }
    }
    all
}

impl Place<'_> {
    fn why(&self) -> String {
        match &self.split.wait {
            None => "runs".to_owned(),
            Some(Wait::Converge(_)) => format!(
                "waits for lanes {:#010x} of its warp, which do not come",
                self.missing()
            ),
            Some(Wait::For { reason, .. }) => reason(self.cluster),
        }
    }

    /// Lanes of the warp that it waits for.
    fn missing(&self) -> u32 {
        match self.split.wait {
            Some(Wait::Converge(lanes)) => lanes & self.warp.live & !self.split.mask,
            _ => 0,
        }
    }

    fn site(&self, program: &Program, grid: &Grid) -> Site {
        let inst = &program.insts[self.pc];
        let lane = self.split.mask.trailing_zeros();
        Site {
            action: inst.action(),
            block: Some(self.block.index),
            thread: Some(grid.thread_index(self.warp.index * LANES as u32 + lane)),
            ptx_line: inst.line,
            ptx: inst.text.to_string(),
            source: inst.source.clone(),
        }
    }
}

/// What an mbarrier that somebody waits for lacks in bytes, or has too many.
fn transactions(clusters: &[&Cluster]) -> Option<String> {
    let mut blocks = clusters.iter().flat_map(|cluster| &cluster.blocks);
    blocks.find_map(|block| block.mbarriers.diagnose(&block.shared))
}

/// The mistake if the lanes of a warp wait for each other at different instructions. Lanes that wait
/// for something else, such as a copy, are not to blame for the others' wait.
fn parted(place: &Place<'_>, program: &Program) -> Option<Kind> {
    let missing = place.missing();
    if missing == 0 {
        return None;
    }
    let others = place
        .warp
        .splits
        .iter()
        .filter(|split| split.mask & missing != 0);
    let at_barriers = others.clone().all(|split| match split.wait {
        Some(Wait::Converge(_)) => true,
        Some(Wait::For { .. }) => split.behind && is_barrier(&program.insts[split.pc as usize - 1]),
        None => false,
    });
    let inst = &program.insts[place.pc];
    let by_mask = inst.class == Class::Warp || inst.action().starts_with("bar.warp");
    match (at_barriers, by_mask) {
        (false, _) => None,
        (true, true) => Some(Kind::WrongMask),
        (true, false) => Some(Kind::DivergentBarrier),
    }
}

/// `bar` and `barrier`, whose waits go on behind them.
fn is_barrier(inst: &Inst) -> bool {
    inst.action().starts_with("bar")
}

/// A place whose block's threads all wait at barriers of the block, but at different ones.
fn mixed_barriers(places: &[Place<'_>]) -> Option<usize> {
    places.iter().position(|place| {
        let used = place
            .block
            .barriers
            .iter()
            .filter(|barrier| !barrier.waiters.is_empty());
        let same_block = |other: &&Place<'_>| std::ptr::eq(other.block, place.block);
        used.count() > 1
            && places.iter().filter(same_block).all(|other| {
                other.split.behind && matches!(other.split.wait, Some(Wait::For { .. }))
            })
    })
}

/// Places that wait at the same instruction for the same are listed once.
fn listed(places: &[Place<'_>], program: &Program) -> (String, Vec<usize>) {
    let mut distinct: Vec<(usize, String, usize)> = Vec::new();
    let mut known: HashMap<(usize, String), usize> = HashMap::new();
    for (index, place) in places.iter().enumerate() {
        let why = place.why();
        match known.get(&(place.pc, why.clone())) {
            Some(&entry) => distinct[entry].2 += 1,
            None => {
                known.insert((place.pc, why.clone()), distinct.len());
                distinct.push((index, why, 0));
            }
        }
    }
    let mut text = String::new();
    for (index, why, more) in distinct.iter().take(SHOWN) {
        let place = &places[*index];
        let inst = &program.insts[place.pc];
        let [x, y, z] = place.block.index;
        text.push_str(&format!(
            "\n    block ({x},{y},{z}) warp {} lanes {:#010x}: {why} (PTX line {}",
            place.warp.index, place.split.mask, inst.line
        ));
        if let Some(source) = &inst.source {
            text.push_str(&format!(", {}:{}", source.file, source.line));
        }
        text.push(')');
        if *more > 0 {
            text.push_str(&format!(", and {more} more like it"));
        }
    }
    if distinct.len() > SHOWN {
        text.push_str(&format!(
            "\n    … and {} other places",
            distinct.len() - SHOWN
        ));
    }
    (
        text,
        distinct.into_iter().map(|(index, ..)| index).collect(),
    )
}

/// The report, about the place `chosen` or else the first one; another one stands beside it.
fn report(
    kind: Kind,
    words: String,
    places: &[Place<'_>],
    chosen: Option<usize>,
    program: &Program,
    grid: &Grid,
) -> Box<Fault> {
    let (text, distinct) = listed(places, program);
    let first = chosen.unwrap_or(0);
    let site = places.get(first).map_or_else(
        || Site {
            action: "launch".to_owned(),
            block: None,
            thread: None,
            ptx_line: 0,
            ptx: String::new(),
            source: None,
        },
        |place| place.site(program, grid),
    );
    let other = distinct
        .into_iter()
        .map(|index| &places[index])
        .find(|place| place.pc != places[first].pc)
        .map(|place| place.site(program, grid));
    Box::new(Fault(Report {
        kind,
        message: format!("{words}{text}"),
        kernel: program.name.to_string(),
        device: grid.device,
        site,
        other,
        seed: grid.seed,
    }))
}
