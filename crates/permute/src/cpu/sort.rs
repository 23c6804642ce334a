//! Counting sort of the assignments by expert, stable by token.
//!
//! Blocks of consecutive tokens are counted, an exclusive scan over (expert, block) gives every
//! block its own run of rows in every expert, and each block sorts its assignments beside the maps
//! and copies them into its runs. Runs are disjoint slices, so blocks go in parallel, and the result
//! is that of one block whatever the split.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;
use tollgate_core::{Cpu, Result, RoutingTable};

use super::scratch;
use crate::{PermuteMaps, check};

/// Assignments of a block, unless there are many experts: what is sorted beside the maps (8 bytes
/// each) stays in L2.
const BLOCK: usize = 16 << 10;

/// Tokens whose assignments are expanded at a time, in [`Block::fill`].
const STRETCH: usize = 256;

thread_local! {
    /// `[assignments of a block]`, see [`Block::fill`].
    static SORTED: Cell<Vec<u64>> = const { Cell::new(Vec::new()) };
    /// `[assignments of a stretch]`, see [`expand`].
    static TOKEN_OF: Cell<Vec<i32>> = const { Cell::new(Vec::new()) };
    /// `[blocks, E]`, the assignments of every expert in every block.
    static COUNTS: Cell<Vec<i32>> = const { Cell::new(Vec::new()) };
}

/// Validates the table and fills the maps; nothing is written if it is broken.
pub(super) fn sort(cpu: &Cpu, table: &RoutingTable, maps: &mut PermuteMaps) -> Result<()> {
    check::table(table)?;
    let blocks = blocks(table);
    if blocks.len() == 1 || cpu.threads() == 1 {
        sort_blocks(table, &blocks, maps, false)
    } else {
        cpu.install(|| sort_blocks(table, &blocks, maps, true))
    }
}

/// Ranges of tokens with about as many assignments each.
fn blocks(table: &RoutingTable) -> Vec<Range<usize>> {
    let (tokens, assignments) = (table.num_tokens(), table.num_assignments());
    let wanted = (assignments / BLOCK.max(16 * table.num_experts())).max(1);
    let start = |block: usize| {
        let first = (block * (assignments / wanted)) as i32;
        table
            .token_offsets
            .partition_point(|&o| o < first)
            .min(tokens)
    };
    (0..wanted)
        .map(|b| {
            start(b)..if b + 1 == wanted {
                tokens
            } else {
                start(b + 1)
            }
        })
        .collect()
}

fn sort_blocks(
    table: &RoutingTable,
    blocks: &[Range<usize>],
    maps: &mut PermuteMaps,
    parallel: bool,
) -> Result<()> {
    scratch::with(&COUNTS, |counts| {
        counts.clear();
        counts.resize(blocks.len() * table.num_experts(), 0);
        sort_by_counts(table, blocks, maps, parallel, counts)
    })
}

/// `counts` `[blocks, E]` are zeros.
fn sort_by_counts(
    table: &RoutingTable,
    blocks: &[Range<usize>],
    maps: &mut PermuteMaps,
    parallel: bool,
    counts: &mut [i32],
) -> Result<()> {
    let experts = table.num_experts();
    let mut sound = vec![true; blocks.len()];
    let counting = sound
        .iter_mut()
        .zip(counts.chunks_mut(experts.max(1)))
        .zip(blocks);
    for_each(parallel, counting.collect(), |((sound, counts), tokens)| {
        *sound = count(table, tokens.clone(), counts);
    });
    let claimed = |e: usize| table.expert_offsets[e + 1] - table.expert_offsets[e];
    let counted = |e: usize| counts.iter().skip(e).step_by(experts).sum::<i32>();
    if !sound.iter().all(|&s| s) || !(0..experts).all(|e| claimed(e) == counted(e)) {
        // Validation finds the same again, this time with its place.
        table.validate()?;
    }

    let assignments = table.num_assignments();
    maps.expert_offsets.clone_from(&table.expert_offsets);
    maps.row_of_assignment.resize(assignments, 0);
    maps.assignment_of_row.resize(assignments, 0);
    maps.token_of_row.resize(assignments, 0);

    let mut filling: Vec<Block<'_>> = Vec::with_capacity(blocks.len());
    let mut row_of_assignment = &mut maps.row_of_assignment[..];
    for tokens in blocks {
        let first = table.token_offsets[tokens.start];
        let count = (table.token_offsets[tokens.end] - first) as usize;
        let (rows, rest) = row_of_assignment.split_at_mut(count);
        row_of_assignment = rest;
        let runs = Vec::with_capacity(experts);
        filling.push(Block {
            table,
            tokens: tokens.clone(),
            rows,
            runs,
        });
    }
    let mut row = 0;
    let mut assignment_of_row = &mut maps.assignment_of_row[..];
    let mut token_of_row = &mut maps.token_of_row[..];
    for expert in 0..experts {
        for (i, block) in filling.iter_mut().enumerate() {
            let count = counts[i * experts + expert] as usize;
            let (assignments, rest_a) = assignment_of_row.split_at_mut(count);
            let (tokens, rest_t) = token_of_row.split_at_mut(count);
            (assignment_of_row, token_of_row) = (rest_a, rest_t);
            block.runs.push(Run {
                first_row: row,
                assignments,
                tokens,
            });
            row += count as i32;
        }
    }
    for_each(parallel, filling, Block::fill);
    Ok(())
}

/// `work` for every item.
fn for_each<I: Send>(parallel: bool, items: Vec<I>, work: impl Fn(I) + Sync + Send) {
    if parallel {
        items.into_par_iter().for_each(work);
    } else {
        items.into_iter().for_each(work);
    }
}

/// Adds the assignments of some tokens to `counts` `[E]`; false if one names no expert or a token
/// names one twice.
fn count(table: &RoutingTable, tokens: Range<usize>, counts: &mut [i32]) -> bool {
    let offsets = &table.token_offsets[tokens.start..=tokens.end];
    let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    let indices = &table.expert_indices[first..last];
    let mut sound = true;
    for &expert in indices {
        // A negative index becomes a huge one.
        match counts.get_mut(expert as u32 as usize) {
            Some(count) => *count += 1,
            None => sound = false,
        }
    }
    sound && distinct(indices, offsets, counts.len())
}

/// No token has an expert twice. `offsets` are the tokens' offsets, the first of them that of
/// `indices[0]`; all indices are in range.
fn distinct(indices: &[i32], offsets: &[i32], experts: usize) -> bool {
    let base = offsets[0];
    let tokens = || offsets.iter().zip(&offsets[1..]);
    let mut twice = false;
    if tokens().all(|(&start, &end)| end - start <= 2) {
        // Without a branch on 0, 1 or 2: a mixture of them would be mispredicted. A pair that is
        // compared although its token ends before it does not count.
        for (&start, &end) in tokens() {
            let at = (start - base) as usize;
            if let Some(pair) = indices.get(at..at + 2) {
                twice |= (pair[0] == pair[1]) & (end - start == 2);
            }
        }
    } else {
        // The last token (plus one) that chose each expert.
        let mut seen = vec![0u32; experts];
        for (token, (&start, &end)) in tokens().enumerate() {
            let mark = token as u32 + 1;
            for &e in &indices[(start - base) as usize..(end - base) as usize] {
                let last = &mut seen[e as usize];
                twice |= *last == mark;
                *last = mark;
            }
        }
    }
    !twice
}

/// Some consecutive tokens and what they write.
struct Block<'a> {
    table: &'a RoutingTable,
    tokens: Range<usize>,
    /// `row_of_assignment` of the block's assignments.
    rows: &'a mut [i32],
    /// `[E]`, the block's rows in every expert.
    runs: Vec<Run<'a>>,
}

/// Consecutive rows of one expert.
struct Run<'a> {
    first_row: i32,
    assignments: &'a mut [i32],
    tokens: &'a mut [i32],
}

/// Where the next assignment of an expert goes.
#[derive(Clone, Copy)]
struct Next {
    row: i32,
    /// From the row to the place in the block's own order.
    minus: i32,
}

impl Block<'_> {
    fn fill(self) {
        scratch::with(&SORTED, |sorted| {
            // Whatever is read of it below is written before.
            sorted.resize(self.rows.len(), 0);
            scratch::with(&TOKEN_OF, |token_of| self.fill_by(sorted, token_of));
        });
    }

    /// In `sorted` lie (token, assignment) by expert: scattered there, a word at a time, then
    /// copied to the runs.
    fn fill_by(self, sorted: &mut [u64], token_of: &mut Vec<i32>) {
        let Self {
            table,
            tokens,
            mut rows,
            runs,
        } = self;
        let mut place = 0;
        let mut next: Vec<Next> = Vec::with_capacity(runs.len());
        for run in &runs {
            next.push(Next {
                row: run.first_row,
                minus: run.first_row - place,
            });
            place += run.assignments.len() as i32;
        }
        for first in tokens.clone().step_by(STRETCH) {
            let end = tokens.end.min(first + STRETCH);
            let offsets = &table.token_offsets[first..=end];
            expand(offsets, first as i32, token_of);
            let experts = &table.expert_indices[offsets[0] as usize..offsets[end - first] as usize];
            let (stretch_rows, rest) = rows.split_at_mut(experts.len());
            rows = rest;
            let base = offsets[0] as u64;
            let all = stretch_rows.iter_mut().zip(experts).zip(&*token_of);
            for (i, ((row, &expert), &token)) in all.enumerate() {
                let next = &mut next[expert as usize];
                *row = next.row;
                sorted[(next.row - next.minus) as usize] = (token as u64) << 32 | (base + i as u64);
                next.row += 1;
            }
        }
        let mut sorted = &*sorted;
        for run in runs {
            let (mine, rest) = sorted.split_at(run.assignments.len());
            sorted = rest;
            let places = run.assignments.iter_mut().zip(run.tokens);
            for ((assignment, token), &both) in places.zip(mine) {
                *assignment = both as u32 as i32;
                *token = (both >> 32) as i32;
            }
        }
    }
}

/// The token of every assignment between the first offset and the last, and two spare entries.
///
/// Every token writes two entries whatever its number of experts; the tokens after it overwrite
/// what was too much. So mixtures of 0, 1 and 2 experts run without a misprediction.
fn expand(offsets: &[i32], first_token: i32, token_of: &mut Vec<i32>) {
    let base = offsets[0];
    let count = (offsets[offsets.len() - 1] - base) as usize;
    token_of.resize(count + 2, 0);
    for (i, (&start, &end)) in offsets.iter().zip(&offsets[1..]).enumerate() {
        let (start, count) = ((start - base) as usize, (end - start) as usize);
        let token = first_token + i as i32;
        token_of[start] = token;
        token_of[start + 1] = token;
        if count > 2 {
            token_of[start + 2..start + count].fill(token);
        }
    }
}
