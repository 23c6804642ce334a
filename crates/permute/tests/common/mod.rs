//! Strided, unaligned, fenced matrices and the list of cases.
#![allow(dead_code)]

use tollgate_core::{Cpu, Element, RoutingTable, RowView, RowViewMut};
use tollgate_permute::{Permute, PermuteMaps};
use tollgate_testkit::{Case, Guarded, LogitKind, assert_same, edge_cases};

/// Experts a token at most, as every case is run.
pub const MAX_K: [usize; 3] = [1, 2, 8];

/// The named cases and two that are large enough for threads and for blocks of tokens.
pub fn cases() -> Vec<Case> {
    let mut cases = edge_cases();
    for (name, tokens, experts, hidden) in [
        ("parallel", 700, 12, 130),
        ("blocks of tokens", 1500, 5, 203),
    ] {
        let (intermediate, logits, seed) = (1, LogitKind::Random, 7);
        cases.push(Case {
            name,
            tokens,
            experts,
            hidden,
            intermediate,
            logits,
            seed,
        });
    }
    cases
}

/// The table of a case with f32 weights, its copy with f64 weights, and its maps.
pub fn routed(case: &Case, max_k: usize) -> (RoutingTable, RoutingTable<f64>, PermuteMaps) {
    let table = case.routing_table(max_k);
    let maps = sorted(&table);
    let exact = widen(&table);
    (table, exact, maps)
}

pub fn sorted(table: &RoutingTable) -> PermuteMaps {
    let mut maps = PermuteMaps::default();
    Cpu::new(1).unwrap().sort(table, &mut maps).unwrap();
    maps
}

pub fn widen(table: &RoutingTable) -> RoutingTable<f64> {
    RoutingTable {
        token_offsets: table.token_offsets.clone(),
        expert_indices: table.expert_indices.clone(),
        routing_weights: f64s(&table.routing_weights),
        expert_offsets: table.expert_offsets.clone(),
    }
}

pub fn f64s<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

/// A matrix whose rows lie apart, at an odd address, with NaN in the gaps and fences around.
pub struct Matrix<T> {
    memory: Guarded<T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<T: Element> Matrix<T> {
    /// An output: all NaN.
    pub fn poisoned(rows: usize, cols: usize, pad: usize) -> Self {
        let stride = cols + pad;
        let elems = if rows == 0 {
            0
        } else {
            (rows - 1) * stride + cols
        };
        Self {
            memory: Guarded::new(elems, 1 + pad % 7),
            rows,
            cols,
            stride,
        }
    }

    /// An input.
    pub fn filled(values: &[T], rows: usize, cols: usize, pad: usize) -> Self {
        let mut matrix = Self::poisoned(rows, cols, pad);
        for r in 0..rows {
            matrix
                .view_mut()
                .row_mut(r)
                .copy_from_slice(&values[r * cols..(r + 1) * cols]);
        }
        matrix
    }

    pub fn view(&self) -> RowView<'_, T> {
        RowView::strided(self.memory.as_slice(), self.rows, self.cols, self.stride).unwrap()
    }

    pub fn view_mut(&mut self) -> RowViewMut<'_, T> {
        RowViewMut::strided(
            self.memory.as_mut_slice(),
            self.rows,
            self.cols,
            self.stride,
        )
        .unwrap()
    }

    /// The rows without gaps, after checking that fences and gaps are untouched.
    #[track_caller]
    pub fn dense(&self, what: &str) -> Vec<T> {
        self.memory.assert_canaries(what);
        let mut dense = Vec::with_capacity(self.rows * self.cols);
        for (r, row) in self
            .memory
            .as_slice()
            .chunks(self.stride.max(1))
            .enumerate()
        {
            if r < self.rows {
                let (inside, gap) = row.split_at(self.cols.min(row.len()));
                dense.extend_from_slice(inside);
                assert_same(
                    &format!("{what}: gap after row {r}"),
                    gap,
                    &vec![T::NAN; gap.len()],
                );
            }
        }
        dense
    }
}
