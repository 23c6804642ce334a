//! In which order rows that repeat a token's data are written.
//!
//! Rows are expert-major, so walking them in order reads every token's row once an expert, each
//! time from memory if the tokens do not fit a cache. A tile is the rows of one expert whose tokens
//! lie in one block; a thread that takes a block's tiles, expert after expert, reads the block's
//! tokens from memory once.

use std::ops::Range;

use tollgate_core::Cpu;

use super::units;
use crate::PermuteMaps;

/// Token matrices beyond this many bytes are read by blocks.
const FITS_CACHE: usize = 1 << 20;

/// Bytes of a block of tokens: a share of L2 that the rows written beside it leave in place.
const BLOCK_BYTES: usize = 256 << 10;

/// A partition of the rows: tile (expert, block) is `points[e·B + b] .. points[e·B + b + 1]`.
pub(super) struct Tiles {
    points: Vec<i32>,
    blocks: usize,
}

impl Tiles {
    /// Tiles of rows that touch `bytes` altogether and read `tokens` rows of `token_bytes`.
    pub(super) fn new(
        cpu: &Cpu,
        maps: &PermuteMaps,
        tokens: usize,
        token_bytes: usize,
        bytes: usize,
    ) -> Self {
        let rows = maps.token_of_row.len();
        let units = units(cpu, bytes);
        let read = tokens.saturating_mul(token_bytes);
        if rows > tokens && read > FITS_CACHE {
            let experts = maps.expert_offsets.len().max(1);
            // No more tiles than rows.
            let blocks = (read / BLOCK_BYTES).max(units).min(rows / experts);
            if let Some(tiles) = Self::by_tokens(maps, tokens, blocks) {
                return tiles;
            }
        }
        Self::by_rows(rows, units)
    }

    /// Equal runs of rows.
    fn by_rows(rows: usize, units: usize) -> Self {
        let step = rows.div_ceil(units).max(1);
        let points: Vec<i32> = (0..rows)
            .step_by(step)
            .chain([rows])
            .map(|r| r as i32)
            .collect();
        Self {
            blocks: points.len() - 1,
            points,
        }
    }

    /// Blocks of tokens; none if the maps are not sorted by expert and token (they need not be).
    fn by_tokens(maps: &PermuteMaps, tokens: usize, blocks: usize) -> Option<Self> {
        let (offsets, rows) = (&maps.expert_offsets, maps.token_of_row.len());
        let covers = offsets.first() == Some(&0) && offsets.last() == Some(&(rows as i32));
        if blocks < 2 || !covers || !offsets.is_sorted() {
            return None;
        }
        let step = tokens.div_ceil(blocks);
        let blocks = tokens.div_ceil(step);
        let mut points = Vec::with_capacity((offsets.len() - 1) * blocks + 1);
        for (&start, &end) in offsets.iter().zip(&offsets[1..]) {
            let of_expert = &maps.token_of_row[start as usize..end as usize];
            if !of_expert.is_sorted() {
                return None;
            }
            let mut at = 0;
            for block in 0..blocks {
                let first_token = block * step;
                at += of_expert[at..].partition_point(|&t| (t as usize) < first_token);
                points.push(start + at as i32);
            }
        }
        points.push(rows as i32);
        Some(Self { points, blocks })
    }

    /// Exclusive prefix sums of the tiles' sizes, in row order.
    pub(super) fn points(&self) -> &[i32] {
        &self.points
    }

    /// Deals what belongs to each tile, given in row order, to the blocks. Empty tiles are left
    /// out.
    pub(super) fn deal<P>(
        &self,
        parts: impl IntoIterator<Item = P>,
    ) -> Vec<Vec<(Range<usize>, P)>> {
        let mut blocks: Vec<_> = (0..self.blocks).map(|_| Vec::new()).collect();
        for (i, (pair, part)) in self.points.windows(2).zip(parts).enumerate() {
            let rows = pair[0] as usize..pair[1] as usize;
            if !rows.is_empty() {
                blocks[i % self.blocks].push((rows, part));
            }
        }
        blocks
    }
}
