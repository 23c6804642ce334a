//! The list of cases, and what the tests run on them.
#![allow(dead_code)]

use tollgate_core::{Cpu, Element, RoutingTable};
use tollgate_permute::{Permute, PermuteMaps};
use tollgate_testkit::{Case, LogitKind, edge_cases};

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
